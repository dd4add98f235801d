"""The launcher, run as it is: this processor's natively, the others' by qemu."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConversionError
from converter.image.model import this_platform
from converter.machine import launcher as package
from converter.machine.launcher import (
    ARCHITECTURES,
    LAUNCHER_PATH,
    capability_mask,
    launcher_arguments,
    launcher_for,
)
from converter.machine.settings import expressible

SOURCE = Path(package.__file__).parent
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
native = pytest.mark.skipif(
    sys.platform != "linux" or launcher_for(this_platform().architecture) is None,
    reason="no launcher for this machine",
)

# Prints its own arguments and environment as the kernel keeps them, NUL behind each, with a mark between.
SHOW = ("/bin/sh", "-c", "/bin/cat /proc/$$/cmdline; echo '=='; /bin/cat /proc/$$/environ; :", "sh")


@pytest.fixture(scope="module")
def bench() -> Iterator[Path]:
    """A directory, open to every user, with this processor's launcher and programs of all kinds."""
    with tempfile.TemporaryDirectory() as directory:
        bench = Path(directory)
        bench.chmod(0o755)
        _fill(bench)
        yield bench


def _fill(bench: Path) -> None:
    binary = launcher_for(this_platform().architecture)
    assert binary is not None
    programs = {
        "launch": (binary, 0o755),
        "one/tool": (b"#!/bin/sh\necho one\n", 0o755),
        "two/tool": (b"#!/bin/sh\necho two\n", 0o755),
        "plain/tool": (b"not executable\n", 0o644),
        "broken/text": (b"echo no shell runs this\n", 0o755),
        "broken/orphan": (b"#!/no/such/interpreter\n", 0o755),
    }
    for name, (content, mode) in programs.items():
        path = bench / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    (bench / "directory/tool").mkdir(parents=True)


def launch(
    bench: Path, *arguments: str | bytes, env: Mapping[str, str] | None = None, cwd: str = "/"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [bench / "launch", *arguments],
        env=env or {},
        cwd=bench / cwd,
        capture_output=True,
        timeout=60,
        check=False,
    )


