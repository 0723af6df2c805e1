"""Where a draft policy comes from: a row that is not in force, or a few words."""

from __future__ import annotations

from collections.abc import Iterable

from jit_approval import policies
from jit_approval.models import ApprovalPolicy
from jit_approval.states import Effect

_ASKED_FOR = frozenset({"actions", "condition", "effect"})


class NoSuchPolicy(LookupError):
    """There is no policy by that slug. `others` are the slugs there are."""

    def __init__(self, slug: str, others: Iterable[str]) -> None:
        super().__init__(f"There is no policy {slug!r}.")
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
