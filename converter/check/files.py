"""The files that go with a tree: which settings nspawn reads, whether it knows and trusts them, and the units."""

from __future__ import annotations

import re
from collections.abc import Iterator

from converter import inside
from converter.check.finding import Finding, problem, warning
from converter.check.installed import STATE, Installed
from converter.check.parse import split_words
from converter.check.versions import BIND_OPTIONS_SINCE, SETTINGS_SINCE, UNIT_SINCE
from converter.commands import systemd_runs, unit_property
from converter.machine.launcher import LAUNCHER_PATH
from converter.machine.secrets import looks_secret
from converter.machine.settings import needs_trust

_OURS = f"/{STATE}/"


def settings_findings(machine: Installed) -> Iterator[Finding]:
    """Which settings file nspawn reads, and what it makes of it."""
    yield from _trust_findings(machine)
    if machine.settings_path is None:
        return
    yield from _key_findings(machine)
    found = inside.status(machine.root, machine.settings_path)
    if found is None:
        return
    path = f"/{machine.own_settings if machine.own else machine.settings_path}"
    if found.st_mode & 0o022:
        yield problem(
            "settings", f"others than root may write {path}, and so take over the host", f"chmod 644 {path}"
        )
    if found.st_mode & 0o004 and (secrets := _secrets(machine)):
        yield warning(
            "secret", f"every user of the host can read {', '.join(secrets)} in {path}", f"chmod 600 {path}"
        )


def _trust_findings(machine: Installed) -> Iterator[Finding]:
    own, trusted = f"/{machine.own_settings}", f"/{machine.trusted_settings}"
    link = f"mkdir -p /etc/systemd/nspawn && ln -sfn {own} {trusted}"
    if inside.status(machine.root, machine.own_settings) is None:
        yield problem("settings", f"{own} is missing", machine.again)
        if machine.settings_path is None:
            return
    if machine.settings_path is not None and machine.trusted and not machine.own:
        other = f"/{machine.settings_path}"
        yield problem(
            "settings",
            f"{other} is not a link to {own}, and nspawn reads it instead",
            f"mv {other} /root/ && {link}",
        )
    if machine.settings_path is None or machine.trusted:
        return
    keys = dict.fromkeys(
        s.key
        for s in machine.settings
        if s.value and needs_trust(s.key) and not (s.key == "SystemCallFilter" and s.value[0] == "~")
    )
    if not keys:
        return
    target = inside.link(machine.root, machine.trusted_settings)
    why = f"{trusted} is missing" if target is None else f"{trusted} leads to {target}, which is missing"
    severe = warning if machine.option("trust") == "False" else problem
    yield severe("trust", f"{why}, so nspawn ignores {', '.join(keys)}", link)


def _key_findings(machine: Installed) -> Iterator[Finding]:
    path = f"/{machine.settings_path}"
    newer = "use a newer systemd, or make it again there"
    for section, key in dict.fromkeys((s.section, s.key) for s in machine.settings):
        since = SETTINGS_SINCE.get((section, key))
        if since is None and not section.startswith("X-") and not key.startswith("X-"):
            yield warning(
                f"{key}=", f"nspawn knows no {key}= in [{section}] and skips it", f"take it out of {path}"
            )
        elif since is not None and machine.systemd is not None and since > machine.systemd:
            text = f"systemd {machine.systemd} has no {key}= (since {since}): it is skipped"
            yield problem(f"{key}=", text, f"{newer}, or take it out of {path}")
    options = {word for mount in machine.mounts if "Bind" in mount.key for word in mount.options.split(",")}
    for option, since in BIND_OPTIONS_SINCE.items():
        if option in options and machine.systemd is not None and since > machine.systemd:
            text = f"systemd {machine.systemd} has no mount option {option} (since {since}): nothing starts"
            yield problem("Bind=", text, f"{newer}, or take it out of {path}")


def _secrets(machine: Installed) -> list[str]:
    words = [word for word in machine.words("Environment") if "=" in word]
    parameters = machine.words("Parameters")
    if parameters[:1] == [LAUNCHER_PATH]:
        words += [word.removeprefix("--setenv=") for word in parameters if word.startswith("--setenv=")]
    return list(looks_secret(words))


def unit_findings(machine: Installed) -> Iterator[Finding]:
    """The drop-in, the units it asks for, and whether systemd has read them."""
    if machine.drop_in is None:
        yield problem(
            "drop-in", f"/{machine.drop_in_path} is missing: /tmp, stopping and limits differ", machine.again
        )
    for section, key in dict.fromkeys((s.section, s.key) for s in machine.drop_in or ()):
        since = UNIT_SINCE.get((section, key))
        if since is not None and machine.systemd is not None and since > machine.systemd:
            text = f"systemd {machine.systemd} has no {key}= in [{section}] (since {since}): it is skipped"
            yield problem(
                f"{key}=",
                text,
                f"use a newer systemd, or make it again there, or edit /{machine.drop_in_path}",
            )
    yield from _further_unit_findings(machine)
    mask = inside.link(machine.root, f"etc/systemd/system/{machine.unit}")
    if mask == "/dev/null":
        yield problem("unit", f"{machine.unit} is masked", f"systemctl unmask {machine.unit}")
    if (
        machine.live
        and systemd_runs(machine.root)
        and unit_property(machine.unit, "NeedDaemonReload") == "yes"
    ):
        yield problem(
            "units",
            f"files of {machine.unit} have changed since systemd read them",
            "systemctl daemon-reload",
        )


def _further_unit_findings(machine: Installed) -> Iterator[Finding]:
    """Units of our own that the drop-in or the record asks for, and the programs that they start."""
    asked = " ".join(machine.unit_values("Requires", "Requisite", "Wants", "BindsTo", "Upholds")).split()
    units = [unit for unit in asked if unit.startswith("docker2nspawn-")]
    if has_healthcheck(machine):
        units += [f"docker2nspawn-health@{machine.name}.{kind}" for kind in ("timer", "service")]
    for unit in dict.fromkeys(units):
        content = inside.read(machine.root, f"etc/systemd/system/{unit}")
        if content is None:
            yield problem(
                "unit", f"/etc/systemd/system/{unit} is missing, and the machine needs it", machine.again
            )
            continue
        text = content.decode("utf-8", "replace").replace("%i", machine.name)
        for line in re.findall(r"^Exec[A-Za-z]+=[-@:+!]*(.+)", text, re.MULTILINE):
            for path in split_words(line):
                if path.startswith(_OURS) and inside.status(machine.root, path) is None:
                    yield problem("unit", f"{unit} runs {path}, which is missing", machine.again)


def has_healthcheck(machine: Installed) -> bool:
    """Has the machine a health check that a timer runs?"""
    check = machine.config.get("healthcheck")
    test = check.get("test") if isinstance(check, dict) else None
    if not isinstance(test, list) or test[:1] in ([], ["NONE"]):
        return False
    notes = machine.record.get("notes")
    return not any(
        isinstance(note, dict)
        and note.get("kind") == "dropped"
        and str(note.get("subject")).startswith("HEALTHCHECK")
        for note in (notes if isinstance(notes, list) else ())
    )
