"""An explanation and a replay as lines of text, for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from textwrap import wrap

from jit_approval.calls import Terms
from jit_approval.explaining.explanation import (
    REFUSED,
    RUNS,
    UNAVAILABLE,
    UNGATED,
    Decider,
    Explanation,
)
from jit_approval.explaining.replay import Replay
from jit_approval.policies import durations, rungs
from jit_approval.redaction import visible
from jit_approval.states import Effect, Execution

WIDTH = 110
_COLUMN = 14
_MOST_ROWS = 10
_MOST_UNNAMED = 30
_OUT_OF_QUESTION = {"disabled", "archived", "other_action"}
_OUTCOMES = {
    str(Effect.REQUIRE): "HELD until it is approved",
    str(Effect.ALLOW): "RUNS AT ONCE: a policy allows it",
    str(Effect.DENY): "DENIED, whoever asks",
    RUNS: "RUNS: no policy applies to it",
    UNGATED: "RUNS: no gate stands before it, whatever policies say",
    UNAVAILABLE: "REFUSED: it needs approval, and too few could give it",
    REFUSED: "REFUSED before any policy is asked",
}
_AFFECTED = {
    str(Effect.ALLOW): "let through",
    str(Effect.DENY): "denied",
}
_FATES = {
    "held": "were held",
    "allowed": "were allowed by a policy",
    "denied": "were denied",
    "observed": "ran, watched by a shadow policy",
}


def of_explanation(found: Explanation) -> Iterator[str]:
    """Yield the lines to print."""
    asked, policy = found.asked, found.match.policy
    yield visible(f"{asked.method} {asked.action} by {asked.user.get_username()}")
    yield f"  {_OUTCOMES[found.outcome]}"
    yield ""
    if policy is not None:
        yield from _row(
            "Policy", f"{policy.slug}, version {policy.version}, priority {policy.priority}"
        )
    elif found.terms:
        yield from _row("Policy", "none applies: the default terms of the settings hold")
    for trouble in found.match.troubles:
        yield from _row("Trouble", f"{trouble.policy.slug}: {trouble.error}")
    if found.terms:
        yield from _held(found, found.terms)
    for note in found.notes:
        yield from _row("Note", note)
    yield from _considered(found)


def _held(found: Explanation, terms: Terms) -> Iterator[str]:
    yield from _row("Approvals", approvals(terms))
    for demand in demands(terms):
        yield from _row("Caller must", demand)
    yield from _row("Decide by", f"{_time(found.decide_by)}, in {_span(terms.decide_within)}")
    yield from _row(
        "Use by",
        f"{_time(found.usable_until)} at the latest, {_span(terms.usable_within)} from approval",
    )
    names = ", ".join(map(named, found.deciders)) or "nobody"
    more = found.deciders_count - len(found.deciders)
    yield from _row("Deciders", names + (f", and {many(more, 'other')}" if more else ""))
    for step in on_silence(terms):
        yield from _row("On silence", step)
    if not found.is_reachable:
        yield from _row(
            "", "TOO FEW: answered with approval_unavailable, and no request is opened."
        )


def _considered(found: Explanation) -> Iterator[str]:
    near = [one for one in found.match.considered if one.verdict not in _OUT_OF_QUESTION]
    far = [one for one in found.match.considered if one.verdict in _OUT_OF_QUESTION]
    shown = [*near, *far[:_MOST_UNNAMED]]
    if not shown:
        return
    yield ""
    yield "Policies, in the order they are asked"
    width = min(max(len(one.policy.slug) for one in shown), 40)
    for one in sorted(shown, key=lambda one: (one.policy.priority, one.policy.pk)):
        head = f"  {one.policy.priority:>5}  {one.policy.slug:<{width}}  {one.policy.effect:<9}"
        yield from _wrapped(f"{head}{one.verdict:<18}", visible(one.why))
    if len(far) > _MOST_UNNAMED:
        yield f"  and {len(far) - _MOST_UNNAMED} more that do not name it or are out of force"


def approvals(terms: Terms) -> str:
    """Return whose approvals are needed, in words."""
    groups = [f"{count} of {name}" for _key, name, count in terms.group_requirements]
    needed = max(terms.required_approvals, sum(count for *_, count in terms.group_requirements))
    text = f"{needed} person{'s' if needed > 1 else ''}"
    return text + (f", among them {' and '.join(groups)}" if groups else "")


def on_silence(terms: Terms) -> list[str]:
    """Return the steps that are taken if nobody decides, in words."""
    return [visible(rungs.as_text(said)) for said in rungs.of_terms(terms)] or [
        "nobody is reminded"
    ]


def demands(terms: Terms) -> list[str]:
    """Return what the caller has to do beside asking, in words."""
    found = []
    if terms.require_reason or terms.reason_pattern:
        contains = f" that contains {terms.reason_pattern}" if terms.reason_pattern else ""
        found.append(f"give a reason{contains} (Approval-Reason)")
    if terms.require_approval_id:
        found.append("name the approval when repeating the call (Approval-Id)")
    if terms.execution == Execution.SERVER:
        found.append("do nothing more: once it is approved, the server runs it")
    return found


def named(decider: Decider) -> str:
    """Return a decider's name and how they come to decide."""
    told = []
    if decider.on_behalf_of:
        told.append(f"stands in for {', '.join(decider.on_behalf_of)}")
    if not decider.is_staff:
        told.append("no admin")
    return visible(decider.name + (f" ({'; '.join(told)})" if told else ""))


