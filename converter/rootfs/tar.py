"""A strict reader of tar headers: v7, ustar, PAX and GNU, with sparse files, over a stream read once.

pax(1) "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual, "Tar Internals"; star's and
libarchive's xattr records. Where tar(1) would warn and go on, this raises: a layer that is damaged is not used.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import unquote_to_bytes

from converter.errors import ConversionError

Kind = Literal["file", "dir", "symlink", "hardlink", "char", "block", "fifo"]

BLOCK = 512
PATH_MAX = 4096  # linux/limits.h, with the NUL
NAME_MAX = 255
_HEADER_MAX = 1 << 20  # bytes of one extended header
_SIZE_MAX = 1 << 62
_ID_MAX = (1 << 32) - 2  # the largest uid that chown(2) takes
_SPARSE_MAX = 1 << 20  # pieces of one sparse file
_TIME_MAX = 1 << 40  # seconds; far beyond every file system

_KINDS: Mapping[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
    b"S": "file",
}
_IGNORED = frozenset({b"V", b"M", b"N"})  # volume label, continuation of a volume, old names: no files


class Stream(Protocol):
    """What is read from: bytes in order, and how many there have been."""

    position: int

    def read(self, size: int) -> bytes: ...
    def skip(self, size: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One member. `mode` is the permission bits only; `mtime` in ns; `size` in bytes as the file will be.

    `offset` and `stored` give the content's place in the uncompressed stream. `sparse` lists the pieces
    (offset in the file, length) that are stored, one after the other; None when all is stored.
    """

    name: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: tuple[tuple[int, int], ...] | None = None
    offset: int = 0
    stored: int = 0


def read_entries(stream: Stream) -> Iterator[Entry]:
    """The members in their order. Their content is passed over.

    Raises ConversionError for anything that is not a whole, well-formed tar.
    """
    globals_: dict[bytes, bytes] = {}
    extended: dict[bytes, bytes] = {}
    pieces: list[tuple[int, int]] = []  # PAX sparse 0.0 repeats its keys
    long_name = long_link = None
    first = True
    while header := stream.read(BLOCK):
        if len(header) < BLOCK:
            raise _bad(stream, "is cut short" if not first else "is not a tar")
        if not header.strip(b"\0"):
            break  # the end-of-archive marker is two such blocks; one is enough for everybody
        if not _checksum_fits(header):
            raise _bad(stream, "is not a tar" if first else "has a header with a wrong checksum")
        first = False
        flag = header[156:157]
        size = _number(header[124:136], stream, "size")
        if flag in {b"x", b"g", b"X", b"L", b"K"}:
            data = _extension(stream, size)
            if flag == b"g":
                globals_.update(_pax_records(data, stream, []))
            elif flag == b"L":
                long_name = data.partition(b"\0")[0]
            elif flag == b"K":
                long_link = data.partition(b"\0")[0]
            else:
                extended = _pax_records(data, stream, pieces)
            continue
        records = {**globals_, **extended}
        entry = _entry(header, flag, size, records, long_name, long_link, pieces, stream)
        extended, pieces, long_name, long_link = {}, [], None, None
        end = stream.position
        if entry is not None:
            end = entry.offset + entry.stored + -entry.stored % BLOCK
            yield entry
        elif size:
            end += size + -size % BLOCK
        stream.skip(end - stream.position)
    if first and stream.position == 0:
        raise _bad(stream, "is empty")
    if extended or long_name is not None or long_link is not None:
        raise _bad(stream, "is cut short")


def _entry(
    header: bytes,
    flag: bytes,
    size: int,
    records: Mapping[bytes, bytes],
    long_name: bytes | None,
    long_link: bytes | None,
    pieces: list[tuple[int, int]],
    stream: Stream,
) -> Entry | None:
    name = records.get(b"path") or long_name
    if name is None:
        name = header[:100].partition(b"\0")[0]
        if header[257:263] == b"ustar\0" and (prefix := header[345:500].partition(b"\0")[0]):
            name = prefix + b"/" + name
    if flag in _IGNORED:
        return None
    kind = _KINDS.get(flag)
    if kind is None:
        # pax(1): an unknown type is a regular file. Vendors use A-Z for things that are not.
        if b"A" <= flag <= b"Z":
            raise _bad(stream, f"holds an entry of the unknown type {flag!r}")
        kind = "file"
    if kind == "file" and name.endswith(b"/") and flag in {b"0", b"\0"}:
        kind = "dir"  # as v7 wrote directories
    if b"size" in records:
        size = _decimal(records[b"size"], stream, "size", _SIZE_MAX)
    if kind != "file":
        size = 0  # links and directories may carry a size that says nothing about the archive
    sparse, real_size, stored, name = _sparse(header, flag, size, records, pieces, name, stream)
    link = records.get(b"linkpath") or long_link or header[157:257].partition(b"\0")[0]
    for path in (name, link):
        if len(path) >= PATH_MAX or any(len(part) > NAME_MAX for part in path.split(b"/")):
            raise _bad(stream, "holds a name that is too long for Linux")
        if b"\0" in path:
            raise _bad(stream, "holds a name with a NUL")
    return Entry(
        name=name,
        kind=kind,
        mode=_number(header[100:108], stream, "mode") & 0o7777,
        uid=_id(records, b"uid", header[108:116], stream),
        gid=_id(records, b"gid", header[116:124], stream),
        mtime=_mtime(records.get(b"mtime"), header[136:148], stream),
        size=real_size,
        link=link if kind in {"symlink", "hardlink"} else b"",
        device=_device(header, stream) if kind in {"char", "block"} else (0, 0),
        xattrs=_xattrs(records, stream),
        sparse=sparse,
        offset=stream.position,
        stored=stored,
    )


