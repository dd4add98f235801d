"""The mapping: pure, so every decision can be seen without Docker, root or a disk."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from converter.errors import ConversionError
from converter.image.model import Healthcheck, Image, ImageConfig, Platform
from converter.machine.command import parse_signal
from converter.machine.facts import DEFAULT_PATH, Facts
from converter.machine.launcher import LAUNCHER_PATH
from converter.machine.mapping import Mapped, RunOptions, map_image
from converter.machine.model import Machine, Network, Port, TreeChange
from converter.note import Note

AMD64 = Platform("linux", "amd64")
DEBIAN = Facts(
    passwd=b"root:x:0:0:root:/root:/bin/bash\napp:x:1000:1000::/home/app:/bin/sh\n",
    group=b"root:x:0:\napp:x:1000:\nadm:x:4:app\n",
    program="/usr/bin/program",
)


def mapped(
    config: ImageConfig,
    facts: Facts = DEBIAN,
    platform: Platform = AMD64,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    **more: Any,
) -> Mapped:
    image = Image("docker-daemon:test", "sha256:0", platform, config, (), **more)
    return map_image(image, facts, name="web", host=AMD64, heading="Made by a test", options=options)


def command_of(machine: Machine) -> tuple[str, ...]:
    """What the launcher runs."""
    assert machine.parameters[0] == LAUNCHER_PATH
    return machine.parameters[machine.parameters.index("--") + 1 :]


def notes_on(result: Mapped, subject: str) -> list[Note]:
    return [note for note in result.notes if note.subject.startswith(subject)]


def test_a_plain_root_command() -> None:
    result = mapped(ImageConfig(entrypoint=("/bin/sh", "-c"), cmd=("echo 'a b'",), env=("A=1",)))
    machine = result.machine
    assert command_of(machine) == ("/bin/sh", "-c", "echo 'a b'")
    assert {"--groups=0", "--gid=0", "--uid=0", "--clean"} <= {*machine.parameters}
    assert machine.environment == (f"PATH={DEFAULT_PATH}", "HOSTNAME=web", "A=1", "HOME=/root")
    assert not machine.boot
    assert machine.kill_signal == "SIGTERM"
    assert "CAP_SYS_ADMIN" in machine.drop_capability
    assert machine.capability == ()
    assert [change.path for change in result.changes] == [
        LAUNCHER_PATH,
        "/etc/mtab",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
    ]


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (ImageConfig(cmd=("/program", "a\nb")), {"--escaped"}),
        (ImageConfig(cmd=("/program",), env=("A=1\n2",)), {"--escaped", "--setenv=A=1\\n2"}),
        (ImageConfig(cmd=("/program",), user="app"), {"--uid=1000", "--gid=1000", "--groups=1000,4"}),
        (ImageConfig(cmd=("/program",), user="65532:7"), {"--uid=65532", "--gid=7", "--groups=7"}),
        (
            ImageConfig(cmd=("/program",), env=("LANG=C", "container=mine")),
            {"--keep=LANG", "--keep=container"},
        ),
    ],
)
def test_what_the_launcher_is_told(config: ImageConfig, options: set[str]) -> None:
    assert options <= {*mapped(config).machine.parameters}


def test_root_in_more_groups_is_not_plain_root() -> None:
    facts = replace(DEBIAN, group=b"root:x:0:root\nwheel:x:10:root\n")
    assert "--groups=0,10" in mapped(ImageConfig(cmd=("/program",)), facts).machine.parameters


def test_no_launcher_for_the_processor_is_an_error_only_where_it_is_needed() -> None:
    strange = Platform("linux", "mips64le")
    assert mapped(ImageConfig(cmd=("/program",)), platform=strange).machine.parameters == ("/program",)
    with pytest.raises(ConversionError, match="mips64le"):
        mapped(ImageConfig(cmd=("/program",), user="app"), platform=strange)


def test_env_as_docker_merges_it() -> None:
    config = ImageConfig(cmd=("/p",), env=("PATH=/opt/bin", "A=1", "HOME=/elsewhere", "A=2", "HOSTNAME"))
    assert mapped(config).machine.environment == ("PATH=/opt/bin", "A=2", "HOME=/elsewhere")


@pytest.mark.parametrize(
    ("command", "program", "boots"),
    [
        (("/sbin/init",), "/usr/lib/systemd/systemd", True),
        (("/lib/systemd/systemd", "--log-level=debug"), "/usr/lib/systemd/systemd", True),
        (("/usr/sbin/init",), "/usr/bin/busybox", True),
        (("/init",), "/init", False),
        (("/bin/sh",), "/bin/busybox", False),
    ],
)
def test_which_images_boot(command: tuple[str, ...], program: str, boots: bool) -> None:
    result = mapped(ImageConfig(cmd=command), replace(DEBIAN, program=program))
    assert result.machine.boot is boots
    if boots:
        assert result.machine.parameters == command[1:]
        assert result.machine.drop_capability == ()
        assert result.machine.kill_signal is None


def test_an_init_without_os_release_or_for_a_user_is_a_program() -> None:
    init = replace(DEBIAN, program="/usr/lib/systemd/systemd")
    assert not mapped(ImageConfig(cmd=("/sbin/init",)), replace(init, has_os_release=False)).machine.boot
    assert not mapped(ImageConfig(cmd=("/sbin/init",), user="app"), init).machine.boot


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SIGTERM", "SIGTERM"),
        ("quit", "SIGQUIT"),
        ("9", "SIGKILL"),
        ("SIGRTMIN+3", "SIGRTMIN+3"),
        ("rtmin", "SIGRTMIN+0"),
        ("SIGRTMAX-2", "SIGRTMIN+28"),
        ("37", "SIGRTMIN+3"),
        ("0", None),
        ("65", None),
        ("SIGNONE", None),
        ("RTMIN+31", None),
        ("SIG_DFL", None),
        ("", None),
    ],
)
def test_signals(text: str, name: str | None) -> None:
    assert parse_signal(text) == name


def test_an_unknown_stop_signal_is_reported() -> None:
    result = mapped(ImageConfig(cmd=("/p",), stop_signal="SIGNONE"))
    assert result.machine.kill_signal == "SIGTERM"
    assert [note.kind for note in notes_on(result, "STOPSIGNAL")] == ["dropped"]


def test_directories_that_docker_makes() -> None:
    config = ImageConfig(cmd=("/p",), working_dir="/srv/app", volumes=("/data", "/srv/there"))
    result = mapped(config, replace(DEBIAN, directories=frozenset({"/srv/there"})))
    assert result.machine.working_directory == "/srv/app"
    assert {change for change in result.changes if change.kind == "dir"} == {
        TreeChange("/srv/app", "dir"),
        TreeChange("/data", "dir"),
    }


def test_a_tree_of_one_static_program() -> None:
    bare = Facts(program="/server", has_usr=False, has_os_release=False)
    result = mapped(ImageConfig(entrypoint=("/server",)), bare)
    assert {change.path for change in result.changes} == {
        LAUNCHER_PATH,
        "/etc/mtab",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
    }
    assert "HOME=/" in result.machine.environment


def test_run_content_is_bound_over_the_tmpfs() -> None:
    result = mapped(ImageConfig(cmd=("/p",)), replace(DEBIAN, run=("postgresql", "systemd")))
    assert [(b.source, b.destination) for b in result.machine.binds] == [
        ("+/usr/lib/docker2nspawn/run/postgresql", "/run/postgresql")
    ]
    assert [note.kind for note in notes_on(result, "/run/systemd")] == ["dropped"]


FULL = ImageConfig(
    user="app",
    env=("A=1",),
    entrypoint=("/entry",),
    cmd=("arg",),
    working_dir="/work",
    stop_signal="SIGINT",
    volumes=("/data",),
    exposed_ports=("80/tcp",),
    labels={"l": "v"},
    healthcheck=Healthcheck(("CMD", "/check")),
    shell=("/bin/bash", "-c"),
    on_build=("RUN x",),
    hostname="h",
    domainname="d",
    tty=True,
    open_stdin=True,
    network_disabled=True,
    mac_address="02:00:00:00:00:01",
    stop_timeout=3,
    args_escaped=True,
    author="somebody",
    created="2020-01-01T00:00:00Z",
    os_version="1",
    os_features=("f",),
    other={"config.New": 1},
)


@pytest.mark.parametrize("field", [f.name for f in fields(ImageConfig)])
def test_no_field_is_lost_silently(field: str) -> None:
    """Take one field of a full config away: the report must change, so the field was spoken of."""
    value: Any = getattr(ImageConfig(), field)
    assert getattr(FULL, field) != value
    without = replace(FULL, **{field: value})
    containers: list[dict[str, Any] | None] = [None, {}]
    for container in containers:
        assert set(mapped(FULL, container=container).notes) != set(mapped(without, container=container).notes)


def test_a_host_name_is_the_containers_not_the_images() -> None:
    config = ImageConfig(cmd=("/p",), hostname="db.example.org")
    assert mapped(config).machine.hostname is None
    assert "HOSTNAME=web" in mapped(config).machine.environment
    of_container = mapped(config, container={})
    assert of_container.machine.hostname == "db.example.org"
    assert "HOSTNAME=db.example.org" in of_container.machine.environment
    strange = mapped(replace(config, hostname="a_b"), container={})
    assert strange.machine.hostname is None
    assert [note.kind for note in notes_on(strange, "Hostname")] == ["dropped"]


def test_a_container_runs_as_docker_was_told() -> None:
    inspected = {
        "Name": "/web",
        "HostConfig": {
            "Memory": 64 << 20,
            "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
            "NetworkMode": "host",
            "CapAdd": ["NET_ADMIN"],
            "ReadonlyRootfs": True,
        },
        "Mounts": [
            {"Type": "bind", "Source": "/a", "Destination": "/b", "RW": False},
            {
                "Type": "volume",
                "Name": "v",
                "Source": "/docker/v",
                "Destination": "/data",
                "RW": True,
                "Driver": "local",
            },
        ],
    }
    machine = mapped(ImageConfig(cmd=("/p",), volumes=("/data", "/own")), container=inspected).machine
    assert machine.network is None
    assert machine.read_only
    assert [(b.source, b.destination, b.read_only) for b in machine.binds] == [
        ("/a", "/b", True),
        ("/var/lib/docker2nspawn/volumes/v", "/data", False),
        ("/var/lib/docker2nspawn/volumes/web+own", "/own", False),
    ]
    assert {("MemoryMax", str(64 << 20)), ("Restart", "always")} <= {(s.key, s.value) for s in machine.unit}
    assert "CAP_NET_ADMIN" not in machine.drop_capability


def test_data_that_is_being_written_is_not_copied() -> None:
    volume = {
        "Type": "volume",
        "Name": "v",
        "Source": "/s",
        "Destination": "/data",
        "RW": True,
        "Driver": "local",
    }
    inspected = {"Name": "/web", "State": {"Running": True}, "Mounts": [volume]}
    with pytest.raises(ConversionError, match="docker stop web"):
        mapped(ImageConfig(cmd=("/p",)), container=inspected)
    kept = mapped(ImageConfig(cmd=("/p",)), container=inspected, options=RunOptions(volumes="bind"))
    assert [(bind.source, bind.destination) for bind in kept.machine.binds] == [("/s", "/data")]
    paused = {**inspected, "State": {"Running": True, "Paused": True}}
    assert mapped(ImageConfig(cmd=("/p",)), container=paused).machine.volumes[0].source == "/s"


def test_networks() -> None:
    config = ImageConfig(cmd=("/p",), exposed_ports=("80/tcp", "53/udp"))
    private = mapped(
        config, options=RunOptions(address="10.213.4.5", ports=(Port(80, 8080),), publish_all=True)
    )
    assert private.machine.network == Network("10.213.4.5", (Port(80, 8080), Port(53, 53, "udp")))
    assert private.machine.virtual_ethernet is False
    assert {
        "etc/systemd/system/docker2nspawn-network@web.service",
        "var/lib/docker2nspawn/machines/web.network",
    } == {file.path for file in private.files}
    (hosts,) = [change for change in private.changes if change.path == "/etc/hosts"]
    assert b"\n10.213.4.5\tweb\n" in hosts.content
    host = mapped(config, options=RunOptions(network="host", ports=(Port(80, 8080),)))
    assert (host.machine.network, host.files) == (None, ())
    assert [note.kind for note in notes_on(host, "publish")] == ["dropped"]
    none = mapped(config, options=RunOptions(network="none"))
    assert none.machine.network == Network("")
    assert [change for change in none.changes if b"\tweb\n" in change.content] == []


def test_a_health_check_becomes_a_timer() -> None:
    check = Healthcheck(("CMD-SHELL", "true || exit 1"), interval=1_500_000_000, retries=2)
    result = mapped(ImageConfig(cmd=("/p",), healthcheck=check), options=RunOptions(restart_unhealthy=True))
    made = result.machine.healthcheck
    assert made is not None
    assert (made.command, made.interval, made.timeout, made.retries, made.restart) == (
        ("/bin/sh", "-c", "true || exit 1"),
        1.5,
        30,
        2,
        True,
    )
    assert "etc/systemd/system/docker2nspawn-health@web.timer" in {file.path for file in result.files}


def test_secrets_are_for_root_only() -> None:
    assert mapped(ImageConfig(cmd=("/p",), env=("DB_PASSWORD=x",))).machine.secret
    assert not mapped(ImageConfig(cmd=("/p",), env=("LANG=C",))).machine.secret


def test_a_program_without_the_capabilities_to_become_a_user() -> None:
    container = {"HostConfig": {"CapDrop": ["ALL"], "CapAdd": ["NET_BIND_SERVICE"]}}
    result = mapped(ImageConfig(cmd=("/p",), user="app"), container=container)
    assert "--bounding=400" in result.machine.parameters
    assert "CAP_SETUID" not in result.machine.drop_capability
    assert "CAP_FOWNER" in result.machine.drop_capability
    (bind,) = result.machine.binds
    assert (bind.source, bind.destination, bind.read_only) == (
        "/var/lib/docker2nspawn/machines/web.launch",
        LAUNCHER_PATH,
        True,
    )
    assert bind.source[1:] in {file.path for file in result.files}


def test_an_init_of_nspawn() -> None:
    container: dict[str, Any] = {"HostConfig": {"Init": True}}
    machine = mapped(ImageConfig(cmd=("/p",)), container=container).machine
    assert (machine.process_two, machine.kill_signal) == (True, "SIGRTMIN+3")
    lost = mapped(ImageConfig(cmd=("/p",), stop_signal="SIGQUIT"), container=container)
    assert [note.kind for note in notes_on(lost, "STOPSIGNAL")] == ["dropped"]


def test_a_terminal_gives_term() -> None:
    assert "TERM=xterm" in mapped(ImageConfig(cmd=("/p",), tty=True), container={}).machine.environment


def test_strict_hardening() -> None:
    machine = mapped(
        ImageConfig(cmd=("/p",), volumes=("/data",)), options=RunOptions(hardening="strict")
    ).machine
    assert (machine.private_users, machine.private_users_ownership) == ("pick", "map")
    assert machine.no_new_privileges
    assert [bind.options for bind in machine.binds] == ["idmap"]
    assert "RestrictNamespaces" not in {setting.key for setting in machine.unit}


def test_links_where_nspawn_mounts_something_are_replaced() -> None:
    result = mapped(
        ImageConfig(cmd=("/p",)), replace(DEBIAN, run=("app",), links={"/run": "/var/run", "/dev": ""})
    )
    made = [(change.path, change.kind) for change in result.changes]
    assert {("/run", "mount point"), ("/dev", "mount point"), ("/var/run", "link")} <= {*made}
    assert made.index(("/usr/lib/docker2nspawn/run/app", "copy")) < made.index(("/run", "mount point"))


@pytest.mark.parametrize(
    ("content", "replaced"),
    [(None, False), (b"", False), (b"uninitialized\n", False), (b"0" * 32 + b"\n", False), (b"x\n", True)],
)
def test_a_machine_id_that_is_none(content: bytes | None, replaced: bool) -> None:
    result = mapped(ImageConfig(cmd=("/p",)), replace(DEBIAN, machine_id=content))
    assert ("/etc/machine-id" in {change.path for change in result.changes}) is replaced


def test_an_old_machine_without_volumes() -> None:
    result = mapped(ImageConfig(cmd=("/p",), volumes=("/data",)), options=RunOptions(volumes="none"))
    assert (result.machine.volumes, result.machine.binds) == ((), ())
    assert [note.kind for note in notes_on(result, "VOLUME")] == ["adapted"]
