"""Health checks: the text of the units, and the script run with stand-ins for systemd and nsenter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.machine.health import health_files, health_unit_settings
from converter.machine.launcher import launcher_arguments
from converter.machine.model import Account, File, Healthcheck, UnitSetting

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

SCRIPT = "var/lib/docker2nspawn/machines/m.health"
TIMER = "etc/systemd/system/docker2nspawn-health@m.timer"
SERVICE = "etc/systemd/system/docker2nspawn-health@m.service"
TRUE = Healthcheck(("true",))
ACCOUNT = Account(1000, 7, (7, 8), "/")


def made(
    check: Healthcheck = TRUE,
    environment: tuple[str, ...] = (),
    directory: str = "/",
    bounding: frozenset[str] = frozenset(),
    heading: str = "h",
    *,
    confined: bool = True,
    private_users: bool = False,
) -> dict[str, File]:
    files = health_files(
        "m",
        check,
        account=ACCOUNT,
        environment=environment,
        working_directory=directory,
        bounding=bounding,
        no_new_privileges=True,
        heading=heading,
        launcher=b"ELF",
        limits={"LimitNOFILE": "5:6"},
        confined=confined,
        private_users=private_users,
    )
    return {file.path: file for file in files}


def text(files: dict[str, File], path: str) -> str:
    return files[path].content.decode()


def test_the_files_and_who_may_read_them() -> None:
    files = made()
    assert {path: file.mode for path, file in files.items()} == {
        TIMER: 0o644,
        SERVICE: 0o644,
        SCRIPT: 0o700,  # ENV may hold secrets
        "var/lib/docker2nspawn/machines/m.launch": 0o755,
    }
    assert files["var/lib/docker2nspawn/machines/m.launch"].content == b"ELF"
    assert health_unit_settings("m") == (UnitSetting("Unit", "Wants", "docker2nspawn-health@m.timer"),)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(30, "30"), (0.5, "0.5"), (1.25, "1.25"), (0.0000001, "0.001"), (86400.0, "86400"), (1e9, "1000000000")],
)
def test_times_are_written_out(seconds: float, written: str) -> None:
    check = Healthcheck(("true",), interval=seconds, timeout=seconds, start_interval=seconds)
    files = made(check)
    assert f"\nOnUnitInactiveSec={written}s\n" in text(files, TIMER)
    assert f"\ntimeout={written} # seconds\n" in text(files, SCRIPT)
    assert f"\nstart_interval={written} # seconds\n" in text(files, SCRIPT)


def test_no_text_of_the_image_gets_into_a_unit() -> None:
    hostile = "MARK%i\n[Service]\nExecStart=/bin/evil"
    files = made(
        Healthcheck((hostile,)), (f"A={hostile}",), f"/{hostile}", heading="h\nExecStart=x @command@ $name"
    )
    for path in TIMER, SERVICE:
        assert "MARK" not in text(files, path)
        assert text(files, path).startswith("# h\\nExecStart=x @command@ $name\n[Unit]\n")
    assert text(files, SCRIPT).splitlines()[1] == "# h\\nExecStart=x @command@ $name"


def test_the_calls_that_are_forbidden_follow_the_capabilities() -> None:
    plain, chroot = text(made(), SERVICE), text(made(bounding=frozenset({"CAP_SYS_CHROOT"})), SERVICE)
    assert "@mount" in plain and "RestrictNamespaces=cgroup ipc net mnt pid uts\n" in plain
    assert ("SystemCallFilter=chroot\n" in plain, "SystemCallFilter=chroot\n" in chroot) == (False, True)
    assert "RestrictNamespaces" not in text(made(private_users=True), SERVICE)
    admin = text(made(bounding=frozenset({"CAP_SYS_ADMIN"})), SERVICE)
    assert "@keyring" in admin and "@mount" not in admin and "RestrictNamespaces" not in admin
    assert "SystemCall" not in text(made(confined=False), SERVICE)
    assert plain.endswith("\nLimitNOFILE=5:6\n")


@dataclass(frozen=True)
class Bench:
    """A directory with the script, changed to look for everything in it, and stand-ins for what it calls."""

    place: Path

    def install(self, files: dict[str, File], *, refuses: bool = False) -> None:
        script = files[SCRIPT].content
        moved: list[tuple[str, str]] = [
            ("=/var/lib/docker2nspawn/machines/", f"={self.place}/"),
            ("=/run/docker2nspawn/m.health", f"={self.place}/m.health.state"),
            ('"/sys/fs/cgroup$1', f'"{self.place}/cgroup$1'),
            ('cd "/proc/$leader"', f'cd "{self.place}/proc/$leader"'),
        ]
        if not refuses:  # for a root that may write everywhere
            moved.append(('if [ -w "$launcher" ]', "if false"))
        for old, new in moved:
            assert script.count(old.encode()) in {1, 2}
            script = script.replace(old.encode(), new.encode())
        (self.place / "m.health").write_bytes(script)

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["/bin/sh", self.place / "m.health", *arguments],
            env={"PATH": f"{self.place}/bin:{os.environ['PATH']}", "LD_BIND_NOW": "1"},
            cwd=cwd or "/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def check(self) -> tuple[int, str]:
        """One run: its exit status and the state that it left."""
        done = self.run()
        assert done.stderr == b""
        return done.returncode, (self.place / "m.health.state").read_text()

    @property
    def process(self) -> Path:
        return self.place / "proc/42"

    def write(self, name: str, content: str) -> None:
        (self.place / name).write_text(content)


PROGRAMS = {
    "machinectl": 'cat "$BENCH/leader"',
    "systemctl": """case $* in
        *InvocationID*) cat "$BENCH/invocation" ;;
        *ControlGroup*) echo /machine.slice/u ;;
        *is-active*) [ -s "$BENCH/invocation" ] ;;
        *) echo "systemctl $*" >>"$BENCH/log" ;;
    esac""",
    "systemd-notify": 'echo "$*" >>"$BENCH/log"',
    # Shows what it got, with a NUL behind each; then does what the file says.
    "nsenter": 'printf "%s\\0" "$@" >"$BENCH/entered"; env >"$BENCH/environment"; . "$BENCH/do"',
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return prepared(tmp_path)


def prepared(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    (tmp_path / "bin").mkdir()
    for name, body in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\nBENCH={tmp_path}\n{body}\n")
        program.chmod(0o755)
    (tmp_path / "proc/42/ns").mkdir(parents=True)
    (tmp_path / "proc/42/ns/user").symlink_to(Path("/proc/self/ns/user").readlink())
    (tmp_path / "proc/42/cgroup").write_text("1:name=systemd:/x\n0::/machine.slice/u/payload\n")
    (tmp_path / "cgroup/machine.slice/u/payload").mkdir(parents=True)
    (tmp_path / "m.launch").touch()
    for name, content in ("leader", "42\n"), ("invocation", "one\n"), ("do", "exit 0"), ("log", ""):
        bench.write(name, content)
    return bench


# --- quoting ---

HOSTILE = (
    "$(touch /tmp/evil)", "`id`", "'; id; '", '"', "\\", "\\'", "'\\''", "$HOME ${x}", "a\nb", "#", "!", "~", "*",
    "\r\t\x1b",
    "@command@", "$name $$", "\udcff\udc81\udc88", "\x81\x88é", "", "-", "--", "%i", "\\\n", "&& :", "<x", "\x7f",
)  # fmt: skip


def entered(bench: Bench) -> tuple[list[bytes], list[bytes]]:
    """What nsenter got: its own options, and the launcher's command line."""
    words = (bench.place / "entered").read_bytes().split(b"\0")[:-1]
    return words[: words.index(b"--")], words[words.index(b"--") + 1 :]


