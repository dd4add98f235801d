"""Batches run as people run them, images for them that share what images share, and what there is afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.conversion import convert
from converter.image.model import this_platform
from converter.options import Options
from converter.places import Places
from converter.progress import Silent
from tests.layers import directory, file, hardlink, symlink, tar
from tests.test_wrong_input import saved
from tests.trees import Facts, facts

_REPOSITORY = Path(__file__).parent.parent
ARCHITECTURE = this_platform().architecture
_SOME = 400  # files of a base: enough that a process of its own makes them


@dataclass(frozen=True)
class Ran:
    """How a batch ended: its exit status, what it printed, and its JSON."""

    status: int
    stdout: str
    stderr: str

    @property
    def outcomes(self) -> dict[str, dict[str, Any]]:
        """By machine."""
        return {outcome["name"]: outcome for outcome in self.summary["outcomes"]}

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    @property
    def states(self) -> dict[str, str]:
        return {name: outcome["state"] for name, outcome in self.outcomes.items()}

    @property
    def reasons(self) -> dict[str, str]:
        """Of those that failed, with what is to be done."""
        return {
            name: f"{outcome['reason']}; {outcome['remedy']}" if outcome["remedy"] else outcome["reason"]
            for name, outcome in self.outcomes.items()
            if outcome["reason"]
        }


@dataclass(frozen=True)
class Batches:
    """Batches of one list into one root."""

    list: Path
    root: Path

    def command(self, *more: str) -> Sequence[str]:
        program = [sys.executable, "-m", "converter.cli", "batch", str(self.list), "--root", str(self.root)]
        return [*program, "--json", *more]

    def run(self, *more: str, timeout: float = 120, **environment: str) -> Ran:
        """One that comes to its end."""
        with self.running(*more, **environment) as process:
            return ended(process, timeout)

    @contextmanager
    def running(self, *more: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """One under way, in a process group of its own; killed at the end."""
        process = subprocess.Popen(
            self.command(*more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=_REPOSITORY,
            env={**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock", **environment},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def ended(process: subprocess.Popen[str], timeout: float = 120) -> Ran:
    """Wait for its end."""
    stdout, stderr = process.communicate(timeout=timeout)
    return Ran(process.returncode, stdout, stderr)


def members(group: int, session_too: bool = False) -> dict[int, str]:
    """The processes of a process group, with their command lines; zombies are none."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, pgrp, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if state != "Z" and (int(pgrp) == group or (session_too and int(session) == group)):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def workers(main: int) -> list[int]:
    """The processes that convert for the batch `main`: children of the one that forks them."""
    parents = {}
    for pid in members(main):
        with suppress(OSError):
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    servers = {pid for pid, parent in parents.items() if parent == main}
    return [
        pid
        for pid, parent in parents.items()
        if parent in servers and "multiprocessing.forkserver" in members(main).get(pid, "")
    ]


# --- images --------------------------------------------------------------------------------------------------

Member = tuple[tarfile.TarInfo, bytes]
PASSWD = file("etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:7:7::/:\n")


def base(mark: str = "base", count: int = _SOME) -> bytes:
    """A layer with what a distribution has: many small files, some large, links, modes, owners, attributes."""
    text = mark.encode() + b" "
    found = [PASSWD, directory("etc"), directory("usr", mtime=1_500_000_000), directory("var/log/old")]
    found += [directory(f"usr/d{n}", mode=0o2755, mtime=1_400_000_000 + n) for n in range(10)]
    found += [
        file(f"usr/d{n % 10}/f{n}", text * (1 + n % 200), mtime=1_300_000_000 + n) for n in range(count)
    ]
    found += [file("usr/large", text * 200_000), hardlink("usr/larger", "usr/large")]
    found += [symlink("bin", "usr/d1")]
    found += [file("usr/setuid", text, mode=0o4755, uid=7, gid=7), directory("tmp", mode=0o1777)]
    found += [file("usr/marked", text, pax_headers={"SCHILY.xattr.user.mark": mark})]
    found += [file("etc/issue", text), file("var/log/old/a", text), file("var/log/old/b", text)]
    return tar(*found)


def middle(mark: str = "middle") -> bytes:
    """A layer that replaces, hides and adds."""
    text = mark.encode()
    found = [file("etc/.wh.issue"), directory("var"), directory("var/log"), directory("var/log/old")]
    found += [file("var/log/old/.wh..wh..opq"), file("var/log/old/c", text), directory("usr/d3", mode=0o700)]
    found += [file(f"usr/d{n % 10}/f{n}", text, mode=0o755) for n in range(0, 40, 4)]
    found += [file("usr/d4/.wh.f14"), file("bin/through", text), directory("opt"), file("opt/x", text * 99)]
    return tar(*found)


def top(mark: str, *more: Member) -> bytes:
    """A small layer of an image's own."""
    text = mark.encode()
    return tar(directory("srv"), file(f"srv/{mark}", text * 50), file("srv/mark", text), *more)


