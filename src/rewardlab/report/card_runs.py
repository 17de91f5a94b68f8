"""Which of the runs that a card is given are about its model, and what they call it.

A model is known by its content. An evaluation names score tables, a gain answers: what they were made with stands in
the records of the runs that made them, and these are believed only while their content is what the evaluation read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rewardlab.audit.effects_file import EFFECTS_STEP
from rewardlab.data.files import is_hub_id
from rewardlab.errors import DataError, InputError, Problem
from rewardlab.models.card import POLICY, REWARD
from rewardlab.models.located import CONFIG_NAME, MODEL, SIDECAR
from rewardlab.models.seal import known_contents
from rewardlab.report.frontier_inputs import read_frontier
from rewardlab.store.keys import RECORD, path_digest
from rewardlab.store.record import RunRecord
from rewardlab.store.shapes import read_object

FRONTIER = "evaluate frontier"
TRAININGS = {"train reward": REWARD, "train sft": POLICY, "train dpo": POLICY, "train exo": POLICY, "train ppo": POLICY}
MEASURES = {
    "evaluate accuracy": REWARD,
    "evaluate bench": REWARD,
    "evaluate perturb": REWARD,
    "evaluate cartography": REWARD,
    "audit effects": REWARD,
    "audit run": REWARD,
    FRONTIER: POLICY,
    "evaluate shift": POLICY,
    "evaluate toxicity": POLICY,
    "evaluate winrate": POLICY,
    "evaluate gain": POLICY,
    "evaluate policies": POLICY,
}
"""Verbs whose runs a card shows, and the kind of model that each is about."""
LINKS = ("score", "audit score", "audit rewrite", "sample")
"""Verbs whose runs say what others measured; they may be given where they lie elsewhere than before."""
POLICIES, BEST = "policies", "best"
_STEP = re.compile(r"step-(\d+)")
_KEY_LENGTH = 16


@dataclass(frozen=True)
class Data:
    """Data that a run read: a name that says nothing of this machine, and what stands for the content."""

    name: str
    key: str
    is_hub: bool = False
    split: str | None = None


@dataclass(frozen=True)
class Place:
    """The model in the files of one run.

    Attributes:
        names: what the run calls it: of scorers, sets or curves.
        seed: of a curve, the number of the training among those of its name; else None.
        step: of its training, at which it was saved; None where that is not known.
        others: further models that the same figures are about, as of folds.
        distances: names whose distance from a reference, taken from a frontier, is that of the model.
    """

    names: frozenset[str]
    seed: int | None = None
    step: int | None = None
    others: int = 0
    distances: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CardRun:
    """A run that is about the model.

    Attributes:
        folder: where its files are.
        record: of the run that was given; of an `audit run` that of the whole.
        config: its resolved configuration.
        place: where the model is in it.
        data: what was read.
    """

    folder: Path
    record: RunRecord
    config: Mapping[str, Any]
    place: Place
    data: tuple[Data, ...]

    @property
    def verb(self) -> str:
        """What ran."""
        return self.record.verb


@dataclass(frozen=True)
class Subject:
    """The model of a card.

    Attributes:
        folder: its folder.
        kind: REWARD or POLICY.
        contents: digests of the folder that are known.
        home: the training run that it lies in, where it does.
    """

    folder: Path
    kind: str
    contents: frozenset[str]
    home: Path | None

    @property
    def name(self) -> str:
        """What people call it: our runs call every result `model`."""
        folder = self.folder.resolve()
        if folder.name == MODEL:
            return folder.parent.name
        return folder.name if self.home is None else f"{self.home.name}-{folder.name}"


def subject_of(folder: Path) -> Subject:
    """The model in a folder.

    Raises:
        ModelError: no model there.
        DataError: a file that cannot be read.
    """
    contents = known_contents(folder)
    return Subject(folder, _kind_of(folder), contents, _home_of(folder))


def read_runs(subject: Subject, folders: Sequence[Path]) -> list[CardRun]:
    """The runs that are about the model, trainings first; the one that it lies in is among them.

    Raises:
        DataError: with every folder that is no finished run, or is about another model.
    """
    given: dict[Path, RunRecord] = {}
    problems: list[Problem] = []
    # A model that lies in a training that was stopped has a card too; how it was trained is not told then.
    home = [subject.home] if subject.home and RunRecord.read(subject.home).status == "done" else []
    for folder in [*home, *folders]:
        try:
            given.setdefault(folder.resolve(), _finished(folder))
        except InputError as error:
            problems += error.problems
    search = _Search(subject, list(given.values()))
    found: list[CardRun] = []
    for record in given.values():
        try:
            found += search.about(record)
        except InputError as error:
            problems += error.problems
    if problems:
        raise DataError("no card can be written of these runs", problems)
    order = [*TRAININGS, *MEASURES]
    return sorted(found, key=lambda run: order.index(run.verb))


def _kind_of(folder: Path) -> str:
    """What our own file beside the model says, or where there is none, the name of its class."""
    if (folder / SIDECAR).is_file():
        return POLICY if "policy" in read_object(folder / SIDECAR) else REWARD
    values = read_object(folder / CONFIG_NAME) if (folder / CONFIG_NAME).is_file() else {}
    return POLICY if any("LM" in str(one) for one in values.get("architectures") or ()) else REWARD


def _home_of(folder: Path) -> Path | None:
    """The training that a model lies in: `model`, `best` or `policies/step-...` of its run."""
    place = folder.resolve()
    for parent in (place.parent, place.parent.parent):
        with suppress(InputError):
            if (parent / RECORD).is_file() and RunRecord.read(parent).verb in TRAININGS:
                return parent
    return None


def _finished(folder: Path) -> RunRecord:
    if not (folder / RECORD).is_file():
        found = f"no {RECORD}" if folder.is_dir() else "no such folder"
        remedy = "Name the folder that a command of rewardlab wrote."
        raise DataError("no run", [Problem(str(folder), found, "the folder of a run", remedy)])
    record = RunRecord.read(folder)
    if record.status != "done":
        problem = Problem(str(folder), f"a run that is {record.status or 'unfinished'}", "one that is done")
        raise DataError("an unfinished run", [problem])
    return record


@dataclass
class _Search:
    """Looks for the model in runs.

    Attributes:
        subject: the model.
        given: runs in which others may be found again.
    """

    subject: Subject
    given: Sequence[RunRecord]
    _trainings: dict[str, Path] | None = None

    def about(self, record: RunRecord) -> list[CardRun]:
        """The run as a card shows it; nothing of one that only links others.

        Raises:
            DataError: it is about another model, or measures none.
        """
        verb = record.verb
        if verb in LINKS:
            return []
        if verb in TRAININGS:
            return [self._training(record)]
        if verb not in MEASURES:
            known = ", ".join([*TRAININGS, *MEASURES])
            problem = Problem(str(record.folder), f"a run of `{verb}`", f"one of {known}", "Leave it out.")
            raise DataError("no measure", [problem])
        if MEASURES[verb] != self.subject.kind:
            kinds = {REWARD: "a reward model", POLICY: "a policy"}
            found = f"a run of `{verb}`, a measure of {kinds[MEASURES[verb]]}"
            problem = Problem(str(record.folder), found, f"measures of {kinds[self.subject.kind]}", "Leave it out.")
            raise DataError("another kind", [problem])
        inside = record.folder.joinpath(*EFFECTS_STEP)
        read = RunRecord.read(inside) if verb == "audit run" else record
        place = self._place(read)
        return [CardRun(read.folder, record, record.config(), place, tuple(self._data(read)))]

    def _training(self, record: RunRecord) -> CardRun:
        if self._place_in(record.folder) is None:
            raise self._another(record, "a training of another model")
        return CardRun(record.folder, record, record.config(), Place(frozenset()), tuple(_data_in(record, "train")))

    def _place_in(self, training: Path) -> Path | None:
        """The folder of a training that holds the model; None where it left another one."""
        if self.subject.home is not None and training.resolve() == self.subject.home:
            return self.subject.folder.resolve()
        places = [training / MODEL, training / BEST, *sorted((training / POLICIES).glob("step-*"))]
        return next((one for one in places if one.is_dir() and path_digest(one) in self.subject.contents), None)

    def _place(self, record: RunRecord) -> Place:
        verb, config = record.verb, record.config()
        if verb == "evaluate cartography":
            return self._of_trainings(record, {"": config.get("runs", [])})
        if verb in (FRONTIER, "evaluate shift"):
            return self._of_trainings(record, config.get("runs", {}))
        if verb == "evaluate toxicity":
            models = config.get("models", {}).items()
            sets = {name: str(one.get("path") or one.get("completions") or "") for name, one in models}
            return self._of_sets(record, sets)
        if verb == "evaluate gain" and config.get("frontier"):
            return self._last_of_frontier(record, str(config["frontier"]))
        if verb == "evaluate winrate" and not config.get("sets"):
            raise self._without_answers(record, is_recorded=bool(config.get("recorded")))
        if verb in ("evaluate winrate", "evaluate gain", "evaluate policies"):
            place = self._of_sets(record, {name: _path(one) for name, one in config.get("sets", {}).items()})
            own = {name: one for name, one in (config.get("kl") or {}).items() if name in place.names}
            return replace(place, distances=frozenset(name for name in own if self._is_at(record, name, own[name])))
        return self._of_scores(record, config.get("scores", []))

    def _of_scores(self, record: RunRecord, scores: Sequence[str]) -> Place:
        names, others, seen, lost = set[str](), set[str](), [], []
        for path in scores:
            run = self._behind(record, path)
            if run is None or run.verb not in ("score", "audit score"):
                lost.append(path)
                continue
            name = str(read_object(run.folder / "summary.json").get("scorer", ""))
            seen.append(name)
            if _content(run, str(run.config().get("model", ""))) in self.subject.contents:
                names.add(name)
            else:
                others.add(name)
        if not names:
            raise self._unknown(record, lost) if lost else self._another(record, f"a run on {', '.join(seen)}")
        return Place(frozenset(names), others=len(others))

    def _of_trainings(self, record: RunRecord, runs: Mapping[str, Sequence[str]]) -> Place:
        places = self._own_trainings(record, runs)
        if not places:
            raise self._another(record, f"a run on {', '.join(filter(None, runs)) or 'other trainings'}")
        others = sum(len(paths) for paths in runs.values()) - 1 if "" in runs else 0
        name, number, folder = places[0]
        return Place(frozenset({name}), number, _step_of(folder), others)

    def _own_trainings(self, record: RunRecord, runs: Mapping[str, Sequence[str]]) -> list[tuple[str, int, Path]]:
        """Name, number among those of the name, and folder of the model, of the trainings that left it."""
        return [
            (name, number, one)
            for name, paths in runs.items()
            for number, path in enumerate(paths)
            for one in [self._own(_content(record, path))]
            if one is not None
        ]

    def _last_of_frontier(self, record: RunRecord, path: str) -> Place:
        """Of what read the last policy of every training on a frontier, where that is the model."""
        frontier = self._frontier(record, path)
        if frontier is None:
            raise self._unknown(record, [path])
        runs = frontier.config().get("runs", {})
        places = self._own_trainings(frontier, runs)
        if not places:
            raise self._another(record, f"a run on {', '.join(runs)}")
        own = [one for one in places if _is_step(_last_step(frontier, one[0], one[1]), one[2])]
        if not own:
            raise self._another(record, "a run on the last policy of each training, which is another one,")
        name, number, folder = own[0]
        return Place(frozenset({name, f"{name}, seed {number}"}), number, _step_of(folder))

    def _is_at(self, record: RunRecord, name: str, place: Any) -> bool:
        """Whether a place on a frontier, as `evaluate policies` is told it, is the model's."""
        asked = place if isinstance(place, Mapping) else {"frontier": place}
        frontier = self._frontier(record, str(asked.get("frontier") or ""))
        if frontier is None:
            return False
        run, seed = str(asked.get("run") or name), int(asked.get("training_seed") or 0)
        step = _last_step(frontier, run, seed) if asked.get("step") is None else int(asked["step"])
        places = self._own_trainings(frontier, frontier.config().get("runs", {}))
        return any(one[:2] == (run, seed) and _is_step(step, one[2]) for one in places)

    def _frontier(self, record: RunRecord, path: str) -> RunRecord | None:
        """The run of `evaluate frontier` that was read; None where it is gone or has changed."""
        found = self._behind(record, path)
        return found if found is not None and found.verb == FRONTIER else None

    def _own(self, content: str) -> Path | None:
        """The model's folder, where a digest is that of the model or of a training that left it."""
        if content in self.subject.contents:
            return self.subject.folder
        if self._trainings is None:
            found = [(one.folder, self._place_in(one.folder)) for one in self.given if one.verb in TRAININGS]
            self._trainings = {path_digest(folder): place for folder, place in found if place is not None}
        return self._trainings.get(content)

    def _of_sets(self, record: RunRecord, sets: Mapping[str, str]) -> Place:
        names, lost = set[str](), []
        for name, path in sets.items():
            written = {_content(record, path), *self._written_by(record, path)}
            if written & self.subject.contents:
                names.add(name)
            elif not any(written):
                lost.append(path)
        if not names:
            raise self._unknown(record, lost) if lost else self._another(record, f"a run on {', '.join(sets)}")
        return Place(frozenset(names))

    def _written_by(self, record: RunRecord, path: str) -> Iterator[str]:
        """Contents of the policies that wrote the answers in a file, or those that a table of scores is of."""
        run = self._behind(record, path)
        if run is None:
            return
        if run.verb == "sample":
            yield _content(run, str(run.config().get("model", "")))
        elif run.verb == "score":
            for source in _sources(run.config().get("data")):
                yield from self._written_by(run, _path(source))

    def _behind(self, record: RunRecord, path: str) -> RunRecord | None:
        """The run that left a file or folder which `record` read, where its content is still the same."""
        content = _content(record, path)
        for place in self._places(record, path) if content else ():
            with suppress(InputError, OSError, ValueError):
                folder = next((one for one in (place, place.parent) if (one / RECORD).is_file()), None)
                if folder is not None and path_digest(place) == content:
                    return RunRecord.read(folder)
        return None

    def _places(self, record: RunRecord, path: str) -> Iterator[Path]:
        """Where it may be: where it was, beside the run that read it, among the runs that are given."""
        base = Path(str(record.values["sessions"][-1].get("directory") or ""))
        yield base / path
        name, beside = Path(path).name, record.folder.resolve().parent
        yield beside / name
        yield beside / Path(path).parent.name / name
        for one in self.given:
            if one.verb not in (*LINKS, FRONTIER):
                continue
            yield one.folder
            yield one.folder / name

    def _data(self, record: RunRecord) -> Iterator[Data]:
        """What a run measured on; of one that read runs alone, what these read."""
        own = list(_data_in(record, "data"))
        if own:
            yield from own
            return
        config = record.config()
        paths = [str(config.get(name) or "") for name in ("rewrites", "frontier")]
        paths += [_path(one) for one in dict(config.get("sets") or {}).values()]
        behind = [run for run in (self._behind(record, path) for path in paths if path) if run is not None]
        read = dict.fromkeys(one for run in behind for one in self._data(run))
        # Published rewrites are data themselves.
        yield from read or [Data(Path(path).name, _short(_content(record, path))) for path in paths if path]

    def _another(self, record: RunRecord, found: str) -> DataError:
        expected = f"one on {self.subject.name} ({', '.join(sorted(_short(one) for one in self.subject.contents))})"
        problem = Problem(str(record.folder), f"{found} (`{record.verb}`)", expected, "Leave it out.")
        return DataError("another model", [problem])

    def _without_answers(self, record: RunRecord, *, is_recorded: bool) -> DataError:
        found, remedy = "agreement with people's labels, a measure of the judge", "Leave it out."
        if is_recorded:
            found = "recorded preferences, which do not say which model wrote the answers"
            remedy = "Give the answers too: evaluate policies --sets.NAME FOLDER --judges.NAME.recorded.SET FILE."
        expected = "win rates of answers that a run of `sample` has written"
        return DataError("an unknown model", [Problem(str(record.folder), found, expected, remedy)])

    def _unknown(self, record: RunRecord, lost: Sequence[str]) -> DataError:
        names = ", ".join(Path(path).name for path in lost)
        found = f"a run of `{record.verb}` whose model cannot be told: {names} is gone, has changed, or is of no run"
        remedy = "Where it lies elsewhere now, give that run of `score`, `sample` or `evaluate frontier` too."
        problem = Problem(str(record.folder), found, "a run whose inputs are there", remedy)
        return DataError("an unknown model", [problem])


