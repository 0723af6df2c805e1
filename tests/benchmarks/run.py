"""One database, in a process of its own: made, measured on, dropped. Writes JSON to standard output."""

from __future__ import annotations

import json
import os
import sys

NOT_REACHABLE = 3
"""Exit status where the database cannot be had at all."""

# The ratio to the shape to reach.
_TARGETS = {"sqlite": 2.6, "postgres": 1.8}


def main(database: str, runs: int, rounds: int, pairs: int, kind: str) -> int:
    """Measure on `database` and write the rows: of `calls`, `timers`, callers `waiting`, or a `server_run`."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
        "JIT_TEST_DB": database,
        "JIT_TEST_DB_SUFFIX": f"benchmark_{os.getpid()}",
    }
    import django
    from django.core.exceptions import ImproperlyConfigured
    from django.db import Error

    try:
        django.setup()
        from django.db import connection

        name = connection.settings_dict["NAME"]
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
        from jit_approval import appendonly

        appendonly.uninstall(
            connection
        )  # Benchmarks take away what they wrote, and write it again.
    except (Error, ImproperlyConfigured) as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return NOT_REACHABLE
    try:
        if kind == "waiting":
            from tests.benchmarks import waiting

            found = [row.as_dict() for row in waiting.all_rows()]
            json.dump({"database": database, "rows": [], "waiting": found}, sys.stdout)
            return 0
        if kind == "server_run":
            from tests.benchmarks import server_run

            found = [row.as_dict() for row in server_run.all_rows()]
            json.dump({"database": database, "rows": [], "waiting": found}, sys.stdout)
            return 0
        if kind == "trail":
            from tests.benchmarks import trail

            timed = [row.as_dict() for row in trail.all_rows()]
            json.dump({"database": database, "rows": [], "timers": timed}, sys.stdout)
            return 0
        if kind == "timers":
            from tests.benchmarks import telling
            from tests.benchmarks import timers as slow

            measured = slow.all_rows()
            if database == "postgres":
                measured += telling.all_rows()
            timed = [row.as_dict() for row in measured]
            json.dump({"database": database, "rows": [], "timers": timed}, sys.stdout)
            return 0
        from tests.benchmarks import policies, rows

        measured = rows.all_rows(runs=runs, rounds=rounds, pairs=pairs, target=_TARGETS[database])
        limit = policies.LIMIT if database == "postgres" else None
        measured += policies.all_rows(runs=runs, rounds=rounds, limit=limit)
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)
    json.dump({"database": database, "rows": [row.as_dict() for row in measured]}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]))
