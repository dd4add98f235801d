"""The way from a source to a machine, end to end: `plan` decides, `convert` also writes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from converter import interrupt
from converter.dockerfile.choices import BuildChoices
from converter.errors import ConversionError
from converter.image import archive, layout
from converter.image.model import Image, Platform, this_platform
from converter.image.reference import Reference, Transport, check_machine_name, machine_name, parse_reference
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
from converter.systemd import installed_version, resolv_conf_mode
from converter.volumes import fill_volumes

if TYPE_CHECKING:
    from converter.dockerfile.translate import Translated


def plan(source: str, options: Options, progress: Progress) -> Result:
    """Everything that `convert` would decide; writes nothing but what it fetches into a temporary directory.

    Raises ConversionError when the source cannot be converted.
    """
    reference, name = _resolve(source, options)
    if reference.transport == "dockerfile":
        return _plan_dockerfile(reference, name, options, progress)
    with tempfile.TemporaryDirectory(prefix="docker2nspawn-") as spool:
        image = _open(reference, options, Path(spool), progress)
        _, mapped = _decide(
            image, name, progress, Limits(options.max_entries, options.max_size), None, options=options
        )
    result = result_of(image, mapped, Places(options.root), options)
    refuse_losses(result, options)
    return result


def convert(source: str, options: Options, progress: Progress) -> Result:
    """Make the machine and put it in its place.

    Raises ConversionError, with everything as it was before, when that cannot be done.
    """
    interrupt.in_time()
    reference, name = _resolve(source, options)
    places = Places(options.root)
    recover(places)
    check_free(places, name, force=options.force)
    with staging(places) as stage, _disk_errors(stage):
        make = _build if reference.transport == "dockerfile" else _unpack
        with _open_tree(stage) as root_fd:
            image, mapped, further = make(reference, name, stage, root_fd, options=options, progress=progress)
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
            files_of(image, mapped, result, reference, places, options),
            trusted=result.trusted_path is not None,
            volumes=volumes,
            address=mapped.machine.address,
        )
        install(stage, places, name, files, force=options.force)
    return result


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
    return translate(wanted, _image_opener(options, progress))


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
    reference: Reference, name: str, stage: Staging, root_fd: int, *, options: Options, progress: Progress
) -> tuple[Image, Mapped, list[Note]]:
    """Write the tree of an image; what the mapping cannot know is in the notes."""
    image = _open(reference, options, stage.spool, progress)
    limits = _limits(stage, options)
    with writing(root_fd, ownership=os.geteuid() == 0) as writer:
        merged, mapped = _decide(image, name, progress, limits, writer, options=options)
        refuse_losses(result_of(image, mapped, Places(options.root), options), options)
        losses = [Note("dropped", "files", loss) for loss in writer.finish(merged, progress)]
    return image, mapped, losses


def _build(
    reference: Reference, name: str, stage: Staging, root_fd: int, *, options: Options, progress: Progress
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
        open_image=_image_opener(options, progress),
        output=options.output,
        progress=progress,
    )
    mapped = _map(image, observe(StandingTree(root_fd), image.config), name, options)
    return image, mapped, list(notes)


def _image_opener(options: Options, progress: Progress) -> Callable[[str, Platform | None, Path], Image]:
    """Takes the images that a Dockerfile speaks of from where they are."""

    def open_image(source: str, platform: Platform | None, spool: Path) -> Image:
        wanted = replace(options, platform=platform or options.platform)
        reference = _with_transport(parse_reference(source))
        if reference.transport == "dockerfile":
            raise ConversionError(
                f"{source} is a Dockerfile, not an image; convert it first, or build it into this one"
            )
        return _open(reference, wanted, spool, progress)

    return open_image


def _limits(stage: Staging, options: Options) -> Limits:
    return Limits(options.max_entries, _room(stage) if options.max_size is None else options.max_size)


def _resolve(source: str, options: Options) -> tuple[Reference, str]:
    reference = _with_transport(parse_reference(source))
    if options.build != BuildChoices() and reference.transport != "dockerfile":
        raise ConversionError(f"{source} is no Dockerfile, and only for one there is something to build")
    if options.name is not None:
        check_machine_name(options.name)
        return reference, options.name
    return reference, own_name(reference, Places(options.root))


def _with_transport(reference: Reference) -> Reference:
    """A bare image name is the daemon's if the daemon has it, else the registry's."""
    if reference.transport != "image":
        return reference
    from converter.image import daemon

    transport: Transport = "docker-daemon" if daemon.has_image(reference.name) else "docker"
    return replace(reference, transport=transport)


def _open(reference: Reference, options: Options, spool: Path, progress: Progress) -> Image:
    platform = options.platform or this_platform()
    match reference.transport:
        case "docker-daemon":
            from converter.image import daemon  # here, because Docker's SDK takes long to load

            return daemon.open_image(
                reference.name, platform=options.platform, spool=spool, progress=progress
            )
        case "container":
            from converter.image import daemon

            return daemon.open_container(reference.name, spool=spool, progress=progress)
        case "docker":
            from converter.image import registry

            return registry.fetch(
                reference.name,
                platform=platform,
                spool=spool,
                progress=progress,
                plain_http=options.plain_http,
            )
        case "oci":
            return layout.open_layout(Path(reference.name), reference.tag, platform=platform)
        case _:
            return archive.open_archive(
                Path(reference.name),
                reference.tag,
                platform=platform,
                spool=spool,
                progress=progress,
                oci=reference.transport == "oci-archive",
            )


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
        raise ConversionError(f"cannot write below {stage.path.parent}: {error.strerror} ({where})") from None
    except shutil.Error as error:
        raise ConversionError(f"cannot write below {stage.path.parent}: {error}") from None
