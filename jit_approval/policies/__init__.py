"""Which terms a call is held on, and who may decide it. One place, used by gate, services, admin and API."""

from jit_approval.policies.authority import (
    Ways,
    authority_of_user_sql,
    user_key,
    valid_votes_sql,
    ways_of,
)
from jit_approval.policies.counting import (
    has_quorum,
    is_reachable_still,
    quorum_is_reachable,
)
from jit_approval.policies.deciders import (
    DECIDE,
    Standing,
    decidable_by,
    deciders,
    deciders_of,
    ensure_may_decide,
    may_decide,
    with_authority,
    without_behind,
)
from jit_approval.policies.matching import (
    Considered,
    Match,
    Trouble,
    choose,
    explain,
    match,
    named,
    terms_of,
)
from jit_approval.policies.persons import database, is_behind, person_of
from jit_approval.policies.terms import on_object, still_covers, terms

__all__ = [
    "DECIDE",
    "Considered",
    "Match",
    "Standing",
    "Trouble",
    "Ways",
    "authority_of_user_sql",
    "choose",
    "database",
    "decidable_by",
    "deciders",
    "deciders_of",
    "ensure_may_decide",
    "explain",
    "has_quorum",
    "is_behind",
    "is_reachable_still",
    "match",
    "may_decide",
    "named",
    "on_object",
    "person_of",
    "quorum_is_reachable",
    "still_covers",
    "terms",
    "terms_of",
    "user_key",
    "valid_votes_sql",
    "ways_of",
    "with_authority",
    "without_behind",
]
