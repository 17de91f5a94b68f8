"""train ppo: rewards go up, what is left behind, awkward responses, memory, stopped and resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from policy_toys import T5, policy, train
from ranks import is_run, killed_at_random_moments
from safetensors.torch import load_file
from toys import WORDS, Killed, kill, on_call, pairs
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from rewardlab.errors import ConfigError, DataError, ModelError, RewardlabError
from rewardlab.evaluate.frontier_runs import checkpoints_of, started_from
from rewardlab.models.places import Places
from rewardlab.models.policies import load_policy, save_policy
from rewardlab.records import Candidates, Prompt, Record, Response
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.store.record import RunRecord
from rewardlab.studies.ppo import PPO
from rewardlab.train import ppo_checkpoints, ppo_loop, ppo_run, trackers
from rewardlab.train.ppo_learner import Learner
from rewardlab.train.ppo_loop import Loop
from rewardlab.train.ppo_rollout import weighted
from rewardlab.train.ppo_run import TRAINED_ON

RULE = """import pathlib

FAILS = 3

def letter(completions, **_):
    return [float(text.count("a")) for text in completions]

def broken(completions, **_):
    return [float("nan") for _ in completions]

def at_times(completions, **_):
    folder = pathlib.Path(__file__).parent
    calls, hated = folder / "calls", folder / "hated"
    count = len(calls.read_text()) if calls.exists() else 0
    calls.write_text("x" * (count + 1))
    if count == FAILS:
        hated.write_text(completions[1])
    return [float("nan") if hated.exists() and text == hated.read_text() else float(text.count("a"))
            for text in completions]
"""
TIMES = ("completions_per_second", "seconds.")


def prompts(count: int) -> list[Record]:
    return [Candidates(pair.prompt, ()) for pair in pairs(count)]


def ppo(tokenizer: Path, folder: Path, *, records: list[Record] | None = None, **settings: Any) -> Any:
    """Some steps with the letter a as the reward."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    rule = folder.parent / "rule.py"
    if not rule.exists():
        rule.write_text(RULE, encoding="utf-8")
    values = {
        "steps": 4,
        "batch_size": 8,
        "max_new_tokens": 6,
        "inner_epochs": 2,
        "learning_rate": 3e-3,
        "rewards": {"letter": f"python:{rule}:letter"},
    } | settings
    return train("train ppo", tokenizer, folder, records or prompts(12), **values)


def lines(run: Path, split: str = "train") -> list[dict[str, Any]]:
    """Of the history, without what hangs on the clock."""
    return [
        {name: value for name, value in line.items() if not name.startswith(TIMES)}
        for line in read_jsonl(run / "history.jsonl")
        if line["split"] == split
    ]


def start(tokenizer: Path, folder: Path, **options: Any) -> str:
    save_policy(policy(tokenizer, **options), folder)
    return str(folder)


# --- learning -----------------------------------------------------------------------------------------------------


LEARNS = {
    "steps": 10,
    "batch_size": 32,
    "max_new_tokens": 4,
    "inner_epochs": 4,
    "learning_rate": 1e-2,
    "beta": 0.0,
    "layout": "flat",
    "token_budget": 4096,
    "rewards": {"characters": "rule:length_characters"},
}


