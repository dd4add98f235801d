"""The cache of build steps: what is complete stays, what is not never counts."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from converter.cache.store import Cache, Layer, key_of


def never() -> None:
    """Nothing stops."""


def make(cache: Cache, key: str, name: str = "file") -> Layer:
    with cache.making(key, never) as making:
        assert making is not None
        (making.tree / name).write_text("content")
        return cache.complete(making, "RUN something", parent="below")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_a_layer_is_found_by_its_key(cache: Cache) -> None:
    key = key_of("run", 1)
    assert cache.find(key) is None
    made = make(cache, key)
    assert cache.find(key) == made == Cache(cache.directory).find(key)
    assert made.tree is not None
    assert (made.tree / "file").read_text() == "content"
    assert not (cache.layers / key / "work").exists()


def test_what_a_layer_is_can_be_read_later(cache: Cache) -> None:
    key = key_of("run", 1)
    before = time.time()
    make(cache, key)
    path = cache.layers / key / "meta.json"
    meta = json.loads(path.read_bytes())
    assert (meta["key"], meta["instruction"], meta["parent"]) == (key, "RUN something", "below")
    assert before - 1 <= meta["created"] <= time.time() + 1
    assert meta["size"] > 0
    os.utime(path, (1, 1))
    cache.find(key)
    assert path.stat().st_mtime >= before - 1  # its last use


def test_a_step_that_changes_nothing_has_no_tree(cache: Cache) -> None:
    key = key_of("run", "true")
    with cache.making(key, never) as making:
        assert making is not None
        assert cache.complete(making, "RUN true", parent=None).tree is None
    found = cache.find(key)
    assert found is not None
    assert found.tree is None


def test_what_is_not_completed_is_gone(cache: Cache) -> None:
    key = key_of("run", 1)
    with pytest.raises(RuntimeError), cache.making(key, never) as making:
        assert making is not None
        (making.tree / "half").mkdir()
        raise RuntimeError
    assert cache.find(key) is None
    assert list(cache.layers.iterdir()) == []
    assert list((cache.directory / "locks").iterdir()) == []


def test_keys_tell_everything_apart() -> None:
    keys = [
        key_of(*parts)
        for parts in (
            ("a", "b"),
            ("ab",),
            ("a", ["b"]),
            ("a", None),
            ("a", ""),
            ("a", 1),
            ("a", "1"),
            ("b", "a"),
        )
    ]
    assert len(set(keys)) == len(keys)
    assert key_of({"b": 1, "a": 2}) == key_of({"a": 2, "b": 1})
    assert key_of("\udc80") != key_of("\udc81")


def test_names_lead_to_layers(cache: Cache) -> None:
    name = key_of("COPY --from")
    assert cache.named(name) is None
    first, second = make(cache, key_of(1)), make(cache, key_of(2))
    cache.name(name, first)
    assert cache.named(name) == first
    cache.name(name, second)
    assert cache.named(name) == second
    subprocess.run(["rm", "-r", cache.layers / second.key], check=True)
    assert cache.named(name) is None


def test_a_description_that_cannot_be_read_is_none(cache: Cache) -> None:
    key = key_of(1)
    make(cache, key)
    for broken in ("", "{}", '{"empty": false', "[]"):
        (cache.layers / key / "meta.json").write_text(broken)
        assert cache.find(key) is None
        make(cache, key)
        assert cache.find(key) is not None


_MAKER = """
import sys, time
from pathlib import Path
from converter.cache.store import Cache
cache = Cache(Path(sys.argv[1]))
with cache.making(sys.argv[2], lambda: None) as making:
    (making.tree / "half").write_text("half")
    print("making", flush=True)
    time.sleep(600)
"""


def _maker(cache: Cache, key: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _MAKER, cache.directory, key], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "making\n"
    return process


def test_what_a_killed_maker_left_is_removed_but_not_a_live_ones(cache: Cache) -> None:
    with _maker(cache, key_of("dead")) as dead, _maker(cache, key_of("alive")) as alive:
        try:
            assert len(list(cache.layers.iterdir())) == 2
            dead.kill()
            dead.wait()
            Cache(cache.directory)
            assert [path.name for path in cache.layers.iterdir()] == [f".#{key_of('alive')}"]
            assert cache.find(key_of("dead")) is cache.find(key_of("alive")) is None
            make(cache, key_of("dead"))
        finally:
            dead.kill()
            alive.kill()


def test_a_second_maker_waits_for_the_first(cache: Cache) -> None:
    key = key_of("once")
    made: list[bool] = []

    def build() -> None:
        own = Cache(cache.directory)
        with own.making(key, never) as making:
            if making is not None:
                time.sleep(0.1)
                (making.tree / "file").touch()
                own.complete(making, "RUN", parent=None)
            made.append(making is not None)
        assert own.find(key) is not None

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
    assert [path.name for path in cache.layers.iterdir()] == [key]
    assert list((cache.directory / "locks").iterdir()) == []


def test_who_waits_can_be_stopped(cache: Cache) -> None:
    def stop() -> None:
        raise RuntimeError("stopped")

    with (
        cache.making(key_of(1), never),
        pytest.raises(RuntimeError, match="stopped"),
        cache.making(key_of(1), stop),
    ):
        pytest.fail("two make the same layer")


def test_layers_may_be_removed_when_no_build_goes_on(cache: Cache) -> None:
    with (cache.directory / "lock").open("ab") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        cache.close()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_may_not_be_on_the_disk_counts_until_the_host_is_booted_again(cache: Cache) -> None:
    key, lost = key_of(1), key_of(2)
    make(cache, key)
    cache.close()  # waits for the disk
    killed = Cache(cache.directory)
    make(killed, lost)

    def booted() -> Cache:
        for each in cache.layers.iterdir():
            meta = json.loads((each / "meta.json").read_bytes())
            (each / "meta.json").write_text(json.dumps({**meta, "boot": "another"}))
        return Cache(cache.directory)

    assert Cache(cache.directory).find(lost) is not None
    again = booted()
    assert again.find(key) is not None
    assert again.find(lost) is None
    make(again, lost, "new")
    found = again.find(lost)
    assert found is not None
    assert found.tree is not None
    assert [path.name for path in found.tree.iterdir()] == ["new"]
    # Who uses such a layer waits for it too.
    user = Cache(cache.directory)
    assert user.find(lost) == found
    user.close()
    assert booted().find(lost) == found
