"""Study files: stages, references between them, and the steps they expand to.

    name: demo
    stages:
      - id: world
        verb: data world
        config: {pairs: 4000}
      - id: train
        verb: train reward
        foreach: {fold: [0, 1, 2]}
        config: {data: "${world}/fold-${fold}/train.jsonl"}
      - id: compare
        verb: evaluate accuracy
        config: {scores: "${train}/scores.parquet", first: "${train[0]}/scores.parquet"}

`${world}` is the folder of an earlier stage. A stage with `foreach` becomes a step for every combination of its
values (the last name varies fastest); a text with `${train}` then becomes a list with one text per step, and
`${train[1]}` is the second step alone. `${train[fold=1]}` are the steps with that value; where every name of the
`foreach` is given, it is that one step and no list. `${fold}` is a value of the stage's own `foreach`. Values may have
labels, by which they are selected, and may refer to earlier stages and to the other names:

      - id: train
        verb: train reward
        foreach:
          arm: {plain: [], cut: [{name: cut, table: "${map[fold=${fold}]}/cartography.parquet", low: 0}]}
          fold: [0, 1]
        config: {interventions: "${arm}"}
      - id: score
        verb: score
        foreach: {arm: [plain, cut], fold: [0, 1]}
        config: {model: "${train[arm=${arm},fold=${fold}]}/model"}

`${train[arm=*]}` is a mapping from every label of `arm` to what `${train[arm=LABEL]}` is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from rewardlab.config import Config, Key, flow, nearest, place_of, read_yaml
from rewardlab.errors import ConfigError, Problem
from rewardlab.studies.verbs import VERBS, Verb, verb_named

SHIPPED = "rewardlab.studies"
PUBLISHED = "published"
"""Folder of the shipped studies that have the settings of published experiments, and need the hub and GPUs."""
SUPERSEDED = "superseded"
"""Folder in a study's folder that keeps results of earlier configurations."""
COMMON_FIELDS = ("limit", "device")
"""Fields that a study's flags set in every stage that has them."""

_NAME = r"[A-Za-z0-9_-]+"
_VARIABLE = re.compile(rf"\$\{{({_NAME})\}}")
_SELECTED = rf"{_NAME}=[^][,={{}}$]+"
_REFERENCE = re.compile(rf"\$\{{({_NAME})(?:\[(\d+|{_SELECTED}(?:,{_SELECTED})*)\])?\}}")
_BY_LABEL = re.compile(rf"(\$\{{({_NAME})\[(?:[^][]*,)?({_NAME})=)\*(?=[],])")


class Stage(Config):
    """One stage of a study."""

    id: str = Field(pattern=rf"^{_NAME}$")
    """Name of its folder; what `${id}` refers to."""
    verb: str
    """What runs, e.g. `train reward`."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Its configuration."""
    foreach: dict[str, list[Any] | dict[str, Any]] = Field(default_factory=dict)
    """Names and values, or labels with values: a step for every combination."""

    @model_validator(mode="after")
    def _combinations_without_doubt(self) -> Self:
        for name, values in self.foreach.items():
            labels = [str(one) for one in values]
            if not labels or len(set(labels)) < len(labels):
                raise ValueError(f"expected foreach.{name} to hold one value or more, each once")
        return self


