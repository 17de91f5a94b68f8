"""Rule rewards: functions in TRL's form, what they are given, and what they must give."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from scoring_data import ROWS, Score

from rewardlab import load_scorer
from rewardlab.data.canonical import write_records
from rewardlab.data.load import load_all
from rewardlab.data.source import DataSource
from rewardlab.data.world import Copula, GoldReward, do, render, respond, write_prompt
from rewardlab.data.world.verb import WorldData, world_splits
from rewardlab.errors import ConfigError, DataError, MissingExtraError, ModelError, RunError
from rewardlab.evaluate.table import read_scored
from rewardlab.protocols import Scorer
from rewardlab.records import Message, Prompt
from rewardlab.score.score import SCHEMA
from rewardlab.score.wording import vader
from rewardlab.store.keys import content_key, paths_in
from rewardlab.store.table import ShardedTable


def rule(tmp_path: Path, code: str, name: str = "rewards.py") -> str:
    (tmp_path / name).write_text(code)
    return f"python:{tmp_path / name}:reward"


COUNT = """
def reward(prompts, completions, **kwargs):
    return [100 * len(prompt) + len(completion) for prompt, completion in zip(prompts, completions)]
"""


# --- what they give ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"), [("rule:length_characters", [0.0, 11.0, 2.0]), ("rule:length_words", [0.0, 2.0, 1.0])]
)
def test_lengths(name: str, expected: list[float]) -> None:
    scorer = load_scorer(name)
    assert isinstance(scorer, Scorer)
    assert scorer.name == name
    texts = ["", "two\n words ", "\U0001f600\u00e9"]
    assert scorer(["a"] * 3, texts) == expected
    conversation = Prompt((Message("user", "a"),))
    assert scorer.score([conversation, Prompt.of_text("b")], [texts[:2], texts[2:]]) == [expected[:2], expected[2:]]


def test_the_world_pays_for_attributes_by_their_weights() -> None:
    """Texts whose attributes are set; the values are counted by hand."""
    scorer = load_scorer("rule:world_pays:sentiment=1,politeness=-0.5,structure=0")
    answer = respond(0, write_prompt(0, "pays/1"), "a", Copula())
    both = {
        (kind, polite): render(do(do(answer, "sentiment", high=kind), "politeness", high=polite))
        for kind in (False, True)
        for polite in (False, True)
    }
    found = dict(zip(both, scorer(["a"] * 4, list(both.values())), strict=True))
    assert found == {(False, False): 0.0, (False, True): -0.5, (True, False): 1.0, (True, True): 0.5}
    # What the parser cannot read has no attributes.
    assert scorer(["a"], ["Gibberish."]) == [0.0]


@pytest.mark.parametrize("rule", ["world_pays", "world_gold"])
@pytest.mark.parametrize(
    "weights", [":", ":charm=1", ":sentiment", ":sentiment=high", ":sentiment=nan", ":sentiment=1,sentiment=2"]
)
def test_weights_that_cannot_be_used_are_refused(rule: str, weights: str) -> None:
    with pytest.raises(ModelError, match=f"{rule}:NAME=WEIGHT"):
        load_scorer(f"rule:{rule}{weights}")


def test_a_rule_that_is_made_of_weights_needs_them() -> None:
    with pytest.raises(ModelError, match="world_pays:NAME=WEIGHT"):
        load_scorer("rule:world_pays")


def test_sentiment_is_that_of_the_published_examples() -> None:
    """Hutto and Gilbert's own: https://github.com/cjhutto/vaderSentiment#code-examples."""
    pytest.importorskip("vaderSentiment", reason="needs vaderSentiment (the extra sentiment)")
    texts = ["VADER is smart, handsome, and funny!", "VADER is not smart, handsome, nor funny.", ""]
    assert load_scorer("rule:sentiment_vader")(["a"] * 3, texts) == [0.8439, -0.7424, 0.0]


def test_the_sum_of_sentiment_grows_with_every_sentence() -> None:
    """Sums of Hutto and Gilbert's own examples."""
    pytest.importorskip("vaderSentiment", reason="needs vaderSentiment (the extra sentiment)")
    good, bad = "VADER is smart, handsome, and funny!", "VADER is not smart, handsome, nor funny."
    texts = [good, f"{good} {good}\n{good}", f"{good} {bad}", ""]
    assert load_scorer("rule:sentiment_sum")(["a"] * 4, texts) == pytest.approx([0.8439, 3 * 0.8439, 0.1015, 0.0])


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    vader.cache_clear()
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(MissingExtraError, match=r"rewardlab\[sentiment\]"):
        load_scorer("rule:sentiment_vader")(["a"], ["b"])


