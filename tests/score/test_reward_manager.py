"""The reward manager: values of its rules, the weighted sum, and what it says of terms that cannot be used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from published_models import distilbert
from reward_server import reward_server

from rewardlab import load_scorer
from rewardlab.config import Config
from rewardlab.errors import ConfigError, ModelError, RunError
from rewardlab.protocols import RewardTerms as Seam
from rewardlab.records import Message, Prompt, Response
from rewardlab.score.manager import RewardManager, TermsByName, load_manager
from rewardlab.score.reward_function import Rewards

PROMPT = Prompt.of_text("Q: ")


def response(text: str = "", tokens: int = 1, *, finished: bool = True, prompt: Prompt = PROMPT) -> Response:
    return Response(prompt, text, tokens, finished)


def manager(**terms: Any) -> RewardManager:
    return load_manager(Rewards.build({"rewards": terms}).rewards)


def values(term: dict[str, Any], *responses: Response) -> list[float]:
    return manager(one=term).terms(responses)["one"]


# --- rules ---------------------------------------------------------------------------------------------------------


def test_length_of_a_policy_is_best_at_its_target() -> None:
    lengths = [response(tokens=count) for count in (0, 50, 100, 150, 300)]
    assert values({"length": {"target": 100}}, *lengths) == [0.0, 0.5, 1.0, 0.5, -1.0]
    assert values({"length": {}}, *lengths) == [0.0, 50.0, 100.0, 150.0, 300.0]


def test_a_response_without_an_end_costs_one() -> None:
    assert values({"missing_eos": {}}, response("a"), response("a", finished=False)) == [0.0, -1.0]


@pytest.mark.parametrize(
    ("n", "text", "value"),
    [
        (1, "a b c d", 0.0),
        (1, "a a a a", -0.75),
        (2, "a b a b\na b", -3 / 5),  # ab ba ab ba ab: two of five are new
        (4, "a b c", 0.0),
        (4, "", 0.0),
    ],
)
def test_repetition_is_the_share_of_n_grams_seen_before(n: int, text: str, value: float) -> None:
    assert values({"repetition": {"n": n}}, response(text)) == [pytest.approx(value)]


def test_format_matches_or_not() -> None:
    asked = [response(text) for text in ("<a>1\n2</a>", "<a>1</a> and more", "1")]
    assert values({"format": "(?s)^<a>.*</a>$"}, *asked) == [1.0, 0.0, 0.0]
    assert values({"format": {"pattern": "1"}}, *asked) == [1.0, 1.0, 1.0]


# --- the sum -------------------------------------------------------------------------------------------------------


def test_the_reward_is_the_weighted_sum_of_clipped_values() -> None:
    found = manager(
        words={"model": "rule:length_words", "weight": 0.5, "clip": [1, 3]},
        end={"missing_eos": {}, "weight": 2},
        long={"length": {}, "weight": -0.1},
        watched={"format": "a", "weight": 0},
    )
    assert isinstance(found, Seam)
    assert found.weights == {"words": 0.5, "end": 2.0, "long": -0.1, "watched": 0.0}
    terms = found.terms([response("a b c d e", 7), response("", 0, finished=False)])
    assert terms == {"words": [3.0, 1.0], "end": [0.0, -1.0], "long": [7.0, 0.0], "watched": [1.0, 0.0]}
    assert found.total(terms) == pytest.approx([1.5 - 0.7, 0.5 - 2.0])
    assert found.terms([]) == {"words": [], "end": [], "long": [], "watched": []}
    assert found.total(found.terms([])) == []


def test_a_scorer_gets_prompts_and_responses_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "def reward(prompts, completions, **_):\n"
        "    text = lambda x: x if isinstance(x, str) else ' '.join(one['content'] for one in x)\n"
        "    return [100 * len(text(p)) + len(text(c)) for p, c in zip(prompts, completions)]\n"
    )
    chat = Prompt((Message("user", "longer"),))
    asked = [response("abc"), response("ab", prompt=chat), response(""), response("abcd")]
    assert values({"model": f"python:{file}:reward"}, *asked) == [303.0, 602.0, 300.0, 304.0]


def test_the_line_says_every_weight_and_direction(tmp_path: Path) -> None:
    distilbert(tmp_path / "toxic")
    found = manager(
        words="rule:length_words",
        toxicity={"classifier": str(tmp_path / "toxic"), "bad": "NEGATIVE", "weight": 2, "device": "cpu"},
        long={"length": {}, "weight": -0.1, "clip": [0, 50]},
        watched={"format": "a", "weight": 0},
    )
    name = "1 - P(NEGATIVE) of toxic@"
    assert found.line.startswith(
        f"reward = 1 * words [score of rule:length_words; higher is better] + 2 * toxicity [{name}"
    )
    assert found.line.endswith(
        ", of the response alone; higher is better] - 0.1 * long [tokens, between 0 and 50; lower is better] "
        "+ 0 * watched [1 where the response matches 'a'; only logged]"
    )
    assert "\n" not in found.line
    assert not manager(one={"length": {}}).needs_prompt
    assert found.needs_prompt
    texts = ["w1 w2.", "w3"]
    good, bad = (load_scorer(tmp_path / "toxic", label=label, device="cpu")(["", ""], texts) for label in (1, 0))
    expected = [1 / (1 + math.exp(minus - plus)) for plus, minus in zip(good, bad, strict=True)]
    assert found.terms([response(text) for text in texts])["toxicity"] == pytest.approx(expected, abs=1e-6)


def test_a_server_is_a_term() -> None:
    with reward_server() as server:
        assert values({"url": server.url, "batch_size": 1}, response("ab"), response("")) == [5.0, 3.0]
        assert len(server.seen) == 2
        server.plan = [(404, {}, b"")]
        with pytest.raises(RunError, match=r"rewards\.one: http://127"):
            values({"url": server.url}, response("a"))


# --- what cannot be used -------------------------------------------------------------------------------------------


def test_what_is_no_number_is_said_with_the_term_and_the_text() -> None:
    scorer = manager(first="rule:length_words")
    term = scorer.loaded["first"]
    for value in (float("nan"), None, float("inf")):
        broken = RewardManager({"judged": type(term)(term.config, lambda asked, value=value: [1.0, value], "", False)})
        with pytest.raises(
            ModelError,
            match=r"rewards\.judged, response 1 \(to prompt [0-9a-f]{16,}\): found (nan|None|inf) for 'hello'",
        ):
            broken.terms([response("ok"), response("hello")])


def test_a_scorer_that_fails_is_named_by_its_term(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("def reward(prompts, completions, **_):\n    raise KeyError('x')\n")
    with pytest.raises(ModelError, match=r"rewards\.own: python:own\.py:reward@.*KeyError"):
        manager(own=f"python:{file}:reward").terms([response("a")])


def test_all_terms_that_cannot_be_loaded_are_named_at_once(tmp_path: Path) -> None:
    distilbert(tmp_path / "toxic")
    with pytest.raises(ConfigError) as caught:
        manager(
            word="rule:length_wrds",
            toxicity={"classifier": str(tmp_path / "toxic"), "bad": "hate"},
            fine={"length": {}},
            gone={"model": str(tmp_path / "nowhere")},
            several={"model": str(tmp_path / "toxic")},
        )
    message = str(caught.value)
    for words in (
        "rewards.word: model: found rule:length_wrds",
        "rewards.toxicity: bad: found 'hate'",
        "0 (NEGATIVE), 1 (POSITIVE)",
        "rewards.gone: ",
        "rewards.several: ",
    ):
        assert words in message
    assert "fine" not in message
    assert len(caught.value.problems) == 4


def test_all_problems_of_a_file_are_told_with_their_places(tmp_path: Path) -> None:
    file = tmp_path / "rewards.yaml"
    file.write_text(
        "rewards:\n"
        "  two: {model: x, classifier: y, bad: z}\n"
        "  none: {weight: 2}\n"
        "  unsigned: {classifier: y}\n"
        "  both: {classifier: y, bad: 1, good: 0, timeout: 3}\n"
        "  server: {url: 'localhost:3', bad: hate}\n"
        "  form: {format: '('}\n"
        "  ends: {missing_eos: {}, clip: [3, 1]}\n"
        "  typo: {lenght: {}}\n"
        "  bad name: {length: {}}\n"
        "  pair: {classifier: y, bad: 1, encoding: {form: pair}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        Rewards.build(files=[file])
    message = str(caught.value)
    for words in (
        ":2:9, rewards.two.model: found model and classifier; expected one of model,",
        ":3:3, rewards.none.model: found none of them; expected one of model,",
        "rewards.unsigned.bad: found no bad, no good; expected bad or good",
        "rewards.both.bad: found bad '1', good '0'; expected bad or good, and not both",
        ":5:42, rewards.both.timeout: found 3.0; expected no timeout",
        "rewards.server.bad: found 'hate'; expected no bad",
        "rewards.server.url: found 'localhost:3'; expected url to be an http://",
        "rewards.form.format.pattern: found '('; expected a regular expression",
        "rewards.ends.clip",
        'rewards.typo.lenght: found the unknown key "lenght"',
        "rewards.bad name: found 'bad name'",
        "rewards.pair.encoding",
    ):
        assert words in message
    assert len(caught.value.problems) == 12


def test_no_terms_are_no_reward() -> None:
    with pytest.raises(ConfigError, match="rewards"):
        Rewards.build({"rewards": {}})


class Training(Config):
    """A configuration that has rewards, as that of a trainer."""

    rewards: TermsByName
    """Terms."""


def test_flags_name_terms_and_a_run_reads_its_own_record() -> None:
    flags = [
        ("rewards.helpful", "runs/rm/model"),
        ("rewards.toxicity.classifier", "owner/name"),
        ("rewards.toxicity.bad", "1"),
        ("rewards.toxicity.weight", "2.5"),
        ("rewards.short.length.target", "30"),
    ]
    built = Training.build(flags=flags)
    assert built.rewards["helpful"].model == "runs/rm/model"
    assert (built.rewards["toxicity"].bad, built.rewards["toxicity"].weight) == ("1", 2.5)
    assert built.rewards["short"].length is not None
    assert built.rewards["short"].length.target == 30
    assert Training.build(yaml.safe_load(built.to_yaml())) == built
