"""`rewardlab models card`: the runs of a model → the card that stands beside it on the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from rewardlab.config import Config, Paths
from rewardlab.data.files import is_hub_id
from rewardlab.data.tokenize import Encoder
from rewardlab.errors import ConfigError, DataError, InputError, Problem
from rewardlab.models.card import POLICY, usage
from rewardlab.models.loading import saved_rules
from rewardlab.models.located import SIDECAR
from rewardlab.models.policies import saved_encoding
from rewardlab.models.seal import content_of, read_seal, sealed
from rewardlab.models.source import ModelSource
from rewardlab.models.tokenizers import load_tokenizer
from rewardlab.models.upload import CARD, contents_of
from rewardlab.report.card_failures import Failure, known_failures
from rewardlab.report.card_figures import Measured, figures_of
from rewardlab.report.card_page import Card, card_text
from rewardlab.report.card_runs import TRAININGS, CardRun, Subject, read_runs, subject_of
from rewardlab.store.files import write_json, write_text
from rewardlab.store.keys import RECORD
from rewardlab.store.runs import Run
from rewardlab.store.shapes import read_object

RESULT = "card.json"
Result = TypeVar("Result")


class CardWriting(Config):
    """Configuration of `models card`."""

    model: Path
    """Folder of the model."""

    runs: Paths = ()
    """Folders of the runs that trained and measured it. The training that it lies in need not be named. Score and
    sample runs are needed only where they have been moved."""

    out: Path | None = None
    """A further place for the card: a folder, or a file. It always lies in the run of this command."""

    overwrite: bool = False
    """Replace a card at `out` that this command has not written, or that was changed by hand since."""

    license: str | None = Field(None, pattern=r"^[A-Za-z0-9.-]+$")
    """Licence of the model, by the hub's name for it: apache-2.0."""

    language: str | None = Field(None, pattern=r"^[A-Za-z-]+$")
    """Language of its texts: en."""


@dataclass(frozen=True)
class WrittenCard:
    """The card.

    Attributes:
        path: where it lies.
        figures: how many stand on it.
        failures: what is known to go wrong.
        copy: where it lies too.
    """

    path: Path
    figures: int
    failures: list[Failure]
    copy: Path | None

    def lines(self) -> list[str]:
        """What stands on it, and where it is."""
        known = [
            f"Known failure, {one.rule}: {one.words}. {one.figure.title}: {one.figure.words}." for one in self.failures
        ]
        places = [f"The card: {place}" for place in (self.path, self.copy) if place is not None]
        return [f"{self.figures} figures, {len(self.failures)} known failures.", *known, *places]


def write_card(config: CardWriting, run: Run) -> WrittenCard:
    """Write the card of a model: README.md, and what stands on it as card.json.

    Args:
        config: everything.
        run: its directory.

    Raises:
        DataError: no model or one whose rules cannot be read, folders that are no finished run or are about another
            model, a place that may not be written to: every problem, and nothing has been written.
    """
    problems: list[Problem] = []
    place = _tried(problems, lambda: _place(config))
    subject = _tried(problems, lambda: subject_of(config.model))
    card = None if subject is None else _tried(problems, partial(_card, config, subject))
    if subject is None or card is None or problems:
        raise DataError("The card cannot be written", problems)
    text = sealed(card_text(card), card.content, subject.contents)
    write_json(run.path(RESULT), _values(card))
    write_text(run.path(CARD), text)
    if place is not None:
        write_text(place, text)
    measured = [one for one in card.figures if one.estimate.value is not None]
    return WrittenCard(run.path(CARD), len(measured), list(card.failures), place)


def _tried(problems: list[Problem], work: Callable[[], Result]) -> Result | None:
    """What `work` gives; None where it cannot, which is added to `problems`."""
    try:
        return work()
    except InputError as error:
        problems += error.problems or (Problem("models card", error.summary, "input that can be used"),)
        return None