# --- the replay --------------------------------------------------------------------------------------------


def of_replay(found: Replay) -> Iterator[str]:
    """Yield the lines to print."""
    draft = found.draft
    yield f"{draft.slug or 'A draft'} ({draft.effect}; {', '.join(draft.globs)})"
    if draft.condition.strip():
        yield from _wrapped("  if ", " ".join(draft.condition.split()))
    yield (
        f"{many(found.recorded, 'call')} on record since {_time(found.since)}, "
        f"{found.named:,} of actions it names"
    )
    yield ""
    yield headline(found)
    yield from _details(found)
    if not found.named:
        yield (
            "Calls that no policy names leave no record: "
            "enable the draft with the effect observe, and look again later."
        )


def headline(found: Replay) -> str:
    """Return the replay in a sentence: would have held 312 calls of 9 users, median 11 a day."""
    what = _AFFECTED.get(str(found.draft.effect), "held")
    users, uncertain = len(found.by_user), found.uncertain.total()
    sentence = (
        f"would have {what} {many(found.affected, 'call')} of {many(users, 'user')}, "
        f"median {found.median_a_day:g} a day"
    )
    if uncertain:
        sentence += f"; {found.at_most:,} at most: {uncertain:,} could not be evaluated"
    return sentence


def _details(found: Replay) -> Iterator[str]:
    if found.busiest:
        day, count = found.busiest
        yield f"busiest day: {day.isoformat()} with {count:,}"
    if found.affected:
        fates = ", ".join(f"{count:,} {_FATES[fate]}" for fate, count in found.fates.most_common())
        yield f"of these, at the time: {fates}"
    yield from _table("of these, only because the condition failed", found.failed)
    yield from _table("by action", found.by_action)
    yield from _table("by user", found.by_user)
    yield from _table("could not be evaluated", found.uncertain)


def _table(title: str, counts: Counter[str]) -> Iterator[str]:
    if not counts:
        return
    yield ""
    yield title
    for name, count in counts.most_common(_MOST_ROWS):
        yield from _wrapped(f"  {count:>8,}  ", visible(name) or "(gone)")
    rest = counts.total() - sum(count for _, count in counts.most_common(_MOST_ROWS))
    if rest:
        yield f"  {rest:>8,}  of {many(len(counts) - _MOST_ROWS, 'other')}"


# --- pieces ------------------------------------------------------------------------------------------------


def many(count: int, word: str) -> str:
    """Return a number of things in words."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _row(title: str, text: str) -> Iterator[str]:
    yield from _wrapped(f"  {title:<{_COLUMN}}", visible(text))


def _wrapped(head: str, text: str) -> Iterator[str]:
    lines = wrap(text, max(WIDTH - len(head), 30), break_on_hyphens=False) or [""]
    yield (head + lines[0]).rstrip()
    for line in lines[1:]:
        yield " " * len(head) + line


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "-"


def _span(duration: timedelta) -> str:
    return durations.as_text(duration)
