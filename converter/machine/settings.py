"""The text of NAME.nspawn, written so that systemd-nspawn reads back exactly what was meant.

The format is systemd.nspawn(5); what its parser really does was seen on 252 and 257 and read in their source
(src/shared/conf-parser.c, src/basic/extract-word.c, src/basic/utf8.c):

- A list is words split at white space; ' and " quote, also inside a word. No escape is processed.
- \\n, \\r and NUL all end a line. A backslash that ends one joins the next line to it.
- One line that is not UTF-8 (Unicode's noncharacters count as such), or of 1 MiB, even a comment, and the
  machine does not start. Every other mistake is a warning, and the machine starts without that setting.
- Control characters are ordinary, and so is any name of a variable.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from converter.errors import ConversionError
from converter.machine.model import Bind, Machine

_LINE_MAX = 1024 * 1024 - 1  # bytes, systemd's LONG_LINE_MAX
_ARGUMENT_MAX = 128 * 1024 - 1  # bytes, the kernel's MAX_ARG_STRLEN without the NUL; quotes at most triple it
_PATH_MAX, _NAME_MAX = 4095, 255  # bytes
_HOST_NAME_MAX, _LABEL_MAX = 64, 63
_HEADING_MAX = 4096  # characters; a comment line that is too long would stop the machine

_NONCHARACTERS = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
INEXPRESSIBLE = re.compile(f"[\0\n\r\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]")
"""The characters that no value in a settings file can hold."""

_PLAIN = re.compile(r"[A-Za-z0-9_./:,@%+=-]+")  # needs no quotes and cannot be a continuation
_RUN = re.compile("""[^"]+|[^']+""")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")

# All that nspawn takes only from a trusted file, in /etc or /run (src/nspawn/nspawn.c, merge_settings).
_NEEDS_TRUST = re.compile(
    "Ephemeral|Capability|AmbientCapability|MachineID|Bind.*|TemporaryFileSystem|Overlay.*|Inaccessible|Private.*"
    "|VirtualEthernet.*|Zone|Bridge|MACVLAN|IPVLAN|Interface|Port|NamespacePath|SystemCallFilter|Limit.*"
    "|OOMScoreAdjust|CPUAffinity|LinkJournal|RestrictAddressFamilies"
)


def quote_word(word: str) -> str:
    """One word as it must stand in a list: plain words bare, others in the quotes they lack, or run by run."""
    if _PLAIN.fullmatch(word):
        return word
    for quote in "\"'":
        if quote not in word:
            return f"{quote}{word}{quote}"
    return "".join(f'"{run}"' if '"' not in run else f"'{run}'" for run in _RUN.findall(word))


def expressible(word: str) -> bool:
    """Can a list in a settings file, like Parameters=, carry this word exactly?

    Words that the kernel takes from nobody, 128 KiB and more, are not.
    """
    return not INEXPRESSIBLE.search(word) and len(word.encode()) <= _ARGUMENT_MAX


def environment_expressible(assignment: str) -> bool:
    """Can Environment= carry this NAME=VALUE exactly? Any NAME will do that is not empty."""
    return assignment.find("=") > 0 and expressible(assignment)


def path_expressible(path: str) -> bool:
    """Can WorkingDirectory= and Bind= carry this path exactly? It must be absolute, without "..", and not too long."""
    parts = path.split("/")
    return (
        path.startswith("/")
        and ".." not in parts
        and expressible(path)
        and len(path.encode()) < _PATH_MAX
        and all(len(part.encode()) <= _NAME_MAX for part in parts)
    )


def hostname_expressible(name: str) -> bool:
    """Does nspawn take this as Hostname=? Only letters, digits, and inside a label hyphens; Docker takes more."""
    return len(name) <= _HOST_NAME_MAX and all(
        len(label) <= _LABEL_MAX and _LABEL.fullmatch(label) for label in name.split(".")
    )


def render(machine: Machine, heading: str) -> str:
    """The settings file. `heading` is one comment line; it is kept on one line whatever is in it.

    Raises ConversionError where nspawn would not take a value, or would take it for something else; what comes
    from an image is to be asked about first, with the functions above.
    """
    text = [comment(heading)]
    for section, settings in (("Exec", _exec), ("Files", _files), ("Network", _network)):
        if lines := [_line(key, value) for key, value in settings(machine)]:
            text += ["", f"[{section}]", *lines]
    return "\n".join(text) + "\n"


def comment(text: str) -> str:
    """`text` as one comment line, for settings files and units alike, whatever is in it."""
    return "# " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_HEADING_MAX])


