"""The command `docker2nspawn dockerfile`: what its options mean, and what it says at the end."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from converter.building import OpenImage, locate
from converter.dockerfile.quoting import printable
from converter.dockerfile.translate import Translated, Wanted, notes_text, translate
from converter.image.model import Platform
from converter.image.reference import Reference, check_machine_name, machine_name
from converter.machine.mapping import RunOptions
from converter.machine.network import free_address
from converter.places import Places, recorded_address, used_addresses
from converter.systemd import installed_version, resolv_conf_mode


def translate_command(
    path: Path,
    output: Path,
    open_image: OpenImage,
    *,
    name: str | None = None,
    file: Path | None = None,
    target: str | None = None,
    build_args: tuple[str, ...] = (),
    bases: tuple[str, ...] = (),
    platform: Platform | None = None,
    force: bool = False,
    strict: bool = False,
    root: Path = Path("/"),
    run: RunOptions | None = None,
) -> Translated:
    """Translate the Dockerfile `path` (or the one in the folder `path`, or `file` with the context `path`).

    `root` is the host that the machine is for: its systemd, its other machines' addresses. `run` is how the machine is
    to run, but for what `root` decides. Raises ConversionError.
    """
    if name is None:
        dockerfile, _ = locate(path, file)
        name = machine_name(Reference("dockerfile", str(dockerfile)))
    else:
        check_machine_name(name)
    places = Places(root)
    used = used_addresses(places, name)
    address = recorded_address(places, name)
    run = run or RunOptions(systemd=_systemd(root))
    run = replace(
        run,
        address=address if address is not None and address not in used else free_address(used, name),
        resolv_conf=resolv_conf_mode(root),
    )
    wanted = Wanted(
        path, output, name, file, target, build_args, bases, platform, force=force, strict=strict, run=run
    )
    return translate(wanted, open_image)


@cache
def _systemd(root: Path) -> int:
    """Its version there; asked once, because a program has to be run for it."""
    return installed_version(root) or RunOptions.systemd


def summary(translated: Translated) -> str:
    """What is printed: where it is, what to know of it, what to do with it."""
    lines = [
        f"{printable(translated.source)} is translated into {printable(translated.output)}",
        f"  {'  '.join(map(printable, translated.files))}",
        notes_text(translated.notes).rstrip(),
        f"Build and install the machine {translated.name} with: {printable(translated.output)}/build.sh --install",
    ]
    return "\n".join(lines)