def shown(done: subprocess.CompletedProcess[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The arguments behind SHOW's own, and the environment."""
    assert done.returncode == 0, done.stderr
    arguments, environment = done.stdout.split(b"\0==\n", 1)
    return arguments.split(b"\0")[len(SHOW) :], environment.split(b"\0")[:-1]


def raw(words: Sequence[str]) -> list[bytes]:
    return [word.encode("utf-8", "surrogateescape") for word in words]


# --- its arguments ---


def test_a_plain_command_line_is_readable() -> None:
    assert launcher_arguments(
        uid=1000, gid=7, groups=(7, 4), setenv=("A=b c",), unsetenv=("TERM",), argv=("tool", "C:\\x", "")
    ) == (
        LAUNCHER_PATH, "--groups=7,4", "--gid=7", "--uid=1000", "--unsetenv=TERM", "--setenv=A=b c",
        "--", "tool", "C:\\x", "",
    )  # fmt: skip


def test_what_a_settings_file_cannot_hold_is_escaped() -> None:
    assert launcher_arguments(
        uid=0, gid=0, groups=(), setenv=("A=1\n2",), argv=("tool", "C:\\x", "\t\x1b\r", "é\udcff\ufffe")
    ) == (
        LAUNCHER_PATH, "--escaped", "--groups=", "--gid=0", "--uid=0", "--setenv=A=1\\n2",
        "--", "tool", "C:\\\\x", "\\t\\x1b\\x0d", "é\\xff\\xef\\xbf\\xbe",
    )  # fmt: skip


def test_options_for_the_environment_and_for_privileges() -> None:
    assert launcher_arguments(
        uid=0, gid=0, groups=(0,), setenv=("A=b",), argv=("tool",), clean=True, keep=("TERM", "PATH", "LANG", "LANG"),
        bounding=0xA80425FB, chdir="/a b", no_new_privs=True,
    ) == (
        LAUNCHER_PATH, "--groups=0", "--gid=0", "--uid=0", "--bounding=a80425fb", "--no-new-privs", "--chdir=/a b",
        "--keep=LANG", "--keep=TERM", "--clean", "--setenv=A=b", "--", "tool",
    )  # fmt: skip
    assert launcher_arguments(
        uid=0, gid=0, groups=(), argv=("tool",), clean=True, keep=("LISTEN_\n",), bounding=0, chdir="/\udcff"
    ) == (
        LAUNCHER_PATH, "--escaped", "--groups=", "--gid=0", "--uid=0", "--bounding=0", "--chdir=/\\xff",
        "--keep=LISTEN_\\n", "--clean", "--", "tool",
    )  # fmt: skip
    assert "--keep=TERM" not in launcher_arguments(uid=0, gid=0, groups=(), argv=("tool",), keep=("TERM",))


def test_another_root() -> None:
    arguments = launcher_arguments(uid=0, gid=0, groups=(0,), root="/tree", argv=("/bin/true",))
    assert arguments[1:] == ("--groups=0", "--gid=0", "--uid=0", "--root=/tree", "--", "/bin/true")


def test_capabilities_as_bits() -> None:
    assert capability_mask(()) == 0
    assert capability_mask(["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE", "CAP_SYS_ADMIN"]) == 1 | 1 << 40 | 1 << 21
    with pytest.raises(KeyError, match="FLY"):
        capability_mask(["CAP_FLY"])


@pytest.mark.parametrize(
    ("setenv", "argv", "message"),
    [
        (("=x",), ("tool",), "no name"),
        (("x",), ("tool",), "no name"),
        ((), ("tool", "a\0b"), "NUL"),
        (("A=\ud800",), ("tool",), "no character"),
        ((), ("tool", "x" * 131_072), "128 KiB"),
        (("A=" + "\n" * 70_000,), ("tool",), "128 KiB"),
    ],
)
def test_what_no_program_can_be_given(setenv: tuple[str, ...], argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        launcher_arguments(uid=0, gid=0, groups=(), setenv=setenv, argv=argv)


@pytest.mark.parametrize("architecture", ["mips", "", "../launcher/launch-amd64", "amd64\0", "loong64"])
def test_no_launcher_for_this(architecture: str) -> None:
    assert launcher_for(architecture) is None


# --- its binaries ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_binary_is_small_static_and_safe(architecture: str) -> None:
    elf = launcher_for(architecture)
    assert elf is not None
    assert len(elf) < 10_000
    wide, order = elf[4] == 2, "<" if elf[5] == 1 else ">"
    machines = {"386": 3, "arm": 40, "s390x": 22, "amd64": 62, "arm64": 183, "riscv64": 243, "ppc64le": 21}
    assert struct.unpack_from(f"{order}HH", elf, 16) == (2, machines[architecture])  # ET_EXEC
    assert order == (">" if architecture == "s390x" else "<")
    at, size, count = (
        *struct.unpack_from(f"{order}Q" if wide else f"{order}I", elf, 32 if wide else 28),
        *struct.unpack_from(f"{order}HH", elf, 54 if wide else 42),
    )
    flags = dict[int, list[int]]()
    for i in range(count):
        (kind,) = struct.unpack_from(f"{order}I", elf, at + i * size)
        flags.setdefault(kind, []).append(
            *struct.unpack_from(f"{order}I", elf, at + i * size + (4 if wide else 24))
        )
    load, dynamic, interpreter, tls, stack = 1, 2, 3, 7, 0x6474E551
    assert not flags.keys() & {dynamic, interpreter, tls}
    assert all(flag & 3 != 3 for flag in flags[load])  # never writable and executable
    assert flags[stack] == [6]  # there, and not executable


@pytest.mark.lab
def test_the_committed_binaries_are_a_fresh_build(tmp_path: Path) -> None:
    subprocess.run([SOURCE / "build", tmp_path], check=True, timeout=120)
    fresh = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    compiler = re.findall(rb"clang version [ -~]+", fresh["launch-amd64"])
    committed = {f"launch-{architecture}": launcher_for(architecture) for architecture in ARCHITECTURES}
    assert sorted(fresh) == sorted(committed)
    differ = [name for name in fresh if fresh[name] != committed[name]]
    assert differ == [], f"run converter/machine/launcher/build on Debian 12; here it was {compiler}"


# --- what it does, natively ---


@native
def test_without_options_nothing_changes(bench: Path) -> None:
    environment = {"B": "2", "A": "1", "EMPTY": ""}
    words = ["two words", "", "back\\slash \\n \\x41", "--uid=5", "--", "é\udcff"]
    done = launch(bench, *SHOW, *raw(words), env=environment)
    assert shown(done) == (raw(words), [b"B=2", b"A=1", b"EMPTY="])


@native
def test_the_environment_keeps_its_order(bench: Path) -> None:
    done = launch(
        bench, "--setenv=B=new=x", "--unsetenv=C", "--setenv=N=1", "--setenv=N=2", "--unsetenv=NONE", "--setenv=AB=",
        "--setenv=my.name=\\n", "--", *SHOW, env={"A": "1", "B": "2", "C": "3", "D": "4"},
    )  # fmt: skip
    assert shown(done)[1] == [b"A=1", b"B=new=x", b"D=4", b"N=2", b"AB=", b"my.name=\\n"]


# execve(2) as it is: Python's own would make a dictionary of the environment.
EXECVE = """
import ctypes, sys
cut = sys.argv.index("ENV")
def strings(words):
    return (ctypes.c_char_p * (len(words) + 1))(*map(str.encode, words), None)
ctypes.CDLL(None).execve(sys.argv[1].encode(), strings(sys.argv[1:cut]), strings(sys.argv[cut + 1:]))
"""


@native
def test_variables_that_are_there_twice_or_are_none(bench: Path) -> None:
    arguments = ["--setenv=A=new", "--unsetenv=B", "--unsetenv=odd", "--", *SHOW]
    environment = ["A=1", "B=1", "C=1", "odd", "A=2", "B=2", "C=2"]
    done = subprocess.run(
        [sys.executable, "-c", EXECVE, bench / "launch", *arguments, "ENV", *environment],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert shown(done)[1] == [b"A=new", b"C=1", b"odd", b"C=2"]


# What systemd-nspawn 252 and 257 put there: no settings, LISTEN_FDS= and a login on a terminal.
NSPAWN = {
    "container_uuid": "6de478a2a6534abebb9e227a6818f56f", "USER": "root", "HOME": "/root", "LOGNAME": "root",
    "container_host_version_id": "12", "NOTIFY_SOCKET": "/run/host/notify", "container": "systemd-nspawn",
    "TERM": "xterm", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "container_host_id": "debian", "LISTEN_FDS": "1",
    "LISTEN_PID": "1", "CREDENTIALS_DIRECTORY": "/run/host/credentials", "COLORTERM": "truecolor", "NO_COLOR": "1",
}  # fmt: skip


@native
def test_clean_leaves_what_docker_has_too(bench: Path) -> None:
    like = {
        "containers": "1",
        "container_hosts": "1",
        "LANGUAGE": "de",
        "USERS": "1",
        "LISTEN": "1",
        "TER": "1",
    }
    done = launch(bench, "--clean", *SHOW, env={**NSPAWN, **like})
    left = {"HOME": "/root", "PATH": "/usr/bin:/bin", **like}
    assert sorted(shown(done)[1]) == sorted(raw([f"{name}={value}" for name, value in left.items()]))


@native
def test_clean_leaves_what_is_to_be_kept(bench: Path) -> None:
    done = launch(
        bench, "--escaped", "--setenv=USER=gone", "--keep=LANG", "--keep=container_h\\x6fst_id", "--keep=none",
        "--clean", "--keep=NOTIFY_SOCKET", "--setenv=TERM=dumb", *SHOW, env=NSPAWN,
    )  # fmt: skip
    assert sorted(shown(done)[1]) == [
        b"HOME=/root", b"LANG=C.UTF-8", b"PATH=/usr/bin:/bin", b"TERM=dumb", b"container_host_id=debian"
    ]  # fmt: skip


@native
def test_the_working_directory(bench: Path) -> None:
    show = ("/bin/sh", "-c", "/bin/pwd -P")
    assert launch(bench, f"--chdir={bench}/one", *show).stdout.decode() == f"{bench.resolve()}/one\n"
    assert launch(bench, "--escaped", "--chdir=d\\x69rectory", *show, cwd=".").stdout.endswith(
        b"/directory\n"
    )
    done = launch(bench, "--chdir=/no/such", "/bin/true")
    reason = b"entering its directory: no such file or directory"
    assert (done.returncode, done.stderr) == (125, b"docker2nspawn: cannot run /bin/true: " + reason + b"\n")


@native
def test_no_new_privileges(bench: Path) -> None:
    assert b"\nNoNewPrivs:\t1\n" in launch(bench, "--no-new-privs", "/bin/cat", "/proc/self/status").stdout


@native
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", codec="utf-8") | st.sampled_from("\\\n\r\udcff\ufffe"))
    )
)
def test_any_words_come_back(bench: Path, words: list[str]) -> None:
    setenv = tuple(f"V{i}={word}" for i, word in enumerate(words))
    _, *arguments = launcher_arguments(uid=0, gid=0, groups=(), setenv=setenv, argv=(*SHOW, *words))
    assert all(map(expressible, arguments))
    done = launch(bench, *(word for word in arguments if not word.startswith(("--uid", "--gid", "--groups"))))
    assert shown(done) == (raw(words), raw(setenv))


@native
def test_every_byte_can_be_escaped(bench: Path) -> None:
    escaped = "".join(f"\\x{byte:02x}" for byte in range(1, 256))
    upper = "".join(f"\\x{byte:02X}" for byte in range(1, 256))
    done = launch(
        bench, "--setenv=LITERAL=\\n", "--escaped", f"--setenv=A\\x2d={escaped}", *SHOW, upper, "\\n\\t\\\\"
    )
    every = bytes(range(1, 256))
    assert shown(done) == ([every, b"\n\t\\"], [b"LITERAL=\\n", b"A-=" + every])


@native
@pytest.mark.parametrize(
    "word", ["\\", "\\x", "\\x4", "\\x00", "\\xg1", "\\x1g", "\\r", "\\0", "\\u0041", "\\N"]
)
def test_any_other_backslash_is_an_error(bench: Path, word: str) -> None:
    for arguments in (
        (f"--setenv=A={word}", "/bin/true"),
        ("/bin/true", word),
        ("--unsetenv=" + word, "/bin/true"),
    ):
        done = launch(bench, "--escaped", *arguments)
        assert (done.returncode, done.stdout) == (125, b"")
        assert done.stderr.startswith(b"docker2nspawn: cannot run the command: bad argument ")
    assert launch(bench, "/bin/true", word).returncode == 0


@native
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--",),
        ("--uid=0",),
        ("--bounding=", "/bin/true"),
        ("--bounding=0x1", "/bin/true"),
        ("--bounding=10000000000000000", "/bin/true"),
        ("--clean=1", "/bin/true"),
        ("--keep=", "/bin/true"),
        ("--keep=A=1", "/bin/true"),
        ("--no-new-privs=1", "/bin/true"),
        ("--escape", "/bin/true"),
        ("--escaped=1", "/bin/true"),
        ("-u", "/bin/true"),
        ("--uid=", "/bin/true"),
        ("--uid=root", "/bin/true"),
        ("--uid=-1", "/bin/true"),
        ("--uid=4294967295", "/bin/true"),
        ("--gid=4294967296", "/bin/true"),
        ("--gid=99999999999999999999", "/bin/true"),
        ("--gid=1,2", "/bin/true"),
        ("--groups=,", "/bin/true"),
        ("--groups=1,", "/bin/true"),
        ("--groups=1 2", "/bin/true"),
        ("--groups=" + "1," * 60_000 + "4294967295", "/bin/true"),
        ("--setenv=A", "/bin/true"),
        ("--setenv==1", "/bin/true"),
        ("--unsetenv=", "/bin/true"),
        ("--unsetenv=A=1", "/bin/true"),
    ],
)
def test_bad_arguments(bench: Path, arguments: tuple[str, ...]) -> None:
    done = launch(bench, *arguments)
    assert (done.returncode, done.stdout) == (125, b"")
    assert re.fullmatch(
        rb"docker2nspawn: cannot run the command: (bad argument .+|no program given)\n", done.stderr
    )


