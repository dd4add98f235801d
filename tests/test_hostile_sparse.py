"""Sparse maps, in all four forms, that overlap, go backwards, exceed the file, or lie about their length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile import Allowed, Refused, Scene, staged
from tests.hostile_tar import (
    END,
    entry,
    header,
    map_10,
    number,
    old_gnu,
    padded,
    pax,
    pax_raw,
    pax_sparse_00,
    pax_sparse_01,
    pax_sparse_10,
    record,
)

Pieces = list[tuple[int, int]]
Form = Callable[[Pieces, int, bytes], bytes]
FORMS: dict[str, Form] = {
    "old GNU": old_gnu,
    "PAX 0.0": pax_sparse_00,
    "PAX 0.1": pax_sparse_01,
    "PAX 1.0": pax_sparse_10,
}
OVERLAPS = Refused("overlaps or leaves its file")
DOES_NOT_FIT = Refused("does not fit its content")
HUGE = 1 << 61

MAPS: dict[str, tuple[Pieces, int, bytes, Allowed]] = {
    "one piece": ([(3, 2)], 8, b"ab", {"sparse": "\0\0\0ab\0\0\0"}),
    "two pieces that touch": ([(1, 1), (2, 1)], 4, b"ab", {"sparse": "\0ab\0"}),
    "an empty piece at the end": ([(0, 1), (4, 0)], 4, b"a", {"sparse": "a\0\0\0"}),
    "empty pieces": ([(0, 0), (0, 0), (2, 1), (3, 0)], 4, b"a", {"sparse": "\0\0a\0"}),
    "only a hole": ([(9, 0)], 9, b"", {"sparse": "\0" * 9}),
    "thirty pieces": (
        [(2 * n, 1) for n in range(30)], 60, b"a" * 30, {"sparse": "a\0" * 30}),
    "overlapping": ([(0, 3), (2, 3)], 9, b"abcdef", OVERLAPS),
    "the same twice": ([(0, 2), (0, 2)], 9, b"abcd", OVERLAPS),
    "backwards": ([(5, 2), (0, 2)], 9, b"abcd", OVERLAPS),
    "an empty piece backwards": ([(5, 2), (0, 0)], 9, b"ab", [OVERLAPS, {"sparse": "\0" * 5 + "ab\0\0"}]),
    "beyond the end": ([(8, 2)], 9, b"ab", OVERLAPS),
    "an empty piece beyond the end": ([(0, 2), (100, 0)], 9, b"ab", [OVERLAPS, {"sparse": "ab" + "\0" * 7}]),
    "content in a file of nothing": ([(0, 2)], 0, b"ab", OVERLAPS),
    "offset and length that overflow": ([(HUGE, HUGE), (HUGE * 2 - 1, 2)], HUGE * 2, b"ab", Refused()),
    "less content than pieces": ([(0, 5)], 9, b"ab", DOES_NOT_FIT),
    "more content than pieces": ([(0, 1)], 9, b"ab", DOES_NOT_FIT),
    "a piece of 4 EiB": ([(0, 1 << 62)], 1 << 62, b"ab", DOES_NOT_FIT),
    "larger than any disk": ([(0, 1)], 1 << 62, b"a", Refused()),
    "larger than a number": ([(0, 1)], 1 << 63, b"a", Refused("claims a sparse size")),
    "an offset larger than a number": ([(1 << 64, 1)], 9, b"a", Refused("claims a sparse")),
}  # fmt: skip


def in_pax(**records: bytes) -> bytes:
    """An entry of five bytes under these GNU.sparse records."""
    named = {b"GNU.sparse." + key.encode(): value for key, value in records.items()}
    return pax(named) + entry(b"abcde", name=b"sparse") + END


def ten(text: bytes, real: int = 9) -> bytes:
    return pax_sparse_10([], real, b"", padded(text)) + END


def lies() -> dict[str, tuple[bytes, Allowed]]:
    """What only one of the forms can get wrong."""
    broken, endless = Refused("broken sparse map"), Refused("without end")
    plain: dict[str, str] = {"sparse": "abcde"}
    six = [(2 * n, 1) for n in range(6)]
    cut = old_gnu(six, 12, b"aaaaaa")[:512]
    return {
        "old GNU: real size missing": (old_gnu([(0, 2)], 0, b"ab", realsize=b"") + END, OVERLAPS),
        "old GNU: real size of garbage": (old_gnu([(0, 2)], 0, b"ab", realsize=b"many") + END, Refused("not a number")),
        "old GNU: real size negative": (old_gnu([(0, 2)], 0, b"ab", realsize=number(-2)) + END, Refused("claims")),
        "old GNU: offset negative": (old_gnu([], 9, b"ab", map=number(-1) + number(2)) + END, Refused("claims")),
        "old GNU: length negative": (old_gnu([], 9, b"ab", map=number(0) + number(-2)) + END, Refused("claims")),
        "old GNU: map of garbage": (old_gnu([], 9, b"ab", map=b"x" * 96) + END, Refused("not a number")),
        "old GNU: map goes on and does not": (cut, Refused("cut short")),
        "old GNU: map goes on for ever": (
            old_gnu(six, 12)[:512] + (bytes(504) + b"\1" + bytes(7)) * 50, Refused()),
        "old GNU: no map": (old_gnu([], 0) + END, {"sparse": ""}),
        "old GNU: no map, a size": (old_gnu([], 700) + END, {"sparse": "\0" * 700}),
        "old GNU and PAX 1.0": (
            pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"})
            + old_gnu([(1, 2)], 4, b"ab") + END,
            [Refused(), {"sparse": "\0ab\0"}],
        ),
        "old GNU and a PAX size": (pax({b"size": b"9"}) + old_gnu([(1, 2)], 4, b"ab") + END, DOES_NOT_FIT),
        "0.0: a length before its offset": (
            pax_raw(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.numbytes", b"5")
                    + record(b"GNU.sparse.offset", b"1")) + entry(b"abcde", name=b"sparse") + END,
            Refused(),
        ),
        "0.0: two offsets": (
            pax_raw(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.offset", b"0")
                    + record(b"GNU.sparse.offset", b"1") + record(b"GNU.sparse.numbytes", b"5"))
            + entry(b"abcde", name=b"sparse") + END,
            [Refused(), {"sparse": "\0abcde\0\0\0"}],
        ),
        "0.0: no size": (in_pax(offset=b"0", numbytes=b"5"), Refused("claims a sparse size")),
        "0.0: in two headers": (
            pax_raw(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.offset", b"7"))
            + in_pax(size=b"5", offset=b"0", numbytes=b"5"),
            [Refused(), plain],
        ),
        "0.0: more blocks than it says": (in_pax(size=b"5", numblocks=b"0", offset=b"0", numbytes=b"5"),
            [Refused(), plain]),
        "0.1: odd": (in_pax(size=b"9", map=b"0,5,6"), broken),
        "0.1: empty": (in_pax(size=b"9", map=b""), Refused()),
        "0.1: words": (in_pax(size=b"9", map=b"zero,five"), Refused("claims a sparse map")),
        "0.1: negative": (in_pax(size=b"9", map=b"-1,5"), Refused("claims a sparse map")),
        "0.1: no size": (in_pax(map=b"0,5"), Refused("claims a sparse size")),
        "0.1: fewer blocks than it says": (in_pax(size=b"5", map=b"0,5", numblocks=b"9"), [Refused(), plain]),
        "0.1: a name to outside": (
            in_pax(size=b"5", map=b"0,5", name=b"../../evil"), Refused("leads out of the image")),
        "0.1: a name with a NUL": (in_pax(size=b"5", map=b"0,5", name=b"a\0b"), Refused("NUL")),
        "0.1: a name too long": (in_pax(size=b"5", map=b"0,5", name=b"n" * 256), Refused("too long")),
        "a size and no map": (in_pax(size=b"9"), [Refused(), plain, {"sparse": "\0" * 9}]),
        "a name alone": (in_pax(name=b"../../evil"), [Refused(), plain]),
        "1.0: no realsize": (
            pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"})
            + entry(map_10([(0, 1)]) + b"a", name=b"sparse") + END,
            Refused("claims a sparse size"),
        ),
        "1.0: no minor": (in_pax(major=b"1"), Refused("unknown format")),
        "1.0: of 2.0": (in_pax(major=b"2", minor=b"0"), Refused("unknown format")),
        "1.0: of 1.00": (in_pax(major=b"1", minor=b"00"), Refused("unknown format")),
        "1.0: a count larger than the map": (ten(b"3\n0\n0\n"), broken),
        "1.0: a count smaller than the map": (ten(b"0\n0\n5\n"), [Refused(), {"sparse": "\0" * 9}]),
        "1.0: a count of millions": (ten(b"2000000\n"), endless),
        "1.0: a count longer than a number": (ten(b"9" * 400 + b"\n"), Refused()),
        "1.0: a count negative": (ten(b"-1\n"), Refused("claims a sparse map")),
        "1.0: a count of words": (ten(b"two\n0\n0\n"), Refused("claims a sparse map")),
        "1.0: no newline": (ten(b"1"), Refused()),
        "1.0: no map": (pax_sparse_10([], 9, b"", b"\0" * 512) + END, Refused()),
        "1.0: a map behind its content": (
            pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"})
            + entry(b"", name=b"sparse") + END,
            broken,
        ),
        "1.0: cut in its map": (pax_sparse_10([(2 * n, 0) for n in range(200)], 999)[: 3 * 512], Refused("cut short")),
        "on a directory": (
            pax({b"GNU.sparse.size": b"9", b"GNU.sparse.map": b"0,5"}) + header(name=b"x", flag=b"5") + END,
            [Refused(), {"x": "dir"}],
        ),
        "on a symbolic link": (
            pax({b"GNU.sparse.size": b"9", b"GNU.sparse.map": b"0,0"})
            + header(name=b"x", flag=b"2", link=b"t") + END,
            [Refused(), {"x": "-> t"}],
        ),
        "on a hard link": (
            pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"})
            + header(name=b"x", flag=b"1", link=b"etc/passwd") + END,
            [Refused(), {"x": "inside"}],
        ),
    }  # fmt: skip


LIES = lies()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", MAPS)
def test_map(scene: Scene, what: str, form: str) -> None:
    pieces, real, content, allowed = MAPS[what]
    if form == "old GNU" and real >= 1 << 62 and what != "a piece of 4 EiB":
        allowed = Refused()
    scene.check(allowed, FORMS[form](pieces, real, content) + END)


@pytest.mark.parametrize("what", LIES)
def test_lie(scene: Scene, what: str) -> None:
    data, allowed = LIES[what]
    scene.check(allowed, data)


@pytest.mark.parametrize("form", FORMS)
def test_a_terabyte_of_nothing_takes_no_room(scene: Scene, form: str) -> None:
    """With content at both ends; the file system may have a smaller limit, and then it is one line."""
    size = 1 << 40
    data = FORMS[form]([(0, 5), (size - 5, 5)], size, b"beginends.") + END
    outcome = scene.convert_measured(scene.save(data), memory=400_000, timeout=60)
    assert outcome.peak < 200_000
    if outcome.status:
        outcome.refused()
        scene.assert_untouched(refused=True)
        return
    status = (scene.tree / "sparse").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < 1 << 20
    with (scene.tree / "sparse").open("rb") as file:
        assert file.read(6) == b"begin\0"
        file.seek(size - 6)
        assert file.read() == b"\0ends."
    scene.assert_untouched(refused=False)


def test_a_terabyte_where_small_files_are_read(scene: Scene) -> None:
    """/etc/passwd is looked into for USER: it must not be held."""
    records = {b"path": b"etc/passwd", b"GNU.sparse.map": b"0,5", b"GNU.sparse.size": b"%d" % (1 << 40)}
    data = pax(records) + entry(b"root:", name=b"x") + END
    outcome = scene.convert_measured(scene.save(data, User="root"), memory=400_000, timeout=60)
    outcome.refused("not sensible")
    assert outcome.peak < 200_000
    scene.assert_untouched(refused=True)