def _bad(stream: Stream, what: str) -> ConversionError:
    return ConversionError(f"the layer {what} (at byte {stream.position} of its tar)")


def _checksum_fits(header: bytes) -> bool:
    field = header[148:156].strip(b" \0")
    if not re.fullmatch(rb"[0-7]+", field):
        return False
    expected = int(field, 8)
    rest = header[:148] + b" " * 8 + header[156:]
    # Some old writers summed signed bytes.
    return expected == sum(rest) or expected == sum(b - 256 if b > 127 else b for b in rest)


def _number(field: bytes, stream: Stream, what: str) -> int:
    """Octal text, or GNU's base 256. Negative numbers are refused, but for times, by _mtime."""
    value = _signed_number(field, stream, what)
    if not 0 <= value <= _SIZE_MAX:
        raise _bad(stream, f"claims a {what} of {value}")
    return value


def _signed_number(field: bytes, stream: Stream, what: str) -> int:
    if field[0] & 0x80:
        # 0x80: positive, the flag bit off; 0xff: two's complement.
        value = int.from_bytes(field, "big", signed=field[0] == 0xFF)
        return value - (0x80 << 8 * (len(field) - 1)) if field[0] != 0xFF else value
    text = field.partition(b"\0")[0].strip(b" ")
    if not text:
        return 0
    if not re.fullmatch(rb"[0-7]+", text):
        raise _bad(stream, f"has a header whose {what} is not a number")
    return int(text, 8)


def _decimal(text: bytes, stream: Stream, what: str, largest: int) -> int:
    if not re.fullmatch(rb"[0-9]{1,20}", text) or int(text) > largest:
        raise _bad(stream, f"claims a {what} of {text[:30]!r}")
    return int(text)


def _id(records: Mapping[bytes, bytes], key: bytes, field: bytes, stream: Stream) -> int:
    what = key.decode()
    if key in records:
        return _decimal(records[key], stream, what, _ID_MAX)
    value = _number(field, stream, what)
    if value > _ID_MAX:
        raise _bad(stream, f"claims a {what} of {value}")
    return value


