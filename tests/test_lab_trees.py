"""Trees of many images against three witnesses: Docker's own overlay, `docker export`, and `umoci unpack`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import lab
from tests.layers import directory, file, hardlink, member, symlink, tar
from tests.trees import Facts, facts

pytestmark = pytest.mark.lab

Tree = dict[bytes, Facts]

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep

# What every container has, whatever the image has there: converter/image/daemon.py, moby's daemon/initlayer.
STUBS = {
    b".dockerenv",
    b"dev/console",
    b"dev/pts",
    b"dev/shm",
    b"etc/hosts",
    b"etc/hostname",
    b"etc/resolv.conf",
}
STUBS |= {b"etc/mtab"}
MADE = {b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"etc/mtab"}
TOUCHED = {b"dev", b"etc"}  # get the time at which the stubs were put in

# Every image has these, so that neither the conversion nor the engine has more to add.
BASE = [
    directory("usr", mtime=1), directory("usr/lib", mtime=2), directory("etc", mtime=3), directory("dev", mtime=4),
    file("etc/hosts", b"", mtime=5), directory("tmp", mode=0o1777, mtime=6), file("x", b"#!", mode=0o755, mtime=7),
    directory("proc", mtime=8), directory("sys", mtime=9),
]  # fmt: skip


# --- images --------------------------------------------------------------------------------------------------


Names = Mapping[bytes, str]  # a name, and why a witness shows it otherwise


@dataclass(frozen=True)
class Made:
    """An image made by hand: layers above BASE."""

    layers: tuple[bytes, ...]
    undescribed: frozenset[bytes] = frozenset()  # directories no layer describes, see DOCKER_TIME
    overlay: Names | None = None
    export: Names | None = None
    umoci: Names | None = None


@dataclass(frozen=True)
class Built:
    """An image made by `docker build`."""

    dockerfile: str
    undescribed: frozenset[bytes] = frozenset()
    overlay: Names | None = None
    export: Names | None = None
    umoci: Names | None = None


def _opaque() -> tuple[bytes, ...]:
    old = [directory("d", mtime=9), file("d/old", b"1"), directory("d/e", mtime=9), file("d/e/old", b"2")]
    old += [directory("f", mtime=9), file("f/old", b"3"), directory("f/g", mtime=9), file("f/g/old", b"4")]
    return (
        tar(*old),
        tar(directory("d", mode=0o711, mtime=10), file("d/.wh..wh..opq"), file("d/new", b"5", mtime=1)),
        # After the siblings, and with a directory in it that is there again.
        tar(
            directory("f", mtime=11),
            directory("f/g", mtime=12),
            file("f/g/new", b"6"),
            file("f/.wh..wh..opq"),
        ),
        tar(directory("d/e", mtime=13), file("d/e/new", b"7"), directory("d", mtime=14)),
    )


_KINDS: dict[str, Callable[[str], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "file": lambda name: [file(name, b"content", mtime=21)],
    "dir": lambda name: [directory(name, mode=0o750, mtime=22), file(f"{name}/in", b"inside", mtime=23)],
    "symlink": lambda name: [symlink(name, "etc/hosts", mtime=24)],
    "fifo": lambda name: [member(name, tarfile.FIFOTYPE, mode=0o600, mtime=25)],
    "char": lambda name: [member(name, tarfile.CHRTYPE, devmajor=1, devminor=5, mtime=26)],
    "hardlink": lambda name: [
        file(f"{name}-other", b"linked", mtime=27),
        hardlink(name, f"{name}-other", mtime=27),
    ],
}


def _replaced() -> tuple[bytes, ...]:
    """Every kind by every other, and once more by the first."""
    pairs = [(old, new) for old in _KINDS for new in _KINDS]
    layers = [[], [], []]  # type: list[list[tuple[tarfile.TarInfo, bytes]]]
    for old, new in pairs:
        for items, kind in zip(layers, (old, new, old), strict=True):
            items += _KINDS[kind](f"{old}-{new}-{old}")
        for items, kind in zip(layers, (old, new), strict=False):
            items += _KINDS[kind](f"{old}-{new}")
    return tuple(tar(*items) for items in layers)


def _whiteouts() -> tuple[bytes, ...]:
    tree = [directory("d", mtime=9)]
    for name in ("a", "b", "c"):
        tree += [
            directory(f"d/{name}", mtime=10),
            file(f"d/{name}/f", name.encode(), mtime=11),
            file(f"d/{name}1"),
        ]
    return (
        tar(*tree),
        tar(directory("d", mtime=12), file("d/.wh.a"), file("d/.wh.b1"), file("d/.wh.none")),
        tar(directory("d", mtime=13), directory("d/a", mtime=14), file("d/a/new", b"n"), file("d/.wh.b")),
        tar(file(".wh.none"), directory("d", mtime=15), directory("d/c", mtime=16), file("d/c/.wh.f")),
        tar(file("d/b1", b"again", mtime=17), directory("d", mtime=18)),
    )


def _links() -> tuple[bytes, ...]:
    more = {"mode": 0o750, "uid": 3, "gid": 4, "mtime": 31}
    return (
        tar(
            directory("l", mtime=30), file("l/a", b"one", **more), hardlink("l/b", "l/a", **more),
            hardlink("l/c", "l/b", **more), file("m", b"two", **more), hardlink("l/m", "./m", **more),
            symlink("l/s", "a", mtime=32), hardlink("l/t", "l/s", mtime=32),
        ),
        tar(directory("l", mtime=33), file("l/a", b"new", mtime=34), file(".wh.m"), hardlink("l/a2", "/l/a", mtime=34)),
        tar(directory("l", mtime=35), file("l/.wh.b"), file("l/.wh.s")),
    )  # fmt: skip


def _link_parents() -> tuple[bytes, ...]:
    return (
        tar(
            directory("usr", mtime=39), directory("usr/share", mtime=40), symlink("share", "usr/share", mtime=41),
            file("share/f", b"1", mtime=42),
            symlink("up", "../../usr", mtime=43), file("up/g", b"2", mtime=44), directory("up/made", mtime=45),
            symlink("root", "/", mtime=46), file("root/h", b"3", mtime=47), symlink("twice", "share", mtime=48),
            file("twice/i", b"4", mtime=49), hardlink("j", "twice/i", mtime=49),
        ),
        tar(directory("usr", mtime=50), symlink("usr/s", "share", mtime=51)),
    )  # fmt: skip


def _links_below() -> tuple[bytes, ...]:
    old = [directory("usr", mtime=39), directory("usr/share", mtime=40), file("usr/share/f", b"1", mtime=41)]
    return (tar(*old, symlink("share", "usr/share", mtime=42)), tar(file("share/g", b"2", mtime=43)))


def _xattrs() -> tuple[bytes, ...]:
    def headers(**values: bytes) -> dict[str, str]:
        return {
            f"SCHILY.xattr.{name.replace('__', '.')}": value.decode("utf-8", "surrogateescape")
            for name, value in values.items()
        }

    several = headers(
        user__one=b"1", user__two=b"\xff\xfe\n=", user__empty=b"", security__capability=CAPABILITY
    )
    return (
        tar(
            file("cap", b"x", mode=0o755, uid=1000, gid=1000, mtime=50, pax_headers=several),
            directory("d", mtime=51, pax_headers=headers(user__dir=b"d")),
            file("d/replaced", b"x", mtime=52, pax_headers=headers(user__old=b"o")),
            file("trusted", b"x", mtime=53, pax_headers=headers(trusted__note=b"\xff\xfe\n=")),
        ),
        tar(
            file("d/replaced", b"y", mtime=54, pax_headers=headers(user__new=b"n")), directory("d", mtime=55)
        ),
    )


def _modes() -> tuple[bytes, ...]:
    items = []
    for mode in (0, 0o111, 0o600, 0o755, 0o1777, 0o2755, 0o4711, 0o6755, 0o7777):
        items += [file(f"f{mode:o}", b"x", mode=mode, uid=33, gid=1234, mtime=60)]
        items += [directory(f"d{mode:o}", mode=mode, uid=70_000, gid=3_000_000_000, mtime=61)]
        items += [file(f"d{mode:o}/in", b"x", mode=mode, mtime=62)]
    return (
        tar(*items),
        tar(directory("d6755", mode=0o755, mtime=63), file("f4711", b"y", mode=0o711, mtime=64)),
    )


def _devices() -> tuple[bytes, ...]:
    return (
        tar(
            directory("n", mtime=70),
            member("n/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, mtime=71),
            member("n/large", tarfile.CHRTYPE, devmajor=511, devminor=70_000, mode=0o620, gid=5, mtime=72),
            member("n/disk", tarfile.BLKTYPE, devmajor=8, devminor=17, mode=0o660, gid=6, mtime=73),
            member("n/fifo", tarfile.FIFOTYPE, mode=0o4622, uid=7, mtime=74),
            hardlink("n/fifo2", "n/fifo", mode=0o4622, uid=7, mtime=74),
        ),
    )


def _sparse(place: Path) -> tuple[bytes, ...]:
    """As GNU tar writes them, in each form that Docker takes: not its old one."""
    layers = []
    for number, options in enumerate(
        (
            ["--format=posix", "--sparse-version=0.0"],
            ["--format=posix", "--sparse-version=0.1"],
            ["--format=posix", "--sparse-version=1.0"],
        )
    ):
        source = place / f"sparse{number}"
        source.mkdir()
        for name, step, size in (
            ("few", 4 << 20, 20 << 20),
            ("many", 70_000, 4 << 20),
            ("none", 1 << 40, 3 << 20),
        ):
            with (source / f"{name}{number}").open("wb") as made:
                for at in range(step // 2, size - 100, step):
                    made.seek(at)
                    made.write(b"piece %d" % at)
                made.truncate(size)
        packed = place / f"sparse{number}.tar"
        lab.run("tar", "-C", source, "--sparse", "--mtime=@80", *options, "-cf", packed, *os.listdir(source))  # noqa: PTH208
        layers.append(packed.read_bytes())
    return tuple(layers)


def _names(format: int) -> tuple[bytes, ...]:
    long = "/".join(["n" * 200] * 3)
    items = [directory("/".join(["n" * 200] * depth), mtime=90) for depth in (1, 2, 3)]
    items += [file(f"{long}/{'f' * 255}", b"x", mtime=91), symlink("long-link", "t/" * 500 + "t", mtime=92)]
    items += [
        file("\udcff\udcfe", b"not utf-8", mtime=93),
        directory("grüße", mtime=94),
        file("grüße/世界", b"y", mtime=95),
    ]
    items += [
        file(name, name.encode(), mtime=96)
        for name in ("new\nline", "tab\t", " space ", "'\"\\", "-", "*?[a]", ".w", "..x")
    ]
    items += [hardlink("\udcff", "\udcff\udcfe", mtime=93), hardlink("long", f"{long}/{'f' * 255}", mtime=91)]
    gone = [directory("grüße", mtime=97), file("grüße/.wh.世界"), file(".wh.new\nline"), file(".wh.long")]
    return (tar(*items, format=format), tar(*gone, format=format))


def _many_layers() -> tuple[bytes, ...]:
    layers = []
    for n in range(100):
        items = [directory("d", mode=0o700 + n % 64, mtime=n), file(f"d/f{n}", b"%d" % n, mtime=n)]
        items += [file("same", b"%d" % n, mtime=n)]
        items += [file(f"d/.wh.f{n - 5}")] if n >= 5 and n % 2 else []
        items += (
            [directory("e", mtime=n), file("e/.wh..wh..opq"), file(f"e/{n}", b"e")] if n % 10 == 3 else []
        )
        layers.append(tar(*items))
    return tuple(layers)


def _times() -> tuple[bytes, ...]:
    exact = ("1234567890.123456789", "1.000000001", "4000000000.5", "0.25")
    items = [file(f"f{n}", b"x", pax_headers={"mtime": text}) for n, text in enumerate(exact)]
    items += [symlink(f"s{n}", "x", pax_headers={"mtime": text}) for n, text in enumerate(exact)]
    items += [directory(f"d{n}", pax_headers={"mtime": text}) for n, text in enumerate(exact)]
    return (tar(*items, *(file(f"d{n}/in", b"y", mtime=99) for n in range(len(exact)))),)


def _spelled() -> tuple[bytes, ...]:
    return (
        tar(
            directory("./", mode=0o700, mtime=100), directory("./d/", mtime=101), file("./d/a", b"1"),
            file("/d/b", b"2"), file("d//c", b"3"), file("d/./e", b"4"), file("d/../d/f", b"5"),
            hardlink("./d/g", "/d/a"), hardlink("/d/h", "./d/a"),
        ),
        tar(directory("/d", mtime=102), file("./d/.wh.a"), file("/d/.wh.b")),
    )  # fmt: skip


def _no_parents() -> tuple[bytes, ...]:
    return (
        tar(file("new/dir/f", b"1", mtime=110)),
        tar(file("new/dir/g", b"2", mtime=111), file("tmp/f", b"3")),
    )


def _large() -> tuple[bytes, ...]:
    block = bytes(range(256)) * 4096
    return (
        tar(file("three", block * 3 + b"x" * 17, mtime=120), file("gone", block, mtime=121)),
        tar(
            file(".wh.gone"), file("moved", block[:300_000], mtime=122), hardlink("again", "moved", mtime=122)
        ),
    )


def _whiteout_and_again() -> tuple[bytes, ...]:
    old = tar(directory("d", mtime=130), file("d/old", b"1"))
    return (old, tar(file(".wh.d"), directory("d", mtime=131), file("d/new", b"2")))


def _zero_device() -> tuple[bytes, ...]:
    return (tar(file("f", b"1")), tar(member("f", tarfile.CHRTYPE, devmajor=0, devminor=0, mtime=132)))


MERGED = "Docker forgets a whiteout when its own layer makes the directory anew; OCI's whiteouts hide what is older"
WHITEOUT = "a device 0:0 is overlayfs' own whiteout, so Docker hides by it; in umoci it is a device"
# Docker's store knows a sparse file by its content alone, and cannot make the layer again: "could not verify".
NOT_SAVED = {"sparse"}
DOCKER_TIME = "a directory that no layer describes has in Docker the time of unpacking; here always the same"
RESTATED = "an unmentioned parent is in Docker root's, 0755 and of now; here and in umoci it stays as it was"
EMPTIES = (
    "umoci empties an opaque directory when it comes to the mark, which changes the times of those in it"
)
EMPTY = "Go's tar reader, so Docker and umoci, takes an attribute that is empty for none; here it is set"
FOLLOWS = "umoci applies a layer to the tree of the older ones, as OCI says, and so follows their links"

IMAGES: dict[str, Made | Built | Callable[[Path], tuple[bytes, ...]]] = {
    "debian": Built("FROM debian:bookworm\nLABEL a=b"),
    "overwrites": Built(
        "FROM debian:bookworm\n"
        "RUN rm -rf /usr/share/doc /usr/share/man && cp -a /bin/ls /bin/ls.new && mv /bin/ls.new /bin/ls\n"
        "RUN useradd -m u && chown -R u /etc/apt && chmod 4755 /bin/cat && rm /etc/issue && mkdir /etc/issue\n"
        "RUN rm -r /etc/issue && ln -s os-release /etc/issue && touch /etc/debian_version && userdel -r u\n"
        "RUN sed -i s/root/ROOT/ /etc/group && touch /srv/a /srv/b && rm /srv/b && rm -r /usr/games\n"
    ),
    "built-opaque": Built(
        "FROM debian:bookworm\n"
        "RUN mkdir -p /opt/d/e && echo 1 >/opt/d/old && echo 2 >/opt/d/e/old && chmod 2775 /opt/d\n"
        "RUN rm -r /opt/d && mkdir /opt/d && echo 3 >/opt/d/new\n"
        "RUN rm -r /opt && mkdir -m 700 /opt\n"
        "RUN echo 4 >/opt/x\n"
    ),
    "built-links": Built(
        "FROM debian:bookworm\n"
        "RUN mkdir /l && cd /l && echo 1 >a && ln a b && ln a c && ln -s a s && ln s t && mkfifo p && ln p q\n"
        "RUN cd /l && chmod 600 a && ln b d && rm c\n"
        "RUN cd /l && ln a e && mv b f && ln -f s q\n"
    ),
    "opaque": Made(_opaque(), umoci={b"f/g": EMPTIES}),
    "replaced": Made(_replaced()),
    "whiteouts": Made(_whiteouts()),
    "hard-links": Made(_links()),
    "link-parents": Made(_link_parents()),
    "links-below": Made(
        _links_below(),
        frozenset({b"share"}),
        umoci=dict.fromkeys((b"share", b"share/g", b"usr/share/g"), FOLLOWS),
    ),
    "xattrs": Made(_xattrs(), overlay={b"cap": EMPTY}, umoci={b"cap": EMPTY}),
    "modes": Made(_modes()),
    "devices": Made(_devices()),
    "sparse": _sparse,
    "names-pax": Made(_names(tarfile.PAX_FORMAT)),
    "names-gnu": Made(_names(tarfile.GNU_FORMAT)),
    "many-layers": Made(_many_layers()),
    "times": Made(_times()),
    "spelled": Made(_spelled()),
    "no-parents": Made(
        _no_parents(), frozenset({b"new", b"new/dir"}), overlay={b"tmp": RESTATED}, export={b"tmp": RESTATED}
    ),
    "large": Made(_large()),
    "whiteout-and-again": Made(_whiteout_and_again(), umoci={b"d/old": MERGED}),
    "zero-device": Made(_zero_device(), umoci={b"f": WHITEOUT}),
}


# --- witnesses -----------------------------------------------------------------------------------------------


def _save(path: Path, name: str, layers: tuple[bytes, ...]) -> None:
    """A docker archive made by hand."""
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["/x"]}}
    config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    files = {f"{number}.tar": layer for number, layer in enumerate(layers)}
    manifest = [{"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": list(files)}]
    files |= {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as archive:
        for file_name, data in files.items():
            info = tarfile.TarInfo(file_name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _overlay(place: Path, name: str, docker_host: str) -> Tree:
    """What Docker itself has: the directories it unpacked the layers to, laid over one another by the kernel."""
    inspected = lab.run("docker", "image", "inspect", name, DOCKER_HOST=docker_host)
    driver = json.loads(inspected.stdout)[0]["GraphDriver"]
    assert driver["Name"] == "overlay2"
    (place / "empty").mkdir()
    lower = [driver["Data"]["UpperDir"], *driver["Data"].get("LowerDir", "").split(":"), place / "empty"]
    names = []
    for number, path in enumerate(part for part in lower if part):
        (place / str(number)).symlink_to(path)  # mount(2) has room for a page of options
        names.append(str(number))
    (place / "overlay").mkdir()
    options = f"ro,lowerdir={':'.join(names)}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, "overlay"], cwd=place, check=True)
    try:
        return facts(place / "overlay", whole=False)
    finally:
        lab.run("umount", place / "overlay")


def _export(place: Path, name: str, docker_host: str) -> Tree:
    container = lab.run("docker", "create", name, "/x", DOCKER_HOST=docker_host).stdout.strip()
    try:
        lab.run("docker", "export", "-o", place / "export.tar", container, DOCKER_HOST=docker_host)
    finally:
        lab.run("docker", "rm", container, DOCKER_HOST=docker_host)
    (place / "export").mkdir()
    options = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"]
    lab.run("tar", "-C", place / "export", *options, place / "export.tar")
    return facts(place / "export")


def _umoci(place: Path, archive: Path) -> Tree:
    lab.run("skopeo", "copy", f"docker-archive:{archive}", f"oci:{place}/oci:v1")
    lab.run("umoci", "unpack", "--image", f"{place}/oci:v1", place / "bundle")
    return facts(place / "bundle/rootfs")


def _ours(root: Path, source: str, docker_host: str) -> Tree:
    command: list[str | Path] = [
        ".venv/bin/docker2nspawn",
        "convert",
        "--json",
        "--root",
        root,
        "--name",
        "same",
    ]
    result = json.loads(lab.run(*command, source, DOCKER_HOST=docker_host).stdout)
    assert [note for note in result["notes"] if note["subject"] == "files"] == []
    found = facts(root / "var/lib/machines/same")
    return {name: what for name, what in found.items() if not name.startswith(b"usr/lib/docker2nspawn")}


def _differences(ours: Tree, theirs: Tree) -> dict[bytes, tuple[Facts | None, Facts | None]]:
    names = sorted(ours.keys() | theirs.keys())
    return {n: (ours.get(n), theirs.get(n)) for n in names if ours.get(n) != theirs.get(n)}


def _same(ours: Tree, theirs: Tree, image: Made | Built, allowed: Mapping[bytes, str]) -> None:
    """The root's own metadata is compared nowhere: Docker takes it from no layer."""
    different = _differences(ours, theirs)
    found = {}
    for name, (our, their) in different.items():
        if name in image.undescribed and our and their and our == their._replace(mtime=our.mtime):
            continue  # DOCKER_TIME
        if name in MADE or (name == b"usr/lib" and their is None):
            continue  # by the conversion, whatever the image has there
        found[name] = (our, their)
    found.pop(b".", None)
    assert {name: what for name, what in found.items() if name not in allowed} == {}
    assert found.keys() == allowed.keys(), "a difference that is documented here is none any more"