def _place(config: CardWriting) -> Path | None:
    """The file that `out` means.

    Raises:
        ConfigError: results of a run, or a card of somebody else.
    """
    if config.out is None:
        return None
    place = config.out / CARD if config.out.is_dir() else config.out
    if any((parent / RECORD).is_file() for parent in place.resolve().parents):
        remedy = "Leave --out away: the card lies in the run of this command, and `models push --card` sends it."
        problem = Problem("out", str(place), "a place outside of runs, whose results stay as they are", remedy)
        raise ConfigError("The card cannot be put there", [problem])
    if not place.parent.is_dir():
        raise ConfigError(
            "The card cannot be put there", [Problem("out", f"no folder {place.parent}", "one that is there")]
        )
    if place.exists() and not config.overwrite and read_seal(place) is None:
        found = f"{place}, which this command has not written, or which was changed since"
        problem = Problem("out", found, "a new place, or a card of this command", "To replace it: --overwrite.")
        raise ConfigError("The card would replace another", [problem])
    return place


def _card(config: CardWriting, subject: Subject) -> Card:
    """Everything that stands on the card.

    Raises:
        InputError: with every run, file and rule that cannot be read.
    """
    runs = read_runs(subject, config.runs)
    problems: list[Problem] = []
    figures = [one for run in runs for one in _tried(problems, partial(figures_of, run)) or ()]
    trainings = {place: run.folder / "summary.json" for place, run in enumerate(runs) if run.verb in TRAININGS}
    summaries = {place: _tried(problems, partial(read_object, path)) or {} for place, path in trainings.items()}
    use = _tried(problems, lambda: _use(subject)) or ""
    if problems:
        raise DataError("cannot be read", problems)
    failures, applied = known_failures(figures)
    base, is_hub = _base(runs)
    content = content_of(contents_of(subject.folder).files)
    return Card(
        subject, content, runs, summaries, base, is_hub, figures, failures, applied, use,
        license=config.license, language=config.language,
    )  # fmt: skip


def _base(runs: Sequence[CardRun]) -> tuple[str, bool]:
    """What the training began from, and whether it is on the hub."""
    for run in runs:
        if run.verb in TRAININGS:
            model: Mapping[str, Any] = run.config.get("model") or {}
            path = str(model.get("path") or "")
            local = {str(one.get("path")) for one in run.record.values.get("inputs", [])}
            if not path:
                return "a fresh model of the configuration", False
            if path in local or not is_hub_id(path):
                place = Path(path)
                return (f"{place.parent.name}/{place.name}" if place.name == "model" else place.name), False
            return path, True
    return "", False


def _use(subject: Subject) -> str:
    """How the model is used.

    Raises:
        ModelError: its tokenizer or rules cannot be read.
    """
    path = str(subject.folder)
    if subject.kind == POLICY:
        encoding = saved_encoding(path)
        notes = [] if encoding is None else [
            f"- Of prompts longer than {encoding.max_prompt_tokens} tokens the end is read.",
            f"- Of completions the first {encoding.max_completion_tokens} tokens were trained on.",
        ]  # fmt: skip
        return "\n".join([*notes, *([""] if notes else []), _POLICY_USE])
    if not (subject.folder / SIDECAR).is_file():
        return _FOREIGN_USE
    rules, form, readout = saved_rules(path, None)
    if rules is None:
        return _FOREIGN_USE
    encoder = Encoder(load_tokenizer(path, ModelSource(path=path)), rules)
    notes = [
        f"- Sequences longer than {rules.max_tokens} tokens are cut on the {rules.truncation_side}.",
        f"- EOS is {'' if rules.append_eos else 'not '}appended to every sequence.",
    ]
    return "\n".join([*notes, "", usage(encoder, is_text=form != "conversation", is_plain=readout.is_plain)])


_POLICY_USE = """A plain folder of transformers:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
```"""

_FOREIGN_USE = """```python
import rewardlab

scorer = rewardlab.load_scorer("path/to/this/folder")
rewards = scorer(["What is the capital of France?\\n"], ["Paris."])
```"""


def _values(card: Card) -> dict[str, Any]:
    """What stands on the card, for programs."""
    numbers = {id(run): number for number, run in enumerate(card.runs, 1)}

    def values(one: Measured) -> dict[str, Any]:
        about = {"part": one.part, "title": one.title, "about": one.name, "run": numbers[id(one.run)]}
        return {**about, **one.estimate.as_dict()}

    return {
        "model": card.subject.name,
        "kind": card.subject.kind,
        "content": card.content,
        "runs": [
            {"name": run.record.folder.name, "verb": run.verb, "data": [one.__dict__ for one in run.data]}
            for run in card.runs
        ],
        "figures": [values(one) for one in card.figures],
        "failures": [{"rule": one.rule, "words": one.words, "figure": values(one.figure)} for one in card.failures],
        "rules": list(card.applied),
    }
