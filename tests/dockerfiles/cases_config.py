"""Instructions that only change what is written down: compared field by field."""

# ruff: noqa: E501 -- Dockerfiles as they are written

from __future__ import annotations

from tests.dockerfiles.case import BUSYBOX, Case

_COMMANDS = {
    "cmd-shell": ("CMD in shell form", 'ENV A=1\nCMD echo "$A"   two  # three \\\n  four\n'),
    "cmd-exec": ("CMD in exec form", 'CMD ["echo", "$A", "\\u00e9", "", "a\\tb"]\n'),
    "cmd-not-json": ("CMD that is nearly JSON", "CMD ['echo', \"x\"]\n"),
    "cmd-empty": ("CMD and ENTRYPOINT emptied", 'CMD ["x"]\nENTRYPOINT ["y"]\nCMD []\nENTRYPOINT []\n'),
    "cmd-twice": ("the last CMD counts", 'CMD ["one"]\nCMD two\nENTRYPOINT ["e"]\nCMD ["three"]\n'),
    "entrypoint-after-cmd": (
        "ENTRYPOINT after the stage's own CMD keeps it",
        'CMD ["own"]\nENTRYPOINT ["e"]\n',
    ),
    "entrypoint-shell": ("ENTRYPOINT in shell form", 'ENTRYPOINT exec "$0" $*\nCMD ["x"]\n'),
}

