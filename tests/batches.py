"""Summaries of batches as they come to be, with notes such as `convert` makes them."""

from __future__ import annotations

from converter.batch.model import Outcome, State, Summary
from converter.note import Note

_PROGRAMS = ("web", "api", "worker", "postgres", "redis", "mail", "ci-runner", "grafana", "queue", "ldap")
_DROPPED = (
    Note("dropped", "Tty", "a service has no terminal; for one run systemd-nspawn -M NAME"),
    Note("dropped", 'HostConfig.LogConfig {"Type": "fluentd"}', "the journal has what the machine prints"),
    Note("dropped", "network frontend", "other containers' names do not resolve; put them into /etc/hosts"),
    Note(
        "dropped",
        "HostConfig.ShmSize 1073741824",
        "nspawn has no option for /dev/shm; it is half of the memory",
    ),
)
_FAILURES = (
    ("registry.example: 401 Unauthorized", "log in first: docker login registry.example"),
    (
        "layer 3 of 7: digest is not what the manifest says",
        "pull or push the image again: its layer is damaged",
    ),
    ("no room: 3.1 GB more are needed in /var/lib/machines", "make room there, or name fewer machines"),
    ("the image is for windows/amd64", ""),
)


def notes(number: int) -> tuple[Note, ...]:
    """Forty notes for the machine of this number; a few of them are its own."""
    program = _PROGRAMS[number % len(_PROGRAMS)]
    exact = [Note("exact", f"ENV {program.upper()}_SETTING_{i}", "Environment=") for i in range(16)]
    exact += [
        Note("exact", "ENTRYPOINT", "Parameters="),
        Note("exact", "CMD", "Parameters="),
        Note("exact", f"WORKDIR /srv/{program}", "WorkingDirectory=; made, as Docker makes it"),
        Note("exact", "USER app", "uid 1000, gid 1000, groups 1000"),
        Note("exact", f"port {8000 + number}/tcp", f"published on *:{8000 + number} of the host"),
        *(Note("exact", f"HostConfig.Field{i} {i}", f"Setting{i}= in the unit's drop-in") for i in range(8)),
    ]
    adapted = [
        Note("adapted", "/etc/machine-id", "uninitialized: nspawn starts no machine whose id is none"),
        Note("adapted", "the command", "runs through the launcher, which makes its surroundings Docker's"),
        Note("adapted", "MAINTAINER", "says nothing to nspawn; kept in the machine's record"),
        Note("adapted", f"LABEL {program}.version", "nspawn has no labels; kept in the machine's record"),
        Note("adapted", f"VOLUME /var/lib/{program}", f"a directory of the host, volumes/m{number}"),
        Note("adapted", "HEALTHCHECK", "a timer runs it every 30 s; unhealthy after 3 failures"),
        Note("adapted", "EXPOSE 80/tcp", "the machine shares the host's network: the port is the host's own"),
        Note("adapted", "trust", f"/etc/systemd/nspawn/m{number}.nspawn links to the settings file"),
    ]  # fmt: skip
    dropped = [note for place, note in enumerate(_DROPPED) if number % (place + 3) == 0]
    return (*exact, *adapted, *dropped)


def outcome(number: int, state: State) -> Outcome:
    """What became of the machine of this number."""
    program = _PROGRAMS[number % len(_PROGRAMS)]
    name, source = f"{program}-{number:04}", f"registry.example/team/{program}:1.{number}"
    if state == "failed":
        reason, remedy = _FAILURES[number // 7 % len(_FAILURES)]
        return Outcome(number, name, source, state, reason=reason, remedy=remedy, attempts=3, seconds=4.2)
    if state in {"left", "interrupted"}:
        return Outcome(number, name, source, state)
    return Outcome(
        number, name, source, state, digest=f"sha256:{number:064x}", tree_path=f"/var/lib/machines/{name}",
        notes=notes(number), seconds=1.5 + number % 90, size=10_000_000 + 777_777 * number,
    )  # fmt: skip


def batch(machines: int) -> Summary:
    """A batch in which everything happens: of 40 machines one fails, of 50 one was there already."""

    def state(number: int) -> State:
        if number % 40 == 7:
            return "failed"
        if number % 50 == 3:
            return "complete"
        return "left" if number > machines - 5 and machines > 20 else "done"

    return Summary(
        outcomes=tuple(outcome(number, state(number)) for number in range(machines)),
        version="0.1.0",
        host="build-7.example",
        root="/",
        started=1_760_000_000.0,
        ended=1_760_001_234.5,
        jobs=8,
        messages=("list:17: old-web is there twice; the second one is left out",),
    )
