"""What is written into a settings file comes back out of systemd-nspawn: of a model of its reader, and of itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from converter.errors import ConversionError
from converter.image.model import this_platform
from converter.machine.launcher import LAUNCHER_PATH, launcher_arguments, launcher_for
from converter.machine.model import Bind, Machine
from converter.machine.settings import (
    environment_expressible,
    expressible,
    hostname_expressible,
    ignored_untrusted,
    path_expressible,
    quote_word,
    render,
)

AWKWARD = st.sampled_from("\t\r\v\f\1\x1b\x7f\x85 \"'\\#;%$=:é\u2028\ufeff\ufdd0\ufffe\U0010ffff\udc80\udcff")
LINE = st.text(AWKWARD | st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=30)
LINES = st.text(st.just("\n") | AWKWARD | st.characters(codec="utf-8", exclude_characters="\0"))


# --- a model of nspawn's reader: src/basic/fileio.c, src/shared/conf-parser.c, src/basic/extract-word.c ---


def read_settings(text: str) -> list[tuple[str, str, str]]:
    """(section, key, value) as config_parse finds them; raises where nspawn would not start the machine."""
    found: list[tuple[str, str, str]] = []
    section, continuation = "", ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\n").split("\n"):
        assert len(line.encode()) < 1024 * 1024, "Line too long"
        if line.lstrip(" \t").startswith(("#", ";")):
            continue
        line = continuation + line
        continuation = ""
        if (len(line) - len(line.rstrip("\\"))) % 2:
            continuation = line[:-1] + " "
            continue
        line = line.strip(" \t")
        assert not any(ord(c) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(c) <= 0xFDEF for c in line), (
            "not UTF-8 clean"
        )
        if line.startswith("["):
            assert line.endswith("]"), "Invalid section header"
            section = line[1:-1]
        elif line:
            key, equals, value = line.partition("=")
            assert equals, "Missing '='"
            found.append((section, key.strip(" \t"), value.strip(" \t")))
    return found


def read_words(value: str) -> list[str]:
    """extract_first_word with EXTRACT_UNQUOTE and EXTRACT_RETAIN_ESCAPE, to the end."""
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    for c in value:
        if quote:
            if c == quote:
                quote = ""
            else:
                assert word is not None
                word.append(c)
        elif c in " \t\n\r":
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = [] if word is None else word
            if c in "\"'":
                quote = c
            else:
                word.append(c)
    assert not quote, "unbalanced"
    return words if word is None else [*words, "".join(word)]


def values(text: str, wanted: str) -> list[str]:
    """All words of a list setting, over all its lines."""
    return [word for _, key, value in read_settings(text) if key == wanted for word in read_words(value)]


# --- without root ---


@given(st.lists(LINE))
@example(["mix\"'both", "", "trail\\", "\\", " ", "'", '"', "\"'\"'", "#", ";", "[Files]", "Bind=/:/host"])
def test_every_expressible_word_comes_back(words: list[str]) -> None:
    words = [word for word in words if expressible(word)]
    environment = [f"V{i}={word}" for i, word in enumerate(words)]
    text = render(Machine("m", parameters=tuple(words), environment=tuple(environment)), "heading")
    assert values(text, "Parameters") == words
    assert values(text, "Environment") == environment


@given(st.text(), LINE)
def test_whatever_stands_in_the_heading_it_is_one_comment(heading: str, word: str) -> None:
    text = render(Machine("m"), heading + word)
    assert text.startswith("# ")
    assert read_settings(text) == [("Exec", "Boot", "no")]
    assert len(text.splitlines()) == 4


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/bin/sh", "/bin/sh"),
        ("", '""'),
        ("two words", '"two words"'),
        ("it's", '"it\'s"'),
        ('say "hi"', "'say \"hi\"'"),
        ("trail\\", '"trail\\"'),
        ("mix\"'both", '"mix"\'"\'"\'both"'),
        ("#no comment", '"#no comment"'),
    ],
)
def test_a_person_can_read_the_quotes(word: str, quoted: str) -> None:
    assert quote_word(word) == quoted
    assert read_words(quote_word(word)) == [word]


@pytest.mark.parametrize(
    "word", ["a\nb", "a\rb", "a\0b", "\udc80", "\ud800", "\ufffe", "\U0001ffff", "\ufdd0"]
)
def test_what_no_settings_file_can_hold(word: str) -> None:
    assert not expressible(word)
    assert not environment_expressible(f"A={word}")
    with pytest.raises(ConversionError):
        render(Machine("m", parameters=("/bin/true", *[word] * 4)), "heading")


@pytest.mark.parametrize(
    "word", ["", "\x01", "\x1b[0m", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffd", "é" * 65535]
)
def test_what_looks_dangerous_and_is_not(word: str) -> None:
    assert expressible(word)


def test_what_the_kernel_takes_from_nobody() -> None:
    assert not expressible("é" * 65536)
    assert not environment_expressible("A=" + "x" * 131_070)
    assert environment_expressible("A=" + "x" * 131_069)


@pytest.mark.parametrize("name", ["A", "my.name", "with-dash", "1", "é ü", "%"])
def test_any_name_of_a_variable_will_do(name: str) -> None:
    assert environment_expressible(f"{name}=value")


@pytest.mark.parametrize("assignment", ["", "A", "=value", "A\nB=1"])
def test_what_is_no_assignment(assignment: str) -> None:
    assert not environment_expressible(assignment)


@pytest.mark.parametrize("name", ["web", "a.b.c", "A-B", "1", "127.0.0.1", "x" * 63])
def test_host_names_that_nspawn_takes(name: str) -> None:
    assert hostname_expressible(name)
    assert ("Exec", "Hostname", name) in read_settings(render(Machine("m", hostname=name), "heading"))


@pytest.mark.parametrize(
    "name", ["", "a_b", "-x", "x-", "x.", ".x", "a..b", "a-.b", "é", "x" * 64, "x" * 65, "h\n[Files]"]
)
def test_host_names_that_nspawn_does_not_take(name: str) -> None:
    assert not hostname_expressible(name)
    with pytest.raises(ConversionError, match="host name"):
        render(Machine("m", hostname=name), "heading")


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/", "/"),
        ("/srv/app", "/srv/app"),
        ("/srv//app/./", "/srv/app"),
        ("/srv/../bin", "/bin"),
        ("/two words", "/two words/"),
        ("/trail ", "/trail /"),
        ("/back\\", "/back\\/"),
        ('/"quoted"', '/"quoted"/'),
    ],
)
def test_working_directory(path: str, written: str) -> None:
    text = render(Machine("m", working_directory=path), "heading")
    assert ("Exec", "WorkingDirectory", written) in read_settings(text)


@pytest.mark.parametrize(
    "path", ["", "srv", "/a\nBind=/:/host", "/a\rb", "/\udcff", "/" + "x" * 256, "/x" * 2048]
)
def test_paths_that_nspawn_would_skip(path: str) -> None:
    assert not path_expressible(path)
    with pytest.raises(ConversionError, match="working directory"):
        render(Machine("m", working_directory=path), "heading")


def test_dot_dot_is_not_a_path_as_it_stands() -> None:
    assert not path_expressible("/srv/../bin")
    assert path_expressible("/srv/..bin")


@pytest.mark.parametrize(
    "machine",
    [
        Machine("m", kill_signal="SIGTERM\n[Files]\nBind=/:/host"),
        Machine("m", environment=("A=1\nBind=/",)),
        Machine("m", binds=(Bind("/a\n", "/b"),)),
        Machine("m", timezone="off\\"),
        Machine("m", resolv_conf="off "),
    ],
)
def test_nothing_can_write_a_line_of_its_own(machine: Machine) -> None:
    with pytest.raises(ConversionError, match="cannot hold"):
        render(machine, "heading")


def test_a_long_command_line_is_several_lines() -> None:
    words = tuple("x" * 131_000 for _ in range(12))
    text = render(Machine("m", parameters=words), "heading")
    assert text.count("\nParameters=") > 1
    assert tuple(values(text, "Parameters")) == words
    assert render(Machine("m", parameters=("a", "b c")), "heading").count("Parameters=") == 1


FULL = Machine(
    "web",
    parameters=("/bin/sh", "-c", "echo 'a b'"),
    environment=("PATH=/bin", "A=x y"),
    working_directory="/srv",
    kill_signal="SIGTERM",
    hostname="web",
    drop_capability=("CAP_SYS_ADMIN", "CAP_SYS_BOOT"),
    no_new_privileges=True,
    private_users="no",
    resolv_conf="copy-host",
    timezone="off",
    link_journal="no",
    binds=(
        Bind("+/keep/a:b", "/run/a:b"),
        Bind("/s ", "/d ", read_only=True),
        Bind("/i", "/i", options="idmap"),
    ),
    virtual_ethernet=False,
)


def test_the_whole_file() -> None:
    assert render(FULL, "From docker-archive:web.tar") == (
        "# From docker-archive:web.tar\n"
        "\n"
        "[Exec]\n"
        "Boot=no\n"
        "Parameters=/bin/sh -c \"echo 'a b'\"\n"
        "WorkingDirectory=/srv\n"
        "Environment=PATH=/bin\n"
        'Environment="A=x y"\n'
        "KillSignal=SIGTERM\n"
        "Hostname=web\n"
        "DropCapability=CAP_SYS_ADMIN CAP_SYS_BOOT\n"
        "NoNewPrivileges=yes\n"
        "PrivateUsers=no\n"
        "ResolvConf=copy-host\n"
        "Timezone=off\n"
        "LinkJournal=no\n"
        "\n"
        "[Files]\n"
        "Bind=+/keep/a\\:b:/run/a\\:b\n"
        "BindReadOnly=/s :/d :\n"
        "Bind=/i:/i:idmap\n"
        "\n"
        "[Network]\n"
        "VirtualEthernet=no\n"
    )


def test_what_an_untrusted_file_loses() -> None:
    assert ignored_untrusted(FULL) == (
        "PrivateUsers",
        "LinkJournal",
        "Bind",
        "BindReadOnly",
        "VirtualEthernet",
    )
    assert ignored_untrusted(Machine("m", environment=("Bind=1",), drop_capability=("CAP_SYS_BOOT",))) == ()


# --- with systemd-nspawn itself ---


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with busybox and the launcher, and files below /keep to be bound."""
    root = tmp_path_factory.mktemp("machines") / "settings"
    for directory in ("usr", "bin", LAUNCHER_PATH.rpartition("/")[0].lstrip("/")):
        (root / directory).mkdir(parents=True, exist_ok=True)
    shutil.copy(shutil.which("busybox") or "busybox", root / "bin/busybox")
    for applet in ("sh", "cat", "pwd", "ls"):
        (root / "bin" / applet).symlink_to("busybox")
    launcher = launcher_for(this_platform().architecture)
    assert launcher is not None
    (root / LAUNCHER_PATH.lstrip("/")).write_bytes(launcher)
    (root / LAUNCHER_PATH.lstrip("/")).chmod(0o755)
    return root