def _step_of(folder: Path) -> int | None:
    """The step of its training at which a policy was saved, where that is known."""
    match = _STEP.fullmatch(folder.name)
    if match:
        return int(match[1])
    with suppress(InputError, KeyError, TypeError, ValueError):
        summary = read_object(folder.parent / "summary.json")
        return int(summary["best"]["step"] if folder.name == BEST else summary.get("kept", summary["steps"]))
    return None


def _is_step(step: int | None, folder: Path) -> bool:
    """Whether a checkpoint on a frontier is the policy in a folder; one that stands alone has step 0."""
    return step is not None and step in (0, _step_of(folder))


def _last_step(frontier: RunRecord, name: str, number: int) -> int | None:
    """The last step of a training on a frontier; 0 of a policy that stands alone, None where it is not there."""
    checkpoints = read_frontier(frontier.folder).checkpoints
    return max((one.step for one in checkpoints if (one.run, one.seed) == (name, number)), default=None)


def _content(record: RunRecord, path: str) -> str:
    """The digest of something that a run read, as its record has it; empty where it has none."""
    inputs = record.values.get("inputs", [])
    return next((str(one.get("sha256", "")) for one in inputs if path and str(one.get("path")) == path), "")


def _data_in(record: RunRecord, name: str) -> Iterator[Data]:
    """The data sources of a configuration."""
    for source in _sources(record.config().get(name)):
        path = _path(source)
        split = source.get("split") if isinstance(source, Mapping) else None
        content = _content(record, path)
        if content or not is_hub_id(path):
            yield Data(Path(path).name, _short(content), split=split)
        else:
            revision = source.get("revision") if isinstance(source, Mapping) else None
            yield Data(path, _short(str(revision or "")), is_hub=True, split=split)


def _sources(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if isinstance(value, str | Mapping) else []


def _path(source: Any) -> str:
    """The path of a data source, which alone may stand for it."""
    if isinstance(source, Mapping):
        return str(source.get("path") or "")
    return str(source or "")


def _short(digest: str) -> str:
    return digest[:_KEY_LENGTH]
