"""The directory that a translation writes: all of it or nothing, and never in the place of what is not ours."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

from converter import interrupt
from converter.dockerfile.context import Source
from converter.dockerfile.ignore import Matcher, matcher
from converter.errors import ConversionError
from converter.linux import RENAME_EXCHANGE, rename

MARKER = ".docker2nspawn"
"""The file that tells a directory of ours, which --force may replace, from others."""

_STAGED = ".docker2nspawn-"  # after its future name, in that of the hidden directory
_JUST_MADE = 60  # seconds: its maker may not hold the lock yet
_KEPT = ("secrets", "cache")  # the user's own, beside what we have made


@cache
def own_version() -> str:
    """docker2nspawn's; looked up once, because a file has to be parsed for it."""
    return version("docker2nspawn")


def check_output(output: Path, *, force: bool) -> None:
    """Raises ConversionError when `output` has something that `force` does not allow to be replaced."""
    if not output.exists() and not output.is_symlink():
        return
    if output.is_symlink() or not output.is_dir():
        raise ConversionError(f"{output} is in the way: it is no directory; give --output another one")
    if not any(output.iterdir()):
        return
    if not (output / MARKER).is_file():
        raise ConversionError(f"{output} is not empty and was not made here; give --output another directory")
    if not force:
        raise ConversionError(f"{output} has a translation already; --force replaces it")


def left_out(context: Source, output: Path) -> Source:
    """The build context without `output`, and what is to become it, where these lie in it."""
    root, parent = context.root.resolve(), output.absolute().parent.resolve()
    if not parent.is_relative_to(root):
        return context
    above = str(parent.relative_to(root)).removeprefix(".")
    names = (output.name, f".{output.name}{_STAGED}")
    patterns = [re.sub(r"([*?!\[\\])", r"\\\1", f"{above}/{name}".lstrip("/")) for name in names]
    own = matcher([patterns[0], f"{patterns[1]}*"])
    assert own is not None
    before = context.ignore.patterns if context.ignore is not None else ()
    name = context.ignore.file if context.ignore is not None else ""
    return replace(context, ignore=Matcher((*before, *own.patterns), name))


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A hidden directory beside `output`; it is gone afterwards, or has become `output`.

    Raises ConversionError for a full or broken disk.
    """
    parent = output.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_dead(parent, f".{output.name}{_STAGED}")
        staged = Path(tempfile.mkdtemp(dir=parent, prefix=f".{output.name}{_STAGED}"))
        lock = os.open(staged, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            staged.chmod(0o755)
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            os.close(lock)
    except OSError as error:
        raise ConversionError(
            f"cannot write {output}: {error.strerror} ({error.filename or parent})"
        ) from None


def _remove_dead(parent: Path, prefix: str) -> None:
    """Remove what killed translations left: directories that nobody holds a lock on, and that are not just made."""
    for path in parent.iterdir():
        if not path.name.startswith(prefix) or time.time() - path.lstat().st_mtime < _JUST_MADE:
            continue
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)


def publish(staged: Path, output: Path) -> None:
    """Give it its name; what was there goes, but for what the user has put there."""
    if not output.exists() or not any(output.iterdir()):
        staged.rename(output)
        return
    with interrupt.held():
        rename(staged, output, RENAME_EXCHANGE)
        for name in _KEPT:
            if (staged / name).is_dir():
                (staged / name).rename(output / name)
