"""A machine that was made, or would be: what the user is told of it, and the files that go with its tree."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from converter.errors import ConversionError
from converter.image.model import Image
from converter.image.reference import Reference
from converter.machine.mapping import Mapped
from converter.machine.model import File
from converter.machine.settings import ignored_untrusted, render
from converter.machine.unit import render_drop_in
from converter.note import Note
from converter.options import Options
from converter.places import Places


@dataclass(frozen=True)
class Result:
    """A machine that was made, or would be. Paths are the host's; `trusted_path` is None without a link."""

    name: str
    source: str
    digest: str | None
    platform: str
    tree_path: str
    settings_path: str
    trusted_path: str | None
    drop_in_path: str
    record_path: str
    start_command: str
    settings: str
    drop_in: str
    files: tuple[str, ...]
    notes: tuple[Note, ...]


def heading_of(image: Image) -> str:
    origin = f"from {image.source}" + (f", {image.digest}" if image.digest else "")
    return f"Made by docker2nspawn {origin}"


def result_of(image: Image, mapped: Mapped, places: Places, options: Options) -> Result:
    machine = mapped.machine
    heading = heading_of(image)
    ignored = ignored_untrusted(machine)
    trusted = options.trust and bool(ignored)
    notes = list(mapped.notes)
    if trusted:
        notes.append(
            Note("adapted", "trust", f"{places.trusted_settings(machine.name)} links to the settings file, so that "
                 f"nspawn honours its {', '.join(ignored)}")
        )  # fmt: skip
    elif ignored:
        notes.append(
            Note("dropped", "trust", f"without the link in /etc/systemd/nspawn nspawn ignores {', '.join(ignored)}: "
                 "private network without an address, shifted user ids")
        )  # fmt: skip
    start = f"machinectl start {machine.name}"
    if options.root != Path("/"):
        start += f" (on the host whose root is {options.root})"
    return Result(
        name=machine.name,
        source=image.source,
        digest=image.digest,
        platform=str(image.platform),
        tree_path=str(places.tree(machine.name)),
        settings_path=str(places.settings(machine.name)),
        trusted_path=str(places.trusted_settings(machine.name)) if trusted else None,
        drop_in_path=str(places.drop_in(machine.name)),
        record_path=str(places.record(machine.name)),
        start_command=start,
        settings=render(machine, heading),
        drop_in=render_drop_in(machine, heading),
        files=tuple(f"{places.root / file.path}" for file in mapped.files),
        notes=tuple(notes),
    )


def refuse_losses(result: Result, options: Options) -> None:
    dropped = [note for note in result.notes if note.kind == "dropped"]
    if options.strict and dropped:
        first = f"{dropped[0].subject}: {dropped[0].text}"
        more = f", and {len(dropped) - 1} more" if len(dropped) > 1 else ""
        raise ConversionError(f"--strict: would be dropped: {first}{more}")


def files_of(
    image: Image,
    mapped: Mapped,
    result: Result,
    reference: Reference,
    places: Places,
    options: Options,
    context: str | None,
) -> tuple[File, ...]:
    """Every file that goes with the tree. `context` stands for what a Dockerfile was built from."""

    def file(path: str, text: str, mode: int) -> File:
        return File(str(Path(path).relative_to(places.root)), text.encode("utf-8", "surrogateescape"), mode)

    return (
        file(result.settings_path, result.settings, 0o600 if mapped.machine.secret else 0o644),
        file(result.drop_in_path, result.drop_in, 0o644),
        # It quotes the image's ENV.
        file(result.record_path, _record(image, mapped, result, reference, options, context), 0o600),
        *mapped.files,
    )


def _record(
    image: Image, mapped: Mapped, result: Result, reference: Reference, options: Options, context: str | None
) -> str:
    machine = mapped.machine
    record = {
        "version": version("docker2nspawn"),
        "name": result.name,
        "reference": reference.full(),
        "source": image.source,
        "digest": image.digest,
        "platform": str(image.platform),
        "batch": options.batch,
        "shape": options.shape(),
        "context": context,
        "systemd": mapped.systemd,
        "address": machine.address,
        "volumes": [volume.name for volume in machine.volumes],
        "options": {
            key: None if value is None else str(value)
            for key, value in asdict(options).items()
            if key not in {"output", "batch"}
        },
        "config": asdict(image.config),
        "container": image.container,
        "notes": [asdict(note) for note in result.notes],
    }
    return json.dumps(record, indent=2) + "\n"
