"""System calls that Python's os does not have."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
from pathlib import Path

RENAME_NOREPLACE = 1  # linux/fs.h
RENAME_EXCHANGE = 2
AT_FDCWD = -100
_OPENAT2 = 437  # the system call's number on every processor
_HOW = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve
_RESOLVE = 0x10 | 0x02  # RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS
_HANDLE = struct.Struct("=Ii")  # struct file_handle: bytes, type; then as many bytes
_HANDLE_MAX = 128
_SUBVOL_CREATE = 0x5000940E  # BTRFS_IOC_SUBVOL_CREATE, linux/btrfs.h
_SUBVOL_ARGS = struct.Struct("=q4088s")  # struct btrfs_ioctl_vol_args
_SNAP_CREATE = 0x50009417  # BTRFS_IOC_SNAP_CREATE_V2
_SNAP_ARGS = struct.Struct(
    "=qQQ32x4040s"
)  # struct btrfs_ioctl_vol_args_v2: the source, a transaction, flags, the name
_OPEN_TREE, _MOUNT_SETATTR = 428, 442  # on every processor
_OPEN_TREE_CLONE = 1
_AT_EMPTY_PATH = 0x1000
_MOUNT_ATTR_IDMAP = 0x00100000
_MOUNT_ATTR = struct.Struct("=QQQQ")  # struct mount_attr: set, clear, propagation, user namespace
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock: kind, whence, start, length, pid
_libc = ctypes.CDLL(None, use_errno=True)


def _raise(path: object) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(path))


def rename(source: Path, target: Path, flags: int) -> None:
    """renameat2(2). Raises OSError; ENOSYS or EINVAL where kernel or file system do not know the flags."""
    if _libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags) != 0:
        _raise(target)


def sync_file_system(path: Path) -> None:
    """syncfs(2): all of the file system that `path` is on is on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(fd) != 0:
            _raise(path)
    finally:
        os.close(fd)


def open_in_root(root: int, name: bytes, flags: int) -> int:
    """openat2(2): links, also absolute ones and dots, lead no further than to the directory `root`. Raises OSError."""
    how = _HOW.pack(flags | os.O_CLOEXEC, 0, _RESOLVE)
    fd = int(_libc.syscall(_OPENAT2, root, name, how, len(how)))
    if fd < 0:
        _raise(os.fsdecode(name))
    return fd


def has_open_in_root() -> bool:
    """Does the kernel have openat2 (Linux 5.6), and may we call it?"""
    try:
        os.close(open_in_root(AT_FDCWD, b"/", os.O_PATH))
    except OSError:
        return False
    return True


def identity(path: Path) -> str:
    """What tells the directory `path` from all others of its file system, also after a reboot.

    Its handle, name_to_handle_at(2); on a btrfs, whose subvolumes all have the same inode number, that has the
    subvolume's. Where the file system has no handles, the inode number. Raises OSError.
    """
    buffer = ctypes.create_string_buffer(_HANDLE.pack(_HANDLE_MAX, 0), _HANDLE.size + _HANDLE_MAX)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), buffer, ctypes.byref(mount), 0) == 0:
        size, kind = _HANDLE.unpack_from(buffer)
        return f"{kind}:{buffer.raw[_HANDLE.size : _HANDLE.size + size].hex()}"
    if ctypes.get_errno() not in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EOVERFLOW}:
        _raise(path)
    return f"inode:{path.stat().st_ino}"


def make_subvolume(path: Path) -> bool:
    """Make a subvolume where a btrfs offers one, so that machinectl's clones and snapshots cost nothing.

    False when it cannot be made; then there is nothing at `path`. Raises OSError when its parent cannot be opened.
    """
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(parent, _SUBVOL_CREATE, bytearray(_SUBVOL_ARGS.pack(0, os.fsencode(path.name))))
    except OSError:
        return False
    finally:
        os.close(parent)
    return True


def make_snapshot(source: Path, path: Path) -> bool:
    """Make `path` a writable snapshot of the btrfs subvolume `source`.

    False when there can be none; then there is nothing at `path`. Raises OSError when one cannot be opened.
    """
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        subvolume = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
        try:
            arguments = _SNAP_ARGS.pack(subvolume, 0, 0, os.fsencode(path.name))
            fcntl.ioctl(parent, _SNAP_CREATE, bytearray(arguments))
        except OSError:
            return False
        finally:
            os.close(subvolume)
    finally:
        os.close(parent)
    return True


def lock_file(fd: int, kind: int) -> bool:
    """Have an open file description lock of `kind` (fcntl.F_RDLCK, F_WRLCK) on all of a file, as systemd has them.

    False when somebody else's is in the way. Raises OSError.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise
    return True


def has_mapped_mounts(path: Path) -> bool | None:
    """Can user ids be mapped on a mount of the file system at `path` (mount_setattr(2), MOUNT_ATTR_IDMAP)?

    It is tried on a mount that nobody ever sees. None when it cannot be tried: not root, or no user namespaces.
    """
    try:
        helper = subprocess.Popen(
            ["unshare", "--user", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
    with helper:
        try:
            if helper.stdout is None or helper.stdout.readline() != b"\n":
                return None
            for file in ("uid_map", "gid_map"):
                Path(f"/proc/{helper.pid}/{file}").write_text("0 65536 65536")
            users = os.open(f"/proc/{helper.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        finally:
            helper.kill()
    try:
        return _maps(path, users)
    finally:
        os.close(users)


def _maps(path: Path, users: int) -> bool | None:
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = int(_libc.syscall(_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags))
    if tree < 0:
        return False if ctypes.get_errno() == errno.ENOSYS else None
    try:
        wanted = _MOUNT_ATTR.pack(_MOUNT_ATTR_IDMAP, 0, 0, users)
        if _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, wanted, len(wanted)) == 0:
            return True
        return None if ctypes.get_errno() == errno.EPERM else False
    finally:
        os.close(tree)
