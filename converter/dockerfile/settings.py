"""The instructions that change only the image's config and what follows: ENV, ARG, LABEL, CMD, USER and so on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from converter.dockerfile.check import volume_error
from converter.dockerfile.draft import Draft, clean
from converter.dockerfile.health import parse_healthcheck
from converter.dockerfile.model import Instruction, Setting, Step, Workdir
from converter.dockerfile.values import is_signal, parse_ports
from converter.dockerfile.variables import names_in


def apply_setting(draft: Draft, instruction: Instruction) -> Step:
    """Change the draft as the instruction says. Raises DockerfileError."""
    _SETTINGS[instruction.keyword](draft, instruction)
    kind = Workdir if instruction.keyword == "WORKDIR" else Setting
    return kind(draft.number, instruction, draft.state())


def _pairs(draft: Draft, instruction: Instruction) -> list[tuple[str, str]]:
    """NAME=value as they are before this instruction changes anything: `ENV A=1 B=$A` is not yet 1."""
    words = [draft.expand(instruction, word) for word in instruction.words]
    return list(zip(words[::2], words[1::2], strict=True))


def _env(draft: Draft, instruction: Instruction) -> None:
    draft.set_env(_pairs(draft, instruction))


def _argument(draft: Draft, instruction: Instruction) -> None:
    given = draft.options.build_args
    found: list[tuple[str, str | None]] = []
    for word in instruction.words:
        name, equals, default = word.partition("=")
        name = draft.expand(instruction, name)
        if name in given:
            value: str | None = given[name]
        elif equals:
            value = draft.expand(instruction, default)
        else:
            value = draft.global_arguments.get(name)
        found.append((name, value))
    for name, value in found:
        draft.variables.set_argument(name, value)
    draft.touch()


def _label(draft: Draft, instruction: Instruction) -> None:
    draft.change(labels={**draft.config.labels, **dict(_pairs(draft, instruction))})


def _maintainer(draft: Draft, instruction: Instruction) -> None:
    draft.change(author=instruction.words[0])


def _user(draft: Draft, instruction: Instruction) -> None:
    draft.change(user=draft.expand(instruction, instruction.words[0]))


def _workdir(draft: Draft, instruction: Instruction) -> None:
    path = draft.expand(instruction, instruction.words[0])
    current = draft.config.working_dir or "/"
    if not path:
        path = current
    # The config keeps an absolute path as it was written.
    draft.change(working_dir=path if path.startswith("/") else clean(path, current))


def _command(draft: Draft, instruction: Instruction) -> tuple[str, ...]:
    if instruction.is_json:
        return instruction.words
    return (*draft.shell, " ".join(instruction.words))


def _cmd(draft: Draft, instruction: Instruction) -> None:
    draft.change(cmd=_command(draft, instruction), args_escaped=True)
    draft.cmd_set = True


def _entrypoint(draft: Draft, instruction: Instruction) -> None:
    draft.change(entrypoint=_command(draft, instruction))
    if not draft.cmd_set:  # the base image's CMD was meant for the base image's ENTRYPOINT
        draft.change(cmd=())


def _healthcheck(draft: Draft, instruction: Instruction) -> None:
    draft.change(healthcheck=parse_healthcheck(instruction))


def _expose(draft: Draft, instruction: Instruction) -> None:
    ports = set(draft.config.exposed_ports)
    for word in instruction.words:
        for port in draft.expand_words(instruction, word):
            try:
                ports.update(parse_ports(port))
            except ValueError as error:
                raise instruction.error(str(error), _port_hint(draft, word)) from None
    draft.change(exposed_ports=tuple(sorted(ports)))


def _port_hint(draft: Draft, word: str) -> str:
    for name in names_in(word):
        if name not in draft.variables.values:
            return f"{name} is not set; declare it above with ARG or ENV"
    return "write it like 80, 53/udp or 8000-8010/tcp"


def _volume(draft: Draft, instruction: Instruction) -> None:
    volumes = [draft.expand(instruction, word.strip()) for word in instruction.words]
    if "" in volumes:
        raise volume_error(instruction)
    draft.change(volumes=tuple(sorted({*draft.config.volumes, *volumes})))


def _stop_signal(draft: Draft, instruction: Instruction) -> None:
    signal = draft.expand(instruction, instruction.words[0])
    if not is_signal(signal):
        raise instruction.error(f"invalid signal: {signal}", "write it like SIGTERM or 15")
    draft.change(stop_signal=signal)


def _shell(draft: Draft, instruction: Instruction) -> None:
    draft.change(shell=instruction.words)


def _onbuild(draft: Draft, instruction: Instruction) -> None:
    if instruction.trigger:
        draft.change(on_build=(*draft.config.on_build, instruction.trigger.text))


_SETTINGS: Mapping[str, Callable[[Draft, Instruction], None]] = {
    "ARG": _argument,
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
