"""A machine's network: ports as Docker writes them, addresses, and what the script and the unit say."""

from __future__ import annotations

import configparser
import ipaddress
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConversionError
from converter.machine.model import Network, Port, UnitSetting
from converter.machine.network import (
    exposed_port,
    format_port,
    free_address,
    is_served,
    link_name,
    network_files,
    network_unit_settings,
    parse_port,
)

LONG = "a" * 64


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port(80, 80)]),
        ("8080:80", [Port(80, 8080)]),
        ("8080:80/UDP", [Port(80, 8080, "udp")]),
        ("8080:80/", [Port(80, 8080)]),
        ("9999:9999/sctp", [Port(9999, 9999, "sctp")]),
        ("0:80", [Port(80, 80)]),
        ("127.0.0.1:8080:80", [Port(80, 8080, "tcp", "127.0.0.1")]),
        ("127.0.0.1::80", [Port(80, 80, "tcp", "127.0.0.1")]),
        ("0.0.0.0:8080:80", [Port(80, 8080, "tcp", "0.0.0.0")]),
        ("[::1]:8080:80", [Port(80, 8080, "tcp", "::1")]),
        ("[::]:53:53/udp", [Port(53, 53, "udp", "::")]),
        ("[2001:DB8:0::1]::80", [Port(80, 80, "tcp", "2001:db8::1")]),
        ("::1:8080:80", [Port(80, 8080, "tcp", "::1")]),
        ("80-82", [Port(80, 80), Port(81, 81), Port(82, 82)]),
        ("8000-8001:80-81/udp", [Port(80, 8000, "udp"), Port(81, 8001, "udp")]),
        ("8000-8010:80", [Port(80, 8000)]),
        ("published=8080,target=80,protocol=udp,mode=host", [Port(80, 8080, "udp")]),
        ("target=80", [Port(80, 80)]),
    ],
)
def test_ports_as_docker_writes_them(text: str, ports: list[Port]) -> None:
    assert list(parse_port(text)) == ports


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            "8080:",
            "http",
            "80/icmp",
            "80/tcp/udp",
            "65536",
            "0",
            "-1",
            "80-",
            "-80",
            "82-80",
            "1:2:3:4:5",
        ),
        *("8000-8002:80-81", "8000:80-81", "host:80:80", "[::1:80:80", "[fe80::1%eth0]:80:80", "1.2.3:80:80"),
        *(
            "８０",
            "80 ",
            "+80",
            "8_0",
            "999999999999:80",
            "=80",
            "published,target=80",
            "80\n",
            "1.2.3.4\n:80:80",
        ),
    ],
)
def test_nonsense_is_refused_with_a_line_that_helps(text: str) -> None:
    with pytest.raises(ConversionError, match="write it like") as refused:
        parse_port(text)
    assert "\n" not in str(refused.value)


@given(st.text(alphabet="0123456789:-/[].=,tcpud ", max_size=20) | st.text(max_size=12))
def test_a_port_is_parsed_or_refused_and_reads_back(text: str) -> None:
    try:
        ports = parse_port(text)
    except ConversionError:
        return
    for port in ports:
        assert 1 <= port.port <= 65535 and 1 <= port.host_port <= 65535
        assert parse_port(format_port(port)) == (port,)


def test_exposed_ports() -> None:
    assert exposed_port("80/tcp") == (Port(80, 80),)
    assert exposed_port("53") == (Port(53, 53),)
    assert exposed_port("8000-8010/udp") == tuple(Port(n, n, "udp") for n in range(8000, 8011))
    for nonsense in ("8080:80", "", "x/tcp", "80/$(reboot)", "70000/tcp"):
        with pytest.raises(ConversionError, match="is no port"):
            exposed_port(nonsense)


def test_a_port_that_nothing_serves() -> None:
    assert is_served(Port(53, 53, "udp"))
    assert is_served(Port(80, 80, "tcp", "::1"))
    assert not is_served(Port(53, 53, "udp", "::1"))


def test_a_free_address_for_each_machine() -> None:
    web = free_address([], "web")
    assert ipaddress.ip_address(web) in ipaddress.ip_network("10.213.0.0/16")
    assert free_address([], "web") == web
    assert free_address([web], "web") != web
    assert len({free_address([], f"web{n}") for n in range(100)}) > 95
    small = ipaddress.IPv4Network("192.0.2.0/29")  # .0 and .7 are the network's, .1 is the host's
    used: list[str] = []
    for n in range(5):
        used.append(free_address(used, f"web{n}", small))
    assert sorted(used) == [f"192.0.2.{n}" for n in range(2, 7)]
    with pytest.raises(ConversionError, match="belong to machines"):
        free_address(used, "web", small)


def script(
    name: str, *ports: str, heading: str = "made here", address: str = "10.213.0.2", **sysctls: str
) -> str:
    network = Network(address, tuple(port for text in ports for port in parse_port(text)))
    (file, _) = network_files(name, network, heading, sysctls=sysctls)
    return file.content.decode()


