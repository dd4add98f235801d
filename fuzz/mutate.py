"""Mutations that know what a tar is: most bytes of a header, once changed, only make its checksum wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

BLOCK = 512
Mutate = Callable[[bytes, int], bytes]  # libFuzzer's own mutations, of raw bytes
_RECORD = re.compile(rb"([0-9]+) ([^=\n\0]+)=([^\n\0]*)\n?")
_OCTAL = re.compile(rb" *([0-7]+)[ \0]")

# name, mode, uid, gid, size, mtime, flag, link, magic, major, minor, prefix, sparse map, more, real size
_FIELDS = (
    (0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (329, 8),
    (337, 8), (345, 155), (386, 96), (482, 1), (483, 12),
)  # fmt: skip
_NUMBERS = (0, 1, 7, 511, 512, 513, 1 << 20, (1 << 31) - 1, (1 << 32) - 1, (1 << 33), 1 << 62, (1 << 63) - 1)
_FLAGS = b"01234567SxgXLKVMN\0DAz"
_KEYS = (
    b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"GNU.sparse.major", b"GNU.sparse.minor",
    b"GNU.sparse.name", b"GNU.sparse.realsize", b"GNU.sparse.size", b"GNU.sparse.numblocks", b"GNU.sparse.offset",
    b"GNU.sparse.numbytes", b"GNU.sparse.map", b"SCHILY.xattr.user.a", b"LIBARCHIVE.xattr.user.b", b"hdrcharset",
)  # fmt: skip


def mutated(data: bytes, most: int, seed: int, mutate: Mutate, joint: bytes = b"") -> bytes:
    """One step away from `data`, of at most `most` bytes. `joint` is what may stand between two tars."""
    dice = random.Random(seed)
    parts = data.split(joint) if joint else [data]
    number = dice.randrange(len(parts))
    if joint and dice.random() < 0.1:
        _rearrange(parts, dice)
    else:
        parts[number] = _mutated_tar(
            parts[number], max(most - len(data) + len(parts[number]), 1), dice, mutate
        )
    if dice.random() < 0.95:  # a wrong checksum is a case, too
        parts = [with_checksums(part) for part in parts]
    return joint.join(parts)[:most]


def _mutated_tar(data: bytes, most: int, dice: random.Random, mutate: Mutate) -> bytes:
    headers = header_offsets(data)
    choice = dice.random()
    if not headers or choice < 0.3:
        return mutate(data, most)
    at = dice.choice(headers)
    if choice < 0.7:
        start, length = dice.choice(_FIELDS)
        start += at
        field = _field(data[start : start + length], dice, mutate)
        return data[:start] + field[:length].ljust(length, b"\0") + data[start + length :]
    if choice < 0.9 and (bodies := [h for h in headers if data[h + 156 : h + 157] in (b"x", b"g", b"X")]):
        return _mutated_records(data, dice.choice(bodies), dice, mutate)
    blocks = [data[n : n + BLOCK] for n in range(0, len(data), BLOCK)]
    _rearrange(blocks, dice)
    return b"".join(blocks)[:most]


def _field(field: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    if len(field) == 1:
        return bytes([dice.choice(_FLAGS)])
    choice = dice.random()
    if choice < 0.3:
        return b"%o" % dice.choice(_NUMBERS)
    if choice < 0.5:
        return (dice.choice((0x80, 0xFF)) << 8 * (len(field) - 1) | dice.choice(_NUMBERS)).to_bytes(
            max(len(field), 9), "big"
        )[-len(field) :]
    return mutate(field, len(field)) or b"\0"


def _mutated_records(data: bytes, at: int, dice: random.Random, mutate: Mutate) -> bytes:
    """Change, add, double or remove one record of a PAX header, whose size is put right."""
    size = size_of(data[at : at + BLOCK])
    start = at + BLOCK
    end = start + size + -size % BLOCK
    records = [(m[2], m[3]) for m in _RECORD.finditer(data[start : start + size])]
    choice = dice.random()
    if not records or choice < 0.25:
        records.insert(dice.randint(0, len(records)), (dice.choice(_KEYS), b"%d" % dice.choice(_NUMBERS)))
    elif choice < 0.4:
        _rearrange(records, dice)
    else:
        number = dice.randrange(len(records))
        key, value = records[number]
        if dice.random() < 0.2:
            key = dice.choice(_KEYS)
        elif dice.random() < 0.3:
            value = b"%d" % dice.choice(_NUMBERS)
        else:
            value = mutate(value or b"0", len(value) + 32)
        records[number] = (key, value)
    body = b"".join(record(key, value) for key, value in records)
    header = data[at : at + 124] + b"%011o\0" % len(body) + data[at + 136 : at + BLOCK]
    return data[:at] + header + body + bytes(-len(body) % BLOCK) + data[end:]


def _rearrange(items: list[Any], dice: random.Random) -> None:
    """Double, remove, swap or move one of the items."""
    if not items:
        return
    one, other = dice.randrange(len(items)), dice.randrange(len(items))
    match dice.randrange(4):
        case 0:
            items.insert(other, items[one])
        case 1:
            del items[one]
        case 2:
            items[one], items[other] = items[other], items[one]
        case _:
            items.insert(other, items.pop(one))


def record(key: bytes, value: bytes) -> bytes:
    """A record of a PAX header, whose length counts itself."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def size_of(header: bytes) -> int:
    """What a header says of its content's size, in either form, or 0."""
    field = header[124:136]
    if field[:1] >= b"\x80":
        return int.from_bytes(field[1:], "big")
    match = _OCTAL.match(field)
    return int(match[1], 8) if match else 0


def header_offsets(data: bytes) -> list[int]:
    """Where the headers are, if each says the truth of its size."""
    found = []
    at = 0
    while at + BLOCK <= len(data):
        header = data[at : at + BLOCK]
        at += BLOCK
        if not header.strip(b"\0"):
            continue
        found.append(at - BLOCK)
        more = header[156:157] == b"S" and header[482]
        while more and at + BLOCK <= len(data):
            more = data[at + 504]
            at += BLOCK
        size = size_of(header)
        at += size + -size % BLOCK
    return found


def with_checksums(data: bytes) -> bytes:
    """The same with the checksum of every header right."""
    whole = bytearray(data)
    for at in header_offsets(data):
        whole[at + 148 : at + 156] = b" " * 8
        whole[at + 148 : at + 156] = b"%06o\0 " % sum(whole[at : at + BLOCK])
    return bytes(whole)
