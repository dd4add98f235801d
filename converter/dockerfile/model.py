"""A Dockerfile as a program: what stands in it (Instruction), and what that comes to (Recipe).

The words are those of the Dockerfile reference (https://docs.docker.com/reference/dockerfile/).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from converter.errors import ConversionError
from converter.image.model import ImageConfig, Platform


class DockerfileError(ConversionError):
    """Something is wrong at one place of a Dockerfile: `FILE:LINE:COLUMN: what; hint`, as compilers write it."""

    def __init__(self, file: str, line: int, column: int, text: str, hint: str = "") -> None:
        super().__init__(f"{file}:{line}:{column}: {text}" + (f"; {hint}" if hint else ""))
        self.line = line
        self.column = column


@dataclass(frozen=True)
class Heredoc:
    """A here-document. `content` is as it stands in the file.

    `expands`: its word is not quoted. `strips_tabs`: it was begun with `<<-`.
    """

    name: str
    content: str
    expands: bool
    strips_tabs: bool
    descriptor: int = 0


@dataclass(frozen=True)
class Flag:
    """`--name=value` of an instruction, unexpanded; value None for a bare `--name`. `column` counts from 1."""

    name: str
    value: str | None
    line: int
    column: int


@dataclass(frozen=True)
class Instruction:
    """One instruction as it stands in the file `file`, nothing expanded.

    `words` are BuildKit's: ENV, LABEL and ARG alternate as its parser has them. `text` is the instruction as it
    stands, with continued lines and here-documents. Lines and columns count from 1. `trigger` is ONBUILD's.
    """

    keyword: str
    words: tuple[str, ...]
    text: str
    file: str
    line: int
    end_line: int
    flags: tuple[Flag, ...] = ()
    is_json: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    column: int = 1
    trigger: Instruction | None = None

    def error(self, text: str, hint: str = "", *, column: int | None = None) -> DockerfileError:
        """The error that something is wrong with this instruction."""
        return DockerfileError(self.file, self.line, column or self.column, text, hint)


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile, read. `syntax` is the directive's value; it selects nothing here."""

    file: str
    instructions: tuple[Instruction, ...]
    escape: str = "\\"
    syntax: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """What a RUN sees: ENV and ARG as (name, value), names once; ARG without those that ENV hides.

    `env` includes what the base image has. `working_directory` is absolute; `user` is "" for root.
    """

    env: tuple[tuple[str, str], ...] = ()
    args: tuple[tuple[str, str], ...] = ()
    user: str = ""
    working_directory: str = "/"
    shell: tuple[str, ...] = ("/bin/sh", "-c")


@dataclass(frozen=True)
class StageSource:
    """Another stage of the same Dockerfile, by its index."""

    index: int


@dataclass(frozen=True)
class ImageSource:
    """An image, by its name as it is written once expanded."""

    name: str
    platform: Platform | None = None


@dataclass(frozen=True)
class Mount:
    """RUN --mount. `source` None is the build context (bind), or an empty directory (cache).

    `mode` is octal permission bits. `size` is in bytes. `env`: the variable that gets a secret.
    """

    kind: Literal["bind", "cache", "tmpfs", "secret", "ssh"]
    target: str | None
    origin: StageSource | ImageSource | None = None
    source: str = "/"
    read_only: bool = False
    id: str = ""
    sharing: Literal["shared", "private", "locked"] = "shared"
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    env: str | None = None


@dataclass(frozen=True)
class Run:
    """RUN. `argv` is all of it, the shell included. `script`: it runs `argv[0]`, a file to be put there, mode 0755.

    A script's place is below /dev/pipes, as BuildKit has it, and it is gone afterwards.
    """

    number: int
    instruction: Instruction
    state: State
    argv: tuple[str, ...]
    script: bytes | None = None
    mounts: tuple[Mount, ...] = ()
    network: Literal["default", "none", "host"] = "default"
    insecure: bool = False


@dataclass(frozen=True)
class InlineFile:
    """A here-document of COPY or ADD, tabs stripped and variables expanded where that is wanted."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Copy:
    """COPY or ADD (`add`). `sources` are patterns, expanded; for ADD also URLs and git repositories.

    `origin` None is the build context. `destination` is absolute and ends in "/" (or "/.") where it was written so.
    `chown` and `chmod` are as written, expanded. `keep_git_dir` and `unpack` are ADD's.
    """

    number: int
    instruction: Instruction
    state: State
    add: bool
    sources: tuple[str, ...]
    destination: str
    inline: tuple[InlineFile, ...] = ()
    origin: StageSource | ImageSource | None = None
    chown: str | None = None
    chmod: str | None = None
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str | None = None
    keep_git_dir: bool = False
    unpack: bool | None = None


@dataclass(frozen=True)
class Workdir:
    """WORKDIR: the directory state.working_directory is made where it is missing, owned by state.user."""

    number: int
    instruction: Instruction
    state: State


@dataclass(frozen=True)
class Setting:
    """An instruction that changes only the config or the state; `state` is the one from here on."""

    number: int
    instruction: Instruction
    state: State


Step = Run | Copy | Workdir | Setting
"""Numbers count from 1 in each stage, in the order of the file; ONBUILD triggers of the base come first."""


@dataclass(frozen=True)
class Stage:
    """FROM and what follows. `base` None is scratch. `config` is that of the image that the stage makes."""

    index: int
    name: str | None
    instruction: Instruction
    base: ImageSource | StageSource | None
    base_config: ImageConfig
    steps: tuple[Step, ...]
    config: ImageConfig
    platform: Platform

    @property
    def label(self) -> str:
        """How people call it: its name, else its number."""
        return self.name or str(self.index)

    def needs(self) -> frozenset[int]:
        """The indexes of the stages that this one takes something from."""
        return frozenset(source.index for source in self.sources() if isinstance(source, StageSource))

    def sources(self) -> Iterator[StageSource | ImageSource]:
        """All that this stage takes something from, the base first."""
        if self.base is not None:
            yield self.base
        for step in self.steps:
            if isinstance(step, Copy) and step.origin is not None:
                yield step.origin
            if isinstance(step, Run):
                yield from (mount.origin for mount in step.mounts if mount.origin is not None)


@dataclass(frozen=True)
class Recipe:
    """What is to be built: the stages that `target` needs, every stage after those that it takes from."""

    file: str
    stages: tuple[Stage, ...]
    target: Stage
    warnings: tuple[str, ...] = ()