def variables(text: str) -> dict[str, str]:
    """What a shell reads from the script's top; its commands do nothing there."""
    top = text.partition("# Above is")[0]
    names = ("NAME", "LINK", "GATEWAY", "ADDRESS", "MAC", "PORTS", "SYSCTLS")
    shown = "".join(f"printf '%s\\0' \"${name}\"\n" for name in names)
    done = subprocess.run(["/bin/sh", "-euc", top + shown], capture_output=True, check=True, text=True)
    assert done.stderr == ""
    return dict(zip(names, done.stdout.split("\0"), strict=False))


def test_the_script_holds_what_is_the_machines_own() -> None:
    read = variables(script("web.1", "8080:80", "[::1]:81:81", "127.0.0.1:53:53/udp"))
    assert (read["NAME"], read["ADDRESS"], read["GATEWAY"]) == ("web.1", "10.213.0.2", "10.213.0.1")
    assert read["MAC"] == "02:42:0a:d5:00:02"
    assert set(read["PORTS"].split()) == {"8080:80/tcp", "[::1]:81:81/tcp", "127.0.0.1:53:53/udp"}
    assert "net.ipv4.ping_group_range 0 2147483647" in read["SYSCTLS"].splitlines()


@pytest.mark.parametrize("name", ["a", "9", "Web.example-1", LONG])
def test_names_make_links_that_linux_takes(name: str) -> None:
    assert len(link_name(name)) <= 15
    assert link_name(name) != link_name(f"{name}2")
    assert link_name(name).startswith("d2n-")
    assert variables(script(name))["NAME"] == name


def test_text_from_an_image_stays_text() -> None:
    hostile = "x\n$(touch /tmp/x)\n`id`\0'"
    text = script("web", heading=hostile, **{"net.ipv4.conf.all.x": "1'; $(id) `id` \\ \""})
    assert text.splitlines()[2].startswith("# The network of machine")
    assert "net.ipv4.conf.all.x 1'; $(id) `id` \\ \"" in variables(text)["SYSCTLS"].splitlines()


def test_thousands_of_ports_are_one_line() -> None:
    read = variables(
        script("web", "10000-20000:10000-20000/udp", "10000:10000", "10002:10002", "8000-8001:80-81")
    )
    assert sorted(read["PORTS"].split()) == [
        *("10000-20000:10000-20000/udp", "10000:10000/tcp", "10002:10002/tcp", "8000:80/tcp", "8001:81/tcp"),
    ]


def test_one_port_of_the_host_leads_to_one_port() -> None:
    assert variables(script("web", "80:80", "80:80"))["PORTS"].split() == ["80:80/tcp"]
    with pytest.raises(ConversionError, match="cannot lead to both"):
        script("web", "80:80", "80:81")


@pytest.mark.parametrize(
    "key", ["kernel.shmmax", "net", "net.", "net..x", "net.ipv4.x y", "net.$(id)", "net/../kernel"]
)
def test_sysctls_of_the_network_only(key: str) -> None:
    with pytest.raises(ConversionError, match="only names that begin with net"):
        script("web", **{key: "1"})


def test_values_that_cannot_be() -> None:
    with pytest.raises(ConversionError, match="only names that begin with net"):
        script("web", **{"net.ipv4.x": "1\nkernel.x 2"})
    with pytest.raises(ConversionError, match="no IPv4 address"):
        script("web", address="10.213.0.2; reboot")
    with pytest.raises(ConversionError, match="no MAC address"):
        network_files("web", Network("10.213.0.2"), "x", mac_address="$(id)")
    (file, _) = network_files("web", Network("10.213.0.2"), "x", mac_address="02:00:00:00:00:07")
    assert variables(file.content.decode())["MAC"] == "02:00:00:00:00:07"


def test_a_sysctl_of_the_users_goes_before_ours() -> None:
    read = variables(script("web", **{"net/ipv4/ip_unprivileged_port_start": "1024"}))["SYSCTLS"].splitlines()
    assert "net.ipv4.ip_unprivileged_port_start 1024" in read
    assert "net.ipv4.ip_unprivileged_port_start 0" not in read


@pytest.mark.parametrize("name", ["web", "Web.example-1", LONG])
def test_shellcheck_is_content(name: str, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(script(name, "8080:80", "[::1]:81:81", "7000-7009:7000-7009/udp"))
    assert subprocess.run(["/bin/sh", "-n", path], check=False).returncode == 0
    if (shellcheck := shutil.which("shellcheck")) is not None:
        done = subprocess.run([shellcheck, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_unit_runs_the_script_around_the_machine() -> None:
    made, unit = network_files("web.1", Network("10.213.0.2"), "x\n[Service]\nExecStart=/bin/evil")
    assert made.mode == 0o755
    assert made.path == "var/lib/docker2nspawn/machines/web.1.network"
    assert unit.path == "etc/systemd/system/docker2nspawn-network@web.1.service"
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.content.decode())
    assert shlex.split(parser["Service"]["ExecStart"]) == ["/bin/sh", f"/{made.path}", "up"]
    assert parser["Unit"]["StopWhenUnneeded"] == "yes"
    assert parser["Unit"]["Before"] == "systemd-nspawn@web.1.service"
    assert network_unit_settings("web.1") == (
        UnitSetting("Unit", "BindsTo", "docker2nspawn-network@web.1.service"),
        UnitSetting("Unit", "After", "docker2nspawn-network@web.1.service"),
        UnitSetting("Service", "NetworkNamespacePath", "/run/netns/d2n-web.1"),
    )
