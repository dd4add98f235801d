"""What became of one fact about the image: nothing is lost without one of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["exact", "adapted", "dropped"]


@dataclass(frozen=True)
class Note:
    """`subject` names the fact as its owner writes it ("USER app"); `text` says where it went, or why not.

    exact: the machine does the same. adapted: it does the like, and `text` tells the difference.
    dropped: it does not, and `text` tells why and what to do instead.
    """

    kind: Kind
    subject: str
    text: str