@pytest.mark.parametrize("settings", [{}, {"baseline": "rloo", "samples": 4}], ids=["critic", "rloo"])
def test_the_reward_goes_up(tokenizer: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """A random policy learns to write long words: from 4.7 characters to 8.7 and more in ten steps of three trials."""
    done = ppo(tokenizer, tmp_path / "run", **LEARNS, **settings)
    found = lines(tmp_path / "run")
    first, last = ([line["score"] for line in part] for part in (found[:2], found[-2:]))
    # Without learning the difference has a standard deviation of about .5.
    assert sum(last) / 2 > sum(first) / 2 + 2
    assert all(line["term.characters"] == line["score"] == line["reward"] for line in found)
    assert "Mean reward" in done.lines()[0]


def test_before_the_first_step_policy_reference_and_sampler_are_one(tokenizer: Path, tmp_path: Path) -> None:
    ppo(tokenizer, tmp_path / "run", steps=2, inner_epochs=1, temperature=0.7)
    first, second = lines(tmp_path / "run")
    assert abs(first["kl"]) < 1e-4
    assert (first["clip_share"], first["inner_steps"]) == (0.0, 1)
    assert first["kl_from_old"] < 1e-8
    # The mean of -A over whitened advantages.
    assert abs(first["policy_loss"]) < 1e-5
    assert abs(second["kl"]) > 1e-3
    assert second["kl_from_old"] < 1e-8, "ratio 1 at the first inner epoch of every step"


def test_a_reward_that_is_the_same_for_all_moves_nothing(tokenizer: Path, tmp_path: Path) -> None:
    """A critic that began at 0 would take the ends of all responses for better than expected, and move the policy."""
    rule = tmp_path / "five.py"
    rule.write_text("def five(completions, **_):\n    return [5.0 for _ in completions]\n", encoding="utf-8")
    done = ppo(tokenizer, tmp_path / "run", steps=3, rewards={"five": f"python:{rule}:five"})
    assert "3 steps had one reward for all responses, which teaches nothing." in done.lines()
    for line in lines(tmp_path / "run"):
        assert abs(line["kl"]) < 1e-4
        assert line["value_loss"] < 1e-6


def test_a_critic_that_is_far_off_takes_nothing_from_the_policys_step(tokenizer: Path, tmp_path: Path) -> None:
    """Of a critic of its own a loss a thousand times as heavy leaves the policy where it was after its first step."""
    critic = start(tokenizer, tmp_path / "critic", seed=5)
    for name, weight in (("light", 0.1), ("heavy", 100.0)):
        ppo(tokenizer, tmp_path / name, steps=2, critic=critic, vf_coef=weight)
    light, heavy = lines(tmp_path / "light"), lines(tmp_path / "heavy")
    assert light[0]["grad_norm"] == heavy[0]["grad_norm"]
    assert light[1]["kl"] == heavy[1]["kl"] != 0


def test_passes_end_where_the_policy_has_gone_too_far(tokenizer: Path, tmp_path: Path) -> None:
    ppo(tokenizer, tmp_path / "run", steps=1, inner_epochs=6, learning_rate=3e-2, inner_kl=1e-3)
    (line,) = lines(tmp_path / "run")
    assert line["stopped_early"] == 1
    assert line["inner_steps"] < 6
    ppo(tokenizer, tmp_path / "far", steps=1, inner_epochs=6, learning_rate=3e-2, inner_kl=1e3)
    assert lines(tmp_path / "far")[0]["inner_steps"] == 6


def test_beta_follows_its_target(tokenizer: Path, tmp_path: Path) -> None:
    ppo(tokenizer, tmp_path / "run", steps=3, beta=0.2, target_kl=1e3, horizon=80)
    # KL is far below: each step beta falls by .2 * 8 / 80.
    assert [line["beta"] for line in lines(tmp_path / "run")] == pytest.approx([0.2, 0.196, 0.19208])


def test_other_ways_to_learn(tokenizer: Path, tmp_path: Path) -> None:
    """A critic of its own, Adafactor, mini-batches, an entropy bonus, k3, a falling rate: each leaves a mark."""
    critic = start(tokenizer, tmp_path / "critic", seed=5)
    settings = {
        "critic": critic,
        "optimiser": "adafactor",
        "mini_batches": 2,
        "ent_coef": 0.1,
        "kl_estimator": "k3",
        "schedule": "linear",
        "layout": "flat",
    }
    ppo(tokenizer, tmp_path / "run", steps=2, **settings)
    first, second = lines(tmp_path / "run")
    assert (first["inner_steps"], first["learning_rate"], second["learning_rate"]) == (4, 3e-3, 1.5e-3)
    assert first["value_loss"] > 0
    assert second["kl"] > 0


# --- what is left -------------------------------------------------------------------------------------------------


def test_what_a_run_leaves(tokenizer: Path, tmp_path: Path) -> None:
    run, held_out = tmp_path / "run", tmp_path / "held_out.jsonl"
    held_out.write_text('{"prompt": "quiet metal: "}\n{"prompt": "happy garden: "}\n', encoding="utf-8")
    base = start(tokenizer, tmp_path / "base")
    ppo(
        tokenizer, run, model=base, validation=[str(held_out)], evaluate_every=2, checkpoints=2, samples_every=2,
        save_every=2, report_to=["tensorboard"] if _has_tensorboard() else [],
    )  # fmt: skip
    found = checkpoints_of({"ppo": [run]}, "all")
    assert [one.step for one in found] == [2, 4]
    assert started_from(run) == Path(base)
    final, last = load_policy(run / "model"), load_policy(found[-1].policy)
    assert final.encoding.max_completion_tokens == 6
    for weight, other in zip(final.parameters(), last.parameters(), strict=True):
        assert torch.equal(weight, other)
    evaluations = lines(run, "validation")
    assert [line["step"] for line in evaluations] == [0, 2, 4]
    best = max(evaluations, key=lambda line: line["score"])
    assert read_json(run / "summary.json")["best"] == {"score": best["score"], "step": best["step"]}
    assert load_policy(run / "best").encoding == final.encoding
    samples = list(read_jsonl(run / "samples.jsonl"))
    assert [line["step"] for line in samples] == [1] * 4 + [2] * 4 + [4] * 4
    assert all(line["score"] == line["response"].count("a") for line in samples)
    assert "`ppo`" in (run / "model" / "README.md").read_text()
    assert not _has_tensorboard() or list((run / "tensorboard").iterdir())


def test_the_best_policy_is_chosen_by_a_term_that_nothing_is_trained_on(
    tokenizer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The reward is the letter a, the choice the fewest of them: best/ is the one of least reward."""
    held_out, rule = tmp_path / "held_out.jsonl", tmp_path / "few.py"
    few = "def few(completions, **_):\n    return [-float(text.count('a')) for text in completions]\n"
    rule.write_text(f"{RULE}\n{few}", encoding="utf-8")
    held_out.write_text('{"prompt": "quiet metal: "}\n{"prompt": "happy garden: "}\n', encoding="utf-8")
    rewards = {"letter": f"python:{rule}:letter", "few": {"model": f"python:{rule}:few", "weight": 0}}
    settings: dict[str, Any] = {"validation": [str(held_out)], "evaluate_every": 1, "rewards": rewards, "samples": 4}
    done = ppo(tokenizer, tmp_path / "chosen", best_by="few", **settings)
    evaluations = lines(tmp_path / "chosen", "validation")
    least = min(evaluations, key=lambda line: line["score"])
    assert least["score"] < max(line["score"] for line in evaluations)
    summary = read_json(tmp_path / "chosen" / "summary.json")
    assert (summary["best"], summary["best_by"]) == ({"score": -least["score"], "step": least["step"]}, "few")
    assert f"Best on held-out prompts by few: {-least['score']:.3f}, after step {least['step']}: best/" in done.lines()
    assert TRAINED_ON not in [*done.lines(), *caplog.messages]
    assert TRAINED_ON in ppo(tokenizer, tmp_path / "by_reward", **settings).lines()
    assert TRAINED_ON in caplog.messages


class StubTracker(TrainerCallback):
    seen: list[dict[str, float]]

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.seen.append({"step": state.global_step, **logs})


def test_trackers_get_what_the_history_gets(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StubTracker.seen = []
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mlflow", StubTracker)
    monkeypatch.setattr(trackers, "get_available_reporting_integrations", lambda: ["mlflow"])
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text('{"prompt": "quiet metal: "}\n', encoding="utf-8")
    ppo(tokenizer, tmp_path / "run", steps=2, validation=[str(held_out)], report_to=["mlflow"])
    history = list(read_jsonl(tmp_path / "run" / "history.jsonl"))
    assert [line["split"] for line in history] == ["validation", "train", "train", "validation"]
    assert [logs["step"] for logs in StubTracker.seen] == [0, 1, 2, 2]
    for line, logs in zip(history, StubTracker.seen, strict=True):
        name = "score" if line["split"] == "train" else "eval_validation_score"
        assert logs[name] == line["score"]
    with pytest.raises(ConfigError, match="'tensorboard'"):
        ppo(tokenizer, tmp_path / "other", report_to=["tensorboard"])
    assert not (tmp_path / "other" / "history.jsonl").exists()


def _has_tensorboard() -> bool:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        return False
    return True


def test_of_adapters_the_reference_is_the_base(tokenizer: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    run = tmp_path / "run"
    base = start(tokenizer, tmp_path / "base")
    ppo(tokenizer, run, model=base, lora={"r": 4}, learning_rate=2e-2, checkpoints=1)
    found = lines(run)
    assert abs(found[0]["kl"]) < 1e-4
    assert abs(found[-1]["kl"]) > 1e-3
    kept = run / "policies" / "step-000004"
    assert (kept / "adapter_model.safetensors").is_file()
    for weight, other in zip(load_policy(run / "model").parameters(), load_policy(kept).parameters(), strict=True):
        torch.testing.assert_close(weight, other)


def test_length_only(tokenizer: Path, tmp_path: Path) -> None:
    ppo(tokenizer, tmp_path / "run", rewards={}, len_only=4, steps=1)
    assert all(
        line["score"] == pytest.approx(1 - abs(line["tokens"] / 4 - 1))
        for line in read_jsonl(tmp_path / "run" / "samples.jsonl")
    )


# --- awkward responses --------------------------------------------------------------------------------------------


def test_responses_that_did_not_end_are_replaced_or_punished(
    tokenizer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A random policy hardly ever ends: where no response has, the batch is left out, and counted."""
    run = tmp_path / "left_out"
    done = ppo(tokenizer, run, omit_long=True, steps=2)
    assert [line["skipped"] for line in lines(run)] == [1, 1]
    assert read_json(run / "summary.json")["counts"] == {
        "responses": 16, "unfinished": 16, "empty": 0, "replaced": 0, "skipped": 2, "level": 0, "negative_kl": 0,
    }  # fmt: skip
    assert any("2 batches without a finished response" in line for line in done.lines())
    told = [line for line in done.lines() if "100 % of the responses did not end within" in line]
    assert len(told) == 1
    assert [record.getMessage() for record in caplog.records].count(told[0]) == 1, "after the first step"
    assert "rewardlab train sft" in told[0]
    ppo(tokenizer, tmp_path / "punished", missing_eos_penalty=3.0, steps=1)
    (line,) = lines(tmp_path / "punished")
    assert line["unfinished"] == 1.0
    assert line["reward"] == pytest.approx(line["score"] - 3.0)


def test_responses_of_their_end_alone_are_learned_from(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second response is an end alone, every fourth did not end: replaced by finished ones, none is lost."""
    plain = Learner._generated

    def awkward(self: Learner, *given: Any) -> Any:
        found = plain(self, *given)
        end = self.policy.tokenizer.eos_token_id
        return [
            one._replace(ids=(), end=end) if place % 2 else one._replace(end=None if place % 4 else end)
            for place, one in enumerate(found)
        ]

    monkeypatch.setattr(Learner, "_generated", awkward)
    ppo(tokenizer, tmp_path / "run", omit_long=True, steps=2)
    for line in lines(tmp_path / "run"):
        assert (line["empty"], line["unfinished"], line["skipped"]) == (0.5, 0.25, 0)
        assert all(value == value for value in line.values())
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["counts"]["replaced"] == 4
    assert not any("did not end" in words for words in summary["warnings"])


def test_prompts_that_are_cut_are_counted_and_told(
    tokenizer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten tokens are a few words: of twelve prompts one is longer, of two held-out ones both are."""
    held_out = tmp_path / "held_out.jsonl"
    texts = [f"{word} " * 20 for word in ("quiet", "metal")]
    held_out.write_text("".join(f'{{"prompt": "{text}"}}\n' for text in texts), encoding="utf-8")
    records: list[Record] = [Candidates(Prompt.of_text(word * (1 if n else 20)), ()) for n, word in enumerate(WORDS)]
    encoding = {"max_prompt_tokens": 10, "max_completion_tokens": 4}
    settings: dict[str, Any] = {"steps": 1, "batch_size": 2, "validation": [str(held_out)], "encoding": encoding}
    done = ppo(tokenizer, tmp_path / "run", records=records, **settings)
    assert read_json(tmp_path / "run" / "summary.json")["truncated_prompts"] == {"train": 1, "validation": 2}
    told = [
        "train: 1 prompt cut on the left, to encoding.max_prompt_tokens, 10.",
        "validation: 2 prompts cut on the left, to encoding.max_prompt_tokens, 10.",
    ]
    assert set(told) <= set(done.lines())
    assert set(told) <= {record.getMessage() for record in caplog.records if record.levelname == "WARNING"}
    assert not any("cut on the left" in line for line in ppo(tokenizer, tmp_path / "short", steps=1).lines())


# --- refused ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_trained_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="causal"):
        ppo(tokenizer, tmp_path / "t5", model={"shape": T5, "tokenizer": str(tokenizer)})
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text((tmp_path / "t5.jsonl").read_text(), encoding="utf-8")
    with pytest.raises(DataError, match="12 prompts that are in train too"):
        ppo(tokenizer, tmp_path / "both", validation=[str(held_out)])
    with pytest.raises(RewardlabError, match="nan"):
        ppo(tokenizer, tmp_path / "nan", rewards={"broken": f"python:{tmp_path / 'rule.py'}:broken"})
    assert not (tmp_path / "nan" / "model").exists()
    with pytest.raises(ModelError, match=r"responses of up to 100000.* the model's context, at most"):
        ppo(tokenizer, tmp_path / "long", max_new_tokens=100_000)


def test_a_reward_that_is_no_number_costs_nothing_but_a_resume(tokenizer: Path, tmp_path: Path) -> None:
    """In a step, then in an evaluation: the state before it is kept, and the run ends as it would have."""
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text('{"prompt": "quiet metal: "}\n{"prompt": "happy garden: "}\n', encoding="utf-8")
    settings: dict[str, Any] = {"validation": [str(held_out)], "evaluate_every": 2}
    ppo(tokenizer, tmp_path / "whole", **settings)
    # Asked are: held-out prompts, two steps, held-out prompts, two steps, held-out prompts.
    for call, place in ((3, "held out"), (4, "step")):
        folder = tmp_path / place.replace(" ", "_")
        folder.mkdir()
        (folder / "rule.py").write_text(RULE.replace("FAILS = 3", f"FAILS = {call}"), encoding="utf-8")
        own = {**settings, "rewards": {"letter": f"python:{folder / 'rule.py'}:at_times"}}
        with pytest.raises(ModelError, match=r"letter, response \d \(to prompt [0-9a-f]{16}\): found no reward"):
            ppo(tokenizer, folder / "run", **own)
        (folder / "hated").unlink()
        assert (folder / "run" / "checkpoints" / "checkpoint-2" / "COMPLETE.json").is_file()
        ppo(tokenizer, folder / "run", resume=True, **own)
        for split in ("train", "validation"):
            assert lines(folder / "run", split) == lines(tmp_path / "whole", split)


def test_an_evaluation_after_a_failed_one_is_written_once_even_where_a_kill_follows(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of step 2 was saved before its evaluation: every resume until the next save makes that one again."""
    held_out, rule = tmp_path / "held_out.jsonl", tmp_path / "rule.py"
    held_out.write_text('{"prompt": "quiet metal: "}\n{"prompt": "happy garden: "}\n', encoding="utf-8")
    settings: dict[str, Any] = {"validation": [str(held_out)], "evaluate_every": 2}
    ppo(tokenizer, tmp_path / "whole", **settings)
    settings["rewards"] = {"letter": f"python:{rule}:at_times"}
    with pytest.raises(ModelError):
        ppo(tokenizer, tmp_path / "run", **settings)
    (tmp_path / "hated").unlink()
    with monkeypatch.context() as patch:
        # The first responses are those of the evaluation, the second ones those of step 3.
        patch.setattr(Learner, "sample", on_call(Learner.sample, 2, kill))
        with pytest.raises(Killed):
            ppo(tokenizer, tmp_path / "run", resume=True, **settings)
    assert [line["step"] for line in lines(tmp_path / "run", "validation")] == [0, 2]
    ppo(tokenizer, tmp_path / "run", resume=True, **settings)
    assert lines(tmp_path / "run", "validation") == lines(tmp_path / "whole", "validation")


def test_terms_that_add_up_to_no_number_are_named() -> None:
    class Huge:
        weights: ClassVar = {"huge": 1e300}

        def terms(self, responses: Sequence[Response]) -> dict[str, list[float]]:
            return {"huge": [1.0, 1e300][: len(responses)]}

    asked = [Response(Prompt.of_text("say"), text, 1, True) for text in ("one", "two")]
    with pytest.raises(ModelError, match=r"response 1 \(to prompt [0-9a-f]{16}\): found inf for 'two'"):
        weighted(Huge(), asked)
    assert weighted(Huge(), asked[:1]) == [(1e300, {"huge": 1.0})]


@pytest.mark.parametrize("settings", [{}, {"rewards": {"a": "rule:length_words"}, "len_only": 9}])
def test_there_is_one_reward(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="rewards or len_only"):
        PPO.build({"model": "m", "train": "t"} | settings)


REWARDS = {"a": "rule:length_words", "b": {"model": "rule:length_words", "weight": -1}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"best_by": "c", "validation": ["v"], "rewards": REWARDS}, "whose weight is 0 or more: a"),
        ({"best_by": "b", "validation": ["v"], "rewards": REWARDS}, "whose weight is 0 or more: a"),
        ({"best_by": "a", "rewards": REWARDS}, "expected validation beside best_by"),
        ({"best_by": "length", "validation": ["v"], "len_only": 9}, "whose weight is 0 or more: none here"),
    ],
)
def test_what_cannot_choose_the_best_policy_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PPO.build({"model": "m", "train": "t"} | settings)


def test_a_length_without_its_penalty_is_refused() -> None:
    settings = {"model": "m", "train": "t", "rewards": {"a": "rule:length_words"}, "len_penalty_tokens": 50}
    with pytest.raises(ConfigError, match="expected len_penalty beside len_penalty_tokens"):
        PPO.build(settings)
    assert PPO.build(settings | {"len_penalty": 1.0}).len_penalty_tokens == 50


# --- memory -------------------------------------------------------------------------------------------------------


def test_held_out_prompts_are_answered_a_batch_at_a_time(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are; and the answers are those that they have all at once."""
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(f'{{"prompt": "quiet metal {number}: "}}\n' for number in range(20)), encoding="utf-8")
    plain, read = Places.of, {"few": [0], "all": [0]}
    for name, size in (("few", 3), ("all", 20)):

        def counted(network: Any, takes: Any, prompts: Any, pad: int, seen: list[int] = read[name]) -> Any:
            seen.append(len(prompts))
            return plain(network, takes, prompts, pad)

        monkeypatch.setattr(Places, "of", counted)
        ppo(tokenizer, tmp_path / name, steps=1, batch_size=size, validation=[str(held_out)])
    assert (max(read["few"]), max(read["all"])) == (3, 20)
    few, together = (lines(tmp_path / name, "validation")[0] for name in read)
    assert few["n"] == 20
    assert {**few, "epoch": 0} == {**together, "epoch": 0}


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


PLACES = {"_generated": 3, "_measured": 2, "_referred": 3, "_terms": 4}


@pytest.mark.parametrize("place", PLACES)
def test_memory_that_runs_out_changes_nothing(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The call fails once; smaller micro-batches give the same up to rounding."""
    ppo(tokenizer, tmp_path / "whole", token_budget=256)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, place, on_call(getattr(Learner, place), PLACES[place], out_of_memory))
        ppo(tokenizer, tmp_path / "small", token_budget=256)
    assert read_json(tmp_path / "small" / "summary.json")["token_budget"] == (256 if place == "_generated" else 128)
    for line, other in zip(lines(tmp_path / "small"), lines(tmp_path / "whole"), strict=True):
        assert line.keys() == other.keys()
        assert {name: value for name, value in line.items() if name != "split"} == pytest.approx(
            {name: value for name, value in other.items() if name != "split"}, rel=1e-3, abs=1e-3
        )


def test_memory_that_never_suffices_ends_with_a_remedy(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        out_of_memory()

    monkeypatch.setattr(Learner, "_measured", never)
    with pytest.raises(RewardlabError, match="64 tokens a micro-batch"):
        ppo(tokenizer, tmp_path / "run")


# --- stopped and resumed ------------------------------------------------------------------------------------------

LONG = {
    "steps": 6,
    "save_every": 2,
    "evaluate_every": 3,
    "checkpoints": 3,
    "samples_every": 2,
    "mini_batches": 2,
    "scale_reward": True,
    "target_kl": 2.0,
    "horizon": 50,
}
KILLS: dict[str, tuple[Any, str, int]] = {
    "in the first step": (Learner, "learn", 1),
    "in the middle of an update": (Learner, "_step", 13),
    "while sampling": (Learner, "sample", 7),
    "before a checkpoint is sealed": (ppo_checkpoints, "seal", 2),
    "inside a save": (ppo_checkpoints, "save_file", 2),
    "before the old checkpoint goes": (ppo_checkpoints, "rotate", 2),
    "in an evaluation": (Loop, "_evaluate", 2),
    "between two lines": (ppo_loop, "append_line", 12),
    "at the end": (ppo_run, "_finish", 1),
}


def left(run: Path) -> dict[str, Any]:
    weights = {
        str(path.relative_to(run)): load_file(path)
        for path in [*run.glob("policies/*/model.safetensors"), *run.glob("*/model.safetensors")]
    }
    samples = list(read_jsonl(run / "samples.jsonl"))
    return {"lines": lines(run), "held out": lines(run, "validation"), "samples": samples, "weights": weights}


@pytest.fixture(scope="module")
def uninterrupted(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    held_out = folder / "held_out.jsonl"
    held_out.write_text('{"prompt": "quiet metal: "}\n{"prompt": "happy garden: "}\n', encoding="utf-8")
    ppo(tokenizer, folder / "run", validation=[str(held_out)], **LONG)
    return held_out, left(folder / "run")


QUICK = ("in the middle of an update", "before a checkpoint is sealed", "in an evaluation")


@pytest.mark.parametrize(
    "place", [place if place in QUICK else pytest.param(place, marks=pytest.mark.slow) for place in KILLS]
)
def test_killed_anywhere_it_ends_the_same(
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: tuple[Path, dict[str, Any]],
    place: str,
) -> None:
    held_out, expected = uninterrupted
    owner, name, call = KILLS[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, on_call(getattr(owner, name), call, kill))
        with pytest.raises(Killed):
            ppo(tokenizer, tmp_path / "run", validation=[str(held_out)], **LONG)
    ppo(tokenizer, tmp_path / "run", validation=[str(held_out)], resume=True, **LONG)
    assert_same(left(tmp_path / "run"), expected)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Bit for bit."""
    assert found["lines"] == expected["lines"]
    assert found["held out"] == expected["held out"]
    assert found["samples"] == expected["samples"]
    assert found["weights"].keys() == expected["weights"].keys()
    assert len(found["weights"]) == 5
    for file, tensors in expected["weights"].items():
        assert all(torch.equal(tensor, found["weights"][file][key]) for key, tensor in tensors.items()), file


def trained(tokenizer: str, held_out: str, root: str, name: str) -> None:
    """What is left of an earlier call, gone on with to its end."""
    run = Path(root) / name
    resume = is_run(run)
    if resume and RunRecord.read(run).status == "done":  # killed between its end and that of its process
        return
    ppo(Path(tokenizer), run, validation=[held_out], resume=resume, **LONG)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_it_ends_the_same(
    tokenizer: Path, tmp_path: Path, uninterrupted: tuple[Path, dict[str, Any]]
) -> None:
    """kill -9, twenty times, while it loads, samples, learns, evaluates and saves."""
    held_out, expected = uninterrupted
    root = tmp_path / "runs"
    killed_at_random_moments(
        trained,
        lambda name: (str(tokenizer), str(held_out), str(root), name),
        lambda name: assert_same(left(root / name), expected),
    )
