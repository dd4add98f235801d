"""build.sh: all that is to be done with the output of a translation, as a shell script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files

from converter.dockerfile.described import GID, GROUP, HOME, UID, Described, Generated
from converter.dockerfile.quoting import comment, data, one_line, quote
from converter.dockerfile.shell import functions
from converter.machine.model import TreeChange

_MARKS = {"@uid@": UID, "@gid@": GID, "@group@": GROUP, "@home@": HOME}


def build_script(
    *, name: str, file: str, stages: Sequence[tuple[str, bool]], inside: bool, described: Described
) -> str:
    """The text of build.sh.

    `stages`: the directories below stages/ in the order they are made, and whether the steps of each can be run from
    inside its tree; `inside`: those of the target can.
    """
    heading = f"Made by docker2nspawn from {one_line(file)}: it makes the machine {name}."
    template = files("converter.dockerfile").joinpath("build.sh").read_text()
    for mark, value in _MARKS.items():
        template = template.replace(mark, value)
    made: list[str] = []
    parts = {  # in the order of the template: what is put in is not looked at again
        "@heading@": comment(heading, "# "),
        "@name@": quote(name),
        "@functions@": functions({"within"}).rstrip(),
        "@changes@": "\n".join(f"    {line}" for line in _changes(described.changes)) or "    :",
        "@account@": "\n".join(f"    {line}" for line in _completed(name, described)) or "    :",
        "@installed@": "\n".join(f"    {line}" for line in _installed(name, described)),
        "@stages@": "\n".join(f'    tree "$here"/stages/{quote(label)} {_way(can)}' for label, can in stages)
        or "    :",
        "@target@": f'tree "$here" {_way(inside)}',
    }
    for mark, text in parts.items():
        before, _, after = template.partition(mark)
        made += [before, text]
        template = after
    return "".join(made) + template


def _way(inside: bool) -> str:
    return "inside" if inside else "outside"


def _changes(changes: Iterable[TreeChange]) -> Iterable[str]:
    for number, change in enumerate(changes):
        path = data(change.path)
        match change.kind:
            case "dir":
                yield f"directory {path}"
            case "file":
                yield f'file {path} {change.mode:o} "$here"/tree/{number}'
            case "link":
                yield f"link {path} {data(change.content.decode('utf-8', 'surrogateescape'))}"
            case "mount point":
                yield f"mount_point {path}"
            case _:
                raise AssertionError(change)


def tree_files(changes: Iterable[TreeChange]) -> dict[str, bytes]:
    """What is to lie below tree/ for them."""
    return {str(number): change.content for number, change in enumerate(changes) if change.kind == "file"}


def _templates(name: str, described: Described) -> Iterable[tuple[str, Generated]]:
    """Each template and where what it comes to belongs, in the output."""
    for generated in (described.settings, *described.files):
        if generated.template is not None:
            place = f"{name}.nspawn" if generated is described.settings else f"host/{generated.path}"
            yield place, generated


def template_files(name: str, described: Described) -> dict[str, bytes]:
    """What is to lie below templates/."""
    return {place: generated.template or b"" for place, generated in _templates(name, described)}


def _completed(name: str, described: Described) -> Iterable[str]:
    for place, generated in _templates(name, described):
        yield f"fill_in {quote(place)} {generated.mode:o}"


def _installed(name: str, described: Described) -> Iterable[str]:
    for generated in described.files:
        yield f'put "$here"/host/{quote(generated.path)} {quote("/" + generated.path)} {generated.mode:o}'
    settings = described.settings
    yield f'put "$here"/{quote(name)}.nspawn {quote("/" + settings.path)} {settings.mode:o}'
    if described.trusted:
        yield f"trust {quote('/' + settings.path)}"