class Study(Config):
    """A pipeline of stages, run from first to last."""

    name: str = Field(pattern=rf"^{_NAME}$")
    """Name of its folder of results."""
    description: str = ""
    """What it is for."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    """In the order they run."""

    @model_validator(mode="after")
    def _one_folder_per_stage(self) -> Self:
        ids = [stage.id for stage in self.stages]
        taken = sorted({name for name in ids if ids.count(name) > 1} | ({SUPERSEDED} & set(ids)))
        if taken:
            raise ValueError(f"stage ids that are unique and not {SUPERSEDED!r} (given: {', '.join(taken)})")
        return self


@dataclass(frozen=True)
class Step:
    """A stage, or one combination of its `foreach`, ready to run.

    Attributes:
        name: its folder's name in the study's folder.
        verb: what runs.
        verb_name: what it is called.
        config: resolved, validated.
        needs: names of the steps whose folders it reads.
    """

    name: str
    verb: Verb
    verb_name: str
    config: Config
    needs: frozenset[str]

    def command(self, shown: Callable[[Any], Any] = lambda values: values) -> list[str]:
        """The words that run this step alone, on what the steps it needs have left; `shown` as of `Config.as_flags`."""
        flags = [word for name, text in self.config.as_flags(shown) for word in (f"--{name}", text)]
        return ["rewardlab", *self.verb_name.split(), *flags]


@dataclass(frozen=True)
class StudyFile:
    """A study and where its values stand in its file, for messages."""

    study: Study
    origins: Mapping[Key, str]

    @classmethod
    def find(cls, name: str) -> StudyFile:
        """The study in the file `name`, or the shipped one of that name, published or not.

        Raises:
            ConfigError: neither exists, or the file is not a study.
        """
        path = Path(name)
        # The results of a shipped study may lie in a folder of its name.
        if path.exists() and not path.is_dir():
            return cls.read(path)
        folder = resources.files(SHIPPED)
        shipped = [place.joinpath(f"{name}.yaml") for place in (folder, folder.joinpath(PUBLISHED))]
        found = next((file for file in shipped if re.fullmatch(_NAME, name) and file.is_file()), None)
        if found is not None:
            with resources.as_file(found) as file:
                return cls.read(file)
        expected = "a study file, or the name of a shipped study"
        hint = nearest(path.stem, [*shipped_studies(), *published_studies()])
        raise ConfigError("no such study", [Problem("study", f"{name!r}, and no such file", expected, hint)])

    @classmethod
    def read(cls, path: Path) -> StudyFile:
        """The study in a YAML file.

        Raises:
            ConfigError: with every problem found.
        """
        problems: list[Problem] = []
        origins: dict[Key, str] = {}
        values = read_yaml(path, problems, origins)
        if problems:
            raise ConfigError(f"cannot read the study {path}", problems)
        try:
            return cls(Study.build(values, origins=origins), origins)
        except ConfigError as error:
            raise ConfigError(f"cannot use the study {path}", error.problems) from error

    def steps(
        self, folder: Path, flags: Sequence[tuple[str, str]] = (), verbs: Mapping[str, Verb] = VERBS
    ) -> list[Step]:
        """Every step in order, its configuration validated.

        Args:
            folder: the study's folder of results, which references lead to.
            flags: (`stages.<id>.<field>`, text) changes one stage, (`limit` or `device`, text) every stage that
                has the field.
            verbs: what stages can run.

        Raises:
            ConfigError: with every problem of every stage.
        """
        problems = _unknown_flags(self.study, flags)
        earlier: dict[str, list[_Combination]] = {}
        steps: list[Step] = []
        for index, stage in enumerate(self.study.stages):
            place = ("stages", str(index))
            origins = {key[2:]: origin for key, origin in self.origins.items() if key[:2] == place}
            scope = _Scope(stage.id, folder, earlier, origins.get(("config",), ""), problems)
            combinations = _combinations(stage)
            for one in combinations:
                step = _step(one.name, stage, replace(scope, variables=one.values), flags, origins, verbs)
                steps += [step] if step else []
            earlier[stage.id] = combinations
        if problems:
            # The steps of one stage share most of their problems.
            raise ConfigError(f"the study {self.study.name} cannot run", list(dict.fromkeys(problems)))
        return steps


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package and run on a small machine."""
    return _names_in(resources.files(SHIPPED))


def published_studies() -> list[str]:
    """Names of those that have the settings of published experiments: they need the hub and GPUs."""
    return _names_in(resources.files(SHIPPED).joinpath(PUBLISHED))


def _names_in(folder: Traversable) -> list[str]:
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


