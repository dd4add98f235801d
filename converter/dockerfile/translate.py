"""A Dockerfile becomes a directory of scripts, files and settings, from which it can be built without this program."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from converter import interrupt
from converter.building import OpenImage, build_arguments, given_bases, locate, read_file
from converter.dockerfile import bootstrap, mkosi
from converter.dockerfile.bases import Base, find_base
from converter.dockerfile.blocks import Brought
from converter.dockerfile.buildscript import build_script, template_files, tree_files
from converter.dockerfile.context import Source, open_context
from converter.dockerfile.copying import lay_out, put, select
from converter.dockerfile.described import Described, describe
from converter.dockerfile.labels import source_label, stage_label
from converter.dockerfile.model import Copy, ImageSource, Mount, Recipe, Run, Stage, StageSource
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.output import MARKER, check_output, left_out, own_version, publish, staging
from converter.dockerfile.parser import read
from converter.dockerfile.quoting import one_line, printable, quote
from converter.dockerfile.script import provision
from converter.dockerfile.selection import Selection
from converter.dockerfile.stages import evaluate
from converter.errors import ConversionError
from converter.image.model import ImageConfig, Platform
from converter.machine.mapping import RunOptions
from converter.note import Note

_ORDER = ("dropped", "adapted", "exact")
_ALL = "image"


@dataclass(frozen=True)
class Wanted:
    """What to translate, in the command line's words; `bases` as for `convert`: NAME=SOURCE, or "image"."""

    path: Path
    output: Path
    name: str
    file: Path | None = None
    target: str | None = None
    build_args: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    platform: Platform | None = None
    force: bool = False
    strict: bool = False
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class Translated:
    """What was written: paths below `output`, in the order of the alphabet, without those of files/ and stages/."""

    name: str
    source: str
    platform: str
    output: str
    files: tuple[str, ...]
    notes: tuple[Note, ...]


def translate(wanted: Wanted, open_image: OpenImage) -> Translated:
    """Write the output directory: all of it or nothing.

    `open_image` gives images that FROM names and that are no distribution's, or that --base names. Raises
    ConversionError; DockerfileError with its place.
    """
    interrupt.in_time()
    dockerfile, directory = locate(wanted.path, wanted.file)
    options = BuildOptions(target=wanted.target, build_args=build_arguments(wanted.build_args))
    if wanted.platform is not None:
        options = replace(options, platform=wanted.platform)
    images = _Images(given_bases(wanted.bases), open_image)
    recipe = _distinct(evaluate(read(str(dockerfile), read_file(dockerfile)), options, images.config))
    context = left_out(open_context(directory, dockerfile), wanted.output)
    check_output(wanted.output, force=wanted.force)
    with staging(wanted.output) as staged:
        described, notes = _Writing(recipe, context, images, staged, wanted).write()
        notes = (*described.notes, *notes)
        _refuse_losses(notes, strict=wanted.strict)
        (staged / "notes.txt").write_text(notes_text(notes), "utf-8", "surrogateescape")
        mark = {"version": own_version(), "source": str(dockerfile), "name": wanted.name}
        (staged / MARKER).write_text(json.dumps(mark) + "\n")
        files = tuple(_listed(staged))
        publish(staged, wanted.output)
    return Translated(
        wanted.name,
        f"dockerfile:{dockerfile}",
        str(recipe.target.platform),
        str(wanted.output),
        files,
        notes,
    )


def _distinct(recipe: Recipe) -> Recipe:
    """Of stages that have the same name, only the last one keeps it: the others are called by their numbers."""
    last = {stage.name: stage.index for stage in recipe.stages}
    stages = {
        stage.index: stage if last[stage.name] == stage.index else replace(stage, name=None)
        for stage in recipe.stages
    }
    return replace(recipe, stages=tuple(stages.values()), target=stages[recipe.target.index])


def notes_text(notes: Iterable[Note]) -> str:
    """notes.txt: one note, one line, what needs attention first, as `convert` prints them to a pipe."""
    lines = sorted(notes, key=lambda note: _ORDER.index(note.kind))
    return "".join(f"{note.kind:<8}{printable(note.subject)}: {printable(note.text)}\n" for note in lines)


