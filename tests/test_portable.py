"""A policy file says what its reader thinks it says, or is refused with the line that does not."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jit_approval import portable
from jit_approval.policies import rungs, versions
from jit_approval.portable.doubts import overlap
from jit_approval.portable.keys import FIELDS, KEYS, defaults
from jit_approval.portable.places import Places
from tests import factories

DOCS = Path(__file__).parent.parent / "docs"
SMALL = '[policies.erasure]\nname = "Erasure"\nactions = ["customers.destroy"]\n'


def faults(text: str | bytes) -> list[str]:
    """What is wrong with a file before the database is asked."""
    content = text.encode() if isinstance(text, str) else text
    try:
        return [str(problem) for problem in sorted(portable.read(content).problems)]
    except portable.FileRefused as error:
        return [str(problem) for problem in error.problems]


def said(text: str) -> dict[str, Any]:
    assert faults(text) == []
    return portable.read(text.encode()).snapshots


def test_the_policy_files_in_the_docs_are_read_as_they_stand() -> None:
    found = {
        page.name: re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        for page in sorted(DOCS.glob("*.md"))
    }
    wrong = {name: [faults(each) for each in texts] for name, texts in found.items() if texts}
    assert wrong
    assert not [each for each in wrong.items() if any(each[1])]


# --- what is read ------------------------------------------------------------------------------------------


def test_what_is_left_out_is_as_a_new_policy_has_it() -> None:
    assert said(SMALL)["erasure"] == {
        **defaults("erasure"),
        "name": "Erasure",
        "actions": ["customers.destroy"],
    }


@pytest.mark.django_db
def test_every_field_of_a_policy_can_be_written_down() -> None:
    policy = factories.policy(slug="whole")
    assert {*versions.snapshot(policy)} == {*defaults("whole")}
    assert {*KEYS} - {*FIELDS} == {
        "channels",
        "groups_required",
        "deciders",
        "permissions",
        "steps",
    }


def test_every_key_is_read() -> None:
    text = """
    [policies.all] # a comment
    name = "All"
    description = '''
    two
    lines'''
    archived = false
    enabled = false
    priority = -5
    actions = [
        "a.*",  # one
        "b.*",
    ]
    effect = "deny"
    condition = "request.data.amount > 1"
    severity = "high"
    execution = "server"
    required_approvals = 3
    groups_required = { security = 2, "pay roll" = 1 }
    deciders = { users = ["bob", "ann"], groups = ["security"] }
    permissions.view_approvalpolicy.users = ["carl"]
    object_permission = "testapp.change_customer"
    decide_within = "90s"
    usable_within = "1h"
    rejection_cooldown = "0s"
    max_wait = "30s"
    require_reason = true
    reason_pattern = 'INC-\\d+'
    require_approval_id = true
    fallback = ["a@example.test"]
    channels = ["pager", "ops"]
    steps = [
        { after = "050s", deciders = true }, # once more
        { after = "75%", groups = ["managers"], users = ["zoe", "ann"], may_decide = true },
        { after = "80s", addresses = ["duty@example.test"], channels = ["pager"] },
    ]
    """
    found = said(text)["all"]
    assert found == {
        "slug": "all",
        "name": "All",
        "description": "    two\n    lines",
        "archived": False,
        "enabled": False,
        "priority": -5,
        "actions": ["a.*", "b.*"],
        "effect": "deny",
        "condition": "request.data.amount > 1",
        "severity": "high",
        "execution": "server",
        "required_approvals": 3,
        "group_requirements": {"security": 2, "pay roll": 1},
        "users": {"decide": ["ann", "bob"], "view_approvalpolicy": ["carl"]},
        "groups": {"decide": ["security"]},
        "object_permission": "testapp.change_customer",
        "decide_within": "1m30s",
        "usable_within": "1h",
        "rejection_cooldown": "0s",
        "max_wait": "30s",
        "require_reason": True,
        "reason_pattern": "INC-\\d+",
        "require_approval_id": True,
        "fallback": ["a@example.test"],
        "channels": ["ops", "pager"],
        "steps": [
            {**rungs.nothing(), "after": "50s", "deciders": True},
            {
                **rungs.nothing(),
                "after": "75%",
                "groups": ["managers"],
                "users": ["ann", "zoe"],
                "may_decide": True,
            },
            {
                **rungs.nothing(),
                "after": "1m20s",
                "addresses": ["duty@example.test"],
                "channels": ["pager"],
            },
        ],
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "required_aprovals = 3",
            "unknown key 'required_aprovals'; did you mean required_approvals?",
        ),
        ("Enabled = false", "unknown key 'Enabled'; did you mean enabled?"),
        ("required_approvals = 2.0", "must be a whole number, not a number with a fraction"),
        ("required_approvals = nan", "must be a whole number, not a number with a fraction"),
        ("required_approvals = inf", "must be a whole number, not a number with a fraction"),
        ("required_approvals = true", "must be a whole number, not true or false"),
        ('required_approvals = "2"', "must be a whole number, not a text"),
        ("required_approvals = 2026-01-01", "must be a whole number, not a date or time"),
        ("required_approvals = 0x2", "plain digits"),
        ("required_approvals = 0b1", "plain digits"),
        ("required_approvals = 1_0", "plain digits"),
        ("required_approvals = +2", "plain digits"),
        ("required_approvals = -0", "plain digits"),
        ("required_approvals = 99999999999", "plain digits"),
        (f"required_approvals = {'9' * 5000}", "a number this long"),
        ("enabled = 1", "must be true or false, not a number"),
        ('enabled = "false"', "must be true or false, not a text"),
        ("decide_within = 15", "must be a duration in quotes"),
        ("decide_within = 00:15:00", "must be a duration in quotes"),
        ('decide_within = "15"', "must be a duration in quotes"),
        ('decide_within = "-15m"', "must be a duration in quotes"),
        (f'decide_within = "{"999999999d" * 20}"', "must be a duration in quotes"),
        ('condition = ["true"]', "must be a text, in quotes, not a list"),
        ('fallback = "a@example.test"', "must be a list of texts"),
        ("fallback = [1]", "must be a text, in quotes, not a number"),
        ('fallback = [""]', "not an empty text"),
        ('fallback = ["a@b.test\\nc@b.test"]', "must be one line"),
        ('fallback = [" a@b.test"]', "must be one line"),
        ('fallback = ["a@b.test", "a@b.test"]', "'a@b.test' is named twice"),
        ('deciders = ["bob"]', "must be a table of users and groups"),
        ('deciders = { user = ["bob"] }', "unknown key 'user'; did you mean users?"),
        ('deciders = { users = ["bob", "bob"] }', "'bob' is named twice"),
        ('permissions = { decide = { users = ["bob"] } }', "who may decide is written as deciders"),
        ("groups_required = { security = 2.0 }", "must be a whole number"),
        ("groups_required = ['security']", "must be a table of groups and numbers"),
        ("archived.x = 1", "must be true or false, not a table"),
        ('condition = "a\\u0000b"', "NUL"),
    ],
)
def test_value_that_does_not_fit_is_refused_with_its_line(line: str, message: str) -> None:
    (fault,) = faults(f"{SMALL}{line}\n")
    assert fault.startswith("4: ")
    assert message in fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("\n[policy.a]\n", "2: policy: unknown key 'policy'; policies are [policies.the-slug]"),
        ("policies = 1\n", "1: policies are written [policies.the-slug]"),
        ("[policies]\na = 1\n", "2: a: a policy is a table: [policies.a]"),
        ("[[policies]]\n", "1: [[...]] is not used here"),
        ("[policies.a]\nactions = ['x']\n", "1: a.name: is missing"),
        ("[policies.a]\nname = 'A'\nactions = []\n", "3: a.actions: is missing"),
        (f"{SMALL}{SMALL}", "4: [policies.erasure] is written twice; first in line 1"),
        (f"{SMALL}name = 'x'\n", "4: name is written twice; first in line 2"),
        (f"{SMALL}deciders = {{ users = ['a'], users = ['b'] }}\n", "4: users is written twice"),
        (f"{SMALL}[policies]\nerasure.enabled = false\n", "not TOML"),
        (f"{SMALL}{SMALL.replace('erasure', 'ERASURE')}", "differs from 'erasure' in capital"),
        (f"{SMALL}enabled = \n", "4: a value is expected here"),
        (f"{SMALL}enabled = true false\n", "4: this line goes on"),
        (f"{SMALL}enabled\n", "4: a line is a [table], or a key = value"),
        (f"{SMALL}fallback = ['a'\n", "this list goes on without a comma"),
        (f'{SMALL}condition = "a\n', "4: a value is expected here"),
        (f'{SMALL}condition = "\\q"\n', "4: not TOML"),
        (f"{SMALL}enabled = TRUE\n", "4: not TOML"),
        (f"{SMALL}= 1\n", "4: a key is expected here"),
        (f"[{'.'.join('a' * 20)}]\n", "1: nothing in a policy file lies this deep"),
    ],
)
def test_text_that_is_no_policy_file_is_refused_with_its_line(text: str, fault: str) -> None:
    assert fault in faults(text)[0]


def test_all_faults_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = f"{SMALL}enabled = 1\nfoo = 2\n[policies.b]\nname = 3\n"
    assert [fault.split(":")[0] for fault in faults(text)] == ["4", "5", "6", "7"]


# --- what nobody would see ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\xef\xbb\xbf" + SMALL.encode(), "1: starts with a byte order mark"),
        (SMALL.encode() + b"# \xff\n", "4: not UTF-8"),
        (SMALL.encode("utf-16"), "1: not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "1: larger than 1024 KiB"),
        (f"{SMALL}# \u202e\n".encode(), "4: a character nobody can see"),
        (f"{SMALL}condition = 'a\u200bb'\n".encode(), "4: a character nobody can see"),
        (f"{SMALL}# a\rname = 'b'\n".encode(), "4: a character nobody can see"),
        (f"{SMALL}# \x1b[2K\n".encode(), "4: a character nobody can see"),
        (f"{SMALL}# \U000e0041\n".encode(), "4: a character nobody can see"),
    ],
)
def test_file_that_shows_less_than_it_says_is_refused(content: bytes, fault: str) -> None:
    assert faults(content)[0].startswith(fault)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("en\u0430bled = false", "4: "),  # a bare key is ASCII in TOML
        ('"en\u0430bled" = false', "without quotes"),
        ('"enabl\\u0065d" = false', "without quotes"),
        ('"enabled" = false', "without quotes"),
        ("actions2 = ['\u0441ustomers.*']", "unknown key"),
        ("condition = '\u0441ustomers'", "CYRILLIC SMALL LETTER ES"),
        ("fallback = ['a\u2024b@example.test']", "ONE DOT LEADER"),
        ('condition = "\\u0063ustomers"', "write c as itself"),
        ('condition = "\\U00000063ustomers"', "write c as itself"),
        ("deciders = { groups = ['se\u0441urity'] }", "CYRILLIC SMALL LETTER ES"),
        ("groups_required = { 'se\u0441urity' = 1 }", "CYRILLIC SMALL LETTER ES"),
        ('groups_required = { "s\\u0065curity" = 1 }', "write e as itself"),
        ("effect = '\uff41llow'", "FULLWIDTH LATIN SMALL LETTER A"),
    ],
)
def test_letters_that_look_like_others_are_refused(line: str, fault: str) -> None:
    assert any(fault in each for each in faults(f"{SMALL}{line}\n"))


def test_glob_with_a_foreign_letter_is_refused_unless_it_is_written_as_an_escape() -> None:
    glob = SMALL.replace("customers", "\u0441ustomers")
    assert "3: erasure.actions: \u0441 is CYRILLIC SMALL LETTER ES" in faults(glob)[0]
    escape = SMALL.replace("customers", "\\u0441ustomers")
    assert said(escape)["erasure"]["actions"] == ["\u0441ustomers.destroy"]


@pytest.mark.parametrize(
    "name", ["Pr\u00fcfer", "\u5b89\u5168", "\u0430\u0443\u0434\u0438\u0442", "a-\u03b2"]
)
def test_group_may_have_a_name_in_any_script(name: str) -> None:
    text = f"{SMALL}deciders = {{ groups = ['{name}'] }}\ngroups_required = {{ '{name}' = 1 }}\n"
    assert said(text)["erasure"]["groups"] == {"decide": [name]}


def test_prose_may_be_in_any_script() -> None:
    text = SMALL.replace("Erasure", "Löschung für μs, \U0001f5d1")
    assert said(text)["erasure"]["name"] == "Löschung für μs, \U0001f5d1"


def test_one_text_cannot_smuggle_in_a_second_glob() -> None:
    text = SMALL.replace("customers.destroy", "customers.destroy\\n*")
    assert "must be one line" in faults(text)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "a." * 500_000 + "b = 1",
        "[" + "a." * 500_000 + "b]",
        "a = " + "[" * 500_000,
        "a = " + "{a=" * 250_000,
        'a = "' + "\\" * 1_000_001,
        "a = '''" + "'" * 1_000_000,
        'a = """' + '"' * 1_000_000,
        "\n".join(f"[policies.p{n}]" for n in range(50_000)),
        "a = [" + "1," * 500_000 + "]",
        "#" * 1_000_000,
    ],
    ids=lambda text: text[:8],
)
def test_large_and_hostile_texts_end_soon(text: str) -> None:
    from resource import RUSAGE_SELF, getrusage

    before = getrusage(RUSAGE_SELF).ru_utime
    faults(text)
    assert getrusage(RUSAGE_SELF).ru_utime - before < 15


