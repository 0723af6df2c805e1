"""What a test leaves behind is gone for the next one, and what migrations made is there."""

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command

from tests import factories

MODELS = (get_user_model(), Group, Permission, ContentType)


def _keys() -> dict[str, list[object]]:
    return {
        model.__name__: list(model._base_manager.order_by("pk").values_list("pk", flat=True))
        for model in MODELS
    }


@pytest.mark.django_db(transaction=True)
def test_a_flush_takes_what_was_added_and_brings_back_what_was_taken_or_changed() -> None:
    before = _keys()
    factories.decider("bob")
    Group.objects.create(name="security")
    Permission.objects.filter(codename="decide").delete()
    Permission.objects.filter(codename="add_group").update(name="Another")
    ContentType.objects.create(app_label="none", model="none")
    assert _keys() != before
    call_command("flush", interactive=False, verbosity=0, reset_sequences=False)
    assert _keys() == before
    assert not Permission.objects.filter(name="Another").exists()


@pytest.mark.django_db(transaction=True)
def test_a_flush_of_what_is_as_it_was_changes_nothing() -> None:
    before = _keys()
    call_command("flush", interactive=False, verbosity=0, reset_sequences=False)
    assert _keys() == before
    assert before["Permission"]
