"""HEALTHCHECK on a host with systemd: a timer, a service and a script that runs the check in the machine.

What it does is Docker's (moby daemon/health.go): the interval counts from the end of a check, and the first comes one
interval after the start; exit status 0 is healthy, any other a failure, as is a check that takes too long; failures
count until there are `retries` in a row, but not while the machine starts; the first 4096 bytes of output are kept.

`systemctl status docker2nspawn-health@NAME.service` shows the state; the unit is failed while the machine is unhealthy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from string import Template

from converter.machine.launcher import capability_mask, launcher_arguments
from converter.machine.model import Account, File, Healthcheck, UnitSetting
from converter.machine.settings import comment

_DIRECTORY = "/var/lib/docker2nspawn/machines"
_SHORTEST = 0.001  # seconds; Docker takes no shorter time, and timeout(1) takes 0 for "for ever"

_TIMER = """\
$heading
[Unit]
Description=Health checks of the machine $name
# It starts after the machine, and stops, restarts and fails with it.
BindsTo=systemd-nspawn@$name.service
After=systemd-nspawn@$name.service

[Timer]
# At once, which only notes the start; then one interval after the end of each run.
OnActiveSec=0
OnUnitInactiveSec=${interval}s
AccuracySec=100ms
Unit=docker2nspawn-health@$name.service
"""

_SERVICE = """\
$heading
[Unit]
Description=Health of the machine $name
After=systemd-nspawn@$name.service
# Not PartOf=: when the machine is restarted, its timer comes first.
StopPropagatedFrom=systemd-nspawn@$name.service
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/bin/sh $directory/$name.health
# For the line "Status:".
NotifyAccess=all
TimeoutStopSec=5s
# Stopped with the machine.
SuccessExitStatus=SIGTERM
SyslogIdentifier=docker2nspawn-health
# Nothing about each start and end of a check that succeeds.
LogLevelMax=notice
SyslogLevel=notice
RuntimeDirectory=docker2nspawn
RuntimeDirectoryPreserve=yes
# What the machine could get hold of, above all the launcher, is on a mount that nobody can write to; see the script.
ProtectSystem=strict
"""

# The template's own $ are doubled. The image's text is at @command@ alone, all of it quoted.
_SCRIPT = """\
#!/bin/sh
$heading
#
# Runs the health check of the machine $name; docker2nspawn-health@$name.timer says when.
# The state is in /run/docker2nspawn/$name.health: state, failures in a row, the machine's start.
set -u

machine=$name
unit=systemd-nspawn@$name.service
state=/run/docker2nspawn/$name.health
launcher=$directory/$name.launch
script=$directory/$name.health

timeout=$timeout # seconds
timeout_hundredths=$timeout_hundredths
start_period_hundredths=$start_period_hundredths
start_interval=$start_interval # seconds
retries=$retries
restart=$restart # the machine, when it is unhealthy

property() { systemctl show --value --property="$$1" "$$unit"; }

# Hundredths of a second since the host's start.
now() {
    read -r uptime _ </proc/uptime
    echo "$${uptime%.*}$${uptime#*.}"
}

fail() {
    echo "cannot enter the machine: $$1"
    exit 125
}

# Find the machine, and run the check in it. Standard output is a pipe, input is an empty one: a device of the host
# would be the machine's to change.
run() {
    leader=$$(machinectl show --value --property=Leader "$$machine") || fail "no such machine is running"
    case $$leader in '' | *[!0-9]*) fail "machinectl names no leader" ;; esac
    # From now on, and for whatever starts here, "." is that process or nothing, also when its number is used again.
    cd "/proc/$$leader" || fail "its leader is gone"
    # It counts as the machine's when it is below the unit's own control group, where nobody else can put it.
    cgroup=
    while IFS= read -r line; do
        case $$line in 0::*) cgroup=$${line#0::} ;; esac
    done <./cgroup
    control=$$(property ControlGroup)
    case $$control in /?*) ;; *) fail "its unit is not running" ;; esac
    case $$cgroup in
        "$$control/payload" | "$$control/payload/"*) ;;
        *) fail "process $$leader is not in the control group of $$unit" ;;
    esac
    # A process group of its own: SIGKILL, which nothing can ignore, reaches all of it.
    exec timeout --signal=KILL "$$timeout" /bin/sh "$$script" enter "$$cgroup"
}

