"""What a judge is asked: one small YAML file, shipped in `judges/` or of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from rewardlab.config import Config, nearest
from rewardlab.data.render import question
from rewardlab.errors import ConfigError, Problem
from rewardlab.llm.prompts import fields, filled
from rewardlab.records import Prompt

FOLDER = Path(__file__).with_name("judges")
SUFFIXES = (".yaml", ".yml")
_SIDES = ("A", "B")
_NEEDED = {"grade": {"prompt", "response"}, "win": {"prompt", "first", "second"}}


class JudgeTemplate(Config):
    """What is asked about an answer, and which words reply to it."""

    mode: Literal["grade", "win"]
    """grade: a number for the answer alone. win: whether it is better than a reference answer, asked in both orders."""

    grades: tuple[int, int] = (1, 5)
    """The lowest and the highest grade; each grade is one digit, so that it is one token."""

    prompt: str = Field(min_length=1)
    """The message to the judge, with {prompt} for the conversation; to grade, {response}, {low} and {high}; to compare,
    {first}, which the judge calls A, and {second}, which it calls B. Texts stand best between tags of the file's own:
    no text can close them."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        low, high = self.grades
        if not 0 <= low < high <= 9:
            raise ValueError("two grades from 0 to 9, the lower one first")
        missing = sorted(_NEEDED[self.mode] - fields(self.prompt))
        if missing:
            raise ValueError(f"{' and '.join(f'{{{name}}}' for name in missing)} in the prompt")
        return self

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that reply."""
        low, high = self.grades
        return tuple(map(str, range(low, high + 1))) if self.mode == "grade" else _SIDES

    def messages(self, prompt: Prompt, response: str, reference: str) -> list[str]:
        """What is asked about a response: one message, or one per order, the response first in the first of them."""
        low, high = self.grades
        texts = {"prompt": question(prompt), "low": str(low), "high": str(high)}
        if self.mode == "grade":
            return [filled(self.prompt, {**texts, "response": response})]
        orders = ((response, reference), (reference, response))
        return [filled(self.prompt, {**texts, "first": first, "second": second}) for first, second in orders]


def read_judge(name: str) -> JudgeTemplate:
    """The judge of a name, or in a file of the user's.

    Raises:
        ConfigError: no such judge, or fields that cannot be used.
    """
    if Path(name).suffix in SUFFIXES:
        return JudgeTemplate.build(files=[Path(name)])
    if name not in judges():
        expected = f"a file ({', '.join(SUFFIXES)}), or the name of a shipped one"
        raise ConfigError("No such judge", [Problem("model", repr(name), expected, nearest(name, list(judges())))])
    return judges()[name]


@cache
def judges() -> Mapping[str, JudgeTemplate]:
    """The shipped ones by name, in alphabetical order."""
    return {file.stem: JudgeTemplate.build(files=[file]) for file in sorted(FOLDER.glob("*.yaml"))}
