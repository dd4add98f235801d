"""What COPY, ADD and bind mounts take files from: the build context, or the tree of another stage or image."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from converter import inside
from converter.dockerfile.ignore import Matched, Matcher, Pattern, read_ignore_file
from converter.dockerfile.tree import Tree
from converter.errors import ConversionError

_IGNORE_FILE = ".dockerignore"
_IGNORE_FILE_MAX = 1 << 24  # bytes


@dataclass(frozen=True)
class Source:
    """A tree at `root`, called `name` in messages.

    `ignore` hides paths of it. `owned`: its files have owners that count; those of a build context are root's for all.
    """

    root: Path
    name: str = "the build context"
    ignore: Matcher | None = None
    owned: bool = True


def open_context(directory: Path, dockerfile: Path) -> Source:
    """The build context `directory` of this Dockerfile, without what its .dockerignore names.

    The Dockerfile's own ignore file (its path with ".dockerignore" at the end) is used instead of the context's.
    Raises ConversionError when there is no such directory, DockerfileError for a malformed ignore file.
    """
    if not directory.is_dir():
        raise ConversionError(f"the build context {directory} is not a directory")
    own = dockerfile.with_name(f"{dockerfile.name}{_IGNORE_FILE}")
    for file in (own, directory / _IGNORE_FILE):
        data = inside.read(file.parent, file.name, _IGNORE_FILE_MAX + 1)
        if data is None:
            continue
        if len(data) > _IGNORE_FILE_MAX:
            raise ConversionError(f"{file} is larger than {_IGNORE_FILE_MAX >> 20} MiB")
        ignore = read_ignore_file(str(file), data)
        return Source(directory, ignore=ignore if ignore.patterns else None, owned=False)
    return Source(directory, owned=False)


class Seen(NamedTuple):
    """A path below the top of a walk, its lstat(2), and whether an ignore file names it.

    An ignored directory is there all the same if something in it is.
    """

    path: str
    status: os.stat_result
    ignored: bool


class View:
    """A Source, opened: what a build sees of it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        try:
            self.tree = Tree(source.root)
        except OSError as error:
            raise ConversionError(f"cannot read {source.name} at {source.root}: {error.strerror}") from None

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: object) -> None:
        self.tree.close()

    def ignored_by(self, path: str) -> Pattern | None:
        """The pattern that hides a path that is there."""
        if self.source.ignore is None:
            return None
        ignored, _, pattern = self.source.ignore.decide(path)
        return pattern if ignored else None

    def exists(self, path: str) -> bool:
        """Is it there, for the build? Raises OSError."""
        try:
            found = self.tree.find(path)
        except NotADirectoryError:
            return False
        if found is None:
            return False
        if self.ignored_by(path) is None:
            return True
        return stat.S_ISDIR(found.st_mode) and any(not seen.ignored for seen in self.walk(path))

    def resolve(self, path: str) -> str:
        """Where a path leads, links followed inside the source. Raises OSError."""
        return self.tree.resolve(path, self.exists)

    def walk(self, top: str, depth: int | None = None) -> Iterator[Seen]:
        """Everything below the directory `top`, by name, parents first; no deeper than `depth` steps.

        Ignored files are left out, ignored directories are not: something in them may be there. Raises OSError.
        """
        ignore = self.source.ignore
        prefix = f"{top}/" if top else ""
        start = ignore.decide(top)[1] if ignore is not None else None
        waiting: list[tuple[str, Matched | None]] = [(name, start) for name in reversed(self.tree.names(top))]
        while waiting:
            path, above = waiting.pop()
            whole = prefix + path
            try:
                status = self.tree.status(whole)
            except FileNotFoundError:  # removed meanwhile
                continue
            ignored, matched = (False, None) if ignore is None else ignore.match(whole, above)
            is_directory = stat.S_ISDIR(status.st_mode)
            if ignored and not (is_directory and ignore is not None and ignore.reaches_into(whole)):
                continue
            yield Seen(path, status, ignored)
            if is_directory and (depth is None or path.count("/") + 1 < depth):
                waiting += [(f"{path}/{name}", matched) for name in reversed(self.tree.names(whole))]