@dataclass(frozen=True)
class Corpus:
    """Images in Docker, and each in an archive: what was saved, or what was loaded."""

    work: Path
    docker_host: str

    def image(self, name: str) -> tuple[Made | Built, Path]:
        place = self.work / f"trees-{name}"
        place.mkdir()
        image = IMAGES[name]
        if callable(image):
            image = Made(image(place))
        tag, archive = f"lab/tree-{name}", place / "image.tar"
        if isinstance(image, Built):
            (place / "Dockerfile").write_text(image.dockerfile)
            command = ("docker", "build", "--network=none", "-t", tag, "-f", place / "Dockerfile", place)
            lab.run(*command, DOCKER_HOST=self.docker_host, DOCKER_BUILDKIT="0", timeout=280)
            lab.run("docker", "save", "-o", archive, tag, DOCKER_HOST=self.docker_host)
        else:
            _save(archive, tag, (tar(*BASE), *image.layers))
            lab.run("docker", "load", "-i", archive, DOCKER_HOST=self.docker_host)
        return image, place


@pytest.fixture
def corpus(work: Path, docker_host: str) -> Iterator[Corpus]:
    known = lab.run("docker", "image", "inspect", "debian:bookworm", check=False, DOCKER_HOST=docker_host)
    if known.returncode != 0:
        command = ("docker", "import", lab.root_tarball("debian"), "debian:bookworm")
        lab.run(*command, DOCKER_HOST=docker_host, timeout=300)
    yield Corpus(work, docker_host)


