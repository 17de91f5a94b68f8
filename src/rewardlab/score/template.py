"""Scoring templates: how a published reward model is read, one small YAML file each.

The shipped ones lie in `templates/`; a file of the user's own has the same fields and works by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import Field

from rewardlab.config import Config, nearest
from rewardlab.data.tokenize import Encoding
from rewardlab.errors import ConfigError, ModelError, Problem
from rewardlab.models.reward import LOGITS
from rewardlab.models.source import Precision

FOLDER = Path(__file__).with_name("templates")
SUFFIXES = (".yaml", ".yml")


class ScoringTemplate(Config):
    """How one reward model is read."""

    model: str
    """Folder or hub id."""

    revision: str | None = None
    """Branch, tag or commit of a hub id."""

    aliases: list[str] = Field(default_factory=list)
    """Other names of the template."""

    encoding: Encoding
    """How a question and an answer become ids, and what of a longer text is read."""

    label: str | None = None
    """Which label is the reward: an index, or a name."""

    output: str = LOGITS
    """Name of the model's output that holds the reward."""

    precision: Precision = "auto"
    """dtype of the weights; auto keeps the checkpoint's."""

    needs_own_code: bool = False
    """The model is read by Python code that comes with it."""

    def check_trust(self, trust_remote_code: bool) -> None:
        """A template names code, and does not run it: that is for the user to say.

        Raises:
            ModelError: the model brings code, and nobody has said that it may run.
        """
        if self.needs_own_code and not trust_remote_code:
            remedy = "If you trust its source: --trust_remote_code"
            problem = Problem(self.model, "Python code that comes with the model", "leave to run it", remedy)
            raise ModelError("The model brings code of its own", [problem])


def chosen(model: str | None, template: str | None) -> tuple[str | None, str | None]:
    """Model and template, where a shipped template's name alone, given as the model, stands for the template.

    A folder of that name is the folder.
    """
    known = {alias for key, one in templates().items() for alias in (key, *one.aliases)}
    if template is None and model in known and not Path(str(model)).exists():
        return None, model
    return model, template


def read_template(name: str | Path) -> ScoringTemplate:
    """The template of a name or alias, or in a file of the user's.

    Raises:
        ConfigError: no such template, or fields that cannot be used.
    """
    if Path(name).suffix in SUFFIXES:
        return ScoringTemplate.build(files=[Path(name)])
    known = {alias: key for key, template in templates().items() for alias in (key, *template.aliases)}
    if str(name) not in known:
        expected = f"a file ({', '.join(SUFFIXES)}), or the name of a shipped one"
        raise ConfigError(
            "No such scoring template",
            [Problem("template", repr(str(name)), expected, nearest(str(name), list(known)))],
        )
    return templates()[known[str(name)]]


def describe_templates() -> str:
    """The shipped templates as a table for the terminal: name, model, and how it is read."""
    lines = ["--template NAME or --model NAME of a reward model"]
    for name, one in templates().items():
        rules, label = one.encoding, "" if one.label is None else f", label {one.label}"
        names = ", ".join([name, *one.aliases])
        read = f"{rules.form}, {rules.max_tokens:,} tokens, {rules.truncation_side} cut; {one.output}{label}"
        code = "; code of its own, by --trust_remote_code" if one.needs_own_code else ""
        lines += [f"  {names}", f"    model   {one.model}", f"    read    {read}{code}"]
    return "\n".join(lines)


@cache
def templates() -> Mapping[str, ScoringTemplate]:
    """The shipped templates by name, in alphabetical order."""
    return {file.stem: ScoringTemplate.build(files=[file]) for file in sorted(FOLDER.glob("*.yaml"))}
