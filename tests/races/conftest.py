"""Who races, over what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from rest_framework.authtoken.models import Token

from jit_approval import services
from jit_approval.models import ApprovalRequest
from tests import factories
from tests.races import runners

# The same in the processes that race (see `processes.race`).
SETTINGS: dict[str, Any] = {
    "ROOT_URLCONF": "tests.races.views",
    "JIT_APPROVAL": {
        "MAX_OPEN_PER_REQUESTER": 10_000,
        "OPENINGS_PER_REQUESTER": "100000/hour",
        "OPENINGS_PER_POLICY": "100000/hour",
    },
}


@pytest.fixture(autouse=True)
def _settings(settings) -> None:
    for name, value in SETTINGS.items():
        setattr(settings, name, value)


@pytest.fixture
def runs_file(tmp_path, monkeypatch) -> Path:
    """One line per run, in whichever process."""
    path = tmp_path / "runs"
    path.touch()
    monkeypatch.setitem(os.environ, "JIT_TEST_RUNS", str(path))
    return path


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob")


@pytest.fixture
def erin() -> Any:
    return factories.user("erin")


@pytest.fixture
def erin_token(erin) -> str:
    return Token.objects.create(user=erin).key


def hold_all(token: str, count: int) -> list[Any]:
    """Make `count` different calls; return the ids they are held under."""
    caller = runners.client(token)
    return [runners.call(caller, number)["Approval-Id"] for number in range(count)]


def approve_all(token: str, count: int, *, by: Any) -> list[Any]:
    """Make `count` different calls and approve each; return the ids of the grants."""
    held = hold_all(token, count)
    for pk in held:
        services.approve(ApprovalRequest(pk=pk), by=by)
    return held
