"""How an event is written: one form for one content, the same that RFC 8785 gives it."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from jit_approval.audit import links, records
from jit_approval.audit.ranges import Ranges, total
from jit_approval.audit.records import Record
from jit_approval.audit.spill import Spill

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.characters(codec="ascii"))
LEAVES = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT
VALUES = st.recursive(
    LEAVES,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(KEYS, some, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, VALUES))
def test_the_form_is_that_of_rfc_8785(body: dict[str, Any]) -> None:
    assert links.canonical(body).encode() == rfc8785.dumps(body)


@pytest.mark.parametrize("value", [1.0, float("nan"), 2**53, -(2**53), {"é": 1}, {1: 2}, b"a"])
def test_what_two_readers_might_read_differently_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        links.canonical({"data": [value]})


HASH = "0123456789abcdef" * 4


@given(st.integers(0, records.MOST), TEXT)
def test_a_line_is_read_as_it_was_written_and_has_no_other_form(index: int, body: str) -> None:
    record = Record(index, HASH, "", body)
    line = records.as_line(record)
    assert records.parse(line) == record
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert records.parse(line[:-1]) is None
    assert records.parse(line.replace(b'"hash":', b'"hash": ')) is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        f'{{"index":1,"hash":"{HASH}","body":null,"more":1}}\n'.encode(),
        f'{{"index":1,"index":1,"hash":"{HASH}","body":null}}\n'.encode(),
        f'{{"index":-1,"hash":"{HASH}","body":null}}\n'.encode(),
        f'{{"index":{2**63},"hash":"{HASH}","body":null}}\n'.encode(),
        f'{{"index":01,"hash":"{HASH}","body":null}}\n'.encode(),
        f'{{"index":1.0,"hash":"{HASH}","body":null}}\n'.encode(),
        f'{{"index":true,"hash":"{HASH}","body":null}}\n'.encode(),
        f'{{"index":1,"hash":"{HASH.upper()}","body":null}}\n'.encode(),
        f'{{"index":1,"previous":"{HASH}","hash":"{HASH}","body":null}}\n'.encode(),
        f'{{"index":1,"hash":"{HASH}","body":null,"origin":"x"}}\n'.encode(),
        f'{{"index":1,"previous":"","hash":"{HASH}","body":{{}}}}\n'.encode(),
        f'{{"index":1,"previous":"","hash":"{HASH}","body":"\\ud800"}}\n'.encode(),
    ],
)
def test_a_line_in_any_other_form_is_no_event(line: bytes) -> None:
    assert records.parse(line) is None


@given(TEXT.filter(bool))
def test_a_line_with_an_origin_has_one_form_too(origin: str) -> None:
    record = Record(7, HASH, "", "{}", origin)
    line = records.as_line(record)
    assert records.parse(line) == record
    assert records.parse(line.replace(b'"origin":', b'"origin": ', 1)) is None
    for none in (b'""', b"null", b"7", b"{}"):
        plain = records.as_line(Record(7, HASH, "", "{}"))
        assert records.parse(plain.replace(b"}\n", b',"origin":' + none + b"}\n")) is None


def test_an_erased_event_keeps_its_place_and_hash_alone() -> None:
    record = Record(7, HASH, "", None)
    assert records.as_line(record) == f'{{"index":7,"hash":"{HASH}","body":null}}\n'.encode()
    assert records.parse(records.as_line(record)) == record


@given(st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=3))), st.integers(1, 5))
def test_what_lies_in_the_file_is_found_as_what_lies_in_memory(
    puts: list[tuple[int, bytes]], most: int
) -> None:
    spill, plain = Spill(most), {}
    for number, value in puts:
        spill.put(str(number), value)
        plain[str(number)] = value
    assert all(spill.get(str(number)) == plain.get(str(number)) for number in range(301))
    spill.close()


STRETCH = st.tuples(st.integers(0, 40), st.integers(0, 40))


@given(st.lists(STRETCH), st.lists(STRETCH), st.lists(st.integers(0, 40)))
def test_ranges_are_sets(
    some: list[tuple[int, int]], others: list[tuple[int, int]], gone: list[int]
) -> None:
    mine, other, plain, minus = Ranges(), Ranges(), set(), set()
    for begin, end in some:
        mine.add(begin, end)
        plain.update(range(begin, end))
    for begin, end in others:
        other.add(begin, end)
        minus.update(range(begin, end))
    for number in gone:
        assert mine.discard(number) == (number in plain)
        plain.discard(number)
    assert {n for begin, end in mine for n in range(begin, end)} == plain
    assert len(mine) == total(mine) == len(plain)
    rest = [n for begin, end in mine.without(other) for n in range(begin, end)]
    assert rest == sorted(plain - minus)
