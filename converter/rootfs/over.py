"""The newer layers of an image are laid over a tree of its older ones that stands on the disk.

They are written into a directory of their own first, inside that tree, where no link of the older layers lies in any
file's way; then what they have is moved to its place by renames, each of one name in a directory that has been seen to
be one. What is in the way goes to a directory beside, and all that is left is removed at the end.
"""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from converter.errors import ConversionError
from converter.progress import Progress
from converter.rootfs.directories import DIRECTORY
from converter.rootfs.extract import writing
from converter.rootfs.merge import Directory, Limits, Plan, scan
from converter.rootfs.stream import AnyLayer


def lay_over(root_fd: int, layers: Sequence[AnyLayer], *, progress: Progress, limits: Limits) -> Plan:
    """Make the tree `root_fd`, of some image's lowest layers, that of all by laying the others over it.

    The result is what all layers together would have become. Raises OSError; ConversionError when a layer is damaged,
    or has what can only be told with the lower layers at hand (a hard link to a file of theirs), or when the host
    cannot keep something. The tree is of no use then. Needs root.
    """
    before = os.fstat(root_fd)
    aside = f".docker2nspawn-{secrets.token_hex(16)}"  # a name that no image knows
    os.mkdir(aside, 0o700, dir_fd=root_fd)
    upper_fd, gone_fd = (_make(name, root_fd, aside) for name in ("upper", "gone"))
    try:
        with writing(upper_fd, ownership=True) as writer:
            plan = scan(layers, progress=progress, limits=limits, keep=writer.keep, drop=writer.drop)
            if losses := writer.finish(plan, progress):
                raise ConversionError(losses[0])
        _Laying(root_fd, upper_fd, gone_fd).lay(plan)
        _remove(root_fd, aside)
        time = plan.root.entry.mtime if plan.root.entry is not None else before.st_mtime_ns
        os.utime(root_fd, ns=(time, time))
        return plan
    finally:
        os.close(upper_fd)
        os.close(gone_fd)


_Times = tuple[int, int]  # atime and mtime, in ns


class _Laying:
    """Moves what is in `upper` to its place in `root`, and what is in its way to `gone`."""

    def __init__(self, root: int, upper: int, gone: int) -> None:
        self._root = root
        self._upper = upper
        self._gone = gone
        self._number = 0

    def lay(self, plan: Plan) -> None:
        """Directories that both have, from the root down; each gets its own metadata when its children are in place."""
        waiting: list[tuple[bytes, Directory]] = [(b"", plan.root)]
        both: list[tuple[bytes, _Times, bool]] = []
        while waiting:
            path, directory = waiting.pop()
            target = os.open(path or b".", DIRECTORY, dir_fd=self._root)
            source = os.open(path or b".", DIRECTORY, dir_fd=self._upper)
            try:
                for name, child, before in self._lay_children(directory, source, target):
                    below = path + b"/" + name if path else name
                    # The newer layers' own times, where they say anything of it: soon they change.
                    said = child.entry is not None
                    there = os.stat(name, dir_fd=source, follow_symlinks=False) if said else before
                    both.append((below, (there.st_atime_ns, there.st_mtime_ns), said))
                    waiting.append((below, child))
            finally:
                os.close(target)
                os.close(source)
        for path, times, said in reversed(both):
            self._finish(path, times, said=said)

    def _lay_children(
        self, directory: Directory, source: int, target: int
    ) -> list[tuple[bytes, Directory, os.stat_result]]:
        """Put one directory's children in place; those that are directories on both sides are returned."""
        if directory.opaque:
            for entry in list(os.scandir(target)):
                self._put_away(os.fsencode(entry.name), target)
        for name in directory.whiteouts:
            self._put_away(name, target)
        both = []
        for name, child in directory.children.items():
            if isinstance(child, Directory):
                with suppress(FileNotFoundError):
                    there = os.stat(name, dir_fd=target, follow_symlinks=False)
                    if stat.S_ISDIR(there.st_mode):
                        both.append((name, child, there))
                        continue
            self._put_away(name, target)
            # A directory that has no entry of its own is made as it is where no older layer has it.
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        return both

    def _put_away(self, name: bytes, target: int) -> None:
        self._number += 1
        with suppress(FileNotFoundError):
            os.rename(name, b"%d" % self._number, src_dir_fd=target, dst_dir_fd=self._gone)

    def _finish(self, path: bytes, times: _Times, *, said: bool) -> None:
        """Give a directory of both what the newer layers have `said` of it, or only its own times back."""
        target = os.open(path, DIRECTORY, dir_fd=self._root)
        try:
            if said:
                source = os.open(path, DIRECTORY, dir_fd=self._upper)
                try:
                    _copy_metadata(source, target)
                finally:
                    os.close(source)
            os.utime(target, ns=times)
        finally:
            os.close(target)


def _copy_metadata(source: int, target: int) -> None:
    """Owner, attributes and mode of one directory for another, of whose own nothing stays."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    wanted = set(os.listxattr(source))
    for attribute in set(os.listxattr(target)) - wanted:
        os.removexattr(target, attribute)
    for attribute in wanted:
        os.setxattr(target, attribute, os.getxattr(source, attribute))
    os.fchmod(target, stat.S_IMODE(status.st_mode))


def _make(name: str, root_fd: int, aside: str) -> int:
    os.mkdir(f"{aside}/{name}", 0o700, dir_fd=root_fd)
    return os.open(f"{aside}/{name}", DIRECTORY, dir_fd=root_fd)


def _remove(root_fd: int, aside: str) -> None:
    """By rm(1), which takes any depth. It looks the path up from the descriptor: no name on the way is an image's."""
    done = subprocess.run(
        ["rm", "-rf", "--", f"/proc/self/fd/{root_fd}/{aside}"],
        pass_fds=[root_fd],
        capture_output=True,
        text=True,
        check=False,
        process_group=0,  # what is typed at a terminal does not end it halfway
    )
    if done.returncode != 0:
        raise ConversionError(f"cannot remove what was replaced: {done.stderr.strip()}")