class _Images:
    """The images that a Dockerfile speaks of: distributions that are made anew, and images taken as they are."""

    def __init__(self, given: Mapping[str, str], open_image: OpenImage) -> None:
        self._given = given
        self._open = open_image

    def base(self, source: ImageSource) -> Base | None:
        """The distribution that it is made from; None: it is taken as it is."""
        return None if _ALL in self._given or source.name in self._given else find_base(source)

    def source(self, source: ImageSource) -> ImageSource:
        """Where it is taken from."""
        return ImageSource(self._given.get(source.name) or source.name, source.platform)

    def config(self, source: ImageSource) -> ImageConfig:
        """Raises ConversionError when the image cannot be had."""
        if (base := self.base(source)) is not None:
            return base.config
        taken = self.source(source)
        with tempfile.TemporaryDirectory(prefix="docker2nspawn-") as spool:
            try:
                return self._open(taken.name, taken.platform, Path(spool)).config
            except ConversionError as error:
                raise ConversionError(
                    f"{error}; FROM {source.name} can be another image: --base {source.name}=SOURCE"
                ) from None

    def bootstrap(self, source: ImageSource | None) -> str:
        """bootstrap.sh."""
        if source is None:
            return bootstrap.script(None)
        return bootstrap.script(self.base(source) or self.source(source))


