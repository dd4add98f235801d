"""A stage while it is being evaluated: what the instructions so far have made of its config and its state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from converter.dockerfile.expand import Expander, ExpansionError
from converter.dockerfile.model import (
    DockerfileError,
    Flag,
    ImageSource,
    Instruction,
    StageSource,
    State,
    Step,
)
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.variables import MOST_NAMES, Variables
from converter.image.model import ImageConfig, Platform

DEFAULT_SHELL = ("/bin/sh", "-c")
Find = Callable[[Instruction, Flag | None, str], StageSource | ImageSource]


@dataclass
class Draft:
    """One stage. `find` resolves the name of a stage or image; `global_arguments` are those above the first FROM."""

    index: int
    name: str | None
    instruction: Instruction
    base: ImageSource | StageSource | None
    base_config: ImageConfig
    platform: Platform
    config: ImageConfig
    variables: Variables
    expander: Expander
    options: BuildOptions
    global_arguments: dict[str, str | None]
    find: Find
    warn: Callable[[str], None]
    cmd_set: bool = False
    steps: list[Step] = field(default_factory=list)
    _places: dict[str, int] | None = None
    _state: State | None = None

    @property
    def number(self) -> int:
        """The number of the step that is being made."""
        return len(self.steps) + 1

    @property
    def shell(self) -> tuple[str, ...]:
        """What the shell forms are run by."""
        return self.config.shell or DEFAULT_SHELL

    def state(self) -> State:
        """What a RUN would see here."""
        if self._state is None:
            if len(self.variables.values) > MOST_NAMES:
                raise self.instruction.error(
                    f"this stage has more than {MOST_NAMES} variables", "remove some of ENV and ARG"
                )
            self._state = State(
                env=tuple(self.variables.env.values()),
                args=tuple(self.variables.args.values()),
                user=self.config.user,
                working_directory=clean(self.config.working_dir),
                shell=self.shell,
            )
        return self._state

    def change(self, **fields: Any) -> None:
        """Change fields of the config."""
        self.config = replace(self.config, **fields)
        self._state = None

    def set_env(self, pairs: Iterable[tuple[str, str]]) -> None:
        """ENV: a name keeps the place that it has in the config."""
        env = list(self.config.env)
        if self._places is None:
            self._places = {}
            for at, entry in enumerate(env):
                self._places.setdefault(entry.partition("=")[0], at)
        for name, value in pairs:
            at = self._places.setdefault(name, len(env))
            env[at : at + 1] = [f"{name}={value}"]
            self.variables.set_env(name, value)
        self.change(env=tuple(env))

    def touch(self) -> None:
        """The variables have changed."""
        self._state = None

    def expand(self, instruction: Instruction, text: str) -> str:
        """One word with its variables. Raises DockerfileError at the place of the word."""
        try:
            return self.expander.word(text, self.variables.values)
        except ExpansionError as error:
            raise expansion_error(instruction, text, error) from None

    def expand_words(self, instruction: Instruction, text: str) -> list[str]:
        """The words that a text comes to."""
        try:
            return self.expander.words(text, self.variables.values)
        except ExpansionError as error:
            raise expansion_error(instruction, text, error) from None

    def expand_heredoc(self, instruction: Instruction, text: str) -> str:
        """A here-document's content with its variables."""
        try:
            return self.expander.heredoc(text, self.variables.values)
        except ExpansionError as error:
            raise expansion_error(instruction, text, error) from None


def expansion_error(instruction: Instruction, word: str, error: ExpansionError) -> DockerfileError:
    """The error of an expansion, at the place of its word where that can be told."""
    line, column = instruction.line, instruction.column
    at = instruction.text.find(word.split("\n")[0])
    if at > 0:
        line += instruction.text.count("\n", 0, at)
        before = instruction.text.rfind("\n", 0, at)
        column = at - before if before >= 0 else column + at
    hint = "write \\$ for a dollar sign" if "unsupported modifier" in str(error) else ""
    if error.missing:
        hint = f"set it by --build-arg {error.missing}=VALUE where it is an ARG, or by ARG or ENV above"
    return DockerfileError(instruction.file, line, column, str(error), hint)


def clean(path: str, directory: str = "/") -> str:
    """`path` from `directory`, absolute, without `.`, `..` and double slashes (Go's path.Join)."""
    parts: list[str] = []
    for part in (path if path.startswith("/") else f"{directory}/{path}").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