@dataclass(frozen=True)
class _Combination:
    """A combination of a stage's `foreach`.

    Attributes:
        name: of its step.
        values: of every name.
        labels: by which every name's value is selected.
    """

    name: str
    values: Mapping[str, Any]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class _Scope:
    """What `${...}` can mean in one step, and where problems go.

    Attributes:
        stage: id of the step's stage.
        folder: the study's.
        earlier: the combinations of every earlier stage.
        place: where the stage's configuration stands in the file.
        problems: added to.
        variables: values of the stage's `foreach` in this step.
    """

    stage: str
    folder: Path
    earlier: Mapping[str, Sequence[_Combination]]
    place: str
    problems: list[Problem]
    variables: Mapping[str, Any] = field(default_factory=dict)

    def filled(self, value: Any, needs: set[str]) -> Any:
        """`value` with variables and references replaced; names of the steps referred to are added to `needs`."""
        if isinstance(value, Mapping):
            return {key: self.filled(inner, needs) for key, inner in value.items()}
        if isinstance(value, list):
            return list(self._spliced(value, needs))
        if not isinstance(value, str):
            return value
        whole = _VARIABLE.fullmatch(value)
        if whole and whole[1] in self.variables:
            others = {name: one for name, one in self.variables.items() if name != whole[1]}
            return replace(self, variables=others).filled(self.variables[whole[1]], needs)
        text = _VARIABLE.sub(lambda match: str(self.variables.get(match[1], match[0])), value)
        return self._referred(text, needs)

    def _spliced(self, values: Sequence[Any], needs: set[str]) -> Iterator[Any]:
        for value in values:
            filled = self.filled(value, needs)
            if isinstance(value, str) and isinstance(filled, list):
                yield from filled
            else:
                yield filled

    def _referred(self, text: str, needs: set[str]) -> str | list[str] | dict[str, Any]:
        for match in _BY_LABEL.finditer(text):
            before, after = text[: match.end(1)], text[match.end() :]
            labels = [one.labels[match[3]] for one in self.earlier.get(match[2], ()) if match[3] in one.labels]
            if labels:
                return {label: self._referred(before + label + after, needs) for label in dict.fromkeys(labels)}
        found = [self._steps(match[1], match[2]) for match in _REFERENCE.finditer(text)]
        known = [steps for steps in found if steps is not None]
        if len(known) < len(found):
            return text
        many = {tuple(steps) for steps in known if not isinstance(steps, str)}
        if len(many) > 1:
            self._add(text, "references to one stage with foreach at most")
            return text
        texts = []
        for number in range(len(min(many)) if many else 1):
            names = [steps if isinstance(steps, str) else steps[number] for steps in known]
            needs.update(names)
            texts.append(_replaced(text, [str(self.folder / name) for name in names]))
        return texts if many else texts[0]

    def _steps(self, stage: str, selector: str | None) -> str | list[str] | None:
        """The step, or the list of steps, that `${stage[selector]}` means; None after telling that there is none."""
        if stage not in self.earlier:
            known = [*self.variables, *self.earlier]
            self._add(f"${{{stage}}}", "an earlier stage or a foreach name", nearest(stage, known))
            return None
        steps = self.earlier[stage]
        if selector is None:
            return steps[0].name if steps[0].name == stage else [one.name for one in steps]
        whole = f"${{{stage}[{selector}]}}"
        if steps[0].name == stage:
            self._add(whole, f"${{{stage}}}: the stage has no foreach")
            return None
        if selector.isdigit():
            if int(selector) < len(steps):
                return steps[int(selector)].name
            self._add(whole, f"one of the {len(steps)} steps of {stage}, counted from 0")
            return None
        return self._selected(whole, steps, dict(part.split("=") for part in selector.split(",")))

    def _selected(
        self, whole: str, steps: Sequence[_Combination], selected: Mapping[str, str]
    ) -> str | list[str] | None:
        for name, label in selected.items():
            labels = list(dict.fromkeys(one.labels.get(name, "") for one in steps))
            if name not in steps[0].labels:
                self._add(whole, "a name of the stage's foreach", nearest(name, list(steps[0].labels)))
                return None
            if label not in labels:
                self._add(whole, f"a value of {name}", nearest(label, labels))
                return None
        found = [one.name for one in steps if selected.items() <= one.labels.items()]
        return found[0] if len(selected) == len(steps[0].labels) else found

    def _add(self, found: str, expected: str, remedy: str = "") -> None:
        where = f"{self.place}, stage {self.stage}" if self.place else f"stage {self.stage}"
        self.problems.append(Problem(where, found, expected, remedy))


