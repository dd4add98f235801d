"""A strict reader of tar headers: v7, ustar, PAX and GNU, with sparse files, over a stream read once.

pax(1) "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual, "Tar Internals"; star's and
libarchive's xattr records. Where tar(1) would warn and go on, this raises: a layer that is damaged is not used.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from converter.errors import ConversionError

Kind = Literal["file", "dir", "symlink", "hardlink", "char", "block", "fifo"]

BLOCK = 512
PATH_MAX = 4096  # linux/limits.h, with the NUL
NAME_MAX = 255
_HEADER_MAX = 1 << 20  # bytes of one extended header
_SIZE_MAX = 1 << 62
_ID_MAX = (1 << 32) - 2  # the largest uid that chown(2) takes
_SPARSE_MAX = 1 << 18  # pieces of one sparse file
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
_LINKS = frozenset({"symlink", "hardlink"})
_DEVICES = frozenset({"char", "block"})
_REGULAR = frozenset({b"0", b"\0"})
_ZEROS = bytes(BLOCK)
# Mode, uid, gid, size and time, as nearly all writers put them: octal digits and one NUL or space.
_FIELDS = re.compile(rb"([0-7]{7})[\0 ]([0-7]{7})[\0 ]([0-7]{7})[\0 ]([0-7]{11})[\0 ]([0-7]{11})[\0 ]").match
_OCTAL = re.compile(rb"[0-7]+").fullmatch
_DECIMAL = re.compile(rb"[0-9]{1,20}").fullmatch
_TIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?").fullmatch
_RECORD = re.compile(rb"([0-9]{1,8}) ").match
_EXTENDING = frozenset({b"x", b"g", b"X", b"L", b"K"})
_IGNORED = frozenset({b"V", b"M", b"N"})  # volume label, continuation of a volume, old names: no files


class Stream(Protocol):
    """What is read from: bytes in order, and how many there have been."""

    @property
    def position(self) -> int: ...
    def read(self, size: int) -> bytes: ...
    def skip(self, size: int) -> None: ...


class Entry(NamedTuple):
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
    """The members in their order. What the caller does not read of a member's content is passed over.

    Raises ConversionError for anything that is not a whole, well-formed tar.
    """
    extended: dict[bytes, bytes] = {}
    pieces: list[tuple[int, int]] = []  # PAX sparse 0.0 repeats its keys
    long_name = long_link = None
    first = True
    while header := stream.read(BLOCK):
        if len(header) < BLOCK:
            raise _bad(stream, "is cut short" if not first else "is not a tar")
        if not _checksum_fits(header):
            if header == _ZEROS:
                break  # the end-of-archive marker is two such blocks; one is enough for everybody
            raise _bad(stream, "is not a tar" if first else "has a header with a wrong checksum")
        first = False
        numbers = _numbers(header, stream)
        flag = header[156:157]
        if flag in _EXTENDING:
            data = _extension(stream, numbers[3])
            if flag == b"g":
                # Docker and Go's archive/tar read global records and use none of them.
                _pax_records(data, stream, [])
            elif flag == b"L":
                long_name = data.partition(b"\0")[0]
            elif flag == b"K":
                long_link = data.partition(b"\0")[0]
            else:
                pieces = []
                extended = _pax_records(data, stream, pieces)
            continue
        entry = _entry(header, flag, numbers, extended, long_name, long_link, pieces, stream)
        if extended or pieces:
            extended, pieces = {}, []
        long_name = long_link = None
        end = entry.offset + entry.stored + -entry.stored % BLOCK
        if flag not in _IGNORED:
            yield entry  # whose content the caller may read
        if end != stream.position:
            stream.skip(end - stream.position)
    if first and stream.position == 0:
        raise _bad(stream, "is empty")
    if extended or long_name is not None or long_link is not None:
        raise _bad(stream, "is cut short")


def _entry(
    header: bytes,
    flag: bytes,
    numbers: tuple[int, int, int, int, int | None],
    records: Mapping[bytes, bytes],
    long_name: bytes | None,
    long_link: bytes | None,
    pieces: list[tuple[int, int]],
    stream: Stream,
) -> Entry:
    mode, uid, gid, size, seconds = numbers
    name = long_name
    link = long_link
    if records:
        name = records.get(b"path") or name
        link = records.get(b"linkpath") or link
    if name is None:
        name = header[:100].partition(b"\0")[0]
        if header[345] and header[257:263] == b"ustar\0":
            name = header[345:500].partition(b"\0")[0] + b"/" + name
    kind = _KINDS.get(flag)
    if kind is None:
        # pax(1): an unknown type is a regular file. Vendors use A-Z for things that are not.
        if b"A" <= flag <= b"Z" and flag not in _IGNORED:
            raise _bad(stream, f"holds an entry of the unknown type {flag!r}")
        kind = "file"
    if kind == "file" and name.endswith(b"/") and flag in _REGULAR:
        kind = "dir"  # as v7 wrote directories
    if kind in _LINKS:
        if link is None:
            link = header[157:257].partition(b"\0")[0]
        if kind == "hardlink":
            _check_name(link, stream)
        elif len(link) >= PATH_MAX or b"\0" in link:  # any text but for that: it need not be a path
            raise _bad(stream, "holds a symbolic link that is too long for Linux")
    else:
        link = b""
    _check_name(name, stream)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: tuple[tuple[int, int], ...] | None = None
    record = None
    if records:
        if records.get(b"size"):
            size = _decimal(records[b"size"], stream, "size", _SIZE_MAX)
        if records.get(b"uid"):
            uid = _decimal(records[b"uid"], stream, "uid", _SIZE_MAX)
        if records.get(b"gid"):
            gid = _decimal(records[b"gid"], stream, "gid", _SIZE_MAX)
        record = records.get(b"mtime")
        xattrs = _xattrs(records, stream)
    if kind != "file":
        size = 0  # links and directories may carry a size that says nothing about the archive
    stored = size
    if kind == "file" and (records or flag == b"S"):
        sparse, size, stored, name = _sparse(header, flag, size, records, pieces, name, stream)
        _check_name(name, stream)
    for what, number in (("uid", uid), ("gid", gid)):
        if number > _ID_MAX:
            raise _bad(stream, f"claims a {what} of {number}")
    mtime = seconds * 10**9 if seconds is not None and not record else _mtime(record, header[136:148], stream)
    device = _device(header, stream) if kind in _DEVICES else (0, 0)
    offset = stream.position
    return Entry(
        name, kind, mode & 0o7777, uid, gid, mtime, size, link, device, xattrs, sparse, offset, stored
    )


def _check_name(path: bytes, stream: Stream) -> None:
    if len(path) > NAME_MAX and (
        len(path) >= PATH_MAX or any(len(part) > NAME_MAX for part in path.split(b"/"))
    ):
        raise _bad(stream, "holds a name that is too long for Linux")
    if b"\0" in path:
        raise _bad(stream, "holds a name with a NUL")


def _numbers(header: bytes, stream: Stream) -> tuple[int, int, int, int, int | None]:
    """Mode, uid, gid, size and, where it is no more than octal digits, the time in seconds."""
    match = _FIELDS(header, 100)
    if match is not None:  # as nearly all are
        mode, uid, gid, size, time = match.groups()
        return int(mode, 8), int(uid, 8), int(gid, 8), int(size, 8), int(time, 8)
    return (
        _number(header[100:108], stream, "mode"),
        _number(header[108:116], stream, "uid"),
        _number(header[116:124], stream, "gid"),
        _number(header[124:136], stream, "size"),
        None,
    )


def _bad(stream: Stream, what: str) -> ConversionError:
    return ConversionError(f"the layer {what} (at byte {stream.position} of its tar)")


def _checksum_fits(header: bytes) -> bool:
    field = header[148:156].strip(b" \0")
    if not _OCTAL(field):
        return False
    expected = int(field, 8)
    # Adler-32's lower half is 1 + the sum of the bytes, modulo 65521: exact for 256 bytes, and far faster than sum().
    total = (zlib.adler32(header[:256]) & 0xFFFF) + (zlib.adler32(header[256:]) & 0xFFFF) - 2
    own = header[148:156]
    if expected == total - sum(own) + 8 * ord(" "):
        return True
    # Some old writers summed signed bytes.
    rest = header[:148] + b" " * 8 + header[156:]
    return expected == sum(b - 256 if b > 127 else b for b in rest)


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
    if not _OCTAL(text):
        raise _bad(stream, f"has a header whose {what} is not a number")
    return int(text, 8)


def _decimal(text: bytes, stream: Stream, what: str, largest: int) -> int:
    if not _DECIMAL(text) or int(text) > largest:
        raise _bad(stream, f"claims a {what} of {text[:30]!r}")
    return int(text)


def _mtime(record: bytes | None, field: bytes, stream: Stream) -> int:
    if not record:
        seconds, nanoseconds = _signed_number(field, stream, "time"), 0
    else:
        match = _TIME(record)
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
        match = _RECORD(data, at)
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
        texts = records[b"GNU.sparse.map"].split(b",") if records[b"GNU.sparse.map"] else []
        numbers = [_decimal(text, stream, "sparse map", _SIZE_MAX) for text in texts]
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
