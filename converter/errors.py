"""The one exception that users see: a line that says what is wrong and what to do next."""

from __future__ import annotations

import errno

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What errno says when the disk, or somebody's share of it, is full."""

_LONGEST = 2000  # characters; a name may have a million


class ConversionError(Exception):
    """Something about the input or the host makes the conversion impossible.

    The text is one line, complete in itself: the command line prints it on stderr and exits with `status`.
    """

    status = 1

    def __str__(self) -> str:
        # Names from untrusted images end up in messages: keep them on one line and printable.
        text = super().__str__()
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class PassingError(ConversionError):
    """The fault is not the input's and may pass by itself: trying again later makes sense."""


class NoRoomError(ConversionError):
    """The disk is full, or would be."""


def error_of_host(error: OSError, text: str) -> ConversionError:
    """What to raise, with `text`, for what the host has refused: a full disk is told from all else."""
    return (NoRoomError if error.errno in NO_ROOM else ConversionError)(text)


class AddressTakenError(ConversionError):
    """Another machine has been given the address that was chosen for this one: with the next one it works."""