@native
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("one:two", b"one"),
        ("two:one", b"two"),
        ("nowhere:plain:directory:one/tool:two", b"two"),
        (":two", b"two"),
        ("one/", b"one"),
        ("x" * 5000 + ":two", b"two"),
    ],
)
def test_a_bare_name_is_looked_up_in_path(bench: Path, path: str, said: bytes) -> None:
    done = launch(bench, "tool", env={"PATH": path}, cwd=".")
    assert (done.returncode, done.stdout.strip()) == (0, said)


@native
@pytest.mark.parametrize("path", [":nowhere", "nowhere:", "nowhere::nowhere"])
def test_an_empty_entry_of_path_is_here(bench: Path, path: str) -> None:
    assert launch(bench, "tool", env={"PATH": path}, cwd="one").stdout == b"one\n"


@native
@pytest.mark.parametrize("path", ["", "nowhere", "plain", "directory", "one/tool", "x" * 5000])
def test_a_name_that_is_not_in_path(bench: Path, path: str) -> None:
    done = launch(bench, "tool", env={"PATH": path}, cwd=".")
    assert done.returncode == 127
    assert done.stderr == b"docker2nspawn: cannot run tool: executable file not found in PATH\n"


@native
def test_the_path_is_the_changed_one(bench: Path) -> None:
    assert launch(bench, "--setenv=PATH=two", "tool", env={"PATH": "one"}, cwd=".").stdout == b"two\n"


