"""The list of a batch: its two forms, where errors are, and which jobs it comes to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import typer.main
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from converter import cli, conversion
from converter.batch import yaml_form
from converter.batch.entry import Entries, Entry
from converter.batch.jobs import Jobs, jobs_of
from converter.batch.listing import UsageError, read_list
from converter.batch.options import with_settings
from converter.errors import ConversionError
from converter.image.reference import Reference, check_machine_name, machine_name
from converter.machine.model import Port
from converter.options import Options
from converter.result import Result

ROOT = Path(__file__).parent.parent
PROPERTIES: dict[str, Any] = dict(yaml_form.SCHEMA["$defs"]["machine"]["properties"])
HINTS = get_type_hints(cli.convert_command, include_extras=True)
# Long name of each option of convert -> its type, and what the command line says of it; typer keeps an Option's first
# name as its default.
IN_A_BATCH: dict[str, tuple[Any, Any]] = {
    [hint.__metadata__[0].default, *hint.__metadata__[0].param_decls][-1].removeprefix("--"): get_args(hint)
    for name, hint in HINTS.items()
    if name not in {"source", "as_json", "debug_shell", "return"}
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entries(text: str | bytes, name: str = "list.yaml") -> Entries:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_list(name)


def jobs(text: str, name: str = "list.yaml", **options: Any) -> Jobs:
    return jobs_of(entries(text, name), Options(root=Path.cwd() / "root", **options))


def refused(text: str | bytes, name: str = "list.yaml") -> str:
    with pytest.raises(UsageError) as caught:
        jobs_of(entries(text, name), Options(root=Path.cwd() / "root"))
    return str(caught.value)


def found(text: str, name: str = "list.txt") -> list[tuple[str, str, str | None]]:
    """Where, source and own name of each entry."""
    return [
        (one.where, one.source, str(one.settings["name"].value) if one.settings else None)
        for one in entries(text, name).entries
    ]


# ---- the text form


def test_a_line_has_a_source_and_perhaps_a_name(here: Path) -> None:
    text = "\ufeff# machines\r\n\r\n  debian:12\r\ndocker://a/b#c  web # the site\n\t'my images/a.tar' \"b\"#c\n# end"
    with pytest.raises(UsageError, match=r'^list\.txt:5:23: after the " there must be a space$'):
        found(text)
    assert found(text.replace('"b"#c', '"b" #c')) == [
        ("list.txt:3", "debian:12", None),
        ("list.txt:4", "docker://a/b#c", "web"),
        ("list.txt:5", "my images/a.tar", "b"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n\nb  c d e", "list.txt:3:6: a line takes a source and a name, no more"),
        ("a 'b", "list.txt:1:3: this ' has no other one that ends the word"),
        ('a ""', "list.txt:1:3: there is nothing between the quotes"),
        ("", "list.txt:1:1: there is nothing in it"),
        ("# a\n \n", "list.txt:1:1: there is nothing in it"),
        ("ä \x00", r"list.txt:1:3: the character '\x00' is no text"),
        ("a\rb", r"list.txt:1:2: the character '\r' is no text"),
        ("a b\nc B_\n", "list.txt:2:3: 'B_' cannot be a machine's name"),
        ("a\n" * 100_001, "list.txt:1:1: more than 100000 machines"),
    ],
)
def test_wrong_text(here: Path, text: str, message: str) -> None:
    assert refused(text, "list.txt").startswith(message)


def test_what_is_not_utf8(here: Path) -> None:
    for name in ("list.txt", "list.yaml"):
        said = refused("\ufeffä: [\n ö".encode() + b"\xe4]", name)
        assert said.startswith(f"{name}:2:3: the byte 0xe4 is not UTF-8")


@pytest.mark.parametrize("name", ["none", "folder", "a\0b", "/dev/zero"])
def test_what_cannot_be_read(here: Path, name: str) -> None:
    Path("folder").mkdir()
    with pytest.raises(UsageError):
        read_list(name)


def test_standard_input_and_pipes(here: Path) -> None:
    program = (
        "import sys; from converter.batch.listing import read_list; print(read_list(sys.argv[1]).entries[0])"
    )
    for name in ("-", "/dev/stdin"):
        for text in ("web", "machines: [web]"):
            done = subprocess.run(
                [sys.executable, "-c", program, name],
                input=text,
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            where = "standard input:1" if name == "-" else "stdin:1"
            assert f"where='{where}', source='web'" in done.stdout
    closed = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" - <&-', sys.executable, program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "there is no standard input to read the list from" in closed.stderr


# ---- the YAML form


def test_values_arrive_as_they_were_written(here: Path) -> None:
    (job, other) = jobs("""