# Become the check: in the machine's limits and namespaces, with no more privileges than it has. Called in its leader's
# directory in /proc.
#
# Until the command runs, a process with all of root's privileges is where the machine can see it. It is safe because
# - it executes nothing out of the machine, but this host's own launcher, by a descriptor;
# - no environment variable of the image reaches a program of this host (LD_PRELOAD): the launcher sets them;
# - nobody there may look at it: at nsenter since it has more privileges, and the launcher hides itself before it gives
#   them up (a machine that was given CAP_SYS_PTRACE or CAP_SYS_ADMIN can do as it likes, in Docker too);
# - the launcher closes every descriptor and enters a directory only after it is in the machine: no path there,
#   like /proc/self/fd/3, leads to the host;
# - a command that is /proc/self/exe runs the launcher again, and then the machine can open its file, but not to
#   write: the unit's ProtectSystem= has put it on a read-only mount. So this refuses to run elsewhere.
enter() {
    if [ -w "$$launcher" ]; then fail "this is for docker2nspawn-health@$$machine.service to run"; fi
    echo 0 >"/sys/fs/cgroup$$1/cgroup.procs" || fail "its control group does not take the check"
    set -- --mount=./ns/mnt --uts=./ns/uts --ipc=./ns/ipc --net=./ns/net --pid=./ns/pid --cgroup=./ns/cgroup
    # A user namespace cannot be entered twice.
    if [ "$$(readlink ./ns/user)" != "$$(readlink /proc/self/ns/user)" ]; then set -- "$$@" --user=./ns/user; fi
    nsenter=$$(command -v nsenter) || fail "nsenter is missing, install util-linux"
    exec 3<"$$launcher"
    exec env -i "$$nsenter" "$$@" -- /proc/self/fd/3 \\
@command@
}

# Run the check once, print at most 4096 bytes of what it says, and count.
check() {
    begun=$$(now)
    # The exit status comes by descriptor 4, the output by 3. The reader does not wait for what the check leaves behind.
    status=$$({
        {
            : | (run) 2>&1 3>&- 4>&-
            echo $$? >&4
        } 2>/dev/null | timeout --signal=KILL "$reading" /bin/sh -c 'head --bytes=4096; cat >/dev/null' >&3 4>&-
    } 4>&1) 3>&1
    took=$$(($$(now) - begun))
    # It has ended, or is another one by now.
    systemctl --quiet is-active "$$unit" && [ "$$(property InvocationID)" = "$$invocation" ] || exit 0

    before=$$health
    if [ "$$status" = 0 ]; then
        health=healthy
        failures=0
    else
        if [ "$$status" = 137 ] && [ "$$took" -ge "$$timeout_hundredths" ]; then
            echo "the check took longer than $$timeout s"
        else
            echo "the check failed with status $$status"
        fi
        if [ "$$health" != starting ] || [ $$((begun - started)) -ge "$$start_period_hundredths" ]; then
            failures=$$((failures + 1))
            if [ "$$failures" -ge "$$retries" ]; then health=unhealthy; fi
        fi
    fi
    if [ "$$health" != "$$before" ]; then echo "$$machine is $$health"; fi
    record
}

record() {
    echo "$$health $$failures $$invocation $$started" >"$$state.new"
    mv "$$state.new" "$$state"
    case $$health-$$failures in
        *-0) shown=$$health ;;
        unhealthy-*) shown="$$health (failures in a row: $$failures)" ;;
        *) shown="$$health ($$failures of $$retries failed)" ;;
    esac
    systemd-notify --status="$$shown" || :
}

if [ "$${1-}" = enter ]; then
    enter "$$2"
fi

invocation=$$(property InvocationID)
systemctl --quiet is-active "$$unit" && [ -n "$$invocation" ] || exit 0
known=
if [ -e "$$state" ]; then read -r health failures known started <"$$state"; fi
if [ "$$known" = "$$invocation" ]; then
    check
else
    health=starting
    failures=0
    started=$$(now)
    record
    # While it starts, checks may come faster than those of the timer.
    while [ "$$health" = starting ] && [ $$(($$(now) - started)) -lt "$$start_period_hundredths" ]; do
        sleep "$$start_interval"
        check
    done
fi
if [ "$$health" = unhealthy ]; then
    if [ "$$restart" = yes ]; then
        echo "restarting $$machine"
        systemctl --no-block restart "$$unit"
    fi
    exit 1
