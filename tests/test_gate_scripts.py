"""What the gate runs is what the README says."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def readme_block(number: int, file: Path = ROOT / "README.md") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / ".ci/readme_block.py", str(number), "--file", file]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_first_block_of_the_readme_runs_the_demo() -> None:
    # The gate appends `--once` to this line: nothing may follow the command.
    assert readme_block(1).stdout.endswith("manage.py demo\n")


def test_the_second_block_of_the_readme_runs_the_tests() -> None:
    assert readme_block(2).stdout.endswith("-m pytest -n auto\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("no block", "has 0 sh blocks"), ("```sh\none\ntwo\n```\n", "not one line")],
)
def test_a_readme_without_its_one_line_block_fails(
    tmp_path: Path, text: str, complaint: str
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    answer = readme_block(1, readme)
    assert answer.returncode == 1
    assert complaint in answer.stderr
