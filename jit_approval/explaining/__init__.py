"""What would come of a call, and what a draft policy would have done to the calls of the past. Nothing is written."""

from jit_approval.explaining.explanation import (
    REFUSED,
    RUNS,
    UNAVAILABLE,
    UNGATED,
    Asked,
    Decider,
    Explanation,
    as_data,
    explain,
)
from jit_approval.explaining.replay import Replay, replay
from jit_approval.explaining.replay import as_data as replay_as_data

__all__ = [
    "REFUSED",
    "RUNS",
    "UNAVAILABLE",
    "UNGATED",
    "Asked",
    "Decider",
    "Explanation",
    "Replay",
    "as_data",
    "explain",
    "replay",
    "replay_as_data",
]
