"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_LONGEST = 1000  # characters


@dataclass(frozen=True)
class Finding:
    """What is wrong with a machine on its host, and what to do about it; each text is one line.

    A "problem" keeps the machine from starting or from doing what the container did; a "warning" may.
    """

    severity: Literal["problem", "warning"]
    subject: str
    text: str
    remedy: str

    @property
    def line(self) -> str:
        """All of it on one line, for people."""
        return f"{self.severity}: {self.subject}: {self.text}; remedy: {self.remedy}"


def problem(subject: str, text: str, remedy: str) -> Finding:
    """Something that has to be put right."""
    return Finding("problem", _line(subject), _line(text), _line(remedy))


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Something that one should know."""
    return Finding("warning", _line(subject), _line(text), _line(remedy))


def _line(text: str) -> str:
    """Names from untrusted images are in it: keep it short, printable and on one line."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
