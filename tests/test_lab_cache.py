"""The caches where root is needed: builds and their limit, batches beside pruners, full disks, btrfs, machinectl."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from converter.cache.prune import entries, prune
from converter.cache.store import Cache, key_of
from converter.dockerfile.model import Mount
from converter.linux import make_snapshot, make_subvolume
from converter.places import Places
from converter.rootfs.clone import clone_tree
from tests import lab
from tests.building import Site, run, stage
from tests.layers import directory, file, hardlink, symlink, tar
from tests.test_cache import command, keys, make, make_deep, never, pruner, told, whole
from tests.test_lab_build_broken import building, disk
from tests.test_wrong_input import saved
from tests.trees import Facts, facts

pytestmark = pytest.mark.lab  # root

_REPOSITORY = Path(__file__).parent.parent


# --- builds


def test_a_build_leaves_what_it_has_used_and_no_more_than_the_limit(tmp_path: Path) -> None:
    site = Site(tmp_path)

    def steps(mark: str) -> tuple[list[str], int]:
        """Two steps of 2 MiB each; the layers and how many bytes there are then."""
        big = "dd if=/dev/urandom bs=1M count=2 of=/big-"
        built = site.build(stage(run(f"{big}{mark}1"), run(f"{big}{mark}2")), cache_size=3 << 20)
        assert all(path.exists() for path in built.layers)
        return [path.parent.name for path in built.layers], sum(each.size for each in entries(site.cache))

    base, first, second = steps("a")[0]
    time.sleep(1.1)  # what was used up to a second before a build began counts as its own
    (again, third, fourth), size = steps("b")
    assert again == base and size > 4 << 20  # more than the limit, but all of it was used
    left = {entry.key for entry in entries(site.cache)}
    assert {base, third, fourth} <= left and not {first, second} & left
    assert steps("b")[0] == [base, third, fourth]
    time.sleep(1.1)
    assert steps("a")[0] == [base, first, second]  # by the same keys, made again
    assert site.left() == []


def test_a_build_beside_another_leaves_the_cache_to_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    old = [path.parent.name for path in site.build(stage(run("echo old >/old"))).layers]
    with building(tmp_path) as other:
        lab.wait_until("a step", lambda: len(list(site.cache.glob("layers/[!.]*"))) > 3)
        with closing(Cache(site.cache)):  # as a build has it: the other may come to its end meanwhile
            site.build(stage(run("echo new >/new")), cache_size=1)
            assert set(old) <= {entry.key for entry in entries(site.cache)}
            done = command(site.root, "prune", "--all")
            assert (done.returncode, "a build is using it" in done.stderr) == (0, True)
        assert other.wait(60) == 0
    made = set(other.communicate()[0].split()) & {entry.key for entry in entries(site.cache)}
    assert len(made) > 3
    assert told(site.root, "prune", "--all")["builds"]["left"]["entries"] == 0
    site.run(run("echo old >/old"))


def test_directories_of_cache_mounts_are_listed_and_pruned(tmp_path: Path) -> None:
    site = Site(tmp_path)
    mounts = (Mount("cache", "/cache", id="packages"),)
    site.build(stage(run("dd if=/dev/zero of=/cache/big bs=1M count=3", mounts=mounts)))
    (mount,) = [
        entry for entry in told(site.root, "ls")["builds"]["entries"] if "type=cache" in entry["what"]
    ]
    assert mount["what"] == "RUN --mount=type=cache,id=packages,target=/cache"
    assert 3 << 20 <= mount["size"] < 4 << 20
    assert told(site.root, "prune", "--all")["freed"] > 3 << 20
    site.build(stage(run("ls /cache; echo again", mounts=mounts)))
    assert site.output == "again\n"


# --- batches


def image(path: Path, mark: str, base: list[bytes]) -> Path:
    own = tar(file("own", mark.encode()), file("etc/motd", mark.encode()), symlink(f"l-{mark}", "own"))
    saved(path, {"config": {"Cmd": ["/own"]}}, [*base, own])
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight images upon one base, four of them upon more of it."""
    place = tmp_path_factory.mktemp("images")
    lower = tar(
        directory("etc"),
        *(directory(f"d{n}") for n in range(40)),
        *(file(f"d{n % 40}/f{n}", b"%d " % n * 200) for n in range(2000)),
        hardlink("link", "d1/f1"),
    )
    middle = tar(*(file(f"d{n % 40}/g{n}", b"%d " % n) for n in range(1000)), file("d3/.wh.f3"))
    return [image(place / f"m{n}.tar", f"m{n}", [lower, middle] if n % 2 else [lower]) for n in range(8)]