defaults: {network: private, publish: [1:1], hardening: strict, force: on}
machines:
  - source: docker://ghcr.io/acme/web:1.2
    name: 1.10
    publish: [8080:80, 22:22, 443, "53:53/udp"]
    network: none
    max-size: 20G
    max-entries: 07
    no-trust: Yes
    force: false
    volumes: 'none'
  - container:db
""").jobs
    assert job.options == Options(
        name="1.10",
        root=here / "root",
        trust=False,
        network="none",
        ports=(Port(80, 8080, "tcp", ""), Port(22, 22, "tcp", ""), Port(443, 443, "tcp", ""), Port(53, 53, "udp", "")),
        max_size=20 << 30,
        max_entries=7,
        volumes="none",
        hardening="strict",
    )  # fmt: skip
    assert (job.number, job.where, job.source) == (0, "list.yaml:4", "docker://ghcr.io/acme/web:1.2")
    assert (other.number, other.where, other.name) == (1, "list.yaml:13", "db")
    assert (other.options.ports, other.options.force) == ((Port(1, 1, "tcp", ""),), True)


@pytest.mark.parametrize(
    "word", ["no", "on", "1.10", "0x1F", "22:22", "2001-01-01", "1e3", "1_000", "-", "0o7"]
)
def test_no_word_becomes_something_else(here: Path, word: str) -> None:
    (entry,) = entries(f"machines: [{{source: a, mirror: {word}, build-arg: [{word}]}}]").entries
    assert entry.settings["mirror"].value == word
    assert entry.settings["build-arg"].value == (word,)


MACHINE = "machines:\n- source: a\n  "
WRONG = {
    "machine:\n- a\n": "1:1: 'machine' is not among a list's keys; did you mean machines?",
    "- a\n- b": "1:1: a list in YAML is a mapping with machines",
    "defaults: {force: true}": "1:1: there are no machines in it",
    "# nothing": "1:1: there is nothing in it",
    "---\n": "1:1: there is nothing in it",
    "machines: []": "1:11: there is nothing in it",
    "defaults:\nmachines:\n": "2:10: there is nothing in it",
    "machines: web": "1:11: machines takes a list",
    "machines: {a: b}": "1:11: machines takes a list",
    "machines: [a, ]\nwhat: 1": "2:1: 'what' is not among a list's keys; there are defaults, machines",
    "defaults: [a]\nmachines: [a]": "1:11: defaults takes a mapping",
    "defaults: {name: x}\nmachines: [a]": "1:12: 'name' is not among what defaults may have; a name is one machine's",
    "machines:\n-\n": "2:2: a machine is its source, or a mapping with its options",
    "machines:\n- a\n- [b]": "3:3: a machine is its source, or a mapping with its options",
    "machines:\n- ''": "2:3: machines is empty",
    "machines:\n- name: a\n": "2:3: this machine has no source",
    f"{MACHINE}source: b": "3:3: 'source' is there twice; it is in line 2 already",
    f"{MACHINE}publich: [80]": "3:3: 'publich' is not among a machine's options; did you mean publish?",
    f"{MACHINE}build_arg: [a]": "3:3: 'build_arg' is not among a machine's options; did you mean build-arg?",
    f"{MACHINE}json: true": "3:3: 'json' is not among a machine's options; a batch has one report",
    f"{MACHINE}debug-shell: true": "3:3: 'debug-shell' is not among a machine's options; nobody sits before a batch",
    f"{MACHINE}publish: 80": '3:12: publish takes a list; write it like ["8080:80"]',
    f"{MACHINE}publish: {{a: b}}": "3:12: publish takes a list",
    f"{MACHINE}publish: [1, [2]]": '3:16: each value of publish is a text; write it like "8080:80"',
    f"{MACHINE}publish: [1, {{}}]": "3:16: each value of publish is a text",
    f"{MACHINE}publish: [80, 99999]": "3:17: '99999' is no port to publish",
    f"{MACHINE}publish:": "3:11: publish has no value",
    f"{MACHINE}platform: a/b/c/d": "3:13: 'a/b/c/d' is not a platform",
    f"{MACHINE}name: [a]": '3:9: name takes a text; write it like "web"',
    f"{MACHINE}name: ~": "3:9: name has no value",
    f"{MACHINE}name: Ä": "3:9: 'Ä' cannot be a machine's name",
    f"{MACHINE}network: hots": "3:12: network is one of host, none, private, not 'hots'; did you mean host?",
    f"{MACHINE}force: maybe": "3:10: force takes true or false",
    f"{MACHINE}force: 'true'": "3:10: force takes true or false",
    f"{MACHINE}systemd: 251": "3:12: systemd is 252 at least, not 251",
    f"{MACHINE}systemd: 257.1": "3:12: systemd takes a whole number; write it like 257",
    f"{MACHINE}max-size: 20X": "3:13: '20X' is not what max-size takes; write it like \"20G\"",
    f"{MACHINE}max-size: -1": "3:13: '-1' is not what max-size takes",
    f"{MACHINE}secret: [x]": "3:12: 'x' is not what secret takes; write it like \"id=token,src=token.txt\"",
    f"{MACHINE}base: [debian]": "3:10: 'debian' is not what base takes",
    f"{MACHINE}build-arg: [=1]": "3:15: '=1' is not what build-arg takes",
    f'{MACHINE}mirror: "a\\0b"': "3:11: the character '\\x00' is no text",
    "machines:\n\t- a": "2:1: a tab before the text; YAML is indented with spaces",
    "machines:\n- a\n\t- b": "3:1: a tab before the text; YAML is indented with spaces",
    "machines:\n- @a": "2:3: a word cannot begin with '@'; put it in quotes",
    "machines:\n- a: b: c": "2:7: a ':' where none can be; put a value with ': ' in it in quotes",
    "machines:\n- name: a\n source: b": "3:2: while parsing a block mapping",
    "machines: ['a": "1:",
    "? [a]\n: b": "1:3: a key must be a word",
    "machines: [a]\n---\nb": "2:1: a second document",
    "machines: [*a]": "1:12: *a names nothing that ends before it",
    "machines: &a [*a]": "1:15: *a names nothing that ends before it",
    "machines: [!!python/object:os.system x]": "1:12: the tag 'tag:yaml.org,2002:python/object:os.system' means",
    "machines: [!!binary aGk=]": "1:12: the tag 'tag:yaml.org,2002:binary' means nothing",
    "machines: [<<: a]": "1:16: << takes a mapping",
    "machines: [[[[[[[[[": "1:18: more than 8 levels within each other",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_yaml(here: Path, text: str) -> None:
    assert refused(text).startswith(f"list.yaml:{WRONG[text]}")


def test_the_first_error_of_a_file_is_told(here: Path) -> None:
    assert refused(f"{MACHINE}systemd: x\n  force: 1\n- source: b\n  sauce: c\n").startswith(
        "list.yaml:3:12:"
    )


@pytest.mark.parametrize(
    "text",
    [
        "machines: [web]",
        '{"machines": ["web"]}',
        "# x\n\n---\nmachines:\n- web",
        "defaults: {}\nmachines: [web]",
    ],
)
def test_yaml_is_told_by_its_beginning_too(here: Path, text: str) -> None:
    assert [source for _, source, _ in found(text, "list")] == ["web"]


@pytest.mark.parametrize(
    "text", ["docker://web", "debian:12", "[::1]:5000/web", "-x", "a: b", "'machines:' b"]
)
def test_what_looks_a_little_like_yaml(here: Path, text: str) -> None:
    if text == "a: b":
        assert "is not among a list's keys" in refused(text, "list")
    else:
        assert found(text, "list")[0][1] == text.split(" ")[0].strip("'")


def test_anchors_aliases_and_merges(here: Path) -> None:
    made = jobs("""
