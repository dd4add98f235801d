"""Steps and stages made by hand, for tests of what becomes of them."""

from __future__ import annotations

from dataclasses import replace

from converter.dockerfile.bases import find_base
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
from converter.image.model import ImageConfig, Platform

AMD64 = Platform("linux", "amd64")
_PATH = ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
STATE = State(env=(_PATH,))


def instruction(text: str) -> Instruction:
    """An instruction of which only the text counts."""
    keyword, *words = text.split(" ", 1)
    return Instruction(keyword.lower(), tuple(words), text, "Dockerfile", 1, 1)


def run(line: str, state: State = STATE) -> Run:
    """RUN in shell form."""
    return Run(0, instruction(f"RUN {line}"), state, (*state.shell, line))


def copy(source: str, destination: str, state: State = STATE, *, chown: str | None = None) -> Copy:
    """COPY from the build context."""
    return Copy(
        0, instruction(f"COPY {source} {destination}"), state, False, (source,), destination, chown=chown
    )


def workdir(path: str, state: State = STATE) -> Workdir:
    """WORKDIR."""
    return Workdir(0, instruction(f"WORKDIR {path}"), replace(state, working_directory=path))


def setting(text: str, state: State = STATE) -> Setting:
    """ENV, ARG, LABEL and the like; `state` is what it leads to."""
    return Setting(0, instruction(text), state)


def stage(base: str | StageSource | None, *steps: Step, name: str | None = None, index: int = 0) -> Stage:
    """A stage; its steps are numbered here."""
    source = ImageSource(base, AMD64) if isinstance(base, str) else base
    found = find_base(source) if isinstance(source, ImageSource) else None
    numbered = tuple(replace(step, number=number) for number, step in enumerate(steps, 1))
    config = found.config if found else ImageConfig()
    text = f"FROM {base if isinstance(base, str) else 'stage'}"
    return Stage(index, name, instruction(text), source, config, numbered, config, AMD64)


def recipe(target: Stage, *others: Stage) -> Recipe:
    """A recipe of that target."""
    return Recipe("Dockerfile", (*others, target), target)
