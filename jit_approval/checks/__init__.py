"""System checks: what would leave a call ungated, unanswerable or undone is said at start-up.

| id | what |
|---|---|
| jit_approval.E001 | the gate is an operand of `&`, `|` or `~` |
| jit_approval.E002 | `approval_methods` is no list, or names what cannot be gated |
| jit_approval.E003 | `approval_action` stands on a whole ViewSet |
| jit_approval.E004 | a gated handler is async |
| jit_approval.E005 | gated views under ATOMIC_REQUESTS without the middleware |
| jit_approval.E006 | under ATOMIC_REQUESTS a gated view keeps its transaction: it overrides `get_permissions` |
| jit_approval.E007 | a gated detail route whose object cannot be loaded |
| jit_approval.E008 | `USE_TZ` is off |
| jit_approval.E009 | `JIT_APPROVAL` is malformed |
| jit_approval.E010 | a value in `JIT_APPROVAL` is unsafe, or leads nowhere |
| jit_approval.E011 | the database is of an unsupported kind |
| jit_approval.E012 | tables that are read together are routed to different databases |
| jit_approval.E013 | the user model lacks what deciders are found by |
| jit_approval.E014 | `AUDIT_APPEND_ONLY` is off, and DEBUG too |
| jit_approval.E015 | the database keeps times in another zone than UTC |
| jit_approval.W001 | SQLite without `transaction_mode` IMMEDIATE |
| jit_approval.W002 | no `BASE_URL`: messages carry no links (`check --deploy`) |
| jit_approval.W003 | gated view with a `dispatch()` or `check_permissions()` of its own |
| jit_approval.W010 | enabled policies whose deciders cannot give the approvals asked for |
| jit_approval.W011 | the same, of policies that count on holders of a permission on the object |
| jit_approval.W012 | policies with a condition, and no CEL library |
| jit_approval.W013 | policies that do not say what their newest version says |
| jit_approval.W014 | changes of policies are gated, and nobody could approve one |
| jit_approval.W015 | changes of policies are gated, and a page of the admin gets around it |
| jit_approval.W016 | changes of policies are gated, and those by some people nobody else could approve |
| jit_approval.W017 | policies have the server run calls, and there is no key to keep them under |
| jit_approval.W018 | the database does not keep the trail append-only: triggers are missing |
| jit_approval.W019 | critical calls wait until the trail is sealed, and no key is configured here |
| jit_approval.W020 | nothing sweeps: deadlines are not recorded, lost messages not sent |
| jit_approval.W021 | deadlines that were not recorded |
| jit_approval.W022 | messages that are not delivered |
| jit_approval.W023 | messages that were given up in the last day |
| jit_approval.W024 | runs of which nobody knows how they ended |
| jit_approval.W025 | tasks that nobody takes out of django-q2's queue |
| jit_approval.W026 | the audit trail is not sealed |
| jit_approval.W027 | the audit trail does not reach where it is exported to |
| jit_approval.W028 | the audit trail was not as it was signed when it was last verified |
| jit_approval.W029 | steps on silence that were not taken |
| jit_approval.W030 | policies have the server run calls, and django-q2 cuts them off before `RUN_LIMIT` |
| jit_approval.W031 | the same, and django-q2 starts tasks again that still run |
| jit_approval.W040 | callers may wait on the line, and no middleware keeps them there |
| jit_approval.W041 | that middleware is not the first |
| jit_approval.W042 | callers may wait on the line, and under ATOMIC_REQUESTS none does |

W010 to W014, W016 to W018, W030 and W031 query the database: they run with `migrate` and `check --database default`,
as Django's own do. W020 to W029 query it too, with `check --deploy` alone, and have a tag of their own,
`jit_approval_health`: they are about this moment. The others query nothing. What they look at is imported when they
run, not when they are registered.
"""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Tags, register

TAG = "jit_approval"
HEALTH_TAG = "jit_approval_health"
POLICIES_TAG = "jit_approval_policies"


def register_all() -> None:
    """Register every check: with Django's own tags, and those that ask no database under `jit_approval`."""
    register(_views, Tags.urls, TAG)
    register(_settings, Tags.security, TAG)
    register(_waiting, TAG)
    register(_deployment, Tags.security, TAG, deploy=True)
    # Not Tags.database, which only `check --database` runs: these look at settings, not at data.
    register(_databases, TAG)
    # Not TAG: Django 6.1 asks every database as soon as a tag is named.
    register(_policies, Tags.database, POLICIES_TAG)
    register(_trail, Tags.database, POLICIES_TAG)
    register(_admin, Tags.admin, TAG)
    register(_health, HEALTH_TAG, deploy=True)


def _views(**_: Any) -> list[CheckMessage]:
    from jit_approval.checks import views

    return views.check()


def _settings(**_: Any) -> list[CheckMessage]:
    from jit_approval.checks import config

    return config.check()


def _waiting(**_: Any) -> list[CheckMessage]:
    from jit_approval.checks import waiting

    return waiting.check()


def _deployment(**_: Any) -> list[CheckMessage]:
    from jit_approval.checks import config

    return config.check_deployment()


def _databases(**_: Any) -> list[CheckMessage]:
    from jit_approval.checks import databases

    return databases.check()


def _policies(*, databases: Any = None, **_: Any) -> list[CheckMessage]:
    from jit_approval.checks import policies

    return policies.check(databases)


def _trail(*, databases: Any = None, **_: Any) -> list[CheckMessage]:
    from jit_approval.checks import trail

    return trail.check(databases)


def _admin(**_: Any) -> list[CheckMessage]:
    from django.apps import apps

    from jit_approval.checks import policies

    return policies.check_admin() if apps.is_installed("django.contrib.admin") else []


def _health(**_: Any) -> list[CheckMessage]:
    from jit_approval.checks import health

    return health.check()