def _mtime(record: bytes | None, field: bytes, stream: Stream) -> int:
    if record is None:
        seconds, nanoseconds = _signed_number(field, stream, "time"), 0
    else:
        match = re.fullmatch(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?", record)
        if match is None:
            raise _bad(stream, f"has a time of {record[:30]!r}")
        seconds = int(match[2])
        nanoseconds = int((match[3] or b"")[:9].ljust(9, b"0"))
        if match[1]:
            seconds, nanoseconds = (-seconds, 0) if not nanoseconds else (-seconds - 1, 10**9 - nanoseconds)
    if abs(seconds) > _TIME_MAX:
        raise _bad(stream, f"has a time of {seconds} s")
    return seconds * 10**9 + nanoseconds


def _device(header: bytes, stream: Stream) -> tuple[int, int]:
    major = _number(header[329:337], stream, "device number")
    minor = _number(header[337:345], stream, "device number")
    if major > 0xFFF or minor > 0xFFFFF:  # the kernel's 12 and 20 bits
        raise _bad(stream, f"claims the device {major}:{minor}")
    return major, minor


def _extension(stream: Stream, size: int) -> bytes:
    if size > _HEADER_MAX:
        raise _bad(stream, f"has an extended header of {size} bytes")
    padded = size + -size % BLOCK
    data = stream.read(padded)
    if len(data) < padded:
        raise _bad(stream, "is cut short")
    return data[:size]


def _pax_records(data: bytes, stream: Stream, pieces: list[tuple[int, int]]) -> dict[bytes, bytes]:
    """`LENGTH KEY=VALUE\\n` records, the length counting itself."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        match = re.compile(rb"([0-9]{1,8}) ").match(data, at)
        if match is None:
            if not data[at:].strip(b"\0"):
                break
            raise _bad(stream, "has a broken extended header")
        end = at + int(match[1])
        key, equals, value = data[match.end() : end].partition(b"=")
        if end > len(data) or end <= match.end() or data[end - 1 : end] != b"\n" or not equals:
            raise _bad(stream, "has a broken extended header")
        value = value[:-1]
        if key == b"GNU.sparse.offset":
            pieces.append((_decimal(value, stream, "sparse offset", _SIZE_MAX), 0))
        elif key == b"GNU.sparse.numbytes" and pieces:
            pieces[-1] = (pieces[-1][0], _decimal(value, stream, "sparse length", _SIZE_MAX))
        records[key] = value
        at = end
    return records


def _xattrs(records: Mapping[bytes, bytes], stream: Stream) -> tuple[tuple[bytes, bytes], ...]:
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(b"LIBARCHIVE.xattr."):
            try:
                padded = value + b"=" * (-len(value) % 4)
                found.setdefault(unquote_to_bytes(key[17:]), base64.b64decode(padded, validate=True))
            except binascii.Error:
                raise _bad(stream, "has a broken extended attribute") from None
    for key, value in records.items():
        if key.startswith(b"SCHILY.xattr."):
            found[key[13:]] = value
    if any(not name or len(name) > NAME_MAX or b"\0" in name or len(v) > 65536 for name, v in found.items()):
        raise _bad(stream, "has an extended attribute that is too large for Linux")
    return tuple(sorted(found.items()))


def _sparse(
    header: bytes,
    flag: bytes,
    size: int,
    records: Mapping[bytes, bytes],
    pieces: list[tuple[int, int]],
    name: bytes,
    stream: Stream,
) -> tuple[tuple[tuple[int, int], ...] | None, int, int, bytes]:
    """The map of a sparse file, its real size, the bytes of content stored from here on, and its name."""
    if flag == b"S":
        found, real = _old_gnu_map(header, stream)
    elif b"GNU.sparse.major" in records:
        if (records[b"GNU.sparse.major"], records.get(b"GNU.sparse.minor")) != (b"1", b"0"):
            raise _bad(stream, "holds a sparse file of an unknown format")
        before = stream.position
        found = _map_in_content(stream, size)
        size -= stream.position - before
        real = _decimal(records.get(b"GNU.sparse.realsize", b""), stream, "sparse size", _SIZE_MAX)
    elif b"GNU.sparse.map" in records:
        numbers = [
            _decimal(n, stream, "sparse map", _SIZE_MAX) for n in records[b"GNU.sparse.map"].split(b",")
        ]
        found = list(zip(numbers[::2], numbers[1::2], strict=False))
        if len(numbers) % 2:
            raise _bad(stream, "has a broken sparse map")
        real = _decimal(records.get(b"GNU.sparse.size", b""), stream, "sparse size", _SIZE_MAX)
    elif pieces:
        found = pieces
        real = _decimal(records.get(b"GNU.sparse.size", b""), stream, "sparse size", _SIZE_MAX)
    else:
        return None, size, size, name
    end = 0
    for offset, length in found:
        if offset < end or offset + length > real:
            raise _bad(stream, "has a sparse map that overlaps or leaves its file")
        end = offset + length
    if sum(length for _, length in found) != size:
        raise _bad(stream, "has a sparse map that does not fit its content")
    return tuple(found), real, size, records.get(b"GNU.sparse.name") or name


def _old_gnu_map(header: bytes, stream: Stream) -> tuple[list[tuple[int, int]], int]:
    found: list[tuple[int, int]] = []
    real = _number(header[483:495], stream, "sparse size")
    block, start, count, more = header, 386, 4, header[482]
    while True:
        for at in range(start, start + 24 * count, 24):
            if not block[at : at + 24].strip(b"\0"):
                break
            offset = _number(block[at : at + 12], stream, "sparse offset")
            found.append((offset, _number(block[at + 12 : at + 24], stream, "sparse length")))
        if not more:
            return found, real
        if len(found) > _SPARSE_MAX:
            raise _bad(stream, "has a sparse map without end")
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise _bad(stream, "is cut short")
        start, count, more = 0, 21, block[504]


def _map_in_content(stream: Stream, size: int) -> list[tuple[int, int]]:
    """PAX sparse 1.0: the map stands before the content, as decimal lines, padded to whole blocks."""
    end = stream.position + size
    data = b""
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        line, newline, rest = data.partition(b"\n")
        if not newline:
            if stream.position + BLOCK > end or len(data) > 32:
                raise _bad(stream, "has a broken sparse map")
            block = stream.read(BLOCK)
            if len(block) < BLOCK:
                raise _bad(stream, "is cut short")
            data += block
            continue
        data = rest
        numbers.append(_decimal(line, stream, "sparse map", _SIZE_MAX))
        if len(numbers) == 1:
            if numbers[0] > _SPARSE_MAX:
                raise _bad(stream, "has a sparse map without end")
            wanted = 1 + 2 * numbers[0]
    return list(zip(numbers[1::2], numbers[2::2], strict=True))