def images(place: Path, count: int = _SOME) -> dict[str, Path]:
    """Archives of images that share much, little or nothing, by the name of the machine."""
    low, mid, other = base(count=count), middle(), base("other", count=count)
    shared_upper = tar(*[file(f"usr/d{n % 10}/u{n}", b"upper" * n) for n in range(100)])
    links = [hardlink("srv/to-below", "usr/large"), hardlink("srv/own", "srv/mark")]
    layers = {
        "on-base": [low, top("on-base")],
        "hiding": [low, top("hiding", file("usr/.wh.d5"), file("etc/.wh..wh..opq"), PASSWD)],
        "on-middle": [low, mid, top("on-middle")],
        "linking": [low, mid, top("linking", *links)],
        "same-1": [low, mid],
        "same-2": [low, mid],
        "upper-1": [other, shared_upper, top("upper-1")],
        "upper-2": [base("third", count=count), shared_upper],
        "alone": [base("alone", count=count)],
    }
    found = {}
    for name, of_one in layers.items():
        found[name] = place / f"{name}.tar"
        config = {"Cmd": ["/bin/sh"], "User": "app", "Env": [f"NAME={name}"]}
        saved(found[name], {"architecture": ARCHITECTURE, "config": config}, of_one)
    return found


def write_list(path: Path, sources: Mapping[str, Path | str]) -> Path:
    """A list of archives, or of other sources, each with its machine's name."""
    lines = [
        f"docker-archive:{source} {name}" if isinstance(source, Path) else f"{source} {name}"
        for name, source in sources.items()
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def layout(path: Path, layers: Sequence[bytes], **config: object) -> Path:
    """An OCI layout with one image, `latest`."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    about = {
        "os": "linux",
        "architecture": ARCHITECTURE,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "config": blob(json.dumps(about).encode(), f"{kind}.config.v1+json"),
        "layers": [blob(data, f"{kind}.layer.v1.tar") for data in layers],
    }
    found = blob(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    found["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [found]}))
    return path


# --- what there is afterwards --------------------------------------------------------------------------------

Tree = dict[bytes, Facts]


@dataclass(frozen=True)
class World:
    """What is below a root: the machines' trees; all other files, without what tells batches apart; cached trees."""

    trees: dict[str, Tree]
    files: dict[str, str]
    cached: dict[str, Tree]

    def __repr__(self) -> str:  # pytest would print it all
        return f"World({sorted(self.trees)}, {sorted(self.files)}, {sorted(self.cached)})"


def world(root: Path) -> World:
    """What is there, of which nothing may be half made or left over."""
    places = Places(root)
    assert leftovers(root) == []
    names = [path.name for path in places.machines.glob("[!.]*") if path.is_dir()]
    files = {}
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root).parts
        if inside[:3] == ("var", "lib", "machines") and (
            path.is_dir() or inside[3] in names or inside[3] == places.trees.name
        ):
            continue
        if path.is_dir() or inside[0] == "lost+found":
            continue
        if path.is_symlink():
            text = f"-> {path.readlink()}"
        else:
            text = re.sub(r'"(batch|force)": ("\w+"|null)', r'"\1": …', path.read_text())
        files[str(path.relative_to(root))] = text.replace(str(root), "ROOT")
    cached = {}
    for layer in (places.trees / "layers").glob("*"):
        assert (layer / "meta.json").is_file(), layer
        assert (layer / "synced").exists(), layer
        cached[layer.name] = facts(layer / "tree")
    return World({name: facts(places.tree(name)) for name in names}, files, cached)


def leftovers(root: Path) -> list[str]:
    """Traces of what was not brought to its end: hidden files, staging directories, locks."""
    places = Places(root)
    found = []
    for directory_, names, others in os.walk(root):
        here = Path(directory_)
        found += [str(here / name) for name in (*names, *others) if name.startswith(".#")]
        if here == places.machines:
            names[:] = [name for name in names if name == places.trees.name]
        if here == places.trees / "layers":
            names[:] = []
        if here == places.trees / "locks":
            found += [str(here / name) for name in others]
    return found


def marks(root: Path) -> dict[str, tuple[int, int]]:
    """What tells a tree from one that would be made anew: inode and time of change of a file in it."""
    found = {}
    for path in Places(root).machines.glob("[!.]*"):
        if path.is_dir():
            status = next(inner for inner in sorted(path.rglob("*")) if inner.is_file()).lstat()
            found[path.name] = status.st_ino, status.st_ctime_ns
    return found


def made_alone(sources: Mapping[str, Path | str], root: Path) -> World:
    """What `convert` makes of each by itself."""
    for name, source in sources.items():
        where = source if isinstance(source, str) else f"docker-archive:{source}"
        convert(where, Options(name=name, root=root), Silent())
    return world(root)


def check(batches: Batches, expected: World) -> None:
    """All is there, as `expected`, and nothing else; what the cache has is whole."""
    found = world(batches.root)
    assert found.trees.keys() == expected.trees.keys()
    for name, tree in expected.trees.items():
        assert found.trees[name] == tree, name
    assert found.files.keys() == expected.files.keys()
    for path, text in expected.files.items():
        assert found.files[path] == text, path
    for key, tree in found.cached.items():
        assert tree == expected.cached.get(key, tree), key
