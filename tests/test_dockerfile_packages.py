"""Which RUNs do nothing but install packages, and when those may be installed before all else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converter.dockerfile.bases import Base, find_base
from converter.dockerfile.model import ImageSource, Mount, Run
from converter.dockerfile.packages import liftable, read
from tests import steps
from tests.steps import STATE

_PLAIN = "apt-get update && apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*"


def _base(name: str = "debian:bookworm") -> Base:
    base = find_base(ImageSource(name, steps.AMD64))
    assert base is not None
    return base


@pytest.mark.parametrize(
    ("line", "packages"),
    [
        (_PLAIN, ["curl"]),
        (
            "apt-get update -qq && apt-get -y install --no-install-recommends ca-certificates libstdc++6 g++ "
            "nginx=1.22.1-9+deb12u3 && apt-get clean && rm -rf /var/lib/apt/lists/*",
            ["ca-certificates", "libstdc++6", "g++", "nginx=1.22.1-9+deb12u3"],
        ),
        (
            "set -eux; apt-get update; apt-get install -yq --no-install-recommends a1 'b2' \"c3\"; "
            "rm -rf /var/lib/apt/lists/*",
            ["a1", "b2", "c3"],
        ),
        (
            "apt-get update     && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \\\n"
            "    tzdata \\\n    git && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives",
            ["tzdata", "git"],
        ),
        (
            "apt update && apt install -y --no-install-recommends vim vim && rm -rf /var/lib/apt/lists/",
            ["vim"],
        ),
    ],
)
def test_plain_lines_of_apt(line: str, packages: list[str]) -> None:
    assert read(steps.run(line), _base()) == tuple(packages)


@pytest.mark.parametrize(
    "line",
    [
        "apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*",  # with what is recommended
        "apt-get update && apt-get install --no-install-recommends curl && rm -rf /var/lib/apt/lists/*",
        "apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*",  # no lists: fails
        "apt-get update && apt-get install -y --no-install-recommends curl",  # the lists stay
        "apt-get update; apt-get install -y --no-install-recommends curl; rm -rf /var/lib/apt/lists/*",
        _PLAIN + " && curl https://example.org",
        _PLAIN + " || true",
        _PLAIN + " &",
        _PLAIN + "; true",
        _PLAIN + " > /log",
        _PLAIN + " && rm -rf /var/cache/*",
        _PLAIN + " && rm -rf /etc",
        _PLAIN + " # why",
        _PLAIN + "\ntrue",
        "true && " + _PLAIN,
        "cd /tmp && " + _PLAIN,
        "! " + _PLAIN,
        "export A=b && " + _PLAIN,
        "FOO=bar " + _PLAIN,
        "(" + _PLAIN + ")",
        _PLAIN.replace("curl", "$PACKAGES"),
        _PLAIN.replace("curl", "${PACKAGES}"),
        _PLAIN.replace("curl", "`cat list`"),
        _PLAIN.replace("curl", "$(cat list)"),
        _PLAIN.replace("curl", "'curl"),
        _PLAIN.replace("curl", "python3-*"),
        _PLAIN.replace("curl", "./local.deb"),
        _PLAIN.replace("curl", "/tmp/local.deb"),
        _PLAIN.replace("curl", "curl-"),
        _PLAIN.replace("curl", "curl/bookworm-backports"),
        _PLAIN.replace("curl", "libc6:i386"),
        _PLAIN.replace("curl", "task^"),
        _PLAIN.replace("curl", "curl~"),
        _PLAIN.replace("curl", "?essential"),
        _PLAIN.replace("curl", "a{b,c}"),
        _PLAIN.replace("curl", ""),
        _PLAIN.replace("install -y", "install -y -t bookworm-backports"),
        _PLAIN.replace("install -y", "install -y -o Dir=/x"),
        _PLAIN.replace("install -y", "install -y --allow-downgrades"),
        _PLAIN.replace("install", "remove"),
        _PLAIN.replace("apt-get install", "apt-get upgrade -y && apt-get install"),
        _PLAIN.replace("lists/*", "lists/*x"),
        _PLAIN.replace("rm -rf", "rm -rf --"),
        _PLAIN.replace("/var/lib/apt/lists/*", '"/var/lib/apt/lists/*"'),
        _PLAIN.replace("&&", "'&&'", 1),
        _PLAIN.replace("&&", "\\&\\&", 1),
        _PLAIN.replace("/var/lib/apt/lists/*", "\x01"),
        "",
        "&&",
        "apt-get",
    ],
)
def test_what_is_in_doubt_is_left_alone(line: str) -> None:
    assert read(steps.run(line), _base()) is None


@pytest.mark.parametrize(
    ("image", "line", "packages"),
    [
        (
            "fedora:44",
            "dnf install -y --setopt=install_weak_deps=False git make && dnf clean all",
            ["git", "make"],
        ),
        ("fedora:44", "dnf install -y git", None),
        ("fedora:44", "dnf install -y --setopt=install_weak_deps=False @core", None),
        ("fedora:44", "dnf install -y --setopt=install_weak_deps=False https://example.org/a.rpm", None),
        (
            "almalinux:9-minimal",
            "microdnf install -y --setopt=install_weak_deps=0 tar && microdnf clean all",
            ["tar"],
        ),
        ("opensuse/leap:15.6", "zypper -n install --no-recommends git && zypper clean -a", ["git"]),
        ("opensuse/leap:15.6", "zypper install git", None),
        ("archlinux", "pacman -Syu --noconfirm git && pacman -Scc --noconfirm", ["git"]),
        ("archlinux", "pacman -R --noconfirm git", None),
        ("alpine:3.20", "apk add --no-cache git", None),
        ("debian:12", "dnf install -y --setopt=install_weak_deps=False git", None),
        ("fedora:44", _PLAIN, None),
    ],
)
def test_the_other_package_managers(image: str, line: str, packages: list[str] | None) -> None:
    assert read(steps.run(line), _base(image)) == (None if packages is None else tuple(packages))


def test_a_run_that_is_more_than_a_line() -> None:
    plain = steps.run(_PLAIN)
    others: list[Run] = [
        replace(plain, script=b"x"),
        replace(plain, mounts=(Mount("cache", "/var/cache/apt"),)),
        replace(plain, network="none"),
        replace(plain, insecure=True),
        replace(plain, argv=("/bin/bash", "-c", _PLAIN)),
        replace(plain, argv=("/bin/sh", "-c", _PLAIN, "more")),
        replace(plain, argv=("apt-get", "install")),
        replace(plain, state=replace(STATE, user="app")),
    ]
    assert read(plain, _base()) is not None
    assert [read(run, _base()) for run in others] == [None] * len(others)


def test_the_first_run_may_come_first() -> None:
    frontend = replace(STATE, args=(("DEBIAN_FRONTEND", "noninteractive"),))
    stage = steps.stage(
        "debian:12",
        steps.setting("ARG DEBIAN_FRONTEND=noninteractive", frontend),
        steps.workdir("/app"),
        steps.copy("x", "/app/"),
        steps.run(_PLAIN, frontend),
        steps.run("make"),
    )
    found = liftable(stage, _base())
    assert found is not None
    assert (found.number, found.packages, found.environment) == (4, ("curl",), ())


def test_its_environment_goes_with_it() -> None:
    state = replace(
        STATE, env=(*STATE.env, ("APP_VERSION", "1.2"), ("TZ", "Europe/Berlin")), args=(("MODE", "a b"),)
    )
    found = liftable(steps.stage("debian:12", steps.run(_PLAIN, state)), _base())
    assert found is not None
    assert found.environment == (("APP_VERSION", "1.2"), ("TZ", "Europe/Berlin"), ("MODE", "a b"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/opt/bin:/usr/bin"),
        ("LD_PRELOAD", "x.so"),
        ("APT_CONFIG", "/x"),
        ("DEBIAN_FRONTEND", "readline"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("http_proxy", "x"),
        ("HTTPS_PROXY", "x"),
        ("PYTHONPATH", "/x"),
        ("HOME", "/x"),
        ("SAID", 'a "quoted" word'),
        ("LINES_OF_IT", "a\nb"),
        ("PERCENT", "%s"),
        ("DOLLAR", "$x"),
        ("ODD-NAME", "x"),
    ],
)
def test_a_telling_environment_keeps_it_in_its_place(name: str, value: str) -> None:
    known = tuple(pair for pair in STATE.env if pair[0] != name)
    stage = steps.stage("debian:12", steps.run(_PLAIN, replace(STATE, env=(*known, (name, value)))))
    assert liftable(stage, _base()) is None


@pytest.mark.parametrize(
    "destination", ["/etc/apt/sources.list", "/", "/usr/share/keyrings/", "/app/../etc/", "/root/x"]
)
def test_a_copy_that_may_matter_keeps_it_in_its_place(destination: str) -> None:
    stage = steps.stage("debian:12", steps.copy("x", destination), steps.run(_PLAIN))
    assert liftable(stage, _base()) is None


def test_a_run_before_keeps_it_in_its_place() -> None:
    assert liftable(steps.stage("debian:12", steps.run("true"), steps.run(_PLAIN)), _base()) is None


def test_pacmans_lists_may_be_needed_later() -> None:
    first, later = steps.run("pacman -Sy --noconfirm git"), steps.run("pacman -S --noconfirm make")
    assert liftable(steps.stage("archlinux", first), _base("archlinux")) is not None
    assert liftable(steps.stage("archlinux", first, later), _base("archlinux")) is None
