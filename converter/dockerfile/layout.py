"""What a COPY or ADD has selected, laid out as files for a script that puts them in place with cp(1) and tar(1)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converter.dockerfile.model import Copy
from converter.dockerfile.placing import Copying
from converter.dockerfile.selection import Item
from converter.dockerfile.tree import Tree
from converter.dockerfile.unpacking import plain_chunks
from converter.dockerfile.writing import Writer
from converter.errors import ConversionError

_ROOT = (0, 0)


@dataclass(frozen=True)
class LaidOut:
    """One Item below the directory: `path` is its place there, relative.

    "contents": a directory, what is in it goes into the destination. "file": a file of any kind, which goes to the
    destination, or into it when that is a directory; `path` ends in the name that it then has. "archive": an
    uncompressed tar that is unpacked into the destination.
    """

    path: str
    kind: Literal["contents", "file", "archive"]


def lay_out_items(step: Copy, items: tuple[Item, ...], directory: Path) -> tuple[LaidOut, ...]:
    """Write each Item below `directory`, with --chmod's modes and, as root, its own owners; --chown is not applied.

    Raises DockerfileError, OSError.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    laid_out = []
    with Tree(directory) as tree:
        writer = Writer(tree)
        for number, item in enumerate(items):
            with Tree(item.root) as source:
                laid_out.append(_lay_out(step, item, source, writer, str(number)))
    return tuple(laid_out)


def _lay_out(step: Copy, item: Item, source: Tree, writer: Writer, place: str) -> LaidOut:
    if item.archive:
        place += ".tar"
        _save_tar(step, item, source, writer, place)
        return LaidOut(place, "archive")
    writer.make_directories(place, _ROOT)
    if item.entries[0].kind == "dir":
        Copying(step, source, item, writer, None).put(place)
        return LaidOut(place, "contents")
    path = f"{place}/{item.name}"
    Copying(step, source, item, writer, None).put(path)
    return LaidOut(path, "file")


def _save_tar(step: Copy, item: Item, source: Tree, writer: Writer, place: str) -> None:
    """The archive without its compression, which cp's and tar's of small systems may not know."""
    archive = source.open(item.top)
    try:
        with os.fdopen(writer.new_file(place), "wb") as file:
            for chunk in plain_chunks(archive):
                file.write(chunk)
    except ConversionError as error:
        raise step.instruction.error(f"cannot unpack {item.name!r}: {error}") from None
    finally:
        os.close(archive)
    writer.finish(place, "file", 0o644, _ROOT, None)