def ignored_untrusted(machine: Machine) -> tuple[str, ...]:
    """The settings of this machine that nspawn ignores when the file is not trusted, each once."""
    keys = (key for settings in (_exec, _files, _network) for key, _ in settings(machine))
    return tuple(dict.fromkeys(filter(needs_trust, keys)))


def needs_trust(key: str) -> bool:
    """Does nspawn take this setting from a trusted file only?"""
    return _NEEDS_TRUST.fullmatch(key) is not None


def _exec(machine: Machine) -> Iterator[tuple[str, str]]:
    yield "Boot", _yes(machine.boot)
    if machine.process_two:
        yield "ProcessTwo", "yes"
    for line in _packed(map(quote_word, machine.parameters)):
        yield "Parameters", line
    if machine.working_directory is not None:
        yield "WorkingDirectory", _working_directory(machine.working_directory)
    for assignment in machine.environment:
        yield "Environment", quote_word(assignment)
    if machine.kill_signal is not None:
        yield "KillSignal", machine.kill_signal
    if machine.hostname is not None:
        yield "Hostname", _hostname(machine.hostname)
    for key, words in (("Capability", machine.capability), ("DropCapability", machine.drop_capability)):
        if words:
            yield key, " ".join(words)
    if machine.no_new_privileges is not None:
        yield "NoNewPrivileges", _yes(machine.no_new_privileges)
    for line in machine.system_call_filter:
        yield "SystemCallFilter", line
    if machine.restrict_address_families is not None:
        yield "RestrictAddressFamilies", machine.restrict_address_families
    yield from sorted(machine.limits.items())
    if machine.oom_score_adjust is not None:
        yield "OOMScoreAdjust", str(machine.oom_score_adjust)
    for key, value in (
        ("CPUAffinity", machine.cpu_affinity),
        ("PrivateUsers", machine.private_users),
        ("ResolvConf", machine.resolv_conf),
        ("Timezone", machine.timezone),
        ("LinkJournal", machine.link_journal),
    ):
        if value is not None:
            yield key, value


def _files(machine: Machine) -> Iterator[tuple[str, str]]:
    if machine.private_users_ownership is not None:
        yield "PrivateUsersOwnership", machine.private_users_ownership
    if machine.read_only is not None:
        yield "ReadOnly", _yes(machine.read_only)
    for bind in machine.binds:
        yield ("BindReadOnly" if bind.read_only else "Bind"), _bind(bind)
    for tmpfs in machine.temporary_file_systems:
        yield "TemporaryFileSystem", _colon_separated(tmpfs.path, options=tmpfs.options)


def _network(machine: Machine) -> Iterator[tuple[str, str]]:
    if machine.virtual_ethernet is not None:
        yield "VirtualEthernet", _yes(machine.virtual_ethernet)


def _line(key: str, value: str) -> str:
    """The last word on what may stand in the file: an image must not be able to write lines of its own."""
    line = f"{key}={value}"
    continued = (len(value) - len(value.rstrip("\\"))) % 2 == 1
    altered = continued or value != value.strip(" \t")
    if altered or INEXPRESSIBLE.search(line) or len(line.encode()) > _LINE_MAX:
        raise ConversionError(f"a settings file cannot hold {key}={value[:80]!r}; change it in the image")
    return line


def _packed(words: Iterable[str]) -> Iterator[str]:
    """The words of a list on one line, or on several where one would be too long; nspawn adds them up."""
    line: list[str] = []
    size = 0
    for word in words:
        size += len(word) * 4 + 1  # no character has more bytes
        if line and size > _LINE_MAX // 2:
            yield " ".join(line)
            line, size = [], len(word) * 4 + 1
        line.append(word)
    if line:
        yield " ".join(line)


def _working_directory(path: str) -> str:
    clean = posixpath.normpath(path)  # as Docker does; nspawn skips a path with ".." in it
    if not path_expressible(clean):
        raise ConversionError(
            f"a settings file cannot hold the working directory {path[:80]!r}; change it in the image"
        )
    # Not quoted: the slash keeps white space and a backslash away from the line's end.
    return clean if _PLAIN.fullmatch(clean) else f"{clean}/"


def _hostname(name: str) -> str:
    if not hostname_expressible(name):
        raise ConversionError(f"systemd-nspawn takes no host name like {name[:80]!r}; change it in the image")
    return name


def _bind(bind: Bind) -> str:
    return _colon_separated(bind.source, bind.destination, options=bind.options)


def _colon_separated(*paths: str, options: str = "") -> str:
    # Not quoted: colons separate, and a backslash takes a colon's or its own meaning away.
    parts = [part.replace("\\", "\\\\").replace(":", "\\:") for part in paths]
    # The last colon, with no options, keeps white space away from the line's end.
    return ":".join([*parts, options] if options or paths[-1][-1:].isspace() else parts)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
