"""Names that lead out, links on the way, and links swapped for directories: all of it stays inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import ANY, MADE, OUT, Allowed, Refused, Scene, staged
from tests.hostile_tar import END, entry, gnu_long, pax
from tests.layers import directory, file, symlink, tar

Case = tuple[list[bytes], Allowed]
LEAVES = Refused("leads out of the image")
LOOPS = Refused("too many symbolic links")


def names(_: str) -> dict[str, Case]:
    """One entry each, by what its name is."""
    refused = {
        "parent": "../evil",
        "parent behind dot": "./../evil",
        "parent with slashes": "..//evil",
        "parent in the middle": "d/../../evil",
        "parent behind dots that stay": "d/../d/.././../evil",
        "parent at the end": "d/../..",
        "parent alone": "..",
        "parent with a slash": "../",
        "deep": "../" * 50 + "evil",
        "the sentinel": f"{OUT}/passwd",
        "the other machine": "../../victim/etc/passwd",
        "the settings of the other machine": "../../victim.nspawn",
    }
    inside = {
        "absolute": ("/evil", "evil"),
        "absolute with parents": ("/../../../evil", "evil"),
        "absolute of the host": ("/etc/shadow", "etc/shadow"),
        "two slashes": ("//evil", "evil"),
        "dots and slashes": (".//./evil", "evil"),
        "parents that stay": ("d/x/../../evil", "evil"),
        "three dots": (".../evil", ".../evil"),
        "dots before a name": ("..evil", "..evil"),
        "dots after a name": ("evil..", "evil.."),
        "dots and a space": (".. /evil", ".. /evil"),
        "backslashes": ("..\\..\\evil", "..\\..\\evil"),
        "percent signs": ("%2e%2e/evil", "%2e%2e/evil"),
        "a variable": ("$HOME/`id`", "$HOME/`id`"),
        "a tilde": ("~/evil", "~/evil"),
        "an option": ("--root=x", "--root=x"),
        "a newline": ("a\nb", "a\nb"),
        "an escape sequence": ("\x1b[2J", "\x1b[2J"),
        "only a newline": ("\n", "\n"),
    }
    made: dict[str, Case] = {what: ([tar(file(name, b"x"))], LEAVES) for what, name in refused.items()}
    for what, (name, place) in inside.items():
        made[what] = ([tar(file(name, b"x"))], {place: "x"})
    for what, name in {"the root": "/", "dot": ".", "parent of the root": "/..", "back": "d/.."}.items():
        # There is nothing that could be made: the root stays what it is, as with Docker.
        made[f"a file as {what}"] = ([tar(file(name, b"x"))], [Refused(), {}])
        made[f"a link as {what}"] = ([tar(symlink(name, OUT))], [Refused(), {}])
        made[f"a directory as {what}"] = ([tar(directory(name, mode=0o4777))], {})
    made["no name"] = ([entry(b"x", name=b"") + END], [Refused(), {}])
    made["not UTF-8"] = ([entry(b"x", name=b"\xff\xfe") + END], {"\udcff\udcfe": "x"})
    made["parent in the prefix"] = ([entry(b"x", name=b"evil", prefix=b"..") + END], LEAVES)
    made["parent behind the prefix"] = ([entry(b"x", name=b"../evil", prefix=b"a/..") + END], LEAVES)
    made["absolute prefix"] = ([entry(b"x", name=b"evil", prefix=b"/x") + END], {"x/evil": "x"})
    made["parent in a long name"] = ([gnu_long(b"../evil") + entry(b"x", name=b"a") + END], LEAVES)
    made["parent in a PAX name"] = ([pax({b"path": b"../evil"}) + entry(b"x", name=b"a") + END], LEAVES)
    made["PAX name hides a bad one"] = (
        [pax({b"path": b"good"}) + entry(b"x", name=b"../a") + END],
        {"good": "x"},
    )
    made["empty PAX name"] = ([pax({b"path": b""}) + entry(b"x", name=b"a") + END], [Refused(), {"a": "x"}])
    return made


def links(out: str) -> dict[str, Case]:
    """Symbolic links in one layer, and what is written through them. `out` is the sentinel's absolute path."""
    there = out.lstrip("/")
    chain = [symlink(f"l{n}", f"l{n + 1}") for n in range(50)]
    return {
        "relative out": ([tar(symlink("l", OUT))], {"l": f"-> {OUT}"}),
        "absolute out": ([tar(symlink("l", out))], {"l": f"-> {out}"}),
        "file through relative": (
            [tar(symlink("l", OUT), file("l/passwd", b"x"))],
            {"l": f"-> {OUT}", "outside/passwd": "x"},
        ),
        "file through absolute": (
            [tar(symlink("l", out), file("l/passwd", b"x"))],
            {"l": f"-> {out}", f"{there}/passwd": "x"},
        ),
        "absolute, in a directory": (
            [tar(symlink("d/x/l", out), file("d/x/l/passwd", b"x"))],
            {"d/x/l": f"-> {out}", f"{there}/passwd": "x"},
        ),
        "out and back in": (
            [tar(symlink("l", "../../../../../root/var/lib/machines/victim"), file("l/passwd", b"x"))],
            {"l": ANY, "root/var/lib/machines/victim/passwd": "x"},
        ),
        "two links out": (
            [tar(symlink("a", "b"), symlink("b", out), file("a/passwd", b"x"))],
            {"a": "-> b", "b": f"-> {out}", f"{there}/passwd": "x"},
        ),
        "link in a link out": (
            [tar(symlink("a", "d/b"), symlink("d/b", "../.."), file("a/outside/passwd", b"x"))],
            {"a": "-> d/b", "d/b": "-> ../..", "outside/passwd": "x"},
        ),
        "link made through a link": (
            [tar(symlink("l", "d"), symlink("l/m", out), file("d/m/passwd", b"x"))],
            {"l": "-> d", "d/m": f"-> {out}", f"{there}/passwd": "x"},
        ),
        "directory through a link": (
            [tar(symlink("l", out), directory("l/below", mode=0o777))],
            {"l": f"-> {out}", f"{there}/below": "dir"},
        ),
        "directory over a link": (
            [tar(symlink("l", out), directory("l", mode=0o777), file("l/f", b"x"))],
            {"l": "dir", "l/f": "x"},
        ),
        "file over a link": ([tar(symlink("l", f"{out}/passwd"), file("l", b"x"))], {"l": "x"}),
        "parents behind a link": (
            [tar(symlink("l", out), file("l/../../passwd", b"x"))],
            [Refused(), {"l": f"-> {out}", "passwd": "x"}],
        ),
        "the process's own root": (
            [tar(symlink("l", "/proc/self/cwd"), file("l/passwd", b"x"))],
            {"l": "-> /proc/self/cwd", "proc/self/cwd/passwd": "x"},
        ),
        "an open file": (
            [tar(symlink("l", "/proc/self/fd/3"), file("l/passwd", b"x"))],
            {"l": "-> /proc/self/fd/3", "proc/self/fd/3/passwd": "x"},
        ),
        "to itself": ([tar(symlink("l", "l"))], {"l": "-> l"}),
        "through itself": ([tar(symlink("l", "l"), file("l/f", b"x"))], LOOPS),
        "through a circle": ([tar(symlink("a", "b"), symlink("b", "/a"), file("a/f", b"x"))], LOOPS),
        "through a growing circle": ([tar(symlink("a", "a/a/a"), file("a/f", b"x"))], LOOPS),
        "40 deep": (
            [tar(*chain[10:], file("l10/f", b"x"))],
            {**{f"l{n}": f"-> l{n + 1}" for n in range(10, 50)}, "l50/f": "x"},
        ),
        "41 deep": ([tar(*chain[9:], file("l9/f", b"x"))], LOOPS),
        "41 times the same": ([tar(symlink("l", "."), file("l/" * 41 + "f", b"x"))], LOOPS),
        "to nothing": ([tar(symlink("l", ""))], Refused()),
        "4095 bytes": ([tar(symlink("l", "t" * 4095))], [Refused(), {"l": "-> " + "t" * 4095}]),
        "many parts": ([tar(symlink("l", "../" * 1300), file("l/f", b"x"))], {"l": "-> " + "../" * 1300, "f": "x"}),
        "odd target": ([tar(symlink("l", "\n\x1b[2J\udcff"))], {"l": "-> \n\x1b[2J\udcff"}),
        "below a file": ([tar(file("f", b"1"), symlink("f/l", out))], Refused("not a directory")),
        "through a link to a file": (
            [tar(file("f", b"1"), symlink("l", "f"), file("l/x", b"x"))],
            Refused("not a directory"),
        ),
        "long once followed": (
            [tar(symlink("l", "/".join(["n" * 200] * 20)), file("l/" + "m" * 200, b"x"))],
            Refused("too long"),
        ),
        "long once followed, a directory": (
            [tar(symlink("l", "/".join(["n" * 200] * 20)), directory("l/" + "m" * 200 + "/"))],
            Refused("long"),
        ),
    }  # fmt: skip