def machines(root: Path) -> dict[str, dict[bytes, Facts]]:
    """Every machine's tree; a few files of the converter's own have the time of now."""
    places = Places(root)
    trees = sorted(path for path in places.machines.iterdir() if path.is_dir() and path.name[0] != ".")
    return {tree.name: {path: fact._replace(mtime=0) for path, fact in facts(tree).items()} for tree in trees}


def batch(root: Path, images: list[Path], *more: str) -> subprocess.CompletedProcess[str]:
    listed = root / "list"
    root.mkdir(exist_ok=True)
    listed.write_text("".join(f"{path}\n" for path in images))
    return subprocess.run(
        [sys.executable, "-m", "converter.cli", "batch", listed, "--root", root, "--jobs", "3", *more],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_batch_while_others_prune_all_the_time(tmp_path: Path, images: list[Path]) -> None:
    alone = tmp_path / "alone"
    for path in images:
        lab.run(sys.executable, "-m", "converter.cli", "convert", path, "--root", alone)
    expected = machines(alone)
    assert len(expected) == 8
    root = tmp_path / "root"
    cache = Cache(Places(root).trees)
    with pruner(cache, 0), pruner(cache, 0):
        for _ in range(2):
            done = batch(root, images, "--force")
            assert done.returncode == 0, done.stdout + done.stderr
            assert machines(root) == expected
    cache.close()
    assert batch(root, images, "--force").returncode == 0
    assert machines(root) == expected
    assert len(told(root, "ls")["shared"]["entries"]) == 2
    told(root, "prune", "--all")
    assert machines(root) == expected
    assert [path.name for path in Places(root).machines.iterdir() if path.name.startswith(".#")] == []


# --- disks


@contextmanager
def full(mount: Path, kind: str) -> Iterator[None]:
    """Nothing can be written there any more."""
    filler = mount / "filler"
    if kind == "inodes":
        status = os.statvfs(mount)
        used = status.f_files - status.f_ffree
        lab.run("mount", "-o", f"remount,nr_inodes={used}", mount)
    else:
        with filler.open("wb") as made:
            try:
                while True:
                    made.write(os.urandom(1 << 16))
                    made.flush()
            except OSError:
                pass
        os.sync()
        with pytest.raises(OSError, match="No space"), (mount / "more").open("wb") as more:
            for _ in range(64):
                more.write(os.urandom(1 << 16))
                more.flush()
    yield


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "tmpfs", "inodes"])
def test_pruning_makes_room_on_a_full_disk(tmp_path: Path, kind: str) -> None:
    system = "tmpfs" if kind == "inodes" else kind
    with disk(tmp_path / "disk", system, (160 if kind == "btrfs" else 48) << 20) as mount:
        places = Places(mount / "root")
        cache = Cache(places.trees)
        for number in range(4):
            make_deep(cache, str(number))
            make(cache, f"big-{number}", kib=2048)
        cache.close()
        with full(mount, kind):
            done = command(places.root, "prune", "--all")
            assert (done.returncode, done.stderr) == (0, "")
        assert list(cache.layers.iterdir()) == []
        os.sync()
        lab.wait_until("room", lambda: _can_write(mount / "new", 4 << 20))
        make_deep(cache, "again")
        assert whole(cache, cache.find(key_of("again")), "again")


