"""Which image names are bases that are made here, and what their images' configs are."""

from __future__ import annotations

import pytest

from converter.dockerfile.bases import Base, find_base
from converter.dockerfile.model import ImageSource
from converter.image.model import Platform

_AMD64 = Platform("linux", "amd64")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _find(name: str, platform: Platform = _AMD64) -> Base | None:
    return find_base(ImageSource(name, platform))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("debian", "debian trixie"),
        ("debian:latest", "debian trixie"),
        ("debian:12", "debian bookworm"),
        ("debian:12.5", "debian bookworm"),
        ("debian:12.5-slim", "debian bookworm slim"),
        ("debian:bookworm-20240612", "debian bookworm"),
        ("debian:bookworm-20240612-slim", "debian bookworm slim"),
        ("debian:bookworm-backports", "debian bookworm backports"),
        ("debian:bullseye-slim", "debian bullseye slim"),
        ("debian:stable-slim", "debian stable slim"),
        ("debian:testing", "debian testing"),
        ("debian:sid", "debian sid"),
        ("debian:unstable-slim", "debian unstable slim"),
        ("debian:oldstable", "debian oldstable"),
        ("debian:buster", "debian buster"),
        ("docker.io/debian:12", "debian bookworm"),
        ("docker.io/library/debian:12", "debian bookworm"),
        ("index.docker.io/library/debian:12", "debian bookworm"),
        ("public.ecr.aws/docker/library/debian:12", "debian bookworm"),
        ("ubuntu", "ubuntu resolute"),
        ("ubuntu:rolling", "ubuntu resolute"),
        ("ubuntu:24.04", "ubuntu noble"),
        ("ubuntu:noble-20240605", "ubuntu noble"),
        ("ubuntu:jammy", "ubuntu jammy"),
        ("ubuntu:devel", "ubuntu stonking"),
        ("archlinux", "arch rolling"),
        ("archlinux:base", "arch rolling"),
        ("archlinux:base-devel", "arch rolling devel"),
        ("archlinux/archlinux:base-devel-20260816.0.574111", "arch rolling devel"),
        ("fedora:40", "fedora 40"),
        ("fedora", "fedora 44"),
        ("fedora:rawhide", "fedora rawhide"),
        ("registry.fedoraproject.org/fedora:43", "fedora 43"),
        ("rockylinux:9", "rocky 9"),
        ("rockylinux/rockylinux:9.4-minimal", "rocky 9 minimal"),
        ("docker.io/rockylinux/rockylinux:10", "rocky 10"),
        ("almalinux:9", "alma 9"),
        ("almalinux:9.4-minimal-20240530", "alma 9 minimal"),
        ("almalinux:minimal", "alma 10 minimal"),
        ("almalinux/9-minimal", "alma 9 minimal"),
        ("quay.io/centos/centos:stream9", "centos 9"),
        ("quay.io/centos/centos:stream10-minimal", "centos 10 minimal"),
        ("opensuse/leap:15.6", "opensuse 15.6"),
        ("opensuse/leap", "opensuse 16.0"),
        ("opensuse/tumbleweed", "opensuse tumbleweed"),
        ("alpine", "alpine 3.24"),
        ("alpine:3.20.1", "alpine 3.20"),
        ("alpine:3", "alpine 3.24"),
        ("alpine:edge", "alpine edge"),
        ("alpine:20260805", "alpine edge"),
    ],
)
def test_an_official_name_is_a_base(name: str, expected: str) -> None:
    base = _find(name)
    assert base is not None
    assert " ".join(filter(None, (base.distribution, base.release, base.variant))) == expected
    assert base.image == name


