"""What the trail needs again and again: to be sealed, to leave the box, to be verified. By the clock and by sweeps.

Whatever goes wrong is written down where health and the admin see it, and tried again; calls go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from jit_approval import clock, conf
from jit_approval.audit import export, keys, live, notes, places, seal
from jit_approval.audit.findings import Report
from jit_approval.audit.notes import Verifier
from jit_approval.models import Verification
from jit_approval.streaming import cursor, pump
from jit_approval.streaming.standing import DIRECTORY

logger = logging.getLogger(__name__)

SEALER, VERIFIER = "sealer", "verifier"

# Nobody else verifies meanwhile; ten million events take minutes.
_VERIFYING = timedelta(hours=1)
_KEPT = 1000
_MAX_FIRST = 500


def keep(seconds: float, stopping: Callable[[], bool] = lambda: False) -> dict[str, int]:
    """Seal what is due, export it, and send it on, for about so long; return how many of each.

    Nothing where no key is configured, and no target.

    Raises:
        django.db.Error: the database cannot be asked.
    """
    counts = dict[str, int]()
    if seal.is_configured():
        counts |= _seal()
    sent = pump.run(seconds, stopping)
    return {**counts, "sent": sum(sent.values())} if sent else counts


def verify_if_due(stopping: Callable[[], bool] = lambda: False) -> Report | None:
    """Verify the trail in the database if nobody has for `AUDIT_VERIFY_EVERY`; trusts the key in use."""
    every, alias = conf.get().AUDIT_VERIFY_EVERY, places.database()
    if not every or not seal.is_configured():
        return None
    last = Verification.objects.using(alias).order_by("-id").values_list("at", flat=True).first()
    # One that lies ahead was written while a clock was wrong, or by somebody else.
    if last is not None and abs(clock.now(alias) - last) < every:
        return None
    with cursor.claimed(VERIFIER, lasting=_VERIFYING, start={}) as task:
        if task is None or stopping():
            return None
        try:
            return verify([keys.load(conf.get().AUDIT_KEY_FILE).verifier], key_given=False)
        except (keys.KeyUnavailable, notes.LibraryMissing, places.Damaged, ValueError) as error:
            _trouble(VERIFIER, f"The trail cannot be verified: {error}")
            return None
        except Exception as error:
            # It reads all there is: what fails is not to be tried again at every beat.
            _trouble(VERIFIER, f"The trail cannot be verified: {type(error).__name__}")
            raise


def verify(
    trusted: Sequence[Verifier],
    kept: str | None = None,
    *,
    key_given: bool,
    source: Verification.Source = Verification.Source.SCHEDULE,
) -> Report:
    """Verify the trail in the database, and write down what came out.

    Raises: as `live.verify`.
    """
    alias = places.database()
    at = clock.now(alias)
    report = live.verify(trusted, kept)
    record(report, at=at, key_given=key_given, source=source)
    if not report.is_sound:
        logger.error("The audit trail is not as it was signed: %s", report.said)
    cursor.done(VERIFIER, at)
    return report


def record(
    report: Report, *, at: datetime, key_given: bool, source: Verification.Source
) -> Verification:
    """Write down what a verification that began `at` has found."""
    rows = Verification.objects.using(places.database())
    time = report.time if report.verified else None
    made = rows.create(
        source=source,
        at=at,
        status=report.status(),
        events=report.events,
        verified=report.verified,
        erased=report.erased,
        checkpoint_at=datetime.fromtimestamp(time, UTC) if time is not None else None,
        root=report.root if report.verified else "",
        key_given=key_given,
        truncation_checked=report.truncation_checked,
        first=report.said[:_MAX_FIRST],
    )
    rows.filter(pk__lte=made.pk - _KEPT).delete()
    return made


def seal_now() -> dict[str, int]:
    """Seal and export all there is, for whoever does it by hand; write down how that went, as the clock does.

    Raises: as `seal.seal_all`. That this process cannot use the key says nothing of others, and is not written down.
    """
    return _sealed(seal.seal_all)


def _seal() -> dict[str, int]:
    """Seal, sign and export what is due."""
    if cursor.is_paused(SEALER):
        return {}
    try:
        return _sealed(seal.seal)
    except (keys.KeyUnavailable, notes.LibraryMissing, ValueError) as error:
        _trouble(SEALER, str(error))
    except (seal.SealRefused, export.ExportFailed):
        pass  # written down
    return {}


def _sealed(how: Callable[[], dict[str, int]]) -> dict[str, int]:
    alias = places.database()
    try:
        counts = how()
    except seal.SealRefused as error:
        _trouble(SEALER, str(error))
        raise
    except export.ExportFailed as error:
        cursor.done(SEALER, clock.now(alias))
        _trouble(DIRECTORY, str(error))
        raise
    now = clock.now(alias)
    cursor.done(SEALER, now)
    if conf.get().AUDIT_EXPORT_DIR:
        cursor.done(DIRECTORY, now)
    return counts


def _trouble(name: str, text: str) -> None:
    if cursor.failed(name, text):
        logger.error("The audit trail, %s: %s", name, text)
