"""What of a POSIX shell script its shell may act on: not comments, single-quoted strings, quoted here-documents."""

from __future__ import annotations

import re

_HEREDOC = re.compile(r"<<(-?)[ \t]*(?:'([^'\n]*)'|\"([^\"\n]*)\"|(\\?)([A-Za-z0-9_.]+))")


def code_of(script: str) -> str:
    """The script without what is mere data in it. Quotes of data stay, so that words do not run together.

    Raises ValueError for a quote or here-document that does not end.
    """
    kept: list[str] = []
    inside: list[str] = []  # of '"', "$(" and "(": what has been opened
    bodies: list[tuple[str, bool, bool]] = []  # here-documents whose body begins with the next line
    at = 0
    while at < len(script):
        here = script[at]
        in_double = bool(inside) and inside[-1] == '"'
        if here == "\\":
            kept.append(script[at : at + 2])
            at += 2
        elif here == "\n" and bodies and not in_double:
            at = _skip_bodies(script, at + 1, bodies, kept)
            bodies = []
        elif in_double:
            if here == '"':
                inside.pop()
            elif script.startswith("$(", at):
                inside.append("$(")
                at += 1
            kept.append(here)
            at += 1
        elif here == "'":
            end = script.index("'", at + 1)
            kept.append("''")
            at = end + 1
        elif here == "#" and (at == 0 or script[at - 1] in " \t\n;&|("):
            end = script.find("\n", at)
            at = len(script) if end < 0 else end
        elif match := _HEREDOC.match(script, at):
            strips, single, double, escaped, bare = match.groups()
            quoted = single is not None or double is not None or bool(escaped)
            word = next(part for part in (single, double, bare) if part is not None)
            bodies.append((word, strips == "-", quoted))
            kept.append("<<")
            at = match.end()
        else:
            if here in '"(':
                inside.append(here)
            elif here == ")" and inside:
                inside.pop()
            kept.append(here)
            at += 1
    if '"' in inside or bodies:
        raise ValueError("a quote or a here-document does not end")
    return "".join(kept)


def _skip_bodies(script: str, at: int, bodies: list[tuple[str, bool, bool]], kept: list[str]) -> int:
    """Where the code goes on. The body of a here-document whose word is not quoted is code: it is expanded."""
    kept.append("\n")
    for word, strips, quoted in bodies:
        while True:
            end = script.find("\n", at)
            if at >= len(script):
                raise ValueError(f"the here-document {word} does not end")
            line = script[at:] if end < 0 else script[at:end]
            at = len(script) if end < 0 else end + 1
            if (line.lstrip("\t") if strips else line) == word:
                break
            if not quoted:
                kept.append(line + "\n")
    return at
