"""`manage.py demo --once` is the issue's main job on real processes: it must do as it says."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOLD = [
    "1. Erin pays a supplier. The call is held.",
    "2. Who was told",
    "To: carol@backoffice.example",
    "To: bob@backoffice.example",
    "3. Bob approves, on the admin's own page",
    "ok: the decision page shows the match code",
    "4. Erin repeats the identical call. It runs.",
    "ok: the money has moved, once",
    "5. She pays the second instalment, and stays on the line",
    "ok: Erin is on the line",
    "ok: the answer to the very call: 201 Created",
    "s from Bob's click to Erin's answer",
    "ok: the money has moved, once",
    "6. She tries the first one once more. It is held anew.",
    "ok: a new id: a new request",
    "7. Carol rejects that one",
    "ok: Erin is told why",
    "8. Shutting down a cluster takes two approvals, and the server runs it",
    "ok: Erin need not repeat it",
    "/result/",
    "ok: the server has run it: its answer is 200",
    "ok: the cluster is down",
    "ok: approval_consumed",
    "9. A dataset erasure that nobody decides expires",
    "ok: approval_expired",
    "ok: the dataset is still there",
    "Every step was as told.",
]

pytestmark = pytest.mark.slow


def _environment(tmp_path: Path) -> dict[str, str]:
    """The example project's own settings and a folder for what is thrown away."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("EXAMPLE_")}
    return env | {"DJANGO_SETTINGS_MODULE": "example_project.settings", "TMPDIR": str(tmp_path)}


def _start(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "demo", *options],
        cwd=ROOT,
        env=_environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Started in the background of a shell, a process inherits that it must ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _still_running(tmp_path: Path) -> list[str]:
    """Command lines of processes whose environment names the demo's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(tmp_path).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_demo_once_exits_with_0_and_every_step_was_as_told(tmp_path: Path) -> None:
    with _start(tmp_path, "--once") as demo:
        told, _ = demo.communicate(timeout=150)

    assert demo.returncode == 0, told
    place = 0
    for line in TOLD:
        place = told.find(line, place)
        assert place >= 0, f"{line}\n{told}"
    assert list(tmp_path.iterdir()) == []
    assert _still_running(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for orphans in /proc")
@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 128 + signal.SIGINT)],
)
def test_demo_leaves_no_process_and_no_file_behind_when_stopped(
    tmp_path: Path, signum: signal.Signals, status: int
) -> None:
    with _start(tmp_path, "--port", "0") as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith("3. "):
                break
        demo.send_signal(signum)
        rest = demo.stdout.read()

    assert demo.returncode == status, rest
    assert list(tmp_path.iterdir()) == []
    assert _still_running(tmp_path) == []
