"""What bootstrap.sh has to know about one base: mirrors, repositories, packages, and which parts it is made of.

Sources: debuerreotype (Debian), archlinux-docker, AlmaLinux' container-images, Alpine's genrootfs (the packages of its
minirootfs), mkosi's distribution modules (repositories and keys). The packages of Fedora, Rocky, CentOS Stream and
openSUSE are the like of those in their images' descriptions; they were not compared with the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from converter.dockerfile.bases import Base

_DEBIAN_ARCHIVED = {"stretch", "buster"}
_DEBIAN_ROLLING = {"sid", "unstable"}
_DEBIAN_SPLIT_USR = {"stretch", "buster", "bullseye", "oldoldstable"}
_DEBIAN_LIST = _DEBIAN_SPLIT_USR  # sources.list, not debian.sources
_USR_IS_MERGED = {"bookworm", "oldstable", "focal", "jammy", "kinetic", "lunar", "mantic", "noble"}
_UBUNTU_OLD = {"kinetic", "lunar", "mantic", "oracular", "plucky", "questing"}
_UBUNTU_LIST = {"trusty", "xenial", "bionic", "focal", "jammy", "kinetic", "lunar", "mantic"}
_UBUNTU_WITH_USER = {"lunar", "mantic", "noble", "oracular", "plucky", "questing", "resolute", "stonking"}
_UBUNTU_SPLIT_USR = {"trusty", "xenial", "bionic"}
_HOOK = "/usr/share/mmdebstrap/hooks/merged-usr"
_FEDORA_SUPPORTED = 43  # and later; older ones are in the archive
_FEDORA_DNF5 = 41

_COMMON_RPM = "bash coreutils-single glibc-minimal-langpack rootfiles"
_EL = (
    "binutils crypto-policies-scripts curl-minimal findutils gzip hostname iputils krb5-libs less libcurl-minimal "
    "python3-dnf-plugins-core systemd tar vim-minimal xz yum"
)
_EL_MINIMAL = "curl-minimal libcurl-minimal libusbx microdnf"


@dataclass(frozen=True)
class Settings:
    """`mirror` is where the packages come from by default. `variables` and `functions` stand at the script's beginning.

    `make` installs the packages, by them; `image` sets the tree up as the official image is, by `functions_of_image`
    alone; `end` clears up. `sources`: where apt gets the packages from, URIs with their suites.
    """

    mirror: str
    variables: Mapping[str, str]
    functions: str
    make: str
    image: str
    end: str
    functions_of_image: str = ""
    sources: tuple[tuple[str, tuple[str, ...]], ...] = ()


@cache
def part(name: str) -> str:
    """A part of the script, from its file."""
    return files("converter.dockerfile.bootstrap").joinpath(f"{name}.sh").read_text()


def _parts(name: str) -> tuple[str, str, str]:
    return part(name), part(f"{name}-image"), part(f"{name}-end")


def settings(base: Base) -> Settings:
    """What is to be known about `base`."""
    match base.distribution:
        case "debian":
            return _debian(base)
        case "ubuntu":
            return _ubuntu(base)
        case "arch":
            packages = "base base-devel" if base.variant == "devel" else "base"
            variables = {"arch": base.architecture, "packages": packages}
            return Settings(
                "https://geo.mirror.pkgbuild.com", variables, part("arch-functions"), *_parts("arch")
            )
        case "fedora":
            return _fedora(base)
        case "rocky" | "alma" | "centos":
            return _enterprise(base)
        case "opensuse":
            return _opensuse(base)
        case "alpine":
            packages = "alpine-baselayout alpine-keys alpine-release apk-tools busybox libc-utils"
            release = base.release if base.release == "edge" else f"v{base.release}"
            variables = {"arch": base.architecture, "release": release, "packages": packages}
            return Settings("https://dl-cdn.alpinelinux.org/alpine", variables, "", part("apk"), "", "")


def _function(name: str, *lines: str) -> str:
    """A shell function that prints lines, with variables expanded."""
    return f"\n{name}() {{\n    cat <<EOF_\n" + "".join(f"{line}\n" for line in lines) + "EOF_\n}\n"


def _put(path: str, text: str) -> str:
    """Shell that writes a file of the tree, with variables expanded."""
    return f"put {path} 0644 <<EOF_\n{text}EOF_\n"


def _stanza(uri: str, suites: str, components: str) -> str:
    """A source of packages as apt's newer files have it."""
    return f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {components}\nSigned-By: $keyring\n"


