"""Where to begin to look for what is not sealed is found anew at each look through all events: one mark is enough."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("jit_approval", "0010_audit_origin")]

    operations = [
        migrations.RemoveField(model_name="treehead", name="candidate"),
        migrations.RemoveField(model_name="treehead", name="candidate_at"),
    ]