def start(tree: Path, text: str) -> subprocess.CompletedProcess[bytes]:
    """Run the machine with this settings file."""
    tree.with_name(f"{tree.name}.nspawn").write_text(text, encoding="utf-8")
    command = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--console=pipe",
        "--settings=trusted",
    ]
    return subprocess.run(
        [*command, "--directory", tree],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


# Prints PID 1's own command line and environment as the kernel keeps them.
_SHOW = ("/bin/sh", "-c", "/bin/cat /proc/1/cmdline; echo -n '\x02\x03'; /bin/cat /proc/1/environ; :", "sh")


def seen(tree: Path, machine: Machine) -> tuple[list[bytes], list[bytes]]:
    """The arguments after _SHOW's own, and the environment, inside."""
    done = start(tree, render(machine, "heading"))
    assert done.returncode == 0, done.stderr
    arguments, _, environment = done.stdout.partition(b"\0\2\3")
    return arguments.split(b"\0")[len(_SHOW) :], environment.split(b"\0")[:-1]


def raw(words: list[str]) -> list[bytes]:
    return [word.encode("utf-8", "surrogateescape") for word in words]


def inside(tree: Path, words: list[str], *, launcher: bool) -> tuple[list[bytes], list[bytes]]:
    """The words as they arrive as arguments, and as values of variables (V0=, V1=, …)."""
    assignments = tuple(f"V{i}={word}" for i, word in enumerate(words))
    if launcher:
        parameters = launcher_arguments(uid=0, gid=0, groups=(0,), setenv=assignments, argv=(*_SHOW, *words))
        machine = Machine("m", parameters=parameters)
    else:
        machine = Machine("m", parameters=(*_SHOW, *words), environment=assignments)
    arguments, environment = seen(tree, machine)
    own = [entry.partition(b"=")[2] for entry in environment if entry[:1] == b"V" and entry[1:2].isdigit()]
    return arguments, own


ONE_RUN_IS_SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.lab
@ONE_RUN_IS_SLOW
@given(st.lists(LINE, min_size=150, max_size=300))
def test_any_list_of_strings_comes_back_out_of_nspawn(tree: Path, words: list[str]) -> None:
    native = [word for word in words if expressible(word)]
    assert inside(tree, native, launcher=False) == (raw(native), raw(native))
    assert inside(tree, words, launcher=True) == (raw(words), raw(words))


@pytest.mark.lab
@ONE_RUN_IS_SLOW
@given(st.lists(LINES, min_size=100, max_size=200))
def test_newlines_too_through_the_launcher(tree: Path, words: list[str]) -> None:
    assert inside(tree, words, launcher=True) == (raw(words), raw(words))


@pytest.mark.lab
def test_every_character_comes_back_out_of_nspawn(tree: Path) -> None:
    characters = [
        chr(code)
        for code in (*range(1, 0x300), *range(0x2000, 0x2070), 0xFDCF, 0xFDF0, 0xFEFF, 0xFFFD, 0x10FFFD)
    ]
    native = [c for c in characters if expressible(c)]
    assert set(characters) - set(native) == {"\n", "\r"}
    assert inside(tree, native, launcher=False) == (raw(native), raw(native))
    assert inside(tree, characters, launcher=True) == (raw(characters), raw(characters))


@pytest.mark.lab
def test_any_name_of_a_variable_comes_back_out_of_nspawn(tree: Path) -> None:
    own = ["my.name=1", "with-dash=2", "7=3", "é ü=4", '"=5', "\\=6", "#=7"]
    assert all(map(environment_expressible, own))
    _, environment = seen(tree, Machine("m", parameters=_SHOW, environment=tuple(own)))
    assert set(raw(own)) <= set(environment)


@pytest.mark.lab
@pytest.mark.parametrize("word", ["\ufffe", "\U0010ffff", "\ufdd0", "x" * 1024 * 1024])
def test_what_stops_a_machine_really_does(tree: Path, word: str) -> None:
    done = start(tree, f'[Exec]\nBoot=no\nParameters=/bin/cat /proc/version\nEnvironment="A={word}"\n')
    assert done.returncode != 0
    assert b"Failed to parse file" in done.stderr or b"Line too long" in done.stderr


@pytest.mark.lab
@pytest.mark.parametrize("character", ["\r", "\0"])
def test_what_ends_a_line_really_does(tree: Path, character: str) -> None:
    text = f'[Exec]\nBoot=no\nParameters=/bin/cat /proc/self/environ\nEnvironment="A=1{character}2"\n'
    done = start(tree, text)
    assert done.returncode == 0
    assert b"ignoring" in done.stderr
    assert b"A=1" not in done.stdout.split(b"\0")


@pytest.mark.lab
@pytest.mark.parametrize(
    "path", ["/two words", "/trail ", "/back\\", '/"quoted"', "/tab\t", "/a:b", "/per%n"]
)
def test_paths_come_back_out_of_nspawn(tree: Path, path: str) -> None:
    assert path_expressible(path)
    kept = tree / "keep" / path[1:]
    for directory in (tree / path[1:], kept):
        directory.mkdir(parents=True)
    (kept / "kept").touch()
    machine = Machine(
        "m",
        parameters=("/bin/sh", "-c", "pwd; ls"),
        working_directory=path,
        binds=(Bind(f"+/keep{path}", path),),
        private_users="no",
    )
    done = start(tree, render(machine, "heading"))
    assert (done.returncode, os.fsdecode(done.stdout)) == (0, f"{path}\nkept\n"), done.stderr


@pytest.mark.lab
def test_what_nspawn_skips_is_what_is_refused_here(tree: Path) -> None:
    text = "[Exec]\nBoot=no\nParameters=/bin/pwd\n"
    for line in (
        "Hostname=a_b",
        "Hostname=x.",
        "WorkingDirectory=/bin/../usr",
        f"WorkingDirectory=/{'x' * 256}",
    ):
        done = start(tree, f"{text}{line}\n")
        assert (done.returncode, done.stdout) == (0, b"/\n")
        assert b"ignoring" in done.stderr
    assert start(tree, f"{text}Hostname=a.b-c\nWorkingDirectory=/bin\n").stdout == b"/bin\n"
