"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What is wrong with a machine on its host, and what to do about it; each text is one line.

    A "problem" keeps the machine from starting or from doing what the container did; a "warning" may.
    """

    severity: Literal["problem", "warning"]
    subject: str
    text: str
    remedy: str


def problem(subject: str, text: str, remedy: str) -> Finding:
    """Something that has to be put right."""
    return Finding("problem", subject, text, remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Something that one should know."""
    return Finding("warning", subject, text, remedy)
