"""The outer tar of an image archive: where each member's bytes lie, so that they can be used in place.

Not the reader for layers: this one seeks over content and knows only what such archives are made of.
Formats: ustar, GNU long names and pax `path`, `linkpath` and `size` (tar(5), pax(1)).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from converter.errors import ConversionError

BLOCK = 512
_CHUNK = 1 << 20
_EXTENSION_LIMIT = 1 << 20  # names are short; a header may claim any size
_LARGEST = 1 << 62
_PAX_LENGTH = re.compile(rb"([1-9][0-9]{0,7}) ")
_KINDS: dict[bytes, Literal["file", "hard link", "symlink"]] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hard link",
    b"2": "symlink",
}


@dataclass(frozen=True)
class Member:
    """One member: its name without `./`, and the range of the archive that holds its content, in bytes."""

    name: str
    kind: Literal["file", "hard link", "symlink", "other"]
    target: str
    offset: int
    size: int


def is_tar(start: bytes) -> bool:
    """Whether a file that begins with `start` is a tar: the checksum of its first header is right."""
    try:
        checksum = int(start[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return len(start) >= BLOCK and checksum == sum(start[:148]) + 8 * ord(" ") + sum(start[156:BLOCK])


def members(file: BinaryIO, label: str, length: int | None) -> Iterator[Member]:
    """The members of the tar that `file`, at its start, holds, in their order; `label` names it in messages.

    `length` is the file's size in bytes; None says that it cannot seek, and is read to the end instead.
    Raises ConversionError when the tar is cut short or damaged.
    """
    position = 0
    extended: dict[str, str] = {}
    while header := _read(file, BLOCK, label):
        if not header.strip(b"\0"):
            return
        if not is_tar(header):
            if position == 0:
                raise ConversionError(f"{label} holds no tar, so it is not an image")
            raise ConversionError(f"{label} is damaged or cut short: no tar header at byte {position}")
        position += BLOCK
        kind, size = header[156:157], _size(header[124:136], extended.pop("size", None), label)
        if kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
            size = 0
        if kind in (b"x", b"g", b"L", b"K"):
            if size > _EXTENSION_LIMIT:
                raise ConversionError(f"{label} is damaged: a header at byte {position} claims {size} bytes")
            data = _read(file, size + -size % BLOCK, label)[:size]
            if kind == b"x":
                extended |= _pax(data)
            elif kind != b"g":
                extended["path" if kind == b"L" else "linkpath"] = _text(data)
        else:
            prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
            name = extended.get("path") or posixpath.join(prefix, _text(header[:100]))
            target = extended.get("linkpath") or _text(header[157:257])
            extended = {}
            yield Member(clean(name), _KINDS.get(kind, "other"), target, position, size)
            if length is None:
                done = _pass_over(file, size, label)
            elif done := position + size <= length:
                file.seek(position + size + -size % BLOCK)
            if not done:
                raise ConversionError(f"{label} is cut short: it ends in the middle of '{clean(name)}'")
        position += size + -size % BLOCK


def clean(name: str) -> str:
    """A member's name in its shortest form, which never leads outside: `./a//b/../c` is `a/c`."""
    return posixpath.normpath("/" + name).lstrip("/")


def _read(file: BinaryIO, size: int, label: str) -> bytes:
    data = b""
    try:
        while len(data) < size and (more := file.read(size - len(data))):
            data += more
    except ConversionError as error:  # from decompression, which does not know the name
        raise ConversionError(f"{label}: {error}") from error
    return data


def _pass_over(file: BinaryIO, size: int, label: str) -> bool:
    """Read to the header after `size` bytes of content; false when they are not all there."""
    for left in range(size + -size % BLOCK, 0, -_CHUNK):
        wanted = min(left, _CHUNK)
        if len(_read(file, wanted, label)) < wanted:
            return False
    return True


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _size(field: bytes, extended: str | None, label: str) -> int:
    try:
        if extended is not None:
            size = int(extended)
        elif field[0] & 0x80:  # GNU: a binary number, where octal digits do not reach
            size = int.from_bytes(field, "big") & ((1 << 95) - 1)
        else:
            size = int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        size = -1
    if not 0 <= size < _LARGEST:
        raise ConversionError(f"{label} is damaged: a tar header holds no valid size")
    return size


def _pax(data: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE\\n` of an extended header; what is malformed ends the list."""
    records = {}
    start = 0
    while record := _PAX_LENGTH.match(data, start):
        end = start + int(record[1])
        key, equals, value = data[record.end() : end - 1].partition(b"=")
        if not equals:
            break
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        start = end
    return records
