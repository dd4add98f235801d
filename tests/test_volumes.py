"""The data of volumes: filled once, compared, and never reached through a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from converter import volumes
from converter.errors import ConversionError
from converter.install import staging
from converter.machine.model import Volume
from converter.places import Places
from converter.progress import Silent


def everything(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def make_data(path: Path) -> None:
    (path / "deep/er").mkdir(parents=True)
    (path / "deep/er/file").write_bytes(b"x" * 5000)
    (path / "deep/er").chmod(0o2750)
    (path / "away").symlink_to("/etc/passwd")
    os.mkfifo(path / "fifo")
    os.link(path / "deep/er/file", path / "again")
    os.utime(path / "deep", ns=(1, 1_000_000_001))


def fill(places: Places, tree: Path, *wanted: Volume, docker_root: Path | None = None) -> list[str]:
    """The kinds of the notes; what was filled is put in its place."""
    fd = os.open(tree, os.O_RDONLY)
    try:
        with staging(places) as stage:
            names, notes = volumes.fill_volumes(
                wanted, places, stage, root_fd=fd, docker_root=docker_root, progress=Silent()
            )
            for name in names:
                (stage.volumes / name).rename(places.volumes / name)
    finally:
        os.close(fd)
    return [note.kind for note in notes]


def test_from_the_tree_through_its_links(tmp_path: Path) -> None:
    places = Places(tmp_path / "host")
    tree = tmp_path / "tree"
    (tree / "real").mkdir(parents=True)
    make_data(tree / "real")
    (tree / "var").symlink_to("/")  # inside the tree that is the tree itself
    assert fill(places, tree, Volume("web+data", "/var/real")) == []
    assert places.volumes.stat().st_mode & 0o777 == 0o700
    assert everything(places.volumes / "web+data") == everything(tree / "real")
    (places.volumes / "web+data/again").write_text("the machine's own")
    assert fill(places, tree, Volume("web+data", "/var/real")) == ["adapted"]
    assert (places.volumes / "web+data/again").read_text() == "the machine's own"


def test_from_docker_and_compared(tmp_path: Path) -> None:
    places = Places(tmp_path / "host")
    source = tmp_path / "docker/data"
    source.mkdir(parents=True)
    make_data(source)
    volume = Volume("data", "/data", source=str(source))
    assert fill(places, tmp_path, volume, volume, docker_root=Path("/")) == ["exact"]
    assert everything(places.volumes / "data") == everything(source)


@pytest.mark.parametrize("docker_root", [None, Path("/nowhere")])
def test_data_that_cannot_be_read_is_an_error(tmp_path: Path, docker_root: Path | None) -> None:
    places = Places(tmp_path / "host")
    with pytest.raises(ConversionError, match=r"volume data .*--volumes bind"):
        fill(places, tmp_path, Volume("data", "/data", source="/docker/data"), docker_root=docker_root)
    assert not places.state.exists()


@pytest.mark.parametrize("change", ["content", "mode", "link", "more", "fewer", "time"])
def test_a_difference_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    source = tmp_path / "docker"
    source.mkdir()
    make_data(source)
    original = volumes._copy

    def copy(fd: int, target: Path, what: str) -> None:
        original(fd, target, what)
        match change:
            case "content":
                status = (source / "again").stat()
                (source / "again").write_bytes(b"y" * 5000)
                os.utime(source / "again", ns=(status.st_atime_ns, status.st_mtime_ns))
            case "mode":
                (source / "deep").chmod(0o700)
            case "link":
                (source / "away").unlink()
                (source / "away").symlink_to("/etc/shadow")
            case "more":
                (source / "new").write_text("")
            case "fewer":
                (source / "fifo").unlink()
            case _:
                os.utime(source / "fifo", ns=(1, 1))

    monkeypatch.setattr(volumes, "_copy", copy)
    places = Places(tmp_path / "host")
    with pytest.raises(ConversionError, match="changed while it was copied"):
        fill(places, tmp_path, Volume("data", "/data", source=str(source)), docker_root=Path("/"))
    assert not places.state.exists()
