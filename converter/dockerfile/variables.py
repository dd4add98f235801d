"""ENV and ARG: the variables that expansion and RUN see in a stage.

BuildKit has one list for both, where the last one to set a name wins; so an ARG below an ENV hides it in this stage
and in those that are made from it, while the image keeps the ENV.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from converter.dockerfile.options import BuildOptions
from converter.image.model import Platform

MOST_NAMES = 4096
_PROXIES = frozenset({"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"})
_NOT_ENVIRONMENT = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
_NAME = re.compile(r"\$\{?([^\W\d]\w*)")


@dataclass
class Variables:
    """The variables of one stage: all by name in `values`, and as pairs in `env` and `args`, a name only in one."""

    values: dict[str, str] = field(default_factory=dict)
    env: dict[str, tuple[str, str]] = field(default_factory=dict)
    args: dict[str, tuple[str, str]] = field(default_factory=dict)

    def set_env(self, name: str, value: str) -> None:
        """ENV, or what the base image has."""
        self._set(self.env, name, value)

    def set_argument(self, name: str, value: str | None) -> None:
        """ARG; without a value it is only declared."""
        if value is not None and name not in _NOT_ENVIRONMENT:
            self._set(self.args, name, value)

    def _set(self, pairs: dict[str, tuple[str, str]], name: str, value: str) -> None:
        self.env.pop(name, None)  # BuildKit puts what is set again at the end
        self.args.pop(name, None)
        self.values[name] = value
        pairs[name] = (name, value)

    def inherited(self, env: Iterable[str]) -> Variables:
        """What a stage made from this one begins with, `env` being what its image has."""
        begun = Variables(dict(self.values), dict(self.env), dict(self.args))
        for entry in env:
            name, _, value = entry.partition("=")
            begun.set_env(name, value)
        return begun


def platform_arguments(options: BuildOptions) -> dict[str, str | None]:
    """The ARGs that there always are, to be declared before they are seen: BUILDPLATFORM, TARGETARCH and the like.

    --build-arg changes them, too.
    """
    made: dict[str, str | None] = {}
    for prefix, platform in (("BUILD", options.build_platform), ("TARGET", options.platform)):
        made |= _of_platform(prefix, platform)
    return {name: options.build_args.get(name, value) for name, value in made.items()}


def _of_platform(prefix: str, platform: Platform) -> dict[str, str | None]:
    return {
        f"{prefix}PLATFORM": str(platform),
        f"{prefix}OS": platform.os,
        f"{prefix}ARCH": platform.architecture,
        f"{prefix}VARIANT": platform.variant or "",
    }


def proxies(build_args: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The variables that every RUN sees without an ARG, in both spellings, as BuildKit gives them."""
    found = {name.lower(): value for name, value in build_args.items() if name.lower() in _PROXIES and value}
    return tuple((spelling, value) for name, value in found.items() for spelling in (name.upper(), name))


def unused(build_args: Mapping[str, str], declared: Iterable[str], options: BuildOptions) -> list[str]:
    """The names of --build-arg that no ARG asks for."""
    known = {*declared, *platform_arguments(options), "SOURCE_DATE_EPOCH"}
    return [
        name
        for name in build_args
        if name not in known and name.lower() not in _PROXIES and not name.startswith("BUILDKIT_")
    ]


def names_in(text: str) -> list[str]:
    """The variables that a text refers to, for messages."""
    return _NAME.findall(text)