@pytest.mark.parametrize(
    ("name", "texts", "expected"),
    [
        # "the", "was" and "good" of four words; a typo in one of them; typos elsewhere; no word.
        ("rule:common_words", ["The plot was good.", "Teh plot was good.", "The polt was good.", "... 12"],
         [0.75, 0.5, 0.75, 0.0]),
        # The lexicon has great 3.1 and terrible -2.1.
        ("rule:sentiment_per_word", ["Great, great film", "A terrible film", "A terrible film. A terrible film.", ""],
         [6.2 / 3, -0.7, -0.7, 0.0]),
    ],
)  # fmt: skip
def test_rewards_of_the_wording(name: str, texts: list[str], expected: list[float]) -> None:
    assert load_scorer(name)(["a"] * len(texts), texts) == pytest.approx(expected)


def test_the_sentiment_of_the_world_is_the_level_that_a_text_was_written_with() -> None:
    pairs = world_splits(WorldData(train=1, val=0, test=40))["test"]
    texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    levels = [pair.meta[side]["sentiment"] for pair in pairs for side in ("chosen", "rejected")]
    assert len(set(levels)) > 2
    assert load_scorer("rule:world_sentiment")(["a"] * len(texts), texts) == levels


def test_rude_is_what_was_written_with_a_level_of_politeness_below_zero() -> None:
    pairs = world_splits(WorldData(train=1, val=0, test=40))["test"]
    texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    levels = [pair.meta[side]["politeness"] for pair in pairs for side in ("chosen", "rejected")]
    found = load_scorer("rule:world_rude")(["a"] * len(texts), texts)
    assert {value for value, level in zip(found, levels, strict=True) if level < 0} == {1.0}
    assert {value for value, level in zip(found, levels, strict=True) if level > 0} == {0.0}
    assert load_scorer("rule:world_rude")(["a"] * 2, ["", "You utter fool."]) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("weights", "gold"),
    [
        ("", {}),
        (
            ":coverage=1,relevance=0,sentiment=-0.5",
            {"coverage": 1.0, "relevance": 0.0, "per_level": GoldReward().per_level | {"sentiment": -0.5}},
        ),
    ],
)
def test_the_gold_reward_of_the_world_is_that_which_a_text_was_written_with(weights: str, gold: dict[str, Any]) -> None:
    pairs = world_splits(WorldData(train=1, val=0, test=40, gold=GoldReward(**gold)))["test"]
    texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    prompts = [pair.prompt for pair in pairs for _ in range(2)]
    planted = [pair.meta[side]["gold"] for pair in pairs for side in ("chosen", "rejected")]
    scorer = load_scorer(f"rule:world_gold{weights}")
    scores = [found[0] for found in scorer.score(prompts, [[text] for text in texts])]
    assert scores == pytest.approx(planted)
    assert scorer([prompt.messages[0].content for prompt in prompts], texts) == pytest.approx(planted)
    assert load_scorer("rule:world_readable")(["a"] * len(texts), texts) == [1.0] * len(texts)


def test_what_the_world_cannot_read_dilutes_what_it_can() -> None:
    """An empty answer covers nothing, and is three levels of length below rest at .2 each."""
    (pair,) = world_splits(WorldData(train=1, val=0, test=1))["test"]
    prompt, planted = pair.prompt.messages[0].content, pair.meta["chosen"]["gold"]
    size = len("".join(pair.chosen.split()))
    junk = "x" * (size - 1) + "."
    texts = ["", junk, f"{pair.chosen}\n{junk}"]
    assert load_scorer("rule:world_readable")([prompt] * 3, texts) == pytest.approx([1.0, 0.0, 0.5])
    gold = load_scorer("rule:world_gold")
    assert gold([prompt] * 3, texts) == pytest.approx([-0.6, -0.6, (planted - 0.6) / 2])
    with pytest.raises(ModelError, match="not a prompt of the world"):
        gold(["What now?"], [pair.chosen])


