"""Notes in an SQLite database, and what the program sees of itself."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

DATABASE = Path("data/notes.db")
BROKEN = Path("data/broken")  # while it is there the application calls itself ill


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    status, text = answer(environ)
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]


def answer(environ: WSGIEnvironment) -> tuple[str, str]:
    path = environ["PATH_INFO"]
    if path == "/health":
        return ("500 Internal Server Error", "ill") if BROKEN.exists() else ("200 OK", "well")
    if path == "/self":
        return "200 OK", json.dumps(seen())
    if path.startswith("/notes/"):
        name = path.removeprefix("/notes/")
        if environ["REQUEST_METHOD"] == "PUT":
            write(name, environ["wsgi.input"].read().decode())
            return "201 Created", ""
        if (text := read(name)) is not None:
            return "200 OK", text
    return "404 Not Found", "no such note"


def seen() -> dict[str, object]:
    names = ("PATH", "HOME", "LANG", "GREETING")
    return {
        "cwd": str(Path.cwd()),
        "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getegid()],
        "groups": sorted({os.getgid(), *os.getgroups()}),
        "parent": os.getppid(),
        "environment": {name: os.environ.get(name) for name in names},
        "address": socket.gethostbyname(socket.gethostname()).startswith("127."),
    }


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(DATABASE, timeout=10)
    connection.execute("CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, text TEXT)")
    return connection


def read(name: str) -> str | None:
    with closing(connect()) as connection:
        row = connection.execute("SELECT text FROM notes WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def write(name: str, text: str) -> None:
    with closing(connect()) as connection, connection:
        connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, text))
