"""The drop-in of systemd-nspawn@NAME.service: what a settings file cannot say (systemd.unit(5))."""

from __future__ import annotations

from converter.machine.model import Machine
from converter.machine.settings import comment


def render_drop_in(machine: Machine, heading: str) -> str:
    """The drop-in's text. `heading` is one comment line, and stays one whatever is in it."""
    service = [f"Environment={name}={value}" for name, value in sorted(machine.unit_environment.items())]
    if machine.timeout_stop is not None:
        # Docker's -1 is "wait for ever".
        service.append(f"TimeoutStopSec={machine.timeout_stop if machine.timeout_stop >= 0 else 'infinity'}")
    # nspawn gives a machine no higher limits than its own.
    service += [f"{key}={value}" for key, value in sorted(machine.limits.items())]
    sections: dict[str, list[str]] = {"Unit": [], "Service": service}
    for setting in machine.unit:
        sections[setting.section].append(f"{setting.key}={setting.value}")
    lines = [comment(heading)]
    for section, settings in sections.items():
        if settings:
            lines += [f"[{section}]", *settings]
    return "\n".join(lines) + "\n"
