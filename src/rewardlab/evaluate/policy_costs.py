"""What all judges of `evaluate policies` will cost together, said and agreed to before the first of them is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from rewardlab.evaluate.policy_answers import AnswerSets
from rewardlab.evaluate.policy_rankers import PolicyJudge, PolicyReward
from rewardlab.evaluate.winrate import meetings
from rewardlab.llm.agree import Agreement
from rewardlab.llm.asking import Asked, JudgeEndpoint, plan_of
from rewardlab.llm.shared import shared_ledger
from rewardlab.score.choice import scorer_of
from rewardlab.score.comparing import Duel, comparing_judge, is_comparing
from rewardlab.score.judge import JudgeScorer
from rewardlab.score.score import ScorerOptions
from rewardlab.store.keys import JUDGE

Options = TypeVar("Options", bound=ScorerOptions)


def agree_to_all(
    judges: Mapping[str, PolicyJudge], rewards: Mapping[str, PolicyReward], sets: AnswerSets, baseline: str
) -> None:
    """Say what all chat models together will be sent, those that compare and those that grade, and ask once.

    Nothing is sent, and nothing is asked where everything is in the ledger of paid answers.

    Args:
        judges: by name, who compares.
        rewards: by name, what scores.
        sets: what is judged.
        baseline: as of `policy_rankers.judged_by`.

    Raises:
        ConfigError: nobody to ask, or a key that is missing.
        DataError: references that cannot be read, or lack answers.
        RunError: declined.
    """
    duels = [
        Duel(prompt, sets.texts[model][number][0], sets.texts[other][number][0])
        for model, other in meetings(sets.names, baseline)
        for number, prompt in enumerate(sets.prompts)
    ]
    work: list[tuple[JudgeEndpoint, list[Asked]]] = []
    for name, judge in judges.items():
        if not is_paid(judge):
            continue
        if is_comparing(judge.model):
            one = comparing_judge(name, str(judge.model), judge.endpoint, judge.rule)
            work.append((one.endpoint, [question for duel in duels for question in one.questions(duel)]))
        else:
            work += _grading(judge, sets, first_alone=True)
    for reward in rewards.values():
        if is_paid(reward):
            work += _grading(reward, sets, first_alone=False)
    if not work:
        return
    with shared_ledger() as ledger:
        plans = [plan_of(endpoint, questions, ledger) for endpoint, questions in work]
    paid = [one for one in (*judges.values(), *rewards.values()) if is_paid(one)]
    buys = f"All of it is for {len(sets.names)} policies on {len(sets.prompts):,} prompts."
    Agreement(all(one.yes for one in paid)).to(plans, buys)


def agreed(options: Options) -> Options:
    """The options, where a chat model is asked as what is agreed to."""
    return options.model_copy(update={"yes": True}) if is_paid(options) else options


def is_paid(options: ScorerOptions) -> bool:
    """Whether a chat model is asked."""
    return options.model is not None and options.model.startswith(JUDGE)


def _grading(options: ScorerOptions, sets: AnswerSets, *, first_alone: bool) -> list[tuple[JudgeEndpoint, list[Asked]]]:
    """A judge that is a scorer, with its questions about all answers, or about the first ones."""
    scorer = scorer_of(options)
    if not isinstance(scorer, JudgeScorer):
        return []
    texts = [
        (prompt, own[:1] if first_alone else own)
        for answers in sets.texts.values()
        for prompt, own in zip(sets.prompts, answers, strict=True)
    ]
    return [(scorer.endpoint, scorer.waiting(texts))]
