"""Rule rewards: Python functions in the form that TRL calls rewards in, and a few built-in ones.

A function is called by keyword, `function(prompts=[...], completions=[...])`, and gives one number per completion. It
gets what TRL would give it: texts for plain-text prompts, lists of messages on both sides for conversations.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from rewardlab.config import nearest
from rewardlab.data.rows import as_number
from rewardlab.data.world import ATTRIBUTES, GoldReward
from rewardlab.errors import MissingExtraError, ModelError, Problem
from rewardlab.records import Prompt
from rewardlab.score import wording, world
from rewardlab.score.base import AnyScorer, Measured, Verified
from rewardlab.store.files import sha256_file
from rewardlab.store.keys import CODE

RULE = "rule:"
Rule = Callable[..., Any]


def length_characters(completions: Iterable[Any], **_: Any) -> list[float]:
    """Characters of each completion."""
    return [float(len(_text(completion))) for completion in completions]


def length_words(completions: Iterable[Any], **_: Any) -> list[float]:
    """Words of each completion: what white space separates."""
    return [float(len(_text(completion).split())) for completion in completions]


def sentiment_vader(completions: Iterable[Any], **_: Any) -> list[float]:
    """Compound sentiment of each completion by the VADER lexicon, -1 to 1 (Hutto and Gilbert 2014)."""
    analyzer = wording.vader()
    return [float(analyzer.polarity_scores(_text(completion))["compound"]) for completion in completions]


def common_words(completions: Iterable[Any], **_: Any) -> list[float]:
    """Share of common words in each completion."""
    return wording.common_words(map(_text, completions))


def sentiment_per_word(completions: Iterable[Any], **_: Any) -> list[float]:
    """Mean valence of the words of each completion."""
    return wording.sentiment_per_word(map(_text, completions))


def world_sentiment(completions: Iterable[Any], **_: Any) -> list[float]:
    """Level of sentiment of each completion, a text of the synthetic world."""
    return wording.world_sentiment(map(_text, completions))


def world_rude(completions: Iterable[Any], **_: Any) -> list[float]:
    """1 for each completion that is a rude text of the synthetic world, else 0."""
    return wording.world_rude(map(_text, completions))


def world_gold(prompts: Sequence[Any], completions: Iterable[Any], **_: Any) -> list[float]:
    """The world's gold reward of each completion, diluted by what its parser cannot read."""
    return world.gold(prompts, map(_text, completions))


def world_readable(completions: Iterable[Any], **_: Any) -> list[float]:
    """Share of each completion that the world's parser reads."""
    return world.readable(map(_text, completions))


def sentiment_sum(completions: Iterable[Any], **_: Any) -> list[float]:
    """Sum of the compound sentiment of the sentences of each completion: it has no upper end and rewards length."""
    return wording.sentiment_sum(map(_text, completions))


BUILT_IN: Mapping[str, Rule] = MappingProxyType(
    {
        rule.__name__: rule
        for rule in (
            length_characters,
            length_words,
            sentiment_vader,
            common_words,
            sentiment_per_word,
            world_sentiment,
            world_rude,
            world_gold,
            world_readable,
            sentiment_sum,
        )
    }
)


WORLD_PAYS = "world_pays"
WORLD_GOLD = world_gold.__name__
WEIGHED: Mapping[str, Sequence[str]] = MappingProxyType(
    {WORLD_PAYS: ATTRIBUTES, WORLD_GOLD: ("coverage", "correctness", "relevance", *ATTRIBUTES)}
)
"""The rules with weights in their names, `rule:world_pays:sentiment=1,politeness=-0.5`, and what may be weighed."""


