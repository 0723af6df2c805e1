"""`python -m tests.benchmarks`: measure on every database that can be reached, and print what was found."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from tests.benchmarks.run import NOT_REACHABLE

DATABASES = ("sqlite", "postgres")
_COLUMNS = "{:<24} {:>4} {:<22} {:>8} {:>8} {:>18} {:>7} {:>22} {:>7} {}"


def main() -> int:
    """Return 0 if all that was measured reached its target, else 1."""
    options = _options()
    _warn_if_busy()
    tables = []
    for name in options.db or DATABASES:
        table = _measure(name, options)
        if table is not None:
            tables.append(table)
            if not options.json:
                _print(table)
    if options.json:
        print(json.dumps(tables, indent=2))
    missed = [
        row
        for table in tables
        for row in [*table["rows"], *table.get("timers", ()), *table.get("waiting", ())]
        if row["reached"] is False
    ]
    return 1 if missed or not tables else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--db", action="append", choices=DATABASES, help="default: all there are")
    parser.add_argument("--runs", type=int, default=5, help="runs; ratios are their medians")
    parser.add_argument("--rounds", type=int, default=100, help="rounds in a run")
    parser.add_argument(
        "--pairs", type=int, default=5000, help="pairs of un-gated and plain calls, all runs"
    )
    parser.add_argument(
        "--timers",
        action="store_true",
        help="the timers instead: sweeps, lateness, how soon people are told (ten minutes)",
    )
    parser.add_argument(
        "--waiting", action="store_true", help="callers that wait on the line instead (minutes)"
    )
    parser.add_argument(
        "--server-run",
        action="store_true",
        help="calls that the server runs instead (two minutes a database)",
    )
    parser.add_argument(
        "--trail", action="store_true", help="what the audit trail costs instead (a minute)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def _warn_if_busy() -> None:
    """A long call is interrupted more often than a short one: on a busy machine ratios grow."""
    waiting = os.getloadavg()[0]
    if waiting > 0.5:
        print(
            f"The machine is busy (load {waiting:.1f}): ratios will be too high.", file=sys.stderr
        )


def _measure(database: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """Measure in a process of its own: Django's settings name one database."""
    numbers = map(str, (options.runs, options.rounds, options.pairs))
    kinds = ("timers", "waiting", "server_run", "trail")
    kind = next((each for each in kinds if getattr(options, each)), "calls")
    command = [sys.executable, "-m", "tests.benchmarks.run", database, *numbers, kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == NOT_REACHABLE:
        print(f"{database}: not reachable, left out", file=sys.stderr)
        return None
    done.check_returncode()
    table: dict[str, Any] = json.loads(done.stdout)
    return table


def _print(table: dict[str, Any]) -> None:
    if "timers" in table:
        _print_timers(table)
        return
    if "waiting" in table:
        _print_waiting(table)
        return
    print(f"\n{table['database']} (medians in microseconds)")
    heads = (
        "",
        "stmt",
        "shape",
        "p50",
        "added",
        "floor",
        "x floor",
        "x shape (runs)",
        "target",
        "",
    )
    print(_COLUMNS.format(*heads))
    for row in table["rows"]:
        print(_COLUMNS.format(*_cells(row)).rstrip(), flush=True)


def _print_timers(table: dict[str, Any]) -> None:
    print(f"\n{table['database']} (among: calls in the table)")
    for row in table["timers"]:
        each = "" if row["each"] is None else f"{row['each']:.2f} ms each"
        limit = "" if row["limit"] is None else f"<={row['limit']:.4g} s"
        reached = {None: "", True: "reached", False: "MISSED"}[row["reached"]]
        took = f"{row['seconds'] * 1000:,.1f} ms"
        floor = "" if row["floor"] is None else f"x{row['seconds'] / row['floor']:.2f} of its floor"
        line = f"{row['name']:<38} {row['among']:>10,} {took:>14} {each:>14} {floor:>19} {limit:>8} {reached}"
        print(line.rstrip(), flush=True)


def _print_waiting(table: dict[str, Any]) -> None:
    print(f"\n{table['database']}")
    for row in table["waiting"]:
        reached = {None: "", True: "reached", False: "MISSED"}[row["reached"]]
        limit = "" if row["limit"] is None else f"p99 <= {row['limit']:.0f}"
        figures = f"{row['p50']:>9.1f} {row['p99']:>9.1f} {row['unit']:<14}"
        line = f"{row['name']:<36} {row['count']:>5} {figures} {limit:>11} {reached}"
        print(line.rstrip(), flush=True)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    spread = f"({row['lowest']:.2f}-{row['highest']:.2f})"
    reached = {None: "", True: "reached", False: "MISSED"}[row["reached"]]
    to_floor, to_shape = f"{row['to_floor']:.2f}", row["to_shape"]
    if to_shape is None:
        to_floor, shape = f"{row['to_floor']:.3f}", spread
    else:
        shape = f"{to_shape:.2f} {spread}"
    return (
        row["name"],
        str(row["statements"]),
        row["shape"],
        f"{row['p50']:.0f}",
        f"{row['added']:.0f}",
        f"{row['floor_name']} {row['floor']:.0f}",
        to_floor,
        shape,
        _target(row),
        reached,
    )


def _target(row: dict[str, Any]) -> str:
    if row["limit"] is not None:
        return f"<={row['limit'] / 1000:.0f} ms"
    return "" if row["target"] is None else f"<={row['target']}"


if __name__ == "__main__":
    sys.exit(main())
