"""What is wrong with one image, or has changed, is told truly and concerns no other; runs side by side do no harm."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from converter.machine.network import free_address
from converter.places import Places, used_addresses
from tests.batch_runs import (
    ARCHITECTURE,
    Batches,
    base,
    check,
    ended,
    images,
    layout,
    leftovers,
    made_alone,
    marks,
    middle,
    top,
    world,
    write_list,
)
from tests.lab import wait_until
from tests.layers import file, tar
from tests.test_wrong_input import cli, saved

# --- corrupt images ---------------------------------------------------------------------------------------------


def blobs(of: Path) -> dict[str, Path]:
    """A layout's blobs, by what they are: config, 0, 1, …"""
    named = {}
    digest = json.loads((of / "index.json").read_text())["manifests"][0]["digest"]
    named["manifest"] = of / "blobs/sha256" / digest.partition(":")[2]
    manifest = json.loads(named["manifest"].read_text())
    for name, found in (("config", manifest["config"]), *enumerate(manifest["layers"])):
        named[str(name)] = of / "blobs/sha256" / found["digest"].partition(":")[2]
    return named


def truncated(path: Path) -> None:
    blob = blobs(path)["1"]
    blob.write_bytes(blob.read_bytes()[:-3000])


def of_another_digest(path: Path) -> None:
    spoil(blobs(path)["1"])


def spoil(blob: Path) -> None:
    data = bytearray(blob.read_bytes())
    data[1500] ^= 1
    blob.write_bytes(data)


def with_bad_json(path: Path) -> None:
    (path / "index.json").write_text('{"schemaVersion": 2, "manifests": [')


def no_image(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(3000))


def lacking_a_blob(path: Path) -> None:
    blobs(path)["1"].unlink()


