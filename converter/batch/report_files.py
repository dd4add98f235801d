"""`--report FILE`: the whole batch in one file, as JSON, HTML or Markdown by the file's ending."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from converter.batch.markdown import markdown
from converter.batch.model import GOOD, Summary
from converter.batch.page import page
from converter.batch.wording import STATES
from converter.errors import ConversionError

FORMAT = 1
"""The version of the JSON's form; it grows when what is there already gets another meaning or goes away."""


def as_json(summary: Summary) -> str:
    """The Summary as one JSON object in ASCII; docs/batch.md has its fields."""
    written = asdict(summary)
    outcomes = written.pop("outcomes")
    for outcome, known in zip(outcomes, summary.outcomes, strict=True):
        outcome["counts"] = {kind: known.count(kind) for kind in ("exact", "adapted", "dropped")}
    counts: dict[str, int] = {state: len(summary.ended_in(state)) for state in STATES}
    counts |= {kind: sum(o.count(kind) for o in summary.outcomes) for kind in ("exact", "adapted", "dropped")}
    counts |= {"machines": len(outcomes), "good": len(summary.ended_in(*GOOD))}
    return json.dumps({"format": FORMAT, **written, "counts": counts, "outcomes": outcomes}, indent=1) + "\n"


_WRITERS: dict[str, Callable[[Summary], str]] = {".json": as_json, ".html": page, ".md": markdown}


def check_report(path: Path) -> None:
    """Raises ConversionError when no report could be written to `path`: to be asked before the batch begins."""
    _writer(path)
    if path.is_dir():
        raise ConversionError(f"--report {path}: it is a directory")
    if not path.parent.is_dir():
        raise ConversionError(f"--report {path}: there is no directory {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConversionError(f"--report {path}: cannot write into {path.parent}; name a file elsewhere")


def write_report(summary: Summary, path: Path) -> None:
    """Put the report at `path`, whole or not at all; what was there is replaced.

    Only its owner may read it: notes and reasons quote what images and containers were told, secrets too. Raises
    ConversionError for an unknown ending and when it cannot be written.
    """
    content = _writer(path)(summary).encode()
    try:
        _replace(path, content)
    except OSError as error:
        raise ConversionError(f"--report {path}: cannot be written: {error.strerror}") from error


def _writer(path: Path) -> Callable[[Summary], str]:
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ConversionError(f"--report {path}: the name must end in .json, .html or .md")
    return writer


def _replace(path: Path, content: bytes) -> None:
    """Through a file beside it, which mkstemp makes with mode 0600."""
    fd, waiting = tempfile.mkstemp(prefix=f".#{path.name[:50]}", suffix=".docker2nspawn", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(waiting).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(waiting).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