machines:
  - &web {source: docker://web, network: host, publish: [80], name: a}
  - <<: *web
    name: b
    network: none
  - <<: [{strict: true}, {strict: false, source: docker://x}]
""").jobs
    assert [(job.source, job.name, job.options.network) for job in made] == [
        ("docker://web", "a", "host"),
        ("docker://web", "b", "none"),
        ("docker://x", "x", None),
    ]
    assert made[1].options.ports == (Port(80, 80, "tcp", ""),)
    assert made[2].options.strict


LAUGHS = "x: &a [{}]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
)
BOMBS: dict[str, Callable[[], str]] = {
    "billion laughs": lambda: LAUGHS + "machines: [*g, *g, *g, *g]",
    "wide laughs": lambda: "x: &a [" + "1," * 5000 + "]\nmachines: [" + "*a," * 5000 + "]",
    "merges": lambda: "machines:\n- &a {source: a}\n- <<: [" + "*a," * 500_000 + "]",
    "deep brackets": lambda: "machines: " + "[" * 500_000,
    "deep braces": lambda: "machines: " + "{a: " * 500_000,
    "deep dashes": lambda: "- " * 500_000,
    "deep questions": lambda: "? " * 500_000,
    "many machines": lambda: "machines:\n" + "- a\n" * 200_000,
    "many values": lambda: f"{MACHINE}publish: [" + "80," * 1_100_000 + "]",
    "many errors": lambda: "machines:\n" + "- {a: b}\n" * 100_000,
    "many keys": lambda: "machines:\n- " + "".join(f"a{i}: b\n  " for i in range(100_000)),
    "a long word": lambda: f"{MACHINE}network: " + "x" * (8 << 20),
    "a long key": lambda: f"{MACHINE}{'x' * (8 << 20)}: y",
    "more than 16 MiB": lambda: "machines: [a]\n" + "#" * (16 << 20),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_one_short_line_and_soon(here: Path, name: str) -> None:
    text = BOMBS[name]()
    began = time.process_time()
    said = refused(text)
    assert time.process_time() - began < 30
    assert len(said) < 2500 and "\n" not in said


def test_a_source_far_too_long_is_that_machines_failure(here: Path) -> None:
    made = jobs(f"{':' * 100_000}\nweb\n", "list.txt")
    assert [(one.number, one.reason) for one in made.failed] == [
        (0, "a source with 100000 characters; 8192 are the most")
    ]
    assert [(job.number, job.name) for job in made.jobs] == [(1, "web")]


WORDS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["machines", "defaults", "source", "publish", "name", "force", "<<", "~", "80:80", "x", "&a", "*a"]
)
TREES = st.recursive(
    WORDS | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)
KEYS = st.sampled_from([*PROPERTIES, "json", "sauce"])


@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | TREES.map(lambda tree: yaml.safe_dump(tree).encode())
    | st.builds(
        lambda defaults, machines: json.dumps({"defaults": defaults, "machines": machines}).encode(),
        st.dictionaries(KEYS, TREES, max_size=3) | TREES,
        st.lists(st.dictionaries(KEYS, TREES, max_size=3) | TREES, max_size=3) | TREES,
    ),
    st.sampled_from(["list", "list.yaml"]),
)
@example(b"- \xc2\x85", "list.yaml")
def test_any_bytes_are_a_list_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    try:
        jobs_of(read_list(str(path)), Options(root=path.parent / "root"))
    except UsageError as error:
        place = rf"{re.escape(str(path))}:\d+:\d+: " if error.place else ""
        assert re.match(rf"{place}.", str(error)) and "\n" not in str(error)


# ---- both forms are one


SOURCES = st.sampled_from(
    ["web", "web:1", "docker://web", "docker://ghcr.io/web", "container:web", "docker-daemon:web", "./none.tar", "NO"]
) | st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=20)  # fmt: skip
MACHINES = st.lists(
    st.tuples(SOURCES, st.none() | st.sampled_from(["web", "web-1", "db", "b1", "No_"])), min_size=1, max_size=8
)  # fmt: skip


def quoted(word: str) -> str:
    quote = "'" if '"' in word else '"'
    return f"{quote}{word}{quote}" if set(" \t") & set(word) or word.startswith(("#", "'", '"')) else word


@given(MACHINES)
def test_the_same_list_as_text_and_as_yaml_gives_the_same_jobs(
    tmp_path_factory: pytest.TempPathFactory, machines: list[tuple[str, str | None]]
) -> None:
    machines = [(source.replace("'", ""), name) for source, name in machines if source.replace("'", "")]
    lines = [" ".join(map(quoted, filter(None, machine))) for machine in machines]
    text = "# a list\n" + "\n".join(lines)
    document = {
        "machines": [{"source": s, "name": n} if n else s for s, n in machines],
    }
    base = Options(root=tmp_path_factory.getbasetemp() / "root")

    def result(name: str, data: str) -> object:
        path = tmp_path_factory.getbasetemp() / name
        path.write_text(data)
        try:
            made = jobs_of(read_list(str(path)), base)
        except UsageError as error:
            return re.sub(r"\S+\.(txt|yaml):[\d:]+", "", str(error))
        return [replace(job, where="") for job in made.jobs], made.failed, len(made.messages)

    if (
        machines
        and not lines[0].startswith(("{", "---", "%YAML"))
        and not re.match(r"\S+:(\s|$)|-\s", lines[0])
    ):
        by_text = result("a.txt", text)
        assert by_text == result("a.yaml", yaml.safe_dump(document, allow_unicode=True))
        assert by_text == result("b.yaml", json.dumps(document, ensure_ascii=False))


# ---- the schema


def test_the_published_schema_is_the_one_in_use() -> None:
    packaged = ROOT / "converter/batch/schema.json"
    assert (ROOT / "docs/batch.schema.json").read_bytes() == packaged.read_bytes()
    Draft202012Validator.check_schema(yaml_form.SCHEMA)


def test_the_schema_has_the_options_of_convert_and_no_more() -> None:
    assert set(PROPERTIES) == {*IN_A_BATCH, "source"}
    assert set(yaml_form.SCHEMA["properties"]["defaults"]["properties"]) == set(IN_A_BATCH) - {"name"}
    for key, (hint, option) in IN_A_BATCH.items():
        schema = PROPERTIES[key]
        kinds = {part for part in get_args(hint) if part is not type(None)} if get_args(hint) else {hint}
        if bool in kinds or int in kinds:
            assert schema["type"] == ("boolean" if bool in kinds else "integer"), key
        elif list[str] in kinds:
            assert schema["type"] == "array", key
        else:
            assert "string" in schema["type"], key
        literal = hint if get_origin(hint) is Literal else next(iter(kinds))
        assert schema.get("enum") == (list(get_args(literal)) if get_origin(literal) is Literal else None), (
            key
        )
        assert key == "max-size" or schema.get("minimum") == option.min, key
        assert schema["description"] and (bool in kinds or "enum" in schema or "examples" in schema), key


def test_the_documentation_has_every_key_and_its_example_can_be_read(here: Path) -> None:
    text = (ROOT / "docs/batch.md").read_text().partition("## The list")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(re.findall("`([a-z-]+)`", "".join(rows))) == sorted(PROPERTIES)
    lines, document = re.findall(r"```(?:yaml)?\n(.*?)```", text, re.DOTALL)[:2]
    assert [source for _, source, _ in found(lines)][-1] == "my images/shop.tar"
    Path("shop").mkdir()
    Path("shop/Dockerfile").write_text("FROM debian:12\n")
    assert [job.name for job in jobs(document).jobs] == ["web", "shop", "db"]


def test_examples_of_the_schema_are_valid_and_mean_what_the_command_line_means(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each option alone, as `convert --OPTION VALUE` and in a list."""
    seen: list[Options] = []

    def record(source: str, options: Options, progress: object) -> Result:
        seen.append(options)
        raise ConversionError("seen")

    monkeypatch.setattr(conversion, "convert", record)
    command = typer.main.get_command(cli.app)
    for key in IN_A_BATCH:
        schema = PROPERTIES[key]
        for value in schema.get("enum") or schema.get("examples") or [True]:
            flags = [] if value is True else [value[0] if isinstance(value, list) else str(value)]
            with pytest.raises(ConversionError, match="seen"):
                command(["convert", "dockerfile:.", f"--{key}", *flags], standalone_mode=False)
            document = {"machines": [{"source": "dockerfile:.", key: value}]}
            assert not list(yaml_form._VALIDATOR.iter_errors(document)), key
            for text in (json.dumps(document), yaml.safe_dump(document)):
                (entry,) = entries(text).entries
                mine = with_settings(Options(root=Path("/")), entry.settings)
                assert mine == replace(seen[-1], output=None), key
            if value is not True and key not in {"name", "root"}:
                plain = Options()
                assert mine != plain or mine == with_settings(plain, {}), key


# ---- jobs


def test_the_machine_then_defaults_then_the_command_line(here: Path) -> None:
    text = """
defaults: {network: host, publish: [1, 2], no-trust: true, root: other}
machines:
  - source: a
  - {source: b, network: none, publish: [3], no-trust: false}
  - {source: c, publish: []}
"""
    base = Options(root=here, network="private", strict=True, ports=(Port(9, 9, "tcp", ""),), trust=True)
    made = [job.options for job in jobs_of(entries(text), base).jobs]
    assert [options.network for options in made] == ["host", "none", "host"]
    assert [[port.port for port in options.ports] for options in made] == [[1, 2], [3], []]
    assert [options.trust for options in made] == [False, True, False]
    assert all(options.strict and options.root == here / "other" for options in made)


def test_what_defaults_say_of_builds_is_for_dockerfiles_only(here: Path) -> None:
    Path("Dockerfile").write_text("FROM debian:12\n")
    made = jobs("""
defaults: {build-arg: [A=1], no-cache: true}
machines:
  - {source: ., name: built}
  - docker://web
  - {source: docker://db, target: x}
""")
    assert [(job.number, job.name, job.options.build.build_args) for job in made.jobs] == [
        (0, "built", ("A=1",)),
        (1, "web", ()),
    ]
    assert [(one.number, one.reason) for one in made.failed] == [
        (2, "docker://db is no Dockerfile, and only for one there is something to build")
    ]


def test_a_wrong_source_stops_no_other(here: Path) -> None:
    made = jobs("./none.tar x\nweb\nUPPER\ndocker-daemon:db\n", "list.txt")
    assert [(job.number, job.source) for job in made.jobs] == [(1, "web"), (3, "docker-daemon:db")]
    assert [(one.number, one.name, one.source, one.state, one.reason) for one in made.failed] == [
        (0, "x", "./none.tar", "failed", "there is no file or folder './none.tar'"),
        (2, "", "UPPER", "failed", "'UPPER' is not an image name: repository names are lower case"),
    ]


def test_names_of_one_list_are_different(here: Path) -> None:
    made = jobs(
        "docker://a/web\ndocker://b/web\ncontainer:web\nother web-1\ndocker://web:1\n", "list.txt"
    ).jobs
    names = [job.name for job in made]
    assert names[0] == "web" and names[3] == "web-1" and len(set(names)) == 5
    assert re.fullmatch("web-[0-9a-f]{8}", names[1]) and re.fullmatch("web-1-[0-9a-f]{8}", names[4])
    again = jobs("docker://b/web\ndocker://a/web\n", "list.txt").jobs
    assert again[0].name == "web" and again[1].name != names[1]


def test_an_explicit_name_wins_wherever_it_stands(here: Path) -> None:
    first, second = jobs("docker://a/web\nother web\n", "list.txt").jobs
    assert second.name == "web" and first.name.startswith("web-")


def test_one_name_for_two_machines(here: Path) -> None:
    said = refused("a x\nb y\nc  x\n", "list.txt")
    assert said.startswith("list.txt:3:4: the name 'x' is that of another machine, at list.txt:1:3")
    said = refused("machines: [&a {source: a, name: x}, *a]")
    assert "the name 'x' is that of another machine" in said
    elsewhere = "machines:\n- {source: a, name: x}\n- {source: b, name: x, root: other}\n"
    assert [job.name for job in jobs(elsewhere).jobs] == ["x", "x"]


def test_the_same_machine_twice_is_one_job(here: Path) -> None:
    made = jobs("web\ndb\nweb\n./none\n./none\nweb x\n", "list.txt")
    assert [(job.number, job.name) for job in made.jobs] == [(0, "web"), (1, "db"), (3, "x")]
    assert [one.number for one in made.failed] == [2]
    assert made.messages == ("list.txt:3 is the same as list.txt:1", "list.txt:5 is the same as list.txt:4")


def test_the_same_source_with_other_options_is_another_job(here: Path) -> None:
    text = "machines:\n- web\n- {source: web, network: host}\n"
    assert len({job.name for job in jobs(text).jobs}) == 2
    said = refused(f"{text}- {{source: web, network: none}}\n")
    assert said.startswith("list.yaml:4: web would have the name of list.yaml:3; give it a name")


def recorded(root: Path, name: str, reference: str) -> None:
    """A machine that was made of `reference`."""
    (root / "var/lib/machines" / name).mkdir(parents=True)
    record = root / f"var/lib/docker2nspawn/machines/{name}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"reference": reference}))


@pytest.mark.parametrize("taken_by", ["docker://a/web", "docker-daemon:a/web"])
def test_a_second_run_gives_the_same_names(here: Path, taken_by: str) -> None:
    """Also of a bare image name, of which the record tells where it was."""
    text = "a/web\ndocker://b/web\n"
    names = [job.name for job in jobs(text, "list.txt").jobs]
    recorded(here / "root", names[0], taken_by)
    recorded(here / "root", names[1], "docker://b/web")
    assert [job.name for job in jobs(text, "list.txt").jobs] == names
    recorded(here / "root", "db", "docker://other/db")
    (job,) = jobs("docker://db", "list.txt").jobs
    assert re.fullmatch("db-[0-9a-f]{8}", job.name)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "web",
                    "docker://web",
                    "container:web",
                    "docker://x/web",
                    "docker://web:1",
                    "container:web-1",
                ]
            ),
            st.none() | st.integers(0, 50),
            st.booleans(),
        ),
        max_size=10,
    )
)
def test_names_are_unique_valid_and_told_by_the_list_alone(
    tmp_path_factory: pytest.TempPathFactory, machines: list[tuple[str, int | None, bool]]
) -> None:
    document = [
        {"source": source, "force": force} | ({"name": f"web-{number}"} if number is not None else {})
        for source, number, force in machines
    ]
    path = tmp_path_factory.getbasetemp() / "names.yaml"
    path.write_text(json.dumps({"machines": document or ["x"]}))
    base = Options(root=tmp_path_factory.getbasetemp() / "root")
    explicit = [number for _, number, _ in machines if number is not None]
    try:
        made = jobs_of(read_list(str(path)), base)
    except UsageError as error:
        sources = [source for source, number, _ in machines if number is None]
        no_name_left = "give it a name" in str(error) and len(set(sources)) < len(sources)
        assert no_name_left or len(set(explicit)) < len(explicit)
        return
    names = [job.name for job in made.jobs]
    assert len(set(names)) == len(names) and {f"web-{number}" for number in explicit} <= set(names)
    assert [job.number for job in made.jobs] == list(range(len(names)))
    for job in made.jobs:
        check_machine_name(job.name)
        assert job.name.startswith(machine_name(job.reference)) or job.name.startswith("web-")
    assert jobs_of(read_list(str(path)), base) == made


def test_entries_that_were_not_read_from_a_file(here: Path) -> None:
    made = jobs_of(Entries((Entry("container:web", "container:web"),), ("a message",)), Options(root=here))
    (job,) = made.jobs
    assert (job.where, job.reference, job.name) == ("container:web", Reference("container", "web"), "web")
    assert made.messages == ("a message",)
