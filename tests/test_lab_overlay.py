"""Images and containers read where overlay2 keeps them are what the engine's own save and export give."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converter import conversion
from converter.errors import ConversionError
from converter.image import daemon, overlay
from converter.image.model import UnpackedLayer
from converter.options import Options
from converter.progress import Silent
from tests import lab
from tests.layers import directory, file, hardlink, symlink, tar
from tests.test_lab_trees import BASE, Tree, _save
from tests.trees import Facts, facts

pytestmark = pytest.mark.lab

LAYERS = (
    tar(*BASE),
    tar(
        directory("d", mtime=1), file("d/large", os.urandom(3_000_017)), file("d/small", b"x" * 5000, mode=0o4755),
        hardlink("d/again", "d/small", mode=0o4755), symlink("l", "d"), file("l/through", b"1"),
        file("empty"), file("\udcff\udcfe", b"not UTF-8"),
    ),
    tar(file("d/.wh.small"), *(file(f"many/{n}", b"%d" % n * n) for n in range(300))),
)  # fmt: skip

CHANGES = """
/bin/busybox --install -s /bin
echo added >/d/added; ln /d/added /d/linked; rm /d/large; rm -r /many; mkdir /many; echo new >/many/new
mkfifo /fifo; chmod 2770 /d; chown 12:34 /empty; echo more >>/l/through; ln -s /nowhere /link; rm /tmp -r
mkdir -p /deep/er; touch -d @1000000000 /deep/er; echo done >/done; exec sleep 1000
"""


@pytest.fixture
def engine(docker_host: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    return docker_host


@pytest.fixture
def image(engine: str, tmp_path: Path) -> str:
    """LAYERS and a busybox, by which something can be run in it."""
    busybox = tar(
        file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755), symlink("bin/sh", "busybox")
    )
    _save(tmp_path / "image.tar", "lab/stored", (*LAYERS, busybox))
    lab.run("docker", "load", "-i", tmp_path / "image.tar")
    return "lab/stored"


def convert(root: Path, source: str) -> Tree:
    conversion.convert(source, Options(name="same", root=root, volumes="none"), Silent())
    return facts(root / "var/lib/machines/same")


def not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "stored_image", lambda *_: None)


def test_an_image_from_its_place_is_the_saved_one(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "_save", None)  # it must do without
    stored = convert(tmp_path / "stored", f"docker-daemon:{image}")
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        not_stored(patch)
        saved = convert(tmp_path / "saved", f"docker-daemon:{image}")
    archive = convert(tmp_path / "archive", f"docker-archive:{tmp_path / 'image.tar'}")
    assert stored == saved == archive
    assert stored[b"d/through"].content == b"1"


@pytest.fixture
def container(image: str) -> Iterator[str]:
    """Running, with changes of every kind."""
    lab.run(
        "docker",
        "run",
        "-d",
        "--name",
        "lab-stored",
        "-v",
        "/volume",
        image,
        "/bin/busybox",
        "sh",
        "-c",
        CHANGES,
    )
    try:
        lab.wait_until(
            "the changes", lambda: "/done" in lab.run("docker", "diff", "lab-stored", check=False).stdout
        )
        yield "lab-stored"
    finally:
        lab.run("docker", "rm", "-f", "-v", "lab-stored")


def in_seconds(tree: Tree) -> dict[bytes, Facts]:
    """An export has no more."""
    return {name: what._replace(mtime=what.mtime // 10**9) for name, what in tree.items()}


def test_a_container_from_its_place_is_the_exported_one(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(daemon, "_export", None)
        stored = convert(tmp_path / "stored", f"container:{container}")
    with monkeypatch.context() as patch:
        not_stored(patch)
        exported = convert(tmp_path / "exported", f"container:{container}")
    assert in_seconds(stored) == in_seconds(exported)
    assert stored[b"d/added"].names == {b"d/added", b"d/linked"}
    assert {name for name in stored if name.startswith(b"many/")} == {b"many/new"}
    assert stored[b"d"].mode == 0o2770 and stored[b"fifo"].kind == "fifo"
    assert b"d/large" not in stored and b"tmp" not in stored


def test_what_the_kernel_keeps_elsewhere_is_exported(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspected = json.loads(lab.run("docker", "inspect", container).stdout)[0]
    upper = Path(inspected["GraphDriver"]["Data"]["UpperDir"])
    os.setxattr(upper / "deep", "trusted.overlay.redirect", b"elsewhere")
    try:
        assert overlay.stored_changes(inspected, tmp_path / "changes.tar") is None
        assert b"deep/er" in convert(tmp_path / "root", f"container:{container}")
    finally:
        os.removexattr(upper / "deep", "trusted.overlay.redirect")


def layer_of(image: str, number: int) -> UnpackedLayer:
    inspected = json.loads(lab.run("docker", "image", "inspect", image).stdout)[0]
    info = json.loads(lab.run("docker", "info", "--format", "{{json .}}").stdout)
    found = overlay.stored_image(info, inspected["Id"])
    assert found is not None
    layer = found.layers[number]
    assert isinstance(layer, UnpackedLayer)
    return layer


def _append(path: Path) -> None:
    with path.open("ab") as changed:
        changed.write(b"x")


def _change(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


DAMAGES: dict[str, Any] = {
    "longer": (_append, "has changed"),
    "shorter": (lambda path: os.truncate(path, path.stat().st_size - 1), "has changed"),
    "changed": (_change, "its uncompressed content has the digest"),
    "gone": (Path.unlink, "No such file"),
    "a link": (lambda path: (path.unlink(), path.symlink_to("/etc/shadow")), "cannot read"),
    "a link in the way": (lambda path: (path.parent.rename(path.parent.with_name("e")), path.parent.symlink_to("/etc")),
                          "cannot read"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["d/large", "d/small"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(image: str, tmp_path: Path, damage: str, name: str) -> None:
    """On a copy: the engine's own files are left alone."""
    layer = layer_of(image, 1)
    copy = tmp_path / "diff"
    lab.run("cp", "-a", layer.directory, copy)
    broken = replace(layer, directory=copy)
    damaging, because = DAMAGES[damage]
    from converter.rootfs.merge import scan

    scan([broken], progress=Silent())
    damaging(copy / name)
    with pytest.raises(ConversionError, match=because):
        scan([broken], progress=Silent())


@pytest.mark.parametrize(
    "recipe", [b"", b"\x1f\x8b\x08", b"nonsense", b'{"type":1}\n', b'{"type":2,"payload":"?"}\n']
)
def test_damaged_recipes_are_refused(image: str, tmp_path: Path, recipe: bytes) -> None:
    from converter.rootfs.merge import scan

    (tmp_path / "recipe").write_bytes(recipe)
    with pytest.raises(ConversionError):
        scan([replace(layer_of(image, 1), recipe=tmp_path / "recipe")], progress=Silent())


def test_sockets_are_left_out(container: str, tmp_path: Path) -> None:
    inspected = json.loads(lab.run("docker", "inspect", container).stdout)[0]
    upper = Path(inspected["GraphDriver"]["Data"]["UpperDir"])
    os.mknod(upper / "socket", stat.S_IFSOCK | 0o600)
    assert b"socket" not in convert(tmp_path / "root", f"container:{container}")
