"""Where a draft policy comes from: a row that is not in force, a policy file, or a few words."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.exceptions import ValidationError

from jit_approval import policies, portable
from jit_approval.models import ApprovalPolicy
from jit_approval.states import Effect

_ASKED_FOR = frozenset({"actions", "condition", "effect"})


class NoSuchPolicy(LookupError):
    """There is no policy by that slug, or none is named. `others` are the slugs there are."""

    def __init__(self, slug: str, others: Iterable[str]) -> None:
        super().__init__(f"There is no policy {slug!r}." if slug else "Name one of the policies.")
        self.others = tuple(others)


def of_slug(slug: str) -> ApprovalPolicy:
    """Return a policy of the database, in force or not.

    Raises:
        NoSuchPolicy: with the slugs there are.
    """
    rows = ApprovalPolicy.objects.using(policies.database())
    policy = rows.filter(slug=slug).first()
    if policy is None:
        raise NoSuchPolicy(slug, rows.order_by("slug").values_list("slug", flat=True))
    return policy


def of_words(
    globs: Iterable[str], condition: str = "", effect: str = Effect.REQUIRE
) -> ApprovalPolicy:
    """Return a policy that is nowhere saved.

    Raises:
        ValidationError: a glob, condition or effect that no policy may have, by field.
    """
    draft = ApprovalPolicy(actions="\n".join(globs), condition=condition, effect=effect)
    names = {field.name for field in ApprovalPolicy._meta.fields}
    draft.clean_fields(exclude=names - _ASKED_FOR)
    return draft


def of_file(content: bytes, slug: str = "") -> ApprovalPolicy:
    """Return a policy of a policy file; `slug` may stay away where there is one only. It is nowhere saved.

    Raises:
        FileRefused: with what is wrong in it, line by line.
        NoSuchPolicy: with the slugs there are.
    """
    file = portable.read(content)
    if file.problems:
        raise portable.FileRefused(file.problems)
    if not slug and len(file.snapshots) == 1:
        (slug,) = file.snapshots
    if slug not in file.snapshots:
        raise NoSuchPolicy(slug, sorted(file.snapshots))
    said = file.snapshots[slug]
    try:
        draft = of_words(said["actions"], said["condition"], said["effect"])
    except ValidationError as error:
        raise portable.FileRefused(
            file.problem(text, slug, name)
            for name, texts in error.message_dict.items()
            for text in texts
        ) from None
    draft.slug, draft.name = slug, said["name"]
    return draft
