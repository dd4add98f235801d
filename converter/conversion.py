"""The way from a source to a machine, end to end: `plan` decides, `convert` also writes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from converter import interrupt
from converter.dockerfile.choices import BuildChoices
from converter.errors import ConversionError, NoRoomError
from converter.image.model import Image, this_platform
from converter.image.reference import Reference, check_machine_name, machine_name, parse_reference
from converter.install import Files, Staging, check_free, install, recover, staging
from converter.machine.facts import Facts, observe
from converter.machine.mapping import Mapped, RunOptions, map_image
from converter.machine.network import free_address
from converter.naming import own_name
from converter.note import Note
from converter.options import OLDEST_SYSTEMD, Options
from converter.places import Places, recorded_address, used_addresses
from converter.progress import Progress
from converter.result import Result, files_of, heading_of, refuse_losses, result_of
from converter.rootfs.extract import TreeWriter, writing
from converter.rootfs.fixup import apply_changes
from converter.rootfs.merge import Limits, Plan, scan
from converter.rootfs.standing import StandingTree
from converter.sharing import Shared, sharing
from converter.sources import context_of, image_opener, open_image, with_transport
from converter.systemd import installed_version, resolv_conf_mode
from converter.volumes import fill_volumes

if TYPE_CHECKING:
    from converter.dockerfile.translate import Translated


def plan(source: str | Reference, options: Options, progress: Progress) -> Result:
    """Everything that `convert` would decide; writes nothing but what it fetches into a temporary directory.

    Raises ConversionError when the source cannot be converted.
    """
    reference, name = _resolve(source, options)
    if reference.transport == "dockerfile":
        return _plan_dockerfile(reference, name, options, progress)
    with tempfile.TemporaryDirectory(prefix="docker2nspawn-") as spool:
        image = open_image(reference, options, Path(spool), progress)
        _, mapped = _decide(
            image, name, progress, Limits(options.max_entries, options.max_size), None, options=options
        )
    result = result_of(image, mapped, Places(options.root), options)
    refuse_losses(result, options)
    return result


def convert(
    source: str | Reference, options: Options, progress: Progress, shared: Shared | None = None
) -> Result:
    """Make the machine and put it in its place; what is `shared` with other images is taken from the cache.

    Raises ConversionError, with everything as it was before, when that cannot be done.
    """
    interrupt.in_time()
    reference, name = _resolve(source, options)
    places = Places(options.root)
    recover(places)
    check_free(places, name, force=options.force)
    with staging(places) as stage, _disk_errors(stage):
        context = context_of(reference, options)
        if reference.transport == "dockerfile":
            image, mapped, further = _build(reference, name, stage, options=options, progress=progress)
        else:
            image, mapped, further = _unpack(
                reference, name, stage, options=options, progress=progress, shared=shared
            )
        with _open_tree(stage) as root_fd:
            apply_changes(mapped.changes, root_fd, ownership=os.geteuid() == 0)
            volumes, kept = fill_volumes(
                mapped.machine.volumes,
                places,
                stage,
                root_fd=root_fd,
                docker_root=image.docker_root,
                progress=progress,
            )
        result = result_of(image, mapped, places, options)
        result = replace(result, notes=(*result.notes, *further, *kept))
        refuse_losses(result, options)
        files = Files(
            files_of(image, mapped, result, reference, places, options, context),
            trusted=result.trusted_path is not None,
            volumes=volumes,
            address=mapped.machine.address,
        )
        install(stage, places, name, files, force=options.force)
    return result


def share(reference: Reference, options: Options, progress: Progress, shared: Shared) -> None:
    """Put what an image shares with others into the cache. Raises ConversionError when that cannot be done."""
    interrupt.in_time()
    places = Places(options.root)
    with staging(places) as stage, _disk_errors(stage), sharing(places, shared) as common:
        if common is not None:
            image = open_image(
                with_transport(reference), options, stage.spool, progress, common.needed_to_make
            )
            common.make(image, limits=_limits(stage, options), progress=progress)


def translate(path: Path, output: Path, options: Options, progress: Progress) -> Translated:
    """Translate the Dockerfile at `path`, or in the folder `path`, into the directory `output`.

    Raises ConversionError, DockerfileError with its place, with `output` as it was before.
    """
    from converter.building import locate  # here, because BuildKit's parser takes long to load
    from converter.dockerfile.translate import Wanted, translate

    build = options.build
    dockerfile, _ = locate(path, build.file)
    name = options.name or machine_name(Reference("dockerfile", str(dockerfile)))
    check_machine_name(name)
    wanted = Wanted(
        path,
        output,
        name,
        file=build.file,
        target=build.target,
        build_args=build.build_args,
        bases=build.bases,
        platform=options.platform,
        force=options.force,
        strict=options.strict,
        run=_run_options(name, options),
    )
    return translate(wanted, image_opener(options, progress))


def _plan_dockerfile(reference: Reference, name: str, options: Options, progress: Progress) -> Result:
    """What its translation says of the machine: nobody knows the tree."""
    places = Places(options.root)
    with tempfile.TemporaryDirectory(prefix="docker2nspawn-") as spool:
        output = Path(spool, "translated")
        translated = translate(Path(reference.name), output, replace(options, name=name), progress)
        settings = (output / f"{name}.nspawn").read_text("utf-8", "surrogateescape")
        drop_in = output / "host" / places.drop_in(name).relative_to(places.root)
        host = [path for path in sorted((output / "host").rglob("*")) if path.is_file() and path != drop_in]
        assumed = Note(
            "adapted", "Dockerfile", "nothing was built: what only the finished tree tells is assumed"
        )
        return Result(
            name=name,
            source=translated.source,
            digest=None,
            platform=translated.platform,
            tree_path=str(places.tree(name)),
            settings_path=str(places.settings(name)),
            trusted_path=str(places.trusted_settings(name)) if options.trust else None,
            drop_in_path=str(places.drop_in(name)),
            record_path=str(places.record(name)),
            start_command=f"machinectl start {name}",
            settings=settings,
            drop_in=drop_in.read_text("utf-8", "surrogateescape"),
            files=tuple(str(places.root / path.relative_to(output / "host")) for path in host),
            notes=(assumed, *translated.notes),
        )


def _unpack(
    reference: Reference,
    name: str,
    stage: Staging,
    *,
    options: Options,
    progress: Progress,
    shared: Shared | None,
) -> tuple[Image, Mapped, list[Note]]:
    """Write the tree of an image; what the mapping cannot know is in the notes."""
    with sharing(Places(options.root), shared) as common:
        if common is not None:
            image = open_image(reference, options, stage.spool, progress, common.needed)
            if common.unpack(image, stage.tree, limits=_limits(stage, options), progress=progress):
                with _open_tree(stage) as root_fd:
                    mapped = _map(image, observe(StandingTree(root_fd), image.config), name, options)
                return image, mapped, []
            stage.empty()
            if common.left_out:
                image = open_image(reference, options, stage.spool, progress)
        else:
            image = open_image(reference, options, stage.spool, progress)
    limits = _limits(stage, options)
    with _open_tree(stage) as root_fd, writing(root_fd, ownership=os.geteuid() == 0) as writer:
        merged, mapped = _decide(image, name, progress, limits, writer, options=options)
        refuse_losses(result_of(image, mapped, Places(options.root), options), options)
        losses = [Note("dropped", "files", loss) for loss in writer.finish(merged, progress)]
    return image, mapped, losses


def _build(
    reference: Reference, name: str, stage: Staging, *, options: Options, progress: Progress
) -> tuple[Image, Mapped, list[Note]]:
    """Build the tree of a Dockerfile."""
    from converter.building import build_tree  # here, because BuildKit's parser takes long to load

    image, notes = build_tree(
        Path(reference.name),
        options.build,
        stage.tree,
        platform=options.platform or this_platform(),
        places=Places(options.root),
        spool=stage.spool,
        limits=_limits(stage, options),
        open_image=image_opener(options, progress),
        output=options.output,
        progress=progress,
    )
    with _open_tree(stage) as root_fd:
        mapped = _map(image, observe(StandingTree(root_fd), image.config), name, options)
    return image, mapped, list(notes)


def _limits(stage: Staging, options: Options) -> Limits:
    return Limits(options.max_entries, _room(stage) if options.max_size is None else options.max_size)


def _resolve(source: str | Reference, options: Options) -> tuple[Reference, str]:
    reference = with_transport(parse_reference(source) if isinstance(source, str) else source)
    if options.build != BuildChoices() and reference.transport != "dockerfile":
        raise ConversionError(f"{source} is no Dockerfile, and only for one there is something to build")
    if options.name is not None:
        check_machine_name(options.name)
        return reference, options.name
    return reference, own_name(reference, Places(options.root))


def _decide(
    image: Image,
    name: str,
    progress: Progress,
    limits: Limits,
    writer: TreeWriter | None,
    *,
    options: Options,
) -> tuple[Plan, Mapped]:
    if image.platform.os != "linux":
        raise ConversionError(f"the image is for {image.platform}; only Linux images can become machines")
    merged = scan(
        image.layers,
        progress=progress,
        limits=limits,
        keep=writer.keep if writer is not None else None,
        drop=writer.drop if writer is not None else None,
    )
    return merged, _map(image, observe(merged, image.config), name, options)


def _map(image: Image, facts: Facts, name: str, options: Options) -> Mapped:
    return map_image(
        image,
        facts,
        name=name,
        host=this_platform(),
        heading=heading_of(image),
        options=_run_options(name, options),
    )


def _run_options(name: str, options: Options) -> RunOptions:
    """What the mapping cannot know by itself: it depends on the host and its other machines."""
    places = Places(options.root)
    used = used_addresses(places, name)
    address = recorded_address(places, name)
    if address is None or address in used:
        address = free_address(used, name)
    return RunOptions(
        network=options.network,
        ports=options.ports,
        publish_all=options.publish_all,
        volumes=options.volumes,
        hardening=options.hardening,
        systemd=options.systemd or installed_version(options.root) or OLDEST_SYSTEMD,
        restart_unhealthy=options.restart_unhealthy,
        address=address,
        resolv_conf=resolv_conf_mode(options.root),
        trusted=options.trust,
    )


def _room(stage: Staging) -> int:
    """Bytes that are free where the tree is made."""
    room = os.statvfs(stage.path)
    return room.f_bavail * room.f_frsize


@contextmanager
def _open_tree(stage: Staging) -> Iterator[int]:
    root_fd = os.open(stage.tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield root_fd
    finally:
        os.close(root_fd)


@contextmanager
def _disk_errors(stage: Staging) -> Iterator[None]:
    """A full or broken disk, wherever it shows, is one line."""
    try:
        yield
    except OSError as error:
        where = error.filename or stage.path.parent
        kind = NoRoomError if error.errno in {errno.ENOSPC, errno.EDQUOT} else ConversionError
        raise kind(f"cannot write below {stage.path.parent}: {error.strerror} ({where})") from None
    except shutil.Error as error:
        raise ConversionError(f"cannot write below {stage.path.parent}: {error}") from None
