"""The audit trail cannot be changed in the database: triggers. Not where tests have lifted that (docs/audit.md)."""

from typing import Any

from django.db import migrations

from jit_approval import appendonly


def install(apps: Any, schema_editor: Any) -> None:
    """Make them where the tables are."""
    if not appendonly.is_lifted():
        appendonly.install(schema_editor.connection)


def uninstall(apps: Any, schema_editor: Any) -> None:
    """Remove them: the tables are about to change, or to go."""
    appendonly.uninstall(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("jit_approval", "0006_trail_tasks")]

    operations = [
        migrations.AlterModelOptions(
            name="auditevent",
            options={
                "ordering": ("id",),
                "permissions": (("erase_auditevent", "Can erase contents of the audit trail"),),
                "verbose_name": "audit event",
                "verbose_name_plural": "audit events",
            },
        ),
        migrations.RunPython(install, uninstall),
    ]
