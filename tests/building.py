"""Recipes made by hand, and building them: on a busybox that is an image of one layer."""

from __future__ import annotations

import io
import shutil
import signal
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter import interrupt
from converter.dockerfile.build import Builder, Built, Settings, assemble
from converter.dockerfile.context import Source
from converter.dockerfile.model import (
    Copy,
    ImageSource,
    Instruction,
    Mount,
    Recipe,
    Run,
    Setting,
    Stage,
    StageSource,
    State,
    Step,
    Workdir,
)
from converter.image.model import Image, ImageConfig, this_platform
from converter.places import Places
from converter.progress import Silent
from tests.layers import layer

BUSYBOX = ImageSource("lab/busybox")
PATH = ("PATH", "/bin")
ROOT_STATE = State(env=(PATH,))
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n"
_GROUP = b"root:x:0:root\napp:x:1001:\nextra:x:2000:app\n"
_APPLETS = (
    "awk base64 cat chgrp chmod chown cp cut dd df du echo env false find free grep head hostname id ifconfig ip kill "
    "ln ls mkdir mkfifo mknod mount mv nc od ping ps pwd readlink rm rmdir sed seq sh sha256sum sleep sort stat sync "
    "tail test touch tr true umount uname wc who"
)


def instruction(keyword: str, words: str, line: int = 1) -> Instruction:
    return Instruction(keyword, (words,), f"{keyword} {words}", "Dockerfile", line, line)


def run(command: str, *, line: int = 1, state: State = ROOT_STATE, **more: Any) -> Run:
    return Run(line, instruction("RUN", command, line), state, ("/bin/sh", "-c", command), **more)


def copy(*sources: str, to: str, line: int = 1, state: State = ROOT_STATE, **more: Any) -> Copy:
    words = instruction("COPY", " ".join((*sources, to)), line)
    return Copy(line, words, state, add=False, sources=sources, destination=to, **more)


def workdir(path: str, *, line: int = 1, user: str = "") -> Workdir:
    return Workdir(line, instruction("WORKDIR", path, line), State((PATH,), (), user, path))


def label(text: str, *, line: int = 1) -> Setting:
    return Setting(line, instruction("LABEL", text, line), ROOT_STATE)


def stage(
    *steps: Step, index: int = 0, base: ImageSource | StageSource | None = BUSYBOX, name: str | None = None
) -> Stage:
    config = ImageConfig()
    words = instruction("FROM", "lab/busybox")
    return Stage(index, name, words, base, config, steps, config, this_platform())


def recipe(*stages: Stage) -> Recipe:
    """The last one is the target."""
    return Recipe("Dockerfile", stages, stages[-1])


def busybox() -> bytes:
    """The layer of an image with busybox and two users."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:

        def add(name: str, kind: bytes, content: bytes = b"", mode: int = 0o755, link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode, info.linkname = kind, len(content), mode, link
            info.mtime = 1_600_000_000
            made.addfile(info, io.BytesIO(content))

        for name in ("bin", "etc", "root", "home", "home/app", "var", "lib", "lib/old"):
            add(name, tarfile.DIRTYPE)
        add("tmp", tarfile.DIRTYPE, mode=0o1777)
        add("bin/busybox", tarfile.REGTYPE, Path("/bin/busybox").read_bytes())
        for applet in _APPLETS.split():
            add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", tarfile.REGTYPE, _PASSWD, 0o644)
        add("etc/group", tarfile.REGTYPE, _GROUP, 0o644)
        for number in range(5):
            add(f"lib/old/{number}", tarfile.REGTYPE, b"old", 0o644)
        add("lib/linked", tarfile.LNKTYPE, link="lib/old/0")
    return buffer.getvalue()


def take_image(source: ImageSource, spool: Path) -> Image:
    """The image that every Dockerfile here starts from."""
    assert source == BUSYBOX
    return Image(
        "lab/busybox", None, this_platform(), ImageConfig(env=("PATH=/bin",)), (layer(spool, busybox()),)
    )


@dataclass
class Site:
    """A host to build on, below `place`, and a build context."""

    place: Path
    settings: dict[str, Any] = field(default_factory=dict)
    printed: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in (self.root, self.context, self.trees):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        return self.place / "host"

    @property
    def context(self) -> Path:
        return self.place / "context"

    @property
    def trees(self) -> Path:
        return self.place / "trees"

    @property
    def cache(self) -> Path:
        return self.root / "var/lib/docker2nspawn/cache"

    @property
    def output(self) -> str:
        """What the last build's RUNs have printed."""
        return b"".join(self.printed).decode()

    def build(self, *stages: Stage, **settings: Any) -> Built:
        """Build the last stage."""
        self.printed.clear()
        options: dict[str, Any] = {
            "image": take_image,
            "output": lambda _, data: self.printed.append(data),
            **self.settings,
            **settings,
        }
        spool = Path(tempfile.mkdtemp(dir=self.place))
        try:
            with Builder(Places(self.root), Settings(**options), spool, Silent()) as builder:
                return builder.build(recipe(*stages), Source(self.context, owned=False))
        finally:
            shutil.rmtree(spool)

    def tree(self, built: Built) -> Path:
        """The tree of what was built."""
        tree = Path(tempfile.mkdtemp(dir=self.trees))
        assemble(built, tree)
        return tree

    def run(self, *steps: Step, **settings: Any) -> Path:
        """Build one stage; its tree."""
        return self.tree(self.build(stage(*steps), **settings))

    def left(self) -> Sequence[str]:
        """What in the cache is not complete."""
        partial = [path for pattern in (".#*", "*/.#*", "mounts/*/.#*") for path in self.cache.glob(pattern)]
        return [path.name for path in (*partial, *(self.cache / "locks").iterdir())]


def bind_mount(target: str, **more: Any) -> Mount:
    return Mount("bind", target, **more)


def slow(number: int) -> Stage:
    """A stage with steps of a moment each; what it makes tells each of them."""
    steps = [
        run(f"echo {n} >/made-{n}; sleep 0.05; echo {n} >>/made-{n}; rm -f /lib/old/{n}", line=n)
        for n in range(1, number + 1)
    ]
    return stage(*steps)


def main(place: str, number: str, chroot: str = "") -> None:
    """Build the slow stage in a process of its own, which ends as the command does when a signal asks it to."""
    for number_of_signal in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number_of_signal, interrupt.on_signal)
    site = Site(Path(place))
    print("building", flush=True)
    try:
        built = site.build(
            slow(int(number)), chroot=bool(chroot), output=lambda *_: print("running", flush=True)
        )
        print("\n".join(path.parent.name for path in built.layers))
    except interrupt.Interrupted:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
