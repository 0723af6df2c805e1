"""Whether the trail was as it was signed when somebody looked, and whether it leaves the box: as the admin shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from jit_approval import clock, conf, keeping, policies
from jit_approval.admin import deadline
from jit_approval.audit import findings, seal
from jit_approval.models import Verification
from jit_approval.streaming import standing
from jit_approval.streaming.standing import Standing

_STALE = timedelta(days=7)


@dataclass(frozen=True)
class Badge:
    """One word, how bad it is (a status whose colours it has), and what it rests on."""

    word: str
    css: str
    text: str
    details: tuple[str, ...] = ()


def badge() -> Badge:
    """Return what can be claimed of the trail, and no more."""
    if not seal.is_configured():
        text = _("No key is configured: events are chained by request, and nothing is signed.")
        return Badge(_("Not sealed"), "pending", text)
    trouble = standing.trouble(keeping.SEALER)
    found = standing.last_verification()
    if found is not None and found.status == findings.NOT_JUDGED:
        return Badge(_("Not signed by the key in use"), "rejected", _told(found), (found.first,))
    if found is not None and found.status == findings.WRONG:
        return Badge(_("Not as it was signed"), "rejected", _told(found), (found.first,))
    if trouble is not None:
        return Badge(_("Sealing stopped"), "rejected", trouble.error)
    if found is None or found.checkpoint_at is None:
        text = _("Nobody has verified the trail in this database yet.")
        return Badge(_("Never verified"), "pending", text)
    every = conf.get().AUDIT_VERIFY_EVERY
    age = clock.now(policies.database()) - found.at
    if age > max(_STALE, 2 * every):
        word = _("Verified %(ago)s ago") % {"ago": deadline.as_words_ago(age)}
        return Badge(word, "pending", _told(found), _limits(found))
    return Badge(_("As it was signed"), "approved", _told(found), _limits(found))


def targets() -> list[Standing]:
    """Return where the trail is exported to."""
    return standing.targets()


def _told(found: Verification) -> str:
    values = {
        "verified": f"{found.verified:,}",
        "checkpoint": _moment(found.checkpoint_at) if found.checkpoint_at else "?",
        "at": _moment(found.at),
    }
    if found.status == findings.NOT_JUDGED:
        return (
            _(
                "Verified at %(at)s: the key in use has not signed this. Was the key changed, or the trail replaced?"
            )
            % values
        )
    if found.status == findings.WRONG:
        return (
            _("Verified at %(at)s: the trail is not what was signed. Tell your security team.")
            % values
        )
    return (
        _("%(verified)s events, up to the checkpoint of %(checkpoint)s, verified at %(at)s.")
        % values
    )


def _limits(found: Verification) -> tuple[str, ...]:
    """Return what this verification did not show."""
    limits = []
    if not found.key_given:
        limits.append(_("The key in use was trusted."))
    if not found.truncation_checked:
        limits.append(_("Whether its end was cut off was not checked."))
    return tuple(limits)


def _moment(at: object) -> str:
    return date_format(localtime(at), "Y-m-d H:i:s T")  # type: ignore[arg-type]
