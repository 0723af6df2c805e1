"""Check the built wheel: what it must carry, and what it must not.

Usage: check_wheel.py WHEEL, from the root of the checkout. Every file git tracks inside the package
must be in the wheel, and nothing else but its metadata.
"""

import subprocess
import sys
from zipfile import ZipFile

PACKAGE = "jit_approval/"
# Kinds of file that are easily lost on the way into a wheel.
MUST_HAVE = ("py.typed", "migrations/0001_", "templates/", "static/", "conf.py")


def problems(wheel: str) -> list[str]:
    """What is wrong with the wheel, one line each."""
    packed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listing = subprocess.run(
        ["git", "ls-files", PACKAGE], capture_output=True, text=True, check=True
    )
    tracked = set(listing.stdout.split("\n")) - {""}
    absent = [part for part in MUST_HAVE if not any(n.startswith(PACKAGE + part) for n in packed)]
    return [
        *(f"the wheel has no {PACKAGE}{part}" for part in absent),
        *(f"tracked but not in the wheel: {name}" for name in sorted(tracked - packed)),
        *(f"in the wheel but not tracked: {name}" for name in sorted(packed - tracked)),
    ]


def main() -> None:
    """Print the problems and fail, or say that there are none."""
    (wheel,) = sys.argv[1:]
    if found := problems(wheel):
        sys.exit("\n".join(found))
    print(f"{wheel}: complete")


if __name__ == "__main__":
    main()
