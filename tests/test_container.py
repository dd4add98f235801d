"""Every field of a container's HostConfig: what it becomes, and that none is lost without a word."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import ConversionError
from converter.machine.capabilities import ALL, DOCKER_DEFAULT, bounding_set, nspawn_capabilities
from converter.machine.container import ContainerSettings, container_settings
from converter.machine.limits import cpu_weight, unit_word
from converter.machine.model import Bind, Port, TemporaryFileSystem, Volume
from converter.machine.mounts import Volumes, anonymous_volume, escaped_path
from converter.machine.secrets import looks_secret

_FIXTURE = json.loads((Path(__file__).parent.parent / "fixtures/inspect-everything.json").read_text())
PLAIN: Mapping[str, Any] = _FIXTURE["plain"]
EVERYTHING: Mapping[str, Any] = _FIXTURE["everything"]
ANONYMOUS = "0" * 64


def unnamed_fields(fields: Iterable[str], made: ContainerSettings) -> list[str]:
    """Those fields of HostConfig that no note has a word about."""
    named = {note.subject.split(" ")[0] for note in made.notes}
    return [name for name in fields if f"HostConfig.{name}" not in named]


def of(
    host: Mapping[str, Any] | None = None, *, systemd: int = 257, volumes: Volumes = "copy", **more: Any
) -> ContainerSettings:
    inspected = {"HostConfig": {} if host is None else dict(host), **more}
    return container_settings(inspected, systemd=systemd, volumes=volumes, machine_name="m")


DEVICES = [f"DeviceAllow={rule}" for rule in ("", "char-pts rw", "char-* m", "block-* m")]


def unit(made: ContainerSettings) -> list[str]:
    """The lines of the unit, without those that every machine has that is not privileged."""
    lines = [f"{setting.key}={setting.value}" for setting in made.unit]
    if not made.privileged:
        at = lines.index(DEVICES[0])
        assert lines[at : at + len(DEVICES)] == DEVICES
        del lines[at : at + len(DEVICES)]
    return lines


def kinds(made: ContainerSettings, subject: str) -> set[str]:
    return {note.kind for note in made.notes if note.subject.split(" ")[0] == subject}


# Field, value, lines of the unit, kinds of its notes; what other settings become is tested below.
UNIT = [
    ("Memory", 1000, ["MemoryMax=1000", "MemorySwapMax=1000"], {"exact"}),
    ("MemorySwap", -1, ["MemorySwapMax=infinity"], {"exact"}),
    ("MemorySwap", 1000, [], {"dropped"}),
    ("MemoryReservation", 5, ["MemoryLow=5"], {"exact"}),
    ("MemorySwappiness", 0, [], {"dropped"}),
    ("MemorySwappiness", -1, [], set()),
    ("KernelMemory", 5, [], {"dropped"}),
    ("KernelMemoryTCP", 5, [], {"dropped"}),
    ("OomKillDisable", True, [], {"dropped"}),
    ("NanoCpus", 1_500_000_000, ["CPUQuota=150%"], {"exact"}),
    ("NanoCpus", 12_345_000, ["CPUQuota=1.23%"], {"adapted"}),
    ("NanoCpus", 2**62, [], {"dropped"}),
    ("CpuQuota", 50000, ["CPUQuota=50%"], {"exact"}),
    ("CpuQuota", -1, [], {"exact"}),
    ("CpuPeriod", 50000, ["CPUQuotaPeriodSec=50000us"], {"exact"}),
    ("CpuShares", 1024, ["CPUWeight=100"], {"exact"}),
    ("CpuRealtimePeriod", 5, [], {"dropped"}),
    ("CpuRealtimeRuntime", 5, [], {"dropped"}),
    ("CpusetCpus", "0-2,4", ["AllowedCPUs=0-2,4"], {"exact"}),
    ("CpusetCpus", "0-8:2/4", [], {"dropped"}),
    ("CpusetMems", "0", ["AllowedMemoryNodes=0"], {"exact"}),
    ("CpusetMems", "0\nRestart=always", [], {"dropped"}),
    ("PidsLimit", 10, ["TasksMax=11"], {"exact"}),
    ("PidsLimit", 0, ["TasksMax=infinity"], {"exact"}),
    ("PidsLimit", -1, ["TasksMax=infinity"], {"exact"}),
    ("BlkioWeight", 1000, ["IOWeight=10000"], {"exact"}),
    ("BlkioWeightDevice", [{"Path": "/dev/a b", "Weight": 10}], ['IODeviceWeight="/dev/a b" 1'], {"exact"}),
    ("BlkioDeviceReadBps", [{"Path": "/dev/a", "Rate": 9}], ["IOReadBandwidthMax=/dev/a 9"], {"exact"}),
    ("BlkioDeviceWriteBps", [{"Path": "/dev/a", "Rate": 9}], ["IOWriteBandwidthMax=/dev/a 9"], {"exact"}),
    ("BlkioDeviceReadIOps", [{"Path": "/dev/a", "Rate": 9}], ["IOReadIOPSMax=/dev/a 9"], {"exact"}),
    ("BlkioDeviceWriteIOps", [{"Path": "/dev/%n", "Rate": 9}], ["IOWriteIOPSMax=/dev/%%n 9"], {"exact"}),
    ("BlkioDeviceWriteIOps", [{"Path": "/dev/a\nb", "Rate": 9}], [], {"dropped"}),
    ("BlkioDeviceWriteIOps", [{"Path": "/dev/a", "Rate": 0}], [], {"dropped"}),
    ("CgroupParent", "a-b.slice", ["Slice=a-b.slice"], {"exact"}),
    ("CgroupParent", "/docker", [], {"dropped"}),
    ("CgroupParent", "%n.slice", [], {"dropped"}),
    ("Devices", [{"PathOnHost": "/dev/snd"}], ["DeviceAllow=char-alsa rwm"], {"exact"}),
    ("Devices", [{"PathOnHost": "/srv/x", "CgroupPermissions": "r"}], [], {"dropped"}),
    (
        "Devices",
        [{"PathOnHost": '/dev/"\\', "CgroupPermissions": "r"}],
        ['DeviceAllow="/dev/\\"\\\\" r'],
        {"exact"},
    ),
    ("Devices", [{"PathOnHost": "/dev/a\nb"}], [], {"dropped"}),
    ("DeviceCgroupRules", ["c 1:3 mr"], ["DeviceAllow=/dev/char/1:3 mr"], {"exact"}),
    ("DeviceCgroupRules", ["b 8:* rwm"], ["DeviceAllow=block-8 rwm"], {"exact"}),
    ("DeviceCgroupRules", ["a *:* rwm"], ["DeviceAllow=char-* rwm", "DeviceAllow=block-* rwm"], {"exact"}),
    ("DeviceCgroupRules", ["c *:3 r"], [], {"dropped"}),
    ("DeviceRequests", [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}], [], {"dropped"}),
    (
        "LogConfig",
        {"Type": "none", "Config": {}},
        ["StandardOutput=null", "StandardError=journal"],
        {"exact"},
    ),
    ("LogConfig", {"Type": "local", "Config": {"max-size": "1m"}}, [], {"adapted"}),
    ("LogConfig", {"Type": "syslog", "Config": {}}, [], {"dropped"}),
    ("LogConfig", {"Type": "local", "Config": {}}, [], set()),
    ("Privileged", True, ["DeviceAllow=", "DevicePolicy=auto"], {"adapted"}),
    ("Sysctls", {"kernel.domainname": "x"}, [], {"dropped"}),
    ("Sysctls", {"kernel.shmmax": "1'; x"}, [], {"dropped"}),
    ("AutoRemove", True, [], {"dropped"}),
    ("StorageOpt", {"size": "1G"}, [], {"dropped"}),
    ("Isolation", "hyperv", [], {"dropped"}),
    ("Annotations", {"a": "b"}, [], {"exact"}),
    ("ConsoleSize", [24, 80], [], {"exact"}),
    ("ContainerIDFile", "/x", [], {"exact"}),
    ("Runtime", "runsc", [], {"dropped"}),
    ("Runtime", "io.containerd.runc.v2", [], {"exact"}),
    ("PidMode", "host", [], {"dropped"}),
    ("UTSMode", "host", [], {"dropped"}),
    ("Cgroup", "container:x", [], {"dropped"}),
    ("CpuCount", 1, [], {"dropped"}),
    ("CpuPercent", 1, [], {"dropped"}),
    ("IOMaximumIOps", 1, [], {"dropped"}),
    ("IOMaximumBandwidth", 1, [], {"dropped"}),
    ("UsernsMode", "host", [], {"exact"}),
    ("CgroupnsMode", "private", [], {"exact"}),
    ("CgroupnsMode", "host", [], {"adapted"}),
    ("IpcMode", "private", [], set()),
    ("IpcMode", "host", [], {"exact"}),
    ("IpcMode", "none", [], {"adapted"}),
    ("IpcMode", "shareable", [], {"adapted"}),
    ("IpcMode", "container:x", [], {"dropped"}),
    ("VolumeDriver", "nfs", [], {"adapted"}),
    ("Binds", ["/a:/b"], [], {"dropped"}),  # not among Mounts
    ("Mounts", [{"Target": "/b", "Type": "bind"}], [], {"dropped"}),
    ("VolumesFrom", ["x"], [], {"exact"}),
    ("Links", ["/a:/b/c"], [], {"dropped"}),
    ("MaskedPaths", ["/proc/kcore"], [], {"dropped"}),
    ("ReadonlyPaths", [], [], {"dropped"}),
    ("SomethingNew", {"x": 1}, [], {"dropped"}),
    ("SomethingNew", None, [], set()),
]


@pytest.mark.parametrize(("field", "value", "lines", "noted"), UNIT)
def test_a_field_becomes_lines_of_the_unit_and_a_note(
    field: str, value: object, lines: list[str], noted: set[str]
) -> None:
    made = of({field: value})
    assert unit(made) == lines
    assert kinds(made, f"HostConfig.{field}") == noted


def test_no_container_at_all_is_what_docker_gives_an_image() -> None:
    made = container_settings({}, systemd=252, volumes="copy", machine_name="m")
    shm = TemporaryFileSystem("/dev/shm", "size=67108864,mode=1777,nosuid,nodev,noexec")
    assert unit(made) == []
    expected = ContainerSettings(DOCKER_DEFAULT, temporary_file_systems=(shm,), unit=made.unit)
    assert made == expected


def test_a_plain_container_has_nothing_lost() -> None:
    made = container_settings(PLAIN, systemd=252, volumes="copy", machine_name="m")
    assert [note for note in made.notes if note.kind == "dropped"] == []
    assert (unit(made), made.binds, made.volumes, made.ports) == ([], (), (), ())


def test_each_field_of_everything_at_once_is_named() -> None:
    plain, everything = PLAIN["HostConfig"], EVERYTHING["HostConfig"]
    differing = [name for name, value in everything.items() if value != plain.get(name)]
    assert len(differing) > 50
    made = container_settings(EVERYTHING, systemd=257, volumes="copy", machine_name="m")
    assert unnamed_fields(differing, made) == []
    assert {bind.destination for bind in made.binds} == {
        "/from/host",
        "/host share",
        "/dev/xvda",
        "/dev/fuse",
    }
    assert [(volume.name, volume.destination) for volume in made.volumes] == [
        ("lab-container-data", "/data"),
        ("m+anonymous", "/anonymous"),
        ("lab-container-shared", "/shared"),
    ]
    assert made.limits["LimitNOFILE"] == "1024:2048"
    assert (made.read_only, made.process_two, made.no_new_privileges) == (True, True, True)
    assert (made.oom_score_adjust, made.cpu_affinity, made.group_add) == (100, "0-1", ("44", "audio"))
    assert made.capabilities == (DOCKER_DEFAULT | {"CAP_NET_ADMIN", "CAP_SYS_TIME"}) - {"CAP_MKNOD"}
    assert (made.seccomp_unconfined, made.system_paths_writable, made.privileged) == (True, True, False)


@pytest.mark.parametrize(
    ("policy", "lines"),
    [
        ({"Name": "no", "MaximumRetryCount": 0}, []),
        (
            {"Name": "always", "MaximumRetryCount": 0},
            ["StartLimitIntervalSec=0", "Restart=always", "RestartSec=100ms"],
        ),
        ({"Name": "unless-stopped"}, ["StartLimitIntervalSec=0", "Restart=always", "RestartSec=100ms"]),
        ({"Name": "on-failure"}, ["StartLimitIntervalSec=0", "Restart=on-failure", "RestartSec=100ms"]),
    ],
)
def test_a_restart_policy_has_no_start_limit(policy: object, lines: list[str]) -> None:
    assert unit(of({"RestartPolicy": policy}, systemd=252)) == lines
    newer = ["RestartSteps=9", "RestartMaxDelaySec=1min"] if lines else []
    assert unit(of({"RestartPolicy": policy}, systemd=254)) == lines + newer


def test_a_limited_restart_policy_counts_as_docker_does() -> None:
    made = of({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}})
    assert [line for line in unit(made) if "ExecCondition" in line and "-le 3" in line]


def test_memory_and_swap_are_apart_in_cgroup_2() -> None:
    assert unit(of({"Memory": 100, "MemorySwap": 100})) == ["MemoryMax=100", "MemorySwapMax=0"]
    assert unit(of({"Memory": 100, "MemorySwap": 150})) == ["MemoryMax=100", "MemorySwapMax=50"]
    assert unit(of({"Memory": 100, "MemorySwap": -1})) == ["MemoryMax=100", "MemorySwapMax=infinity"]
    assert unit(of({"CpuQuota": 25000, "CpuPeriod": 50000})) == ["CPUQuotaPeriodSec=50000us", "CPUQuota=50%"]


def test_weights_are_those_of_runc() -> None:
    assert [cpu_weight(shares) for shares in (1, 2, 512, 1024, 2048, 262144, 10**9)] == [
        1,
        1,
        59,
        100,
        174,
        10000,
        10000,
    ]


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], DOCKER_DEFAULT),
        (["net_admin"], ["CAP_MKNOD"], (DOCKER_DEFAULT | {"CAP_NET_ADMIN"}) - {"CAP_MKNOD"}),
        (["ALL"], ["sys_admin"], ALL - {"CAP_SYS_ADMIN"}),
        (["chown"], ["all"], {"CAP_CHOWN"}),
        (["all"], ["all"], ALL),
        (["MKNOD"], ["MKNOD"], DOCKER_DEFAULT),
    ],
)
def test_capabilities_add_up_as_in_docker(add: list[str], drop: list[str], expected: frozenset[str]) -> None:
    assert bounding_set(add, drop, privileged=False) == (expected, ())
    assert bounding_set(add, drop, privileged=True)[0] == ALL


def test_an_unknown_capability_is_named() -> None:
    made = of({"CapAdd": ["cap_fly", "CHOWN"]})
    assert kinds(made, "HostConfig.CapAdd") == {"exact", "dropped"}
    assert made.capabilities == DOCKER_DEFAULT


def test_capabilities_in_nspawns_words() -> None:
    assert nspawn_capabilities(ALL) == (("all",), ())
    assert nspawn_capabilities(DOCKER_DEFAULT)[0] == ()
    more = DOCKER_DEFAULT | {"CAP_NET_ADMIN"}
    assert nspawn_capabilities(more)[0] == ("CAP_NET_ADMIN",)


def test_limits() -> None:
    made = of(
        {
            "Ulimits": [
                {"Name": "nofile", "Soft": 1, "Hard": 2},
                {"Name": "CORE", "Soft": -1, "Hard": -1},
                {"Name": "nproc", "Soft": 5, "Hard": 4},
                {"Name": "nice", "Soft": 41, "Hard": 41},
                {"Name": "files\nBoot=yes", "Soft": 1, "Hard": 1},
            ]
        }
    )
    assert made.limits == {"LimitNOFILE": "1:2", "LimitCORE": "infinity:infinity"}
    assert [note.kind for note in made.notes] == ["exact", "exact", "dropped", "dropped", "dropped"]


def mount(kind: str, destination: str, **more: object) -> dict[str, object]:
    return {"Type": kind, "Destination": destination, "RW": True, "Mode": "", "Propagation": "", **more}


def test_binds() -> None:
    made = of(
        {"Binds": ["/a:/b:ro", "/c:/d"], "Mounts": [{"Target": "/f", "BindOptions": {"NonRecursive": True}}]},
        Mounts=[
            mount("bind", "/b", Source="/a", RW=False, Propagation="rprivate"),
            mount("bind", "/d/", Source="/c", Propagation="rshared"),
            mount("bind", "/f", Source="/e: \\x"),
            mount("bind", "/g\n", Source="/e"),
            mount("bind", "/h", Source="/e\n"),
            mount("bind", "/", Source="/e"),
            mount("npipe", "/i", Source="x"),
        ],
    )
    assert made.binds == (Bind("/a", "/b", True), Bind("/c", "/d"), Bind("/e: \\x", "/f", False, "norbind"))
    assert [note.kind for note in made.notes if note.subject.startswith("mount")] == [
        "exact",
        "adapted",
        "exact",
        *["dropped"] * 4,
    ]
    assert kinds(made, "HostConfig.Binds") == {"exact"}
    assert made.mounted == ("/b", "/d", "/f", "/dev/shm")
    assert made.covers("/b/x") and made.covers("/b") and not made.covers("/bc")


def volume(destination: str = "/data", name: str = "v", **more: object) -> dict[str, object]:
    return mount("volume", destination, **{"Name": name, "Source": "/s/_data", "Driver": "local", **more})


def test_volumes() -> None:
    mounts = [volume(), volume("/var/a b", ANONYMOUS, RW=False)]
    made = of(Mounts=mounts)
    assert made.volumes == (
        Volume("v", "/data", "/s/_data"),
        Volume("m+var-a\\x20b", "/var/a b", "/s/_data", True),
    )
    assert of(Mounts=mounts, volumes="bind").binds == (
        Bind("/s/_data", "/data"),
        Bind("/s/_data", "/var/a b", read_only=True),
    )
    left = of(Mounts=mounts, volumes="none")
    assert (left.volumes, left.binds) == ((), ())
    assert [note.kind for note in left.notes] == ["dropped", "dropped"]


@pytest.mark.parametrize(
    ("entry", "options", "kind"),
    [
        (volume(Driver="nfs"), {}, "adapted"),
        (volume(Source=""), {}, "dropped"),
        (volume(name="../../etc"), {}, "dropped"),
        (volume(name="a/b"), {}, "dropped"),
        (volume(), {"Subpath": "x"}, "dropped"),
        (
            volume(),
            {"DriverConfig": {"Name": "local", "Options": {"type": "nfs", "device": ":/x"}}},
            "adapted",
        ),
        (volume(), {"NoCopy": True, "Labels": {"a": "b"}}, "exact"),
    ],
)
def test_volumes_that_are_not_plain(entry: dict[str, object], options: dict[str, object], kind: str) -> None:
    made = of({"Mounts": [{"Target": "/data", "Type": "volume", "VolumeOptions": options}]}, Mounts=[entry])
    assert [note.kind for note in made.notes if note.subject == "mount /data"] == [kind]
    assert bool(made.volumes) == (kind != "dropped")


@pytest.mark.parametrize(
    ("path", "escaped"),
    [
        ("/", "-"),
        ("/a/b/", "a-b"),
        ("/.x", "\\x2ex"),
        ("/a-b", "a\\x2db"),
        ("/é", "\\xc3\\xa9"),
        ("/a//b", "a-b"),
    ],
)
def test_paths_are_escaped_as_systemd_does(path: str, escaped: str) -> None:
    assert escaped_path(path) == escaped


def test_a_long_path_makes_a_name_that_a_file_system_takes() -> None:
    long = anonymous_volume("m", "/" + "é/" * 200)
    assert len(long) == 255 and long != anonymous_volume("m", "/" + "é/" * 201)


def test_tmpfs() -> None:
    made = of(
        {
            "Tmpfs": {"/run": "rw,exec,size=1m", "/dev/shm": "", "/odd": "size=\n1,uid=1"},
            "Mounts": [
                {
                    "Type": "tmpfs",
                    "Target": "/t",
                    "ReadOnly": True,
                    "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o1770, "Options": [["exec"], ["uid", "3"]]},
                }
            ],
        },
        Mounts=[mount("tmpfs", "/t", Source="")],
    )
    base = "noexec,nosuid,nodev"
    assert made.temporary_file_systems == (
        TemporaryFileSystem("/t", f"{base},ro,mode=1770,size=5,exec,uid=3"),
        TemporaryFileSystem("/run", f"{base},rw,exec,size=1m"),
        TemporaryFileSystem("/dev/shm", base),
        TemporaryFileSystem("/odd", f"{base},uid=1"),
    )
    assert "adapted" in kinds(made, "mount")


def test_the_hosts_shared_memory() -> None:
    made = of({"IpcMode": "host"})
    assert made.binds == (Bind("/dev/shm", "/dev/shm"),)
    assert made.temporary_file_systems == ()
    assert made.unit_environment == {"SYSTEMD_NSPAWN_SHARE_NS_IPC": "1"}
    assert kinds(of({"IpcMode": "host", "Sysctls": {"kernel.sem": "1 2 3 4"}}), "HostConfig.Sysctls") == {
        "dropped"
    }
    shm = of(
        {"IpcMode": "host", "Sysctls": {"kernel.sem": "1"}}, Mounts=[mount("bind", "/dev/shm", Source="/x")]
    )
    assert unit(shm) == []


def test_sysctls() -> None:
    made = of({"Sysctls": {"kernel.sem": "250 32000 32 77", "net.core.somaxconn": "9"}})
    assert made.sysctls == {"net.core.somaxconn": "9"}
    assert unit(made)[0] == "PrivateIPC=yes"
    assert unit(made)[1].endswith(' /proc/sys/kernel/sem "250 32000 32 77"')
    assert of({"NetworkMode": "none", "Sysctls": {"net.core.somaxconn": "9"}}).sysctls == {}


@pytest.mark.parametrize(
    ("option", "kind", "attribute"),
    [
        ("no-new-privileges", "exact", "no_new_privileges"),
        ("no-new-privileges:true", "exact", "no_new_privileges"),
        ("no-new-privileges=false", "exact", None),
        ("seccomp=unconfined", "exact", "seccomp_unconfined"),
        ("seccomp:unconfined", "exact", "seccomp_unconfined"),
        ("seccomp=builtin", "exact", None),
        ('seccomp={"defaultAction":"SCMP_ACT_ALLOW"}', "dropped", None),
        ("apparmor=unconfined", "exact", None),
        ("apparmor=mine", "dropped", None),
        ("label=disable", "exact", None),
        ("label:type:t", "dropped", None),
        ("writable-cgroups", "exact", None),
        ("writable-cgroups=false", "adapted", None),
        ("strange", "dropped", None),
    ],
)
def test_security_options(option: str, kind: str, attribute: str | None) -> None:
    made = of({"SecurityOpt": [option]})
    assert kinds(made, "HostConfig.SecurityOpt") == {kind}
    assert bool(made.no_new_privileges) == (attribute == "no_new_privileges")
    assert made.seccomp_unconfined == (attribute == "seccomp_unconfined")


def test_open_system_paths_and_privileges() -> None:
    opened = of({"MaskedPaths": [], "ReadonlyPaths": []})
    assert opened.system_paths_writable and not opened.privileged
    made = of({"Privileged": True, "MaskedPaths": None, "ReadonlyPaths": None})
    assert made.system_paths_writable and made.seccomp_unconfined and made.capabilities == ALL
    newer = [*PLAIN["HostConfig"]["MaskedPaths"], "/proc/interrupts", "/sys/devices/virtual/powercap"]
    assert of({"MaskedPaths": newer}).notes == ()


def test_a_profile_of_the_source_host_is_named() -> None:
    assert [n.subject for n in of(AppArmorProfile="docker-default").notes] == [
        "AppArmorProfile docker-default"
    ]


def network(mode: str, **networks: object) -> ContainerSettings:
    return of({"NetworkMode": mode}, Id="abcdefabcdef99", NetworkSettings={"Networks": networks})


def test_networks() -> None:
    assert network("default", bridge={"IPAMConfig": None, "Links": None, "Aliases": None}).notes == ()
    assert (network("host").network, network("none").network) == ("host", "none")
    assert network("container:x").network == "private"
    own = network(
        "mine", mine={"Aliases": ["db", "abcdefabcdef"], "IPAMConfig": {"IPv4Address": "10.9.0.2"}}, more={}
    )
    assert own.network == "private"
    said = {note.subject: note.text for note in own.notes}
    assert "db" in said["network mine"] and "abcdef" not in said["network mine"]
    assert "10.9.0.2" in said["network mine"] and "further" in said["network more"]


def ports(bindings: object, actual: object = None, **host: object) -> ContainerSettings:
    return of(
        {"PortBindings": bindings, **host},
        NetworkSettings={"Ports": actual},
        Config={"ExposedPorts": {"7000/tcp": {}, "80/tcp": {}}},
    )


@pytest.mark.parametrize(
    ("name", "entry", "actual", "expected"),
    [
        ("80/tcp", {"HostIp": "", "HostPort": "8080"}, None, [Port(80, 8080)]),
        ("80", {"HostIp": "0.0.0.0", "HostPort": "8080"}, None, [Port(80, 8080)]),
        ("53/udp", {"HostIp": "127.0.0.1", "HostPort": "53"}, None, [Port(53, 53, "udp", "127.0.0.1")]),
        ("80/tcp", {"HostIp": "", "HostPort": ""}, None, [Port(80, 80)]),
        ("80/tcp", {"HostPort": "0"}, [{"HostIp": "0.0.0.0", "HostPort": "49153"}], [Port(80, 49153)]),
        ("80/tcp", {"HostPort": ""}, [{"HostIp": "::", "HostPort": "5"}], [Port(80, 80)]),
        ("80/tcp", {"HostPort": "8000-8010"}, None, [Port(80, 8000)]),
        ("80-81/tcp", {"HostPort": "90-91"}, None, [Port(80, 90), Port(81, 91)]),
        ("80/tcp", {"HostIp": "::1", "HostPort": "80"}, None, []),
        ("80/sctp", {"HostPort": "80"}, None, []),
        ("80/tcp", {"HostPort": "65536"}, None, []),
        ("80/tcp", {"HostPort": "8x"}, None, []),
        ("80/tcp", {"HostIp": "nobody", "HostPort": "80"}, None, []),
    ],
)
def test_ports(name: str, entry: object, actual: object, expected: list[Port]) -> None:
    made = ports({name: [entry]}, {name: actual} if actual else None)
    assert list(made.ports) == expected
    assert kinds(made, "port") <= {"exact", "adapted"} if expected else kinds(made, "port") == {"dropped"}


def test_all_ports_are_published_where_docker_did() -> None:
    made = ports(
        {"80/tcp": [{"HostPort": "8080"}]}, {"7000/tcp": [{"HostPort": "32768"}]}, PublishAllPorts=True
    )
    assert set(made.ports) == {Port(80, 8080), Port(7000, 32768)}
    assert ports({"80/tcp": [{"HostPort": "8080"}]}, NetworkMode="host").ports == ()


def test_name_look_up() -> None:
    made = of({"Dns": ["10.0.0.1", "x y"], "DnsSearch": ["a.b", "c\nd"], "DnsOptions": ["ndots:2"]})
    assert made.resolv_conf == "nameserver 10.0.0.1\nsearch a.b\noptions ndots:2\n"
    assert kinds(made, "HostConfig.DnsSearch") == {"exact", "dropped"}
    alone = of({"DnsSearch": ["a.b"]})
    assert alone.resolv_conf is None and alone.names.search == ("a.b",)
    assert kinds(alone, "HostConfig.DnsSearch") == {"dropped"}


def test_hosts() -> None:
    extra = [
        "db:10.0.0.1",
        "six:::1",
        "seven=[fe80::1]",
        "up:host-gateway",
        "bad name:10.0.0.1",
        "x:10.0.0.1\n::1 y",
    ]
    made = of({"ExtraHosts": extra})
    assert made.hosts == ("10.0.0.1\tdb", "::1\tsix", "fe80::1\tseven", "10.213.0.1\tup")
    assert of({"ExtraHosts": ["up:host-gateway"], "NetworkMode": "host"}).hosts == ("127.0.0.1\tup",)


@pytest.mark.parametrize(
    "inspected",
    [
        {"HostConfig": []},
        {"HostConfig": {"Memory": "1"}},
        {"HostConfig": {"Memory": True}},
        {"HostConfig": {"Memory": 1.5}},
        {"HostConfig": {"Memory": 2**70}},
        {"HostConfig": {"Binds": [1]}},
        {"HostConfig": {"Ulimits": ["x"]}},
        {"HostConfig": {"Privileged": "yes"}},
        {"HostConfig": {"PortBindings": {"80/tcp": "x"}}},
        {"HostConfig": {"RestartPolicy": "always"}},
        {"Mounts": {"a": 1}},
        {"Mounts": [{"Type": 5}]},
        {"NetworkSettings": {"Networks": {"a": 1}}, "HostConfig": {}},
    ],
)
def test_odd_types_are_one_line(inspected: Mapping[str, Any]) -> None:
    with pytest.raises(ConversionError) as refused:
        container_settings(inspected, systemd=257, volumes="copy", machine_name="m")
    assert "\n" not in str(refused.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted({*EVERYTHING["HostConfig"], "Annotations", "Init"})), _JSON), _JSON
)
def test_whatever_is_inspected_is_settings_or_one_error(host: dict[str, object], mounts: object) -> None:
    try:
        made = of(host, Mounts=mounts)
    except ConversionError:
        return
    for setting in made.unit:
        assert re.fullmatch(r"[^\n\r\0]*", setting.value)


def test_words_of_a_unit() -> None:
    assert unit_word("/dev/a b") == '"/dev/a b"'
    assert unit_word('a"b\\c%d') == '"a\\"b\\\\c%%d"'
    assert unit_word("a\nb") is None


@pytest.mark.parametrize(
    ("assignment", "secret"),
    [
        ("POSTGRES_PASSWORD=x", True),
        ("db_passwd=x", True),
        ("MYSQL_PWD=x", True),
        ("API_KEY=x", True),
        ("APIKEY=x", True),
        ("AWS_ACCESS_KEY_ID=x", True),
        ("AWS_SESSION_TOKEN=x", True),
        ("GOOGLE_CREDENTIALS={}", True),
        ("SENTRY_DSN=https://a@b/1", True),
        ("DATABASE_URL=postgres://user:secret@db/x", True),
        ("CERT=-----BEGIN RSA PRIVATE KEY-----\nx", True),
        ("POSTGRES_PASSWORD_FILE=/run/secrets/x", False),
        ("PASSWORD=", False),
        ("ALLOW_EMPTY_PASSWORD=yes", False),
        ("PATH=/usr/bin", False),
        ("PWD=/srv", False),
        ("HOME=/root", False),
        ("DATABASE_URL=postgres://db/x", False),
        ("KEYBOARD=us", False),
        ("TOKEN", False),
    ],
)
def test_secrets(assignment: str, secret: bool) -> None:
    assert looks_secret([assignment, "LANG=C"]) == ((assignment.partition("=")[0],) if secret else ())
