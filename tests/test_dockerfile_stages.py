"""What a Dockerfile comes to: stages, the scopes of ARG and ENV, the steps, and the image's config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest

from converter.dockerfile.model import (
    Copy,
    DockerfileError,
    ImageSource,
    InlineFile,
    Recipe,
    Run,
    Setting,
    Stage,
    StageSource,
    Workdir,
)
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.parser import read
from converter.dockerfile.stages import evaluate
from converter.errors import ConversionError
from converter.image.model import Healthcheck, ImageConfig, Platform

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AMD64 = Platform("linux", "amd64")
IMAGES: Mapping[str, ImageConfig] = {
    "plain": ImageConfig(),
    "full": ImageConfig(
        env=("LANG=C", "PATH=/bin"),
        entrypoint=("/init",),
        cmd=("start",),
        user="app",
        working_dir="/srv",
        labels={"a": "base", "b": "base"},
        volumes=("/data",),
        exposed_ports=("80/tcp",),
        stop_signal="SIGQUIT",
        shell=("/bin/bash", "-c"),
        healthcheck=Healthcheck(("CMD", "x")),
        author="someone",
        created="2020-01-01T00:00:00Z",
        hostname="h",
    ),
    "trigger": ImageConfig(
        on_build=("ARG V=1", "RUN --network=none make $V", "COPY <<EOF /x\ny $V\nEOF", "ENV V=2", 'CMD ["c"]')
    ),
}


def _config(source: ImageSource) -> ImageConfig:
    try:
        return IMAGES[source.name]
    except KeyError:
        raise ConversionError(f"there is no image {source.name}") from None


def _evaluate(
    text: str, target: str | None = None, platform: Platform = AMD64, /, **build_args: str
) -> Recipe:
    options = BuildOptions(target, build_args, platform, AMD64)
    return evaluate(read("Dockerfile", text.encode()), options, _config)


def _stage(text: str, **build_args: str) -> Stage:
    return _evaluate(text, **build_args).target


def _changed(text: str, base: str = "plain") -> dict[str, Any]:
    """The config's fields that the instructions have changed."""
    before = _stage(f"FROM {base}").config
    after = _stage(f"FROM {base}\n{text}").config
    return {
        field.name: getattr(after, field.name)
        for field in fields(after)
        if getattr(after, field.name) != getattr(before, field.name)
    }


def _runs(stage: Stage) -> list[Run]:
    return [step for step in stage.steps if isinstance(step, Run)]


def _seen(text: str, **build_args: str) -> dict[str, str]:
    """The variables of the last RUN, but for PATH."""
    state = _runs(_stage(text, **build_args))[-1].state
    assert not {name for name, _ in state.env} & {name for name, _ in state.args}
    return {name: value for name, value in (*state.env, *state.args) if name != "PATH"}


def _error(text: str, **build_args: str) -> str:
    with pytest.raises(DockerfileError) as raised:
        _evaluate(text, **build_args)
    return str(raised.value).removeprefix("Dockerfile:")


# --- ARG and ENV ---

R = "\nRUN x\n"