def enters_with(bench: Bench, command: Sequence[str], values: Sequence[str], directory: str) -> None:
    environment = tuple(f"V{i}={value}" for i, value in enumerate(values))
    files = made(
        Healthcheck(tuple(command)), environment, directory, frozenset({"CAP_CHOWN", "CAP_SYS_CHROOT"})
    )
    bench.install(files)
    assert subprocess.run(["/bin/sh", "-n", bench.place / "m.health"], check=False).returncode == 0
    done = bench.run("enter", "/machine.slice/u/payload", cwd=bench.process)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    expected = launcher_arguments(
        uid=1000, gid=7, groups=(7, 8), argv=command, setenv=environment, bounding=0x40001, chdir=directory,
        no_new_privs=True,
    )  # fmt: skip
    assert entered(bench)[1] == [b"/proc/self/fd/3", *(word.encode() for word in expected[1:])]


@linux
def test_hostile_words_reach_the_launcher_as_they_are(bench: Bench) -> None:
    enters_with(bench, ("/bin/sh", *HOSTILE), HOSTILE, "/a'b $(id)\n")


@linux
@settings(max_examples=25)
@given(st.data())
def test_any_words_reach_the_launcher(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    alphabet = st.characters(exclude_characters="\0", codec="utf-8") | st.sampled_from(
        "'\\\n$`\"\udc81\udcff"
    )
    words = st.lists(st.text(alphabet), min_size=1, max_size=5)
    place = tmp_path_factory.mktemp("bench")
    try:
        enters_with(prepared(place), data.draw(words), data.draw(words), "/" + data.draw(st.text(alphabet)))
    finally:
        shutil.rmtree(place)


@linux
def test_the_image_has_no_say_in_programs_of_the_host(bench: Bench) -> None:
    bench.install(made(environment=("LD_PRELOAD=/evil.so", "PATH=/evil")))
    assert bench.run("enter", "/machine.slice/u/payload", cwd=bench.process).returncode == 0
    environment = (bench.place / "environment").read_text()
    assert "LD_" not in environment and "evil" not in environment


# --- the way in ---


@linux
def test_it_enters_every_namespace_by_the_directory_it_holds(bench: Bench) -> None:
    bench.install(made())
    assert bench.check()[0] == 0  # notes the start
    assert bench.check()[0] == 0
    kinds = {"mount": "mnt", "uts": "uts", "ipc": "ipc", "net": "net", "pid": "pid", "cgroup": "cgroup"}
    assert entered(bench)[0] == [f"--{kind}=./ns/{file}".encode() for kind, file in kinds.items()]
    assert (bench.place / "cgroup/machine.slice/u/payload/cgroup.procs").read_text() == "0\n"
    (bench.process / "ns/user").unlink()
    (bench.process / "ns/user").symlink_to("user:[1]")
    assert bench.check()[0] == 0
    assert entered(bench)[0][-1] == b"--user=./ns/user"


@linux
@pytest.mark.parametrize(
    ("leader", "cgroup", "said"),
    [
        ("", "0::/machine.slice/u/payload", "names no leader"),
        ("1 2", "0::/machine.slice/u/payload", "names no leader"),
        ("../1", "0::/machine.slice/u/payload", "names no leader"),
        ("43", "0::/machine.slice/u/payload", "leader is gone"),
        ("42", "0::/machine.slice/u/supervisor", "not in the control group"),
        ("42", "0::/machine.slice/u/payloads", "not in the control group"),
        ("42", "0::/machine.slice/u2/payload", "not in the control group"),
        ("42", "0::/user.slice/machine.slice/u/payload", "not in the control group"),
        ("42", "1:name=systemd:/machine.slice/u/payload", "not in the control group"),
    ],
)
def test_it_enters_nothing_but_the_machine(bench: Bench, leader: str, cgroup: str, said: str) -> None:
    bench.install(made())
    bench.check()
    bench.write("leader", f"{leader}\n")
    (bench.process / "cgroup").write_text(f"{cgroup}\n")
    done = bench.run()
    assert said in done.stdout.decode() and "failed with status 125" in done.stdout.decode()
    assert not (bench.place / "entered").exists()


@linux
def test_it_refuses_a_launcher_that_the_machine_could_write_to(bench: Bench) -> None:
    bench.install(made(), refuses=True)
    done = bench.run("enter", "/machine.slice/u/payload", cwd=bench.process)
    assert (done.returncode, (bench.place / "entered").exists()) == (125, False)
    assert b"this is for docker2nspawn-health@m.service to run" in done.stdout


# --- what becomes of results ---


def state(bench: Bench) -> tuple[int, str, int]:
    """Run once: exit status, health, failures."""
    done = bench.run()
    assert done.stderr == b"", done.stderr
    health, failures, *_ = (bench.place / "m.health.state").read_text().split()
    return done.returncode, health, int(failures)


@linux
def test_failures_in_a_row_make_it_unhealthy_and_one_success_healthy(bench: Bench) -> None:
    bench.install(made(Healthcheck(("true",), retries=2)))
    assert state(bench) == (0, "starting", 0)
    assert not (bench.place / "entered").exists()  # the first check is one interval later
    bench.write("do", "exit 1")
    assert state(bench) == (0, "starting", 1)
    bench.write("do", "exit 0")
    assert state(bench) == (0, "healthy", 0)
    bench.write("do", "exit 3")
    assert state(bench) == (0, "healthy", 1)
    assert state(bench) == (1, "unhealthy", 2)
    assert state(bench) == (1, "unhealthy", 3)
    bench.write("do", "exit 0")
    assert state(bench) == (0, "healthy", 0)
    assert (bench.place / "log").read_text().replace("--status=", "").splitlines() == [
        "starting", "starting (1 of 2 failed)", "healthy", "healthy (1 of 2 failed)",
        "unhealthy (failures in a row: 2)", "unhealthy (failures in a row: 3)", "healthy",
    ]  # fmt: skip


@linux
def test_a_new_start_of_the_machine_is_a_new_start(bench: Bench) -> None:
    bench.install(made(Healthcheck(("true",), retries=1, restart=True)))
    bench.write("do", "exit 1")
    assert state(bench) == (0, "starting", 0)
    assert state(bench) == (1, "unhealthy", 1)
    assert "systemctl --no-block restart systemd-nspawn@m.service\n" in (bench.place / "log").read_text()
    bench.write("invocation", "two\n")
    assert state(bench) == (0, "starting", 0)


@linux
def test_a_result_of_a_machine_that_has_ended_does_not_count(bench: Bench) -> None:
    bench.install(made(Healthcheck(("true",), retries=1)))
    assert state(bench) == (0, "starting", 0)
    bench.write("do", f"echo two >{bench.place}/invocation; exit 1")
    assert state(bench) == (0, "starting", 0)
    bench.write("invocation", "")
    assert state(bench) == (0, "starting", 0)


@linux
def test_while_it_starts_failures_do_not_count_and_checks_come_faster(bench: Bench) -> None:
    bench.install(made(Healthcheck(("true",), interval=99, start_period=30, start_interval=0.01, retries=1)))
    bench.write("do", f"echo x >>{bench.place}/times; [ $(wc -l <{bench.place}/times) = 4 ]")
    assert state(bench) == (0, "healthy", 0)
    assert (bench.place / "times").read_text() == "x\n" * 4
    bench.write("do", "exit 1")
    assert state(bench) == (1, "unhealthy", 1)  # a success has ended the start


@linux
def test_the_first_check_after_the_start_period_counts(bench: Bench) -> None:
    bench.install(made(Healthcheck(("true",), interval=99, start_period=2, start_interval=1.2, retries=1)))
    bench.write("do", f"echo x >>{bench.place}/times; exit 1")
    assert state(bench) == (1, "unhealthy", 1)
    assert (bench.place / "times").read_text() == "x\n" * 2


@linux
def test_a_check_that_takes_too_long_is_ended_and_has_failed(bench: Bench) -> None:
    bench.install(made(Healthcheck(("true",), timeout=0.3, retries=3)))
    bench.check()
    # Deaf to everything that one can be deaf to, as its child is.
    bench.write(
        "do", f"trap '' TERM INT HUP; echo begun; (sleep 60; echo late >{bench.place}/late) & wait; exit 0"
    )
    done = bench.run()
    assert done.stdout == b"begun\nthe check took longer than 0.3 s\n"
    assert (done.returncode, done.stderr) == (0, b"")
    assert (bench.place / "m.health.state").read_text().startswith("starting 1 ")


@linux
def test_a_check_that_leaves_a_process_behind_does_not_block(bench: Bench) -> None:
    bench.install(made(Healthcheck(("true",), timeout=0.5)))
    bench.check()
    bench.write("do", "setsid sleep 5 & exit 0")
    assert bench.run().stdout == b"m is healthy\n"


@linux
def test_its_output_is_the_first_4096_bytes(bench: Bench) -> None:
    bench.install(made())
    bench.check()
    bench.write("do", "head -c 1000000 /dev/zero | tr '\\0' x; cat; exit 7")
    assert bench.run().stdout == b"x" * 4096 + b"the check failed with status 7\n"
    bench.write("do", "readlink /proc/$$/fd/0 >&2; ls /proc/$$/fd | wc -l; exit 7")
    shown = bench.run().stdout.splitlines()
    assert shown[0].startswith(b"pipe:")