@native
def test_without_path_it_is_dockers(bench: Path) -> None:
    arguments, environment = shown(
        launch(bench, "--unsetenv=PATH", "sh", *SHOW[1:], "x", env={"PATH": "/nowhere"})
    )
    assert (arguments, environment) == ([b"x"], [])
    assert DEFAULT_PATH.encode() in (bench / "launch").read_bytes()


@native
@pytest.mark.parametrize(
    ("program", "status", "reason"),
    [
        ("./nothing", 127, "no such file or directory"),
        ("one/tool/x", 126, "not a directory"),
        ("directory/tool", 126, "is a directory"),
        ("plain/tool", 126, "permission denied"),
        ("broken/text", 126, "exec format error"),
        ("broken/orphan", 127, "no such file or directory"),
        ("./" + "x" * 4200, 126, "file name too long"),
        ("", 127, "executable file not found in PATH"),
        ("x\x1b[31m\ny", 127, "executable file not found in PATH"),
    ],
)
def test_programs_that_cannot_be_run(bench: Path, program: str, status: int, reason: str) -> None:
    done = launch(bench, program, env={"PATH": str(bench / "one")}, cwd=".")
    name = "".join("?" if c < " " else c for c in program)[:274]
    assert (done.returncode, done.stderr.decode()) == (
        status,
        f"docker2nspawn: cannot run {name}: {reason}\n",
    )