class _Writing:
    """The content of the output directory, written into `staged`."""

    def __init__(
        self, recipe: Recipe, context: Source, images: _Images, staged: Path, wanted: Wanted
    ) -> None:
        self._recipe = recipe
        self._context = context
        self._images = images
        self._staged = staged
        self._wanted = wanted
        self._notes: list[Note] = []
        self._selections: dict[int, Selection] = {}  # of the target's COPYs from the context

    def write(self) -> tuple[Described, tuple[Note, ...]]:
        recipe, target, name = self._recipe, self._recipe.target, self._wanted.name
        self._notes += [Note("adapted", "Dockerfile", warning) for warning in recipe.warnings]
        made = [(label, False) for label in self._write_images()]
        with tempfile.TemporaryDirectory(prefix="docker2nspawn-") as spool:
            self._spool = Path(spool)
            for stage in recipe.stages:
                if stage is not target:
                    self._write_stage(stage, self._staged / "stages" / stage_label(stage))
                    made.append((stage_label(stage), self._runs_inside(stage)))
            self._write_stage(target, self._staged)
            base = self._distribution(target)
            described = describe(
                target.config,
                target.platform,
                base,
                name=name,
                source=f"dockerfile:{one_line(recipe.file)}",
                options=self._wanted.run,
            )
            self._write_described(described)
            text = build_script(
                name=name,
                file=recipe.file,
                stages=made,
                inside=self._runs_inside(target),
                described=described,
            )
            _write(self._staged / "build.sh", text, 0o755)
            self._notes += mkosi.write(
                recipe,
                self._images.base(target.base) if isinstance(target.base, ImageSource) else None,
                self._staged,
                name=name,
                nspawn=described.settings.content.decode("utf-8", "surrogateescape"),
                put=self._put,
                changes=described.changes,
            )
        self._notes += self._own_notes()
        return described, tuple(self._notes)

    def _write_images(self) -> Iterator[str]:
        """The images that files are copied or mounted from; those of FROM are their stages' own."""
        done: set[str] = set()
        for stage in self._recipe.stages:
            sources = stage.sources()
            if isinstance(stage.base, ImageSource):
                self._note_base(stage.base)
            if stage.base is not None:
                next(sources)
            for source in sources:
                if (
                    isinstance(source, ImageSource)
                    and (label := source_label(source, self._recipe)) not in done
                ):
                    done.add(label)
                    self._note_base(source)
                    path = self._staged / "stages" / label / "bootstrap.sh"
                    _write(path, self._images.bootstrap(source), 0o755)
                    yield label

    def _note_base(self, source: ImageSource) -> None:
        base = self._images.base(source)
        notes = base.notes if base is not None else ()
        self._notes += [note for note in notes if note not in self._notes]

    def _write_stage(self, stage: Stage, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        if isinstance(stage.base, StageSource):
            above = "stages" if stage is self._recipe.target else ".."
            text = _copy_of_stage(f"{above}/{source_label(stage.base, self._recipe)}")
        else:
            text = self._images.bootstrap(stage.base)
        _write(directory / "bootstrap.sh", text, 0o755)
        copies: dict[int, tuple[Brought, ...]] = {}
        binds: dict[tuple[int, int], str] = {}
        for step in stage.steps:
            if isinstance(step, Copy) and step.origin is None:
                copies[step.number] = self._brought(step, stage, directory / "files" / str(step.number))
            elif isinstance(step, Run):
                for number, mount in enumerate(step.mounts, 1):
                    if mount.kind == "bind" and mount.origin is None:
                        binds[step.number, number] = self._bound(step, number, mount, directory / "files")
        top = "" if stage is self._recipe.target else "/../.."
        text = provision(stage, self._recipe, copies=copies, binds=binds, top=top)
        _write(directory / "provision.sh", text, 0o755)

    def _brought(self, step: Copy, stage: Stage, directory: Path) -> tuple[Brought, ...]:
        spool = self._spool / f"{stage.index}-{step.number}"
        selection = select(step, self._context, spool)
        self._notes += [Note("adapted", one_line(step.instruction.text), text) for text in selection.notes]
        if stage is self._recipe.target:
            self._selections[step.number] = selection
        laid_out = lay_out(selection, step, directory)
        return tuple(Brought(one.path, "-xf" if one.kind == "archive" else "") for one in laid_out)

    def _bound(self, step: Run, number: int, mount: Mount, files: Path) -> str:
        """A bind mount from the build context brings what a COPY of it would."""
        name = f"{step.number}.{number}"
        copy = Copy(step.number, step.instruction, step.state, False, (mount.source,), "/")
        laid_out = lay_out(select(copy, self._context, self._spool / name), copy, files / name)
        return f"{name}/{laid_out[0].path}" if laid_out else name

    def _put(self, step: Copy, tree: Path) -> None:
        put(self._selections[step.number], step, tree, None)

    def _write_described(self, described: Described) -> None:
        name, settings = self._wanted.name, described.settings
        _write_bytes(self._staged / f"{name}.nspawn", settings.content, settings.mode)
        for generated in described.files:
            _write_bytes(self._staged / "host" / generated.path, generated.content, generated.mode)
        for below, contents in (
            ("templates", template_files(name, described)),
            ("tree", tree_files(described.changes)),
        ):
            for path, content in contents.items():
                _write_bytes(self._staged / below / path, content, 0o600 if below == "templates" else 0o644)

    def _distribution(self, stage: Stage) -> Base | None:
        """What the stage is made from in the end; None: it is no distribution that is known."""
        while isinstance(stage.base, StageSource):
            index = stage.base.index
            stage = next(other for other in self._recipe.stages if other.index == index)
        return self._images.base(stage.base) if stage.base is not None else None

    def _runs_inside(self, stage: Stage) -> bool:
        """Has its tree a shell, and what provision.sh calls, from the beginning?"""
        return self._distribution(stage) is not None

    def _own_notes(self) -> Iterator[Note]:
        runs = [step for stage in self._recipe.stages for step in stage.steps if isinstance(step, Run)]
        if runs:
            yield Note(
                "adapted",
                "RUN",
                "in provision.sh it may do what root may where that is started; docker build takes capabilities away",
            )
        if any(step.insecure for step in runs):
            yield Note("adapted", "RUN --security=insecure", "it may do what root may, as every RUN here")
        for step in runs:
            for mount in step.mounts:
                if mount.kind == "ssh":
                    yield Note(
                        "adapted",
                        "RUN --mount=type=ssh",
                        "it is the agent's own socket ($SSH_AUTH_SOCK), with its owner: another USER may be refused",
                    )


def _copy_of_stage(place: str) -> str:
    return f"""\
#!/bin/sh
# A copy of the tree of another stage, which build.sh has made before.
#
#   sh bootstrap.sh DIRECTORY
set -eu
case $0 in */*) here=${{0%/*}} ;; *) here=. ;; esac
[ $# -eq 1 ] || {{ echo 'bootstrap.sh: say where to: bootstrap.sh DIRECTORY' >&2; exit 1; }}
trap 'rm -rf "$1.partial"' EXIT
cp -a --reflink=auto "$here"/{quote(place)}/root "$1.partial"
mv "$1.partial" "$1"
"""


def _write(path: Path, text: str, mode: int) -> None:
    _write_bytes(path, text.encode("utf-8", "surrogateescape"), mode)


def _write_bytes(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    path.chmod(mode)


def _refuse_losses(notes: Iterable[Note], *, strict: bool) -> None:
    dropped = [note for note in notes if note.kind == "dropped"]
    if strict and dropped:
        raise ConversionError(f"--strict: would be dropped: {dropped[0].subject}: {dropped[0].text}")


def _listed(staged: Path) -> Iterator[str]:
    for path in sorted(staged.iterdir()):
        if path.name != MARKER:
            yield path.name + "/" * path.is_dir()
