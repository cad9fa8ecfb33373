"""What must outlive the service: sandboxes, sessions and their environments, in SQLite."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from interpreter.errors import DiskFull

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sandboxes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, document TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
    sandbox TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (sandbox, id)
);
CREATE TABLE IF NOT EXISTS room (only INTEGER PRIMARY KEY CHECK (only = 1), writes INTEGER);
INSERT OR IGNORE INTO room VALUES (1, 0);
"""


class Registry:
    """Committed after each call. The promise is process death, not power loss.

    What writes raises DiskFull when it cannot; then everything is as it was before.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        self._database.close()

    def add_sandbox(self, id: str, document: dict[str, Any], number: int | None = None) -> int:
        """Its number, never used before and never again: the base of its uid and directories.

        One that was reserved may be given.
        """
        cursor = self._write(
            "INSERT INTO sandboxes (number, id, document) VALUES (?, ?, ?)",
            (number, id, _dump(document)),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def reserve(self) -> int:
        """A number for a sandbox that may come."""
        name = "name = 'sandboxes'"
        self._write(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'sandboxes', 0 "
            f"WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE {name})"
        )
        self._write(f"UPDATE sqlite_sequence SET seq = seq + 1 WHERE {name}")
        row = self._database.execute(f"SELECT seq FROM sqlite_sequence WHERE {name}").fetchone()
        return int(row[0])

    def save_sandbox(self, id: str, document: dict[str, Any]) -> None:
        self._write("UPDATE sandboxes SET document = ? WHERE id = ?", (_dump(document), id))

    def remove_sandbox(self, id: str) -> None:
        self._write("DELETE FROM sandboxes WHERE id = ?", (id,))
        self._write("DELETE FROM sessions WHERE sandbox = ?", (id,))

    def sandboxes(self) -> list[tuple[int, str, dict[str, Any]]]:
        rows = self._database.execute("SELECT number, id, document FROM sandboxes ORDER BY number")
        return [(number, id, json.loads(document)) for number, id, document in rows]

    def save_session(self, sandbox: str, id: str, document: dict[str, Any]) -> None:
        self._write(
            "INSERT INTO sessions (sandbox, id, document) VALUES (?, ?, ?) "
            "ON CONFLICT (sandbox, id) DO UPDATE SET document = excluded.document",
            (sandbox, id, _dump(document)),
        )

    def remove_session(self, sandbox: str, id: str) -> None:
        self._write("DELETE FROM sessions WHERE sandbox = ? AND id = ?", (sandbox, id))

    def check(self) -> None:
        """Before something is changed that has to be written down: whether that can be."""
        self._write("UPDATE room SET writes = writes + 1")

    def _write(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise DiskFull(
                f"expected room on the disk of the service, got: {error}; delete sandboxes"
            ) from error

    def sessions(self, sandbox: str) -> list[tuple[str, dict[str, Any]]]:
        rows = self._database.execute(
            "SELECT id, document FROM sessions WHERE sandbox = ? ORDER BY rowid", (sandbox,)
        )
        return [(id, json.loads(document)) for id, document in rows]


def _dump(document: dict[str, Any]) -> str:
    return json.dumps(document)  # ASCII, so that bytes kept as surrogates survive
