"""`rewardlab sample` with a policy here: every prompt once, the same completions however it is interrupted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from small_models import ENCODER_DECODERS, WORDS, config_of, reward_model_of, word_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.utils import is_bitsandbytes_available

from rewardlab.cli.main import main
from rewardlab.data.canonical import read_records
from rewardlab.data.load import load
from rewardlab.data.source import DataSource
from rewardlab.data.turns import PolicyEncoder, PolicyEncoding
from rewardlab.errors import ConfigError, DataError, InputError, ModelError, RunError
from rewardlab.evaluate.policies import PolicyComparison
from rewardlab.evaluate.policy_answers import read_answers
from rewardlab.evaluate.toxicity_texts import ready_answers
from rewardlab.models.adapters import quiet_peft
from rewardlab.models.generate import answers
from rewardlab.models.loading import save_reward_model
from rewardlab.records import Candidates, Prompt
from rewardlab.sample import local
from rewardlab.sample.verb import Sampled, Sampling, sample
from rewardlab.store.files import read_json, write_json
from rewardlab.store.runs import Run
from rewardlab.store.table import ShardedTable

Sample = Callable[..., Sampled]
END = 2


def policy_folder(place: Path, shape: str = "llama") -> Path:
    """Random weights over words: some completions end, some do not."""
    kind = AutoModelForSeq2SeqLM if shape in ENCODER_DECODERS else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind.from_config(config_of(shape), dtype=torch.float32).save_pretrained(place)
    word_tokenizer("$A </s>" if shape in ENCODER_DECODERS else "<s> $A").save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy_folder(tmp_path_factory.mktemp("policy"))


def texts(count: int) -> list[str]:
    return [" ".join(WORDS[n : n + 1 + n % 7]) for n in range(count)]


def written(path: Path, prompts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))
    return path


@pytest.fixture
def sampled(folder: Path, tmp_path: Path) -> Sample:
    """Samples of ten prompts in a run called `name`, four prompts to a shard."""
    data = written(tmp_path / "prompts.jsonl", texts(10))

    def call(name: str = "run", *, resume: bool = False, **options: Any) -> Sampled:
        values = {"model": str(folder), "data": str(data), "n": 3, "temperature": 1.5, "max_new_tokens": 40}
        config = Sampling.build({**values, "shard_size": 12, "device": "cpu", **options})
        with Run.create(config, verb="sample", name=name, root=tmp_path / "runs", resume=resume) as run:
            return sample(config, run)

    return call


def records(tmp_path: Path, name: str = "run") -> list[Candidates]:
    found = read_records(tmp_path / "runs" / name / "completions.jsonl")
    assert all(isinstance(one, Candidates) for one in found)
    return found  # type: ignore[return-value]


def content(tmp_path: Path, name: str) -> bytes:
    return (tmp_path / "runs" / name / "completions.jsonl").read_bytes()


def test_prompts_are_given_as_texts_too(sampled: Sample, tmp_path: Path) -> None:
    """The same completions as of a file with these prompts; an empty prompt is the beginning of a text."""
    given = ["", *texts(2)]
    sampled("alone", data=[], prompts=given, token_budget=512)
    sampled("file", data=str(written(tmp_path / "own.jsonl", given)), token_budget=512)
    assert [one.prompt for one in records(tmp_path, "alone")] == [Prompt.of_text(text) for text in given]
    alone, file = records(tmp_path, "alone"), records(tmp_path, "file")
    assert [one.completions for one in alone] == [one.completions for one in file]
    sampled("both", prompts=[""])
    assert [one.prompt.messages[0].content for one in records(tmp_path, "both")] == ["", *texts(10)]
    with pytest.raises(ConfigError, match="expected data or prompts"):
        Sampling.build({"model": "m"})


def test_every_prompt_is_answered_in_order_and_the_counts_are_right(sampled: Sample, tmp_path: Path) -> None:
    found = sampled(logprobs=True)
    made = records(tmp_path)
    assert [one.prompt.messages[0].content for one in made] == texts(10)
    flat = [
        (text, reason, count, ids, value)
        for one in made
        for text, reason, count, ids, value in zip(
            one.completions,
            *(one.meta[name] for name in ("finish_reasons", "tokens", "token_ids", "logprobs")),
            strict=True,
        )
    ]
    assert len(flat) == 30
    for text, reason, count, ids, value in flat:
        assert count == len(ids) <= 40
        assert (reason == "stop") == (ids[-1] == END)
        assert reason == "stop" or count == 40
        # One word a token, and the word's number is its id less the four special ones.
        assert text.split() == [WORDS[token - 4] for token in ids if token > 3]
        assert value < 0.0
    unfinished = sum(reason == "length" for _, reason, *_ in flat)
    assert 0 < unfinished < 30
    summary = read_json(tmp_path / "runs/run/summary.json")
    assert summary == found.summary
    assert (summary["prompts"], summary["completions"]) == (10, 30)
    assert summary["mean_tokens"] == pytest.approx(sum(count for _, _, count, *_ in flat) / 30)
    assert summary["unfinished"] == pytest.approx(unfinished / 30)
    assert found.lines()[0].startswith("30 completions of 10 prompts, ")
    assert made[0].meta["warped"] is False
    assert made[0].meta["temperature"] == 1.5


def test_a_completion_hangs_on_its_prompt_its_number_and_the_seed_alone(sampled: Sample, tmp_path: Path) -> None:
    sampled("three")
    three = [one.completions for one in records(tmp_path, "three")]
    # Fewer of each, in other shards, beside other prompts, with other batches.
    sampled("two", n=2, shard_size=100, token_budget=128, bottom=2, top=7)
    assert [one.completions for one in records(tmp_path, "two")] == [own[:2] for own in three[2:7]]
    sampled("other", seed=1)
    other = [one.completions for one in records(tmp_path, "other")]
    assert all(a != b for a, b in zip(three, other, strict=True))
    # Numbers of a prompt are draws of their own.
    assert all(len(set(own)) > 1 for own in three)


def test_broken_off_and_resumed_it_has_the_bytes_of_a_whole_run(
    sampled: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled("whole", logprobs=True)
    write, stops = ShardedTable.write, [1, 1]
    numbers: list[int] = []

    def breaking(self: ShardedTable, number: int, rows: Any) -> None:
        write(self, number, rows)
        numbers.append(number)
        if stops and len(numbers) == sum(stops):
            raise KeyboardInterrupt

    monkeypatch.setattr(ShardedTable, "write", breaking)
    with pytest.raises(KeyboardInterrupt):
        sampled("broken", logprobs=True)
    stops.clear()
    sampled("broken", logprobs=True, resume=True)
    assert sorted(numbers) == [0, 1, 2]
    assert content(tmp_path, "broken") == content(tmp_path, "whole")


def test_a_resumed_run_keeps_its_budget_and_refuses_other_prompts(
    sampled: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local.LocalSampler, "_answers", stopped)
    with pytest.raises(KeyboardInterrupt):
        sampled()
    assert read_json(tmp_path / "runs/run/plan.json") == {"token_budget": 16384, "shard_size": 12}
    written(tmp_path / "prompts.jsonl", texts(9))
    with pytest.raises(RunError, match="inputs it began with"):
        sampled(resume=True)


def test_a_prompt_that_stands_in_several_rows_is_one(sampled: Sample, folder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": "w1 w2", "chosen": f"w{n}", "rejected": f"w{n + 1}"} for n in range(5, 8)]
    rows.insert(1, {"prompt": "w3", "chosen": "w8", "rejected": "w9"})
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sampled(data=str(pairs))
    made = records(tmp_path)
    assert [one.prompt.messages[0].content for one in made] == ["w1 w2", "w3"]
    assert [one.source.row for one in made if one.source] == [1, 2]
    # The completions are in a file that can be sampled from again.
    sampled("again", data=str(tmp_path / "runs/run/completions.jsonl"))
    assert [one.completions for one in records(tmp_path, "again")] == [one.completions for one in made]


def test_where_memory_runs_out_fewer_are_answered_at_once(
    sampled: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled("whole")
    seen: list[int] = []

    def small(*positional: Any, places: int, **named: Any) -> Iterator[Any]:
        seen.append(places)
        for number, found in enumerate(answers(*positional, places=places, **named)):
            if places > 3 and number == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield found

    monkeypatch.setattr(local, "answers", small)
    sampled("small")
    assert seen == [12, 6, 3, 3, 3]
    assert content(tmp_path, "small") == content(tmp_path, "whole")

    def never(*_: Any, **__: Any) -> Iterator[Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(local, "answers", never)
    with pytest.raises(ModelError, match="does not fit into memory"):
        sampled("none")


def test_an_encoder_decoder_reads_the_prompt_with_its_own_end(sampled: Sample, tmp_path: Path) -> None:
    t5 = policy_folder(tmp_path / "t5", "t5")
    sampled(model=str(t5), n=2)
    made = records(tmp_path)
    assert [len(one.completions) for one in made] == [2] * 10
    # Greedy, beside transformers' own.
    sampled("greedy", model=str(t5), n=1, temperature=0.0, max_new_tokens=15)
    network, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(t5).eval(), word_tokenizer("$A </s>")
    for one in records(tmp_path, "greedy"):
        ids = tokenizer(one.prompt.messages[0].content, return_tensors="pt").input_ids
        expected = network.generate(ids, do_sample=False, max_new_tokens=15)[0, 1:].tolist()
        assert one.meta["token_ids"] == [expected]


def test_the_encoding_comes_with_the_policy_and_flags_replace_it(sampled: Sample, tmp_path: Path) -> None:
    place = policy_folder(tmp_path / "own")
    rules = PolicyEncoding(template="w90 {prompt} w91", max_prompt_tokens=6, max_completion_tokens=9)
    write_json(place / "rewardlab.json", {"format": 1, "policy": rules.model_dump(mode="json")})
    found = sampled(model=str(place), max_new_tokens=None, temperature=0.0, n=1)
    assert found.summary["encoding"] == rules.model_dump(mode="json")
    assert found.summary["max_new_tokens"] == 9
    network = AutoModelForCausalLM.from_pretrained(place).eval()
    encoder = PolicyEncoder(word_tokenizer(), rules)
    for one in records(tmp_path):
        (prompt,) = encoder.prompts([one.prompt])
        expected = network.generate(torch.tensor([prompt.ids]), do_sample=False, max_new_tokens=9)[0, len(prompt.ids) :]
        assert one.meta["token_ids"] == [expected.tolist()]
    cut = [one.truncated for one in encoder.prompts([Prompt.of_text(text) for text in texts(10)])]
    assert found.summary["truncated_prompts"] == sum(cut) > 0
    flags = {"encoding": {"max_completion_tokens": 7}, "max_new_tokens": None}
    plain = sampled("plain", model=str(place), temperature=0.0, n=1, **flags)
    assert plain.summary["max_new_tokens"] == 7
    assert records(tmp_path, "plain")[0].meta["token_ids"] != records(tmp_path)[0].meta["token_ids"]


def test_what_cannot_be_sampled_is_said(sampled: Sample, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a prompt of 8 tokens and 125 to come.*128 tokens.*max_new_tokens"):
        sampled(max_new_tokens=125)
    with pytest.raises(DataError, match="bottom: found 10; expected less than 10"):
        sampled(bottom=10)
    reward = tmp_path / "reward"
    save_reward_model(reward_model_of("llama", "flat"), reward, card="# card")
    with pytest.raises(ModelError, match="Is it a reward model"):
        sampled(model=str(reward))
    assert not (tmp_path / "runs/run").exists()


def test_few_bits_and_the_type_of_the_others_reach_transformers(
    sampled: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def from_pretrained(*_: Any, **options: Any) -> Any:
        asked.update(options)
        raise RuntimeError("Stopped")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(ModelError, match=r"Stopped.*Does this machine have what the method needs"):
        sampled(quantisation={"quant_method": "fp8"}, precision="float32")
    assert type(asked["quantization_config"]).__name__ == "FineGrainedFP8Config"
    assert asked["dtype"] == torch.float32


@pytest.mark.skipif(not is_bitsandbytes_available(), reason="needs the extra quantisation")
@pytest.mark.filterwarnings("ignore")
def test_in_few_bits_the_answers_are_nearly_those_of_whole_weights(sampled: Sample, tmp_path: Path) -> None:
    found = sampled("few", quantisation="8bit", precision="float32", logprobs=True)
    assert (found.summary["quantisation"], found.summary["precision"]) == ("8bit", "float32")
    sampled("whole", logprobs=True)
    few, whole = (
        [(ids[0], value) for one in records(tmp_path, name) for ids, value in _drawn(one)] for name in ("few", "whole")
    )
    assert len(few) == 30
    assert sum(one == other for (one, _), (other, _) in zip(few, whole, strict=True)) > 24
    assert [value for _, value in few] != [value for _, value in whole]


def _drawn(one: Candidates) -> Iterator[tuple[list[int], float]]:
    return zip(one.meta["token_ids"], one.meta["logprobs"], strict=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": "http://localhost:1/v1"}, "a model or an endpoint, and not both"),
        ({"model": None}, "a model or an endpoint, and not both"),
        ({"logprobs": True, "temperature": 0.0}, "a temperature above 0 beside logprobs"),
        ({"bottom": 3, "top": 3}, "top above bottom"),
        ({"model": None, "endpoint": {"url": "http://localhost:1/v1", "temperature": 1}}, "no temperature here"),
        ({"model": None, "endpoint": {"url": "http://localhost:1/v1", "parameters": {"top_p": 1}}}, "parameters.top_p"),
        ({"model": None, "endpoint": "http://localhost:1/v1", "logprobs": True}, "a model beside logprobs"),
        ({"model": None, "endpoint": "http://localhost:1/v1", "encoding": {}}, "no encoding beside an endpoint"),
        ({"model": None, "endpoint": "http://localhost:1/v1", "quantisation": "8bit"}, "no quantisation beside an end"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Sampling.build({"model": "here", "data": "data.jsonl", **options})
    assert said in str(refused.value)
    assert isinstance(refused.value, InputError)


def test_the_command_line_samples_scores_and_prints(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REWARDLAB_HOME", str(tmp_path / "runs"))
    data = written(tmp_path / "prompts.jsonl", texts(3))
    words = ["--data", str(data), "--n", "2", "--max-new-tokens", "5", "--device", "cpu"]
    assert main(["sample", "--model", str(folder), *words, "--top-p", "0.9", "--run", "drawn"]) == 0
    assert "6 completions of 3 prompts" in capsys.readouterr().out
    assert records(tmp_path, "drawn")[0].meta["warped"] is True
    scored = ["--model", "rule:length_words", "--data", str(tmp_path / "runs/drawn/completions.jsonl")]
    assert main(["score", *scored, "--run", "scores"]) == 0
    assert "6 completions scored" in capsys.readouterr().out


def test_an_adapter_is_sampled_from_with_its_base(sampled: Sample, folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    options = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    with torch.random.fork_rng(devices=[]), quiet_peft():
        torch.manual_seed(1)
        network = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), options).eval()
    network.save_pretrained(tmp_path / "adapter")
    word_tokenizer().save_pretrained(tmp_path / "adapter")
    sampled(model=str(tmp_path / "adapter"), n=1, temperature=0.0, max_new_tokens=9)
    for one in records(tmp_path):
        ids = word_tokenizer()(one.prompt.messages[0].content, return_tensors="pt").input_ids
        expected = network.generate(input_ids=ids, do_sample=False, max_new_tokens=9)[0, ids.shape[1] :]
        assert one.meta["token_ids"] == [expected.tolist()]


def test_its_folder_is_read_as_its_completions_by_every_verb(sampled: Sample, folder: Path, tmp_path: Path) -> None:
    """Beside them lie a plan, shards with theirs, and what records the run: no data."""
    sampled("first")
    sampled("second", seed=1)
    places = [tmp_path / "runs" / name for name in ("first", "second")]
    assert {path.name for path in places[0].rglob("*.json")} == {"plan.json", "run.json", "summary.json"}
    assert list(places[0].rglob("*.parquet"))
    for place in (places[0], tmp_path / "part"):
        if not place.exists():
            shutil.copytree(places[0], place, ignore=shutil.ignore_patterns("run.json"))
        source = load(DataSource(path=str(place)))
        assert source.records == load(DataSource(path=str(place / "completions.jsonl"))).records
        assert len(source.records) == 10
    sets = [word for place in places for word in (f"--sets.{place.name}", str(place))]
    words = ["--judge", "rule:length_words", "--draws", "100", "--run", "won"]
    assert main(["evaluate", "winrate", *sets, *words]) == 0
    assert pq.read_table(tmp_path / "home/won/comparisons.parquet").num_rows == 10
    config = PolicyComparison.build({"sets": {"one": str(places[0])} | {"two": str(places[1])},
                                     "rewards": {"words": "rule:length_words"}})  # fmt: skip
    found = read_answers(config.sets)
    assert [found.total(name) for name in ("one", "two")] == [30, 30]
    assert len(ready_answers("one", places[0]).prompts) == 10
    assert main(["score", "--model", "rule:length_words", "--data", str(places[0]), "--run", "scored"]) == 0
    assert pq.read_table(tmp_path / "home/scored/scores.parquet").num_rows == 30


def test_an_unfinished_one_is_no_data(sampled: Sample, tmp_path: Path) -> None:
    sampled()
    place = tmp_path / "runs/run"
    (place / "completions.jsonl").unlink()
    with pytest.raises(DataError, match=r"a run of `sample` without completions\.jsonl.*--resume"):
        load(DataSource(path=str(place)))


def test_other_folders_with_completions_are_read_whole(tmp_path: Path) -> None:
    for name in ("completions", "more"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": name, "completion": "a"}) + "\n")
    assert len(load(DataSource(path=str(tmp_path))).records) == 2
