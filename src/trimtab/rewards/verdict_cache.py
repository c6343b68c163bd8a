"""Verdicts that were paid for are kept on disk: one SQLite file, bounded, shared by processes.

A cache that cannot be read or written is no reason to stop: the judge is asked again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

_BATCH = 500  # keys in one query


class VerdictCache:
    """Texts by key; the oldest go when there are more than ``max_entries``.

    Example:
        >>> cache = VerdictCache(tmp_path / "judge.sqlite")
        >>> cache.put({"k": "7"}); cache.get(["k", "other"])
        {'k': '7'}
    """

    def __init__(self, path: str | Path, max_entries: int = 100_000) -> None:
        self.path, self.max_entries = Path(path).expanduser(), max_entries

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """The entries that there are; none when the file cannot be read."""
        found: dict[str, str] = {}
        try:
            if not self.path.is_file():
                return found
            with closing(self._open()) as base:
                for first in range(0, len(keys), _BATCH):
                    part = list(keys[first : first + _BATCH])
                    marks = ",".join("?" * len(part))
                    found |= dict(
                        base.execute(f"SELECT key, verdict FROM verdicts WHERE key IN ({marks})", part)
                    )
        except (sqlite3.Error, OSError):
            return {}
        return found

    def put(self, entries: Mapping[str, str]) -> None:
        """Keep the entries; nothing happens when the file cannot be written."""
        if not entries:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as base, base:
                base.executemany(
                    "INSERT OR REPLACE INTO verdicts (key, verdict) VALUES (?, ?)", entries.items()
                )
                newest = "SELECT rowid FROM verdicts ORDER BY rowid DESC LIMIT 1 OFFSET ?"
                base.execute(f"DELETE FROM verdicts WHERE rowid <= ({newest})", (self.max_entries,))
        except (sqlite3.Error, OSError):
            return

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, timeout=5.0)
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, verdict TEXT NOT NULL)")
        return base


def default_cache_path() -> Path:
    """The file in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "trimtab" / "judge.sqlite"
