"""mkosi/: a configuration tree for mkosi 25 or later that makes the same system as bootstrap.sh and provision.sh.

mkosi installs the base's packages, and those of a first RUN that only installs some. What COPY brings before anything
else has run is in mkosi.extra. Everything else is done by provision.sh, which mkosi.postinst.chroot calls in the new
tree: the only place where what a step finds is certain to be what it finds in Docker. mkosi knows no stages: those are
made beforehand, by build.sh.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from converter.dockerfile.bases import Base
from converter.dockerfile.bootstrap.settings import Settings, settings
from converter.dockerfile.labels import source_label
from converter.dockerfile.model import Copy, ImageSource, Recipe, Run, Setting, Stage, StageSource, Workdir
from converter.dockerfile.packages import Installation, liftable, out_of_the_way
from converter.dockerfile.quoting import data, one_line
from converter.machine.model import TreeChange
from converter.note import Note

_ARCHITECTURES = {
    "amd64": "x86-64",
    "386": "x86",
    "arm": "arm",
    "arm64": "arm64",
    "loong64": "loongarch64",
    "mips64le": "mips64-le",
    "ppc64le": "ppc64-le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
# Where no package of a distribution puts anything, though its directories are there.
_LOCAL = ("/usr/local/", "/opt/", "/srv/")

PutCopy = Callable[[Copy, Path], None]
"""Puts what a COPY brings into a tree, as BuildKit does."""


@dataclass(frozen=True)
class _Beginning:
    """The steps that mkosi does itself: an installation, directories and COPYs; the rest begins at step `rest`."""

    installation: Installation | None
    placed: tuple[Copy | Workdir, ...]
    rest: int


def write(
    recipe: Recipe,
    base: Base | None,
    output: Path,
    *,
    name: str,
    nspawn: str | None = None,
    put: PutCopy | None = None,
    changes: Sequence[TreeChange] = (),
) -> tuple[Note, ...]:
    """Write `output`/mkosi, beside provision.sh; `base` None: the target's base is no distribution that is made here.

    `name` is the machine's, `nspawn` the text of its settings file, `changes` what it needs in its tree at the end; the
    content of the Nth of those is the file tree/N beside provision.sh. Without `put` every COPY is left to
    provision.sh. Returns what is to be said of the tree. Raises OSError, and DockerfileError from `put`.
    """
    stage = recipe.target
    if stage.base is None:
        text = "not for FROM scratch: mkosi takes no tree without /usr/lib/os-release"
        return (Note("dropped", "mkosi", f"{text}; use build.sh"),)
    directory = output / "mkosi"
    directory.mkdir()
    made = _Native(base) if base is not None and base.distribution != "alpine" else None
    beginning = _beginning(stage, base if made else None, put is not None)
    if put is not None and beginning.placed and not _place(beginning.placed, directory / "mkosi.extra", put):
        beginning = _beginning(stage, base if made else None, False)
    if made is not None:
        made.write(directory)
    _write(directory / "mkosi.conf", _config(recipe, made, beginning, name))
    _write(directory / "mkosi.postinst.chroot", _script(made, beginning, changes), 0o755)
    (directory / "mkosi.output").mkdir()
    if nspawn is not None:
        _write(directory / "mkosi.nspawn", nspawn)
    return tuple(_notes(recipe, made, beginning))


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8", "surrogateescape")
    path.chmod(mode)


@dataclass(frozen=True)
class _Native:
    """A base that mkosi makes itself."""

    base: Base

    @property
    def own(self) -> Settings:
        return settings(self.base)

    @property
    def by_apt(self) -> bool:
        return self.base.distribution in {"debian", "ubuntu"}

    def packages(self) -> tuple[str, ...]:
        """What the base consists of, as its package manager takes it."""
        if not self.by_apt:
            return tuple(self.own.variables["packages"].split())
        merged = ("usr-is-merged",) if self.own.variables["hook"] else ()
        return ("apt", "?priority(required)", *merged)

    def write(self, directory: Path) -> None:
        """What mkosi's own package manager has to know: the image's package sources, not mkosi's."""
        if not self.by_apt:
            return
        own, apt = self.own, directory / "mkosi.sandbox/etc/apt"
        keyring = f"/usr/share/keyrings/{self.base.distribution}-archive-keyring.gpg"
        stanzas = (
            f"Types: deb\nURIs: {uri}\nSuites: {' '.join(suites)}\nComponents: main\nSigned-By: {keyring}\n"
            for uri, suites in own.sources
        )
        _write(apt / "sources.list.d/mkosi.sources", "\n".join(stanzas))
        if own.variables["hook"]:
            text = "Explanation: /usr is merged from the start, nothing is left to be converted.\n"
            text += "Package: usrmerge\nPin: release *\nPin-Priority: -1\n"
            _write(apt / "preferences.d/usrmerge", text)


