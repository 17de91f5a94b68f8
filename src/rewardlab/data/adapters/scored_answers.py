"""Answers with scores, several to a prompt: HelpSteer, HelpSteer2 and UltraFeedback as candidates with rewards.

HelpSteer (arXiv 2311.09528) and HelpSteer2 (arXiv 2406.08673) have a row per answer with five scores from 0 to 4; the
rows of a prompt become one record. UltraFeedback (arXiv 2310.01377) has a row per instruction with its completions.

The reward is `overall_score` of UltraFeedback and `helpfulness` of HelpSteer, or another of its scores by the
column map: `columns: {helpfulness: correctness}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rewardlab.data.adapters.base import Adapter, Parsed, broken, set_aside, usable, user_prompt
from rewardlab.data.files import FileRows
from rewardlab.data.rows import Row, as_number, json_safe, shown
from rewardlab.data.source import DataSource
from rewardlab.records import Candidates, Source

NO_SCORE = (None, "", "N/A")
ANSWERS = "answers"
"""Column that `gather` adds: all rows of the prompt."""


def gather(file: FileRows, source: DataSource) -> FileRows:
    """The first row of every prompt, with all its rows in the column `answers`; in order of the first rows."""
    groups: dict[str, list[tuple[Source, Mapping[str, Any]]]] = {}
    for place, values in file.rows:
        groups.setdefault(str(Row(place, values, source.columns).raw("prompt")), []).append((place, values))
    found = ((rows[0][0], {**rows[0][1], ANSWERS: [values for _, values in rows]}) for rows in groups.values())
    return replace(file, rows=tuple(found))


def parse_helpsteer(row: Row) -> Parsed:
    """The answers to a prompt as candidates; `meta` has every answer's other columns under `answers`."""
    prompt = row.text("prompt")
    own = row.items(ANSWERS) if row.has(ANSWERS) else [row.values]
    texts, rewards, details = [], [], []
    for values in own:
        answer = Row(row.source, values if isinstance(values, Mapping) else {}, row.columns)
        answer.raw("prompt")
        texts.append(answer.text("response", empty=True))
        rewards.append(answer.number("helpfulness"))
        details.append({name: value for name, value in answer.rest().items() if name != ANSWERS})
        row.problems += answer.problems
    return _candidates(row, prompt, texts, rewards, {ANSWERS: details})


def parse_ultrafeedback(row: Row) -> Parsed:
    """The completions of an instruction as candidates; `meta` has the models under `models`."""
    prompt, items = row.text("instruction"), row.items("completions")
    texts, rewards, models = [], [], []
    for position, item in enumerate(items):
        text = item.get("response") if isinstance(item, Mapping) else None
        if not isinstance(text, str):
            found = f"{shown(item)} at position {position}"
            row.complain("completions", "objects {response, overall_score}", found=found)
            continue
        score = item.get("overall_score")
        if as_number(score) is None and score not in NO_SCORE:
            row.complain("completions", "a number as overall_score", found=f"{shown(score)} at position {position}")
        texts.append(text)
        rewards.append(as_number(score))
        models.append(json_safe(item.get("model")))
    row.raw("models")
    return _candidates(row, prompt, texts, rewards, {**row.rest(), "models": models})


def _candidates(
    row: Row, prompt: str, texts: list[str], rewards: list[float | None], meta: Mapping[str, Any]
) -> Parsed:
    if row.problems:
        return broken(row)
    if not texts:
        return set_aside(row, "empty", "no answers")
    known = tuple(reward for reward in rewards if reward is not None)
    if len(known) < len(rewards):
        return set_aside(row, "no_score", f"{len(rewards) - len(known)} of {len(rewards)} answers without a score")
    record = Candidates(user_prompt(prompt), tuple(texts), known, row.source, meta)
    return usable(row, record, lists=(ANSWERS, "models"))


HELPSTEER = Adapter(
    name="helpsteer",
    title="HelpSteer and HelpSteer2: {prompt, response, helpfulness, ...}, a row per answer",
    required=("prompt", "response", "helpfulness"),
    optional=(ANSWERS,),
    parse=parse_helpsteer,
    gather=gather,
    hub_ids=("nvidia/HelpSteer", "nvidia/HelpSteer2"),
)

ULTRAFEEDBACK = Adapter(
    name="ultrafeedback",
    title="UltraFeedback: {instruction, completions: [{response, overall_score, model, ...}]}",
    required=("instruction", "completions"),
    optional=("models",),
    parse=parse_ultrafeedback,
    hub_ids=("openbmb/UltraFeedback",),
)
