"""Puts a finished machine in its place: all of it or nothing.

Everything is made in one staging directory, `/var/lib/machines/.#docker2nspawn-…`: hidden from machinectl, and
on the same file system as the machines. Its maker holds a lock on it, so that what a killed run left behind is
told from what a live run is making. When all is complete and synced, a journal in it is marked decided; from there
on the installation is only ever finished, by this run or by the next one, never undone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter import interrupt
from converter.errors import AddressTakenError, ConversionError, error_of_host
from converter.linux import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    identity,
    is_still,
    lock_file,
    make_subvolume,
    rename,
    sync_file_system,
)
from converter.machine.model import File
from converter.places import Places, used_addresses

_STAGING_PREFIX = ".#docker2nspawn-"  # a leading dot hides it from machinectl; .# is systemd's own for such
_JOURNAL = "journal.json"


class _InUseError(ConversionError):
    """The machine that was to be replaced runs."""


@dataclass(frozen=True)
class Staging:
    """A machine in the making: its tree goes into `tree`, whatever is fetched for it into `spool`.

    `volumes` is where its volumes are filled, once it has been made: on the file system where they will lie.
    """

    path: Path
    volumes: Path

    @property
    def tree(self) -> Path:
        return self.path / "root"

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    def empty(self) -> None:
        """Begin with an empty tree again. Raises OSError."""
        _remove_tree(self.tree)
        _make_tree(self.tree)


@dataclass(frozen=True)
class Files:
    """What goes with a tree.

    `trusted`: link the settings from /etc/systemd/nspawn. `volumes` are new ones, by name, filled in `Staging.volumes`.
    `address` is the machine's in its private network.
    """

    files: tuple[File, ...]
    trusted: bool
    volumes: tuple[str, ...] = ()
    address: str | None = None


def recover(places: Places) -> None:
    """Finish or undo what killed runs left behind. Raises ConversionError when that cannot be done."""
    if places.machines.is_dir():
        with _errors_of("prepare", places.machines), _global_lock(places):
            _recover(places)


def check_free(places: Places, name: str, *, force: bool) -> None:
    """Raise ConversionError when `name` is taken, or with `force` when it cannot be replaced safely."""
    with _errors_of("prepare", places.tree(name)):
        _check_free(places, name, force=force)


def _check_free(places: Places, name: str, *, force: bool) -> None:
    for image in (f"{name}.raw", f"{name}.mstack"):
        if os.path.lexists(places.machines / image):
            raise ConversionError(
                f"{places.machines / image} exists; choose another --name or remove it first"
            )
    trusted = places.trusted_settings(name)
    if os.path.lexists(trusted) and not trusted.is_symlink():
        raise ConversionError(f"{trusted} is somebody's own file and would win over ours; move it away first")
    taken = [p for p in (places.tree(name), places.settings(name), trusted) if os.path.lexists(p)]
    if taken and not force:
        raise ConversionError(f"{taken[0]} exists; use --force to replace machine {name}, or another --name")
    if places.tree(name).is_symlink() or (places.tree(name).exists() and not places.tree(name).is_dir()):
        raise ConversionError(
            f"{places.tree(name)} is not a directory, so it is not replaced; remove it first"
        )
    if places.tree(name).exists() and not os.access(places.tree(name), os.W_OK):
        raise ConversionError(
            f"{places.tree(name)} is read-only, so it is not replaced; first: machinectl read-only {name} no"
        )
    if (places.root / "run/systemd/machines" / name).exists():
        raise ConversionError(
            f"machine {name} is running; stop it first: systemctl stop systemd-nspawn@{name}"
        )


@contextlib.contextmanager
def staging(places: Places) -> Iterator[Staging]:
    """A staging directory for one machine; gone at the end, with everything in it that was not installed.

    Finishes or removes what killed runs left behind, first. Directories that had to be made on the way are
    taken back when nothing was installed. Raises ConversionError when the place cannot be written.
    """
    made: list[Path] = []
    path: Path | None = None
    lock = -1
    try:
        with _errors_of("prepare", places.machines):
            with _global_lock(places, made):
                _make_directories(places.state / "machines", made, mode=0o755)
                _recover(places)
                path = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=places.machines))
                lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(lock, fcntl.LOCK_EX)
            result = Staging(path, places.volumes / path.name)
            _make_tree(result.tree)
            result.spool.mkdir(mode=0o700)
        yield result
    finally:
        interrupt.too_late()
        # A journal is left only by a decided installation that could not be finished: the next run will.
        if path is not None and not (path / _JOURNAL).exists():
            _remove_volumes(places, path)
            _remove_tree(path)
        if lock >= 0:
            os.close(lock)
        if made:
            with contextlib.suppress(OSError), _global_lock(places):
                for directory in reversed(made):
                    with contextlib.suppress(OSError):  # not empty: something was installed
                        directory.rmdir()


def install(stage: Staging, places: Places, name: str, files: Files, *, force: bool) -> None:
    """Put the complete machine into its place as `name`, replacing an older one only with `force`.

    After this returns, the machine is there and on the disk. Raises ConversionError, with everything as it
    was, when the name has been taken meanwhile or the disk is full.
    """
    with _errors_of("install", places.tree(name)):
        journal = {
            "name": name,
            "tree": identity(stage.tree),
            "force": force,
            "decided": False,
            "texts": [file.path for file in files.files],
            "absent": [
                relative
                for path in places.generated(name)
                if (relative := str(path.relative_to(places.root))) not in {file.path for file in files.files}
            ],
            "volumes": list(files.volumes),
            "links": {  # path -> target, or None: there must be no link
                str(places.trusted_settings(name).relative_to(places.root)): (
                    f"/var/lib/machines/{name}.nspawn" if files.trusted else None
                )
            },
        }
        shutil.rmtree(stage.spool)
        sync_file_system(stage.path)
        if files.volumes:
            sync_file_system(stage.volumes)
        interrupt.too_late()  # what follows takes moments
        with _global_lock(places), contextlib.ExitStack() as locks:
            made: list[Path] = []
            try:
                # The journal comes first: it tells the next run whose traces to look for.
                _write_synced(stage.path / _JOURNAL, json.dumps(journal), 0o600)
                locks.enter_context(_nspawn_lock(places, name))
                check_free(places, name, force=force)
                _check_address(places, name, files)
                _prepare(places, journal, files.files, made)
                _write_synced(stage.path / _JOURNAL, json.dumps({**journal, "decided": True}), 0o600)
            except BaseException:
                _undo(places, journal)
                locks.close()
                (stage.path / _JOURNAL).unlink(missing_ok=True)
                for directory in reversed(made):
                    directory.rmdir()
                raise
            _finish(stage.path, places, journal)
            locks.close()  # before the journal goes, which tells of the lock's file
            (stage.path / _JOURNAL).unlink()


def _check_address(places: Places, name: str, files: Files) -> None:
    if files.address is not None and (owner := used_addresses(places, name).get(files.address)) is not None:
        raise AddressTakenError(f"machine {owner} has just taken the address {files.address}; run this again")


def _waiting(path: Path) -> Path:
    """Where a file waits, complete and synced, for the moment when it takes its place by a rename."""
    return path.with_name(f".#{path.name}.docker2nspawn")


def _prepare(places: Places, journal: dict[str, Any], files: Iterable[File], made: list[Path]) -> None:
    """Write everything that can fail for want of room beside its place."""
    for file in files:
        path = places.root / file.path
        _make_directories(path.parent, made, mode=0o755)
        _write_file(_waiting(path), file.content, file.mode)
    for relative, target in journal["links"].items():
        path = places.root / relative
        if target is not None:
            _make_directories(path.parent, made, mode=0o755)
            _waiting(path).unlink(missing_ok=True)
            _waiting(path).symlink_to(target)
    for relative in (*journal["texts"], *journal["links"]):
        if (parent := (places.root / relative).parent).is_dir():
            _sync_directory(parent)


def _undo(places: Places, journal: dict[str, Any]) -> None:
    for relative in (*journal["texts"], *journal["links"]):
        _waiting(places.root / relative).unlink(missing_ok=True)


def _finish(stage: Path, places: Places, journal: dict[str, Any]) -> None:
    """Only renames: each can be done again. The tree comes last: without it nothing starts."""
    for relative in (*journal["texts"], *journal["links"]):
        path = places.root / relative
        if os.path.lexists(_waiting(path)):
            _waiting(path).replace(path)
            _sync_directory(path.parent)
        elif journal["links"].get(relative, "") is None and path.is_symlink():
            path.unlink()
            _sync_directory(path.parent)
    for relative in journal.get("absent", ()):
        if os.path.lexists(places.root / relative):
            (places.root / relative).unlink()
            _sync_directory((places.root / relative).parent)
    for name in journal.get("volumes", ()):
        with contextlib.suppress(
            FileNotFoundError, FileExistsError
        ):  # moved before; or another machine was faster
            _rename_new(places.volumes / stage.name / name, places.volumes / name)
            _sync_directory(places.volumes)
    tree = places.tree(journal["name"])
    if not tree.exists():
        _rename_new(stage / "root", tree)
    elif not _is_installed(tree, journal):
        _exchange(stage / "root", tree)
    _sync_directory(tree.parent)


def _is_installed(tree: Path, journal: dict[str, Any]) -> bool:
    return bool(identity(tree) == journal["tree"])


def _recover(places: Places) -> None:
    """Finish what was decided and remove what was not, of runs that are dead. Needs the global lock."""
    with os.scandir(places.machines) as entries:
        staged = [places.machines / entry.name for entry in entries if entry.name.startswith(_STAGING_PREFIX)]
    for path in staged:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # its maker is alive
        else:
            with contextlib.suppress(_InUseError):  # then a later run will do it
                _recover_one(path, places)
                _remove_volumes(places, path)
                _remove_tree(path)
        finally:
            os.close(fd)


def _recover_one(stage: Path, places: Places) -> None:
    try:
        journal = json.loads((stage / _JOURNAL).read_text())
    except (FileNotFoundError, ValueError):
        return
    tree = places.tree(journal["name"])
    with interrupt.held(), _nspawn_lock(places, journal["name"]):
        taken = tree.exists() and not journal["force"] and not _is_installed(tree, journal)
        if journal["decided"] and not taken:
            _finish(stage, places, journal)
        else:
            _undo(places, journal)
    (stage / _JOURNAL).unlink()


@contextlib.contextmanager
def _global_lock(places: Places, made: list[Path] | None = None) -> Iterator[None]:
    """One run at a time makes, removes or installs; held for moments only.

    Where there is no directory of machines it is made, and added to `made`; without `made` there is nothing to lock.
    """
    while True:
        if made is not None:
            _make_directories(places.machines, made, mode=0o700)
        try:
            fd = os.open(places.machines, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if made is not None:
                continue
            yield
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if made is None or is_still(fd, places.machines):  # else who had made it has taken it back
                yield
                return
        finally:
            os.close(fd)


@contextlib.contextmanager
def _nspawn_lock(places: Places, name: str) -> Iterator[None]:
    """The lock that systemd-nspawn and machinectl hold on an image in use (image_path_lock, an OFD lock)."""
    path = places.machines / f".#{name}.lck"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not lock_file(fd, fcntl.F_WRLCK):
            raise _InUseError(
                f"machine {name} is in use; stop it first: systemctl stop systemd-nspawn@{name}"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _exchange(new: Path, old: Path) -> None:
    try:
        rename(new, old, RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EINVAL}:
            raise
        # A file system that cannot exchange: the shortest gap there is.
        old.rename(new.with_name("replaced"))
        new.rename(old)


def _rename_new(source: Path, target: Path) -> None:
    try:
        rename(source, target, RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EINVAL} or target.exists():
            raise
        source.rename(target)


def _write_synced(path: Path, text: str, mode: int) -> None:
    """Replace the file `path` by one that is wholly on the disk."""
    _write_file(_waiting(path), text.encode(), mode)
    _waiting(path).replace(path)
    _sync_directory(path.parent)


def _write_file(path: Path, content: bytes, mode: int) -> None:
    with path.open("wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_directories(path: Path, made: list[Path], *, mode: int) -> None:
    """As mkdir -p; `mode` is for the last one. What was missing is added to `made`, outermost first."""
    while not path.is_dir():
        missing = path
        while not missing.parent.is_dir():
            missing = missing.parent
        try:
            missing.mkdir(mode=mode if missing == path else 0o755)
            made.append(missing)
        except FileExistsError:  # another run was faster
            if not missing.is_dir():
                raise
        except FileNotFoundError:  # another run has taken back what it had made
            if missing.parent.is_dir():
                raise


def _make_tree(path: Path) -> None:
    if make_subvolume(path):
        path.chmod(0o700)
    else:
        path.mkdir(mode=0o700)


def _remove_volumes(places: Places, stage: Path) -> None:
    """Those that were being filled; the others' directory only when it is empty."""
    _remove_tree(places.volumes / stage.name)
    with contextlib.suppress(OSError):
        places.volumes.rmdir()


def _remove_tree(path: Path) -> None:
    """By rm(1), which takes any depth; also where the image's directory modes keep an owner without root out."""
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "u+rwX", "--", path], stderr=subprocess.DEVNULL, check=False)
    # In a group of its own: what is typed at a terminal does not end it halfway.
    subprocess.run(["rm", "-rf", "--", path], stderr=subprocess.DEVNULL, check=False, process_group=0)


@contextlib.contextmanager
def _errors_of(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise ConversionError(
            f"cannot {verb} {path}: {error.strerror} ({error.filename}); run as root, or use --root DIR"
        ) from None
    except OSError as error:
        raise error_of_host(error, f"cannot {verb} {path}: {error.strerror}") from None