def _exported(found: Tree) -> Tree:
    """What an export can show: whole seconds, no attributes but capabilities; without what the engine puts in."""
    told = {}
    for name, what in found.items():
        if name in STUBS:
            continue
        kept = tuple((key, value) for key, value in what.xattrs if key == "security.capability")
        seconds = 0 if name in TOUCHED else what.mtime // 10**9
        told[name] = what._replace(xattrs=kept, mtime=seconds)
    return told


@pytest.mark.parametrize("name", IMAGES)
def test_the_tree_is_what_docker_and_umoci_have(corpus: Corpus, name: str) -> None:
    image, place = corpus.image(name)
    tag = f"lab/tree-{name}"
    archive = place / "image.tar"
    ours = _ours(place / "ours", f"docker-archive:{archive}", corpus.docker_host)
    if name in NOT_SAVED:
        command = ("docker", "save", "-o", place / "saved.tar", tag)
        assert lab.run(*command, check=False, DOCKER_HOST=corpus.docker_host).returncode != 0
    else:
        assert _ours(place / "stored", f"docker-daemon:{tag}", corpus.docker_host) == ours
    _same(ours, _overlay(place, tag, corpus.docker_host), image, image.overlay or {})
    exported = _exported(_export(place, tag, corpus.docker_host))
    _same(_exported(ours), exported, image, image.export or {})
    _same(ours, _umoci(place, archive), image, image.umoci or {})
