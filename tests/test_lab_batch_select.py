"""The lists that real Docker daemons make: containers and images, by label, on both versions of the lab."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter import conversion
from converter.batch.jobs import jobs_of
from converter.batch.listing import Entries, UsageError
from converter.batch.selecting import select
from converter.errors import ConversionError
from converter.options import Options
from converter.progress import Silent
from tests import lab

pytestmark = pytest.mark.lab

CONTAINERS = {"lab-select-b": ("select=yes", "tier=web"), "lab-select-a": ("select=yes",), "lab-select-c": ()}


def built(context: Path, host: str, *labels: str, tags: tuple[str, ...] = ()) -> str:
    """An image's ID; its label `id` tells it from all others."""
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    words = " ".join((f"id={context.name}", *labels))
    (context / "Dockerfile").write_text(
        f'FROM hello:latest\nLABEL {words}\nCOPY busybox /\nCMD ["/busybox", "sleep", "1000"]\n'
    )
    names = [word for tag in tags for word in ("-t", tag)]
    build = lab.run("docker", "build", "-q", *names, context, DOCKER_HOST=host, DOCKER_BUILDKIT="0")
    return build.stdout.strip()


@pytest.fixture(scope="module", params=["20.10", "26"])
def engine(
    request: pytest.FixtureRequest, work: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A daemon with three containers, one of them running, and images with tags, without, and by digest alone."""
    host: str = (
        request.getfixturevalue("docker_host")
        if request.param == "20.10"
        else request.getfixturevalue("systemd_host").docker
    )
    docker = ("docker", "-H", host)
    lab.run(*docker, "load", "-i", Path("fixtures/hello.tar"))
    contexts = tmp_path_factory.mktemp("contexts")
    ids = [
        built(contexts / "tagged", host, "image=yes", "of='a b'", tags=("lab/select:2", "lab/select:1")),
        built(contexts / "bare", host, "image=yes"),
        built(contexts / "also-bare", host, "image=yes", "of=nobody"),
    ]
    for name, labels in CONTAINERS.items():
        given = [word for label in labels for word in ("--label", label)]
        lab.run(*docker, "create", "--name", name, *given, "lab/select:1")
    lab.run(*docker, "start", "lab-select-b")
    # A link gives lab-select-a a second name, lab-select-d/other.
    lab.run(*docker, "create", "--name", "lab-select-d", "--link", "lab-select-a:other", "lab/select:1")
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    try:
        yield host
    finally:
        os.environ.pop("DOCKER_HOST")
        if before is not None:
            os.environ["DOCKER_HOST"] = before
        lab.run(*docker, "rm", "-f", *CONTAINERS, "lab-select-d")
        lab.run(*docker, "rmi", "-f", *dict.fromkeys(ids))


def sources(entries: Entries) -> list[str]:
    return [entry.source for entry in entries.entries]


def test_containers_by_label(engine: str) -> None:
    both = ["container:lab-select-a", "container:lab-select-b"]
    assert sources(select(containers=True, images=False, labels=["select=yes"])) == both
    assert sources(select(containers=False, images=False, labels=["select"])) == both
    assert sources(select(containers=False, images=False, labels=["select", "tier=web"])) == both[1:]
    with pytest.raises(ConversionError, match=r"the Docker daemon has no container with select=no, tier$"):
        select(containers=True, images=False, labels=["select=no", "tier"])


def test_all_containers_are_those_of_ps(engine: str) -> None:
    """Running or not; each once, however many names it has."""
    listed = lab.run("docker", "-H", engine, "ps", "-a", "--no-trunc", "--format", "{{.ID}}").stdout.split()
    found = select(containers=True, images=False)
    assert len(sources(found)) == len(set(sources(found))) == len(listed)
    assert {f"container:{name}" for name in (*CONTAINERS, "lab-select-d")} <= set(sources(found))
    inspected = lab.run(
        "docker",
        "-H",
        engine,
        "inspect",
        "--format",
        "{{.Id}}",
        *(s.partition(":")[2] for s in sources(found)),
    )
    assert sorted(inspected.stdout.split()) == sorted(listed)


def test_images_once_and_without_names_not_at_all(engine: str) -> None:
    found = select(containers=False, images=True, labels=["image=yes"])
    assert sources(found) == ["docker-daemon:lab/select:1"]
    assert found.messages == (
        "2 images have neither a tag nor a digest to be named by, and will not be converted",
    )
    assert select(containers=False, images=True, labels=["of=a b"]).messages == ()
    with pytest.raises(
        ConversionError, match=r"the Docker daemon has no image with of=nobody; 1 image has neith"
    ):
        select(containers=False, images=True, labels=["of=nobody"])


def test_an_image_that_only_its_digest_names(engine: str, plain_registry: lab.Registry, work: Path) -> None:
    if engine != "unix:///var/run/docker.sock":
        return  # that engine is in a network of its own, where this registry is not
    docker = ("docker", "-H", engine)
    name = f"{plain_registry.address}/lab/digest"
    lab.run(*docker, "tag", "lab/select:1", f"{name}:1")
    lab.run(*docker, "push", f"{name}:1")
    digests = lab.run(*docker, "inspect", "-f", '{{join .RepoDigests " "}}', f"{name}:1").stdout
    (named,) = [word for word in digests.split() if word.startswith(f"{name}@")]
    lab.run(*docker, "rmi", f"{name}:1")  # with its name by digest
    lab.run(*docker, "pull", named)
    lab.run(*docker, "rmi", "lab/select:1", "lab/select:2")
    try:
        found = select(containers=False, images=True, labels=["id=tagged"])
        assert sources(found) == [f"docker-daemon:{named}"] and found.messages == ()
        (job,) = jobs_of(found, Options(root=work / "select-digest")).jobs
        assert conversion.plan(job.source, job.options, Silent()).name == job.name
    finally:
        image = lab.run(*docker, "inspect", "-f", "{{.Image}}", "lab-select-a").stdout.strip()
        for tag in ("lab/select:1", "lab/select:2"):
            lab.run(*docker, "tag", image, tag)
        lab.run(*docker, "rmi", named)


def test_what_is_selected_can_be_converted(engine: str, work: Path) -> None:
    found = select(containers=True, images=True, labels=["id=tagged"])
    made = jobs_of(found, Options(root=work / "select"))
    names = ["lab-select-a", "lab-select-b", "lab-select-c", "lab-select-d", "select-1"]
    assert [job.name for job in made.jobs] == names and not made.failed
    for job in made.jobs:
        assert conversion.plan(job.source, job.options, Silent()).name == job.name
    assert made.jobs[0].where == "container:lab-select-a"


def test_errors_are_one_line(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--label '=x' has no key; write KEY=VALUE, or KEY"):
        select(containers=True, images=False, labels=["=x"])
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(ConversionError, match=r"^no Docker daemon: ") as caught:
        select(containers=True, images=True)
    assert "\n" not in str(caught.value)
