"""`cache ls` and `cache prune`: what is listed, what goes and in which order, what stays, kills."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from converter.cache.command import show_caches
from converter.cache.prune import Entry, entries, prune, trim_builds
from converter.cache.removal import kept_from_machinectl, put_aside, removing
from converter.cache.store import Cache, Layer, key_of
from converter.errors import ConversionError
from converter.linux import lock_file
from converter.places import Places
from tests.lab import wait_until
from tests.terminal import Terminal

_REPOSITORY = Path(__file__).parent.parent
_HOUR = 3600.0


def never() -> None:
    """Nothing stops."""


def make(
    cache: Cache,
    name: str,
    *,
    kib: int = 64,
    hours: float = 1,
    parent: str | None = None,
    what: str = "RUN something",
) -> str:
    """A layer of that size, last used so many hours ago; its key."""
    key = key_of(name)
    with cache.making(key, never) as making:
        assert making is not None
        (making.tree / "file").write_bytes(os.urandom(kib << 10))
        cache.complete(making, what, parent=parent)
    used = time.time() - hours * _HOUR
    os.utime(cache.layers / key / "meta.json", (used, used))
    return key


def make_mount(cache: Cache, name: str, *, kib: int = 64, hours: float = 1, about: str | None = None) -> str:
    key = key_of(name)
    place = cache.mounts / key
    (place / "tree").mkdir(parents=True)
    (place / "tree/file").write_bytes(os.urandom(kib << 10))
    if about is not None:
        (place / "about").write_text(about)
    used = time.time() - hours * _HOUR
    os.utime(place, (used, used))
    return key


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "var/lib/machines").mkdir(parents=True)
    return Places(tmp_path)


@pytest.fixture
def builds(places: Places) -> Cache:
    """A cache of builds that no build has open."""
    cache = Cache(places.cache)
    cache.close()
    return cache


@pytest.fixture
def trees(places: Places) -> Iterator[Cache]:
    """What images share; some conversion has it open, which keeps nothing in it."""
    cache = Cache(places.trees)
    yield cache
    cache.close()


def keys(cache: Cache) -> set[str]:
    assert {entry.key for entry in entries(cache.directory)} == {
        path.name for place in (cache.layers, cache.mounts) for path in place.iterdir()
    }
    return {entry.key for entry in entries(cache.directory)}


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "converter.cli", "cache", *arguments, "--root", root],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def told(root: Path, *arguments: str) -> Any:
    done = command(root, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- ls


def test_the_list_has_both_caches_the_last_used_first(places: Places, builds: Cache, trees: Cache) -> None:
    old = make(builds, "old", hours=50, kib=3000, what="RUN apt-get \x1b[31m\n&& true")
    new = make(builds, "new", hours=2.5)
    mount = make_mount(builds, "pip", hours=5, about="RUN --mount=type=cache,target=/root/.cache/pip")
    tree = make(trees, "tree", hours=1)
    done = command(places.root, "ls")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(row[0], row[1]) for row in rows] == [
        ("builds", new),
        ("builds", mount),
        ("builds", old),
        ("shared", tree),
    ]
    assert [row[5] for row in rows[:3]] == [
        "RUN something",
        "RUN --mount=type=cache,target=/root/.cache/pip",
        "RUN apt-get \\x1b[31m\\n&& true",
    ]
    assert re.fullmatch(r"3\.1 MB", rows[2][2])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", rows[2][3])

    found = told(places.root, "ls")
    assert [entry["key"] for entry in found["builds"]["entries"]] == [new, mount, old]
    assert found["shared"]["path"] == str(places.trees)
    (entry,) = found["shared"]["entries"]
    assert abs(entry["used"] - (time.time() - _HOUR)) < 60 and abs(entry["created"] - time.time()) < 60
    assert entry["path"] == str(trees.layers / tree) and entry["in_use"] is False
    assert found["builds"]["size"] == sum(entry["size"] for entry in found["builds"]["entries"])
    du = subprocess.run(
        ["du", "-s", "-B1", builds.mounts / mount], capture_output=True, text=True, check=True
    )
    assert found["builds"]["entries"][1]["size"] == int(du.stdout.split()[0])


def test_the_list_on_a_terminal(places: Places, builds: Cache, trees: Cache) -> None:
    key = make(builds, "a", hours=50, what="RUN " + "x" * 200)
    make(trees, "b", hours=3, what="2 layers, sha256:0")
    code = "import sys; from converter import cli; sys.argv[1:] = ['cache', 'ls', '--root', sys.argv[1]]; cli.main()"
    terminal = Terminal(120, 30, code, str(places.root), stream="stdout")
    try:
        with trees.using(key_of("b")):
            heading, first, second, *totals = terminal.end()
    finally:
        terminal.close()
    assert heading.split() == ["cache", "key", "size", "last", "used", "what"]
    assert re.fullmatch(rf"builds +{key[:12]} +\d+\.\d kB +2 days ago +RUN x+…", first)
    assert re.fullmatch(rf"shared +{key_of('b')[:12]} +\d+\.\d kB +now +in use +2 layers, sha256:0", second)
    joined = "".join(totals).replace(" ", "")  # wherever the lines end
    assert f"builds:1entry,upto69.6kBin{places.cache}" in joined
    assert f"in{places.trees},1inuse" in joined


def test_a_cache_that_is_not_there_is_not_made(places: Places) -> None:
    assert command(places.root, "ls").stdout == ""
    done = command(places.root, "prune", "--all")
    assert done.returncode == 0 and done.stdout.endswith("total: nothing freed\n")
    assert [path.name for path in places.root.rglob("*")] == ["var", "lib", "machines"]


def test_a_cache_that_cannot_be_read(places: Places, builds: Cache) -> None:
    (builds.layers).rmdir()
    (builds.layers).write_text("no directory")
    for what in ("ls", "prune"):
        done = command(places.root, what)
        if what == "prune":  # there is nothing of which layers could be taken
            assert done.returncode == 0
            continue
        assert done.returncode == 1
        assert done.stderr == f"docker2nspawn: cannot read the cache {builds.directory}: Not a directory\n"


# --- what goes


def test_without_options_a_cache_keeps_20_gib(places: Places, builds: Cache) -> None:
    for number in range(3):
        key = make(builds, str(number), hours=number + 1)
        meta = builds.layers / key / "meta.json"
        used = meta.stat().st_mtime
        meta.write_text(json.dumps({**json.loads(meta.read_bytes()), "size": 9 << 30}))
        os.utime(meta, (used, used))
    found = told(places.root, "prune")
    assert [entry["key"] for entry in found["builds"]["taken"]] == [key_of("2")]
    assert found["freed"] == found["builds"]["freed"] == 9 << 30
    assert found["builds"]["left"] == {"entries": 2, "size": 18 << 30, "in_use": 0}


def test_what_was_not_used_for_longest_goes_first(places: Places, trees: Cache) -> None:
    made = [make(trees, str(number), hours=number + 1, kib=100) for number in range(5)]
    size = entries(trees.directory)[0].size
    done = command(places.root, "prune", "--cache-size", str(2 * size + 1))
    assert done.returncode == 0, done.stderr
    *rows, builds_line, shared_line, total = done.stdout.splitlines()
    assert [row.split("\t")[1] for row in rows] == made[2:]
    assert builds_line == "builds: taken out: 0 entries; left: 0 entries"
    assert shared_line == "shared: taken out: 3 entries, up to 319.5 kB; left: 2 entries, up to 213.0 kB"
    assert total == "total: up to 319.5 kB freed"
    assert keys(trees) == set(made[:2])
    assert command(places.root, "prune", "--cache-size", "1M").stdout.endswith("total: nothing freed\n")


def test_what_was_used_since_stays(places: Places, builds: Cache, trees: Cache) -> None:
    for cache in (builds, trees):
        for hours in (1, 11, 13, 200):
            make(cache, str(hours), hours=hours)
    assert told(places.root, "prune", "--unused-for", "7d")["shared"]["left"]["entries"] == 3
    assert keys(builds) == keys(trees) == {key_of("1"), key_of("11"), key_of("13")}
    told(places.root, "prune", "--unused-for", "12h", "--cache-size", "1G")
    assert len(keys(builds)) == 3  # there is room for them
    told(places.root, "prune", "--unused-for", "12h", "--all")
    assert keys(builds) == keys(trees) == {key_of("1"), key_of("11")}


def test_all_takes_everything_also_what_is_empty(places: Places, builds: Cache, trees: Cache) -> None:
    make(trees, "tree")
    make(builds, "layer")
    make_mount(builds, "mount")
    with builds.making(key_of("empty"), never) as making:
        assert making is not None
        layer = builds.complete(making, "RUN true", parent=None)
    builds.name(key_of("name"), layer)
    (builds.layers / "broken").mkdir()
    (builds.layers / "broken/meta.json").write_text("{")
    dry = told(places.root, "prune", "--all", "--dry-run")
    assert dry["dry_run"] is True
    assert len(keys(builds)) == 4 and len(keys(trees)) == 1
    assert [entry["what"] for entry in dry["builds"]["taken"]][-1] == "damaged"
    real = told(places.root, "prune", "--all")
    assert {**real, "dry_run": True} == dry
    assert keys(builds) == keys(trees) == set()
    assert list((builds.directory / "names").iterdir()) == []
    assert told(places.root, "prune", "--all")["freed"] == 0


def test_wrong_usage(places: Places) -> None:
    for arguments in (
        ("--all", "--cache-size", "1G"),
        ("--unused-for", "7"),
        ("--unused-for", "7 d"),
        ("--cache-size", "many"),
    ):
        assert command(places.root, "prune", *arguments).returncode == 2


def test_a_layer_of_a_build_goes_after_those_made_upon_it(builds: Cache) -> None:
    """Whatever their times say: a base is looked up before the steps upon it."""
    base = make(builds, "base", hours=9, parent=None)
    first = make(builds, "first", hours=8, parent=base)
    second = make(builds, "second", hours=7, parent=first)
    other = make(builds, "other", hours=8.5, parent=None)
    size = entries(builds.directory)[0].size
    for expected in ({base, first, second}, {base, first}, {base}, set()):
        prune(builds.directory, max(1, size * len(expected)), builds=True)
        assert keys(builds) == expected, other


def test_parents_in_a_circle(builds: Cache) -> None:
    make(builds, "a", parent=key_of("b"), hours=3)
    make(builds, "b", parent=key_of("a"), hours=2)
    assert prune(builds.directory, 0, builds=True) is not None
    assert keys(builds) == set()


def test_trees_do_not_need_those_that_they_were_made_of(trees: Cache) -> None:
    base = make(trees, "base", hours=9)
    make(trees, "more", hours=1, parent=base)
    prune(trees.directory, entries(trees.directory)[0].size)
    assert keys(trees) == {key_of("more")}


def test_a_build_keeps_what_it_has_used(builds: Cache) -> None:
    make(builds, "old", hours=1)
    begun = time.time() - 1
    used = make(builds, "base", hours=0)
    make(builds, "step", hours=0, parent=used)
    mount = make_mount(builds, "mount", hours=0)
    trim_builds(builds.directory, 1, before=begun)
    assert keys(builds) == {used, key_of("step"), mount}


# --- what stays


def test_what_is_in_use_stays_and_is_counted(places: Places, trees: Cache) -> None:
    make(trees, "used", hours=9)
    make(trees, "idle", hours=1)
    with trees.using(key_of("used")) as layer:
        assert layer is not None
        os.utime(trees.layers / layer.key / "meta.json", (1, 1))
        assert [entry["in_use"] for entry in told(places.root, "ls")["shared"]["entries"]] == [False, True]
        dry = told(places.root, "prune", "--all", "--dry-run")
        done = command(places.root, "prune", "--all")
        assert "left: 1 entry, up to 69.6 kB; kept because in use: 1" in done.stdout
        assert dry["shared"]["left"] == {"entries": 1, "size": layer_size(trees, "used"), "in_use": 1}
        assert keys(trees) == {layer.key}
    told(places.root, "prune", "--all")
    assert keys(trees) == set()


def layer_size(cache: Cache, name: str) -> int:
    return next(entry.size for entry in entries(cache.directory) if entry.key == key_of(name))


def test_while_a_build_goes_on_its_cache_stays_and_the_other_is_pruned(
    places: Places, builds: Cache, trees: Cache
) -> None:
    make(builds, "layer")
    make(trees, "tree")
    build = Cache(places.cache)
    for arguments in (("--all", "--dry-run"), ("--all",)):
        assert told(places.root, "ls")["builds"]["entries"][0]["in_use"] is True
        done = command(places.root, "prune", *arguments)
        assert done.returncode == 0
        assert done.stderr == (
            f"docker2nspawn: the cache of builds, {places.cache}: a build is using it, so nothing was taken out; "
            "try again when it is over\n"
        )
        assert len(keys(builds)) == 1
    assert keys(trees) == set()
    assert told(places.root, "prune")["builds"] == {"path": str(places.cache), "busy": True}
    build.close()
    told(places.root, "prune", "--all")
    assert keys(builds) == set()


def test_what_is_being_made_stays(trees: Cache) -> None:
    with trees.making(key_of("new"), never) as making:
        assert making is not None
        (making.tree / "half").touch()
        prune(trees.directory, 0)
        trees.complete(making, "RUN", parent=None)
    assert keys(trees) == {key_of("new")}


def test_a_build_that_begins_does_not_wait_for_what_is_being_removed(builds: Cache) -> None:
    """What was put aside is the pruner's, and nobody waits for it."""
    key = make(builds, "gone")
    with removing(builds.layers) as freed:
        assert freed == 0
        aside = put_aside(builds.layers / key, builds.layers)
        begun = time.monotonic()
        build = Cache(builds.directory)
        assert time.monotonic() - begun < 5
        assert build.find(key) is None
        assert aside.exists()
        make(build, "gone")
        put_aside(build.layers / key, build.layers)  # the same once more
        build.close()
    Cache(builds.directory).close()
    assert list(builds.layers.iterdir()) == []