CASES = (
    *(Case(name, what, BUSYBOX + text) for name, (what, text) in _COMMANDS.items()),
    Case(
        "base-commands",
        "an image with ENTRYPOINT and CMD and everything else, to build upon",
        BUSYBOX
        + r"""
ENV A=base B=base PATH=/base:/bin
LABEL keep=base change=base
EXPOSE 80
VOLUME /base
USER daemon
WORKDIR /base/dir
STOPSIGNAL SIGUSR1
SHELL ["/bin/sh", "-ec"]
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT ["/base-entry"]
CMD ["base-cmd"]
MAINTAINER base <base@example.org>
""",
    ),
    Case(
        "inherit-all",
        "everything of a base is inherited",
        "FROM equal/base-commands\nRUN pwd >/tmp/x; id -un >>/tmp/x; echo $A $- >>/tmp/x\nCOPY f g\n",
        {"f": "f\n"},
        after=("base-commands",),
    ),
    Case(
        "inherit-entrypoint",
        "a new ENTRYPOINT resets an inherited CMD",
        'FROM equal/base-commands\nENTRYPOINT ["new"]\n',
        after=("base-commands",),
    ),
    Case(
        "inherit-cmd",
        "a new CMD keeps an inherited ENTRYPOINT",
        "FROM equal/base-commands\nCMD new\n",
        after=("base-commands",),
    ),
    Case(
        "inherit-cmd-entrypoint",
        "CMD, then ENTRYPOINT",
        'FROM equal/base-commands\nCMD ["new"]\nENTRYPOINT new\n',
        after=("base-commands",),
    ),
    Case(
        "inherit-change",
        "what is set anew, added to, taken away",
        r"""FROM equal/base-commands
ENV B=new C=$A PATH=/new:$PATH
LABEL change=new add="$B"
EXPOSE 443/udp
VOLUME ["/new"]
USER root
WORKDIR below
STOPSIGNAL 9
HEALTHCHECK NONE
SHELL ["/bin/sh", "-c"]
CMD shell form
MAINTAINER new
""",
        after=("base-commands",),
    ),
    Case(
        "inherit-stage",
        "the same from stage to stage",
        r"""FROM busybox:lab AS one
ENV A=1
ARG B=2
USER daemon
WORKDIR /one
ENTRYPOINT ["e"]
CMD ["c"]
LABEL one=1
SHELL ["/bin/sh", "-uc"]
FROM one AS two
ENTRYPOINT ["e2"]
LABEL two=${A}${B:-unset}
RUN echo $- ${B:-unset} >/tmp/x; pwd >>/tmp/x
FROM two
CMD x
""",
    ),
    Case(
        "env",
        "old and new form, several, quotes, escapes, earlier values on one line",
        BUSYBOX
        + r"""
ENV one=1
ENV one=2 two=$one three="a b" four=a\ b five='c d' six=
ENV OLD a whole  line = "with" 'quotes' \ and $one
ENV OLD2 $three
ENV seven="say \"hi\"" eight='$one' nine=\$one ten="\$one" eleven="back\\slash"
ENV twelve=a"b"'c'd thirteen="" fourteen='' fifteen=${six:-empty} sixteen=${none}
ENV multi=1 \
    line=2 \
    # comment
    more="three \
four"
env lower=case
ENV "quoted"=key 'single'=key
ENV a.b=dots A-B=dash PATH=/opt/bin:$PATH HOME=/h
ENV json=["a","b"] eq=a=b=c trail=x\\
ENV ünï=ü tab="	"
ENV OLD3	tabs
ENV empty_old ""
""",
    ),
    Case(
        "env-order",
        "a variable that is set again keeps its place",
        BUSYBOX + "ENV A=1 B=2\nENV C=3 A=4\nENV B=5\nENV A=\n",
    ),
    Case("env-blank", "ENV without a value", BUSYBOX + "ENV A\n", fails="ENV"),
    Case("env-no-name", "ENV without a name", BUSYBOX + "ENV =x\n", fails=""),
    Case(
        "label",
        "quotes, several, keys with everything, old form, variables, the last counts",
        BUSYBOX
        + r"""
ARG v=1
LABEL a=1 b="two words" c=three\ words "quoted key"="v" d='single $v' e="$v" f=
LABEL org.example.name=x com.example/slash=y a=again
LABEL old form of a label
LABEL multi="line \
continued" \
      next=1
LABEL json='{"a": "b"}' $v=key "k$v"=k2
LABEL description="This text \"quotes\" and \\ slashes"
""",
    ),
    Case("label-blank", "LABEL without a value", BUSYBOX + "LABEL a\n", fails="LABEL"),
    Case(
        "expose",
        "protocols, ranges, variables, the same twice",
        BUSYBOX
        + "ENV P=9000\nEXPOSE 80 443/tcp 53/udp 53/UDP 80/tcp $P ${P}/sctp\nEXPOSE 8000-8003 7000-7001/udp\nEXPOSE 80\n",
    ),
    Case("expose-wrong", "EXPOSE of what is no port", BUSYBOX + "EXPOSE eighty\n", fails="eighty"),
    Case("expose-wrong-protocol", "EXPOSE with an unknown protocol", BUSYBOX + "EXPOSE 80/http\n", fails=""),
    Case(
        "volume",
        "both forms, variables, what is written afterwards",
        BUSYBOX
        + r"""
ENV V=/var/vol
VOLUME /a /b/c $V
VOLUME ["/json one", "${V}/two", "/a"]
VOLUME relative
RUN mkdir -p /a && echo written >/a/after && echo gone >/a/x
RUN rm /a/x; chown 5:5 /a
COPY f /b/c/
""",
        {"f": "f\n"},
    ),
    Case("volume-blank", "VOLUME with an empty name", BUSYBOX + 'VOLUME [""]\n', fails="VOLUME"),
    Case(
        "stopsignal",
        "a name, a number, a variable",
        BUSYBOX + "ARG S=SIGRTMIN+3\nSTOPSIGNAL 9\nSTOPSIGNAL $S\n",
    ),
    Case("stopsignal-wrong", "STOPSIGNAL that is none", BUSYBOX + "STOPSIGNAL SIGNONE\n", fails="SIGNONE"),
    Case("user", "what is written is kept; variables", BUSYBOX + "ARG u=daemon\nUSER $u:${g:-wheel}\n"),
    Case("user-number", "a number; the last counts", BUSYBOX + "USER daemon\nUSER 0012:5\n"),
    Case(
        "healthcheck",
        "all options, shell form",
        BUSYBOX
        + "ENV P=1\nHEALTHCHECK --interval=1m30s --timeout=3s --start-period=1h --start-interval=500ms --retries=4 CMD curl -f $P || exit 1\n",
    ),
    Case(
        "healthcheck-exec",
        "exec form; the last counts",
        BUSYBOX + 'HEALTHCHECK CMD one\nHEALTHCHECK --retries=2 CMD ["two", "$P"]\n',
    ),
    Case("healthcheck-none", "NONE", BUSYBOX + "HEALTHCHECK CMD one\nHEALTHCHECK NONE\n"),
    Case(
        "healthcheck-wrong",
        "an interval that is too short",
        BUSYBOX + "HEALTHCHECK --interval=100us CMD true\n",
        fails="interval",
    ),
    Case("healthcheck-type", "neither CMD nor NONE", BUSYBOX + "HEALTHCHECK curl\n", fails=""),
    Case("shell-wrong", "SHELL that is not JSON", BUSYBOX + "SHELL /bin/sh -c\n", fails="SHELL"),
    Case("maintainer", "MAINTAINER, with quotes", BUSYBOX + 'MAINTAINER "A B" <a@b.c> $x\n'),
    Case(
        "onbuild-base",
        "ONBUILD of every kind, kept in the image",
        BUSYBOX
        + r"""
ENV A=base
ONBUILD ENV B=$A
ONBUILD COPY . /app/src
ONBUILD RUN echo "$A $B $C" >/app/built; pwd >>/app/built
ONBUILD ARG C=trigger
ONBUILD RUN echo "$C" >>/app/built
onbuild   workdir   /app
ONBUILD LABEL triggered="$A"
ONBUILD USER 1000
ONBUILD CMD ["triggered"]
ONBUILD RUN <<EOF
id -u >/tmp/heredoc
EOF
ENV A=later
WORKDIR /base
""",
    ),
    Case(
        "onbuild",
        "an image with triggers as base",
        "FROM equal/onbuild-base\nARG C=mine\nENV D=$B\nRUN echo $C $D >/tmp/child\n",
        {"f": "f\n"},
        after=("onbuild-base",),
        build_args={"C": "given"},
    ),
    Case(
        "onbuild-grandchild",
        "triggers do not last to the next but one",
        "FROM equal/onbuild\nRUN ls /app >/tmp/grand\n",
        {"g": "g\n"},
        after=("onbuild",),
    ),
    Case(
        "onbuild-stage",
        "triggers of a stage",
        "FROM busybox:lab AS one\nONBUILD RUN echo triggered >/x\nONBUILD ENV T=1\nRUN echo one >/y\nFROM one\nRUN echo $T >/z\n",
    ),
    Case(
        "onbuild-onbuild",
        "ONBUILD of what may not be triggered",
        BUSYBOX + "ONBUILD ONBUILD RUN true\n",
        fails="ONBUILD",
    ),
    Case("onbuild-from", "ONBUILD FROM", BUSYBOX + "ONBUILD FROM x\n", fails="FROM"),
    Case(
        "onbuild-copy-from",
        "ONBUILD COPY --from a stage of the later Dockerfile",
        BUSYBOX + "ONBUILD COPY --from=tool /t /t\n",
    ),
    Case(
        "onbuild-copy-from-used",
        "and its use",
        "FROM busybox:lab AS tool\nRUN echo tool >/t\nFROM equal/onbuild-copy-from\n",
        after=("onbuild-copy-from",),
        fails="tool",
    ),
)
