"""The official base images: which tag is which release of which distribution, and the config that its image has.

Tags as of August 2026, from https://github.com/docker-library/official-images (library/debian, ubuntu, archlinux,
fedora, rockylinux, almalinux, alpine). Configs from what builds the images: debuerreotype's examples/oci-image.sh
(Debian), the Dockerfiles of archlinux-docker, docker-brew-fedora, sig-cloud-instance-images (Rocky), AlmaLinux'
container-images and docker-alpine. Those of Ubuntu, CentOS Stream and openSUSE are known from `docker inspect` only;
openSUSE's and CentOS' labels, which name the build, are left out. What has no line here is no base that is made here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from converter.image.model import ImageConfig

Distribution = Literal["debian", "ubuntu", "arch", "fedora", "rocky", "alma", "centos", "opensuse", "alpine"]

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Official:
    """What a tag stands for. `release` is the name by which the distribution's mirrors know it.

    `point`: what of the tag names a state that has passed (a date, a point release), else "".
    """

    distribution: Distribution
    release: str
    config: ImageConfig
    variant: str = ""
    point: str = ""


DEBIAN = {
    "9": "stretch",
    "10": "buster",
    "11": "bullseye",
    "12": "bookworm",
    "13": "trixie",
    "14": "forky",
}
_DEBIAN_SUITES = {*DEBIAN.values(), "stable", "testing", "unstable", "sid", "oldstable", "oldoldstable"}
_DEBIAN_LATEST = "trixie"
_DEBIAN_TAG = re.compile(r"(?P<release>[a-z]+|\d+)(?P<point>\.\d+|-\d{8})?(?:-(?P<variant>slim|backports))?")

UBUNTU = {
    "14.04": "trusty",
    "16.04": "xenial",
    "18.04": "bionic",
    "20.04": "focal",
    "22.04": "jammy",
    "22.10": "kinetic",
    "23.04": "lunar",
    "23.10": "mantic",
    "24.04": "noble",
    "24.10": "oracular",
    "25.04": "plucky",
    "25.10": "questing",
    "26.04": "resolute",
    "26.10": "stonking",
}
_UBUNTU_NAMES = {"latest": "resolute", "rolling": "resolute", "devel": "stonking"}
_UBUNTU_TAG = re.compile(r"(?P<release>[a-z]+|\d\d\.\d\d)(?P<point>-\d{8}(?:\.\d+)?)?")

_FEDORA_NAMES = {"latest": "44", "rawhide": "rawhide"}
_FEDORA_RAWHIDE = "45"
_ALMA_LATEST = "10"
# Not release 8: no newer rpm than its own can write its package database.
_ALMA_TAG = re.compile(r"(?P<release>9|10)(?P<point>\.\d+)?(?P<minimal>-minimal)?(?P<date>-\d{8})?")
_ROCKY_TAG = re.compile(r"(?P<release>9|10)(?P<point>(?:\.\d+){1,2})?(?P<minimal>-minimal)?")
_CENTOS_TAG = re.compile(r"stream(?P<release>9|10)(?P<minimal>-minimal)?")
_ALPINE_LATEST = "3.24"
_ALPINE_TAG = re.compile(r"(?P<release>3\.\d+)(?P<point>\.\d+)?")
_LEAP_NAMES = {"latest": "16.0", "16": "16.0", "15": "15.6"}
_LEAP_TAG = re.compile(r"15\.[0-6]|16\.\d")


def _config(command: str, *env: str, directory: str = "", **labels: str) -> ImageConfig:
    return ImageConfig(env=(_PATH, *env), cmd=(command,), working_dir=directory, labels=labels)


def _debian(tag: str) -> Official | None:
    if tag == "latest":
        tag = _DEBIAN_LATEST
    match = _DEBIAN_TAG.fullmatch(tag)
    if match is None:
        return None
    written, point = match["release"], match["point"] or ""
    release = DEBIAN.get(written, written)
    dotted = written.isdigit() and not point.startswith("-")
    if release not in _DEBIAN_SUITES or (point and point.startswith(".") and not dotted):
        return None
    if written.isdigit() and point.startswith("-"):
        return None
    return Official("debian", release, _config("bash"), match["variant"] or "", point.lstrip(".-"))


def _ubuntu(tag: str) -> Official | None:
    match = _UBUNTU_TAG.fullmatch(tag)
    if match is None:
        return None
    release = UBUNTU.get(match["release"], _UBUNTU_NAMES.get(match["release"], match["release"]))
    number = next((number for number, name in UBUNTU.items() if name == release), None)
    if number is None:
        return None
    config = _config("/bin/bash")
    if number >= "20.04":
        labels = {"org.opencontainers.image.ref.name": "ubuntu", "org.opencontainers.image.version": number}
        config = _config("/bin/bash", **labels)
    return Official("ubuntu", release, config, point=(match["point"] or "").lstrip("-"))


def _arch(tag: str) -> Official | None:
    match = re.fullmatch(r"(?P<variant>base|base-devel|latest)(?:-(?P<point>\d{8}\.\d+\.\d+))?", tag)
    if match is None or (match["variant"] == "latest" and match["point"]):
        return None
    variant = "devel" if match["variant"] == "base-devel" else ""
    title = "base-devel" if variant else "base"
    labels = {
        "org.opencontainers.image.title": f"Arch Linux {title} Image",
        "org.opencontainers.image.description": "Official containerd image of Arch Linux, a simple, lightweight "
        "Linux distribution aimed for flexibility.",
        "org.opencontainers.image.url": "https://gitlab.archlinux.org/archlinux/archlinux-docker/-/blob/master/README.md",
        "org.opencontainers.image.documentation": "https://wiki.archlinux.org/title/Docker#Arch_Linux",
        "org.opencontainers.image.source": "https://gitlab.archlinux.org/archlinux/archlinux-docker",
        "org.opencontainers.image.licenses": "GPL-3.0-or-later",
    }
    config = _config("/usr/bin/bash", "LANG=C.UTF-8", directory="/", **labels)
    return Official("arch", "rolling", config, variant, match["point"] or "")


def _fedora(tag: str) -> Official | None:
    release = _FEDORA_NAMES.get(tag, tag)
    number = _FEDORA_RAWHIDE if release == "rawhide" else release
    if not re.fullmatch(r"[3-9]\d", number):
        return None
    env = (f"DISTTAG=f{number}container", f"FGC=f{number}", f"FBR=f{number}")
    maintainer = "Clement Verna <cverna@fedoraproject.org>"
    return Official("fedora", release, _config("/bin/bash", *env, directory="/", maintainer=maintainer))


def _rocky(tag: str) -> Official | None:
    match = _ROCKY_TAG.fullmatch(tag)
    if match is None:
        return None
    variant = "minimal" if match["minimal"] else ""
    config = _config("/bin/bash", directory="/")
    return Official("rocky", match["release"], config, variant, (match["point"] or "").lstrip("."))


def _alma(tag: str) -> Official | None:
    tag = {"latest": _ALMA_LATEST, "minimal": f"{_ALMA_LATEST}-minimal"}.get(tag, tag)
    match = _ALMA_TAG.fullmatch(tag)
    if match is None or (match["date"] and not match["point"]):
        return None
    variant = "minimal" if match["minimal"] else ""
    point = ((match["point"] or "") + (match["date"] or "")).lstrip(".")
    return Official("alma", match["release"], _config("/bin/bash", directory="/"), variant, point)


def _alma_minimal(release: str) -> Callable[[str], Official | None]:
    """almalinux/9-minimal and the like, where the tag only says latest or a date."""

    def read(tag: str) -> Official | None:
        return _alma(f"{release}-minimal") if tag == "latest" else None

    return read


def _centos(tag: str) -> Official | None:
    match = _CENTOS_TAG.fullmatch(tag)
    if match is None:
        return None
    variant = "minimal" if match["minimal"] else ""
    return Official("centos", match["release"], _config("/bin/bash", directory="/"), variant)


def _leap(tag: str) -> Official | None:
    release = _LEAP_NAMES.get(tag, tag)
    return Official("opensuse", release, _config("/bin/bash")) if _LEAP_TAG.fullmatch(release) else None


def _tumbleweed(tag: str) -> Official | None:
    return Official("opensuse", "tumbleweed", _config("/bin/bash")) if tag == "latest" else None


def _alpine(tag: str) -> Official | None:
    config = _config("/bin/sh", directory="/")
    if re.fullmatch(r"edge|20\d{6}", tag):
        return Official("alpine", "edge", config, point="" if tag == "edge" else tag)
    match = _ALPINE_TAG.fullmatch(_ALPINE_LATEST if tag in {"latest", "3"} else tag)
    if match is None:
        return None
    return Official("alpine", match["release"], config, point=(match["point"] or "").lstrip("."))


REPOSITORIES: Mapping[str, Callable[[str], Official | None]] = {
    "docker.io/library/debian": _debian,
    "docker.io/library/ubuntu": _ubuntu,
    "docker.io/library/archlinux": _arch,
    "docker.io/archlinux/archlinux": _arch,
    "docker.io/library/fedora": _fedora,
    "registry.fedoraproject.org/fedora": _fedora,
    "quay.io/fedora/fedora": _fedora,
    "docker.io/library/rockylinux": _rocky,
    "docker.io/rockylinux/rockylinux": _rocky,
    "quay.io/rockylinux/rockylinux": _rocky,
    "docker.io/library/almalinux": _alma,
    "docker.io/almalinux/almalinux": _alma,
    "quay.io/almalinuxorg/almalinux": _alma,
    "docker.io/almalinux/9-minimal": _alma_minimal("9"),
    "docker.io/almalinux/10-minimal": _alma_minimal("10"),
    "quay.io/centos/centos": _centos,
    "docker.io/opensuse/leap": _leap,
    "docker.io/opensuse/tumbleweed": _tumbleweed,
    "registry.opensuse.org/opensuse/leap": _leap,
    "registry.opensuse.org/opensuse/tumbleweed": _tumbleweed,
    "docker.io/library/alpine": _alpine,
}
"""registry/repository -> what reads its tags."""
