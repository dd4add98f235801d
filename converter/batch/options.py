"""What a list says of a machine, on top of what the command line said of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.arguments import size
from converter.batch.entry import Place, Setting, UsageError
from converter.errors import ConversionError
from converter.image.model import parse_platform
from converter.image.reference import check_machine_name
from converter.machine.network import parse_port
from converter.options import Options


def with_settings(base: Options, settings: Mapping[str, Setting]) -> Options:
    """`base` with what `settings` set, by the long names of the options of `convert`; a list replaces the one before.

    Paths are relative to the current directory. Raises UsageError, with its place, for what has no meaning.
    """
    whole: dict[str, Any] = {}
    build: dict[str, Any] = {}
    for key, setting in settings.items():
        if key in _BUILD:
            name, meaning = _BUILD[key]
            build[name] = _meant(setting, meaning)
        else:
            name, meaning = _WHOLE[key]
            whole[name] = _meant(setting, meaning)
    if build:
        whole["build"] = replace(base.build, **build)
    return replace(base, **whole)


def _meant(setting: Setting, meaning: Callable[[Any], Any]) -> Any:
    if isinstance(setting.value, tuple):
        values = zip(setting.value, setting.places, strict=True)
        return tuple(part for value, place in values for part in _at(place, meaning, value))
    return _at(setting.place, meaning, setting.value)


def _at(place: Place, meaning: Callable[[Any], Any], value: object) -> Any:
    try:
        return meaning(value)
    except ConversionError as error:
        raise UsageError(place, str(error)) from None


def _same(value: Any) -> Any:
    return value


def _one(value: str) -> tuple[str]:
    return (value,)


def _name(value: str) -> str:
    check_machine_name(value)
    return value


# Long name of the option -> field, and what its text means; of a list's values, each one's.
_WHOLE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "name": ("name", _name),
    "root": ("root", lambda text: Path(text).absolute()),
    "force": ("force", _same),
    "no-trust": ("trust", lambda no: not no),
    "strict": ("strict", _same),
    "platform": ("platform", parse_platform),
    "plain-http": ("plain_http", _same),
    "max-entries": ("max_entries", _same),
    "max-size": ("max_size", size),
    "network": ("network", _same),
    "publish": ("ports", parse_port),
    "publish-all": ("publish_all", _same),
    "volumes": ("volumes", _same),
    "hardening": ("hardening", _same),
    "systemd": ("systemd", _same),
    "on-unhealthy": ("restart_unhealthy", lambda what: what == "restart"),
}
_BUILD: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "file": ("file", Path),
    "target": ("target", _same),
    "build-arg": ("build_args", _one),
    "base": ("bases", _one),
    "mirror": ("mirror", _same),
    "secret": ("secrets", _one),
    "ssh": ("agents", _one),
    "allow": ("allow", _one),
    "no-cache": ("no_cache", _same),
    "pull": ("pull", _same),
    "chroot": ("chroot", _same),
}