@pytest.mark.parametrize(
    ("text", "build_args", "seen"),
    [
        ("FROM plain\nARG a" + R, {}, {}),
        ("FROM plain\nARG a" + R, {"a": "1"}, {"a": "1"}),
        ("FROM plain\nARG a=0" + R, {}, {"a": "0"}),
        ("FROM plain\nARG a=0" + R, {"a": "1"}, {"a": "1"}),
        ("FROM plain\nARG a=0" + R, {"a": ""}, {"a": ""}),
        ("FROM plain\nARG a=" + R, {}, {"a": ""}),
        ("FROM plain" + R, {"a": "1"}, {}),
        ('FROM plain\nARG a="b c" d=\'$e\'' + R, {}, {"a": "b c", "d": "$e"}),
        # one may be made from another, but not within one instruction
        ("FROM plain\nARG a=0\nARG b=$a-1" + R, {}, {"a": "0", "b": "0-1"}),
        ("FROM plain\nARG a=0 b=$a-1" + R, {}, {"a": "0", "b": "-1"}),
        ("FROM plain\nARG a=0\nARG b=$a-1" + R, {"a": "5"}, {"a": "5", "b": "5-1"}),
        ("FROM plain\nARG b=${a:?no}" + R, {"b": "1"}, {"b": "1"}),
        # those above FROM are seen where they are asked for
        ("ARG a=0\nFROM plain" + R, {}, {}),
        ("ARG a=0\nFROM plain\nARG a" + R, {}, {"a": "0"}),
        ("ARG a=0\nFROM plain\nARG a" + R, {"a": "1"}, {"a": "1"}),
        ("ARG a=0\nFROM plain\nARG a=2" + R, {}, {"a": "2"}),
        ("ARG a=0\nARG a=1\nARG b=$a$a\nFROM plain\nARG b" + R, {}, {"b": "11"}),
        # a stage's own end with it, but go on in stages made from it
        ("FROM plain\nARG a=0\nFROM plain" + R, {}, {}),
        ("FROM plain AS x\nARG a=0\nFROM x" + R, {}, {"a": "0"}),
        ("FROM plain AS x\nARG a=0\nENV b=1\nFROM x AS y\nFROM y\nARG a=2" + R, {}, {"a": "2", "b": "1"}),
        # ENV and ARG of one name: the last one counts; in the next stage what the image has
        ("FROM plain\nARG a=0\nENV a=1" + R, {}, {"a": "1"}),
        ("FROM plain\nARG a=0\nENV a=${a}1" + R, {"a": "7"}, {"a": "71"}),
        ("FROM plain\nENV a=1\nARG a=0" + R, {}, {"a": "0"}),
        ("FROM plain\nENV a=1\nARG a" + R, {}, {"a": "1"}),
        ("FROM plain AS x\nENV a=1\nARG a=0\nFROM x" + R, {}, {"a": "1"}),
        ("FROM full\nARG LANG=x" + R, {}, {"LANG": "x"}),
        ("FROM full" + R, {"LANG": "x"}, {"LANG": "C"}),
        # what there is always
        ("FROM plain\nARG TARGETPLATFORM\nARG BUILDARCH\nARG TARGETVARIANT" + R, {}, {
            "TARGETPLATFORM": "linux/amd64", "BUILDARCH": "amd64", "TARGETVARIANT": ""}),
        ("FROM plain\nARG TARGETARCH" + R, {"TARGETARCH": "riscv64"}, {"TARGETARCH": "riscv64"}),
        ("FROM plain\nARG TARGETARCH=none" + R, {}, {"TARGETARCH": "none"}),
        ("FROM plain" + R, {"HTTP_PROXY": "p", "no_proxy": "q"}, {
            "HTTP_PROXY": "p", "http_proxy": "p", "NO_PROXY": "q", "no_proxy": "q"}),
        ("FROM plain\nENV http_proxy=mine" + R, {"HTTP_PROXY": "p"}, {"HTTP_PROXY": "p", "http_proxy": "p"}),
        ("FROM plain\nARG BUILDKIT_SBOM_SCAN_STAGE=true" + R, {}, {}),
        # ENV
        ("FROM plain\nENV a=1 b=$a c" + "=\nENV d=$a" + R, {}, {"a": "1", "b": "", "c": "", "d": "1"}),
        ("FROM plain\nENV a 1 $b '2'" + R, {}, {"a": "1  2"}),
        ("FROM plain\nARG n=name\nENV $n=1" + R, {}, {"n": "name", "name": "1"}),
        ("FROM full\nENV LANG=de_$LANG" + R, {}, {"LANG": "de_C"}),
        ("# escape=`\nFROM plain\nENV a=b\\c`$d" + R, {}, {"a": "b\\c$d"}),
    ],
)  # fmt: skip
def test_what_a_run_sees(text: str, build_args: dict[str, str], seen: dict[str, str]) -> None:
    assert _seen(text, **build_args) == seen


def test_arguments_are_told_from_the_environment() -> None:
    state = _runs(_stage("FROM full\nARG a=1\nENV b=2 LANG=x\nARG LANG=y" + R))[0].state
    assert state.env == (("PATH", "/bin"), ("b", "2"))
    assert state.args == (("a", "1"), ("LANG", "y"))
    assert _stage("FROM full\nENV b=2 LANG=x\nARG LANG=y").config.env == ("LANG=x", "PATH=/bin", "b=2")


