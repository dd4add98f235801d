"""The sources that images come from: which transport it is, and the Image at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.errors import ConversionError
from converter.fingerprint import fingerprint
from converter.image import archive, layout
from converter.image.chain import known_diff_ids
from converter.image.model import Image, Platform, this_platform
from converter.image.reference import Reference, Transport, parse_reference
from converter.options import Options
from converter.progress import Progress, Silent
from converter.rootfs.compression import is_compressed

if TYPE_CHECKING:
    from converter.image.registry import Needed

_START = 6  # bytes that tell a compressed file


@dataclass(frozen=True)
class Known:
    """What can be told of a source at little cost; of a Dockerfile no more than `context`, which stands for its files.

    `diff_ids` are those of the lowest layers that have such. `container` is what `docker inspect` says.
    """

    reference: Reference
    digest: str | None = None
    diff_ids: tuple[str, ...] = ()
    container: Mapping[str, Any] | None = None
    context: str | None = None


def look(reference: Reference, options: Options, spool: Path) -> Known:
    """What the source is now; no layer is fetched. Raises ConversionError when it cannot be told."""
    reference = with_transport(reference)
    if reference.transport == "dockerfile":
        return Known(reference, context=context_of(reference, options))
    if reference.transport in {"docker-daemon", "container"}:
        from converter.image import daemon  # here, because Docker's SDK takes long to load

        seen = daemon.look(reference.name, container=reference.transport == "container")
        return Known(reference, seen.digest, seen.diff_ids, seen.container)
    image = open_image(reference, options, spool, Silent(), lambda _: ())
    return Known(reference, image.digest, known_diff_ids(image))


def takes_room(reference: Reference) -> bool:
    """Whether already `look` has to decompress the whole source: a compressed archive."""
    if reference.transport not in {"docker-archive", "oci-archive"}:
        return False
    try:
        with Path(reference.name).open("rb") as file:
            return is_compressed(file.read(_START))
    except OSError:  # no such file, or a folder
        return False


def open_image(
    reference: Reference,
    options: Options,
    spool: Path,
    progress: Progress,
    needed: Needed | None = None,
) -> Image:
    """The image, of which no more than the `needed` layers are fetched where they lie elsewhere."""
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
                needed=needed,
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


def with_transport(reference: Reference) -> Reference:
    """A bare image name is the daemon's if the daemon has it, else the registry's."""
    if reference.transport != "image":
        return reference
    from converter.image import daemon

    transport: Transport = "docker-daemon" if daemon.has_image(reference.name) else "docker"
    return replace(reference, transport=transport)


def context_of(reference: Reference, options: Options) -> str | None:
    """What stands for the files of a Dockerfile."""
    if reference.transport != "dockerfile":
        return None
    from converter.building import locate  # here, because BuildKit's parser takes long to load

    dockerfile, context = locate(Path(reference.name), options.build.file)
    return fingerprint((dockerfile, context))


def image_opener(options: Options, progress: Progress) -> Callable[[str, Platform | None, Path], Image]:
    """Takes the images that a Dockerfile speaks of from where they are."""

    def open_one(source: str, platform: Platform | None, spool: Path) -> Image:
        wanted = replace(options, platform=platform or options.platform)
        reference = with_transport(parse_reference(source))
        if reference.transport == "dockerfile":
            raise ConversionError(
                f"{source} is a Dockerfile, not an image; convert it first, or build it into this one"
            )
        return open_image(reference, wanted, spool, progress)

    return open_one
