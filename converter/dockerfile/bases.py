"""FROM debian:bookworm-slim and the like: the bases that are made here, from the distribution's own packages."""

from __future__ import annotations

from dataclasses import dataclass

from converter.dockerfile.model import ImageSource
from converter.dockerfile.official import REPOSITORIES, Distribution
from converter.errors import ConversionError
from converter.image.model import ImageConfig, Platform, this_platform
from converter.image.name import ImageName, parse_image_name
from converter.note import Note

# Repositories that hold the official images of one processor: docker.io/arm64v8/debian.
_OF_ONE_PROCESSOR = {
    "amd64": Platform("linux", "amd64"),
    "arm32v5": Platform("linux", "arm", "v5"),
    "arm32v6": Platform("linux", "arm", "v6"),
    "arm32v7": Platform("linux", "arm", "v7"),
    "arm64v8": Platform("linux", "arm64"),
    "i386": Platform("linux", "386"),
    "ppc64le": Platform("linux", "ppc64le"),
    "riscv64": Platform("linux", "riscv64"),
    "s390x": Platform("linux", "s390x"),
}
# Other registries' copies of docker.io/library.
_COPIES = ("public.ecr.aws/docker/library/", "mirror.gcr.io/library/")

_NOT_COMPARED = frozenset({"ubuntu", "fedora", "rocky", "centos", "opensuse"})

_DEBIAN_PROCESSORS = {
    "amd64": "amd64",
    "386": "i386",
    "arm64": "arm64",
    "arm/v5": "armel",
    "arm/v7": "armhf",
    "mips64le": "mips64el",
    "ppc64le": "ppc64el",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
_RPM_PROCESSORS = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
_ALPINE_PROCESSORS = {
    "amd64": "x86_64",
    "386": "x86",
    "arm64": "aarch64",
    "arm/v6": "armhf",
    "arm/v7": "armv7",
    "loong64": "loongarch64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
_PROCESSORS: dict[Distribution, dict[str, str]] = {
    "debian": _DEBIAN_PROCESSORS,
    "ubuntu": _DEBIAN_PROCESSORS,
    "arch": {"amd64": "x86_64"},
    "fedora": _RPM_PROCESSORS,
    "rocky": _RPM_PROCESSORS,
    "alma": _RPM_PROCESSORS,
    "centos": _RPM_PROCESSORS,
    "opensuse": _RPM_PROCESSORS,
    "alpine": _ALPINE_PROCESSORS,
}


@dataclass(frozen=True)
class Base:
    """A base that is made here. `image` is its name as FROM has it, `config` what the official image's config is.

    `release` and `architecture` are the distribution's own words, as its mirrors have them ("bookworm", "armhf").
    `variant` is "", or "slim" and "backports" (Debian), "devel" (Arch), "minimal" (Rocky, Alma, CentOS).
    `notes` tell in what the result differs from the image of that name.
    """

    image: str
    distribution: Distribution
    release: str
    variant: str
    platform: Platform
    architecture: str
    config: ImageConfig
    notes: tuple[Note, ...] = ()


def find_base(source: ImageSource) -> Base | None:
    """The base that the image's name stands for; None: any other image, also where its name is none."""
    try:
        name = parse_image_name(source.name)
    except ConversionError:
        return None
    repository, platform = _official(name)
    platform = source.platform or platform or this_platform()
    read = REPOSITORIES.get(repository)
    found = read(name.tag) if read and name.tag else None
    if found is None or platform.os != "linux":
        return None
    architecture = _PROCESSORS[found.distribution].get(_processor(platform))
    if architecture is None:
        return None
    subject = f"FROM {source.name}"
    text = (
        "made here from the distribution's own packages as they are today, not the image that a registry has"
    )
    if found.distribution in _NOT_COMPARED:
        text += "; the set of packages is close to the image's, but was not compared with it"
    if found.point:
        text += f"; {found.point} has passed"
    notes = [Note("adapted", subject, text)]
    if name.digest:
        notes.append(
            Note(
                "dropped",
                subject,
                "a digest names one image of a registry, and what is made here is another; with --base image that "
                "image is taken",
            )
        )
    return Base(
        source.name,
        found.distribution,
        found.release,
        found.variant,
        platform,
        architecture,
        found.config,
        tuple(notes),
    )


def _official(name: ImageName) -> tuple[str, Platform | None]:
    """The repository under its first name, and the one processor that a repository's images are for."""
    repository = f"{name.domain}/{name.path}"
    for copy in _COPIES:
        if repository.startswith(copy):
            return f"docker.io/library/{repository.removeprefix(copy)}", None
    owner, _, image = name.path.partition("/")
    if name.domain == "docker.io" and owner in _OF_ONE_PROCESSOR:
        return f"docker.io/library/{image}", _OF_ONE_PROCESSOR[owner]
    return repository, None


def _processor(platform: Platform) -> str:
    """A processor as the tables above have it; variants that change nothing are left out."""
    if platform.architecture == "arm":
        return f"arm/{platform.variant or 'v7'}"
    return platform.architecture
