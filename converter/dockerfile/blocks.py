"""One commented block of shell for each step of a stage: what provision.sh consists of after its functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from converter.dockerfile.finding import expressions, globs, is_wild
from converter.dockerfile.labels import file_name, source_label
from converter.dockerfile.model import (
    Copy,
    ImageSource,
    Mount,
    Recipe,
    Run,
    StageSource,
    State,
    Step,
    Workdir,
)
from converter.dockerfile.quoting import assignment, command, comment, data, one_line, printable, quote
from converter.machine.facts import DEFAULT_PATH

_SHELLS = re.compile(r"(?:/usr)?(?:/bin/)?(?:sh|bash|dash|ash|zsh|ksh)")
_WHERE_IT_WENT = {
    "CMD": "to the settings file: it is what the machine runs",
    "ENTRYPOINT": "to the settings file: it is what the machine runs",
    "EXPOSE": "to the settings file and its notes",
    "VOLUME": "to the settings file and its notes",
    "STOPSIGNAL": "to the settings file",
    "HEALTHCHECK": "to the timer that goes with the settings file",
    "LABEL": "to the machine's record: nspawn has no labels",
    "MAINTAINER": "to the machine's record: nspawn has no labels",
    "ONBUILD": "to the machine's record: it is for Dockerfiles that build upon this one",
    "SHELL": "into the RUNs that follow",
    "FROM": "to bootstrap.sh",
}


class Brought(NamedTuple):
    """What a COPY or ADD from the build context brings: `name` below files/N, a directory for what it holds.

    The name "" is files/N itself. `archive`: how tar(1) is told to unpack it ("-xzf"); "" for what is no archive.
    """

    name: str
    archive: str = ""


@dataclass
class Blocks:
    """The blocks of one stage as they are made, and the functions that they call.

    `copies` is what each COPY from the build context brings, in order. `runs`: there is a RUN to set ENV for.
    `from_none`: one needs the function env_none, of no variables but Docker's.
    """

    recipe: Recipe
    copies: Mapping[int, Sequence[Brought]]
    binds: Mapping[tuple[int, int], str]
    state: State
    runs: bool
    environment: str = "env_0"
    called: set[str] = field(default_factory=lambda: {"step", "fail"})
    network: bool = False
    from_none: bool = False

    def block(self, step: Step) -> str:
        """The comment and the commands of `step`."""
        lines = [_heading(step), *self._change(step)]
        if isinstance(step, Run):
            lines += self._guarded(step, self._run(step))
        elif isinstance(step, Copy):
            lines += self._guarded(step, self._copy(step))
        elif isinstance(step, Workdir):
            lines += self._guarded(step, self._workdir(step))
        elif len(lines) == 1 and (where := _WHERE_IT_WENT.get(step.instruction.keyword.upper())):
            lines.append(f"# went {where}")
        return "\n".join(lines)

    def _change(self, step: Step) -> list[str]:
        """What makes the state of the step before that of this one."""
        old, new = self.state, step.state
        lines = []
        before, after = _variables(old), _variables(new)
        if self.runs and before != after:
            lines.append(self._environment(f"env_{step.number}", before, after))
        if old.user != new.user:
            user, group = account(new.user)
            lines.append(f"user={data(user)} group={data(group)}")
        if old.working_directory != new.working_directory:
            lines.append(f"dir={data(new.working_directory)}")
        self.state = new
        return lines

    def _environment(self, name: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
        base = self.environment
        if before.keys() - after.keys():  # a name went away: from the beginning
            base, before = "env_none", {}
            self.from_none = True
        words = [assignment(key, value) for key, value in after.items() if before.get(key) != value]
        self.environment = name
        return environment_function(name, base, words)

    def _guarded(self, step: Step, lines: Sequence[str]) -> list[str]:
        text = quote(one_line(step.instruction.text))
        place = quote(printable(f"{step.instruction.file}:{step.instruction.line}"))
        return [f"if step {step.number} {place} {text}; then", *(f"    {line}" for line in lines), "fi"]

    def _workdir(self, step: Workdir) -> list[str]:
        self.called |= {"directory"}
        before, owner = self._owner(step.state.user)
        return [*before, f'directory "$dir" {owner}']

    def _owner(self, text: str | None) -> tuple[list[str], str]:
        """Commands before, and the word for the owner that --chown (or USER) means."""
        user, group = owner(text or "")
        numbers = [part for part in (user, group) if part]
        if all(map(str.isdigit, numbers)):
            uid = user or "0"
            return [], data(f"{uid}:{group or uid}")
        self.called |= {"own"}
        return [f"own {data(user)} {data(group)}"], '"$owner"'

    def _copy(self, step: Copy) -> list[str]:
        before: list[str] = []
        owner = "'0:0'" if step.origin is None else "''"
        if step.chown is not None:
            before, owner = self._owner(step.chown)
        options = f"{owner} {data(step.chmod or '')} {data(step.destination)}"
        if step.origin is None:
            lines = before
            for archive, brought in groupby(
                self.copies.get(step.number, (Brought(""),)), lambda brought: brought.archive
            ):
                places = [
                    f'"$files"/{quote("/".join(filter(None, (str(step.number), one.name))))}'
                    for one in brought
                ]
                if archive:
                    self.called.add("unpack")
                    lines += [f"unpack {data(step.destination)} {archive} {place}" for place in places]
                else:
                    self.called.add("copy")
                    lines.append(" ".join(["copy", options, *places]))
            return lines or [":"]
        root = self._root(step.origin)
        return before + [
            line for source in step.sources for line in self._copy_from(step, root, options, source)
        ]

    def _copy_from(self, step: Copy, root: str, options: str, source: str) -> list[str]:
        """What one source in another tree brings."""
        path = "/" + source.lstrip("/")
        pivot, wanted = "/", path
        if step.parents and "/./" in path:
            pivot, _, wanted = path.partition("/./")
        try:
            but = " ".join(map(quote, expressions(step.exclude)))
            literal, patterns = globs(path) if is_wild(path) and not step.parents else (path, [])
        except ValueError as error:
            raise step.instruction.error(
                f"a script cannot look for {str(error)[:40]!r}", "build it with docker2nspawn convert instead"
            ) from None
        if step.parents:
            self.called |= {"look_in", "take_only", "put", "copy"}
            lines = [f"look_in {root} {data(pivot)}"]
            for expression in expressions([wanted]):
                lines.append(f"take_only {quote(expression)}")
                if but:
                    self.called.add("leave_out")
                    lines.append(f"leave_out {but}")
                lines += [f'copy {options} "$new"', 'rm -rf "$new"']
            return lines
        if not is_wild(path):
            self.called.add("copy_but" if but else "copy_from")
            return [
                f"copy_but {root} {options} {data(path)} {but}"
                if but
                else f"copy_from {root} {options} {data(path)}"
            ]
        self.called |= {"look_in", "copy_but", "is_there"} if but else {"look_in", "copy_matches"}
        found = " ".join(f'"$at"/{pattern}' for pattern in patterns)
        lines = [f"look_in {root} {data(literal)}"]
        if not but:
            return [*lines, f"copy_matches {root} {options} {found}"]
        lines += [f"for match in {found}; do", '    is_there "$match" || continue']
        return [*lines, f'    copy_but {root} {options} "${{match#{root}}}" {but}', "done"]

    def _root(self, origin: StageSource | ImageSource) -> str:
        return f'"$stages"/{quote(source_label(origin, self.recipe) + "/root")}'

    def _run(self, step: Run) -> list[str]:
        self.called |= {"run", "become"}
        lines: list[str] = []
        around: list[str] = []
        environment = self.environment
        extra: list[str] = []
        for number, mount in enumerate(step.mounts, 1):
            prepare, words, variables = self._mount(step, number, mount)
            lines += prepare
            extra += variables
            if words:
                around.append(" ".join(words))
        if extra:
            environment = f"env_{step.number}_{len(step.mounts)}"
            lines.append(f'{environment}() {{ {" ".join([self.environment, *extra])} "$@"; }}')
        if step.script is not None:
            self.called |= {"with_script"}
            script = step.script.decode("utf-8", "surrogateescape")
            around.append(f"with_script {data(step.argv[0])} {quote(script)}")
        words = [quote(word) for word in step.argv]
        if len(step.argv) > 2 and _SHELLS.fullmatch(step.argv[0]) and step.argv[1].startswith("-"):
            words[-1] = command(step.argv[-1])
        text = f"run {environment} {' '.join(words)}"
        lines.append(" \\\n    ".join([*around, text]))
        if step.insecure:
            lines.insert(0, "# --security=insecure: give nspawn --capability=all, chroot has them")
        if step.network == "none":
            self.network = True
            lines = ["network=none", *lines, "network=''"]
        return lines

    def _mount(self, step: Run, number: int, mount: Mount) -> tuple[list[str], list[str], list[str]]:
        """Commands before the RUN, the words that go around it, and words for its environment."""
        owner = data(f"{mount.uid or 0}:{mount.gid or 0}")
        need = "required" if mount.required else "optional"
        target = data(mount.target or "")
        match mount.kind:
            case "bind":
                self.called |= {"with_bind"}
                if mount.origin is not None:
                    root, path = self._root(mount.origin), data("/" + mount.source.lstrip("/"))
                else:
                    place = self.binds.get((step.number, number), f"{step.number}.{number}")
                    root, path = f'"$files"/{quote(place)}', "''"
                return [], ["with_bind", root, path, target, "ro" if mount.read_only else "rw"], []
            case "cache":
                self.called |= {"with_cache"}
                name = data(file_name(mount.id or mount.target or ""))
                mode = data(f"{mount.mode if mount.mode is not None else 0o755:o}")
                prepare = []
                if mount.origin is not None:
                    self.called |= {"fill_cache"}
                    prepare = [
                        f"fill_cache {name} {self._root(mount.origin)} {data('/' + mount.source.lstrip('/'))}"
                    ]
                return (
                    prepare,
                    ["with_cache", name, target, owner, mode, "ro" if mount.read_only else "rw"],
                    [],
                )
            case "tmpfs":
                self.called |= {"with_tmpfs"}
                return (
                    [],
                    ["with_tmpfs", target, data(f"size={mount.size}" if mount.size else "mode=1777")],
                    [],
                )
            case "secret":
                name = data(file_name(mount.id))
                variables = []
                prepare = []
                words: list[str] = []
                if mount.env is not None:
                    self.called |= {"secret"}
                    variable = f"secret_{number}"
                    prepare = [f"secret {name} {need}", f"{variable}=${{secret-}}"]
                    variables = [f'${{secret_{number}:+{quote(mount.env + "=")}"${variable}"}}']
                if mount.target:
                    self.called |= {"with_secret"}
                    mode = data(f"{mount.mode if mount.mode is not None else 0o400:o}")
                    words = ["with_secret", name, target, owner, mode, need]
                return prepare, words, variables
            case "ssh":
                self.called |= {"with_ssh"}
                place = mount.target or f"/run/buildkit/ssh_agent.{number - 1}"
                variables = [f"${{SSH_AUTH_SOCK:+{assignment('SSH_AUTH_SOCK', place)}}}"]
                return [], ["with_ssh", data(place), need], variables
        raise AssertionError(mount.kind)


def environment_function(name: str, base: str, words: Sequence[str]) -> str:
    """A function that runs its arguments in the environment of `base` and those assignments."""
    line = " ".join([base, *words, '"$@"'])
    if len(line) <= 90 and "\n" not in line:
        return f"{name}() {{ {line}; }}"
    return "\n".join([f"{name}() {{", " \\\n        ".join([f"    {base}", *words, '"$@"']), "}"])


def initial_environment(name: str, state: State) -> str:
    """The function for the variables of `state`, after those that Docker always sets; it calls `become`."""
    variables = {"PATH": DEFAULT_PATH, **_variables(state)}
    words = [assignment(variable, value) for variable, value in variables.items()]
    return environment_function(name, 'become env -i -- HOME="$home"', words)


def account(user: str) -> tuple[str, str]:
    """USER's two parts, numbers as numbers; `root` is one where the other is one too, as in BuildKit."""
    name, group = owner(user)
    if name.isdigit() and group.isdigit():
        return name, group
    written, _, written_group = user.partition(":")
    return (written if written == "root" else name, written_group if written_group == "root" else group)


def owner(chown: str) -> tuple[str, str]:
    """The two parts of --chown, numbers as numbers; `root` is one."""
    name, _, group = chown.partition(":")
    return _number(name), _number(group)


def _number(text: str) -> str:
    if text == "root":
        return "0"
    return str(int(text)) if re.fullmatch(r"\+?[0-9]{1,18}", text) else text


def _variables(state: State) -> dict[str, str]:
    """All that a RUN's environment has, ENV over ARG; an empty HOME counts as none, as for runc."""
    variables = {**dict(state.args), **dict(state.env)}
    if not variables.get("HOME", "x"):
        del variables["HOME"]
    return variables


def _heading(step: Step) -> str:
    instruction = step.instruction
    lines = str(instruction.line)
    if instruction.end_line > instruction.line:
        lines += f"-{instruction.end_line}"
    return f"# Step {step.number}, {one_line(instruction.file)}:{lines}\n{comment(instruction.text.rstrip())}"
