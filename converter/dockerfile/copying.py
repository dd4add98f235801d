"""COPY and ADD: what they bring (`select`), whether it is the same as before (`fingerprint`), and putting it (`put`).

In between it is a Selection, plain data, so that a step whose inputs are known is not done again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converter.dockerfile.context import Source, View
from converter.dockerfile.fingerprint import fingerprint_items
from converter.dockerfile.layout import LaidOut, lay_out_items
from converter.dockerfile.model import Copy, InlineFile
from converter.dockerfile.modes import is_mode
from converter.dockerfile.placing import put_all
from converter.dockerfile.pointing import error_at_flag, error_at_word
from converter.dockerfile.remote import fetch_url, is_url
from converter.dockerfile.repository import fetch_repository, parse_repository
from converter.dockerfile.selecting import select_local
from converter.dockerfile.selection import Item, Selection, entry
from converter.errors import ConversionError


def select(step: Copy, source: Source, spool: Path) -> Selection:
    """What `step` brings from `source`. What is fetched or stands in the Dockerfile itself is put into `spool`.

    `spool` is a directory for this step alone, that has to be kept until the Selection has been put; it is made where
    it is missing. Raises DockerfileError for a source that is not there, is ignored, or cannot be fetched.
    """
    if step.chmod and not is_mode(step.chmod):
        hint = "write it in octal, up to 7777, or like u=rwx,go=rx"
        raise error_at_flag(step.instruction, "chmod", f"--chmod={step.chmod} is no mode", hint)
    for text in (*step.sources, step.destination, *(file.name for file in step.inline)):
        _check_name(step, text)
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    items: list[Item] = []
    notes: list[str] = []
    try:
        with View(source) as view:
            for number, text in enumerate(step.sources):
                place = spool / str(number)
                repository = parse_repository(text)
                if repository is not None or is_url(text):
                    _check_remote(step, text)
                if repository is not None:
                    items.append(fetch_repository(step, repository, place))
                elif is_url(text):
                    items.append(fetch_url(step, text, place))
                else:
                    found = list(select_local(step, view, text))
                    items += found
                    if not found:
                        notes.append(f"{text!r} matches nothing in {source.name}")
        items += [_inline(file, spool / f"inline-{number}") for number, file in enumerate(step.inline)]
    except OSError as error:
        raise step.instruction.error(
            f"cannot read {error.filename or source.name}: {error.strerror or error}", "is it readable?"
        ) from None
    return Selection(tuple(items), tuple(notes))


def _check_name(step: Copy, text: str) -> None:
    """No file can be called so."""
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise step.instruction.error(f"{text!r} is not Unicode") from None
    if b"\0" in encoded:
        raise step.instruction.error(f"{text!r} has a NUL in it", "no file's name has")


def _check_remote(step: Copy, text: str) -> None:
    if not step.add:
        raise error_at_word(step.instruction, text, f"COPY does not fetch {text!r}", "write ADD instead")
    if step.checksum and len(step.sources) != 1:
        raise error_at_flag(
            step.instruction, "checksum", "--checksum is for one source", "write an ADD for each"
        )


def _inline(file: InlineFile, place: Path) -> Item:
    """A here-document as a file in `place`."""
    place.mkdir(mode=0o700, exist_ok=True)
    (place / "content").write_bytes(file.content)
    content = place / "content"
    name = file.name.rstrip("/").rpartition("/")[2]
    return Item(name, place, content.name, (entry("", content.stat(), owned=False)._replace(mode=0o644),))


def fingerprint(selection: Selection) -> str:
    """A digest, in hex, of names, kinds, modes, owners, attributes and contents, but not of times.

    Raises ConversionError when a file has gone or cannot be read.
    """
    try:
        return fingerprint_items(selection.items)
    except OSError as error:
        raise ConversionError(
            f"cannot read {error.filename or 'a source'}: {error.strerror or error}; do not change it during a build"
        ) from None


def put(selection: Selection, step: Copy, root: Path, owner: tuple[int, int] | None) -> None:
    """Put it into the tree at `root` as BuildKit does; nothing is written outside it, wherever its links lead.

    `owner`, of --chown, is for all that is made; None: what the files have, and root for new directories above them.
    Raises DockerfileError when something at the destination is in the way, or the disk is full.
    """
    with _told(step):
        put_all(step, selection.items, root, owner)


def lay_out(selection: Selection, step: Copy, directory: Path) -> tuple[LaidOut, ...]:
    """The same as files below `directory`, new or empty, for a script to put in place; one LaidOut for each Item.

    Modes are --chmod's, owners as in the source where we are root. Raises DockerfileError.
    """
    with _told(step):
        return lay_out_items(step, selection.items, directory)


@contextmanager
def _told(step: Copy) -> Iterator[None]:
    """What the host refuses is an error of this step."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename!r}: " if error.filename else ""
        raise step.instruction.error(f"cannot copy: {what}{error.strerror or error}") from None
