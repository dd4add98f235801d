"""Values of variables, quotes and escapes as BuildKit has them, and configs as Docker has written them; no Docker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from converter.dockerfile.model import ImageSource, Recipe
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.parser import read
from converter.dockerfile.stages import evaluate
from converter.errors import ConversionError
from converter.image.model import ImageConfig
from tests.dockerfiles import expressions
from tests.dockerfiles.built import CONFIGS, config_differences, read_config, shown_config
from tests.dockerfiles.cases import CASES
from tests.dockerfiles.listed import is_decided_otherwise

_SAID: dict[str, dict[str, Any]] = json.loads(CONFIGS.read_text())


def _base_config(source: ImageSource) -> ImageConfig:
    """The configs of the lab's images: those that are imported have none."""
    return read_config(_SAID.get(source.name.removeprefix("equal/"), {}))


def _evaluate(text: str | bytes, options: BuildOptions) -> Recipe:
    data = text.encode() if isinstance(text, str) else text
    return evaluate(read("Dockerfile", data), options, _base_config)


def _value(text: str) -> str | None:
    try:
        recipe = _evaluate(expressions.dockerfile([text]), BuildOptions())
    except ConversionError:
        return None
    return recipe.target.config.labels["e0"]


def test_values_are_buildkits() -> None:
    said = expressions.measured()
    wrong = {text: (value, ours) for text, value in said.items() if (ours := _value(text)) != value}
    assert not wrong, "\n".join(
        f"{text}: BuildKit {one!r}, here {two!r}" for text, (one, two) in wrong.items()
    )


@pytest.mark.parametrize("name", [name for name in _SAID if not is_decided_otherwise(name)])
def test_config_is_dockers(name: str) -> None:
    case = CASES[name]
    options = BuildOptions(target=case.target, build_args=case.build_args)
    ours = _evaluate(case.dockerfile, options).target.config
    assert not list(map(str, config_differences(_SAID[name], shown_config(ours))))
