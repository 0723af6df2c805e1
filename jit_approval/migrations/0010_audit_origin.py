"""From where somebody acted, beside the body of an event; the triggers that keep it as it was written."""

from typing import Any

from django.db import migrations, models

from jit_approval import appendonly


def install(apps: Any, schema_editor: Any) -> None:
    """Make the triggers anew, for the columns that are there."""
    if not appendonly.is_lifted():
        appendonly.install(schema_editor.connection)


def uninstall(apps: Any, schema_editor: Any) -> None:
    """Remove them: the column that they know is about to go."""
    appendonly.uninstall(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("jit_approval", "0009_one_open_index")]

    operations = [
        # On the way back, once the column is gone.
        migrations.RunPython(migrations.RunPython.noop, install),
        migrations.AddField(
            model_name="auditevent",
            name="origin",
            field=models.TextField(blank=True, default="", verbose_name="from where"),
        ),
        # The old ones stay until then: they let a column be added.
        migrations.RunPython(install, uninstall),
    ]
