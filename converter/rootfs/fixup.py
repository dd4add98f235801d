"""Puts into a written tree what Docker would have provided at run time, and what nspawn asks for.

The tree lies in a directory that only we can enter, so nothing changes it while we look; still no path is ever
resolved by the kernel through a link that the image made.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable

from converter.errors import ConversionError, error_of_host
from converter.machine.model import TreeChange

_MAX_LINKS = 40  # as the kernel's own limit, path_resolution(7)


def apply_changes(changes: Iterable[TreeChange], root_fd: int, *, ownership: bool) -> None:
    """Make each change below the directory `root_fd`, leaving the times of existing directories as they were.

    New entries take their parent's time, so that converting the same image twice gives the same tree.
    Raises ConversionError when the image has something else where a directory must be.
    """
    for change in changes:
        if change.kind == "dir":
            os.close(_open_directory(root_fd, change.path, make_last=change, ownership=ownership))
            continue
        directory, _, name = change.path.rpartition("/")
        parent = _open_directory(root_fd, directory, make_last=None, ownership=ownership)
        try:
            if change.kind == "mount point" and _is_directory(parent, name):
                continue
            with _KeptTime(parent) as times:
                _remove(parent, name)
                if change.kind == "mount point":
                    os.close(_open_directory(parent, name, make_last=change, ownership=ownership))
                elif change.kind == "link":
                    os.symlink(change.content, name, dir_fd=parent)
                    os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
                elif change.kind == "file":
                    _write_file(parent, name, change, times, ownership=ownership)
                else:
                    _copy(root_fd, change.content.decode("utf-8", "surrogateescape"), parent, name)
        finally:
            os.close(parent)


def _is_directory(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


class _KeptTime:
    """Gives a directory its times back after something was made in it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        status = os.fstat(fd)
        self._times = (status.st_mtime_ns, status.st_mtime_ns)

    def __enter__(self) -> tuple[int, int]:
        return self._times

    def __exit__(self, *_: object) -> None:
        os.utime(self._fd, ns=self._times)


def _write_file(
    parent: int, name: str, change: TreeChange, times: tuple[int, int], *, ownership: bool
) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
    with os.fdopen(fd, "wb") as file:
        file.write(change.content)
        if ownership:
            os.fchown(file.fileno(), change.uid, change.gid)
        os.fchmod(file.fileno(), change.mode)
        file.flush()
        os.utime(file.fileno(), ns=times)


def open_directory(root_fd: int, path: str) -> int:
    """A descriptor of the machine's directory `path`, links resolved inside the root, missing parts made.

    Raises ConversionError when something else is in its place.
    """
    return _open_directory(root_fd, path, make_last=None, ownership=os.geteuid() == 0)


def _copy(root_fd: int, source: str, parent: int, name: str) -> None:
    directory, _, source_name = source.rpartition("/")
    source_parent = _open_directory(root_fd, directory, make_last=None, ownership=False)
    try:
        complaint = copy_tree(
            f"/proc/self/fd/{source_parent}/{source_name}",
            f"/proc/self/fd/{parent}/{name}",
            descriptors=(source_parent, parent),
        )
    finally:
        os.close(source_parent)
    if complaint is not None:
        raise ConversionError(
            f"cannot copy {source} inside the machine: {complaint.rpartition(':')[2].strip()}"
        )


def copy_tree(source: str, target: str, *, descriptors: Iterable[int]) -> str | None:
    """Copy whatever is at `source` to the new `target`; what cp(1) complains of, None when all went well.

    `descriptors` are those that the paths are given by (/proc/self/fd/N).
    """
    # It keeps owners, modes, times, xattrs, holes and hard links, and never follows a link with -a.
    command = ["cp", "--archive", "--reflink=auto", "--no-target-directory", "--", source, target]
    done = subprocess.run(command, pass_fds=tuple(descriptors), capture_output=True, check=False)
    return done.stderr.decode(errors="replace").strip() if done.returncode != 0 else None


def _remove(parent: int, name: str) -> None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        # rm(1) takes trees of any depth.
        done = subprocess.run(
            ["rm", "-rf", "--", f"/proc/self/fd/{parent}/{name}"], pass_fds=(parent,), check=False
        )
        if done.returncode != 0:
            raise ConversionError(f"cannot remove {name!r} inside the machine")
    else:
        os.unlink(name, dir_fd=parent)


def _open_directory(root_fd: int, path: str, *, make_last: TreeChange | None, ownership: bool) -> int:
    """A descriptor of the directory `path`, links resolved inside the root, missing parts made (0755 root).

    `make_last` says with what owner and mode the last part is made when it is missing.
    """
    waiting = [part for part in reversed(path.split("/")) if part not in {"", "."}]
    real: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del real[-1:]
            continue
        here = "/".join([*real, part])
        try:
            mode = os.stat(here, dir_fd=root_fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            with_owner = make_last if not waiting else None
            _make_directory(root_fd, "/".join(real), part, with_owner, ownership=ownership)
        except OSError as error:
            raise error_of_host(error, f"cannot make {path!r} in the machine: {error.strerror}") from None
        else:
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise ConversionError(f"too many symbolic links on the way to {path!r} in the image")
                target = os.readlink(here, dir_fd=root_fd)
                if target.startswith("/"):
                    real.clear()
                waiting += [p for p in reversed(target.split("/")) if p not in {"", "."}]
                continue
            if not stat.S_ISDIR(mode):
                raise ConversionError(
                    f"the image needs a directory at {path!r}, but its /{here} is not one; Docker refuses it too"
                )
        real.append(part)
    return os.open("/".join(real) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root_fd)


def _make_directory(
    root_fd: int, parent: str, name: str, like: TreeChange | None, *, ownership: bool
) -> None:
    parent_fd = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root_fd)
    try:
        with _KeptTime(parent_fd) as times:
            os.mkdir(name, 0o755, dir_fd=parent_fd)
            if ownership:
                os.chown(
                    name,
                    like.uid if like else 0,
                    like.gid if like else 0,
                    dir_fd=parent_fd,
                    follow_symlinks=False,
                )
            # mkdir's mode is cut by the umask.
            os.chmod(name, like.mode if like else 0o755, dir_fd=parent_fd)
            os.utime(name, ns=times, dir_fd=parent_fd, follow_symlinks=False)
    finally:
        os.close(parent_fd)