@native
def test_a_program_without_a_shebang_in_path_is_not_skipped(bench: Path) -> None:
    done = launch(bench, "text", env={"PATH": "broken:one"}, cwd=".")
    assert (done.returncode, done.stderr) == (126, b"docker2nspawn: cannot run text: exec format error\n")


@native
def test_the_pid_stays(bench: Path) -> None:
    with subprocess.Popen([bench / "launch", "/bin/sh", "-c", "echo $$"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid


@native
def test_as_many_and_as_long_as_the_kernel_lets(bench: Path) -> None:
    words = [f"{i}" for i in range(20_000)]
    setenv = [f"--setenv=V{i}=\\n" for i in range(4000)]
    long = "x" * 131_071
    escaped = "\\n" + "\\x41" * 30_000
    done = launch(bench, *setenv, "--escaped", *SHOW, *words, long, escaped, env={"A": "1", "V7": "old"})
    arguments, environment = shown(done)
    assert arguments == raw([*words, long, "\n" + "A" * 30_000])
    assert sorted(environment) == sorted([b"A=1", *(f"V{i}=\\n".encode() for i in range(4000))])


# --- who the program is: needs root ---

EMULATORS = {
    "386": "i386", "amd64": "x86_64", "arm": "arm", "arm64": "aarch64", "ppc64le": "ppc64le", "riscv64": "riscv64",
    "s390x": "s390x",
}  # fmt: skip


def _status(text: bytes) -> dict[str, list[int]]:
    """The ids in /proc/self/status: real, effective, saved and file system's; and the groups."""
    lines = (line.partition(":") for line in text.decode().splitlines())
    return {
        key: [int(n) for n in value.split()] for key, _, value in lines if key in {"Uid", "Gid", "Groups"}
    }


def _status_of(*command: str | Path) -> dict[str, list[int]]:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return _status(done.stdout)


@pytest.mark.lab
@pytest.mark.parametrize("groups", [(), (0,), (7, 5, 4_294_967_294), tuple(range(1, 20_000))])
def test_ids_are_exactly_these(bench: Path, groups: tuple[int, ...]) -> None:
    words = launcher_arguments(uid=65_532, gid=70_000, groups=groups, argv=("/bin/cat", "/proc/self/status"))
    assert _status_of(bench / "launch", *words[1:]) == {
        "Uid": [65_532] * 4,
        "Gid": [70_000] * 4,
        "Groups": sorted(groups),
    }


@pytest.mark.lab
def test_ids_that_are_not_given_stay(bench: Path) -> None:
    cat = ("/bin/cat", "/proc/self/status")
    before = _status_of(*cat)
    assert _status_of(bench / "launch", *cat) == before
    assert _status_of(bench / "launch", "--gid=4294967294", *cat) == {**before, "Gid": [4_294_967_294] * 4}


@pytest.mark.lab
def test_another_user_has_no_capabilities_and_only_its_own_programs(bench: Path) -> None:
    done = launch(bench, "--uid=1000", "/bin/cat", "/proc/self/status")
    assert b"\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n" in done.stdout
    private = bench / "private"
    private.mkdir(mode=0o755)
    (private / "cat").write_bytes(b"#!/bin/sh\necho not for everyone\n")
    (private / "cat").chmod(0o700)
    search = {"PATH": f"{private}:/bin"}
    assert launch(bench, "cat", "/proc/self/comm", env=search).stdout == b"not for everyone\n"
    assert launch(bench, "--uid=1000", "cat", "/proc/self/comm", env=search).stdout == b"cat\n"


def _capabilities(text: bytes) -> dict[str, int]:
    """The five sets in /proc/self/status."""
    return {name.decode(): int(value, 16) for name, value in re.findall(rb"\nCap(\w+):\t(\w+)", text)}


# Starts a program with inheritable and ambient capabilities, which root's own tools may lack a way for.
AMBIENT = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
header, sets = (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)()
assert libc.capget(header, sets) == 0
sets[2], sets[5] = sets[1], sets[4]
assert libc.capset(header, sets) == 0
assert libc.prctl(47, 2, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.lab
def test_nothing_is_inheritable_or_ambient(bench: Path) -> None:
    before = _capabilities(Path("/proc/self/status").read_bytes())
    command: list[str | Path] = [sys.executable, "-c", AMBIENT, bench / "launch"]
    options: tuple[str, ...]
    for options, permitted in ((), before["Prm"]), (("--uid=1000",), 0):
        done = subprocess.run(
            [*command, *options, "/bin/cat", "/proc/self/status"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert _capabilities(done.stdout) == {
            "Inh": 0, "Prm": permitted, "Eff": permitted, "Bnd": before["Bnd"], "Amb": 0
        }  # fmt: skip


@pytest.mark.lab
@pytest.mark.parametrize("mask", [0, 0xA80425FB, 1 << 40 | 1])
def test_capabilities_outside_the_mask_are_gone(bench: Path, mask: int) -> None:
    have = _capabilities(Path("/proc/self/status").read_bytes())["Bnd"] & mask
    options = (f"--bounding={mask:X}", "--groups=7", "--gid=5")
    done = launch(bench, *options, "--uid=0", "/bin/cat", "/proc/self/status")
    assert _capabilities(done.stdout) == {"Inh": 0, "Prm": have, "Eff": have, "Bnd": have, "Amb": 0}
    assert _status(done.stdout) == {"Uid": [0] * 4, "Gid": [5] * 4, "Groups": [7]}
    done = launch(bench, *options, "--uid=1000", "/bin/cat", "/proc/self/status")
    assert _capabilities(done.stdout) == {"Inh": 0, "Prm": 0, "Eff": 0, "Bnd": have, "Amb": 0}


@pytest.mark.lab
def test_a_directory_that_only_root_or_only_the_user_may_enter(bench: Path) -> None:
    place = bench / "closed"
    place.mkdir(mode=0o700)
    for owner in 0, 1000:
        os.chown(place, owner, 0)
        # Root without CAP_DAC_OVERRIDE.
        weak = (
            () if owner == 0 else (f"--bounding={capability_mask(['CAP_SETUID']):x}", str(bench / "launch"))
        )
        done = launch(bench, *weak, f"--chdir={place}", "--uid=1000", "/bin/sh", "-c", "echo $PWD")
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.lab
def test_a_terminal_and_a_pipe_become_the_users(bench: Path) -> None:
    """As with runc, which programs rely on that log to /dev/stdout; a device or file that others have stays."""
    opening = ("/bin/sh", "-c", "echo out >/dev/stdout && echo err >/dev/stderr")
    command: list[str | Path] = [bench / "launch", "--groups=", "--gid=0", "--uid=4294967294", "--", *opening]
    own, terminal = os.openpty()
    for kind, stream in (("terminal", terminal), ("pipe", subprocess.PIPE)):
        done = subprocess.run(command, stdout=stream, stderr=stream, timeout=60, check=False)
        shown = os.read(own, 100).replace(b"\r", b"") if kind == "terminal" else done.stdout + done.stderr
        assert (done.returncode, shown) == (0, b"out\nerr\n"), kind
    os.close(own)
    os.close(terminal)
    with (bench / "log").open("wb") as log:
        subprocess.run(
            [*command[:-1], "exec true"], stdin=subprocess.DEVNULL, stdout=log, timeout=60, check=True
        )
        assert os.fstat(log.fileno()).st_uid == 0
    assert Path("/dev/null").stat().st_uid == 0


@pytest.mark.lab
def test_with_a_mask_it_has_no_other_descriptors(bench: Path) -> None:
    with (bench / "launch").open("rb") as other:
        fd = other.fileno()
        for options, status in ((), 0), (("--bounding=0",), 1):
            command = [bench / "launch", *options, "/bin/sh", "-c", f"[ -e /proc/$$/fd/{fd} ]"]
            done = subprocess.run(command, pass_fds=(fd,), timeout=60, check=False)
            assert done.returncode == status


@pytest.mark.lab
def test_with_a_mask_it_hides_before_it_is_one_of_the_machine(bench: Path) -> None:
    qemu = f"qemu-{EMULATORS[this_platform().architecture]}-static"
    done = subprocess.run(
        [qemu, "-strace", bench / "launch", "--bounding=0", "--gid=5", "--uid=1000", "/bin/true"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    calls = re.findall(r"\b(prctl\(4,0,|close_range|setresgid|setresuid|capset|execve)", done.stderr.decode())
    assert calls[:1] == ["prctl(4,0,"], done.stderr
    assert calls[-4:] == ["setresuid", "capset", "prctl(4,0,", "execve"]


@pytest.mark.lab
def test_ids_that_cannot_be_set(bench: Path) -> None:
    for option, what in (("--groups=5", "groups"), ("--gid=5", "gid"), ("--uid=5", "uid")):
        done = launch(bench, "--uid=1000", str(bench / "launch"), option, "/bin/true")
        assert done.returncode == 125
        assert (
            done.stderr
            == f"docker2nspawn: cannot run /bin/true: setting its {what}: operation not permitted\n".encode()
        )


@pytest.mark.lab
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_processor(architecture: str, tmp_path: Path) -> None:
    binary = launcher_for(architecture)
    assert binary is not None
    program = tmp_path / "launch"
    program.write_bytes(binary)
    program.chmod(0o755)
    qemu = f"qemu-{EMULATORS[architecture]}-static"

    words = launcher_arguments(
        uid=4_294_967_294,
        gid=70_000,
        groups=(5, 80_000, *range(100, 5000)),
        argv=("cat", "/proc/self/status"),
    )
    assert _status_of(qemu, program, *words[1:]) == {
        "Uid": [4_294_967_294] * 4,
        "Gid": [70_000] * 4,
        "Groups": [5, *range(100, 5000), 80_000],
    }

    many = [str(i) for i in range(3000)]
    argv = (*SHOW, "", "\\\udcff\n", *many)
    words = launcher_arguments(uid=0, gid=0, groups=(0,), setenv=("A=1\n", "B="), unsetenv=("C",), argv=argv)
    environment = {"PATH": DEFAULT_PATH, "A": "0", "C": "3", "D": "4"}
    done = subprocess.run(
        [qemu, program, *words[1:]], env=environment, capture_output=True, timeout=60, check=False
    )
    arguments, variables = shown(done)
    assert arguments == [b"", b"\\\xff\n", *raw(many)]
    # qemu hands the environment on in an order of its own.
    assert sorted(variables) == sorted([f"PATH={DEFAULT_PATH}".encode(), b"A=1\n", b"D=4", b"B="])

    words = launcher_arguments(
        uid=0, gid=0, groups=(), argv=("/bin/sh", "-c", "pwd; env; cat /proc/$$/status"), clean=True, keep=("USER",),
        bounding=1 << 40 | 1 << 38 | 1 << 31 | 1, chdir="/usr", no_new_privs=True,
    )  # fmt: skip
    done = subprocess.run(
        [qemu, program, *words[1:]], env=NSPAWN, capture_output=True, timeout=60, check=False
    )
    have = _capabilities(Path("/proc/self/status").read_bytes())["Bnd"] & (1 << 40 | 1 << 38 | 1 << 31 | 1)
    assert _capabilities(done.stdout) == {"Inh": 0, "Prm": have, "Eff": have, "Bnd": have, "Amb": 0}
    lines = done.stdout.decode().splitlines()
    assert (lines[0], "NoNewPrivs:\t1" in lines, "USER=root" in lines) == ("/usr", True, True)
    assert not any(line.startswith(("container", "LANG", "TERM", "NOTIFY_SOCKET")) for line in lines)

    failures: tuple[tuple[str, int, bytes], ...] = (
        ("nothing", 127, b"executable file not found in PATH"),
        ("/nothing", 127, b"no such file or directory"),
        ("/", 126, b"is a directory"),
        ("/etc/passwd", 126, b"permission denied"),
        ("--uid=x", 125, b"bad argument --uid=x"),
    )
    for argument, status, reason in failures:
        done = subprocess.run([qemu, program, argument], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (status, b"")
        assert done.stderr.endswith(b": " + reason + b"\n")