def _sources(
    distribution: str, stanzas: list[tuple[str, list[str]]], components: str, *, as_list: bool
) -> str:
    """Shell that writes the package sources that the image has; `stanzas` are URIs with their suites."""
    text = "\n# The image's own package sources.\n"
    if as_list:
        lines = (f"deb {uri} {suite} {components}\n" for uri, suites in stanzas for suite in suites)
        return text + _put("/etc/apt/sources.list", "".join(lines))
    text += f"""keyring=/usr/share/keyrings/{distribution}-archive-keyring.pgp
[ -s "$partial$keyring" ] || keyring=${{keyring%.pgp}}.gpg
rm -f "$partial/etc/apt/sources.list"
"""
    written = "\n".join(_stanza(uri, " ".join(suites), components) for uri, suites in stanzas)
    return text + _put(f"/etc/apt/sources.list.d/{distribution}.sources", written)


def _tuples(stanzas: list[tuple[str, list[str]]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((uri, tuple(suites)) for uri, suites in stanzas)


def _debian(base: Base) -> Settings:
    suite = base.release
    archived = suite in _DEBIAN_ARCHIVED
    host = "http://archive.debian.org" if archived else "http://deb.debian.org"
    main, security = f"{host}/debian", f"{host}/debian-security"
    sources = [f"deb $mirror {suite} main"]
    stanzas = [(main, [suite])]
    if archived:
        sources.append(f"deb $security {suite}/updates main")
        stanzas.append((security, [f"{suite}/updates"]))
    elif suite not in _DEBIAN_ROLLING:
        sources += [f"deb $mirror {suite}-updates main", f"deb $security {suite}-security main"]
        stanzas = [(main, [suite, f"{suite}-updates"]), (security, [f"{suite}-security"])]
    image = part("debian-image") + _sources("debian", stanzas, "main", as_list=suite in _DEBIAN_LIST)
    if base.variant == "backports":
        image += _put("/etc/apt/sources.list.d/backports.list", f"deb {main} {suite}-backports main\n")
    if base.variant == "slim":
        image += part("slim")
    variables = {"security": security} if len(sources) > 1 else {}
    variables |= {
        "suite": suite,
        "arch": base.architecture,
        "keyrings": "debian-archive-keyring.pgp debian-archive-keyring.gpg"
        + (" debian-archive-removed-keys.pgp debian-archive-removed-keys.gpg" if archived else ""),
        "keyring_package": "debian-archive-keyring",
        "aptopt": 'Acquire::Check-Valid-Until "false"' if archived else "",
        "hook": _HOOK if suite in _USR_IS_MERGED else "",
        "merged": "--no-merged-usr" if suite in _DEBIAN_SPLIT_USR else "--merged-usr",
        "other_script": "/usr/share/debootstrap/scripts/sid",
    }
    return Settings(
        main,
        variables,
        _function("sources", *sources),
        part("debian"),
        image,
        part("debian-end"),
        sources=_tuples(stanzas),
    )


def _ubuntu(base: Base) -> Settings:
    suite = base.release
    if suite in _UBUNTU_OLD:
        main = security = "http://old-releases.ubuntu.com/ubuntu/"
    elif base.architecture in {"amd64", "i386"}:
        main, security = "http://archive.ubuntu.com/ubuntu/", "http://security.ubuntu.com/ubuntu/"
    else:
        main = security = "http://ports.ubuntu.com/ubuntu-ports/"
    components = "main universe restricted multiverse"
    sources = [
        f"deb $mirror {suite} main",
        f"deb $mirror {suite}-updates main",
        f"deb $security {suite}-security main",
    ]
    stanzas = [(main, [suite, f"{suite}-updates", f"{suite}-backports"]), (security, [f"{suite}-security"])]
    image = part("debian-image") + _sources("ubuntu", stanzas, components, as_list=suite in _UBUNTU_LIST)
    if suite in _UBUNTU_WITH_USER:
        image += part("ubuntu")
    variables = {
        "security": security,
        "suite": suite,
        "arch": base.architecture,
        "keyrings": "ubuntu-archive-keyring.gpg ubuntu-archive-removed-keys.gpg",
        "keyring_package": "ubuntu-keyring or ubuntu-archive-keyring",
        "aptopt": "",
        "hook": _HOOK if suite in _USR_IS_MERGED else "",
        "merged": "--no-merged-usr" if suite in _UBUNTU_SPLIT_USR else "--merged-usr",
        "other_script": "/usr/share/debootstrap/scripts/gutsy",
    }
    return Settings(
        main,
        variables,
        _function("sources", *sources),
        part("debian"),
        image,
        part("debian-end"),
        sources=_tuples(stanzas),
    )


def _repository(name: str, url: str, key: str) -> list[str]:
    return [f"[{name}]", f"name={name}", f"baseurl={url}", "gpgcheck=1", f"gpgkey={key}", ""]


def _dnf(base: Base, mirror: str, repositories: list[str], packages: str, database: str) -> Settings:
    variables = {
        "release": base.release,
        "arch": base.architecture,
        "database": database,
        "packages": packages,
    }
    return Settings(mirror, variables, _function("repositories", *repositories[:-1]), *_parts("dnf"))


def _fedora(base: Base) -> Settings:
    rawhide = base.release == "rawhide"
    if rawhide or int(base.release) >= _FEDORA_SUPPORTED:
        mirror, key = "https://dl.fedoraproject.org/pub/fedora/linux", "https://fedoraproject.org/fedora.gpg"
    else:
        mirror = "https://archives.fedoraproject.org/pub/archive/fedora/linux"
        key = (
            "https://raw.githubusercontent.com/rpm-software-management/distribution-gpg-keys/main/keys/fedora/"
            f"RPM-GPG-KEY-fedora-{base.release}-primary"
        )
    tree = "development/rawhide" if rawhide else f"releases/{base.release}"
    repositories = _repository("fedora", f"$mirror/{tree}/Everything/$arch/os/", key)
    if not rawhide:
        repositories += _repository("updates", f"$mirror/updates/{base.release}/Everything/$arch/", key)
    dnf = "dnf5" if rawhide or int(base.release) >= _FEDORA_DNF5 else "dnf"
    packages = (
        f"bash coreutils {dnf} fedora-release-container glibc-minimal-langpack rootfiles rpm sudo tar "
        "util-linux-core vim-minimal"
    )
    return _dnf(base, mirror, repositories, packages, "/usr/lib/sysimage/rpm")


def _enterprise(base: Base) -> Settings:
    release = base.release
    match base.distribution:
        case "rocky":
            mirror = "https://dl.rockylinux.org/pub/rocky"
            key = f"{mirror}/RPM-GPG-KEY-Rocky-{release}"
            package = "rocky-release"
            tree = f"$mirror/{release}"
        case "alma":
            mirror = "https://repo.almalinux.org/almalinux"
            key = f"{mirror}/RPM-GPG-KEY-AlmaLinux-{release}"
            package = "almalinux-release"
            tree = f"$mirror/{release}"
        case _:
            mirror = "https://mirror.stream.centos.org"
            key = "https://www.centos.org/keys/RPM-GPG-KEY-CentOS-Official" + (
                "-SHA256" if release == "10" else ""
            )
            package = "centos-stream-release"
            tree = f"$mirror/{release}-stream"
    repositories: list[str] = []
    for name in ("BaseOS", "AppStream"):
        repositories += _repository(name.lower(), f"{tree}/{name}/$arch/os/", key)
    packages = f"{package} {_COMMON_RPM} {_EL_MINIMAL if base.variant == 'minimal' else _EL}"
    database = "/var/lib/rpm" if release == "9" else "/usr/lib/sysimage/rpm"
    return _dnf(base, mirror, repositories, packages, database)


def _opensuse(base: Base) -> Settings:
    mirror = "https://download.opensuse.org"
    if base.architecture != "x86_64":
        ports = {"ppc64le": "ppc", "s390x": "zsystems", "riscv64": "riscv"}
        mirror += f"/ports/{ports.get(base.architecture, base.architecture)}"
    if base.release == "tumbleweed":
        repositories = ["repo-oss $mirror/tumbleweed/repo/oss", "repo-update $mirror/update/tumbleweed"]
        package = "openSUSE-release"
    elif base.release.startswith("16"):
        repositories = [f"repo-oss $mirror/distribution/leap/{base.release}/repo/oss"]
        package = "Leap-release"
    else:
        repositories = [
            f"repo-oss $mirror/distribution/leap/{base.release}/repo/oss",
            f"repo-update $mirror/update/leap/{base.release}/oss",
            f"repo-sle-update $mirror/update/leap/{base.release}/sle",
            f"repo-backports-update $mirror/update/leap/{base.release}/backports",
        ]
        package = "openSUSE-release"
    packages = (
        f"bash ca-certificates-mozilla coreutils curl filesystem findutils glibc-locale-base gzip netcfg "
        f"openSUSE-build-key {package} rpm sed shadow tar timezone util-linux xz zypper"
    )
    variables = {"arch": base.architecture, "packages": packages}
    return Settings(mirror, variables, _function("repositories", *repositories), *_parts("zypper"))
