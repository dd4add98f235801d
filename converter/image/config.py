"""Reading an image's config: OCI image-spec config.md, and the fields that only Docker writes.

Keys are matched without regard to case, as Go's encoding/json, and so Docker, reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.errors import ConversionError
from converter.image.manifest import parse_json
from converter.image.model import Healthcheck, ImageConfig, Platform

# Written by builders about the build, or about the client that asked; nothing of it reaches a running container.
_ABOUT_THE_BUILD = frozenset(
    {
        "attachstdin",
        "attachstdout",
        "attachstderr",
        "stdinonce",
        "image",
        "container",
        "container_config",
        "docker_version",
        "id",
        "parent",
        "comment",
        "history",
        "throwaway",
        "size",
    }
)


class _Fields:
    """A JSON object that is taken apart field by field, so that what nobody took can be reported."""

    def __init__(self, value: object, where: str) -> None:
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise ConversionError(f"the image config is not valid: {where} must be an object")
        self.where = where
        self._rest: dict[str, Any] = {str(k).lower(): v for k, v in value.items()}
        self._spelling = {str(k).lower(): str(k) for k in value}

    def _take(self, name: str, kind: type, article: str) -> Any:
        value = self._rest.pop(name.lower(), None)
        # bool is an int to Python, but not to Docker.
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise ConversionError(f"the image config is not valid: {self.where}.{name} must be {article}")
        return value

    def text(self, name: str) -> str:
        value = self._take(name, str, "a string") or ""
        if "\0" in value:
            raise ConversionError(f"the image config is not valid: {self.where}.{name} holds a NUL character")
        return str(value)

    def number(self, name: str) -> int | None:
        value = self._take(name, int, "a whole number")
        return None if value is None else int(value)

    def flag(self, name: str) -> bool:
        return bool(self._take(name, bool, "true or false"))

    def strings(self, name: str) -> tuple[str, ...]:
        value = self._rest.get(name.lower())
        if isinstance(value, str):  # Docker's strslice: one string stands for a list of one
            value = [value]
            self._rest.pop(name.lower())
        else:
            value = self._take(name, list, "a list of strings") or []
        if not all(isinstance(item, str) and "\0" not in item for item in value):
            raise ConversionError(
                f"the image config is not valid: {self.where}.{name} must be a list of strings without NUL"
            )
        return tuple(value)

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of an object used as a set, as Docker writes volumes and ports."""
        return self.strings_of(tuple(self._take(name, dict, "an object") or {}), name)

    def strings_of(self, items: tuple[str, ...], name: str) -> tuple[str, ...]:
        if any("\0" in item for item in items):
            raise ConversionError(f"the image config is not valid: {self.where}.{name} holds a NUL character")
        return items

    def mapping(self, name: str) -> dict[str, str]:
        value = self._take(name, dict, "an object of strings") or {}
        if not all(isinstance(item, str) for item in value.values()):
            raise ConversionError(
                f"the image config is not valid: {self.where}.{name} must be an object of strings"
            )
        return dict(value)

    def object(self, name: str) -> _Fields:
        return _Fields(
            self._take(name, dict, "an object"), name if not self.where else f"{self.where}.{name}"
        )

    def rest(self) -> dict[str, Any]:
        """What nobody took and what has a value: by its full path, in the image's own spelling."""
        return {
            f"{self.where}.{self._spelling[key]}".lstrip("."): value
            for key, value in self._rest.items()
            if key not in _ABOUT_THE_BUILD and value not in (None, "", [], {}, False, 0)
        }


def parse_config(data: bytes) -> tuple[ImageConfig, Platform, tuple[str, ...]]:
    """Read an image's config blob: its config, its platform and its layers' diff ids, base layer first.

    Raises ConversionError when it is not JSON or a field has the wrong type.
    """
    top = _Fields(parse_json(data, "the image config"), "")
    platform = Platform(
        top.text("os") or "linux", top.text("architecture") or "unknown", top.text("variant") or None
    )
    rootfs = top.object("rootfs")
    diff_ids = rootfs.strings("diff_ids")
    rootfs.text("type")
    beside = {
        "author": top.text("author"),
        "created": top.text("created"),
        "os_version": top.text("os.version"),
        "os_features": top.strings("os.features"),
    }
    config = _parse_inner(top.object("config"), beside, {})
    other = {**config.other, **top.rest(), **rootfs.rest()}
    return ImageConfig(**{**config.__dict__, "other": other}), platform, diff_ids


def parse_container_config(inspected: Mapping[str, Any]) -> ImageConfig:
    """Read the `Config` object of `docker inspect CONTAINER`, which has the fields of an image's config.

    Raises ConversionError when a field has the wrong type.
    """
    return _parse_inner(_Fields(inspected, "Config"), {}, {})


def _parse_inner(fields: _Fields, beside: Mapping[str, Any], other: Mapping[str, Any]) -> ImageConfig:
    config = ImageConfig(
        user=fields.text("User"),
        env=fields.strings("Env"),
        entrypoint=fields.strings("Entrypoint"),
        cmd=fields.strings("Cmd"),
        working_dir=fields.text("WorkingDir"),
        stop_signal=fields.text("StopSignal"),
        volumes=fields.keys("Volumes"),
        exposed_ports=fields.keys("ExposedPorts"),
        labels=fields.mapping("Labels"),
        healthcheck=_parse_healthcheck(fields.object("Healthcheck")),
        shell=fields.strings("Shell"),
        on_build=fields.strings("OnBuild"),
        hostname=fields.text("Hostname"),
        domainname=fields.text("Domainname"),
        tty=fields.flag("Tty"),
        open_stdin=fields.flag("OpenStdin"),
        network_disabled=fields.flag("NetworkDisabled"),
        mac_address=fields.text("MacAddress"),
        stop_timeout=fields.number("StopTimeout"),
        args_escaped=fields.flag("ArgsEscaped"),
        **beside,
    )
    return ImageConfig(**{**config.__dict__, "other": {**other, **fields.rest()}})


def _parse_healthcheck(fields: _Fields) -> Healthcheck | None:
    check = Healthcheck(
        test=fields.strings("Test"),
        interval=fields.number("Interval") or 0,
        timeout=fields.number("Timeout") or 0,
        start_period=fields.number("StartPeriod") or 0,
        start_interval=fields.number("StartInterval") or 0,
        retries=fields.number("Retries") or 0,
    )
    return check if check != Healthcheck(test=()) else None
