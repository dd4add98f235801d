"""An image's own layers, on top of a base: the same for the same seed, and all that layers do to what is below them."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import image
from benchmarks.flattened import Tree, lay

_TIME = 1_700_000_000  # seconds since the epoch
# As setcap writes it: version 2, effective, CAP_NET_BIND_SERVICE.
_CAPABILITY = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
# What may be changed without making the image a different system.
_CHANGED = ("usr/share/", "usr/lib/python3")
_WORDS = (
    "request",
    "token",
    "index",
    "volume",
    "return",
    "import",
    "value",
    "path",
    "server",
    "{",
    "}",
    "\n",
)


@dataclass(frozen=True)
class Size:
    """How much a layer has, from and to: files, bytes of all of them; of the base: files overwritten and deleted."""

    files: tuple[int, int]
    content: tuple[int, int]
    overwritten: tuple[int, int]
    deleted: tuple[int, int]


APPLICATION = Size((150, 400), (1_000_000, 5_000_000), (3, 15), (2, 10))
TINY = Size((2, 5), (1_000, 4_000), (0, 1), (0, 0))


def make(tree: Tree, layer_count: int, size: Size, seed: str, place: Path) -> list[image.Layer]:
    """Write layers into `place` and lay them on `tree`, which has the base; numbers of layers go on after its."""
    chance = random.Random(seed)
    first = max(entry.layer for entry in tree.values()) + 1
    made = []
    for number in range(first, first + layer_count):
        path = place / f"{number}.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            _Writer(archive, tree, chance, number).write(size)
        lay(tree, path, number)
        made.append(image.layer(path))
    return made


class _Writer:
    """One layer. Parents come before what is in them, with the metadata that they have already."""

    def __init__(self, archive: tarfile.TarFile, tree: Tree, chance: random.Random, number: int) -> None:
        self._archive = archive
        self._tree = tree
        self._chance = chance
        self._number = number
        self._there: set[str] = set()

    def write(self, size: Size) -> None:
        files = self._files(size)
        self._links(files)
        self._change(size)

    def _files(self, size: Size) -> list[str]:
        count = self._chance.randint(*size.files)
        mean = self._chance.randint(*size.content) // count
        names = []
        for number in range(count):
            name = f"srv/app/layer-{self._number}/part-{number % 12:02}/{number:03}.dat"
            entry = tarfile.TarInfo(name)
            entry.mode = self._chance.choice((0o644, 0o644, 0o600, 0o755))
            entry.uid = entry.gid = self._chance.choice((0, 0, 33))
            if number == 0:
                entry.pax_headers = {"SCHILY.xattr.security.capability": _CAPABILITY}
            self._add(entry, self._content(self._chance.randint(1, 2 * mean)))
            names.append(name)
        return names

    def _links(self, files: list[str]) -> None:
        """Hard and symbolic links to what this layer has."""
        for number, target in enumerate(self._chance.sample(files, k=min(len(files), 8))):
            entry = tarfile.TarInfo(f"srv/app/layer-{self._number}/link-{number}")
            entry.type = tarfile.SYMTYPE if number % 4 == 3 else tarfile.LNKTYPE
            entry.linkname = f"/{target}" if entry.issym() else target
            self._add(entry)

    def _change(self, size: Size) -> None:
        """Overwrite and delete what is below; every fourth layer or so hides a whole directory."""
        files = [
            path
            for path, entry in self._tree.items()
            if path.startswith((*_CHANGED, "srv/app/")) and entry.info.isreg() and path not in self._there
        ]
        self._chance.shuffle(files)
        opaque = self._opaque(files) if size.deleted[1] and self._chance.random() < 0.25 else ""
        left = [path for path in files if not opaque or not path.startswith(f"{opaque}/")]
        for path in left[: self._chance.randint(*size.overwritten)]:
            below = self._tree[path].info
            entry = tarfile.TarInfo(path)
            entry.mode, entry.uid, entry.gid = below.mode, below.uid, below.gid
            self._add(entry, self._content(below.size))
        for path in left[-self._chance.randint(*size.deleted) or len(left) :]:
            where, _, name = path.rpartition("/")
            self._add(tarfile.TarInfo(f"{where}/.wh.{name}"))

    def _opaque(self, files: list[str]) -> str:
        directory = next(path.rpartition("/")[0] for path in files if path.count("/") >= 4)
        self._add(tarfile.TarInfo(f"{directory}/.wh..wh..opq"))
        for number in range(3):
            self._add(tarfile.TarInfo(f"{directory}/new-{number}"), self._content(500))
        return directory

    def _content(self, size: int) -> bytes:
        """Half of it compresses well, as of programs and their data."""
        words = " ".join(self._chance.choices(_WORDS, k=size // 10)).encode()
        return (words + self._chance.randbytes(size))[:size]

    def _add(self, entry: tarfile.TarInfo, content: bytes = b"") -> None:
        for parent in self._new_parents(entry.name):
            self._archive.addfile(parent)
        self._there.add(entry.name)
        entry.size, entry.mtime = len(content), _TIME + self._number
        self._archive.addfile(entry, io.BytesIO(content))

    def _new_parents(self, name: str) -> Iterator[tarfile.TarInfo]:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path in self._there:
                continue
            self._there.add(path)
            parent = tarfile.TarInfo(path)
            parent.type, parent.mode, parent.mtime = tarfile.DIRTYPE, 0o755, _TIME
            if path in self._tree:
                below = self._tree[path].info
                parent.mode, parent.uid, parent.gid = below.mode, below.uid, below.gid
                parent.mtime = below.mtime
            yield parent