def test_arguments_name_the_base() -> None:
    text = "ARG base=pla\nARG os=linux\nFROM --platform=${os}/arm64 ${base}in AS b\nFROM $base"
    recipe = _evaluate(text, "b")
    assert recipe.target.base == ImageSource("plain", Platform("linux", "arm64"))
    assert _evaluate(text, base="full").target.base == ImageSource("full")
    assert _stage("FROM --platform=$BUILDPLATFORM plain").platform == AMD64


def test_another_platform_than_this_one() -> None:
    arm = Platform("linux", "arm", "v7")
    recipe = _evaluate(
        "FROM --platform=$BUILDPLATFORM plain AS a\nARG TARGETARCH TARGETVARIANT BUILDARCH\n"
        "FROM a AS b\nRUN x\nFROM plain\nCOPY --from=b x y\nCOPY --from=full x y",
        None,
        arm,
    )
    a, b, last = recipe.stages
    assert (a.base, a.platform) == (ImageSource("plain", AMD64), AMD64)
    assert dict(_runs(b)[0].state.args) == {"TARGETARCH": "arm", "TARGETVARIANT": "v7", "BUILDARCH": "amd64"}
    assert (last.base, last.platform) == (ImageSource("plain", arm), arm)
    assert list(last.sources())[-1] == ImageSource("full", arm)


def test_build_arguments_that_nothing_asks_for() -> None:
    args = {"a": "1", "b": "1", "c": "1", "d": "1", "https_proxy": "p", "BUILDKIT_INLINE_CACHE": "1"}
    args |= {"SOURCE_DATE_EPOCH": "0", "TARGETARCH": "x", "V": "1"}
    recipe = _evaluate("ARG a\nFROM plain AS unused\nARG b=2\nFROM trigger\nARG c", **args)
    assert recipe.warnings == ("One or more build-args [d] were not consumed",)


# --- stages ---

STAGES = """
FROM plain AS One
ENV a=1
FROM scratch
COPY --from=one /a /b
FROM plain AS unused
COPY --from=0 /a /b
FROM one AS last
COPY --from=1 /b /c
RUN --mount=type=bind,from=one,target=/m --mount=type=cache,from=full,source=x,target=/n x
"""


def test_only_what_the_target_needs_is_evaluated() -> None:
    recipe = _evaluate(STAGES)
    assert [(stage.index, stage.name, stage.label) for stage in recipe.stages] == [
        (0, "one", "one"),
        (1, None, "1"),
        (3, "last", "last"),
    ]
    assert recipe.target is recipe.stages[-1]
    assert recipe.target.needs() == {0, 1}
    assert [stage.base for stage in recipe.stages] == [ImageSource("plain"), None, StageSource(0)]
    assert ImageSource("full") in list(recipe.target.sources())


@pytest.mark.parametrize(
    ("target", "indexes"),
    [("ONE", [0]), ("0", [0]), ("1", [0, 1]), ("unused", [0, 2]), ("last", [0, 1, 3]), (None, [0, 1, 3])],
)
def test_targets(target: str | None, indexes: list[int]) -> None:
    recipe = _evaluate(STAGES, target)
    assert [stage.index for stage in recipe.stages] == indexes
    assert recipe.target.index == indexes[-1]


@pytest.mark.parametrize(
    ("target", "hint"),
    [("lost", "did you mean last?"), ("4", "the stages are one, unused, last"), ("x", "the stages are one")],
)
def test_no_such_target(target: str, hint: str) -> None:
    with pytest.raises(ConversionError, match=f'target stage "{target}" could not be found; .*{hint[:20]}'):
        _evaluate(STAGES, target)


def test_an_image_is_asked_for_once_and_only_when_needed() -> None:
    asked = []

    def config(source: ImageSource) -> ImageConfig:
        asked.append(source.name)
        return ImageConfig()

    text = "FROM a AS x\nFROM b AS y\nFROM a\nCOPY --from=x p q\nCOPY --from=c p q"
    evaluate(read("Dockerfile", text.encode()), BuildOptions(), config)
    assert asked == ["a"]