def swaps(out: str) -> dict[str, Case]:
    """A directory becomes a link becomes a directory, within a layer and between layers."""
    there = out.lstrip("/")
    to = symlink("d", out)
    evil = file("d/evil", b"x")
    return {
        "link, file, directory, file": (
            [tar(symlink("l", out), file("l/a", b"1"), directory("l"), file("l/b", b"2"))],
            {"l": "dir", "l/b": "2", f"{there}/a": "1"},
        ),
        "directory, file, link, file": (
            [tar(directory("l"), file("l/a", b"1"), symlink("l", out), file("l/b", b"2"))],
            {"l": f"-> {out}", f"{there}/b": "2"},
        ),
        "link, directory, link": (
            [tar(symlink("l", out), directory("l"), symlink("l", OUT), file("l/a", b"1"))],
            {"l": f"-> {OUT}", "outside/a": "1"},
        ),
        "link between two names of a file": (
            [tar(file("l/passwd", b"1"), symlink("l", out), file("l/passwd", b"2"))],
            {"l": f"-> {out}", f"{there}/passwd": "2"},
        ),
        "directory below, link above": ([tar(to)], {"d": f"-> {out}"}),
        "link below, file above": ([tar(to), tar(evil)], {"d": "dir", "d/evil": "x"}),
        "link below, directory above": ([tar(to), tar(directory("d"), evil)], {"d": "dir", "d/evil": "x"}),
        "directory, link, directory": (
            [tar(file("d/old", b"0")), tar(to), tar(directory("d")), tar(evil)],
            {"d": "dir", "d/evil": "x"},
        ),
        "directory, link, link, file": (
            [tar(file("d/old", b"0")), tar(to), tar(symlink("d", OUT)), tar(evil)],
            {"d": "dir", "d/evil": "x"},
        ),
        "link below, directory, link above": ([tar(to), tar(evil), tar(to)], {"d": f"-> {out}"}),
        "link and file in one layer, over a directory": (
            [tar(file("d/old", b"0")), tar(to, evil)],
            {"d": f"-> {out}", f"{there}/evil": "x"},
        ),
        "file, link, file": (
            [tar(file("x", b"1")), tar(symlink("x", f"{out}/passwd")), tar(file("x", b"2"))], {"x": "2"}),
        "etc becomes a link": (
            [tar(symlink("etc", out), file("etc/passwd", b"x"))],
            {"etc": f"-> {out}", "etc/passwd": None, f"{there}/passwd": "x"}
            | {f"etc/{name}": None for name in MADE} | {f"{there}/{name}": ANY for name in MADE},
        ),
        "usr becomes a link": ([tar(symlink("usr", out))], [Refused(), {"usr": f"-> {out}", there: "dir"}]),
        "the hosts file becomes a link": ([tar(symlink("etc/hosts", f"{out}/passwd"))], {"etc/hosts": ANY}),
    }  # fmt: skip