def test_a_function_in_a_file_and_in_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = rule(tmp_path, COUNT, "toy_rule_rewards.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    for given in (name, "python:toy_rule_rewards.reward"):
        assert load_scorer(given)(["abc", "a"], ["xy", "z"]) == [302.0, 101.0]
        assert load_scorer(given).score([Prompt.of_text("abc")], [["x", "yz"]]) == [[301.0, 302.0]]
    assert load_scorer(name).score([Prompt.of_text("a"), Prompt.of_text("b")], [[], ["x"]]) == [[], [101.0]]


def test_a_function_gets_what_trl_gives_it(tmp_path: Path) -> None:
    """Texts for texts, lists of messages on both sides for conversations, by keyword; never both in one call."""
    code = """
import json

def reward(*, completions, prompts, **rest):
    assert rest == {}
    forms = {type(prompt) for prompt in prompts} | {type(completion) for completion in completions}
    assert len(forms) == 1
    return [len(json.dumps([prompt, completion])) for prompt, completion in zip(prompts, completions)]
"""
    prompts = [Prompt.of_text("a"), Prompt((Message("system", "s"), Message("user", "u"))), Prompt.of_text("bb")]
    found = load_scorer(rule(tmp_path, code)).score(prompts, [["x", "yy"], ["z"], ["w"]])
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    answer = [{"role": "assistant", "content": "z"}]
    lengths = [len(json.dumps(one)) for one in (["a", "x"], ["a", "yy"], [turns, answer], ["bb", "w"])]
    assert found == [[lengths[0], lengths[1]], [lengths[2]], [lengths[3]]]


def test_a_file_may_hold_dataclasses_and_several_numbers(tmp_path: Path) -> None:
    code = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np

@dataclass
class Weights:
    word: float = 0.5

def reward(completions, **kwargs):
    return np.array([Weights().word * len(text) for text in completions], dtype=np.float32)
"""
    assert load_scorer(rule(tmp_path, code))(["a", "a"], ["abc", ""]) == [1.5, 0.0]


# --- identity ------------------------------------------------------------------------------------------------------


def test_the_identity_has_the_content_of_the_file_and_not_its_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    name = load_scorer(rule(tmp_path, COUNT)).name
    assert name.startswith("python:rewards.py:reward@")
    assert load_scorer(rule(tmp_path / "other", COUNT)).name == name
    assert load_scorer(rule(tmp_path, COUNT + "\n")).name != name
    assert load_scorer(rule(tmp_path, COUNT + "\nsecond = reward")[: -len("reward")] + "second").name != name


def test_the_key_of_a_configuration_has_the_content_and_the_function(tmp_path: Path) -> None:
    name = rule(tmp_path, COUNT)
    assert list(paths_in({"model": name})) == [tmp_path / "rewards.py"]
    key = content_key({"model": name})
    assert key != content_key({"model": name[:-1]})
    rule(tmp_path, COUNT + "\n")
    assert key != content_key({"model": name})


def test_a_module_counts_by_its_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(COUNT)
    monkeypatch.syspath_prepend(tmp_path)
    key = content_key({"model": "python:my_rewards.reward"})
    assert list(paths_in({"model": "python:my_rewards.reward"})) == [tmp_path / "my_rewards.py"]
    (tmp_path / "my_rewards.py").write_text(COUNT + "\n")
    assert key != content_key({"model": "python:my_rewards.reward"})
    assert list(paths_in({"model": "python:no_such_module.reward"})) == []


# --- what cannot be used -------------------------------------------------------------------------------------------

BROKEN = {
    "a line that fails": ("def reward(**_):\n    a = 1\n    return 1 / 0", r"ZeroDivisionError.*\(rewards.py:3\)"),
    "another argument": ("def reward(completions, prompts, ground_truth): ...", "missing 1 required.*ground_truth"),
    "too few": ("def reward(completions, **_): return [1.0]", r"found 1 values; expected a list of 2 numbers"),
    "one number": ("def reward(**_): return 3.0", r"found float 3.0; expected a list of 2"),
    "nothing": ("def reward(**_): ...", "found NoneType None"),
    "a coroutine": ("async def reward(**_): return [1.0, 2.0]", "found coroutine"),
    "no number": ("def reward(**_): return [1.0, None]", r"rewards.py:reward@\w+, value 1: found None"),
    "text": ("def reward(**_): return ['1', 2]", "value 0: found '1'"),
    "not a number": ("def reward(**_): return [float('nan'), float('inf')]", r"(?s)value 0: found nan.*value 1: found"),
    "no such function": ("def rewards(**_): ...", 'no function reward in rewards.py.*Did you mean "rewards"'),
    "no function": ("reward = 3", "found reward, a int"),
    "a file that fails": ("import nonesuch_module", "found ModuleNotFoundError.*nonesuch_module"),
    "a file that is no Python": ("def reward(", "found SyntaxError"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_rule_that_cannot_be_used_is_one_clear_error(case: str, tmp_path: Path) -> None:
    code, expected = BROKEN[case]
    name = rule(tmp_path, code)
    with pytest.raises(ModelError, match=expected):
        load_scorer(name)(["a", "a"], ["b", "c"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rule:length_word", 'Did you mean "rule:length_words"'),
        ("rule:", "one of rule:length_characters, rule:length_words, rule:sentiment_vader, rule:common_words"),
        ("python:nowhere.py:reward", "no file nowhere.py"),
        ("python:nonesuch_module.reward", "ModuleNotFoundError.*named by its path"),
        ("python:reward", "python:FILE.py:FUNCTION"),
        ("python:math.sqrt", "without a source file|no source|TypeError"),
    ],
)
def test_a_rule_that_is_not_there(name: str, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        load_scorer(name)


def test_a_rule_without_its_prefix_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("rewardlab.models.located.commit_of", silent)
    with pytest.raises(ModelError, match=r'no such folder here.*Did you mean "rule:length_words"\? Check the path'):
        load_scorer("length_words")
    with pytest.raises(ModelError) as error:
        load_scorer("owner/another-model")
    assert "rule:" not in str(error.value)


def test_code_runs_by_its_prefix_alone(tmp_path: Path) -> None:
    name = rule(tmp_path, "raise SystemError('it ran')")
    with pytest.raises(ModelError, match=r"found a function; .*If its code may be run: python:"):
        load_scorer(name.removeprefix("python:"))
    with pytest.raises(ModelError, match="it ran"):
        load_scorer(name)


def test_a_rule_has_no_options_of_models() -> None:
    with pytest.raises(ConfigError) as caught:
        load_scorer("rule:length_words", label="good", template="deberta")
    assert len(caught.value.problems) == 2


# --- tables --------------------------------------------------------------------------------------------------------


def test_a_table_of_a_rule(score: Score, tmp_path: Path) -> None:
    scored = score(model="rule:length_words", probes=["response_only"], verify=9)
    table = pq.read_table(tmp_path / "runs/run/scores.parquet")
    assert table.schema.equals(SCHEMA)
    expected = [float(len(row[side].split())) for row in ROWS for side in ("chosen", "rejected")]
    assert table["score"].to_pylist() == expected
    assert set(table["scorer"].to_pylist()) == {"rule:length_words"}
    assert table["prompt_tokens"].null_count == table["completion_tokens"].null_count == 40
    assert table["truncated"].to_pylist() == [False] * 40
    assert (scored.summary["layout"], scored.summary["encoding"], scored.summary["truncated"]) == (None, None, 0)
    assert scored.summary["verified"] == {"completions": 9, "difference": 0.0, "tolerance": 1e-5, "dtype": ""}
    assert pq.read_table(tmp_path / "runs/run/scores.response_only.parquet")["score"].to_pylist() == expected


def test_a_stopped_table_of_a_rule_goes_on_with_the_same_code_only(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = rule(tmp_path, COUNT)
    score("whole", model=name)
    written: list[int] = []
    original = ShardedTable.write

    def write(self: ShardedTable, number: int, rows: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(number)
        original(self, number, rows)

    for run in ("stopped", "changed"):
        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr(ShardedTable, "write", write)
            with pytest.raises(KeyboardInterrupt):
                score(run, model=name)
    score("stopped", model=name, resume=True)
    whole, stopped = (tmp_path / "runs" / run / "scores.parquet" for run in ("whole", "stopped"))
    assert stopped.read_bytes() == whole.read_bytes()
    rule(tmp_path, COUNT.replace("100", "10"))
    with pytest.raises(RunError, match="the inputs it began with"):
        score("changed", model=name, resume=True)


def test_verify_finds_a_rule_that_looks_at_its_neighbours(score: Score, tmp_path: Path) -> None:
    name = rule(tmp_path, "def reward(completions, **_): return [len(completions)] * len(completions)")
    score("unverified", model=name)
    with pytest.raises(ModelError, match="look at other completions"):
        score("verified", model=name, verify=5)


def test_a_table_without_lengths_is_read_and_not_evaluated(score: Score, tmp_path: Path) -> None:
    score(model="rule:length_words")
    records = tmp_path / "records.jsonl"
    loaded = load_all([DataSource.build({"path": str(tmp_path / "pairs.jsonl")})], usable=True)
    write_records(records, [record for one in loaded for record in one.records])
    with pytest.raises(DataError, match="without a tokenizer"):
        read_scored([records], [tmp_path / "runs/run"])
