"""From a Dockerfile to a Recipe: its stages, evaluated as BuildKit does it (dockerfile2llb/convert.go).

Only the stages that the target needs are evaluated; what can be told of an instruction alone is checked everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from converter.dockerfile.check import check, stage_name
from converter.dockerfile.copies import make_copy
from converter.dockerfile.draft import Draft, expansion_error
from converter.dockerfile.expand import Expander, ExpansionError
from converter.dockerfile.flags import flag_error, parse_flags
from converter.dockerfile.model import (
    Dockerfile,
    DockerfileError,
    Flag,
    ImageSource,
    Instruction,
    Recipe,
    Stage,
    StageSource,
)
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.parser import near, read
from converter.dockerfile.runs import make_run
from converter.dockerfile.settings import apply_setting
from converter.dockerfile.variables import Variables, names_in, platform_arguments, unused
from converter.errors import ConversionError
from converter.image.model import ImageConfig, Platform, parse_platform
from converter.image.name import parse_image_name

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCRATCH = "scratch"
_SCRATCH_CONFIG = ImageConfig(env=(f"PATH={DEFAULT_PATH}",), working_dir="/")


def evaluate(
    dockerfile: Dockerfile, options: BuildOptions, base_config: Callable[[ImageSource], ImageConfig]
) -> Recipe:
    """Evaluate what `options.target` needs. `base_config` tells what an image's config is, and is asked once for each.

    Raises DockerfileError, and what base_config raises at the place of its FROM.
    """
    return _Evaluation(dockerfile, options, base_config).recipe()


@dataclass(frozen=True)
class _Part:
    """A stage as it is written: FROM, and the instructions below it. `base` is a stage's index or an image's name."""

    index: int
    name: str | None
    instruction: Instruction
    instructions: tuple[Instruction, ...]
    base: int | str
    platform: Platform | None


class _Evaluation:
    def __init__(
        self, dockerfile: Dockerfile, options: BuildOptions, base_config: Callable[[ImageSource], ImageConfig]
    ) -> None:
        self.file = dockerfile.file
        self.options = options
        self.base_config = base_config
        self.configs: dict[ImageSource, ImageConfig] = {}
        self.expander = Expander(dockerfile.escape)
        self.warnings = list(dockerfile.warnings)
        self.declared: set[str] = set()
        self.global_arguments = platform_arguments(options)
        for instruction in dockerfile.instructions:
            check(instruction)
        self.names: dict[str, int] = {}
        self.parts: list[_Part] = []
        self._split(dockerfile.instructions)
        self.drafts: dict[int, Draft] = {}

    def recipe(self) -> Recipe:
        target = self._target()
        wanted = [target]
        stages: dict[int, Stage] = {}
        while wanted:
            index = wanted.pop()
            if index not in stages:
                stages[index] = _finished(self._draft(index))
                wanted.extend(stages[index].needs())
        for part in self.parts:
            if part.index not in stages:
                self._check_unused(part)
        if names := unused(self.options.build_args, self.declared, self.options):
            self.warnings.append(f"One or more build-args [{' '.join(names)}] were not consumed")
        # A stage takes only from those above it, so their order is one in which they can be built.
        ordered = tuple(stages[index] for index in sorted(stages))
        return Recipe(self.file, ordered, stages[target], tuple(dict.fromkeys(self.warnings)))

    # The stages as they are written

    def _split(self, instructions: Sequence[Instruction]) -> None:
        starts = [at for at, instruction in enumerate(instructions) if instruction.keyword == "FROM"]
        for instruction in instructions[: starts[0]] if starts else instructions:
            if instruction.keyword != "ARG":
                raise instruction.error(
                    "no build stage in current context", "only ARG may stand before the first FROM"
                )
            self._declare(instruction)
        if not starts:
            last = instructions[-1]
            raise DockerfileError(
                self.file, last.line, 1, "dockerfile contains no stages to build", "add FROM IMAGE"
            )
        for index, (start, end) in enumerate(zip(starts, [*starts[1:], len(instructions)], strict=True)):
            self._begin(index, instructions[start], tuple(instructions[start + 1 : end]))
        for part in self.parts:
            for instruction in part.instructions:
                if instruction.keyword == "ARG":
                    self.declared.update(word.partition("=")[0] for word in instruction.words)

    def _declare(self, instruction: Instruction) -> None:
        """An ARG before the first FROM."""
        for word in instruction.words:
            name, equals, default = word.partition("=")
            self.declared.add(name)
            value = self.options.build_args.get(name)
            if value is None and equals:
                value = self._global(instruction, default)
            self.global_arguments[name] = value

    def _global(self, instruction: Instruction, word: str) -> str:
        known = {name: value or "" for name, value in self.global_arguments.items()}
        try:
            return self.expander.word(word, known)
        except ExpansionError as error:
            raise expansion_error(instruction, word, error) from None

    def _begin(self, index: int, instruction: Instruction, instructions: tuple[Instruction, ...]) -> None:
        name = stage_name(instruction)
        written = instruction.words[0]
        base = self._global(instruction, written)
        if not base:
            raise instruction.error(
                f"base name ({written}) should not be blank", self._argument_hint(written)
            )
        # An image's name is lower case: a name that is written otherwise can only be a stage's.
        stage = self.names.get(base.lower())
        if stage is None and base != SCRATCH:
            self._check_image(instruction, None, base, written)
        self.parts.append(
            _Part(
                index,
                name,
                instruction,
                instructions,
                base if stage is None else stage,
                self._platform(instruction),
            )
        )
        if name:
            self.names[name] = index

    def _platform(self, instruction: Instruction) -> Platform | None:
        flag = parse_flags(instruction).find("platform")
        if flag is None or not flag.value:
            return None
        text = self._global(instruction, flag.value)
        try:
            return parse_platform(text)
        except ConversionError as error:
            hint = self._argument_hint(flag.value)
            raise flag_error(instruction, flag, f"failed to parse platform {text}: {error}", hint) from None

    def _argument_hint(self, word: str) -> str:
        for name in names_in(word):
            if self.global_arguments.get(name) is None:
                hint = near(name, [known for known in self.global_arguments if known != name])
                return (
                    hint or f"give ARG {name} a value before the first FROM, or use --build-arg {name}=VALUE"
                )
        return ""

    def _check_image(self, instruction: Instruction, flag: Flag | None, name: str, written: str) -> None:
        try:
            parse_image_name(name)
        except ConversionError as error:
            hint = self._argument_hint(written) or near(name, self._stage_names(len(self.parts)))
            line, column = (flag.line, flag.column) if flag else (instruction.line, instruction.column)
            raise DockerfileError(instruction.file, line, column, str(error), hint) from None

    def _stage_names(self, before: int) -> list[str]:
        return [part.name for part in self.parts[:before] if part.name]

    def _target(self) -> int:
        wanted = self.options.target
        if not wanted:
            return len(self.parts) - 1
        if wanted.lower() in self.names:
            return self.names[wanted.lower()]
        if wanted.isascii() and wanted.isdigit() and int(wanted[:9]) < len(self.parts):
            return int(wanted)
        names = self._stage_names(len(self.parts))
        hint = near(wanted, names) or (
            f"the stages are {', '.join(names)}" if names else "no stage has a name; give its number"
        )
        raise ConversionError(f'{self.file}: target stage "{wanted}" could not be found; {hint}')

    # Evaluation

    def _draft(self, index: int) -> Draft:
        """The stage evaluated, and before it the stages that it is made from."""
        chain = []
        base: int | str = index
        while isinstance(base, int) and base not in self.drafts:
            chain.append(base)
            base = self.parts[base].base
        for below in reversed(chain):
            draft = self.drafts[below] = self._begun(self.parts[below])
            for instruction in (*self._triggers(draft), *self.parts[below].instructions):
                _step(draft, instruction)
        return self.drafts[index]

    def _begun(self, part: _Part) -> Draft:
        base: ImageSource | StageSource | None
        variables = Variables()
        platform = part.platform or self.options.platform
        if isinstance(part.base, int):
            below = self.drafts[part.base]
            base, base_config, variables = StageSource(part.base), below.config, below.variables
            platform = below.platform
        elif part.base == SCRATCH:
            base, base_config = None, _SCRATCH_CONFIG
            platform = self.options.platform
        else:
            base = ImageSource(part.base, self._foreign(part.platform))
            base_config = self._config(part.instruction, base)
        config = replace(base_config, created="")
        if not any(entry.partition("=")[0] == "PATH" for entry in config.env):
            config = replace(config, env=(*config.env, f"PATH={DEFAULT_PATH}"))
        return Draft(
            index=part.index,
            name=part.name,
            instruction=part.instruction,
            base=base,
            base_config=base_config,
            platform=platform,
            config=config,
            variables=variables.inherited(config.env),
            expander=self.expander,
            options=self.options,
            global_arguments=self.global_arguments,
            warn=self.warnings.append,
            find=lambda instruction, flag, name: self._find(part.index, instruction, flag, name),
        )

    def _foreign(self, platform: Platform | None) -> Platform | None:
        """The platform to ask for, where it is not just that of this machine."""
        if platform is None and self.options.platform != self.options.build_platform:
            return self.options.platform
        return platform

    def _config(self, instruction: Instruction, source: ImageSource) -> ImageConfig:
        if source not in self.configs:
            try:
                self.configs[source] = self.base_config(source)
            except DockerfileError:
                raise
            except ConversionError as error:
                hint = near(source.name, self._stage_names(len(self.parts)))
                raise instruction.error(str(error), hint) from None
        return self.configs[source]

    def _triggers(self, draft: Draft) -> list[Instruction]:
        """The base's ONBUILD instructions. They are run once: the stage's own config does not have them."""
        found = []
        for trigger in draft.config.on_build:
            place = draft.instruction
            name = f"{place.file}:{place.line}: ONBUILD of {' '.join(place.words[:1])}"
            instructions = read(name, trigger.encode(errors="replace")).instructions
            if len(instructions) != 1:
                raise place.error("onbuild trigger should be a single expression", "mend the base image")
            instruction = instructions[0]
            if instruction.keyword in ("ONBUILD", "MAINTAINER", "FROM"):
                raise place.error(
                    f"{instruction.keyword} isn't allowed as an ONBUILD trigger", "mend the base image"
                )
            instruction = _moved(instruction, place)
            check(instruction)
            if instruction.keyword == "ARG":
                self.declared.update(word.partition("=")[0] for word in instruction.words)
            found.append(instruction)
        draft.change(on_build=())
        return found

    def _find(
        self, index: int, instruction: Instruction, flag: Flag | None, name: str
    ) -> StageSource | ImageSource:
        """What `--from=NAME` of the stage `index` is."""
        found = self._find_stage(instruction, flag, name)
        label = self.parts[index].name or str(index)
        if found == index:
            raise _at(
                instruction,
                flag,
                f"circular dependency detected on stage: {label}",
                "a stage cannot copy from itself",
            )
        if found is not None and found > index:
            verb = "mount" if instruction.keyword == "RUN" else "copy"
            raise _at(
                instruction,
                flag,
                f'cannot {verb} from stage "{name}", it needs to be defined before current stage "{label}"',
                f"move stage {name} up",
            )
        if found is not None:
            return StageSource(found)
        if name != SCRATCH:
            self._check_image(instruction, flag, name, name)
            if hint := near(name, self._stage_names(index), likeness=0.8):
                text = f'"{name}" is no stage, so it is taken for an image'
                self.warnings.append(f"{instruction.file}:{instruction.line}: {text}; {hint}")
        return ImageSource(name, self._foreign(None))

    def _find_stage(self, instruction: Instruction, flag: Flag | None, name: str) -> int | None:
        if instruction.keyword != "RUN" and name.isascii() and name.removeprefix("-").isdigit():
            number = int(name[:9])
            if not 0 <= number < len(self.parts):
                hint = f"the stages are 0 to {len(self.parts) - 1}"
                raise _at(instruction, flag, f"invalid stage index {name}", hint)
            return number
        return self.names.get(name.lower())

    def _check_unused(self, part: _Part) -> None:
        """A stage that nothing needs must still name stages that there are, and not itself."""
        for instruction in part.instructions:
            flag = parse_flags(instruction).find("from") if instruction.keyword == "COPY" else None
            if flag and flag.value and self._find_stage(instruction, flag, flag.value) == part.index:
                self._find(part.index, instruction, flag, flag.value)


def _step(draft: Draft, instruction: Instruction) -> None:
    match instruction.keyword:
        case "RUN":
            draft.steps.append(make_run(draft, instruction))
        case "COPY" | "ADD":
            draft.steps.append(make_copy(draft, instruction))
        case _:
            draft.steps.append(apply_setting(draft, instruction))


def _finished(draft: Draft) -> Stage:
    return Stage(
        index=draft.index,
        name=draft.name,
        instruction=draft.instruction,
        base=draft.base,
        base_config=draft.base_config,
        steps=tuple(draft.steps),
        config=draft.config,
        platform=draft.platform,
    )


def _moved(instruction: Instruction, place: Instruction) -> Instruction:
    """A trigger of the base, with FROM's place: that is what the user can change."""
    return replace(
        instruction,
        file=place.file,
        line=place.line,
        end_line=place.end_line,
        column=place.column,
        flags=tuple(replace(flag, line=place.line, column=place.column) for flag in instruction.flags),
    )


def _at(instruction: Instruction, flag: Flag | None, text: str, hint: str) -> DockerfileError:
    return flag_error(instruction, flag, text, hint) if flag else instruction.error(text, hint)
