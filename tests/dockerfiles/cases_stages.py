"""Scopes of ARG, several stages, and the syntax of the file itself."""

# ruff: noqa: E501 -- Dockerfiles as they are written

from __future__ import annotations

from tests.dockerfiles.case import BUSYBOX, Case

CASES = (
    Case(
        "arg-global",
        "ARG before FROM: for FROM, and in a stage only when it is asked for",
        r"""
ARG image=busybox
ARG tag=lab full=${image}:${tag} G=global
FROM ${full} AS one
RUN echo "[$G][$tag]" >/one
ARG G
ARG tag
RUN echo "[$G][$tag]" >/two
FROM $image:${tag:-none}
ARG G=own
ARG tag=${G}x
RUN echo "[$G][$tag]" >/three
LABEL g=$G tag=$tag
COPY --from=one /one /two /
""",
    ),
    Case(
        "arg-given",
        "--build-arg: over defaults, global and in stages",
        r"""
ARG G=default
ARG V=lab
FROM busybox:${V}
ARG G
ARG A=default
ARG B
ARG C=${A}-c D=$B
RUN echo "[$G][$A][$B][$C][$D]" >/a
FROM busybox:lab
RUN echo "[$A][$G]" >/b
ARG A
LABEL a=$A
COPY --from=0 /a /a
""",
        build_args={"G": "given g", "A": "given a", "B": "given $b", "unused": "x"},
    ),
    Case(
        "arg-empty",
        "given empty, unset, default empty",
        BUSYBOX
        + r"""
ARG A=default
ARG B
ARG C=
RUN env | grep -E '^[ABC]=' | sort >/a; echo "[${A-unset}][${B-unset}][${C-unset}]" >>/a
LABEL l="[${A-unset}][${B-unset}][${C-unset}][${A:-e}]"
""",
        build_args={"A": ""},
    ),
    Case(
        "arg-env",
        "ENV hides ARG, before and after it",
        BUSYBOX
        + r"""
ARG A=arg
ENV A=env
RUN echo $A >/1
ENV B=env
ARG B=arg
RUN echo $B >/2
ARG C=arg
ENV D=$C C=${C:-none}x
RUN echo $C $D >/3
ENV E=${E:-fallback}
LABEL a=$A b=$B c=$C
""",
        build_args={"A": "given", "B": "given", "C": "given"},
    ),
    Case(
        "arg-order",
        "an ARG is known from its line on, and again",
        BUSYBOX
        + r"""
RUN echo "[$A]" >/1
ARG A=one
RUN echo "[$A]" >/2
ARG A=two
RUN echo "[$A]" >/3
ARG A
RUN echo "[$A]" >/4
""",
    ),
    Case(
        "arg-quotes",
        "quotes and escapes in ARG",
        BUSYBOX
        + 'ARG a="two words" b=\'single $a\' c=esc\\ aped d=$a e="$b"\nARG f=x\\"y g=\nRUN for v in "$a" "$b" "$c" "$d" "$e" "$f" "$g"; do echo "<$v>"; done >/x\n',
    ),
    Case(
        "arg-predefined",
        "predefined arguments need no ARG",
        BUSYBOX
        + r"""
RUN echo "[$HTTP_PROXY][$https_proxy][$NO_PROXY][$other]" >/a
ARG NO_PROXY
RUN echo "[$NO_PROXY]" >/b
LABEL l="$HTTP_PROXY" m=$NO_PROXY
""",
        build_args={
            "HTTP_PROXY": "http://p.invalid",
            "https_proxy": "https://p.invalid",
            "NO_PROXY": "localhost",
            "other": "x",
        },
    ),
    Case(
        "arg-platform",
        "arguments of the platform: global, in a stage when asked for",
        r"""
FROM --platform=$BUILDPLATFORM busybox:lab AS one
RUN echo "[$TARGETARCH][$TARGETOS][$BUILDPLATFORM]" >/a
ARG TARGETARCH
ARG TARGETOS TARGETPLATFORM TARGETVARIANT BUILDARCH BUILDOS BUILDPLATFORM BUILDVARIANT TARGETSTAGE
RUN echo "[$TARGETARCH][$TARGETOS][$TARGETPLATFORM][${TARGETVARIANT-unset}][$BUILDARCH][$BUILDOS][$BUILDPLATFORM][${BUILDVARIANT-unset}][${TARGETSTAGE-unset}]" >>/a
ARG TARGETARCH=mine
RUN echo "[$TARGETARCH]" >>/a
FROM busybox:lab
ARG TARGETARCH
LABEL arch=$TARGETARCH none=$TARGETOS
COPY --from=one /a /a
""",
    ),
    Case(
        "arg-from-stage",
        "arguments of the stage that this one begins with",
        'FROM busybox:lab AS one\nARG A=one\nARG B=b\nRUN echo $A >/1\nFROM one\nRUN echo "[$A][$B]" >/2\nARG A\nRUN echo "[$A]" >/3\nLABEL a="$A" b="$B"\n',
    ),
    Case(
        "arg-required",
        "${x:?} without a value",
        BUSYBOX + 'ARG need\nLABEL x="${need:?give me}"\n',
        fails="give me",
    ),
    Case("arg-from-blank", "FROM with an empty name", "ARG image\nFROM $image\n", fails=""),
    Case(
        "stages",
        "names, numbers, several roads to one stage, stages on stages",
        r"""
FROM busybox:lab AS base
RUN echo base >/base
FROM base AS left
RUN echo left >/left
FROM base AS right
RUN echo right >/right
FROM left AS both
COPY --from=right /right /right
FROM scratch AS files
COPY --from=both /left /right /base /files/
FROM busybox:lab
COPY --from=files / /from-files
COPY --from=4 /files/left /number
COPY --from=left /etc/passwd /p
""",
    ),
    Case(
        "stages-target",
        "--target by name; what it does not need is not built",
        "FROM busybox:lab AS one\nRUN echo 1 >/one\nFROM busybox:lab AS broken\nRUN false\nFROM one AS Wanted\nLABEL l=wanted\nRUN echo 2 >/two\nFROM broken\n",
        target="wanted",
    ),
    Case(
        "stages-target-number",
        "--target by number",
        "FROM busybox:lab\nRUN echo 0 >/zero\nFROM busybox:lab AS one\nRUN echo 1 >/one\n",
        target="0",
        fails="0",
    ),
    Case("stages-target-unknown", "--target that does not exist", BUSYBOX, target="none", fails="none"),
    Case(
        "stages-unneeded",
        "a stage that nothing needs is not built",
        "FROM busybox:lab AS broken\nRUN false\nCOPY nowhere /\nFROM busybox:lab\nRUN echo ok >/ok\n",
    ),
    Case(
        "stages-same-name",
        "a name twice: the later one is meant, too early here",
        "FROM busybox:lab AS a\nRUN echo 1 >/x\nFROM busybox:lab AS b\nCOPY --from=a /x /first\nFROM busybox:lab AS a\nRUN echo 2 >/x\n",
        target="b",
        fails="a",
    ),
    Case(
        "stages-name-twice",
        "a name twice: the later one counts",
        "FROM busybox:lab AS a\nRUN echo 1 >/x\nFROM busybox:lab AS a\nRUN echo 2 >/x\nFROM busybox:lab\nCOPY --from=a /x /second\nCOPY --from=0 /x /first\n",
    ),
    Case(
        "stages-name-image",
        "a stage that is called as an image is",
        "FROM busybox:lab AS busybox\nRUN echo stage >/stage\nFROM busybox\nRUN ls / | grep stage >/seen\n",
    ),
    Case("stages-scratch", "nothing but a label", "FROM scratch\nLABEL a=b\n"),
    Case(
        "stages-scratch-run",
        "RUN in an empty image, with a program copied in",
        'FROM scratch\nCOPY --from=busybox:lab /bin/busybox /bin/sh\nRUN echo made >/made; pwd >/cwd\nRUN ["/bin/sh", "-c", "echo $PATH >/path"]\n',
    ),
    Case(
        "stages-mount",
        "a stage that is only mounted",
        "FROM busybox:lab AS tools\nRUN echo tool >/tool\nFROM busybox:lab\nRUN --mount=from=tools,target=/t cat /t/tool >/got\n",
    ),
    Case(
        "stages-self",
        "COPY --from the stage itself",
        "FROM busybox:lab AS me\nRUN echo 1 >/x\nCOPY --from=me /x /y\n",
        fails="",
    ),
    Case("stages-name-wrong", "a stage's name that is none", "FROM busybox:lab AS 1st\n", fails="1st"),
    Case(
        "stages-copy-tree",
        "a whole root into another",
        "FROM busybox:lab AS one\nRUN mkdir -p /opt/x && chmod 1777 /opt/x && chown 3:4 /opt && rm /etc/group && touch /.hidden\nFROM scratch\nCOPY --from=one / /\n",
    ),
    Case(
        "syntax-comments",
        "comments, empty lines, indentation, cases of letters",
        "# comment\n\n  # indented\nfrom busybox:lab as X\n\n\tRUN echo a # no comment\\\n  b >/a\n#RUN false\n  LaBeL a=b\nRUN echo 'x' \\\n# in between\n\n   # and indented\n  >/b && \\\n  : done\n",
    ),
    Case(
        "syntax-escape",
        "# escape=`",
        '# escape=`\nFROM busybox:lab\nENV A=a `\n  B=b` d C=C:\\dir\\ D=`$A E="`"q`""\nRUN echo one `\n  two >/x; echo \'back\\slash\' >/y\nLABEL l="a`\nb"\nRUN <<EOF\necho `date +` >/z \\\n more\nEOF\n',
    ),
    Case(
        "syntax-directives",
        "directives that are none: after a comment, unknown ones",
        "# comment\n# escape=`\nFROM busybox:lab\nRUN echo a \\\n b >/x\n# syntax=none/none\n",
    ),
    Case(
        "syntax-crlf",
        "line ends of another system",
        'FROM busybox:lab\r\nENV A=1 \\\r\n  B=2\r\nRUN echo $A \\\r\n  $B >/x\r\nLABEL a="b"\r\nCOPY <<EOF /h\r\nline\r\nEOF\r\n',
    ),
    Case("syntax-bom", "a byte order mark", "\ufeffFROM busybox:lab\nLABEL a=b\n"),
    Case("syntax-no-end", "no line end at the end", "FROM busybox:lab\nRUN echo x >/x\nCMD run me"),
    Case("syntax-continued-end", "a continued last line", "FROM busybox:lab\nRUN echo x >/x \\\n"),
    Case(
        "syntax-blanks",
        "blanks after the backslash",
        "FROM busybox:lab\nRUN echo a \\  \n b >/x\nENV A=b\\ \t\n  C=d\n",
    ),
    Case("syntax-unknown", "an unknown instruction", BUSYBOX + "RUNN true\n", fails="RUNN"),
    Case("syntax-flag", "an unknown flag", BUSYBOX + "RUN --mnt=type=bind true\n", fails="mnt"),
    Case("syntax-no-from", "no FROM", "RUN true\n", fails=""),
    Case("syntax-empty", "an empty file", "# nothing\n", fails=""),
    Case("syntax-heredoc-open", "a here-document without end", BUSYBOX + "RUN <<EOF\ntrue\n", fails="EOF"),
    Case("syntax-no-arguments", "an instruction without arguments", BUSYBOX + "COPY\n", fails="COPY"),
    Case("syntax-copy-one", "COPY with one argument", BUSYBOX + "COPY x\n", fails="COPY"),
    Case(
        "syntax-shift",
        "what looks like a here-document and is none",
        BUSYBOX + 'RUN echo $((1<<3)) >/x; echo "<<EOF" >/y; echo \'<<X\' >>/y\nENV A=<<EOF\nLABEL b="<<X"\n',
    ),
    Case(
        "syntax-long",
        "a long line, many steps",
        BUSYBOX
        + "ENV LONG="
        + "x" * 60000
        + "\nRUN echo ${#LONG} >/len\n"
        + "".join(f"ENV V{n}=$V{n - 1}{n % 10}\n" for n in range(200)),
    ),
)