fi
"""


def health_unit_settings(name: str) -> tuple[UnitSetting, ...]:
    """For the drop-in of the machine's unit: the checks start with it."""
    return (UnitSetting("Unit", "Wants", f"docker2nspawn-health@{name}.timer"),)


def health_files(
    name: str,
    check: Healthcheck,
    *,
    account: Account,
    environment: tuple[str, ...],
    working_directory: str,
    bounding: frozenset[str],
    no_new_privileges: bool,
    heading: str,
    launcher: bytes,
    limits: Mapping[str, str] | None = None,
    confined: bool = True,
    private_users: bool = False,
) -> tuple[File, ...]:
    """The files that check the health of the machine `name` (letters, digits, ".", "_" and "-").

    The command gets what `docker exec` gives: account, the whole `environment`, directory, the capabilities `bounding`
    ("CAP_...") and the machine's `limits` (Limit*= by key). `launcher` is that of the host's processor. `confined`:
    the machine has Docker's system call filter; `private_users`: it has a user namespace of its own. `heading` is one
    comment line. Raises ConversionError for what no program can be given.
    """
    words = launcher_arguments(
        uid=account.uid,
        gid=account.gid,
        groups=account.groups,
        argv=check.command,
        setenv=environment,
        bounding=capability_mask(bounding),
        chdir=working_directory,
        no_new_privs=no_new_privileges,
    )[1:]
    timeout = max(check.timeout, _SHORTEST)
    values = {
        "heading": comment(heading),
        "name": name,
        "directory": _DIRECTORY,
        "interval": _seconds(check.interval),
        "timeout": _seconds(timeout),
        "timeout_hundredths": str(math.floor(timeout * 100)),
        "reading": _seconds(timeout + 1),
        "start_period_hundredths": str(math.ceil(check.start_period * 100)),
        "start_interval": _seconds(check.start_interval),
        "retries": str(max(check.retries, 1)),
        "restart": "yes" if check.restart else "no",
    }
    # No template sees the image's own text.
    before, after = (Template(part).substitute(values) for part in _SCRIPT.split("@command@"))
    script = before + " \\\n".join(f"        {_quoted(word)}" for word in words) + after
    service = Template(_SERVICE).substitute(values)
    service += "".join(f"{line}\n" for line in _sandbox(bounding, confined, private_users))
    service += "".join(f"{key}={value}\n" for key, value in sorted((limits or {}).items()))
    unit = f"etc/systemd/system/docker2nspawn-health@{name}"
    own = _DIRECTORY.lstrip("/")
    return (
        File(f"{unit}.timer", Template(_TIMER).substitute(values).encode()),
        File(f"{unit}.service", service.encode()),
        # The environment may hold secrets.
        File(f"{own}/{name}.health", script.encode(), 0o700),
        File(f"{own}/{name}.launch", launcher, 0o755),
    )


def _sandbox(bounding: frozenset[str], confined: bool, private_users: bool) -> Iterator[str]:
    """Docker's system call filter for the check, as far as the way into the machine goes through it too.

    That needs setns(2), which the kernel refuses to who lacks CAP_SYS_ADMIN. Only names that systemd 252 knows.
    """
    if not confined:
        return
    forbidden = [
        "@keyring",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "migrate_pages",
        "move_pages",
    ]
    forbidden += ["pivot_root", "userfaultfd"]
    if "CAP_SYS_ADMIN" not in bounding:
        forbidden += ["@mount", "setdomainname", "sethostname", "unshare"]
        if not private_users:
            yield "# All but user namespaces."
            yield "RestrictNamespaces=cgroup ipc net mnt pid uts"
    elif "CAP_SYS_CHROOT" not in bounding:
        forbidden.append("chroot")
    yield f"SystemCallFilter=~{' '.join(forbidden)}"
    if "CAP_SYS_ADMIN" not in bounding and "CAP_SYS_CHROOT" in bounding:
        yield "SystemCallFilter=chroot"  # again, since it is in @mount
    yield "SystemCallErrorNumber=EPERM"
    yield "RestrictAddressFamilies=~AF_ALG AF_VSOCK"


def _seconds(value: float) -> str:
    """A time for systemd, sleep(1) and timeout(1): to the microsecond, never in exponents."""
    return f"{max(value, _SHORTEST):.6f}".rstrip("0").rstrip(".")


def _quoted(word: str) -> str:
    """`word`, on one line, as a shell reads it: quoted always, whatever is in it."""
    quote, escaped = "'", "'\\''"
    return f"'{word.replace(quote, escaped)}'"