def cases(out: str) -> dict[str, Case]:
    groups = {"name": names(out), "link": links(out), "swap": swaps(out)}
    return {f"{group}: {what}": case for group, found in groups.items() for what, case in found.items()}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


@pytest.mark.parametrize("what", cases("/nowhere"))
def test_path(scene: Scene, what: str) -> None:
    layers, allowed = cases(str(scene.outside))[what]
    scene.check(allowed, *layers)


CHANGES: dict[str, dict[str, Any]] = {
    "WORKDIR": {"WorkingDir": "/l/made"},
    "VOLUME": {"Volumes": {"/l/made": {}}},
    "the launcher": {"Env": ["A=new\nline"], "Cmd": ["/x"]},
}


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_added_to_the_tree_stays_inside(scene: Scene, change: str, absolute: bool) -> None:
    """The converter's own additions meet links of the image on their way."""
    target = str(scene.outside) if absolute else OUT
    data = tar(symlink("l", target), symlink("usr", target), file("x", b"1", mode=0o755))
    outcome = scene.convert(scene.save(data, **CHANGES[change]))
    assert outcome.status == 0, outcome.stderr
    place = scene.tree / (str(scene.outside).lstrip("/") if absolute else "outside")
    expected = {"made"} if change != "the launcher" else {"lib"}
    assert {path.name for path in place.iterdir()} == expected
    scene.assert_untouched(refused=False)


@pytest.mark.parametrize("run", ["a link", "full of links"])
def test_the_copy_of_run_stays_inside(scene: Scene, run: str) -> None:
    out = str(scene.outside)
    if run == "a link":
        data = tar(symlink("run", out), file("run/passwd", b"x"))
        expected = "x"
    else:
        data = tar(directory("run"), symlink("run/passwd", f"{out}/passwd"), symlink("run/all", out))
        expected = f"-> {out}/passwd"
    outcome = scene.check({**_run(run, out), "usr/lib/docker2nspawn/run/passwd": expected}, data)
    assert "SECRET" not in outcome.stdout


def _run(run: str, out: str) -> dict[str, str]:
    if run == "a link":
        # nspawn would follow the link, so it is none any more.
        return {"run": "dir", f"{out.lstrip('/')}/passwd": "x"}
    inner = {"passwd": f"-> {out}/passwd", "all": f"-> {out}"}
    found = {f"run/{name}": what for name, what in inner.items()}
    return {**found, "usr/lib/docker2nspawn/run/all": f"-> {out}"}