def _can_write(path: Path, size: int) -> bool:
    try:
        path.write_bytes(os.urandom(size))
    except OSError:
        return False
    return True


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "disk", "btrfs", 400 << 20) as mount:
        yield mount


def make_tree(cache: Cache, name: str, below: Path | None = None) -> Path:
    """A tree in a subvolume, a snapshot of one below where there is one."""
    with cache.making(key_of(name), never, subvolume=True) as making:
        assert making is not None
        if below is not None:
            clone_tree(below, making.tree)
        (making.tree / name).write_bytes(os.urandom(1 << 20))
        layer = cache.complete(making, name, parent=None, whole=True)
    assert layer.tree is not None and layer.tree.stat().st_ino == 256  # a subvolume's root
    return layer.tree


def test_subvolumes_and_what_is_nested_in_them(btrfs: Path) -> None:
    places = Places(btrfs / "root")
    cache = Cache(places.trees)
    first = make_tree(cache, "first")
    second = make_tree(cache, "second", first)
    clone_tree(second, places.tree("machine"))
    assert make_subvolume(second / "nested") and make_snapshot(first, second / "nested/snapshot")
    before = facts(places.tree("machine"))
    assert sorted(path.name for path in (second / "nested/snapshot").iterdir()) == ["first"]
    found = told(places.root, "prune", "--all")
    assert len(found["shared"]["taken"]) == 2 and found["freed"] >= 3 << 20
    assert list(cache.layers.iterdir()) == []
    assert facts(places.tree("machine")) == before
    listed = lab.run("btrfs", "subvolume", "list", "-o", btrfs).stdout
    assert [line.rpartition("/")[2] for line in listed.splitlines()] == ["machine"]
    cache.close()


def test_pruners_killed_on_a_btrfs(btrfs: Path) -> None:
    cache = Cache(btrfs / "cache")
    for attempt in range(12):
        below = make_tree(cache, f"{attempt}-below")
        for number in range(4):
            make_tree(cache, f"{attempt}-{number}", below)
        with pruner(cache, 0, "once") as process:
            time.sleep(attempt * 0.003)
            process.kill()
            process.wait()
        for number in range(4):
            with cache.using(key_of(f"{attempt}-{number}")) as layer:
                if layer is not None:
                    assert layer.tree is not None
                    found = {path.name: path.stat().st_size for path in layer.tree.iterdir()}
                    assert found == {f"{attempt}-below": 1 << 20, f"{attempt}-{number}": 1 << 20}
        prune(cache.directory, 0)

    def empty() -> bool:
        prune(cache.directory, 0)
        return list(cache.layers.iterdir()) == []

    lab.wait_until("an empty cache", empty)
    assert keys(cache) == set()
    cache.close()


# --- machinectl


def test_machinectl_clean_takes_the_cache_but_not_while_it_is_used(
    systemd_host: lab.Host, images: list[Path]
) -> None:
    root = systemd_host.root
    done = batch(root, images[:4], "--no-trust")
    assert done.returncode == 0, done.stdout + done.stderr
    cache = Places(root).trees
    before = machines(root)
    assert told(root, "ls")["shared"]["entries"]
    assert cache.name in systemd_host.run("machinectl", "list-images", "--all").stdout
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, cache], cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"holding\n"
        assert "Removed 0 images" in systemd_host.run("machinectl", "clean").stderr
        assert told(root, "ls")["shared"]["entries"]
        holder.communicate()
    systemd_host.run("machinectl", "clean")
    assert not cache.exists()
    assert machines(root) == before
    assert batch(root, images[:4], "--no-trust", "--force").returncode == 0
    assert machines(root) == before
    for name in before:
        systemd_host.run("machinectl", "remove", name)


_HOLDER = """
import sys
from pathlib import Path
from converter.cache.removal import kept_from_machinectl
with kept_from_machinectl(Path(sys.argv[1])) as kept:
    assert kept
    print("holding", flush=True)
    sys.stdin.read()
"""
