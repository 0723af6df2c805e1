"""Print the N-th fenced `sh` block of the README, counted from 1: CI runs what the reader runs.

Usage: readme_block.py N [--file README.md]. The block must be one line: it is a promise that one
command does all the set-up.
"""

import argparse
import re
import sys
from pathlib import Path

BLOCK = re.compile(r"^```sh[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def block(text: str, number: int) -> str:
    """The text inside the block; LookupError where there is none, ValueError if not one line."""
    blocks = BLOCK.findall(text)
    if not 1 <= number <= len(blocks):
        raise LookupError(f"the README has {len(blocks)} sh blocks, not {number}")
    command = str(blocks[number - 1]).strip()
    if len(command.splitlines()) != 1:
        raise ValueError(f"sh block {number} of the README is not one line:\n{command}")
    return command


def main() -> None:
    """Print the block asked for, or say why not and fail."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int)
    parser.add_argument("--file", type=Path, default=Path("README.md"))
    options = parser.parse_args()
    try:
        print(block(options.file.read_text(encoding="utf-8"), options.number))
    except (LookupError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
