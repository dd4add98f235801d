"""RUN --mount: its fields and their defaults (BuildKit's commands_runmount.go and convert_runmount.go)."""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from converter.dockerfile.draft import Draft, clean
from converter.dockerfile.flags import flag_error
from converter.dockerfile.model import Flag, ImageSource, Instruction, Mount, StageSource
from converter.dockerfile.parser import near
from converter.dockerfile.values import parse_size, parse_truth

KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_KEYS = {  # every spelling, and the name it has here
    "type": "type",
    "from": "from",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "readwrite": "readwrite",
    "rw": "readwrite",
    "required": "required",
    "size": "size",
    "id": "id",
    "sharing": "sharing",
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "env": "env",
}
_WITHOUT_VALUE = frozenset({"readonly", "readwrite", "required"})
_VARIABLE = re.compile(r"\$.")


@dataclass
class _Place:
    """Where the mount is written, and how its values are expanded."""

    instruction: Instruction
    flag: Flag
    expand: Callable[[str], str]

    def error(self, text: str, hint: str = "") -> Exception:
        return flag_error(self.instruction, self.flag, text, hint)


def check_mount(instruction: Instruction, flag: Flag) -> None:
    """What can be told without any variable. Raises DockerfileError."""
    place = _Place(instruction, flag, str)
    for field in _split(place):
        key, equals, value = field.partition("=")
        if equals and key.lower() == "from" and _VARIABLE.search(value):
            raise place.error(
                "'from' doesn't support variable expansion, define alias stage instead",
                "write FROM with the variable AS a name, and from= that name",
            )


def parse_mount(draft: Draft, instruction: Instruction, flag: Flag) -> Mount:
    """Read one --mount; its values are expanded. Raises DockerfileError."""
    place = _Place(instruction, flag, lambda text: draft.expand(instruction, text))
    given = _fields(place)
    kind = given.get("type", "bind")
    _check_fields(place, kind, given)
    origin = draft.find(instruction, flag, given["from"]) if given.get("from") else None
    match kind:
        case "secret":
            return _secret(place, draft, given)
        case "ssh":
            return _ssh(place, draft, given)
        case "bind" | "cache" | "tmpfs":
            return _directory(place, draft, kind, given, origin)
    raise place.error(f'unsupported mount type "{kind}"', near(kind, KINDS) or f"types: {', '.join(KINDS)}")


def _split(place: _Place) -> list[str]:
    value = place.flag.value or ""
    if '"' not in value and "\r" not in value and value:
        return value.split(",")
    try:
        rows = list(csv.reader([value], strict=True))
    except csv.Error:
        rows = []
    if len(rows) != 1 or not rows[0]:
        raise place.error(
            "failed to parse csv mounts", "write --mount=type=bind,source=DIRECTORY,target=/PLACE"
        )
    return rows[0]


def _fields(place: _Place) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for field in _split(place):
        written, equals, value = field.partition("=")
        name = _KEYS.get(written.lower())
        if name is None:
            hint = near(written, tuple(_KEYS)) or f"the keys are {', '.join(_KEYS)}"
            raise place.error(f"unexpected key '{written.lower()}' in '{field}'", hint)
        if not equals:
            if name not in _WITHOUT_VALUE:
                raise place.error(
                    f"invalid field '{field}' must be a key=value pair", f"write {written}=VALUE"
                )
            value = "true"
        value = place.expand(value)
        if name in ("required", "size"):
            allowed = ("secret", "ssh") if name == "required" else ("tmpfs",)
            kind = given.get("type", "bind")
            if kind not in allowed:  # type= has to come before, as in BuildKit
                text = f"unexpected key '{name}' for mount type '{kind}'"
                raise place.error(text, f"it belongs to type={' and type='.join(allowed)}, after type=")
        given[name] = _value(place, name, written, value)
        if name in ("readonly", "readwrite"):
            given["readonly"] = given[name] if name == "readonly" else not given[name]
    return given


