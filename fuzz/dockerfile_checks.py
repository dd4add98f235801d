"""What must hold for any Dockerfile: it is a Recipe that can be relied on, or one line that says what is wrong."""

from __future__ import annotations

from converter.dockerfile import parser, stages
from converter.dockerfile.model import Copy, ImageSource, Recipe, Run, StageSource, Step, Workdir
from converter.dockerfile.options import BuildOptions
from converter.errors import ConversionError
from converter.image.model import ImageConfig

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def stand_in_config(source: ImageSource) -> ImageConfig:
    """Any image is there, and has what most images have."""
    return ImageConfig(env=(PATH,), cmd=("/bin/sh",))


def recipe_of(data: bytes, options: BuildOptions | None = None, config: ImageConfig | None = None) -> Recipe:
    """Read and evaluate; raises ConversionError, and AssertionError for a Recipe that nobody could rely on."""
    dockerfile = parser.read("Dockerfile", data)

    def base_config(source: ImageSource) -> ImageConfig:
        return config or stand_in_config(source)

    recipe = stages.evaluate(dockerfile, options or BuildOptions(), base_config)
    check_recipe(recipe)
    return recipe


def recipe_or_error(data: bytes, config: ImageConfig | None = None) -> Recipe | str:
    """The Recipe, or the one line that says why there is none."""
    try:
        return recipe_of(data, config=config)
    except ConversionError as error:
        line = str(error)
        assert line and line.isprintable(), repr(line)
        return line


def check_dockerfile(data: bytes) -> int:
    """For the fuzzer; the return value is how many steps there are, 0 for what is refused."""
    recipe = recipe_or_error(data)
    return 0 if isinstance(recipe, str) else sum(len(stage.steps) for stage in recipe.stages)


def check_recipe(recipe: Recipe) -> None:
    """What scripts and builds take for granted."""
    done: set[int] = set()
    for stage in recipe.stages:
        assert stage.needs() <= done, "a stage stands before one that it takes from"
        assert stage.index not in done
        done.add(stage.index)
        numbers = [step.number for step in stage.steps]
        assert numbers == list(range(1, len(numbers) + 1)), numbers
        for step in stage.steps:
            _check_step(step)
    assert recipe.target in recipe.stages
    assert recipe.target.index == recipe.stages[-1].index


def _check_step(step: Step) -> None:
    state = step.state
    for pairs in (state.env, state.args):
        names = [name for name, _ in pairs]
        assert len(set(names)) == len(names), names
    assert not {name for name, _ in state.env} & {name for name, _ in state.args}
    assert state.working_directory.startswith("/")
    assert state.shell
    texts = [text for pair in (*state.env, *state.args) for text in pair]
    texts += [state.user, state.working_directory]
    if isinstance(step, Run):
        assert step.argv
        texts += step.argv
        for mount in step.mounts:
            assert mount.origin is None or isinstance(mount.origin, StageSource | ImageSource)
    if isinstance(step, Copy):
        assert step.destination.startswith("/"), step.destination
        assert step.sources or step.inline
        texts += [*step.sources, step.destination]
    if isinstance(step, Workdir):
        assert ".." not in state.working_directory.split("/")
    # The kernel ends strings there: nothing could be given such a value.
    assert not any("\0" in text for text in texts)
