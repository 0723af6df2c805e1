"""A mapping of any size in little memory: what was not used of late lies in a temporary file."""

from __future__ import annotations

import sqlite3


class Spill:
    """Text to bytes. Not for several threads."""

    def __init__(self, most: int = 100_000) -> None:
        """Keep at most `most` entries in memory."""
        self._recent: dict[str, bytes] = {}
        self._most = most
        self._rest: sqlite3.Connection | None = None

    def get(self, key: str) -> bytes | None:
        """Return what was last put under this key; None where nothing was."""
        found = self._recent.get(key)
        if found is None and self._rest is not None:
            row = self._rest.execute("SELECT value FROM rest WHERE name = ?", (key,)).fetchone()
            found = row[0] if row else None
        return found

    def put(self, key: str, value: bytes) -> None:
        """Keep this under the key, in place of what was there."""
        self._recent.pop(key, None)
        self._recent[key] = value
        if len(self._recent) > self._most:
            self._move()

    def close(self) -> None:
        """Give the file back."""
        if self._rest is not None:
            self._rest.close()

    def _move(self) -> None:
        """Move the half that was written longest ago."""
        if self._rest is None:
            # An empty name: a file that has none, and is gone when it is closed.
            self._rest = sqlite3.connect("", isolation_level=None)
            self._rest.execute("PRAGMA journal_mode = OFF")
            self._rest.execute("PRAGMA cache_size = -8000")
            self._rest.execute(
                "CREATE TABLE rest (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID"
            )
        old = sorted(list(self._recent)[: self._most // 2])
        self._rest.execute("BEGIN")
        self._rest.executemany(
            "INSERT OR REPLACE INTO rest VALUES (?, ?)",
            ((key, self._recent.pop(key)) for key in old),
        )
        self._rest.execute("COMMIT")