# --- lines -------------------------------------------------------------------------------------------------

_bare = st.text("abAB01_-", min_size=1, max_size=4)
_strings = st.one_of(
    st.sampled_from(
        [
            '""',
            '"a # b"',
            '"\\"]"',
            "'\\'",
            '"""\n] = "x" \n"""',
            "'''\n# 'x' ]'''",
            '"""a\\\n   b"""',
            '"""a"""""',
            "''''a'''",
        ]
    ),
    st.sampled_from(["1", "-1", "1.5", "true", "nan", "1979-05-27T07:32:00Z", "07:32:00"]),
)
_gaps = st.sampled_from(["", " ", "\n", " # ]\n", "\n\n\t"])


@st.composite
def _values(draw: Any, depth: int = 2) -> str:
    if depth == 0 or draw(st.booleans()):
        return str(draw(_strings))
    if draw(st.booleans()):
        items = draw(st.lists(_values(depth - 1), max_size=3))
        gap = draw(_gaps)
        comma = draw(st.sampled_from(["", ","])) if items else ""
        return f"[{gap}{f'{gap},{gap}'.join(items)}{gap}{comma}{gap}]"
    keys = draw(st.lists(_bare, max_size=3, unique_by=str))
    pairs = [f"{key} = {draw(_values(depth - 1))}" for key in keys]
    return f"{{ {' , '.join(pairs)} }}"


