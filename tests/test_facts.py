"""What a condition is told of a call: nothing that the view would read is absent."""

from __future__ import annotations

import pytest
from rest_framework.parsers import FormParser, JSONParser
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from jit_approval import conditions, facts
from tests import factories

pytestmark = pytest.mark.django_db


def of(data: object, condition: str) -> bool:
    http = APIRequestFactory().post("/x/")
    request = Request(http, parsers=[JSONParser(), FormParser()])
    request.user = factories.user()
    found = facts.of_call(request, action="a.b", method="POST", data=data, context={})
    return conditions.evaluate(condition, found())


@pytest.mark.parametrize("name", ["items[0]price", "items.price", "items[]"])
def test_nested_value_of_a_form_is_not_absent(name) -> None:
    data = {name: "600", "other": "1"}
    assert of(data, "has(request.data.items)")
    assert not of(data, "!has(request.data.items)")
    assert of(data, 'request.data.other == "1"')
    for condition in (
        "request.data.items.exists(i, i.price > 500)",
        'request.data.items == "600"',
        "size(request.data.items) > 0",
    ):
        with pytest.raises(conditions.ConditionFailed):
            of(data, condition)


def test_plain_names_stay_as_they_are() -> None:
    assert not of({"a": 1, "[x": 2}, "has(request.data.items)")
    assert of({"items": [1], "items[0]": 2}, "request.data.items == [1]") in (True, False)