def _beginning(stage: Stage, base: Base | None, can_put: bool) -> _Beginning:
    """The longest beginning of the stage that mkosi can do with the same result."""
    installation = None if base is None else liftable(stage, base)
    placed: list[Copy | Workdir] = []
    for step in stage.steps:
        match step:
            case Setting():
                continue
            case Run() if installation is not None and step.number == installation.number:
                continue
            case Workdir() if can_put and step.state.user in {"", "root", "0"}:
                if _is_free(step.state.working_directory):
                    placed.append(step)
                    continue
            case Copy() if can_put and _is_plain(step) and _is_free(step.destination):
                placed.append(step)
                continue
        if installation is not None and installation.number > step.number:
            installation = None
        return _Beginning(installation, tuple(placed), step.number)
    return _Beginning(installation, tuple(placed), len(stage.steps) + 1)


def _is_plain(step: Copy) -> bool:
    """Does it bring files of the build context that shall be root's?"""
    return step.origin is None and not step.add and step.chown is None and not step.link and not step.parents


def _is_free(path: str) -> bool:
    """Is nothing there before the Dockerfile puts it there, neither from the base nor from any package?"""
    return out_of_the_way(path) or (path.startswith(_LOCAL) and ".." not in PurePosixPath(path).parts)


def _place(steps: tuple[Copy | Workdir, ...], tree: Path, put: PutCopy) -> bool:
    """Fill mkosi.extra; False, and nothing is there, when it holds what mkosi would not copy as it is."""
    tree.mkdir()
    for step in steps:
        if isinstance(step, Copy):
            put(step, tree)
        else:
            (tree / step.state.working_directory.lstrip("/")).mkdir(mode=0o755, parents=True, exist_ok=True)
    if all(_is_copied_as_it_is(Path(path)) for path in _walk(tree)):
        return True
    shutil.rmtree(tree)
    return False


def _walk(tree: Path) -> Iterator[str]:
    for directory, directories, names in os.walk(tree):
        yield from (os.path.join(directory, name) for name in (*directories, *names))  # noqa: PTH118


def _is_copied_as_it_is(path: Path) -> bool:
    """Not what has attributes or more than one name, or is no file, directory or link."""
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    plain = kind in {stat.S_IFLNK, stat.S_IFDIR} or (kind == stat.S_IFREG and status.st_nlink == 1)
    attributes = set(os.listxattr(path, follow_symlinks=False)) - {"security.selinux"}
    return plain and not attributes and status.st_uid in {0, os.geteuid()}


def _config(recipe: Recipe, made: _Native | None, beginning: _Beginning, name: str) -> str:
    stage = recipe.target
    lines = [f"# {one_line(recipe.file)}: {one_line(stage.instruction.text)}, for mkosi 25 or later.", "#"]
    others = len(recipe.stages) > 1 or any(isinstance(source, ImageSource) for source in _taken(stage))
    if others:
        lines += [
            "# What it takes from other stages and images has to be there:",
            "#     ../build.sh --stages",
            "#",
        ]
    if made is None and isinstance(stage.base, ImageSource):
        lines += ["# So has the base, which mkosi cannot make:", "#     sh ../bootstrap.sh base", "#"]
    lines += [
        "# As root, in this directory:",
        f"#     mkosi                for the directory mkosi.output/{name}, with {name}.nspawn beside it",
        "#     mkosi --format=tar   or disk, for machinectl import-tar or import-raw",
        "#",
        "# The machine with all that belongs to it on its host comes of the directory so:",
        f"#     mv mkosi.output/{name} ../root && ../build.sh --settings ../root && ../build.sh --install",
        "",
        "[Distribution]",
    ]
    if made is None:
        lines += ["Distribution=custom"]
    else:
        lines += [f"Distribution={made.base.distribution}", f"Release={made.base.release}"]
    architecture = _ARCHITECTURES.get(stage.platform.architecture)
    if architecture is not None:
        lines.append(f"Architecture={architecture}")
    lines += ["", "[Output]", "Format=directory", f"Output={name}", "OutputDirectory=mkosi.output"]
    lines += ["", "[Content]", "Bootable=no"]
    if made is None:
        lines.append(f"BaseTrees={_base_tree(stage, recipe)}")
    else:
        packages = [*made.packages(), *(beginning.installation.packages if beginning.installation else ())]
        lines += [
            "WithRecommends=no",
            "WithDocs=yes",
            "Packages=",
            *(f"    {package}" for package in packages),
        ]
    lines += ["# What mkosi adds for a system that boots a machine.", "RemoveFiles="]
    lines += ["    /efi", "    /boot/loader", "    /usr/lib/clock-epoch"]
    lines += [
        "",
        "[Build]",
        "# provision.sh and what it needs are at /work/src.",
        "BuildSources=..",
        "WithNetwork=yes",
    ]
    if beginning.installation is not None and beginning.installation.environment:
        lines += [
            "Environment=",
            *(f'    "{key}={value}"' for key, value in beginning.installation.environment),
        ]
    return "\n".join(lines) + "\n"