@st.composite
def _documents(draw: Any) -> str:
    lines = []
    for table in draw(st.lists(_bare, max_size=3, unique=True)):
        lines.append(f"[ t . {table} ]{draw(st.sampled_from(['', ' # x = 1']))}")
        for key in draw(st.lists(_bare, max_size=3, unique=True)):
            lines += [""] * draw(st.integers(0, 1))
            more = draw(st.sampled_from(["", ".z", ' . "q"']))
            lines.append(f"{key}{more} = {draw(_values())}")
    return "\n".join(lines)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key), item
        if isinstance(item, dict | list):
            yield from _paths(item, (*path, key))


@settings(max_examples=400, deadline=None)
@given(_documents())
def test_every_value_of_a_document_has_the_line_it_stands_in(text: str) -> None:
    document, places = tomllib.loads(text), Places(text)
    found = dict(_paths(document))
    assert places.paths == {*found}
    for path, item in found.items():
        place = places[path]
        line = text.split("\n")[place.line - 1]
        assert str(path[-1]) in line or place.key == ""
        if place.written:
            again = tomllib.loads(f"value = {place.written}")["value"]
            assert again == item or item != item or isinstance(item, list | dict)


# --- what is written ---------------------------------------------------------------------------------------

_text = st.text(
    st.one_of(
        st.sampled_from("ab \"\\\n\t\r'#=[]{},.\u0430\u202e\u00e9\u2028\x7f\x1b\U0001f600"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    max_size=30,
)
_line = _text.map(lambda text: "".join(text.split())).filter(
    lambda text: text.isprintable() and text
)
_names = st.lists(_text.filter(bool), max_size=3, unique=True).map(sorted)
_held = st.dictionaries(
    st.sampled_from(["decide", "view_approvalpolicy"]), _names.filter(bool), max_size=2
)
_spans = st.sampled_from(["1s", "15m", "1h30m", "30d", "1d1h1m1s1ms"])


_steps = st.fixed_dictionaries(
    {
        "after": st.one_of(_spans, st.integers(1, 99).map(lambda share: f"{share}%")),
        "deciders": st.booleans(),
        "users": _names,
        "groups": _names,
        "addresses": st.lists(_line, max_size=2, unique=True),
        "channels": st.lists(st.sampled_from(["ops", "x_1"]), unique=True).map(sorted),
        "may_decide": st.booleans(),
    }
)


@st.composite
def _snapshots(draw: Any, slug: str) -> dict[str, Any]:
    return {
        "slug": slug,
        "name": draw(_text.filter(bool)),
        "description": draw(_text),
        "enabled": draw(st.booleans()),
        "archived": draw(st.booleans()),
        "priority": draw(st.integers(-(2**31), 2**31 - 1)),
        "effect": draw(st.sampled_from(["require", "allow", "deny", "observe"])),
        "condition": draw(_text),
        "severity": draw(st.sampled_from(["low", "normal", "high", "critical"])),
        "execution": draw(st.sampled_from(["caller", "server"])),
        "required_approvals": draw(st.integers(1, 1000)),
        "object_permission": draw(_text),
        "require_reason": draw(st.booleans()),
        "reason_pattern": draw(_text),
        "require_approval_id": draw(st.booleans()),
        "actions": draw(st.lists(_line, min_size=1, max_size=12, unique=True)),
        "fallback": draw(st.lists(_line, max_size=3, unique=True)),
        "channels": draw(
            st.lists(st.sampled_from(["ops", "on-call", "x_1"]), unique=True).map(sorted)
        ),
        "steps": draw(st.lists(_steps, max_size=3)),
        "decide_within": draw(_spans),
        "usable_within": draw(_spans),
        "rejection_cooldown": draw(_spans),
        "max_wait": draw(_spans),
        "group_requirements": draw(
            st.dictionaries(_text.filter(bool), st.integers(1, 1000), max_size=3)
        ),
        "users": draw(_held),
        "groups": draw(_held),
    }


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_written_is_read_back_whatever_the_policies_say(data: Any) -> None:
    slugs = data.draw(st.lists(st.text("ab-_1", min_size=1, max_size=5), max_size=3, unique=True))
    wanted = {slug: data.draw(_snapshots(slug)) for slug in slugs}
    text = portable.write(wanted.values())
    assert said(text) == wanted
    assert portable.write(reversed(list(said(text).values()))) == text


def test_policies_are_written_in_the_order_they_are_asked_in() -> None:
    some = [defaults("b"), defaults("a"), {**defaults("c"), "priority": 1}]
    assert [line for line in portable.write(some).split("\n") if line.startswith("[")] == [
        "[policies.c]",
        "[policies.a]",
        "[policies.b]",
    ]


def test_file_reads_as_people_would_write_it() -> None:
    text = """\
[policies.payouts]
name = "Payouts"
actions = ["payouts.create"]
condition = \"\"\"
request.data.amount > 10000
&& !("treasury" in user.groups)\"\"\"
required_approvals = 3
groups_required = { finance = 1, security = 2 }
deciders = { users = ["ann"], groups = ["finance", "security"] }
permissions.view_approvalpolicy = { groups = ["audit"] }
decide_within = "1h"
"""
    assert portable.write(said(text).values()) == text


def test_long_lists_are_written_a_line_each() -> None:
    names = [f"somebody.with.a.long.name.{number}" for number in range(4)]
    policy = {**defaults("a"), "name": "A", "actions": ["x"], "users": {"decide": names}}
    text = portable.write([policy])
    assert 'deciders.users = [\n    "somebody.with.a.long.name.0",\n' in text
    assert said(text)["a"] == policy


# --- two globs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("customers.*", "customers.destroy", True),
        ("*", "anything", True),
        ("*.destroy", "customers.*", True),
        ("a*b", "*c*b", True),
        ("customers.*", "transfers.*", False),
        ("*.destroy", "*.create", False),
        ("a?", "a", False),
        ("a[xy]", "ab", True),
        ("a[!]]c", "abc", True),
        ("a", "a", True),
        ("A", "a", False),
        ("*a*", "b?b", True),
        ("", "*", True),
    ],
)
def test_globs_overlap_where_one_label_could_match_both(one, other, expected) -> None:
    assert overlap(one, other) is overlap(other, one) is expected


@settings(max_examples=500, deadline=None)
@given(st.text("ab*?", max_size=6), st.text("ab*?", max_size=6), st.text("ab", max_size=6))
def test_globs_that_match_one_label_overlap(one: str, other: str, label: str) -> None:
    from fnmatch import fnmatchcase

    if fnmatchcase(label, one) and fnmatchcase(label, other):
        assert overlap(one, other)
