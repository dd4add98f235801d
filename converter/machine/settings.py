"""The text of NAME.nspawn, quoted so that systemd-nspawn reads back exactly what was meant.

systemd.nspawn(5) and the parser behind it (src/shared/conf-parser.c, src/basic/extract-word.c): words are split at
white space; ' and " quote, also inside a word; no escape is processed, a backslash is a backslash. A line that is
not UTF-8 is skipped, and so is one longer than 1 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from converter.machine.model import Bind, Machine

_LINE_MAX = 1024 * 1024  # LONG_LINE_MAX, in bytes
_PLAIN = re.compile(r"[A-Za-z0-9_./:,@%+=-]+")  # needs no quotes and cannot be a continuation
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RUN = re.compile("""[^"]+|[^']+""")


def quote_word(word: str) -> str:
    """One word as it must stand in a list: plain words bare, others cut into runs, each in the quote it lacks."""
    if _PLAIN.fullmatch(word):
        return word
    if not word:
        return '""'
    return "".join(f'"{run}"' if '"' not in run else f"'{run}'" for run in _RUN.findall(word))


def expressible(word: str) -> bool:
    """Can a settings file carry this word of Parameters=, or a path, exactly?"""
    try:
        size = len(word.encode())
    except UnicodeEncodeError:
        return False
    return size < _LINE_MAX // 4 and not any(c in word for c in "\n\r\0")


def environment_expressible(assignment: str) -> bool:
    """Can Environment= carry this NAME=VALUE exactly? nspawn refuses some names and control characters."""
    name, _, value = assignment.partition("=")
    if not _NAME.fullmatch(name) or not expressible(value):
        return False
    return not any((c < " " and c != "\t") or c == "\x7f" for c in value)


def render(machine: Machine, heading: str) -> str:
    """The settings file. `heading` is one comment line; it is kept on one line whatever is in it."""
    sections = (
        ("Exec", tuple(_exec(machine))),
        ("Files", tuple(_bind(bind) for bind in machine.binds)),
        ("Network", tuple(_network(machine))),
    )
    comment = "".join(c if c.isprintable() else repr(c)[1:-1] for c in heading)
    text = [f"# {comment}"]
    for name, lines in sections:
        if lines:
            text += ["", f"[{name}]", *lines]
    return "\n".join(text) + "\n"


# nspawn takes these only from a trusted file (systemd.nspawn(5), src/nspawn/nspawn.c: merge_settings).
_NEEDS_TRUST = ("PrivateUsers", "LinkJournal", "Bind", "BindReadOnly", "VirtualEthernet")


def ignored_untrusted(machine: Machine) -> tuple[str, ...]:
    """The settings of this machine that nspawn ignores when the file is not trusted."""
    written = {line.partition("=")[0] for line in render(machine, "").splitlines()}
    return tuple(key for key in _NEEDS_TRUST if key in written)


def _exec(machine: Machine) -> Iterator[str]:
    yield f"Boot={_yes(machine.boot)}"
    if machine.parameters:
        yield "Parameters=" + " ".join(map(quote_word, machine.parameters))
    if machine.working_directory is not None:
        yield f"WorkingDirectory={machine.working_directory}"
    for assignment in machine.environment:
        yield f"Environment={quote_word(assignment)}"
    if machine.kill_signal is not None:
        yield f"KillSignal={machine.kill_signal}"
    if machine.hostname is not None:
        yield f"Hostname={machine.hostname}"
    if machine.drop_capability:
        yield "DropCapability=" + " ".join(machine.drop_capability)
    if machine.no_new_privileges is not None:
        yield f"NoNewPrivileges={_yes(machine.no_new_privileges)}"
    for key, value in (
        ("PrivateUsers", machine.private_users),
        ("ResolvConf", machine.resolv_conf),
        ("Timezone", machine.timezone),
        ("LinkJournal", machine.link_journal),
    ):
        if value is not None:
            yield f"{key}={value}"


def _bind(bind: Bind) -> str:
    # Paths are not quoted here: colons separate, and a backslash takes a colon's or its own meaning away.
    parts = [part.replace("\\", "\\\\").replace(":", "\\:") for part in (bind.source, bind.destination)]
    key = "BindReadOnly" if bind.read_only else "Bind"
    return f"{key}={':'.join([*parts, bind.options] if bind.options else parts)}"


def _network(machine: Machine) -> Iterator[str]:
    if machine.virtual_ethernet is not None:
        yield f"VirtualEthernet={_yes(machine.virtual_ethernet)}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
