"""What an image *is*, wherever it came from: the only thing the rest of the program knows about sources.

Field names are the OCI image-spec's (https://github.com/opencontainers/image-spec, config.md), plus the
ones that only Docker has (https://github.com/moby/docker-image-spec).
"""

from __future__ import annotations

import platform as host_platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.errors import ConversionError


@dataclass(frozen=True)
class Platform:
    """Operating system and processor, in Go's names: linux/amd64, linux/arm64, linux/arm/v7."""

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


_MACHINES = {  # uname -m -> Go's GOARCH and variant
    "x86_64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", None),
    "i686": ("386", None),
    "ppc64le": ("ppc64le", None),
    "s390x": ("s390x", None),
    "riscv64": ("riscv64", None),
    "loongarch64": ("loong64", None),
}


def this_platform() -> Platform:
    """The platform of this machine."""
    machine = host_platform.machine()
    architecture, variant = _MACHINES.get(machine, (machine, None))
    return Platform("linux", architecture, variant)


def parse_platform(text: str) -> Platform:
    """Read `os/arch[/variant]` or `arch`, as `docker --platform` takes it.

    Raises ConversionError when it is neither.
    """
    parts = text.lower().split("/")
    if len(parts) == 1:
        parts = ["linux", *parts]
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise ConversionError(f"'{text}' is not a platform; write it like linux/arm64 or linux/arm/v7")
    aliases = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
    return Platform(parts[0], aliases.get(parts[1], parts[1]), parts[2] if len(parts) == 3 else None)


@dataclass(frozen=True)
class Healthcheck:
    """HEALTHCHECK: `test` as Docker stores it (["CMD", ...], ["CMD-SHELL", line], ["NONE"]); times in ns."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True)
class ImageConfig:
    """The `config` object of an image, and what stands beside it, parsed and checked.

    `other` holds every field that this program has no name for, by its path ("config.Foo"), so that it can
    be reported instead of being lost.
    """

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    open_stdin: bool = False
    network_disabled: bool = False
    mac_address: str = ""
    stop_timeout: int | None = None
    args_escaped: bool = False
    author: str = ""
    created: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    other: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """One layer: the `size` bytes at `offset` of the file `path`, a tar that may be compressed.

    `digest` is that of those bytes, `diff_id` that of the uncompressed tar; either is None where the source
    has no such thing (a container's own changes, an export), and is verified where it is given.
    Compression is told by the bytes themselves, not by a media type.
    """

    path: Path
    offset: int
    size: int
    digest: str | None = None
    diff_id: str | None = None


@dataclass(frozen=True)
class UnpackedLayer:
    """A layer as Docker's overlay2 keeps it: the files below `directory`, and in `recipe` what else its tar held.

    `recipe` is tar-split's, from which Docker itself makes the tar again, byte for byte. `size` is that of the files'
    contents together. `diff_id` is the digest of the tar, and is verified.
    """

    directory: Path
    recipe: Path
    size: int
    diff_id: str

    @property
    def digest(self) -> None:
        """It has none: nothing is compressed."""
        return


@dataclass(frozen=True)
class Image:
    """An image at rest: config and layers, base layer first.

    `source` is the reference in full, with its transport. `digest` is the manifest's digest, or where there
    is none the config's (the image ID). `container` is what `docker inspect` said when the source is a
    container, and `docker_root` where the root directory of that daemon's host is found from here (None: nowhere).
    `losses` names what the source could not give, ready to be reported.
    """

    source: str
    digest: str | None
    platform: Platform
    config: ImageConfig
    layers: tuple[Layer | UnpackedLayer, ...]
    container: Mapping[str, Any] | None = None
    docker_root: Path | None = None
    losses: tuple[str, ...] = ()
