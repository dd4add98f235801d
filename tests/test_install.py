"""Installing: all of it or nothing, at any instant, and never over what is somebody else's."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

import converter.install
from converter.errors import ConversionError
from converter.install import Files, check_free, install, staging
from converter.machine.model import File
from converter.places import Places

SETTINGS = "var/lib/machines/web.nspawn"
DROP_IN = "etc/systemd/system/systemd-nspawn@web.service.d/docker2nspawn.conf"
RECORD = "var/lib/docker2nspawn/machines/web.json"


def files(mark: str, *more: File, trusted: bool = True, volumes: tuple[str, ...] = ()) -> Files:
    texts = (
        File(SETTINGS, f"# {mark}\n".encode()),
        File(DROP_IN, f"[Service]\n# {mark}\n".encode()),
        File(RECORD, f'{{"is": "{mark}"}}\n'.encode(), 0o600),
    )
    return Files((*texts, *more), trusted, volumes)


OLD = files("old")
NEW = files("new")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "host")


def make(places: Places, name: str, content: str, files: Files, *, force: bool = False) -> None:
    own = tuple(replace(file, path=file.path.replace("web", name)) for file in files.files)
    files = replace(files, files=own)
    check_free(places, name, force=force)
    with staging(places) as stage:
        (stage.tree / "etc").mkdir()
        (stage.tree / "etc/content").write_text(content)
        (stage.spool / "layer").write_text("fetched")
        for volume in files.volumes:
            (stage.volumes / volume).mkdir(parents=True)
            (stage.volumes / volume / "data").write_text(content)
        install(stage, places, name, files, force=force)


def everything(root: Path) -> dict[str, str]:
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(root))] = path.read_text()
    return found


def installed(name: str, content: str, files: Files) -> dict[str, str]:
    found = {f"var/lib/machines/{name}/etc/content": content}
    found |= {file.path.replace("web", name): file.content.decode() for file in files.files}
    if files.trusted:
        found[f"etc/systemd/nspawn/{name}.nspawn"] = f"-> /var/lib/machines/{name}.nspawn"
    return found


def test_installs_exactly_this(places: Places) -> None:
    make(places, "web", "one", OLD)
    assert everything(places.root) == installed("web", "one", OLD)
    assert places.record("web").stat().st_mode & 0o777 == 0o600
    assert places.settings("web").stat().st_mode & 0o777 == 0o644


def test_refuses_a_taken_name_and_changes_nothing(places: Places) -> None:
    make(places, "web", "one", OLD)
    before = everything(places.root)
    with pytest.raises(ConversionError, match="--force"):
        make(places, "web", "two", NEW)
    assert everything(places.root) == before


def test_force_replaces_all_of_it(places: Places) -> None:
    make(places, "web", "one", OLD)
    untrusted = files("new", trusted=False)
    make(places, "web", "two", untrusted, force=True)
    assert everything(places.root) == installed("web", "two", untrusted)


def test_what_a_machine_no_longer_has_is_removed(places: Places) -> None:
    health = File("etc/systemd/system/docker2nspawn-health@web.timer", b"[Timer]\n")
    make(places, "web", "one", files("old", health))
    assert everything(places.root) == installed("web", "one", files("old", health))
    make(places, "web", "two", NEW, force=True)
    assert everything(places.root) == installed("web", "two", NEW)


def test_a_volume_is_kept_when_its_machine_is_made_again(places: Places) -> None:
    make(places, "web", "one", files("old", volumes=("web+data",)))
    make(places, "web", "two", files("new", volumes=("web+data", "more")), force=True)
    found = everything(places.root)
    volumes = "var/lib/docker2nspawn/volumes"
    assert found.pop(f"{volumes}/web+data/data") == "one"
    assert found.pop(f"{volumes}/more/data") == "two"
    assert found == installed("web", "two", NEW)


def test_an_address_is_given_to_one_machine_only(places: Places) -> None:
    make(places, "web", "one", OLD)
    places.record("web").write_text('{"address": "10.213.0.2"}')
    with pytest.raises(ConversionError, match=r"web has just taken the address 10\.213\.0\.2"):
        make(places, "other", "two", replace(NEW, address="10.213.0.2"))
    assert not places.tree("other").exists()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("what", ["raw", "trusted", "running", "link"])
def test_never_touches_what_is_not_ours(places: Places, what: str, force: bool) -> None:
    paths = {
        "raw": places.machines / "web.raw",
        "trusted": places.trusted_settings("web"),
        "running": places.root / "run/systemd/machines/web",
        "link": places.tree("web"),
    }
    paths[what].parent.mkdir(parents=True)
    if what == "link":
        paths[what].symlink_to("/")
    else:
        paths[what].write_text("mine")
    before = everything(places.root)
    with pytest.raises(ConversionError):
        make(places, "web", "one", NEW, force=force)
    assert everything(places.root) == before


def test_failure_leaves_not_even_directories(places: Places) -> None:
    with pytest.raises(ZeroDivisionError), staging(places) as stage:
        (stage.tree / "file").write_text("x")
        raise ZeroDivisionError
    assert not places.root.exists() or not list(places.root.rglob("*"))


def test_a_name_taken_while_we_worked(places: Places) -> None:
    with pytest.raises(ConversionError), staging(places) as stage:
        places.tree("web").mkdir()
        install(stage, places, "web", NEW, force=False)
    assert everything(places.root) == {}
    assert places.tree("web").is_dir()


def test_live_staging_is_left_alone_and_dead_is_removed(places: Places) -> None:
    dead = places.machines / ".#docker2nspawn-dead"
    (dead / "root/etc").mkdir(parents=True)
    with staging(places) as first:
        assert not dead.exists()
        (first.tree / "file").write_text("x")
        with staging(places) as second:
            assert (first.tree / "file").read_text() == "x"
            assert second.path != first.path
    assert [p.name for p in places.machines.iterdir()] == [] if places.machines.exists() else True


def _install_and_die(root: Path, at: int) -> None:
    """Replace machine "web", and be killed at the `at`-th system call that changes a name."""
    import converter.install as module

    count = 0

    def dying(name: str) -> None:
        original = getattr(module, name)

        def wrapper(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(module, name, wrapper)

    for function in (
        "_write_file",
        "_waiting",
        "_sync_directory",
        "rename",
        "sync_file_system",
        "_make_directories",
    ):
        dying(function)
    make(Places(root), "web", "two", NEW, force=True)
    os._exit(0)


def test_killed_anywhere_the_next_run_finds_one_whole_machine(tmp_path: Path) -> None:
    """Each point of the installation in turn: afterwards all is old or all is new, and nothing else is left."""
    outcomes = set()
    for at in range(1, 120):
        places = Places(tmp_path / str(at))
        make(places, "web", "one", OLD)
        process = multiprocessing.get_context("fork").Process(target=_install_and_die, args=(places.root, at))
        process.start()
        process.join()
        make(places, "other", "x", OLD)  # the next run, which finishes or removes what the dead one left
        left = {k: v for k, v in everything(places.root).items() if "other" not in k}
        assert left in (installed("web", "one", OLD), installed("web", "two", NEW)), at
        assert not [p for p in places.machines.iterdir() if p.name.startswith(".")], at
        outcomes.add((process.exitcode, left == installed("web", "two", NEW)))
        if process.exitcode == 0:
            break
    # Killed and undone, killed and finished by the next run, and at last not killed: all have been seen.
    assert outcomes == {(-signal.SIGKILL, False), (-signal.SIGKILL, True), (0, True)}


@pytest.mark.parametrize("at", range(1, 6))
def test_a_full_disk_changes_nothing(places: Places, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    make(places, "web", "one", OLD)
    before = everything(places.root)
    count = 0
    original = converter.install._write_file

    def failing(path: Path, content: bytes, mode: int) -> None:
        nonlocal count
        count += 1
        if count == at:
            path.write_bytes(content[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        original(path, content, mode)

    monkeypatch.setattr(converter.install, "_write_file", failing)
    with pytest.raises(ConversionError, match="No space left"):
        make(places, "web", "two", NEW, force=True)
    with pytest.raises(ConversionError, match="No space left"):
        count = 0
        make(places, "fresh", "two", NEW)
    assert count == at
    assert everything(places.root) == before


def test_a_decided_installation_is_finished_by_the_next_run(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(places, "web", "one", OLD)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "disk")

    with monkeypatch.context() as patch:
        patch.setattr(converter.install, "rename", broken)
        with pytest.raises(ConversionError, match="Input/output error"):
            make(places, "web", "two", NEW, force=True)
    make(places, "other", "x", OLD)
    left = {path: text for path, text in everything(places.root).items() if "other" not in path}
    assert left == installed("web", "two", NEW)


def test_no_permission_is_one_line(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        blocked = Places(Path("/proc/docker2nspawn"))
    else:
        (tmp_path / "host").mkdir(mode=0o500)
        blocked = Places(tmp_path / "host")
    with pytest.raises(ConversionError, match="cannot prepare"), staging(blocked):
        pass
