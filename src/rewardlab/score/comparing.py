"""Two answers to one prompt and which of them is better: what a chat model says when it is asked in both orders.

word         both orders name the same answer: it wins; they name different ones: a tie
probability  the mean over both orders of the probability of the answer, so that a liking for a place cancels

Source: Zheng et al. 2023, Judging LLM-as-a-judge, arXiv 2306.05685, section 3.4 (both orders); Dubois et al. 2024,
arXiv 2404.04475 (probabilities).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rewardlab.errors import ConfigError, Problem
from rewardlab.llm.agree import Agreement
from rewardlab.llm.asking import Asked, JudgeEndpoint, ask_all, plan_of
from rewardlab.llm.choices import weigh
from rewardlab.llm.shared import shared_ledger
from rewardlab.llm.wire import shown
from rewardlab.records import Prompt, content_id
from rewardlab.score.judging import JudgeTemplate, read_judge
from rewardlab.store.keys import JUDGE

Rule = Literal["word", "probability"]
_LONGEST_SHOWN = 60


class Duel(NamedTuple):
    """Two answers to one prompt."""

    prompt: Prompt
    first: str
    second: str


class Verdict(NamedTuple):
    """What came of a duel.

    Attributes:
        preference: of the first answer over the second, in [0, 1]; None where there is none, and `reason` says why.
        leading: of a judge asked in both orders, how likely the first answer wins where it stands first.
        trailing: how likely it wins where it stands second.
        reason: `refused`, `unreadable`, ...; empty where there is a preference.
    """

    preference: float | None
    leading: float | None = None
    trailing: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class ComparingJudge:
    """A chat model, and what it is asked.

    Attributes:
        name: what it goes by.
        template: of mode win.
        endpoint: who is asked.
        rule: how both orders make one preference.
    """

    name: str
    template: JudgeTemplate
    endpoint: JudgeEndpoint
    rule: Rule

    def questions(self, duel: Duel) -> list[Asked]:
        """Both orders, the first answer first in the first of them."""
        about = f"prompt {duel.prompt.id} ({shown(duel.first)[:_LONGEST_SHOWN]})"
        messages = self.template.messages(duel.prompt, duel.first, duel.second)
        return [Asked(self.endpoint.question(message), about) for message in messages]


def is_comparing(model: str | None) -> bool:
    """Whether a scorer's name is that of a judge that compares two answers.

    Raises:
        ConfigError: no such judge.
    """
    return model is not None and model.startswith(JUDGE) and read_judge(model.removeprefix(JUDGE)).mode == "win"


def comparing_judge(name: str, model: str, endpoint: JudgeEndpoint | None, rule: Rule) -> ComparingJudge:
    """The judge of `judge:NAME`.

    Raises:
        ConfigError: nobody to ask.
    """
    if endpoint is None:
        remedy = "Name one with --judge.endpoint URL, and its model with --judge.endpoint.model."
        raise ConfigError(
            "The judge cannot be asked", [Problem(f"{name}, endpoint", "nothing", "a chat model that judges", remedy)]
        )
    return ComparingJudge(name, read_judge(model.removeprefix(JUDGE)), endpoint, rule)


def agree_to(work: Sequence[tuple[ComparingJudge, Sequence[Duel]]], agreement: Agreement, buys: str) -> None:
    """Say what all judges together will cost, and ask; nothing is sent.

    Args:
        work: each judge with its duels.
        agreement: to the cost.
        buys: a sentence on what it is good for.

    Raises:
        RunError: declined.
        ConfigError: a key is missing.
    """
    with shared_ledger() as ledger:
        asked = [(judge.endpoint, [one for duel in duels for one in judge.questions(duel)]) for judge, duels in work]
        plans = [plan_of(endpoint, questions, ledger) for endpoint, questions in asked]
    agreement.to(plans, buys)


def verdicts(judge: ComparingJudge, duels: Sequence[Duel], agreement: Agreement) -> list[Verdict]:
    """What the judge says of each duel, in order; every answer is paid once.

    Args:
        judge: who is asked.
        duels: what about.
        agreement: to the cost.

    Raises:
        RunError: declined; the budget is spent; the endpoint is down. What was answered is kept.
        UnfinishedError: questions without an answer, which another try may bring.
    """
    questions = [judge.questions(duel) for duel in duels]
    answers = ask_all(judge.endpoint, [one for both in questions for one in both], agreement, title="judging")
    weighed = {key: weigh(answer, judge.template.choices) for key, answer in answers.items()}
    found = []
    for both in questions:
        shares = [weighed[one.request.key] for one in both]
        reasons = [one for one in shares if isinstance(one, str)]
        if reasons:
            found.append(Verdict(None, reason=reasons[0]))
        else:
            leading, trailing = (one.shares for one in shares if not isinstance(one, str))
            found.append(verdict(leading[0], trailing[1], judge.rule))
    return found


def verdict(leading: float, trailing: float, rule: Rule) -> Verdict:
    """The preference that two orders make.

    Args:
        leading: probability that the first answer wins where it stands first.
        trailing: the same where it stands second.
        rule: see the head of the file.

    Source: as there.
    """
    if rule == "probability":
        return Verdict((leading + trailing) / 2.0, leading, trailing)
    named = [1.0 if share > 0.5 else 0.0 if share < 0.5 else 0.5 for share in (leading, trailing)]
    return Verdict(named[0] if named[0] == named[1] else 0.5, leading, trailing)


def drawn_judge(names: Sequence[str], prompt_id: str, seed: int) -> str:
    """The judge of a pool that a prompt goes to: by a hash, so that it is the same in every run and order of the data.

    Args:
        names: of the judges.
        prompt_id: of the prompt.
        seed: another one draws anew.
    """
    return sorted(names)[int(content_id([seed, prompt_id]), 16) % len(names)]


def of_scores(first: float, second: float) -> Verdict:
    """The preference that two scores make: the higher one wins, equal ones tie; none where one is NaN."""
    if first != first or second != second:
        return Verdict(None, reason="no score")
    return Verdict(1.0 if first > second else 0.0 if first < second else 0.5)


def counted(found: Sequence[Verdict]) -> Mapping[str, int]:
    """How many won, lost, tied, and have no preference, by reason."""
    counts = {"wins": 0, "losses": 0, "ties": 0}
    for one in found:
        if one.preference is None:
            counts[one.reason] = counts.get(one.reason, 0) + 1
        else:
            counts["wins" if one.preference > 0.5 else "losses" if one.preference < 0.5 else "ties"] += 1
    return counts
