"""provision.sh as text: every shell reads it, shellcheck accepts it, and what it holds as data stays data."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.dockerfile.blocks import Brought, account, owner
from converter.dockerfile.finding import expressions, globs
from converter.dockerfile.labels import file_name, source_label
from converter.dockerfile.model import DockerfileError, ImageSource, Mount, StageSource, State
from converter.dockerfile.quoting import assignment, command, comment, data, one_line, quote
from converter.dockerfile.script import provision
from converter.image.model import ImageConfig
from tests import lab
from tests.recipes import Writer, recipe, write_script

_SHELLS = [shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "ash"]) if shutil.which(shell[0])]

# No NUL: nothing that Linux runs can have one.
_TEXT = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
        st.sampled_from("'\"\\$`\n !*~#&;|<>()-"),
        st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
    ),
    max_size=30,
)


def _said(shell: list[str], script: str) -> str:
    """What a shell makes of the words that `script` gives to printf."""
    done = subprocess.run(
        [*shell, "-c", script.encode("utf-8", "surrogateescape")], capture_output=True, check=True
    )
    return done.stdout.decode("utf-8", "surrogateescape")


@settings(max_examples=25, deadline=None)
@given(st.lists(_TEXT, min_size=1, max_size=6))
def test_quoted_words_are_read_back(words: list[str]) -> None:
    for shell in _SHELLS:
        for form in (quote, data):
            said = _said(shell, "printf '<%s>' " + " ".join(map(form, words)))
            assert said == "".join(f"<{word}>" for word in words)


@settings(max_examples=25, deadline=None)
@given(st.text(st.sampled_from("ab &|;'\\$\t\"-"), min_size=90, max_size=400))
def test_a_broken_command_is_one_word(text: str) -> None:
    for shell in _SHELLS:
        assert _said(shell, f"printf '<%s>' {command(text)}") == f"<{text}>"


@settings(max_examples=25, deadline=None)
@given(_TEXT)
def test_comments_run_nothing_and_are_seen(text: str) -> None:
    made = comment(text)
    assert all(line.startswith("#") and line.isprintable() for line in made.split("\n"))
    assert len(made.split("\n")) == text.count("\n") + 1
    assert one_line(text).isprintable()
    assert _said(_SHELLS[0], f"{made}\nprintf x") == "x"


def test_a_long_command_breaks_where_its_lines_were() -> None:
    text = "apt-get update && apt-get install -y --no-install-recommends     curl     ca-certificates  && rm -rf /x"
    assert command(text).split("\n")[1:] == ["'    curl '\\", "'    ca-certificates '\\", "' && rm -rf /x'"]


def test_assignments() -> None:
    assert assignment("A", "b c") == "A='b c'"
    assert assignment("a-b", "c") == "'a-b=c'"
    assert assignment("$(x)", "'") == "'$(x)='\\'''"


@pytest.mark.parametrize(
    ("user", "parts"),
    [
        ("", ("", "")),
        ("app", ("app", "")),
        ("app:www", ("app", "www")),
        ("root", ("root", "")),
        ("root:root", ("0", "0")),
        ("root:7", ("0", "7")),
        ("app:root", ("app", "root")),
        ("0007:+8", ("7", "8")),
        (":www", ("", "www")),
    ],
)
def test_users(user: str, parts: tuple[str, str]) -> None:
    assert account(user) == parts


def test_owners() -> None:
    assert owner("root") == ("0", "")
    assert owner("app:root") == ("app", "0")


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.txt", ["./a.txt", "./.txt"], ["./d/a.txt", "./a.txt.gz"]),
        ("**/*.txt", ["./a.txt", "./d/e/a.txt"], ["./a.txtx"]),
        ("/d/**", ["./d/e", "./d/e/f"], ["./d", "./e"]),
        ("a/**/z", ["./a/z", "./a/b/c/z"], ["./az"]),
        ("**/b/**/z", ["./b/z", "./a/b/c/z"], ["./ab/z", "./b/az"]),
        ("x+y?.[^a-c]", ["./x+yz.d"], ["./xxyz.d", "./x+yz.a"]),
        ("a.b", ["./a.b"], ["./axb"]),
    ],
)
def test_patterns_for_find(tmp_path: Path, pattern: str, matching: list[str], others: list[str]) -> None:
    for path in sorted((*matching, *others), key=len, reverse=True):  # what is in a directory makes it
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / path).exists():
            (tmp_path / path).touch()
    for find in [["find"]] + [["busybox", "find"]] * bool(shutil.which("busybox")):
        found: list[str] = []
        for expression in expressions([pattern]):
            command = [*find, ".", "-regex", expression]
            found += subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True, check=True
            ).stdout.split()
        assert set(matching) <= set(found)
        assert not set(others) & set(found)


@pytest.mark.parametrize(
    ("path", "directory", "patterns"),
    [
        ("/a/*.so", "/a", ["*.so", ".*.so"]),
        ("/a/b?", "/a", ["b?"]),
        ("/*/x y", "/", ["*/'x y'", ".*/'x y'"]),
        ("/a/[^a-c]\\*", "/a", ["[!a-c]'*'"]),
        ("/a/$(x)*", "/a", ["'$(x)'*"]),
    ],
)
def test_wildcards(path: str, directory: str, patterns: list[str]) -> None:
    found = globs(path)
    assert (found[0], [pattern.replace("''", "") for pattern in found[1]]) == (directory, patterns)


def test_what_a_script_cannot_look_for_is_an_error() -> None:
    for more in ({"exclude": ("*", "!a")}, {"exclude": ()}):
        source = "/a" if more["exclude"] else "/*" * 9
        stage = Writer().copy(source, to="/x/", origin=StageSource(0), **more).stage()
        with pytest.raises(DockerfileError, match=r"Dockerfile:2:1: a script cannot look for .*convert"):
            provision(stage, recipe(stage))


def test_names_for_files_lead_nowhere_else() -> None:
    for text in ("../../etc/passwd", "..", ".", "/", "", "a/b", "-x", "a\nb", "x" * 300, "\udcff"):
        name = file_name(text)
        assert "/" not in name and name not in {"", ".", ".."} and len(name) <= 64 and name.isprintable()
    assert file_name("npm-token.txt") == "npm-token.txt"
    assert len({file_name(text) for text in ("a/b", "a_b", "a b")}) == 3


def _everything() -> Writer:
    """A stage with every kind of block there is."""
    writer = Writer()
    writer.env(A="1", B="it's $x").run("echo a && echo b").env(A="2").workdir("/w w").run("/bin/x", "-a", "b")
    writer.copy("a", "b", to="/d/", chown="u:g", chmod="0600").copy("c", to="/e").copy(
        "d.tar", to="/", add=True
    )
    writer.copy("/x/*.y", "/z", to="/z/", origin=StageSource(0))
    writer.copy("/nginx.conf", to="/etc/", origin=ImageSource("docker.io/library/nginx:1.25"))
    writer.setting("USER app:www", user="app:www").run("/dev/pipes/EOF", script=b"#!/bin/sh\nid\n")
    mounts = (
        Mount("bind", "/m", read_only=True),
        Mount("bind", "/n", source="/s", origin=StageSource(0)),
        Mount("cache", "/c", id="c d", origin=StageSource(0), source="/k"),
        Mount("tmpfs", "/t"),
        Mount("secret", "/s", id="s", required=True, uid=3),
        Mount("secret", None, id="t", env="T"),
        Mount("ssh", None),
    )
    writer.run("make", mounts=mounts, network="none", insecure=True)
    for text in (
        "EXPOSE 80",
        "CMD x",
        "LABEL a=b",
        "VOLUME /v",
        "STOPSIGNAL 9",
        "HEALTHCHECK NONE",
        "ONBUILD RUN x",
    ):
        writer.setting(text)
    writer.setting("ARG x", args=(("x", "y"),)).run("true").setting("ARG gone", args=()).run("true")
    return writer


_COPIES = {6: [Brought("a"), Brought("b")], 7: [Brought("c")], 8: [Brought("d.tar", "-xf")]}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    build = Writer().run("make").stage(name="build")
    return write_script(_everything(), tmp_path, build, copies=_COPIES)


def test_every_shell_reads_it(whole: Path) -> None:
    for shell in _SHELLS:
        subprocess.run([*shell, "-n", whole], check=True)


def _shellcheck(*paths: Path) -> None:
    if shutil.which("shellcheck") is None and not lab.switched_on():
        pytest.skip("there is no shellcheck here: install it to check the scripts")
    done = subprocess.run(
        ["shellcheck", "-S", "warning", *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_accepts_it(whole: Path) -> None:
    _shellcheck(whole)
    assert "shellcheck disable" not in whole.read_text()


def test_shellcheck_accepts_hostile_values(tmp_path: Path) -> None:
    hostile = "'\"\\$(id)`id`\n# shellcheck disable=SC1\n;rm -rf /\r\x01é -n"
    writer = (
        Writer(State(), file=f"D{hostile}").variables({"A": hostile, hostile: "b"}).workdir(f"/{hostile}")
    )
    writer.run("/bin/x", hostile, text=f"RUN {hostile}").setting(f"USER {hostile}", user=hostile).run(hostile)
    writer.copy(hostile, to=f"/{hostile}", chown=hostile, chmod=hostile)
    writer.copy(f"{hostile}*", to="/x", origin=ImageSource(hostile))
    mount = Mount("cache", f"/{hostile}", id=hostile, origin=ImageSource(hostile), source=hostile)
    writer.run("true", mounts=(mount, Mount("secret", None, id=hostile, env=hostile)), text=f"RUN {hostile}")
    script = write_script(writer, tmp_path, copies={6: [Brought(hostile)]})
    for shell in _SHELLS:
        subprocess.run([*shell, "-n", script], check=True)
    _shellcheck(script)


def test_only_what_is_used_is_in_it(tmp_path: Path) -> None:
    text = write_script(Writer().run("true"), tmp_path).read_text()
    assert "run()" in text and "account()" in text
    for name in ("copy", "with_cache", "unpack", "own", "directory", "hold"):
        assert f"{name}()" not in text
    assert "unshare" not in text and "#[" not in text
    assert "env_" not in write_script(Writer().env(A="b"), tmp_path).read_text().split("# FROM", 1)[1]


def test_the_blocks_say_what_they_come_from(whole: Path) -> None:
    text = whole.read_text()
    assert (
        "# Step 2, Dockerfile:3\n#   RUN echo a && echo b\nif step 2 Dockerfile:3 'RUN echo a && echo b'; then\n"
        in text
    )
    assert "    run env_1 /bin/sh -c 'echo a && echo b'\nfi\n" in text
    assert "env_1() { env_0 A='1' B='it'\\''s $x' \"$@\"; }" in text
    assert "env_3() { env_1 A='2' \"$@\"; }" in text
    assert "dir='/w w'" in text
    assert "#   EXPOSE 80\n# went to the settings file and its notes" in text
    assert text.count("\nenv_") == len(
        {line.split("(")[0] for line in text.splitlines() if line.startswith("env_")}
    )


def test_it_lists_its_steps_and_explains_itself(whole: Path) -> None:
    for shell in _SHELLS:
        listed = subprocess.run([*shell, whole, "--list"], capture_output=True, text=True, check=True).stdout
        assert listed.splitlines()[0] == "   2  Dockerfile:3  RUN echo a && echo b"
        shown = subprocess.run([*shell, whole, "--help"], capture_output=True, text=True, check=True).stdout
        assert shown.startswith("Made by docker2nspawn from Dockerfile, stage 1: FROM base, ")
        assert "--from STEP" in shown and "set -eu" not in shown
        for wrong in ("--from", "--from=x", "--nonsense"):
            done = subprocess.run([*shell, whole, wrong], capture_output=True, text=True, check=False)
            assert done.returncode == 1 and "see --" in done.stderr


def test_it_runs_as_who_it_is_without_root(tmp_path: Path) -> None:
    """A USER that we are already needs no program to become it."""
    user = f"{os.getuid()}:{os.getgid()}"
    base = (("PATH", os.environ["PATH"]), ("HOME", str(tmp_path)))
    writer = Writer(State(env=base, user=user, working_directory=str(tmp_path)))
    writer.setting("ARG X", args=(("X", "from arg"),)).variables({"Y": "a\n'b'", "é\udcff": "\udcfe"})
    writer.run("/usr/bin/env", "-0", text="RUN env").run("echo $X >x; readlink /proc/self/fd/0 >in; exit 7")
    config = ImageConfig(
        env=tuple(f"{name}={value}" for name, value in base), user=user, working_dir=str(tmp_path)
    )
    stage = writer.stage(base_config=config)
    script = tmp_path / "provision.sh"
    script.write_bytes(provision(stage, recipe(stage)).encode("utf-8", "surrogateescape"))
    for shell in _SHELLS:
        done = subprocess.run(
            [*shell, script], capture_output=True, check=False, env={"PATH": os.environ["PATH"], "LOST": "1"}
        )
        assert done.returncode == 7
        seen = done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
        assert sorted(seen) == sorted(["X=from arg", "Y=a\n'b'", "é\udcff=\udcfe", *config.env])
        assert (tmp_path / "x").read_text() == "from arg\n"
        assert (tmp_path / "in").read_text() == "/dev/null\n"
        assert b"Dockerfile:5: step 4 failed with exit status 7: RUN echo $X" in done.stderr


def test_labels_of_images_are_no_stages() -> None:
    stage = Writer().stage(name="image")
    made = recipe(stage)
    assert source_label(StageSource(0), made) == "image"
    assert source_label(ImageSource("debian"), made) == "image=debian"
    assert "/" not in source_label(ImageSource("../../x"), made)
