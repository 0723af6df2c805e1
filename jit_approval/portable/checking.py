"""Whether the database has what a policy file names, and a policy may say what it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import ValidationError

from jit_approval.models import ApprovalPolicy, Channel, PolicyGroupRequirement
from jit_approval.policies import durations, rungs
from jit_approval.policies.persons import database
from jit_approval.policies.versions import Snapshot
from jit_approval.portable.keys import DECIDE, FIELDS, KEYS, Kind
from jit_approval.portable.problems import Problem, like
from jit_approval.portable.reading import PolicyFile


def problems(file: PolicyFile, now: Mapping[str, Snapshot]) -> list[Problem]:
    """Return everything that keeps a file from being applied, to policies as they are `now`. Five queries."""
    found = list(file.problems)
    known = {problem.where for problem in found}
    names = _Names(file)
    for slug, said in file.snapshots.items():
        found += [*_slug(file, slug, now), *names.missing(slug, said)]
        # Where a value could not even be read, another stands in for it.
        found += [each for each in _fields(file, slug, said) if each.where not in known]
    return found


def _slug(file: PolicyFile, slug: str, now: Mapping[str, Snapshot]) -> Iterator[Problem]:
    """Refuse what would be taken for another policy: some databases compare without capital letters."""
    said, had = file.snapshots[slug], now.get(slug)
    others = {other.casefold(): other for other in now}
    other = others.get(slug.casefold(), slug)
    if had is None and other != slug:
        yield file.problem(f"there is {other!r}; a slug is never changed", slug)
    if had is not None and had["archived"] and had != said:
        yield file.problem("is archived and stays as it was; choose another slug", slug)
    if said["archived"] and said["enabled"]:
        yield file.problem(
            "what is archived is not in force; add enabled = false", slug, "archived"
        )


def _fields(file: PolicyFile, slug: str, said: Snapshot) -> Iterator[Problem]:
    """Ask the policy's own validators, of a list for each item."""
    row = ApprovalPolicy(slug=slug)
    for key in FIELDS:
        setattr(row, key, _as_field(key, said[key]))
    try:
        row.clean_fields()
    except ValidationError as error:
        for key, messages in error.message_dict.items():
            path = [key] if key in KEYS else []
            numbers = list(_bad_lines(key, said.get(key)))
            if numbers:
                for number, message in numbers:
                    yield file.problem(message, slug, key, number)
                continue
            for message in messages:
                yield file.problem(message, slug, *path)
    yield from _steps(file, slug, said)
    for name, count in said["group_requirements"].items():
        try:
            PolicyGroupRequirement(count=count).clean_fields(exclude=("policy", "group"))
        except ValidationError as error:
            for message in error.messages:
                yield file.problem(message, slug, "groups_required", name)


def _steps(file: PolicyFile, slug: str, said: Snapshot) -> Iterator[Problem]:
    for number, step in enumerate(said["steps"]):
        if not step["after"]:
            continue  # that it is missing, or cannot be read, was noted
        try:
            rungs.row_of(step)
            rungs.ensure_in_time(step, durations.parse(said["decide_within"]))
        except ValidationError as error:
            for message in error.messages:
                yield file.problem(message, slug, "steps", number)


def _as_field(key: str, value: Any) -> Any:
    if KEYS[key] is Kind.LINES:
        return "\n".join(value)
    return durations.parse(value) if KEYS[key] is Kind.DURATION else value


def _bad_lines(key: str, items: Any) -> Iterator[tuple[int, str]]:
    """Yield the number of each item that alone is refused already, and why."""
    if KEYS.get(key) is not Kind.LINES:
        return
    field: Any = ApprovalPolicy._meta.get_field(key)
    for number, item in enumerate(items):
        try:
            field.run_validators(item)
        except ValidationError as error:
            yield number, " ".join(error.messages)


class _Names:
    """The users, groups and permissions of this database that a file names."""

    def __init__(self, file: PolicyFile) -> None:
        self._file, alias = file, database()
        said = file.snapshots.values()
        users = {name for each in said for names in each["users"].values() for name in names}
        groups = {name for each in said for names in each["groups"].values() for name in names}
        groups |= {name for each in said for name in each["group_requirements"]}
        steps = [step for each in said for step in each["steps"]]
        users |= {name for step in steps for name in step["users"]}
        groups |= {name for step in steps for name in step["groups"]}
        model = get_user_model()
        rows = model._base_manager.using(alias)
        self._users = _found(rows, model.USERNAME_FIELD, users)
        self._groups = _found(Group.objects.using(alias), "name", groups)
        permissions = Permission.objects.using(alias).filter(
            content_type__app_label="jit_approval", content_type__model="approvalpolicy"
        )
        channels = {name for each in (*said, *steps) for name in each["channels"]}
        self._channels = _found(Channel.objects.using(alias), "slug", channels)
        self._permissions = set(permissions.values_list("codename", flat=True))

    def missing(self, slug: str, said: Snapshot) -> Iterator[Problem]:
        """Yield each name that is nobody's, at its own line."""
        for name in said["group_requirements"]:
            if name not in self._groups:
                yield self._file.problem(
                    f"there is no group {name!r}", slug, "groups_required", name
                )
        for name in said["channels"]:
            if name not in self._channels:
                message = f"there is no channel {name!r}"
                yield self._file.item_problem(message, name, slug, "channels")
        for number, step in enumerate(said["steps"]):
            for kind, known in self._known():
                yield from self._strangers(kind, known, step[kind], slug, "steps", number)
        for holder, known in (("users", self._users), ("groups", self._groups)):
            for codename, names in said[holder].items():
                path = ["deciders"] if codename == DECIDE else ["permissions", codename]
                if codename not in self._permissions:
                    near = like(codename, self._permissions)
                    message = f"there is no permission {codename!r} on policies{near}"
                    yield self._file.problem(message, slug, *path)
                yield from self._strangers(holder, known, names, slug, *path)

    def _known(self) -> tuple[tuple[str, set[str]], ...]:
        return (
            ("users", self._users),
            ("groups", self._groups),
            ("channels", self._channels),
        )

    def _strangers(
        self, holder: str, known: set[str], names: Iterable[str], *path: str | int
    ) -> Iterator[Problem]:
        for name in names:
            if name not in known:
                message = f"there is no {holder[:-1]} {name!r}"
                yield self._file.item_problem(message, name, *path, holder)


def _found(rows: Any, field: str, names: set[str]) -> set[str]:
    """Return those there are, spelled exactly so: a database may be less exact."""
    wanted, found = sorted(names), set()
    for start in range(0, len(wanted), _AT_ONCE):
        some = rows.filter(**{f"{field}__in": wanted[start : start + _AT_ONCE]})
        found |= {str(each) for each in some.values_list(field, flat=True)}
    return found


# SQLite takes no more parameters than it was built for.
_AT_ONCE = 500
