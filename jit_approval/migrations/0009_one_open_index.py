"""One index less on PostgreSQL, where `unique=True` on text makes two."""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jit_approval", "0008_event_list"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        # First, so that there is no moment without: MariaDB has no transaction around this.
        migrations.AddConstraint(
            model_name="approvalrequest",
            constraint=models.UniqueConstraint(
                fields=("open_key",), name="jit_request_one_open_per_call"
            ),
        ),
        migrations.AlterField(
            model_name="approvalrequest",
            name="open_key",
            field=models.CharField(editable=False, max_length=64, null=True),
        ),
    ]