CORRUPT: dict[str, Callable[[Path], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (truncated, of_another_digest, with_bad_json, no_image, lacking_a_blob)
}


def layouts(place: Path, names: list[str], low: bytes) -> dict[str, str]:
    """One layout for each, all on one base."""
    place.mkdir()
    return {name: f"oci:{layout(place / name, [low, top(name)], Cmd=['/x'])}" for name in names}


def said_by_convert(source: str, root: Path) -> str:
    done = cli("convert", source, "--root", root)
    assert done.returncode == 1
    return done.stderr.removeprefix("docker2nspawn: ").rstrip("\n")


def test_five_corrupt_images_among_good_ones(tmp_path: Path) -> None:
    good = [f"good-{number}" for number in range(5)]
    sources = layouts(
        tmp_path / "in", [name for pair in zip(good, CORRUPT, strict=True) for name in pair], base()
    )
    for name, corrupt in CORRUPT.items():
        corrupt(tmp_path / "in" / name)
    sources["no-image"] = str(tmp_path / "in/no-image")
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    report = tmp_path / "report.json"
    ran = batches.run("--report", str(report))
    assert ran.status == 1
    assert ran.states == {name: "done" if name in good else "failed" for name in sources}
    assert ran.reasons == {name: said_by_convert(sources[name], tmp_path / "out") for name in CORRUPT}
    assert len(set(ran.reasons.values())) == len(CORRUPT)
    assert json.loads(report.read_text()) == ran.summary
    assert sorted(world(batches.root).trees) == good
    again = batches.run("--resume")
    assert (again.status, again.reasons) == (1, ran.reasons)
    assert {name for name, state in again.states.items() if state == "complete"} == set(good)


def test_a_corrupt_base_that_images_share(tmp_path: Path) -> None:
    """All on it fail, and say why; no other does."""
    bad = layouts(tmp_path / "in", ["a", "b", "c"], base())
    for name in bad:
        spoil(blobs(tmp_path / "in" / name)["0"])
    good = layouts(tmp_path / "others", ["d", "e"], base("other"))
    batches = Batches(write_list(tmp_path / "list", bad | good), tmp_path / "root")
    ran = batches.run()
    assert ran.states == {**dict.fromkeys(bad, "failed"), **dict.fromkeys(good, "done")}
    assert ran.reasons == {name: said_by_convert(source, tmp_path / "out") for name, source in bad.items()}
    assert sorted(world(batches.root).trees) == sorted(good)


@pytest.mark.parametrize("which", ["a", "b", "c"])
def test_a_corrupt_copy_of_a_base_that_images_share(tmp_path: Path, which: str) -> None:
    """The others' copies are whole. Whose is not fails, or has what another's has been verified to be."""
    names = ["a", "b", "c"]
    sources = layouts(tmp_path / "in", names, base())
    expected = made_alone(sources, tmp_path / "expected")
    spoil(blobs(tmp_path / "in" / which)["0"])
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    ran = batches.run()
    if ran.states[which] == "failed":
        assert ran.reasons == {which: said_by_convert(sources[which], tmp_path / "out")}
        names.remove(which)
    assert {name for name, state in ran.states.items() if state == "done"} == set(names)
    assert world(batches.root).trees == {name: expected.trees[name] for name in names}


def test_fail_fast_begins_nothing_more(tmp_path: Path) -> None:
    sources = layouts(tmp_path / "in", ["good-1", "bad", "good-2", "good-3"], base())
    with_bad_json(tmp_path / "in/bad")
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    ran = batches.run("--fail-fast", "--jobs", "1")
    states = {"good-1": "done", "bad": "failed", "good-2": "left", "good-3": "left"}
    assert (ran.status, ran.states) == (1, states)
    assert ran.reasons["good-3"] == "not begun: an earlier one failed, and --fail-fast was given"
    assert sorted(world(batches.root).trees) == ["good-1"]


# --- resumed -----------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> Batches:
    """Three machines of one base, made."""
    batches = Batches(
        write_list(tmp_path / "list", layouts(tmp_path / "in", ["a", "b", "c"], base())), tmp_path / "root"
    )
    assert batches.run().status == 0
    return batches


def test_resumed_when_nothing_has_changed(three: Batches) -> None:
    before = marks(three.root)
    ran = three.run("--resume")
    assert (ran.status, set(ran.states.values()), ran.reasons) == (0, {"complete"}, {})
    assert all(outcome["notes"] and outcome["digest"] for outcome in ran.outcomes.values())
    assert marks(three.root) == before


def test_resumed_with_a_changed_image(three: Batches, tmp_path: Path) -> None:
    before = marks(three.root)
    shutil.rmtree(tmp_path / "in/b")
    layout(tmp_path / "in/b", [base(), top("new")], Cmd=["/x"])
    ran = three.run("--resume")
    assert (ran.status, ran.states) == (1, {"a": "complete", "b": "failed", "c": "complete"})
    was = json.loads(Places(three.root).record("b").read_text())["digest"]
    assert f"its image was {was} and is sha256:" in ran.reasons["b"]
    assert ran.outcomes["b"]["remedy"] == "use --force to replace it, or another name"
    assert marks(three.root) == before
    ran = three.run("--resume", "--force")
    assert (ran.status, ran.states) == (0, {"a": "complete", "b": "done", "c": "complete"})
    after = marks(three.root)
    assert {name for name in before if after[name] != before[name]} == {"b"}
    assert (Places(three.root).tree("b") / "srv/new").is_file()
    assert world(three.root).trees.keys() == {"a", "b", "c"}


def test_resumed_with_a_changed_archive(tmp_path: Path) -> None:
    """The old form of archives has no digest of its own."""
    config: dict[str, object] = {"architecture": ARCHITECTURE, "config": {"Cmd": ["/x"]}}
    archive = tmp_path / "a.tar"
    saved(archive, config, [base()])
    batches = Batches(write_list(tmp_path / "list", {"a": archive}), tmp_path / "root")
    assert batches.run().status == 0
    assert batches.run("--resume").states == {"a": "complete"}
    saved(archive, config, [base("other")])
    assert "its image was" in batches.run("--resume").reasons["a"]


def test_resumed_with_other_options(three: Batches) -> None:
    before = marks(three.root)
    ran = three.run("--resume", "--hardening", "strict")
    assert (ran.status, set(ran.states.values())) == (1, {"failed"})
    assert "exists, and is not what it would become now: the options were others" in ran.reasons["a"]
    assert marks(three.root) == before
    ran = three.run("--resume", "--hardening", "strict", "--force")
    assert (ran.status, set(ran.states.values())) == (0, {"done"})
    assert not before.items() & marks(three.root).items()


def test_resumed_with_machines_of_others(tmp_path: Path) -> None:
    """What `convert` has made counts; what is in the way without a record is told."""
    sources = layouts(tmp_path / "in", ["a", "b", "c"], base())
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    assert cli("convert", sources["a"], "--name", "a", "--root", batches.root).returncode == 0
    (Places(batches.root).tree("b") / "home").mkdir(parents=True)
    ran = batches.run("--resume")
    assert (ran.status, ran.states) == (1, {"a": "complete", "b": "failed", "c": "done"})
    assert ran.reasons["b"].startswith(f"{Places(batches.root).tree('b')} exists; use --force")


@pytest.mark.parametrize("what", ["tree", "settings", "record"])
def test_resumed_when_somebody_has_removed_one(three: Batches, what: str) -> None:
    places = Places(three.root)
    before = marks(three.root)
    path = {"tree": places.tree, "settings": places.settings, "record": places.record}[what]("b")
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = three.run("--resume", "--force")
    assert (ran.status, ran.states) == (0, {"a": "complete", "b": "done", "c": "complete"})
    after = marks(three.root)
    assert (before["a"], before["c"]) == (after["a"], after["c"])
    assert world(three.root).trees.keys() == {"a", "b", "c"}


def test_resumed_when_a_source_cannot_be_asked(tmp_path: Path) -> None:
    """That is what is wrong, and not that the machine is there."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    sources = layouts(tmp_path / "in", ["a"], base())
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    assert batches.run().status == 0
    batches.list.write_text(f"docker://{address}/some/image a\n")
    ran = batches.run("--resume", "--retries", "0")
    assert (ran.status, ran.states) == (1, {"a": "failed"})
    assert ran.reasons["a"] == f"{address} does not answer: Connection refused; try again later"


# --- nothing written ---------------------------------------------------------------------------------------------


def everything(root: Path) -> dict[str, Any]:
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_ctime_ns)
        for path in root.rglob("*")
    }


def test_a_dry_run_writes_nothing(three: Batches, tmp_path: Path) -> None:
    before = everything(tmp_path)
    for more in ([], ["--resume"], ["--resume", "--force"], ["--force"]):
        ran = three.run("--dry-run", *more)
        expected = "complete" if "--resume" in more else "planned"
        assert (ran.status, set(ran.states.values())) == (0, {expected})
    elsewhere = Batches(three.list, tmp_path / "nowhere")
    assert set(elsewhere.run("--dry-run").states.values()) == {"planned"}
    after = everything(tmp_path)
    assert after == before


# --- addresses ---------------------------------------------------------------------------------------------------


def two_of_one_address() -> tuple[str, str]:
    """Names of machines that would get the same address."""
    known: dict[str, str] = {}
    for number in count():
        name = f"m{number}"
        if (other := known.setdefault(free_address((), name), name)) != name:
            return other, name
    raise AssertionError


def test_machines_that_would_have_one_address(tmp_path: Path) -> None:
    names = two_of_one_address()
    sources = {}
    slow = tar(file("first"), *[file(f"large{n}", bytes(20 << 20)) for n in range(6)])
    for name in names:
        sources[name] = tmp_path / f"{name}.tar"
        saved(sources[name], {"architecture": ARCHITECTURE, "config": {"Cmd": ["/x"]}}, [slow])
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    machines = Places(batches.root).machines
    machines.mkdir(parents=True)
    lock = os.open(machines, os.O_RDONLY)
    with batches.running("--jobs", "2") as process:
        # Neither may install before the other has chosen.
        wait_until(
            "both at work", lambda: sum((it / "root/first").exists() for it in machines.glob(".#*")) == 2, 30
        )
        fcntl.flock(lock, fcntl.LOCK_EX)
        wait_until("both done", lambda: not any((it / "spool").exists() for it in machines.glob(".#*")), 60)
        os.close(lock)
        ran = ended(process)
    assert (ran.status, set(ran.states.values()), ran.reasons) == (0, {"done"}, {})
    assert {outcome["attempts"] for outcome in ran.outcomes.values()} == {1}
    used = {json.loads(Places(batches.root).record(name).read_text())["address"] for name in names}
    assert len(used) == 2
    assert sorted(world(batches.root).trees) == sorted(names)


_opened: list[str] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if (
        event == "open"
        and isinstance(arguments[0], (str, os.PathLike))
        and "/machines/" in os.fspath(arguments[0])
    ):
        _opened.append(os.fspath(arguments[0]))


def test_each_record_is_read_once(tmp_path: Path) -> None:
    places = Places(tmp_path)
    places.record("x").parent.mkdir(parents=True)
    for number in range(100):
        places.record(f"m{number}").write_text(json.dumps({"address": f"10.213.1.{number}"}))
    sys.addaudithook(_hear)
    for number in range(100):
        used = used_addresses(places, f"m{number}")
        assert len(used) == 99 and f"10.213.1.{number}" not in used
    assert len(_opened) == 100
    places.record("m7").with_suffix(".new").write_text(json.dumps({"address": "10.213.9.9"}))
    places.record("m7").with_suffix(".new").replace(places.record("m7"))
    places.record("m8").unlink()
    _opened.clear()
    used = used_addresses(places, "x")
    assert used["10.213.9.9"] == "m7" and "10.213.1.7" not in used and "10.213.1.8" not in used
    assert len(_opened) == 1


# --- two at once ---------------------------------------------------------------------------------------------------


def test_two_batches_on_the_same_bases(tmp_path: Path) -> None:
    sources = images(tmp_path)
    expected = made_alone(sources, tmp_path / "expected")
    names = list(sources)
    lists = [
        write_list(tmp_path / f"list-{n}", {name: sources[name] for name in names[n::2]}) for n in range(2)
    ]
    first, second = (Batches(path, tmp_path / "root") for path in lists)
    with first.running() as one, second.running() as two:
        rans = ended(one), ended(two)
    for ran in rans:
        assert (ran.status, set(ran.states.values()), ran.reasons) == (0, {"done"}, {})
    check(first, expected)


@pytest.mark.parametrize("resume", [False, True])
def test_two_batches_of_the_same_list(tmp_path: Path, resume: bool) -> None:
    sources = images(tmp_path)
    expected = made_alone(sources, tmp_path / "expected")
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    with batches.running() as one, batches.running(*(["--resume"] if resume else [])) as two:
        rans = ended(one), ended(two)
    for name in sources:
        states = sorted(ran.states[name] for ran in rans)
        assert states in ([["complete", "done"]] if resume else []) + [["done", "failed"]], states
        for ran in rans:
            if ran.states[name] == "failed":
                place = Places(batches.root)
                taken = (place.tree(name), place.settings(name), place.trusted_settings(name))
                assert ran.reasons[name].partition(" exists; ")[0] in {str(path) for path in taken}
    check(batches, expected)
    assert leftovers(batches.root) == []
    assert batches.run("--resume").status == 0


def test_the_middle_layer_alone_is_no_fault(tmp_path: Path) -> None:
    """Images of which one is another's base, and one with nothing but what hides."""
    low, mid = base(), middle()
    whole = {"low": [low], "mid": [low, mid], "only": [mid], "hides": [low, mid, tar(file(".wh.usr"))]}
    sources = {}
    for name, layers in whole.items():
        sources[name] = tmp_path / f"{name}.tar"
        saved(sources[name], {"architecture": ARCHITECTURE, "config": {"Cmd": ["/x"]}}, layers)
    expected = made_alone(sources, tmp_path / "expected")
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    assert batches.run().status == 0
    check(batches, expected)