def test_names_given_twice() -> None:
    """FROM sees the stage above it, --from the last one."""
    text = "FROM plain AS a\nENV n=1\nFROM a AS a\nENV m=2\nFROM a\nCOPY --from=a x y"
    recipe = _evaluate(text)
    assert recipe.target.base == StageSource(1)
    assert [stage.base for stage in recipe.stages] == [ImageSource("plain"), StageSource(0), StageSource(1)]


def test_a_stage_may_be_called_like_an_image() -> None:
    recipe = _evaluate("FROM plain AS plain\nFROM plain AS scratch\nFROM scratch")
    assert [stage.base for stage in recipe.stages] == [ImageSource("plain"), StageSource(0), StageSource(1)]


def test_what_is_taken_for_an_image_but_looks_like_a_stage() -> None:
    recipe = _evaluate(
        "FROM plain AS builder\nFROM plain\nCOPY --from=buidler /a /b\nCOPY --from=nginx /a /b"
    )
    text = '"buidler" is no stage, so it is taken for an image; did you mean builder?'
    assert recipe.warnings == (f"Dockerfile:3: {text}",)


def test_a_mode_that_is_none_is_ignored() -> None:
    recipe = _evaluate("FROM plain\nCOPY --chmod=worse a /b\nCOPY --chmod=899 a /b")
    assert [step.chmod for step in recipe.target.steps if isinstance(step, Copy)] == [None, None]
    assert recipe.warnings[0] == "Dockerfile:2: --chmod=worse is no mode; Docker ignores it"


# --- triggers ---


def test_triggers_of_the_base_run_first() -> None:
    stage = _stage('FROM trigger\nENTRYPOINT ["e"]\nRUN last')
    kinds = [type(step) for step in stage.steps]
    assert kinds == [Setting, Run, Copy, Setting, Setting, Setting, Run]
    assert [step.number for step in stage.steps] == [1, 2, 3, 4, 5, 6, 7]
    make, last = _runs(stage)
    assert (make.argv[-1], make.network, make.state.args) == ("make $V", "none", (("V", "1"),))
    assert (make.instruction.file, make.instruction.line) == ("Dockerfile", 1)
    assert ("V", "2") in last.state.env
    assert stage.config.cmd == ("c",)  # set here, so ENTRYPOINT leaves it
    assert stage.config.on_build == ()
    copy = stage.steps[2]
    assert isinstance(copy, Copy)
    assert copy.inline == (InlineFile("EOF", b"y 1\n"),)


