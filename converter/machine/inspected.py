"""Reading `docker inspect`: each value with its type checked, and the note that says what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from converter.errors import ConversionError
from converter.note import Kind, Note

_SHOWN = 80  # characters of a value in a note


def mapping(value: object, what: str) -> Mapping[str, Any]:
    """A JSON object; null is an empty one. `what` names it in the error. Raises ConversionError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        _refuse(value, what, "an object")
    return value


def sequence(value: object, what: str) -> list[Any]:
    """A JSON array; null is an empty one. Raises ConversionError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        _refuse(value, what, "a list")
    return value


def text(value: object, what: str) -> str:
    """A string; null is "". Raises ConversionError for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(value, what, "a string")
    return value


def number(value: object, what: str) -> int:
    """A whole number; null is 0. Raises ConversionError for anything else, and for more than 64 bits."""
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**64:
        _refuse(value, what, "a whole number")
    return value


def flag(value: object, what: str) -> bool:
    """true or false; null is false. Raises ConversionError for anything else."""
    if value is None:
        return False
    if not isinstance(value, bool):
        _refuse(value, what, "true or false")
    return value


def texts(value: object, what: str) -> tuple[str, ...]:
    """A list of strings. Raises ConversionError for anything else."""
    return tuple(text(item, what) for item in sequence(value, what))


def field_note(kind: Kind, field: str, value: object, said: str) -> Note:
    """The note for a field of HostConfig, with its value as JSON where that is short."""
    dumped = json.dumps(value, sort_keys=True, default=str)
    return Note(
        kind,
        f"HostConfig.{field} {dumped if len(dumped) <= _SHOWN else f'{dumped[: _SHOWN - 3]}...'}",
        said,
    )


def _refuse(value: object, what: str, wanted: str) -> NoReturn:
    raise ConversionError(
        f"docker inspect gives {what} as {str(value)[:80]!r}, "
        f"which is not {wanted}; inspect it with Docker's own daemon"
    )
