"""`docker2nspawn check`: a host is broken in one way, and exactly that is found, with the way out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.check import Finding, check, command
from converter.check.parse import parse_ports, parse_settings, split_paths, split_words
from converter.errors import ConversionError
from tests.checked import NAME, BrokenHost, convert, elf, health, make_host

LAUNCHER = "usr/lib/docker2nspawn/launch"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("converted")
    convert(root)
    return root


@pytest.fixture
def host(converted: Path, tmp_path: Path) -> BrokenHost:
    return make_host(converted, tmp_path)


def only(host: BrokenHost) -> Finding:
    """The one thing that is wrong, beside what cannot be looked at from here."""
    found = [finding for finding in host.findings() if finding.subject != "host"]
    assert len(found) == 1, found
    assert all(text and "\n" not in text for text in (found[0].text, found[0].remedy))
    return found[0]


def test_a_machine_as_it_was_installed(host: BrokenHost) -> None:
    (finding,) = host.findings()
    assert (finding.severity, finding.subject) == ("warning", "host")
    assert "firewall" in finding.text
    host.network(ports="127.0.0.1:8000-8010:8000-8010/tcp\n53:53/udp")
    assert len(host.findings()) == 1


def test_what_is_printed(host: BrokenHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(NAME, host.root, as_json=False) == 0
    assert capsys.readouterr().out.startswith("warning: host: ")
    (host.tree / LAUNCHER).unlink()
    assert command.run(NAME, host.root, as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["problem", "warning"]
    assert command.run(NAME, host.root, as_json=True) == 1
    answer = json.loads(capsys.readouterr().out)
    assert [finding["subject"] for finding in answer["findings"]] == ["launcher", "host"]
    assert set(answer["findings"][0]) == {"severity", "subject", "text", "remedy"}


def test_the_names_that_cannot_be(host: BrokenHost) -> None:
    with pytest.raises(ConversionError, match="cannot be a machine's name"):
        check("../x", host.root)
    with pytest.raises(ConversionError, match="there is no machine other below"):
        check("other", host.root)
    with pytest.raises(ConversionError, match="there is no directory"):
        check(NAME, host.root / "missing")


def remove(*paths: str) -> Callable[[BrokenHost], object]:
    def change(host: BrokenHost) -> None:
        for path in paths:
            target = host.root / path
            os.rename(target, host.root / "away")  # noqa: PTH104 (a directory may be full)

    return change


def no_usr(host: BrokenHost) -> None:
    host.replace("Parameters=/usr/lib/docker2nspawn/launch", "Parameters=/srv/launch")
    host.write(f"var/lib/machines/{NAME}/srv/launch", "", mode=0o755)
    (host.tree / "usr").rename(host.root / "away")


def tree_is_a_file(host: BrokenHost) -> None:
    host.tree.rename(host.root / "away")
    host.tree.write_text("")


def boots(host: BrokenHost, *, release: bool, init: bool) -> None:
    host.replace("Boot=no", "Boot=yes")
    if release:
        host.write(f"var/lib/machines/{NAME}/etc/os-release", "ID=x\n")
    if init:
        host.write(f"var/lib/machines/{NAME}/sbin/init", "x", mode=0o755)


def foreign_launcher(host: BrokenHost) -> None:
    (host.root / "usr/bin/systemd-nspawn").write_bytes(elf(62))
    path = host.tree / LAUNCHER
    path.write_bytes(elf(183))
    path.chmod(0o755)


def no_interpreter(host: BrokenHost) -> None:
    (host.tree / "usr/bin/hello").write_bytes(elf(62, "/lib64/ld-linux-x86-64.so.2"))


def shadowed_in_etc(host: BrokenHost) -> None:
    host.trusted.unlink()
    host.trusted.write_text(host.settings.read_text())


def shadowed_in_run(host: BrokenHost) -> None:
    host.trusted.unlink()
    host.write(f"run/systemd/nspawn/{NAME}.nspawn", host.settings.read_text())


def no_trust(host: BrokenHost) -> None:
    host.trusted.unlink()
    host.record(options={"trust": "False"})


def dangling(host: BrokenHost) -> None:
    host.trusted.unlink()
    host.trusted.symlink_to("/root/gone.nspawn")


def older_systemd(host: BrokenHost) -> None:
    for path in (host.root / "usr/lib/x86_64-linux-gnu/systemd").iterdir():
        path.rename(path.with_name("libsystemd-shared-252.so"))


def newer_key(host: BrokenHost) -> None:
    host.setting("Network", "NamespacePath=/run/netns/x")


def newer_unit_key(host: BrokenHost) -> None:
    older_systemd(host)
    host.unit_line("Unit", "SurviveFinalKillSignal=yes")


def newer_bind_option(host: BrokenHost) -> None:
    older_systemd(host)
    host.setting("Files", "Bind=/etc:/x:owneridmap")


def secret(host: BrokenHost) -> None:
    host.replace("Environment=HOSTNAME", "Environment=DB_PASSWORD=x\nEnvironment=HOSTNAME")


def secret_of_the_launcher(host: BrokenHost) -> None:
    host.replace("-- /usr/bin/hello", "--setenv=API_TOKEN=x -- /usr/bin/hello")


def bound(line: str) -> Callable[[BrokenHost], object]:
    return lambda host: host.setting("Files", line)


def other_machine(ports: str = "", address: str = "10.213.0.3") -> Callable[[BrokenHost], object]:
    def change(host: BrokenHost) -> None:
        host.network(ports="8000-8010:8000-8010/tcp\n127.0.0.1:53:53/udp")
        host.network("other", ports=ports, address=address)

    return change


def no_program(name: str) -> Callable[[BrokenHost], object]:
    def change(host: BrokenHost) -> None:
        host.network()
        (host.root / name).unlink()

    return change


def no_network_unit(host: BrokenHost) -> None:
    host.network()
    (host.root / f"etc/systemd/system/docker2nspawn-network@{NAME}.service").unlink()


def no_network_script(host: BrokenHost) -> None:
    host.network()
    (host.state / f"{NAME}.network").unlink()


def stub_resolver(host: BrokenHost) -> None:
    host.network()
    host.write("etc/resolv.conf", "nameserver 127.0.0.53\n")


def virtual_ethernet(line: str) -> Callable[[BrokenHost], object]:
    return lambda host: host.replace("VirtualEthernet=no", line)


def shell(host: BrokenHost) -> None:
    text = host.settings.read_text()
    host.settings.write_text("".join(line for line in text.splitlines(True) if "Parameters" not in line))


def lost_volume(host: BrokenHost) -> None:
    host.record(volumes=["data"])


BROKEN: dict[str, tuple[Callable[[BrokenHost], object], str, str, str]] = {
    "no tree": (remove(f"var/lib/machines/{NAME}"), "problem", "tree", "is missing"),
    "tree is a file": (tree_is_a_file, "problem", "tree", "not a directory"),
    "no /usr": (no_usr, "problem", "/usr", "refuses"),
    "no os-release": (lambda h: boots(h, release=False, init=True), "problem", "os-release", "refuses"),
    "no init": (lambda h: boots(h, release=True, init=False), "problem", "init", "/sbin/init"),
    "no launcher": (remove(f"var/lib/machines/{NAME}/{LAUNCHER}"), "problem", "launcher", "missing"),
    "launcher mode": (lambda h: (h.tree / LAUNCHER).chmod(0o644), "problem", "launcher", "not executable"),
    "foreign launcher": (foreign_launcher, "warning", "processor", "is for arm64, the host is amd64"),
    "no program": (remove(f"var/lib/machines/{NAME}/usr/bin/hello"), "problem", "program", "/usr/bin/hello"),
    "program mode": (
        lambda h: (h.tree / "usr/bin/hello").chmod(0o644),
        "problem",
        "program",
        "not an executable",
    ),
    "no interpreter": (no_interpreter, "problem", "program", "needs /lib64/ld-linux-x86-64.so.2"),
    "not in PATH": (
        lambda h: h.replace("-- /usr/bin/hello", "-- nonesuch"),
        "problem",
        "program",
        "no nonesuch",
    ),
    "no command": (shell, "problem", "command", "a shell"),
    "User=": (lambda h: h.setting("Exec", "User=app"), "problem", "User=", "getent"),
    "shifted": (
        lambda h: h.replace("PrivateUsers=no", "PrivateUsers=131072:65536"),
        "problem",
        "owners",
        "not shifted",
    ),
    "no settings": (remove(f"var/lib/machines/{NAME}.nspawn"), "problem", "settings", "is missing"),
    "untrusted": (lambda h: h.trusted.unlink(), "problem", "trust", "nspawn ignores "),
    "not trusted on purpose": (no_trust, "warning", "trust", "VirtualEthernet"),
    "dangling": (dangling, "problem", "trust", "leads to /root/gone.nspawn, which is missing"),
    "shadowed in /etc": (shadowed_in_etc, "problem", "settings", "/etc/systemd/nspawn/hello.nspawn is not a"),
    "shadowed in /run": (shadowed_in_run, "problem", "settings", "/run/systemd/nspawn/hello.nspawn is not a"),
    "writable": (lambda h: h.settings.chmod(0o666), "problem", "settings", "others than root may write"),
    "newer key": (newer_key, "problem", "NamespacePath=", "systemd 257 has no NamespacePath= (since 259)"),
    "unknown key": (
        lambda h: h.setting("Exec", "Memory=1G"),
        "warning",
        "Memory=",
        "no Memory= in [Exec]",
    ),
    "wrong section": (lambda h: h.setting("Exec", "Zone=x"), "warning", "Zone=", "no Zone= in [Exec]"),
    "secret": (secret, "warning", "secret", "can read DB_PASSWORD"),
    "secret of the launcher": (secret_of_the_launcher, "warning", "secret", "can read API_TOKEN"),
    "no drop-in": (lambda h: h.drop_in.unlink(), "problem", "drop-in", "is missing"),
    "masked": (
        lambda h: (h.root / f"etc/systemd/system/systemd-nspawn@{NAME}.service").symlink_to("/dev/null"),
        "problem",
        "unit",
        "masked",
    ),
    "newer unit key": (
        newer_unit_key,
        "problem",
        "SurviveFinalKillSignal=",
        "systemd 252 has no",
    ),
    "no network unit": (no_network_unit, "problem", "unit", "docker2nspawn-network@hello.service is missing"),
    "no network script": (no_network_script, "problem", "unit", "hello.network, which is missing"),
    "no health timer": (
        lambda h: health(h, f"etc/systemd/system/docker2nspawn-health@{NAME}.timer"),
        "problem",
        "unit",
        "docker2nspawn-health@hello.timer is missing",
    ),
    "no health script": (
        lambda h: health(h, f"var/lib/docker2nspawn/machines/{NAME}.health"),
        "problem",
        "unit",
        "hello.health, which is missing",
    ),
    "bind": (bound(r"Bind=/srv/a\:b:/data"), "problem", "/srv/a:b", "/srv/a:b is missing"),
    "bind in the tree": (bound("BindReadOnly=+/gone:/x"), "problem", "/x", "/gone is missing in the tree"),
    "overlay": (bound("Overlay=/gone::/x"), "problem", "/gone", "Overlay= in"),
    "newer bind option": (
        newer_bind_option,
        "problem",
        "Bind=",
        "no mount option owneridmap",
    ),
    "volume": (
        bound("Bind=/var/lib/docker2nspawn/volumes/data:/data"),
        "problem",
        "volume data",
        "nothing starts",
    ),
    "volume nobody binds": (lost_volume, "warning", "volume data", "no Bind= names it"),
    "same address": (other_machine(address="10.213.0.2"), "problem", "address 10.213.0.2", "machine other"),
    "same port": (other_machine("8010:80/tcp"), "problem", "port *:8000-8010/tcp", "other publishes it"),
    "same port at one address": (
        other_machine("0.0.0.0:53:53/udp"),
        "problem",
        "port 127.0.0.1:53/udp",
        "(0.0.0.0:53/udp)",
    ),
    "no ip": (no_program("usr/bin/ip"), "problem", "network", "no `ip`"),
    "no nft": (no_program("usr/sbin/nft"), "problem", "network", "neither nft nor iptables"),
    "no networkd": (virtual_ethernet("VirtualEthernet=yes"), "problem", "network", "systemd-networkd"),
    "zone": (virtual_ethernet("Zone=net"), "problem", "network", "Zone=net: nobody"),
    "stub resolver": (stub_resolver, "problem", "resolv.conf", "127.0.0.53"),
    "no resolved": (
        lambda h: h.replace("ResolvConf=copy-host", "ResolvConf=copy-uplink"),
        "problem",
        "resolv.conf",
        "no systemd-resolved",
    ),
    "no nspawn": (remove("usr/bin/systemd-nspawn"), "problem", "systemd-nspawn", "not installed"),
    "made for a newer systemd": (
        lambda h: h.record(options={"systemd": "262"}),
        "problem",
        "systemd",
        "made for systemd 262, the host has 257",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_finds_exactly_what_is_broken(what: str, host: BrokenHost) -> None:
    change, severity, subject, text = BROKEN[what]
    change(host)
    finding = only(host)
    assert (finding.severity, finding.subject) == (severity, subject)
    assert text in finding.text


def test_what_looks_broken_but_is_not(host: BrokenHost) -> None:
    host.setting("Exec", "User=root\nX-Note=mine")
    host.setting("Files", "Bind=/gone:/x\nBind=")  # taken back
    host.setting(
        "Files", "Bind=:/scratch\nBind=/etc\nBind=/etc:/a\\:b:rbind,idmap\nTemporaryFileSystem=/x:mode=755"
    )
    host.setting("X-Mine", "Anything=yes")
    host.network(ports="127.0.0.1:80:80/tcp")
    host.network("other", address="10.213.0.3", ports="127.0.0.2:80:80/tcp\n80:80/udp")
    host.config(healthcheck={"test": ["NONE"]})
    (host.tree / "usr/bin/hello").rename(host.tree / "usr/bin/other")
    host.setting("Files", "Bind=/usr:/usr/bin")  # the program is in there
    assert [finding.subject for finding in host.findings()] == ["host"]


def test_remedies_name_the_source_and_the_root(host: BrokenHost) -> None:
    (host.tree / LAUNCHER).unlink()
    remedy = only(host).remedy
    assert f"docker2nspawn convert docker-archive:{Path('fixtures/hello.tar').absolute()}" in remedy
    assert f"--name {NAME} --force --root {host.root}" in remedy


def test_what_an_image_says_stays_on_one_line(host: BrokenHost) -> None:
    host.replace("-- /usr/bin/hello", "-- 'gone\x1b[2J'")
    finding = only(host)
    assert "gone\\x1b[2J" in finding.text
    assert finding.line == f"problem: program: {finding.text}; remedy: {finding.remedy}"
    assert finding.line.isprintable()


def test_a_broken_record_is_no_obstacle(host: BrokenHost) -> None:
    for text in ("", "[]", '{"options": 1, "config": [], "volumes": {}, "notes": 2, "container": "x"}'):
        (host.state / f"{NAME}.json").write_text(text)
        assert [finding.subject for finding in host.findings()] == ["host"]


def test_no_link_in_the_tree_leads_out_of_it(host: BrokenHost) -> None:
    (host.tree / "usr/bin/hello").unlink()
    (host.tree / "usr/bin/hello").symlink_to("/bin/sh")  # the host has one, the tree has none
    assert only(host).subject == "program"
    host.write(f"var/lib/machines/{NAME}/bin/sh", "#!/usr/bin/hello\n", mode=0o755)
    assert [finding.subject for finding in host.findings()] == ["host"]


def test_words_paths_ports_and_lines_as_their_readers_take_them() -> None:
    assert split_words("""a 'b c' d"e "'f' "" \\x""") == ["a", "b c", "de f", "", "\\x"]
    assert split_words("a 'b") == []
    assert split_paths(r"/a\:b\\c:/d:") == ["/a:b\\c", "/d", ""]
    text = "# c\n[Exec]\nA=1 \\\n; c\n  2\nB = x\nnonsense\n[X]\nA=3"
    assert [(s.section, s.key, s.value) for s in parse_settings(text)] == [
        ("Exec", "A", "1    2"),
        ("Exec", "B", "x"),
        ("X", "A", "3"),
    ]
    ports = ["[::1]:80-81:80-81/tcp", "1.2.3.4:5:6/udp", "7:8/sctp", "tcp::1:2", "9/tcp"]
    assert list(map(str, parse_ports(ports))) == ["[::1]:80-81/tcp", "1.2.3.4:5/udp", "*:7/sctp"]
