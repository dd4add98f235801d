"""Extended attributes on what has just been made."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

# What a file system or kernel answers when it does not take an attribute, or not from us.
_REFUSED = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSPC, errno.E2BIG})


def set_attributes(target: int | bytes, attributes: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Set them on an open file, or on what is at a path, a last link not followed; the names of those refused.

    Raises OSError when something is wrong that is not about the attribute.
    """
    refused = []
    for name, value in attributes:
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            refused.append(name)
    return refused
