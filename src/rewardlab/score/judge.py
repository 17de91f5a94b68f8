"""A chat model as a reward: the grade that it gives an answer, or the probability that it prefers the answer.

grade   the mean of the grades, each weighted by the probability of its token, renormalised over the grades
        (Liu et al. 2023, G-Eval, arXiv 2303.16634, eq. 1)
win     the probability of the answer's letter against that of the reference, averaged over both orders, so that a
        judge's liking for the first place cancels (Zheng et al. 2023, arXiv 2306.05685, section 3.4)

Where no probabilities of tokens come, the grade or letter that was answered counts; facts say how often. An answer that
is neither leaves its completion without a score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rewardlab.data.source import DataSource
from rewardlab.errors import ConfigError, DataError, Problem
from rewardlab.llm.agree import Agreement
from rewardlab.llm.asking import Asked, JudgeEndpoint, ask_all
from rewardlab.llm.choices import Weighed, weigh
from rewardlab.llm.requests import Failure, Result
from rewardlab.llm.wire import shown
from rewardlab.records import Prompt, completion_id, content_id
from rewardlab.score.base import AnyScorer, Measured, Verified
from rewardlab.score.judging import JudgeTemplate, read_judge
from rewardlab.score.references import asked, read_references
from rewardlab.store.keys import JUDGE

_EXAMPLES = 5
_LONGEST_SHOWN = 60


class JudgeScorer(AnyScorer):
    """Scores by asking a chat model; what was answered once, in any run, is not asked again.

    Args:
        template: what is asked.
        endpoint: who is asked.
        references: by `references.asked`, what answers are compared with; empty where they are graded.
        name: what the template goes by.
        yes: the cost is agreed to already.
    """

    def __init__(
        self,
        template: JudgeTemplate,
        endpoint: JudgeEndpoint,
        references: Mapping[str, str],
        name: str,
        *,
        yes: bool = False,
    ) -> None:
        body = endpoint.question("").body()
        key = content_id([template.model_dump(mode="json"), body, dict(references)])
        super().__init__(f"{JUDGE}{name}:{endpoint.model}@{key[:12]}")
        self._template, self._endpoint, self._references, self._yes = template, endpoint, references, yes
        self._weighed: dict[str, Weighed | str] = {}
        self._examples: list[str] = []

    @property
    def endpoint(self) -> JudgeEndpoint:
        """Who is asked."""
        return self._endpoint

    @property
    def facts(self) -> dict[str, Any]:
        """What the answers were worth: `weighted` by probabilities, `parsed` as they stood, or `unusable`, by reason.

        `mass` is the mean probability of all words asked for together; the more is missing, the less an answer's
        weights say.
        """
        usable = [one for one in self._weighed.values() if isinstance(one, Weighed)]
        masses = [one.mass for one in usable if one.mass is not None]
        judged = {
            "model": self._endpoint.model,
            "mode": self._template.mode,
            "weighted": len(masses),
            "parsed": len(usable) - len(masses),
            "unusable": dict(Counter(one for one in self._weighed.values() if isinstance(one, str)).most_common()),
            "mass": math.fsum(masses) / len(masses) if masses else None,
            "examples": self._examples,
        }
        return {**super().facts, "judge": judged}

    def prepare(self, texts: Iterable[tuple[Prompt, Sequence[str]]]) -> None:
        """Ask about all of them.

        Raises:
            DataError: prompts without a reference answer: all of them, and nothing is sent.
            RunError: declined; the budget is spent. What was answered is kept.
            UnfinishedError: questions without an answer, which another try may bring.
        """
        waiting = self.waiting(texts)
        if not waiting:
            return
        answers = ask_all(self._endpoint, waiting, Agreement(self._yes), title="judging")
        for key, answer in answers.items():
            found = self._weighed[key] = weigh(answer, self._template.choices)
            if isinstance(found, str) and len(self._examples) < _EXAMPLES:
                self._examples.append(f"{found}: {shown(_said(answer))}")

    def waiting(self, texts: Iterable[tuple[Prompt, Sequence[str]]]) -> list[Asked]:
        """The questions about them that this scorer has not asked yet, each once.

        Raises:
            DataError: prompts without a reference answer: all of them.
        """
        waiting: dict[str, Asked] = {}
        problems: dict[str, Problem] = {}
        for prompt, completions in texts:
            if self._template.mode == "win" and asked(prompt) not in self._references:
                remedy = "Give one in --references, under this very prompt."
                where = f"prompt {prompt.id} ({_excerpt(prompt)})"
                problems[prompt.id] = Problem(where, "no reference answer", "one to compare with", remedy)
                continue
            for completion in completions:
                for question in self._questions(prompt, completion):
                    if question.request.key not in self._weighed:
                        waiting[question.request.key] = question
        if problems:
            raise DataError("Answers cannot be compared", list(problems.values()))
        return list(waiting.values())

    def measure(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Measured]]:
        """The judge's score of `completions[i][k]` as an answer to `prompts[i]`; None where it gave none.

        Raises:
            DataError: prompts without a reference answer.
            RunError: see `prepare`.
        """
        self.prepare(zip(prompts, completions, strict=True))
        return [
            [Measured(self._score(prompt, completion)) for completion in candidates]
            for prompt, candidates in zip(prompts, completions, strict=True)
        ]

    def verified(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], scores: Sequence[float]
    ) -> Verified:
        """`scores` compared with those of one completion at a time, from the same answers: nothing is asked twice.

        Raises:
            ModelError: one differs by more than 1e-5 max(1, |score|).
        """
        remedy = "The ledger of paid answers has changed: score again."
        return self.compared_alone(prompts, completions, scores, remedy)

    def _questions(self, prompt: Prompt, completion: str) -> list[Asked]:
        reference = self._references.get(asked(prompt), "")
        about = f"completion {completion_id(prompt, completion)} ({shown(completion)[:_LONGEST_SHOWN]})"
        messages = self._template.messages(prompt, completion, reference)
        return [Asked(self._endpoint.question(message), about) for message in messages]

    def _score(self, prompt: Prompt, completion: str) -> float | None:
        shares = []
        for question in self._questions(prompt, completion):
            found = self._weighed[question.request.key]
            if isinstance(found, str):
                return None
            shares.append(found.shares)
        if self._template.mode == "grade":
            return expected_grade(shares[0], self._template.grades[0])
        return win_probability(shares[0], shares[1])


def expected_grade(shares: Sequence[float], low: int) -> float:
    """Sum of p_k (low + k). Source: Liu et al. 2023, G-Eval, eq. 1."""
    return math.fsum(share * (low + number) for number, share in enumerate(shares))


def win_probability(first: Sequence[float], second: Sequence[float]) -> float:
    """(P(A) where the answer stands first + P(B) where it stands second) / 2. Source: Zheng et al. 2023, 3.4."""
    return (first[0] + second[1]) / 2.0


def load_judge(
    name: str, endpoint: JudgeEndpoint | None, references: DataSource | None, *, yes: bool = False
) -> JudgeScorer:
    """The scorer of `judge:NAME`.

    Raises:
        ConfigError: no such judge; nobody to ask; references missing, or given to a judge that compares nothing.
        DataError: references that cannot be read.
    """
    title = name.removeprefix(JUDGE)
    template = read_judge(title)
    problems = []
    if endpoint is None:
        remedy = "Name one with --endpoint URL, and its model with --endpoint.model."
        problems.append(Problem("endpoint", "nothing", "a chat model that judges", remedy))
    if (references is None) == (template.mode == "win"):
        found, expected = ("nothing", "answers to compare with") if references is None else (references.path, "nothing")
        problems.append(Problem("references", found, f"{expected}, since {name} is a judge in mode {template.mode}"))
    if problems or endpoint is None:
        raise ConfigError("The judge cannot be asked", problems)
    return JudgeScorer(template, endpoint, read_references(references) if references else {}, _short(title), yes=yes)


def _short(title: str) -> str:
    """The name of a file without its folders."""
    return title.replace("\\", "/").rpartition("/")[2]


def _said(answer: Result) -> str:
    """The words of an answer of no use, or of what came in its place."""
    return answer.reason if isinstance(answer, Failure) else answer.refusal or answer.text or answer.finish_reason


def _excerpt(prompt: Prompt) -> str:
    return shown(prompt.messages[-1].content)[:_LONGEST_SHOWN] if prompt.messages else "empty"