# --- kills, and many at once

_PRUNER = """
import sys, time
from pathlib import Path
from converter.cache.prune import prune
print("pruning", flush=True)
while True:
    prune(Path(sys.argv[1]), int(sys.argv[2]))
    if len(sys.argv) > 3:
        break
    time.sleep(0.02)
"""


@contextmanager
def pruner(cache: Cache, limit: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A process that prunes."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PRUNER, cache.directory, str(limit), *more],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_REPOSITORY,
    )
    assert process.stdout is not None and process.stdout.readline() == "pruning\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def make_deep(cache: Cache, name: str, files: int = 300) -> str:
    key = key_of(name)
    with cache.making(key, never) as making:
        assert making is not None
        for number in range(files):
            (making.tree / str(number)).write_text(name)
        cache.complete(making, f"RUN {name}", parent=None)
    return key


def whole(cache: Cache, layer: Layer | None, name: str, files: int = 300) -> bool:
    """Is it all of what `make_deep` made? None counts."""
    if layer is None:
        return True
    assert layer.tree is not None
    return all((layer.tree / str(number)).read_text() == name for number in range(files))


def _tidy(cache: Cache, *, by_prune: bool) -> bool:
    """Does the next who comes leave nothing of dead ones?"""
    if by_prune:
        prune(cache.directory, 1 << 40)
    else:
        Cache(cache.directory).close()
    left = [path for path in cache.layers.iterdir() if path.name.startswith(".")]
    return not left and list((cache.directory / "locks").iterdir()) == []