def _taken(stage: Stage) -> Iterator[object]:
    """What the stage takes from besides its base."""
    sources = stage.sources()
    next(sources, None)
    return sources


def _base_tree(stage: Stage, recipe: Recipe) -> str:
    if isinstance(stage.base, StageSource):
        return f"../stages/{source_label(stage.base, recipe)}/root"
    return "base"


_SCRIPT = """\
#!/bin/sh
# mkosi runs this in the new tree when its packages are there; provision.sh is at /work/src.
set -eu

# mkosi mounts its own over these; what a RUN leaves there is part of the system.
umount /run /tmp /var/tmp 2>/dev/null || :
"""
_SETUP = """\

# The same as in bootstrap.sh, from inside.
inside() {
    "$@"
}
put() { # PATH MODE
    mkdir -p "${1%/*}"
    rm -f "$1"
    cat >"$1"
    chmod "$2" "$1"
}
rm -f /etc/machine-id
"""


def _script(made: _Native | None, beginning: _Beginning, changes: Sequence[TreeChange]) -> str:
    text = _SCRIPT
    if made is not None:
        text += _SETUP
        if made.by_apt:
            text += f"rm -f /etc/apt/sources.list.d/{made.base.release}.sources\n"
        if made.base.distribution == "arch":
            text += "work=$(mktemp -d)\n"
        text += made.own.functions_of_image + made.own.image.replace("$partial", "")
        if made.by_apt and beginning.installation is not None:
            names = " ".join(package.partition("=")[0] for package in beginning.installation.packages)
            text += f"\n# But these were asked for.\napt-mark manual {names} >/dev/null\n"
    text += "\n# What mkosi has not done itself.\n"
    text += f"/work/src/provision.sh --from {beginning.rest}\n"
    if changes:
        text += "\n# What the machine needs in its tree, and docker run would provide.\n"
        text += "umount /etc/resolv.conf 2>/dev/null || : # mkosi's own\n"
        text += "".join(f"{line}\n" for line in _changes(changes))
    return text


def _changes(changes: Sequence[TreeChange]) -> Iterator[str]:
    """Commands that make the changes, from inside the tree."""
    for number, change in enumerate(changes):
        path, above = data(change.path), data(str(PurePosixPath(change.path).parent))
        match change.kind:
            case "dir":
                yield f"mkdir -p {path}"
            case "mount point":
                yield f"[ -d {path} ] && [ ! -L {path} ] || {{ rm -rf {path}; mkdir -p {path}; }}"
            case "file":
                yield from (f"mkdir -p {above}", f"rm -rf {path}", f"cp /work/src/tree/{number} {path}")
                yield from (f"chmod {change.mode:o} {path}", f"chown 0:0 {path}")
            case "link":
                target = data(change.content.decode("utf-8", "surrogateescape"))
                yield from (f"mkdir -p {above}", f"rm -rf {path}", f"ln -s {target} {path}")
            case _:
                raise AssertionError(change)


def _notes(recipe: Recipe, made: _Native | None, beginning: _Beginning) -> Iterator[Note]:
    subject = "mkosi"
    if beginning.installation is not None:
        packages = " ".join(beginning.installation.packages)
        yield Note(
            "exact", subject, f"Packages= has those of RUN step {beginning.installation.number}: {packages}"
        )
    if beginning.placed:
        steps = ", ".join(str(step.number) for step in beginning.placed)
        yield Note(
            "exact",
            subject,
            f"mkosi.extra has what step {steps} brings; all later steps are run by provision.sh",
        )
    if len(recipe.stages) > 1:
        yield Note("adapted", subject, "it knows no stages; the others are made before, by build.sh --stages")
    if made is None:
        yield Note(
            "adapted",
            subject,
            "it cannot make this base; it takes the tree that bootstrap.sh or build.sh makes",
        )
    yield Note(
        "adapted",
        subject,
        "it ends with systemd-sysusers, systemd-tmpfiles and systemctl preset-all, which docker build does not",
    )
