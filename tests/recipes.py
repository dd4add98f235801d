"""Stages made by hand: what a Dockerfile comes to, without reading one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.dockerfile.blocks import Brought
from converter.dockerfile.model import (
    Copy,
    ImageSource,
    Instruction,
    Recipe,
    Run,
    Setting,
    Stage,
    StageSource,
    State,
    Step,
    Workdir,
)
from converter.dockerfile.script import provision
from converter.image.model import ImageConfig, Platform

AMD64 = Platform("linux", "amd64")
BASE = ImageConfig(env=("PATH=/usr/local/bin:/usr/bin:/bin",))
SOURCE = ImageSource("base")
FROM = Instruction("FROM", ("base",), "FROM base", "Dockerfile", 1, 1)


class Writer:
    """Steps one after the other, each on a line of its own from line 2 on."""

    def __init__(self, state: State | None = None, file: str = "Dockerfile") -> None:
        self.state = state or State(env=(("PATH", "/usr/local/bin:/usr/bin:/bin"),))
        self.file = file
        self.steps: list[Step] = []

    def _next(self, text: str) -> tuple[int, Instruction]:
        number = len(self.steps) + 1
        keyword = text.split(maxsplit=1)[0]
        line = number + 1
        return number, Instruction(keyword, (), text, self.file, line, line + text.count("\n"))

    def run(self, *argv: str, text: str | None = None, **more: Any) -> Writer:
        """RUN; one word is for the shell."""
        words = (*self.state.shell, *argv) if len(argv) == 1 and "script" not in more else argv
        number, instruction = self._next(text or f"RUN {' '.join(argv)}")
        self.steps.append(Run(number, instruction, self.state, words, **more))
        return self

    def copy(self, *sources: str, to: str, text: str | None = None, **more: Any) -> Writer:
        """COPY, or with add=True ADD."""
        number, instruction = self._next(text or f"COPY {' '.join(sources)} {to}")
        self.steps.append(Copy(number, instruction, self.state, more.pop("add", False), sources, to, **more))
        return self

    def setting(self, text: str, **state: Any) -> Writer:
        """Anything that changes no more than the state."""
        self.state = replace(self.state, **state)
        number, instruction = self._next(text)
        self.steps.append(Setting(number, instruction, self.state))
        return self

    def env(self, **variables: str) -> Writer:
        """ENV."""
        return self.variables(variables)

    def variables(self, variables: dict[str, str]) -> Writer:
        """ENV of any names."""
        merged = {**dict(self.state.env), **variables}
        text = " ".join(f"{name}={value}" for name, value in variables.items())
        return self.setting(f"ENV {text}", env=tuple(merged.items()))

    def workdir(self, path: str) -> Writer:
        """WORKDIR."""
        self.state = replace(self.state, working_directory=path)
        number, instruction = self._next(f"WORKDIR {path}")
        self.steps.append(Workdir(number, instruction, self.state))
        return self

    def stage(
        self,
        *,
        name: str | None = None,
        index: int = 0,
        base: ImageSource | StageSource | None = SOURCE,
        base_config: ImageConfig = BASE,
    ) -> Stage:
        """All of it as one stage."""
        return Stage(index, name, FROM, base, base_config, tuple(self.steps), ImageConfig(), AMD64)


def recipe(*stages: Stage, file: str = "Dockerfile") -> Recipe:
    """The last of the stages is the target."""
    return Recipe(file, stages, stages[-1])


def write_script(
    writer: Writer, directory: Path, *others: Stage, copies: Mapping[int, Sequence[Brought]] | None = None
) -> Path:
    """provision.sh of what was written, after `others`."""
    stage = writer.stage(index=len(others))
    text = provision(stage, recipe(*others, stage, file=writer.file), copies=copies)
    path = directory / "provision.sh"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o755)
    return path
