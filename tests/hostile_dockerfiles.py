"""Dockerfiles whose every field tries to run a command: it would make the file /canary."""

from __future__ import annotations

import json
from collections.abc import Iterator

CANARY = "/canary"
_COMMAND = f">{CANARY}"  # a redirection alone: no program is needed

PAYLOADS = {
    "substitution": f"$({_COMMAND})",
    "backquotes": f"`{_COMMAND}`",
    "single-quotes": f"';{_COMMAND};'",
    "double-quotes": f'";{_COMMAND};"',
    "both-quotes": f"'\";{_COMMAND};#",
    "quoted-substitution": f"'$({_COMMAND})'",
    "backslash-quote": f"\\';{_COMMAND};\\'",
    "separator": f";{_COMMAND};",
    "and": f"&&{_COMMAND}",
    "background": f"&{_COMMAND}&",
    "pipe": f"|{_COMMAND}",
    "default-value": f"${{x:=$({_COMMAND})}}",
    "brace": f"}}{_COMMAND}",
    "newline": f"\n{_COMMAND}\n",
    "carriage-return": f"\r{_COMMAND}\r\n{_COMMAND}",
    "heredoc-end": f"\nEOF\n{_COMMAND}\n",
    "quote-newline": f"'\n{_COMMAND}\n'",
    "option": f"--eval=$({_COMMAND})",
    "dash": f"-c{_COMMAND}",
    "printf": f"%s%n\\n{_COMMAND}",
    "unicode-lines": f"\u2028{_COMMAND}\u0085{_COMMAND}\x0b{_COMMAND}\x0c{_COMMAND}",
    "not-utf-8": f"\udcff\n{_COMMAND}\udcfe';{_COMMAND}",
    "globs": f"*[!a]?{_COMMAND}",
    "long": f"'{'x' * 300}$({_COMMAND})",
}

# {word}: escaped as a word of an instruction; {raw}: as it is; {json}: a JSON string. After each comes `RUN true`.
_FIELDS = {
    "env": "ENV A={word}",
    "env-raw": "ENV A={raw}",
    "env-quoted": 'ENV A="{raw}"',
    "env-old-form": "ENV A {raw}",
    "env-name": "ENV {word}=1",
    "env-name-raw": "ENV {raw}=1",
    "env-twice": "ENV A={word}\nENV B=${{A}} C=${{A#?}} D=${{A:-x}} PATH=$A:/bin",
    "arg": "ARG A={word}",
    "arg-name": "ARG {word}=1",
    "label": "LABEL a={word}",
    "label-name": "LABEL {word}=1",
    "maintainer": "MAINTAINER {raw}",
    "user": "USER {word}",
    "user-group": "USER root:{word}",
    "workdir": "WORKDIR {word}",
    "workdir-absolute": "WORKDIR /d/{word}",
    "shell": 'SHELL [{json}, "-c"]',
    "shell-option": 'SHELL ["/bin/sh", "-c", {json}]',
    "cmd": "CMD {raw}",
    "cmd-json": "CMD [{json}, {json}]",
    "entrypoint": "ENTRYPOINT {raw}",
    "entrypoint-json": "ENTRYPOINT [{json}]",
    "volume": "VOLUME {raw}",
    "volume-json": 'VOLUME ["/v", {json}]',
    "expose": "EXPOSE {raw}",
    "stopsignal": "STOPSIGNAL {word}",
    "healthcheck": "HEALTHCHECK CMD {raw}",
    "healthcheck-json": "HEALTHCHECK --interval=3s CMD [{json}]",
    "healthcheck-option": "HEALTHCHECK --interval={raw} CMD true",
    "onbuild": "ONBUILD RUN {raw}",
    "comment": "# {raw}",
    "comment-within": "RUN true \\\n# {raw}\n  && true",
    "copy-source": "COPY {word} /x/",
    "copy-source-json": 'COPY [{json}, "/x/"]',
    "copy-destination": "COPY plain /{word}",
    "copy-destination-json": 'COPY ["plain", {json}]',
    "copy-directory-json": 'COPY ["plain", "dir", {json}]',
    "copy-chown": "COPY --chown={word} plain /x",
    "copy-chown-raw": "COPY --chown={raw} plain /x",
    "copy-chmod": "COPY --chmod={word} plain /x",
    "copy-from": "COPY --from={word} plain /x",
    "copy-exclude": "COPY --exclude={word} plain /x",
    "copy-wildcard": "COPY pla*{word} /x/",
    "copy-heredoc": "COPY <<EOF /x\n{raw}\nEOF",
    "copy-heredoc-quoted": "COPY <<'EOF' /x\n{raw}\nEOF",
    "copy-heredoc-name": 'COPY <<"{raw}" /x/\ntext\n{raw}',
    "copy-heredoc-to": "COPY <<EOF /{word}\ntext\nEOF",
    "add": "ADD {word} /x/",
    "add-checksum": "ADD --checksum={word} plain /x",
    "mount-target": "RUN --mount=type=cache,target={raw} true",
    "mount-target-quoted": 'RUN --mount=type=tmpfs,"target={raw}" true',
    "mount-source": "RUN --mount=type=bind,source={raw},target=/m true",
    "mount-from": "RUN --mount=type=bind,from={raw},target=/m true",
    "mount-id": "RUN --mount=type=cache,id={raw},target=/m true",
    "mount-secret": "RUN --mount=type=secret,id={raw} true",
    "mount-secret-env": "RUN --mount=type=secret,id=s,env={raw} true",
    "network": "RUN --network={raw} true",
    "run-json": 'RUN ["true", {json}]',
    "run-heredoc-interpreter": "RUN <<'EOF' true\n{raw}\nEOF",
}

_HEADS = {
    "syntax": "# syntax={raw}\nFROM debian:bookworm",
    "global-arg": "ARG A={word}\nFROM debian:bookworm\nARG A",
    "stage-name": "FROM debian:bookworm AS {raw}",
    "base": "FROM {word}",
    "platform": "FROM --platform={word} debian:bookworm",
    "base-from-arg": "ARG A={word}\nFROM debian:$A",
}


def dockerfiles() -> Iterator[tuple[str, bytes]]:
    """Every field with every payload; names and contents. Many of them are wrong."""
    for payload_name, payload in PAYLOADS.items():
        for field, template in _FIELDS.items():
            text = f"FROM debian:bookworm\n{_filled(template, payload)}\nRUN true\n"
            yield f"{field}-{payload_name}", text.encode("utf-8", "surrogateescape")
        for field, template in _HEADS.items():
            text = f"{_filled(template, payload)}\nRUN true\n"
            yield f"{field}-{payload_name}", text.encode("utf-8", "surrogateescape")


def _filled(template: str, payload: str) -> str:
    word = "".join(f"\\{letter}" if letter in "\\'\"$ `" else letter for letter in payload)
    # JSON in a Dockerfile is UTF-8: what cannot be said in it is left out.
    text = payload.encode("utf-8", "ignore").decode()
    return template.format(word=word, raw=payload, json=json.dumps(text, ensure_ascii=False))