def test_a_pruner_killed_at_any_instant_leaves_nothing_half(trees: Cache) -> None:
    left = 0
    for attempt in range(25):
        names = [f"{attempt}-{number}" for number in range(4)]
        for name in names:
            make_deep(trees, name)
        with pruner(trees, 0, "once") as process:
            time.sleep(attempt * 0.002)
            process.kill()
            process.wait()
        for name in names:
            with trees.using(key_of(name)) as layer:
                assert whole(trees, layer, name)
        left += sum(path.name.endswith(".gone") for path in trees.layers.iterdir())
        # A program that it had just begun to start has its lock for a moment longer.
        wait_until("the end of what it left", partial(_tidy, trees, by_prune=attempt % 2 == 0))
    assert left > 0, "no kill came while something was removed"


def test_what_a_killed_pruner_left_is_counted_when_it_goes(places: Places, trees: Cache) -> None:
    key = make(trees, "a", kib=500)
    put_aside(trees.layers / key, trees.layers)
    assert told(places.root, "ls")["shared"]["entries"] == []
    done = command(places.root, "prune")
    assert re.search(
        r"left by killed processes, removed: 5\d\d\.\d kB\ntotal: up to 5\d\d\.\d kB freed\n", done.stdout
    )


def test_two_pruners_at_once(trees: Cache) -> None:
    for _ in range(5):
        names = [make(trees, str(number), hours=number) for number in range(20)]
        size = entries(trees.directory)[0].size
        results: list[tuple[Entry, ...]] = []

        def go(limit: int = 5 * size, results: list[tuple[Entry, ...]] = results) -> None:
            pruned = prune(trees.directory, limit)
            assert pruned is not None
            results.append(pruned.taken)

        threads = [threading.Thread(target=go) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = [entry.key for each in results for entry in each]
        assert len(results) == 2 and len(set(taken)) == len(taken)
        assert keys(trees) == set(names) - set(taken)
        assert len(keys(trees)) <= 5
        prune(trees.directory, 0)


def test_users_and_makers_beside_pruners(trees: Cache) -> None:
    """Whoever has a layer has all of it for as long as it uses it."""
    seen: list[bool] = []
    stop = threading.Event()

    def use(number: int) -> None:
        own = Cache(trees.directory)
        while not stop.is_set():
            name = str(number % 3)
            with own.using(key_of(name)) as layer:
                if layer is not None:
                    seen.append(whole(own, layer, name, 60))
                    continue
            with own.making(key_of(name), never) as making:
                if making is not None:
                    for each in range(60):
                        (making.tree / str(each)).write_text(name)
                    own.complete(making, "RUN", parent=None)
        own.close()

    with pruner(trees, 0), pruner(trees, 0):
        threads = [threading.Thread(target=use, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        time.sleep(4)
        stop.set()
        for thread in threads:
            thread.join()
    assert len(seen) > 20 and all(seen)
    Cache(trees.directory).close()
    assert [path.name for path in trees.layers.iterdir() if path.name.startswith(".")] == []


# --- machinectl clean


def test_machinectl_is_kept_from_a_cache_that_is_in_use(places: Places, trees: Cache) -> None:
    """As systemd takes a lock before it removes an image: lockfile-util.c, make_lock_file."""
    path = places.machines / ".#.docker2nspawn-cache.lck"

    def machinectl() -> int | None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if lock_file(fd, fcntl.F_WRLCK):
            return fd
        os.close(fd)
        return None

    with kept_from_machinectl(places.trees) as kept, kept_from_machinectl(places.trees) as other:
        assert kept and other
        assert machinectl() is None
    assert not path.exists()
    fd = machinectl()
    assert fd is not None
    with kept_from_machinectl(places.trees) as kept:
        assert not kept
    os.close(fd)
    path.touch()  # of one that was killed
    prune(trees.directory, 0)
    assert not path.exists()


def test_a_wrong_root_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command(tmp_path / "file", "ls")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_only_root_can_read_roots_cache(
    places: Places, builds: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        pid = os.fork()
        if pid == 0:
            try:
                places.root.chmod(0o755)
                os.setgid(65534)
                os.setuid(65534)
                os.chdir("/")
                show_caches(places.root, as_json=False)
            except ConversionError as error:
                os._exit(0 if "run this with sudo" in str(error) else 3)
            except BaseException:
                os._exit(4)
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return
    builds.directory.chmod(0)
    done = command(places.root, "ls")
    builds.directory.chmod(0o700)
    assert (done.returncode, "run this with sudo" in done.stderr) == (1, True)