def _value(place: _Place, name: str, written: str, value: str) -> Any:
    try:
        match name:
            case "type":
                if value.lower() not in KINDS:
                    hint = near(value, KINDS) or f"the types are {', '.join(KINDS)}"
                    raise place.error(f'unsupported mount type "{value}"', hint)
                return value.lower()
            case "sharing":
                if value.lower() not in _SHARING:
                    hint = near(value, _SHARING) or f"the values are {', '.join(_SHARING)}"
                    raise place.error(f'unsupported sharing value "{value}"', hint)
                return value.lower()
            case "readonly" | "readwrite" | "required":
                return parse_truth(value)
            case "size":
                return parse_size(value)
            case "mode":
                return _unsigned(value, 8)
            case "uid" | "gid":
                return _unsigned(value, 10)
    except ValueError:
        hint = {"mode": "write an octal number like 0755", "size": "write it like 64m"}.get(name, "")
        raise place.error(f"invalid value for {written}: {value}", hint) from None
    return value


def _unsigned(text: str, base: int) -> int:
    if not re.fullmatch(r"[0-7]{1,32}" if base == 8 else r"[0-9]{1,32}", text) or int(text, base) >> 32:
        raise ValueError(text)
    return int(text, base)


def _check_fields(place: _Place, kind: str, given: Mapping[str, Any]) -> None:
    if kind not in ("secret", "ssh", "cache"):
        for name in ("mode", "uid", "gid"):
            if name in given:
                raise place.error(f'{name} not allowed for "{kind}" type mounts', f"remove {name}=")
    if kind == "secret":
        if given.get("from"):
            raise place.error("secret mount should not have a from", "remove from=")
        if "sharing" in given:
            raise place.error("secret mount should not define sharing", "remove sharing=")
        if not (given.get("source") or given.get("target") or given.get("id")):
            raise place.error("invalid secret mount. one of source, target required", "write id=NAME")
        if given.get("source") and given.get("id"):
            raise place.error("both source and id can't be set", "remove source=")
    if kind == "ssh" and given.get("source"):
        raise place.error("ssh does not support source", "remove source=")
    if "sharing" in given and kind != "cache":
        raise place.error(f"invalid cache sharing set for {kind} mount", "remove sharing=")


def _secret(place: _Place, draft: Draft, given: Mapping[str, Any]) -> Mount:
    target = given.get("target") or ""
    secret = given.get("source") or given.get("id") or posixpath.basename(target.rstrip("/"))
    env = given.get("env")
    if env == "":
        raise place.error("env= names no variable", "write env=NAME")
    if not target and env is None:
        target = f"/run/secrets/{posixpath.basename(secret.rstrip('/'))}"
    return Mount(
        kind="secret",
        target=clean(target, draft.state().working_directory) if target else None,
        id=secret,
        required=given.get("required", False),
        mode=given.get("mode"),
        uid=given.get("uid"),
        gid=given.get("gid"),
        env=env,
        read_only=True,
    )


def _ssh(place: _Place, draft: Draft, given: Mapping[str, Any]) -> Mount:
    return Mount(
        kind="ssh",
        target=clean(given["target"], draft.state().working_directory) if given.get("target") else None,
        id=given.get("id") or "default",
        required=given.get("required", False),
        mode=given.get("mode"),
        uid=given.get("uid"),
        gid=given.get("gid"),
        read_only=True,
    )


def _directory(
    place: _Place,
    draft: Draft,
    kind: Literal["bind", "cache", "tmpfs"],
    given: Mapping[str, Any],
    origin: StageSource | ImageSource | None,
) -> Mount:
    written = given.get("target") or ""
    target = clean(written, draft.state().working_directory)
    if target == "/":
        raise place.error('invalid mount target "/"', "write target=/PLACE")
    cache = ""
    if kind == "cache":
        cache = given.get("id") or posixpath.normpath(written or ".")
    return Mount(
        kind=kind,
        target=target,
        origin=None if kind == "tmpfs" else origin,
        source=clean(given.get("source") or "/"),
        read_only=given.get("readonly", kind == "bind"),
        id=cache,
        sharing=cast(Literal["shared", "private", "locked"], given.get("sharing", "shared")),
        mode=given.get("mode"),
        uid=given.get("uid"),
        gid=given.get("gid"),
        size=given.get("size") or None,
    )