def test_triggers_of_a_stage() -> None:
    text = "FROM plain AS a\nONBUILD RUN one\nONBUILD COPY <<-E \\\n  /x\n\t$y\n\tE\nFROM a AS b\nFROM b"
    recipe = _evaluate(text)
    a, b, c = recipe.stages
    assert a.config.on_build == ("RUN one", "COPY <<-E   /x\n\t$y\nE")
    assert [type(step) for step in b.steps] == [Run, Copy]
    assert (b.config.on_build, c.steps) == ((), ())


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        ("FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("RUN --x a", "1:1: unknown flag: x"),
        ("WHAT", "ONBUILD of bad:1:1: unknown instruction: WHAT"),
    ],
)
def test_bad_triggers(trigger: str, message: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        evaluate(read("Dockerfile", b"FROM bad"), BuildOptions(), lambda _: ImageConfig(on_build=(trigger,)))
    assert str(raised.value).startswith("Dockerfile:1")
    assert message in str(raised.value)


# --- config ---


def test_config_of_scratch() -> None:
    assert _stage("FROM scratch").config == ImageConfig(env=(PATH,), working_dir="/")


def test_config_of_a_base() -> None:
    full = _stage("FROM full").config
    assert full == ImageConfig(**{**IMAGES["full"].__dict__, "created": ""})
    assert _stage("FROM plain").config == ImageConfig(env=(PATH,))
    assert _stage("FROM plain\nENV A=1").config.env == (PATH, "A=1")


@pytest.mark.parametrize(
    ("text", "base", "changed"),
    [
        ("CMD a $b", "plain", {"cmd": ("/bin/sh", "-c", "a $b"), "args_escaped": True}),
        ('CMD ["a", "$b"]', "plain", {"cmd": ("a", "$b"), "args_escaped": True}),
        ("CMD []", "full", {"cmd": (), "args_escaped": True}),
        ("CMD a", "full", {"cmd": ("/bin/bash", "-c", "a"), "args_escaped": True}),
        ("CMD", "plain", {"cmd": ("/bin/sh", "-c", ""), "args_escaped": True}),
        ("ENTRYPOINT a", "full", {"entrypoint": ("/bin/bash", "-c", "a"), "cmd": ()}),
        ("ENTRYPOINT []", "full", {"entrypoint": (), "cmd": ()}),
        ('CMD ["c"]\nENTRYPOINT ["e"]', "full", {"entrypoint": ("e",), "cmd": ("c",), "args_escaped": True}),
        ('ENTRYPOINT ["e"]\nCMD ["c"]', "full", {"entrypoint": ("e",), "cmd": ("c",), "args_escaped": True}),
        ('SHELL ["a", "$b"]\nCMD c', "plain", {
            "shell": ("a", "$b"), "cmd": ("a", "$b", "c"), "args_escaped": True}),
        ("ENV LANG=x A='b c'", "full", {"env": ("LANG=x", "PATH=/bin", "A=b c")}),
        ("LABEL b=$LANG 'c d'=\"e f\" $LANG=g", "full", {"labels": {"a": "base", "b": "C", "c d": "e f", "C": "g"}}),
        ("USER $LANG:x", "full", {"user": "C:x"}),
        ("MAINTAINER $LANG <x>", "full", {"author": "$LANG <x>"}),
        ("WORKDIR a/../b/", "full", {"working_dir": "/srv/b"}),
        ("WORKDIR a\nWORKDIR b\nWORKDIR ../c", "plain", {"working_dir": "/a/c"}),
        ("WORKDIR /a//b/", "plain", {"working_dir": "/a//b/"}),  # as Docker has it
        ("WORKDIR $none", "full", {}),
        ("WORKDIR \"a b\"", "plain", {"working_dir": "/a b"}),
        ("VOLUME /b $LANG /data", "full", {"volumes": ("/b", "/data", "C")}),
        ('VOLUME ["/a b", "/$LANG"]', "full", {"volumes": ("/C", "/a b", "/data")}),
        ("STOPSIGNAL ${none:-RTMIN+3}", "full", {"stop_signal": "RTMIN+3"}),
        ("STOPSIGNAL 9", "full", {"stop_signal": "9"}),
        ("EXPOSE 80 443/TCP 53/udp", "full", {"exposed_ports": ("443/tcp", "53/udp", "80/tcp")}),
        ("EXPOSE 8-10/sctp", "plain", {"exposed_ports": ("10/sctp", "8/sctp", "9/sctp")}),
        ("ENV p='1 2/udp'\nEXPOSE $p 127.0.0.1:5:3", "plain", {
            "env": (PATH, "p=1 2/udp"), "exposed_ports": ("1/tcp", "2/udp", "3/tcp")}),
        ("HEALTHCHECK NONE", "full", {"healthcheck": Healthcheck(("NONE",))}),
        ("HEALTHCHECK CMD a $b", "full", {"healthcheck": Healthcheck(("CMD-SHELL", "a $b"))}),
        ('HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=0 --retries=3 cmd ["a"]', "plain", {
            "healthcheck": Healthcheck(("CMD", "a"), 90_000_000_000, 1_500_000_000, retries=3)}),
        ("HEALTHCHECK --start-interval=5ms --start-period=1h1us CMD a", "plain", {
            "healthcheck": Healthcheck(
                ("CMD-SHELL", "a"), start_period=3_600_000_001_000, start_interval=5_000_000)}),
        ("ONBUILD RUN a $b\nonbuild   CMD [\"c\"]", "plain", {"on_build": ("RUN a $b", 'CMD ["c"]')}),
        ("ARG a=1\nRUN x\nCOPY a b", "full", {}),
    ],
)  # fmt: skip
def test_config(text: str, base: str, changed: dict[str, Any]) -> None:
    assert _changed(text, base) == changed


def test_steps_and_states() -> None:
    stage = _stage('FROM full\nUSER u\nWORKDIR d/\nSHELL ["s"]\nRUN a\nUSER v\nRUN b')
    assert [type(step) for step in stage.steps] == [Setting, Workdir, Setting, Run, Setting, Run]
    states = [(s.state.user, s.state.working_directory, s.state.shell[0]) for s in stage.steps]
    assert states == [
        ("u", "/srv", "/bin/bash"),
        ("u", "/srv/d", "/bin/bash"),
        ("u", "/srv/d", "s"),
        ("u", "/srv/d", "s"),
        ("v", "/srv/d", "s"),
        ("v", "/srv/d", "s"),
    ]


# --- errors ---

ERRORS = {
    "no FROM": ("ARG a\nARG b\n", "2:1: dockerfile contains no stages to build; add FROM IMAGE"),
    "before FROM": ("ARG a\nRUN b\nFROM plain", "2:1: no build stage in current context; only ARG may stand"),
    "blank base": ("FROM $a", "1:1: base name ($a) should not be blank; give ARG a a value before the first FROM"),
    "blank base, near": ("ARG verison=1\nFROM $version", "2:1: base name ($version) should not be blank; did you"),
    "wrong image": ("FROM plain:a/b", "1:1: 'plain:a/b' is not an image name"),
    "no tag": ("ARG v\nFROM plain:$v", "2:1: 'plain:' is not an image name"),
    "unknown image": ("FROM none", "1:1: there is no image none"),
    "unknown image like a stage": ("FROM plain AS builder\nFROM buidler", "2:1: there is no image buidler; did you"),
    "FROM words": ("FROM plain builder", "1:1: FROM requires either one or three arguments"),
    "stage name": ("FROM plain AS 1", '1:1: invalid name for build stage: "1", name can\'t start with a number'),
    "platform": ("FROM --platform=a/b/c/d plain", "1:6: failed to parse platform a/b/c/d"),
    "self": ("FROM plain AS a\nCOPY --from=a x y", "2:6: circular dependency detected on stage: a"),
    "self, unused": ("FROM plain AS a\nCOPY --from=0 x y\nFROM plain", "2:6: circular dependency detected on stage: a"),
    "later, needed": ("FROM plain AS z\nCOPY --from=a x y\nFROM plain AS a\nFROM z", '2:6: cannot copy from stage "a"'),
    "mount of a later": ("FROM plain AS z\nRUN --mount=from=a y\nFROM z AS a", '2:5: cannot mount from stage "a"'),
    "number": ("FROM plain\nCOPY --from=2 a b", "2:6: invalid stage index 2; the stages are 0 to 0"),
    "--from with a variable": ("FROM plain\nCOPY --from=$a b c", "2:6: variable expansion is not supported for --from"),
    "--from": ("FROM plain AS builder\nFROM plain\nCOPY --from=Builder2 b c", "3:6: 'Builder2' is not an image name"),
    "unknown flag": ("FROM plain\nCOPY --chwon=a b c", "2:6: unknown flag: chwon; did you mean chown?"),
    "another's flag": ("FROM plain\nADD --from=a b c", "2:5: unknown flag: from; --from is a flag of COPY"),
    "no flags": ("FROM plain\nUSER --x y", "2:6: unknown flag: x; USER has no flags"),
    "flag twice": ("FROM plain\nCOPY --link --link a b", "2:13: duplicate flag specified: link"),
    "flag without value": ("FROM plain\nCOPY --chown a b", "2:6: missing a value on flag: chown; write --chown=VALUE"),
    "flag without truth": ("FROM plain\nCOPY --link=maybe a b", "2:6: expecting boolean value for flag link, not"),
    "COPY one": ("FROM plain\nCOPY a", "2:1: COPY requires at least two arguments, but only one was provided. Dest"),
    "ADD nothing": ("FROM plain\nADD", "2:1: ADD requires at least two arguments"),
    "COPY to a heredoc": ("FROM plain\nCOPY a <<E\nE", "2:1: COPY cannot accept a heredoc as a destination"),
    "COPY of a URL": ("FROM plain\nCOPY http://x/y /z", "2:1: source can't be a URL for COPY; ADD takes URLs"),
    "COPY of git": ("FROM plain\nCOPY git@h:x /z", "2:1: source can't be a git ref for COPY"),
    "heredoc's name": ("FROM plain\nCOPY <<../x /z\n../x", "2:1: a here-document cannot make a file named '../x'"),
    "chmod, too large": ("FROM plain\nCOPY --chmod=17777 a b", "2:6: invalid chmod parameter: '17777'"),
    "checksum": ("FROM plain\nADD --checksum=md5:1 http://a b", "2:5: invalid checksum digest 'md5:1'"),
    "checksum of a file": ("FROM plain\nADD --checksum=sha256:" + "0" * 64 + " a b", "2:5: checksum can't be"),
    "ENV": ("FROM plain\nENV =a", "2:1: ENV names can not be blank"),
    "ENV nothing": ("FROM plain\nENV", "2:1: ENV requires at least one argument; write ENV NAME=value"),
    "ARG": ("FROM plain\nARG =a", "2:1: ARG names can not be blank"),
    "WORKDIR nothing": ("FROM plain\nWORKDIR", "2:1: WORKDIR requires exactly one argument; write WORKDIR /DIRECTORY"),
    "VOLUME": ("FROM plain\nVOLUME $none", "2:1: VOLUME specified can not be an empty string"),
    "SHELL": ("FROM plain\nSHELL sh -c", "2:1: SHELL requires the arguments to be in JSON form"),
    "STOPSIGNAL": ("FROM plain\nSTOPSIGNAL SIGNOT", "2:1: invalid signal: SIGNOT"),
    "STOPSIGNAL 0": ("FROM plain\nSTOPSIGNAL 0", "2:1: invalid signal: 0"),
    "EXPOSE": ("FROM plain\nEXPOSE http", "2:1: 'http' is not a port; write it like 80"),
    "EXPOSE range": ("FROM plain\nEXPOSE 9-8", "2:1: '9-8' is not a range of ports"),
    "EXPOSE large": ("FROM plain\nEXPOSE 65536", "2:1: '65536' is not a port: they go up to 65535"),
    "EXPOSE protocol": ("FROM plain\nEXPOSE 1/icmp", "2:1: '1/icmp' has no protocol that Docker knows"),
    "HEALTHCHECK nothing": ("FROM plain\nHEALTHCHECK", "2:1: HEALTHCHECK requires at least one argument"),
    "HEALTHCHECK type": ("FROM plain\nHEALTHCHECK curl x", '2:1: Unknown type "CURL" in HEALTHCHECK (try CMD)'),
    "HEALTHCHECK CMD": ("FROM plain\nHEALTHCHECK CMD", "2:1: Missing command after HEALTHCHECK CMD"),
    "HEALTHCHECK NONE": ("FROM plain\nHEALTHCHECK NONE x", "2:1: HEALTHCHECK NONE takes no arguments"),
    "HEALTHCHECK time": ("FROM plain\nHEALTHCHECK --interval=5 CMD x", "2:13: missing unit in duration '5'"),
    "HEALTHCHECK unit": ("FROM plain\nHEALTHCHECK --timeout=5d CMD x", "2:13: unknown unit 'd' in duration '5d'"),
    "HEALTHCHECK short": ("FROM plain\nHEALTHCHECK --timeout=1us CMD x", '2:13: Interval "timeout" cannot be less'),
    "HEALTHCHECK retries": ("FROM plain\nHEALTHCHECK --retries=-1 CMD x", "2:13: --retries cannot be negative (-1)"),
    "RUN nothing": ("FROM plain\nRUN []", "2:1: RUN [] runs nothing"),
    "network": ("FROM plain\nRUN --network=hots x", '2:5: invalid network mode "hots"; did you mean host?'),
    "security": ("FROM plain\nRUN --security=none x", '2:5: security "none" is not valid; the values are sandbox'),
    "expansion": ("FROM plain\nENV a=1 \\\n    b=${c^}", '3:7: failed to process "${c^}": unsupported modifier (^)'),
    "required": ("FROM plain\nUSER ${u:?who}", '2:6: failed to process "${u:?who}": u: who; set it by'),
    "trigger": ("FROM plain\nONBUILD COPY a", "2:9: COPY requires at least two arguments"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    text, message = ERRORS[name]
    assert _error(text).startswith(message)


def test_what_is_wrong_in_a_stage_that_nothing_needs() -> None:
    assert _error("FROM plain\nCOPY --form=x a b\nFROM plain").startswith(
        "2:6: unknown flag: form; did you mean from?"
    )
    _evaluate("FROM none\nRUN --mount=what=1 x\nCOPY --from=a x y\nUSER ${u:?}\nFROM plain AS a")
