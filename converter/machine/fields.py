"""The fields of an image's config that no setting of nspawn answers to: what the report says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from converter.image.model import ImageConfig
from converter.machine.settings import hostname_expressible
from converter.note import Note


def without_client_fields(config: ImageConfig) -> tuple[ImageConfig, list[Note]]:
    """Fields that an image may carry along but `docker run` takes only from its own command line (moby: merge)."""
    default = ImageConfig()
    fields = {
        "hostname": "Hostname",
        "domainname": "Domainname",
        "mac_address": "MacAddress",
        "network_disabled": "NetworkDisabled",
        "tty": "Tty",
        "open_stdin": "OpenStdin",
        "stop_timeout": "StopTimeout",
    }
    there = [field for field in fields if getattr(config, field) != getattr(default, field)]
    notes = [
        Note("exact", fields[field], "not taken from an image by `docker run` either") for field in there
    ]
    changes: dict[str, Any] = {field: getattr(default, field) for field in there}
    return replace(config, **changes), notes


def other_fields(config: ImageConfig) -> Iterator[Note]:
    """The fields without a setting of their own in nspawn."""
    if config.labels:
        names = ", ".join(config.labels)
        yield Note("adapted", f"LABEL {names}", "nspawn has no labels; kept in the machine's record")
    build_only = "matters to builds from this image, not to a running one; kept in the machine's record"
    if config.shell:
        yield Note("adapted", "SHELL", build_only)
    for _ in config.on_build[:1]:
        yield Note("adapted", "ONBUILD", build_only)
    for subject, value in (
        ("MAINTAINER", config.author),
        ("created", config.created),
        ("os.version", config.os_version),
        ("os.features", ",".join(config.os_features)),
    ):
        if value:
            yield Note("adapted", subject, "says nothing to nspawn; kept in the machine's record")
    if config.hostname and hostname_expressible(config.hostname):
        yield Note("exact", f"Hostname {config.hostname}", "Hostname=")
    elif config.hostname:
        yield Note(
            "dropped", f"Hostname {config.hostname}", "systemd takes only letters, digits, '-' and '.'"
        )
    if config.domainname:
        yield Note(
            "adapted", f"Domainname {config.domainname}", "in /etc/hosts; nspawn sets no NIS domain name"
        )
    if config.mac_address:
        yield Note("exact", f"MacAddress {config.mac_address}", "the private network's link has it")
    if config.network_disabled:
        yield Note("exact", "NetworkDisabled", "as --network none")
    for subject, wanted in (("Tty", config.tty), ("OpenStdin", config.open_stdin)):
        if wanted:
            yield Note("dropped", subject, "a service has no terminal; for one run systemd-nspawn -M NAME")
    if config.stop_timeout is not None:
        yield Note("exact", f"StopTimeout {config.stop_timeout}", "TimeoutStopSec= in the unit's drop-in")
    for path, value in config.other.items():
        text = repr(value)
        yield Note(
            "dropped",
            path,
            f"unknown to Docker and nspawn; {text if len(text) < 60 else 'its value'} is in the record",
        )
