"""`Prefer: wait=N`: a number of seconds, however large; what is none is no wish."""

import pytest

from jit_approval import prefer


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("wait=0", 0),
        ("respond-async, wait=60", 60),
        ('Wait="7"; x=1', 7),
        ("wait=5, wait=9", 5),
        ("wait=99999999999999999999", 10**9),
        ("wait=" + "9" * 10_000, 10**9),
        ("wait=-1", None),
        ("wait=1e3", None),
        ("wait=²", None),
        ("", None),
    ],
)
def test_seconds_of_a_wait_are_read_and_more_than_can_be_is_as_long_as_can_be(
    text: str, seconds: int | None
) -> None:
    assert prefer.wait_seconds({"HTTP_PREFER": text}) == seconds
