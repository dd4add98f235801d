"""RUN: what its layer is known by, and running it."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

from converter.cache.store import Layer, Making, key_of
from converter.dockerfile.copying import fingerprint, put, select
from converter.dockerfile.making import Layers, Surroundings, located, make_layer, top
from converter.dockerfile.model import Copy, DockerfileError, Mount, Run, Stage
from converter.dockerfile.overlay import shown
from converter.dockerfile.run_mounts import Given, Prepared, prepared
from converter.dockerfile.running import Program, run
from converter.inside import read
from converter.machine.account import resolve_account
from converter.machine.facts import DEFAULT_PATH
from converter.machine.model import Account

_SHOWN = 1 << 14  # bytes of a failed RUN's output that are shown at the end
_PASSWD_MAX = 10 << 20  # bytes BuildKit reads of such files
# Build arguments that are known without ARG: they change nothing that is kept.
_PROXIES = frozenset(
    f(name)
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for f in (str, str.upper)
)


def build_run(step: Run, stage: Stage, below: Layers, common: Surroundings) -> Layer:
    if step.insecure and "security.insecure" not in common.allow:
        raise step.instruction.error(
            "--security=insecure is not allowed", "allow it with --allow security.insecure"
        )

    def make(tree: Path, making: Making) -> None:
        _execute(step, stage, tree, making, common)

    return make_layer(step, stage, _run_key(step, stage, below, common), below, common, make)


def _run_key(step: Run, stage: Stage, below: Layers, common: Surroundings) -> str:
    state = step.state
    mounts = []
    for number, mount in enumerate(step.mounts):
        described = asdict(mount)
        described["origin"] = None
        if mount.kind == "bind":
            described["of"] = _mounted_key(step, stage, number, mount, common)
        mounts.append(described)
    return key_of(
        "run",
        top(below),
        step.argv,
        (step.script or b"").decode("latin-1"),
        sorted(state.env),
        sorted(arg for arg in state.args if arg[0] not in _PROXIES),
        state.user,
        state.working_directory,
        mounts,
        step.network,
        step.insecure,
        str(stage.platform),
    )


def _mounted_key(step: Run, stage: Stage, number: int, mount: Mount, common: Surroundings) -> str:
    """What tells a bind mount's content from others."""
    if mount.origin is not None:
        return top(common.layers_of(mount.origin))
    spool = common.spool / f"mount-{stage.index}-{step.number}-{number}"
    return fingerprint(select(_as_copy(step, mount), common.context, spool))


def _as_copy(step: Run, mount: Mount) -> Copy:
    """A COPY that brings what a mount of the build context shows, to its own path."""
    return Copy(
        step.number,
        step.instruction,
        step.state,
        add=False,
        sources=(mount.source.strip("/") or ".",),
        destination="/",
        parents=mount.source.strip("/") != "",
    )


def _execute(step: Run, stage: Stage, tree: Path, making: Making, common: Surroundings) -> None:
    def mounted_tree(mount: Mount, scratch: Path, writable: bool, stack: contextlib.ExitStack) -> Path:
        if mount.origin is not None:
            layers = common.layers_of(mount.origin)
            return stack.enter_context(
                shown(common.cache, layers, scratch, writable=writable, overlay=common.overlay)
            )
        scratch.mkdir(mode=0o755)
        spool = common.spool / f"mount-{stage.index}-{step.number}-{scratch.parent.name}"
        copied = _as_copy(step, mount)
        put(select(copied, common.context, spool), copied, scratch, None)
        return scratch

    given = Given(
        common.secrets,
        common.agents,
        mounted_tree,
        lambda mount: top(common.layers_of(mount.origin)) if mount.origin is not None else "",
        common.stopped,
    )
    with located(step), prepared(step, common.cache, making.work / "mounts", given) as ready:
        program = _program(step, tree, ready)
        printed = bytearray()

        def keep(data: bytes) -> None:
            printed.extend(data)
            del printed[: -_SHOWN - 1]
            if common.output is not None:
                common.output(stage.label, data)

        status = run(
            program,
            tree,
            making.work / "run",
            ready.binds,
            running=common.running,
            chroot=common.chroot,
            output=keep,
        )
        common.stopped()
        if status != 0:
            if common.output is None:
                _show_end(bytes(printed))
            if common.debug_shell:
                _debug_shell(program, step, tree, making, ready, common)
            raise _failure(step, status)


def _program(step: Run, tree: Path, ready: Prepared) -> Program:
    state = step.state
    account = _account(state.user, tree)
    environment = {"PATH": DEFAULT_PATH, **dict(state.env), **dict(state.args)}
    for assignment in ready.environment:
        name, _, value = assignment.partition("=")
        if name != "SSH_AUTH_SOCK" or name not in environment:
            environment[name] = value
    if not environment.get("HOME"):
        environment["HOME"] = account.home
    return Program(
        argv=step.argv,
        environment=tuple(f"{name}={value}" for name, value in environment.items()),
        account=account,
        working_directory=state.working_directory,
        network=step.network != "none",
        insecure=step.insecure,
    )


def _account(user: str, tree: Path) -> Account:
    """Who runs it (BuildKit: executor/oci/user.go GetUser): two numbers need no look into the tree, "root" is one."""
    parts = ["0" if part == "root" else part for part in user.split(":", 1)]
    wanted = ":".join(parts) if len(parts) == 2 else user
    passwd = read(tree, "etc/passwd", _PASSWD_MAX)
    group = read(tree, "etc/group", _PASSWD_MAX)
    return resolve_account(wanted, passwd, group)


def _failure(step: Run, status: int) -> DockerfileError:
    reason = {126: ": the program cannot be executed", 127: ": there is no such program"}.get(status, "")
    if status > 128:
        reason = f": killed by signal {status - 128}"
    return step.instruction.error(f"RUN has failed with exit status {status}{reason}", "see its output above")


def _show_end(printed: bytes) -> None:
    """The end of what a program has printed, on stderr."""
    if len(printed) > _SHOWN:
        printed = b"[...]\n" + printed.partition(b"\n")[2]
    if printed and not printed.endswith(b"\n"):
        printed += b"\n"
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        os.write(2, printed)


def _debug_shell(
    program: Program, step: Run, tree: Path, making: Making, ready: Prepared, common: Surroundings
) -> None:
    """A shell in the state that the failed step has left, until it is ended."""
    shell = step.state.shell[0] if step.state.shell else "/bin/sh"
    print(f"{step.instruction.file}:{step.instruction.line}: a shell at the failed step", file=sys.stderr)
    run(
        replace(program, argv=(shell,), environment=(*program.environment, "TERM=xterm")),
        tree,
        making.work / "debug",
        ready.binds,
        running=common.running,
        chroot=common.chroot,
        output=None,
    )