class RuleScorer(AnyScorer):
    """Scores with a function.

    Args:
        rule: called with prompts and completions.
        name: identity that score tables are keyed by.
        file: where the function stands, so that messages name the line; None for built-in ones.
    """

    def __init__(self, rule: Rule, name: str, file: Path | None = None) -> None:
        super().__init__(name)
        self.rule = rule
        self.file = file

    def measure(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Measured]]:
        """What the function gives for `completions[i][k]` as an answer to `prompts[i]`, in the order given."""
        places = [(row, text) for row, candidates in enumerate(completions) for text in candidates]
        rewards = [0.0] * len(places)
        # As in TRL, one call has texts only, or conversations only.
        for is_text in (True, False):
            chosen = [number for number, (row, _) in enumerate(places) if prompts[row].is_text == is_text]
            if chosen:
                asked = [_asked(prompts[places[number][0]]) for number in chosen]
                answers = [_answer(places[number][1], is_text) for number in chosen]
                for number, reward in zip(chosen, self._rewards(asked, answers), strict=True):
                    rewards[number] = reward
        found = iter(rewards)
        return [[Measured(next(found)) for _ in candidates] for candidates in completions]

    def verified(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], scores: Sequence[float]
    ) -> Verified:
        """`scores` compared with one call per completion.

        Raises:
            ModelError: one differs by more than 1e-5 max(1, |score|).
        """
        remedy = "The function may look at other completions of its call, or at chance."
        return self.compared_alone(prompts, completions, scores, remedy)

    def _rewards(self, prompts: list[Any], completions: list[Any]) -> list[float]:
        """The function's answer, checked.

        Raises:
            MissingExtraError: a package of its own is not installed.
            ModelError: it fails, or gives another number of values, or values that are no finite numbers.
        """
        try:
            values = self.rule(prompts=prompts, completions=completions)
        except MissingExtraError:
            raise
        except Exception as error:  # a function of the user's may raise anything
            problem = Problem(self.name, self._failure(error), f"a reward for each of {len(completions)} completions")
            raise ModelError("The rule fails", [problem]) from error
        expected = f"a list of {len(completions)} numbers, one per completion"
        if not isinstance(values, list | tuple | np.ndarray) or len(values) != len(completions):
            is_sized = isinstance(values, list | tuple | np.ndarray)
            found = f"{len(values)} values" if is_sized else f"{type(values).__name__} {str(values)[:100]}"
            raise ModelError("The rule does not give a reward per completion", [Problem(self.name, found, expected)])
        problems = [
            Problem(f"{self.name}, value {number}", repr(value)[:100], "a finite number")
            for number, value in enumerate(values)
            if not isinstance(value, Real) or not np.isfinite(float(value))
        ]
        if problems:
            raise ModelError("The rule gives rewards that are no numbers", problems)
        return [float(value) for value in values]

    def _failure(self, error: Exception) -> str:
        """The error in one line, with the last line of the function's own file that it came from."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if self.file is not None and Path(frame.filename) == self.file]
        where = f" ({self.file.name}:{lines[-1]})" if self.file is not None and lines else ""
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{where}"


def built_in_rule(name: str) -> RuleScorer:
    """The scorer of `rule:NAME`.

    Raises:
        ModelError: no such rule.
    """
    key, weighted, given = name.removeprefix(RULE).partition(":")
    if key == WORLD_PAYS:
        return _world_pays(name, _weights(name, key, given))
    if key == WORLD_GOLD and weighted:
        return _world_gold(name, _weights(name, key, given))
    if key not in BUILT_IN or weighted:
        weighed = [f"{rule}:NAME=WEIGHT,..." for rule in WEIGHED]
        expected = f"one of {', '.join(f'{RULE}{rule}' for rule in (*BUILT_IN, *weighed))}"
        raise ModelError("No such rule", [Problem("model", name, expected, rule_meant(key))])
    return RuleScorer(BUILT_IN[key], name)


def rule_meant(name: str) -> str:
    """`Did you mean "rule:x"?` for the rule nearest to a name without its prefix; empty when none is near."""
    close = get_close_matches(name, [*BUILT_IN, *WEIGHED], n=1)
    return f'Did you mean "{RULE}{close[0]}"?' if close else ""


def _weights(name: str, rule: str, given: str) -> dict[str, float]:
    """The weights in the name of a rule.

    Raises:
        ModelError: they are no finite numbers, or of something else than the rule weighs.
    """
    pairs = [pair.partition("=")[::2] for pair in given.split(",")]
    weights = {key.strip(): as_number(value) for key, value in pairs}
    wrong = [key for key, value in weights.items() if key not in WEIGHED[rule] or value is None]
    if wrong or len(weights) < len(pairs):
        expected = f"{RULE}{rule}:NAME=WEIGHT,..., each of {', '.join(WEIGHED[rule])} at most once"
        raise ModelError("The rule cannot be used", [Problem("model", name, expected)])
    return {key: value for key, value in weights.items() if value is not None}


def _world_pays(name: str, weights: Mapping[str, float]) -> RuleScorer:
    """The scorer of `rule:world_pays:ATTRIBUTE=WEIGHT,...`, which pays for the attributes that a text has."""

    def world_pays(completions: Iterable[Any], **_: Any) -> list[float]:
        return world.pays(map(_text, completions), weights)

    return RuleScorer(world_pays, name)


def _world_gold(name: str, weights: Mapping[str, float]) -> RuleScorer:
    """The scorer of `rule:world_gold:NAME=WEIGHT,...`: the gold reward with these weights, the others as they are."""
    own = GoldReward()
    levels = {attribute: weights.get(attribute, weight) for attribute, weight in own.per_level.items()}
    others = {key: weight for key, weight in weights.items() if key not in ATTRIBUTES}
    reward = GoldReward.model_validate(own.model_dump() | others | {"per_level": levels})

    def gold(prompts: Sequence[Any], completions: Iterable[Any], **_: Any) -> list[float]:
        return world.gold(prompts, map(_text, completions), reward)

    return RuleScorer(gold, name)


def python_rule(name: str) -> RuleScorer:
    """The scorer of `python:FILE.py:FUNCTION` or `python:MODULE.FUNCTION`; runs the file's or module's code.

    Its identity has the hash of the source file: what that imports does not count.

    Raises:
        ModelError: no such file, module or function, or code that fails.
    """
    place = name.removeprefix(CODE)
    source, is_file, function = place.rpartition(":")
    if not is_file:
        source, _, function = place.rpartition(".")
    if not source or not function:
        raise _unusable(name, "no function", f"{CODE}FILE.py:FUNCTION or {CODE}MODULE.FUNCTION")
    module, file = _from_file(name, Path(source)) if is_file else _from_module(name, source)
    rule = vars(module).get(function)
    if not callable(rule):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        found = f"no function {function} in {file.name}" if rule is None else f"{function}, a {type(rule).__name__}"
        raise _unusable(name, found, "a function", nearest(function, known))
    shown = f"{file.name}:{function}" if is_file else place
    return RuleScorer(rule, f"{CODE}{shown}@{sha256_file(file)[:12]}", file)


def _from_file(name: str, source: Path) -> tuple[ModuleType, Path]:
    if not source.is_file():
        raise _unusable(name, f"no file {source}", "a Python file")
    file = source.resolve()
    # A name of its own for each file, so that two of one name do not meet; known by it, since dataclasses look there.
    title = f"rewardlab_rule_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(title, file)
    if spec is None or spec.loader is None:
        raise _unusable(name, source.name, "a Python file, named *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[title] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # code of the user's may raise anything
        del sys.modules[title]
        raise _unusable(name, f"{type(error).__name__}: {str(error)[:200]}", "code that runs") from error
    return module, file


def _from_module(name: str, source: str) -> tuple[ModuleType, Path]:
    try:
        module = importlib.import_module(source)
        file = inspect.getsourcefile(module)
    except Exception as error:  # code of the user's may raise anything
        remedy = f"A file is named by its path: {CODE}FILE.py:FUNCTION"
        found = f"{type(error).__name__}: {str(error)[:200]}"
        raise _unusable(name, found, "a module that can be imported", remedy) from error
    if file is None:
        raise _unusable(name, f"{source} without a source file", "a module in Python")
    return module, Path(file).resolve()


def _unusable(name: str, found: str, expected: str, remedy: str = "") -> ModelError:
    return ModelError("The rule cannot be loaded", [Problem(name, found, expected, remedy)])


def _asked(prompt: Prompt) -> Any:
    return prompt.messages[0].content if prompt.is_text else [message.as_dict() for message in prompt.messages]


def _answer(text: str, is_text: bool) -> Any:
    return text if is_text else [{"role": "assistant", "content": text}]


def _text(completion: Any) -> str:
    """The text of a completion in either form."""
    return completion if isinstance(completion, str) else "".join(message["content"] for message in completion)
