"""Steps on silence, who may decide for one was taken, and when people are to be told next."""

import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import jit_approval.models.escalation
import jit_approval.models.validators


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("jit_approval", "0004_server_execution"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="EscalatedDecider",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("step", models.PositiveSmallIntegerField(verbose_name="step")),
            ],
            options={
                "verbose_name": "escalated decider",
                "verbose_name_plural": "escalated deciders",
            },
        ),
        migrations.CreateModel(
            name="EscalationStep",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "after",
                    models.DurationField(
                        blank=True,
                        help_text="Since the call was held. hh:mm:ss",
                        null=True,
                        validators=[jit_approval.models.escalation.validate_after],
                        verbose_name="after",
                    ),
                ),
                (
                    "share",
                    models.PositiveSmallIntegerField(
                        blank=True,
                        help_text="Of the time to decide: 50 is half of it.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(99),
                        ],
                        verbose_name="or at percent",
                    ),
                ),
                (
                    "deciders",
                    models.BooleanField(
                        default=False,
                        help_text="Those who have not decided yet.",
                        verbose_name="deciders again",
                    ),
                ),
                (
                    "addresses",
                    models.TextField(
                        blank=True,
                        help_text="E-mail, one per line.",
                        validators=[jit_approval.models.validators.validate_addresses],
                        verbose_name="addresses",
                    ),
                ),
                (
                    "may_decide",
                    models.BooleanField(
                        default=False,
                        help_text="The users and the members of the groups; the quorum stays as it is.",
                        verbose_name="may decide from then on",
                    ),
                ),
            ],
            options={
                "verbose_name": "step",
                "verbose_name_plural": "steps on silence",
                "ordering": ("policy", "id"),
            },
        ),
        migrations.AddField(
            model_name="approvalrequest",
            name="ladder",
            field=models.JSONField(default=list, editable=False),
        ),
        migrations.AddField(
            model_name="approvalrequest",
            name="steps_taken",
            field=models.PositiveSmallIntegerField(default=0, editable=False),
        ),
        migrations.AddField(
            model_name="approvalrequest",
            name="wake_at",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="approvalrequest",
            name="warned",
            field=models.BooleanField(default=False, editable=False),
        ),
        migrations.AddField(
            model_name="notification",
            name="occasion",
            field=models.PositiveSmallIntegerField(default=0, verbose_name="occasion"),
        ),
        migrations.AddIndex(
            model_name="approvalrequest",
            index=models.Index(fields=["wake_at"], name="jit_request_wake"),
        ),
        migrations.AddConstraint(
            model_name="notification",
            constraint=models.UniqueConstraint(
                fields=("approval_request", "event", "occasion", "recipient", "channel"),
                name="jit_notification_told_once",
            ),
        ),
        # After the new one: MariaDB needs an index that begins with the foreign key at all times.
        migrations.RemoveConstraint(
            model_name="notification",
            name="jit_notification_once",
        ),
        migrations.AddField(
            model_name="escalateddecider",
            name="approval_request",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="escalated_deciders",
                to="jit_approval.approvalrequest",
            ),
        ),
        migrations.AddField(
            model_name="escalateddecider",
            name="group",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="auth.group",
            ),
        ),
        migrations.AddField(
            model_name="escalateddecider",
            name="user",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="escalationstep",
            name="channels",
            field=models.ManyToManyField(
                blank=True, related_name="steps", to="jit_approval.channel", verbose_name="channels"
            ),
        ),
        migrations.AddField(
            model_name="escalationstep",
            name="groups",
            field=models.ManyToManyField(
                blank=True, related_name="+", to="auth.group", verbose_name="groups"
            ),
        ),
        migrations.AddField(
            model_name="escalationstep",
            name="policy",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="steps",
                to="jit_approval.approvalpolicy",
            ),
        ),
        migrations.AddField(
            model_name="escalationstep",
            name="users",
            field=models.ManyToManyField(
                blank=True, related_name="+", to=settings.AUTH_USER_MODEL, verbose_name="users"
            ),
        ),
        migrations.AddConstraint(
            model_name="escalateddecider",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("group__isnull", True), ("user__isnull", False)),
                    models.Q(("group__isnull", False), ("user__isnull", True)),
                    _connector="OR",
                ),
                name="jit_escalated_user_or_group",
            ),
        ),
        migrations.AddConstraint(
            model_name="escalationstep",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("after__isnull", False), ("share__isnull", True)),
                    models.Q(("after__isnull", True), ("share__isnull", False)),
                    _connector="OR",
                ),
                name="jit_step_has_one_moment",
            ),
        ),
        migrations.AddConstraint(
            model_name="escalationstep",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("share__isnull", True), ("share__range", (1, 99)), _connector="OR"
                ),
                name="jit_step_share_lies_within",
            ),
        ),
    ]