@pytest.mark.parametrize(
    "name",
    [
        "node:20",
        "python:3.12-slim-bookworm",
        "debian:slim",
        "debian:latest-slim",
        "debian:12-20240612",
        "debian:bookworm.5",
        "debian:potato",
        "debian:experimental",
        "debian:bookworm-slim-20240612",
        "debian:12.5.1",
        "acme/debian:12",
        "ghcr.io/library/debian:12",
        "ubuntu:24",
        "ubuntu:24.05",
        "ubuntu:precise",
        "archlinux:multilib-devel",
        "fedora:5",
        "fedora:latest-minimal",
        "rockylinux:8",
        "rockylinux:9-ubi",
        "centos:7",
        "centos:stream9",
        "quay.io/centos/centos:stream8",
        "almalinux:10-kitten",
        "opensuse/leap:42.3",
        "alpine:3.20-extra",
        "alpine:2.6",
        "scratch",
        "not a name",
        "debian@sha256:" + "0" * 64,
        "",
    ],
)
def test_any_other_name_is_none(name: str) -> None:
    assert _find(name) is None


@pytest.mark.parametrize(
    ("name", "platform", "architecture"),
    [
        ("debian:12", "linux/amd64", "amd64"),
        ("debian:12", "linux/arm64/v8", "arm64"),
        ("debian:12", "linux/arm/v7", "armhf"),
        ("debian:12", "linux/386", "i386"),
        ("fedora:44", "linux/arm64", "aarch64"),
        ("alpine:3.20", "linux/arm/v6", "armhf"),
        ("alpine:3.20", "linux/arm/v7", "armv7"),
        ("arm64v8/debian:12", None, "arm64"),
        ("i386/alpine:3.20", None, "x86"),
    ],
)
def test_the_processor_is_in_the_distributions_own_word(
    name: str, platform: str | None, architecture: str
) -> None:
    parts = platform.split("/") if platform else []
    base = find_base(ImageSource(name, Platform(*parts) if parts else None))
    assert base is not None
    assert base.architecture == architecture


def test_no_base_for_a_processor_or_system_that_the_distribution_lacks() -> None:
    assert _find("archlinux", Platform("linux", "arm64")) is None
    assert _find("debian:12", Platform("windows", "amd64")) is None
    assert _find("debian:12", Platform("linux", "wasm")) is None


@pytest.mark.parametrize(
    ("name", "command", "env"),
    [
        ("debian:12", "bash", [_PATH]),
        ("debian:bookworm-slim", "bash", [_PATH]),
        ("ubuntu:24.04", "/bin/bash", [_PATH]),
        ("alpine:3.20", "/bin/sh", [_PATH]),
        ("archlinux", "/usr/bin/bash", [_PATH, "LANG=C.UTF-8"]),
        ("fedora:44", "/bin/bash", [_PATH, "DISTTAG=f44container", "FGC=f44", "FBR=f44"]),
        ("fedora:rawhide", "/bin/bash", [_PATH, "DISTTAG=f45container", "FGC=f45", "FBR=f45"]),
        ("almalinux:9", "/bin/bash", [_PATH]),
    ],
)
def test_the_config_is_the_images(name: str, command: str, env: list[str]) -> None:
    base = _find(name)
    assert base is not None
    assert base.config.cmd == (command,)
    assert list(base.config.env) == env
    assert base.config.entrypoint == ()


def test_labels() -> None:
    ubuntu, fedora, debian = _find("ubuntu:24.04"), _find("fedora:44"), _find("debian")
    assert ubuntu is not None and fedora is not None and debian is not None
    assert ubuntu.config.labels == {
        "org.opencontainers.image.ref.name": "ubuntu",
        "org.opencontainers.image.version": "24.04",
    }
    assert fedora.config.labels == {"maintainer": "Clement Verna <cverna@fedoraproject.org>"}
    assert debian.config.labels == {}


def test_what_cannot_be_honoured_is_said() -> None:
    plain = _find("debian:12")
    dated = _find("debian:bookworm-20240612")
    pinned = _find("debian:12@sha256:" + "0" * 64)
    assert plain is not None and dated is not None and pinned is not None
    assert [note.kind for note in plain.notes] == ["adapted"]
    assert "20240612" in dated.notes[0].text and "20240612" not in plain.notes[0].text
    assert [note.kind for note in pinned.notes] == ["adapted", "dropped"]
    assert "--base image" in pinned.notes[1].text
