"""One step of a stage: its layer, from the cache or made now."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from converter.dockerfile.cache import Cache, Layer, Making, key_of
from converter.dockerfile.context import Source
from converter.dockerfile.copying import fingerprint, put, select
from converter.dockerfile.model import (
    Copy,
    DockerfileError,
    ImageSource,
    Mount,
    Run,
    Stage,
    StageSource,
    Step,
    Workdir,
)
from converter.dockerfile.namespace import bind, unmount
from converter.dockerfile.overlay import copy, mount_layers, shortened, shown, trees_of
from converter.dockerfile.owners import resolve_owner
from converter.dockerfile.points import make_directories
from converter.dockerfile.run_mounts import Given, Prepared, prepared
from converter.dockerfile.running import Program, Running, run
from converter.errors import ConversionError
from converter.inside import read
from converter.machine.account import resolve_account
from converter.machine.facts import DEFAULT_PATH
from converter.machine.model import Account
from converter.note import Note
from converter.progress import Progress

_SHOWN = 1 << 14  # bytes of a failed RUN's output that are shown at the end
_PASSWD_MAX = 10 << 20  # bytes BuildKit reads of such files
# Build arguments that are known without ARG: they change nothing that is kept.
_PROXIES = frozenset(
    f(name)
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for f in (str, str.upper)
)

Layers = tuple[Layer, ...]


@dataclass(frozen=True)
class Surroundings:
    """What all steps of a build have in common; see build.Settings."""

    cache: Cache
    context: Source
    spool: Path
    running: Running
    stopped: Callable[[], None]
    progress: Progress
    chroot: bool
    use_cache: bool
    secrets: Mapping[str, bytes]
    agents: Mapping[str, Path]
    allow: frozenset[str]
    output: Callable[[str, bytes], None] | None
    debug_shell: bool
    overlay: bool
    images: Mapping[ImageSource, Layer]
    stages: Mapping[int, Layers]
    notes: list[Note]

    def with_stages(self, stages: Mapping[int, Layers], *, overlay: bool) -> Surroundings:
        """The same for a stage that takes something from those."""
        return replace(self, stages=stages, overlay=overlay)

    def layers_of(self, origin: StageSource | ImageSource) -> Layers:
        """Of another stage or image."""
        return self.stages[origin.index] if isinstance(origin, StageSource) else (self.images[origin],)


def build_step(step: Step, stage: Stage, below: Layers, common: Surroundings) -> Layers:
    """The layers after `step`. Raises DockerfileError when it fails, and whatever `stopped` raises."""
    below = shortened(common.cache, below, common.stopped)
    if isinstance(step, Run):
        return (*below, _run(step, stage, below, common))
    if isinstance(step, Copy):
        return (*below, _copy(step, stage, below, common))
    if isinstance(step, Workdir):
        return (*below, _workdir(step, stage, below, common))
    return below


def top(layers: Layers) -> str:
    """The key of what `layers` come to."""
    return layers[-1].key if layers else key_of("scratch")


def _layer(
    step: Step,
    stage: Stage,
    key: str,
    below: Layers,
    common: Surroundings,
    make: Callable[[Path, Making], None],
    *,
    apart: bool = False,
) -> Layer:
    """The layer of that key: the cache's, or what `make` changes in the tree that it is given.

    `apart`: in an empty tree, not in that of the layers below.
    """
    if common.use_cache:
        if (found := common.cache.named(key) or common.cache.find(key)) is not None:
            return found
        made_as = key
    else:
        made_as = key_of("anew", key, os.urandom(16).hex())
    label = f"[{stage.label}] {step.instruction.text.partition(chr(10))[0]}"
    with (
        common.progress.step(label[:100], None, "seconds"),
        common.cache.making(made_as, common.stopped) as making,
    ):
        if making is None:
            made = common.cache.find(made_as)
            assert made is not None  # layers are not removed while a build holds the cache
            return made
        whole = not common.overlay and not apart
        with _tree(below, making, common, apart=apart) as tree:
            make(tree, making)
        made = common.cache.complete(making, step.instruction.text, parent=top(below), whole=whole)
    if made_as != key:
        common.cache.name(key, made)
    return made


@contextlib.contextmanager
def _tree(below: Layers, making: Making, common: Surroundings, *, apart: bool) -> Iterator[Path]:
    """The tree in which a step makes its changes, a mount point."""
    if apart:
        yield making.tree
        return
    root = making.work / "root"
    root.mkdir(mode=0o755)
    if common.overlay:
        scratch = making.work / "layers"
        scratch.mkdir(mode=0o700)
        mount_layers(common.cache, trees_of(below), root, making.tree, scratch)
    else:
        copy(trees_of(below), making.tree)
        bind(making.tree, root)
    try:
        yield root
    finally:
        unmount(root)


def _workdir(step: Workdir, stage: Stage, below: Layers, common: Surroundings) -> Layer:
    path, user = step.state.working_directory, step.state.user

    def make(tree: Path, making: Making) -> None:
        with _located(step):
            root_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                make_directories(root_fd, path, resolve_owner(user, tree) if user else (0, 0))
            finally:
                os.close(root_fd)

    return _layer(step, stage, key_of("workdir", top(below), path, user), below, common, make)


def _copy(step: Copy, stage: Stage, below: Layers, common: Surroundings) -> Layer:
    # With --link it is the same upon whatever it lies. Names of owners are of one tree.
    apart = step.link and (step.chown is None or not step.chown.strip("0123456789:"))
    parts = ("copy", "" if apart else top(below), _described(step))
    if step.origin is None:
        return _copy_from(step, stage, below, common, common.context, parts, apart=apart)
    origin = common.layers_of(step.origin)
    known = key_of(*parts, "from", top(origin))
    if common.use_cache and (found := common.cache.named(known)) is not None:
        return found
    name = step.origin.name if isinstance(step.origin, ImageSource) else f"stage {step.origin.index}"
    with contextlib.ExitStack() as stack:
        source = Source(_view(origin, common, stack), name)
        layer = _copy_from(step, stage, below, common, source, parts, apart=apart)
    common.cache.name(known, layer)
    return layer


def _copy_from(
    step: Copy,
    stage: Stage,
    below: Layers,
    common: Surroundings,
    source: Source,
    parts: tuple[object, ...],
    *,
    apart: bool,
) -> Layer:
    spool = common.spool / f"copy-{stage.index}-{step.number}"
    selection = select(step, source, spool)
    common.notes.extend(Note("adapted", f"line {step.instruction.line}", note) for note in selection.notes)

    def make(tree: Path, making: Making) -> None:
        put(selection, step, tree, resolve_owner(step.chown, tree) if step.chown else None)

    return _layer(step, stage, key_of(*parts, fingerprint(selection)), below, common, make, apart=apart)


def _described(step: Copy) -> dict[str, object]:
    """What of the step counts for its result, but for what it brings."""
    fields = {
        name: getattr(step, name) for name in ("add", "sources", "destination", "chown", "chmod", "link")
    }
    more = {
        name: getattr(step, name) for name in ("parents", "exclude", "checksum", "keep_git_dir", "unpack")
    }
    return {**fields, **more}


def _view(layers: Layers, common: Surroundings, stack: contextlib.ExitStack) -> Path:
    """The tree of other layers, until the stack is closed."""
    scratch = stack.enter_context(_scratch(common))
    return stack.enter_context(shown(common.cache, layers, scratch / "view", overlay=common.overlay))


@contextlib.contextmanager
def _scratch(common: Surroundings) -> Iterator[Path]:
    """A directory in the cache's layers/, told by its lock from one that a killed build has left."""
    key = key_of("scratch", os.urandom(16).hex())
    with common.cache.making(key, common.stopped) as making:
        assert making is not None  # nobody else has this key
        yield making.work


def _run(step: Run, stage: Stage, below: Layers, common: Surroundings) -> Layer:
    if step.insecure and "security.insecure" not in common.allow:
        raise step.instruction.error(
            "--security=insecure is not allowed", "allow it with --allow security.insecure"
        )

    def make(tree: Path, making: Making) -> None:
        _execute(step, stage, tree, making, common)

    return _layer(step, stage, _run_key(step, stage, below, common), below, common, make)


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
    with _located(step), prepared(step, common.cache, making.work / "mounts", given) as ready:
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


@contextlib.contextmanager
def _located(step: Step) -> Iterator[None]:
    """Whatever is wrong is wrong with this step."""
    try:
        yield
    except DockerfileError:
        raise
    except ConversionError as error:
        raise step.instruction.error(str(error)) from None
