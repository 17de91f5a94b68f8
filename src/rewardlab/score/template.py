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
from rewardlab.models.loading import Precision
from rewardlab.models.reward import LOGITS

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


@cache
def templates() -> Mapping[str, ScoringTemplate]:
    """The shipped templates by name, in alphabetical order."""
    return {file.stem: ScoringTemplate.build(files=[file]) for file in sorted(FOLDER.glob("*.yaml"))}
