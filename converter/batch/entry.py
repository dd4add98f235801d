"""What a list says, with the places where it says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converter.errors import ConversionError


@dataclass(frozen=True)
class Place:
    """A place in a list; lines and columns (characters) count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    @property
    def short(self) -> str:
        """The place as people speak of it: `list.txt:3`."""
        return f"{Path(self.file).name}:{self.line}"


class UsageError(ConversionError):
    """The user asked for something that cannot be meant, before anything was done; the command line exits with 2.

    Where a list says so, the text is `FILE:LINE:COLUMN: what; hint`, as for a Dockerfile.
    """

    status = 2

    def __init__(self, place: Place | None, text: str, hint: str = "") -> None:
        super().__init__((f"{place}: " if place else "") + text + (f"; {hint}" if hint else ""))
        self.place = place


@dataclass(frozen=True)
class Setting:
    """The value that a list gives an option, and where it stands; of several values each one's place too."""

    value: str | int | bool | tuple[str, ...]
    place: Place
    places: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One machine of a list, not looked at yet. `where` tells people its place: `list.txt:3`.

    The keys of `settings`, its own, and of `defaults`, which it shares with others, are the long names of the options
    of `convert`.
    """

    where: str
    source: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    defaults: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Entries:
    """A whole list, and what is to be told about it."""

    entries: tuple[Entry, ...]
    messages: tuple[str, ...] = ()