def _replaced(text: str, folders: Sequence[str]) -> str:
    """`text` with its references, from left to right, replaced by `folders`."""
    upcoming = iter(folders)
    return _REFERENCE.sub(lambda _: next(upcoming), text)


def _combinations(stage: Stage) -> list[_Combination]:
    """Every combination of the values of `foreach`; one without values where there is none."""
    if not stage.foreach:
        return [_Combination(stage.id, {}, {})]
    labelled = [
        list(values.items()) if isinstance(values, dict) else [(str(one), one) for one in values]
        for values in stage.foreach.values()
    ]
    combinations = []
    for number, chosen in enumerate(itertools.product(*labelled)):
        values = {name: value for name, (_, value) in zip(stage.foreach, chosen, strict=True)}
        labels = {name: label for name, (label, _) in zip(stage.foreach, chosen, strict=True)}
        combinations.append(_Combination(f"{stage.id}.{number}", values, labels))
    return combinations


def _step(
    name: str,
    stage: Stage,
    scope: _Scope,
    flags: Sequence[tuple[str, str]],
    origins: Mapping[Key, str],
    verbs: Mapping[str, Verb],
) -> Step | None:
    """The step, or None after adding its problems to the scope's; `origins` are those of the stage."""
    needs: set[str] = set()
    values = scope.filled(stage.config, needs)
    places = {key[1:]: origin for key, origin in origins.items() if key[:1] == ("config",)}
    try:
        verb = verb_named(stage.verb, verbs, place_of(("verb",), origins))
        kind = verb.config_class()
        own = [(flag, _filled_flag(text, scope, needs)) for flag, text in _flags_of(stage.id, kind, flags)]
        config = kind.build(values, flags=own, origins=places)
        # A template that is not there is told now, and not when hours of other steps are over.
        config.pinned(offline=True)
    except ConfigError as error:
        common = {f"--{flag}" for flag, _ in flags if flag in COMMON_FIELDS}
        scope.problems.extend(p if p.where in common else _of_stage(p, stage.id) for p in error.problems)
        return None
    return Step(name, verb, stage.verb, config, frozenset(needs))


def _filled_flag(text: str, scope: _Scope, needs: set[str]) -> str:
    filled = scope.filled(text, needs)
    if isinstance(filled, str):
        return filled
    return flow(filled)


def _flags_of(stage: str, kind: type[Config], flags: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    prefix = f"stages.{stage}."
    common = [(name, text) for name, text in flags if name in COMMON_FIELDS and name in kind.model_fields]
    return common + [(name.removeprefix(prefix), text) for name, text in flags if name.startswith(prefix)]


def _of_stage(problem: Problem, stage: str) -> Problem:
    if problem.where.startswith("--"):
        return replace(problem, where=f"--stages.{stage}.{problem.where[2:]}")
    return replace(problem, where=f"{problem.where} (stage {stage})")


def _unknown_flags(study: Study, flags: Sequence[tuple[str, str]]) -> list[Problem]:
    known = [*COMMON_FIELDS, *(f"stages.{stage.id}" for stage in study.stages)]
    problems = []
    for name, _ in flags:
        stage = ".".join(name.split(".")[:2])
        if name in COMMON_FIELDS or (stage in known and stage != name):
            continue
        hint = "" if stage in known else nearest(stage, known)
        problems.append(Problem(f"--{name}", "an unknown flag", "--stages.<id>.<field>", hint))
    return problems
