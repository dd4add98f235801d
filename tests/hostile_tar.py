"""Tar headers with any bytes in any field, which tarfile would not write."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)

_FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "flag": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "major": (329, 8),
    "minor": (337, 8),
    "prefix": (345, 155),
    "map": (386, 96),
    "more": (482, 1),
    "realsize": (483, 12),
}


def header(**fields: bytes) -> bytes:
    """A ustar header whose fields are these raw bytes; its checksum is right unless it is given."""
    block = bytearray(BLOCK)
    given = {"magic": b"ustar\x0000", "flag": b"0", "mode": b"0000644", "checksum": b" " * 8, **fields}
    for name, value in given.items():
        at, size = _FIELDS[name]
        assert len(value) <= size, name
        block[at : at + size] = value.ljust(size, b"\0")
    if "checksum" not in fields:
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def entry(content: bytes = b"", **fields: bytes) -> bytes:
    """A header and its content, the size as it is unless given."""
    return header(**{"size": b"%o" % len(content), **fields}) + padded(content)


def record(key: bytes, value: bytes) -> bytes:
    """One record of a PAX header, the length counting itself."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return b"%d" % length + body


def pax_raw(records: bytes, flag: bytes = b"x") -> bytes:
    return entry(records, name=b"pax", flag=flag)


def pax(records: dict[bytes, bytes], flag: bytes = b"x") -> bytes:
    return pax_raw(b"".join(record(key, value) for key, value in records.items()), flag)


def gnu_long(text: bytes, flag: bytes = b"L") -> bytes:
    """A GNU long name (L) or link target (K) for the entry that follows."""
    return entry(text + b"\0", name=b"././@LongLink", flag=flag, magic=b"ustar  \0")


def number(value: int, size: int = 12) -> bytes:
    """GNU's base 256."""
    if value < 0:
        return value.to_bytes(size, "big", signed=True)
    return (value | 0x80 << 8 * (size - 1)).to_bytes(size, "big")


def old_gnu(pieces: list[tuple[int, int]], real: int, content: bytes = b"", **fields: bytes) -> bytes:
    """An old GNU sparse file; a map longer than four pieces goes on in further blocks."""
    texts = [number(offset) + number(length) for offset, length in pieces]
    first, rest = texts[:4], texts[4:]
    more = b""
    while rest:
        more += b"".join(rest[:21]).ljust(504, b"\0") + (b"\1" if rest[21:] else b"\0") + bytes(7)
        rest = rest[21:]
    given = {
        "name": b"sparse",
        "flag": b"S",
        "magic": b"ustar  \0",
        "size": b"%o" % len(content),
        "map": b"".join(first),
        "more": b"\1" if more else b"\0",
        "realsize": number(real),
        **fields,
    }
    return header(**given) + more + padded(content)


def pax_sparse_00(pieces: list[tuple[int, int]], real: int, content: bytes = b"") -> bytes:
    records = record(b"GNU.sparse.size", b"%d" % real) + record(b"GNU.sparse.numblocks", b"%d" % len(pieces))
    for offset, length in pieces:
        records += record(b"GNU.sparse.offset", b"%d" % offset)
        records += record(b"GNU.sparse.numbytes", b"%d" % length)
    return pax_raw(records) + entry(content, name=b"sparse")


def pax_sparse_01(pieces: list[tuple[int, int]], real: int, content: bytes = b"") -> bytes:
    listed = b",".join(b"%d,%d" % piece for piece in pieces)
    records = {b"GNU.sparse.size": b"%d" % real, b"GNU.sparse.numblocks": b"%d" % len(pieces)}
    named = {**records, b"GNU.sparse.name": b"sparse", b"GNU.sparse.map": listed}
    return pax(named) + entry(content, name=b"GNUSparseFile.0/sparse")


def map_10(pieces: list[tuple[int, int]], count: int | None = None) -> bytes:
    lines = [len(pieces) if count is None else count, *(n for piece in pieces for n in piece)]
    return padded(b"".join(b"%d\n" % line for line in lines))


def pax_sparse_10(pieces: list[tuple[int, int]], real: int, content: bytes = b"", text: bytes = b"") -> bytes:
    """`text`, when given, stands in for the map."""
    stored = (text or map_10(pieces)) + content
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"sparse"}
    return pax({**records, b"GNU.sparse.realsize": b"%d" % real}) + entry(stored, name=b"GNUSparseFile.0/s")
