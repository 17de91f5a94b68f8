"""The frontier of tiny policies: divergences against enumeration, best of n against brute force, and going on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats
from small_models import WORDS, config_of, word_tokenizer
from transformers import AutoModelForCausalLM
from transformers.utils import is_bitsandbytes_available

from rewardlab.cli.arguments import parse
from rewardlab.cli.verb import grammar_of
from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import ConfigError, DataError, ModelError
from rewardlab.evaluate import frontier_samples
from rewardlab.evaluate.frontier import FrontierEvaluation, _changes, _warnings, measure
from rewardlab.evaluate.frontier_estimates import HELD_OUT, REWARD, areas, checkpoint_values, chosen
from rewardlab.evaluate.frontier_runs import Checkpoint, chosen_steps, reference_of
from rewardlab.evaluate.frontier_samples import Written
from rewardlab.models.policies import load_policy, new_policy, save_policy
from rewardlab.models.source import LoRA, ModelSource
from rewardlab.report.frontier import evaluate_frontier
from rewardlab.report.frontier_figures import curve_rows
from rewardlab.sample.verb import sample
from rewardlab.store.files import read_json
from rewardlab.store.runs import Run

N, PROMPTS, TEMPERATURE = 24, 12, 0.8
RULES = """
def number(text):
    return float(text.split()[0][1:]) if text.strip() else 0.0

def trained(completions, **_):
    return [number(one) // 10 for one in completions]

def gold(completions, **_):
    return [-abs(number(one) - 40.0) for one in completions]
"""


def save(folder: Path, shift: float) -> Path:
    """The policy of seed 0, its output layer moved by `shift` in a fixed direction."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config_of("llama"), dtype=torch.float32)
        torch.manual_seed(1)
        network.lm_head.weight.data += shift * torch.randn_like(network.lm_head.weight)
    network.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference, a training that went away from it, prompts and rules."""
    root = tmp_path_factory.mktemp("frontier")
    save(root / "reference", 0.0)
    for step, shift in ((1, 0.05), (2, 0.1), (3, 0.15)):
        save(root / "training" / "policies" / f"step-{step:06d}", shift)
    recorded(root / "training", root / "reference")
    rows = [{"prompt": " ".join(WORDS[count : count + 1 + count % 4])} for count in range(PROMPTS)]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "rules.py").write_text(RULES)
    return root


def recorded(folder: Path, reference: Path) -> None:
    """What a training says of where it started."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"sessions": [{"directory": str(reference.parent)}]}))
    (folder / "config.yaml").write_text(f"model: {{path: {reference.name}}}\nreference: null\n")


def options(place: Path, **more: Any) -> dict[str, Any]:
    return {
        "runs": {"moved": str(place / "training"), "<b>same</b>": str(place / "reference")},
        "reference": str(place / "reference"),
        "data": str(place / "prompts.jsonl"),
        "reward": f"python:{place / 'rules.py'}:trained",
        "held_out": {"gold": f"python:{place / 'rules.py'}:gold"},
        "n": N,
        "best_of": [1, 2, 3],
        "temperature": TEMPERATURE,
        "max_new_tokens": 1,
        "device": "cpu",
        **more,
    }


def run_in(root: Path, values: dict[str, Any], *, resume: bool = False) -> Path:
    config = FrontierEvaluation.build(values)
    with Run.create(config, verb="evaluate frontier", name="frontier", root=root, resume=resume) as run:
        evaluate_frontier(config, run)
    return root / "frontier"


def measured_in(root: Path, values: dict[str, Any]) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A run without its page, which takes longer than all else, and its checkpoints by name."""
    config = FrontierEvaluation.build(values)
    with Run.create(config, verb="evaluate frontier", name="frontier", root=root) as run:
        return run.folder, {one["run"]: one for one in measure(config, run)["checkpoints"]}


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("runs")
        patch.setenv("REWARDLAB_HOME", str(root))
        patch.setenv("REWARDLAB_ALLOW_UNTRACKED", "1")
        return run_in(root, options(place))


def rows(done: Path, run: str, step: int) -> dict[str, np.ndarray]:
    table = pq.read_table(done / "frontier.parquet").to_pandas()
    own = table[(table["run"] == run) & (table["step"] == step)]
    return {name: own[name].to_numpy() for name in own.columns}


def of(done: Path, run: str, step: int) -> dict[str, Any]:
    values = read_json(done / "frontier.json")["checkpoints"]
    return next(one for one in values if (one["run"], one["step"]) == (run, step))


def log_softmax(folder: Path, prompts: list[str]) -> np.ndarray:
    """Log-probabilities of the first token by plain transformers, shape [prompts, vocabulary]."""
    network = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = word_tokenizer()
    with torch.no_grad():
        logits = [network(**tokenizer(text, return_tensors="pt")).logits[0, -1] for text in prompts]
    return torch.log_softmax(torch.stack(logits).double() / TEMPERATURE, dim=-1).numpy()


def prompts_of(place: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in (place / "prompts.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("step", [1, 3])
def test_the_divergence_is_that_of_all_tokens_counted_out(place: Path, done: Path, step: int) -> None:
    policy = log_softmax(place / "training" / "policies" / f"step-{step:06d}", prompts_of(place))
    reference = log_softmax(place / "reference", prompts_of(place))
    found = rows(done, "moved", step)
    samples = [json.loads(line) for line in _completions(done, step).read_text().splitlines()]
    tokens = [[ids[0] for ids in one["meta"]["token_ids"]] for one in samples]
    drawn = [(policy - reference)[prompt, token] for prompt, own in enumerate(tokens) for token in own]
    assert found["log_ratio"] == pytest.approx(np.array(drawn), abs=1e-5)
    exact = (np.exp(policy) * (policy - reference)).sum(axis=1)
    spread = np.sqrt((np.exp(policy) * (policy - reference - exact[:, None]) ** 2).sum(axis=1).mean() / len(drawn))
    estimate = of(done, "moved", step)["kl"]
    assert abs(estimate["value"] - exact.mean()) < 3.5 * spread
    # By hand: the means of the prompts are what is independent.
    means = np.array(drawn).reshape(PROMPTS, N).mean(axis=1)
    assert estimate["value"] == pytest.approx(means.mean(), abs=1e-6)
    assert estimate["error"] == pytest.approx(stats.sem(means), abs=1e-6)
    low, high = stats.t.interval(0.95, PROMPTS - 1, means.mean(), stats.sem(means))
    assert (estimate["low"], estimate["high"]) == pytest.approx((low, high), abs=1e-6)
    assert of(done, "moved", step)["rounding"] < 1e-4


def _completions(done: Path, step: int) -> Path:
    return done / "samples" / "0-0" / f"step-{step:06d}" / "completions.jsonl"


def test_a_policy_that_is_the_reference_has_a_divergence_of_exactly_nothing(done: Path) -> None:
    assert (rows(done, "<b>same</b>", 0)["log_ratio"] == 0.0).all()
    assert of(done, "<b>same</b>", 0)["kl"]["value"] == 0.0
    reference = read_json(done / "frontier.json")["reference"]
    assert (reference["kl"]["value"], reference["kl"]["error"]) == (0.0, 0.0)
    # The same seeds: what it writes is what the reference writes.
    assert of(done, "<b>same</b>", 0)["rewards"] == reference["rewards"]
    assert min(of(done, "moved", step)["kl"]["value"] for step in (1, 2, 3)) > 0.0


def test_best_of_n_is_the_mean_over_all_choices_of_n(done: Path) -> None:
    own = rows(done, "reference", 0)
    reward, gold = (own[name].reshape(PROMPTS, N) for name in (REWARD, f"{HELD_OUT}gold"))
    for one in read_json(done / "frontier.json")["best_of"]:
        best, held_out = [], []
        for prompt in range(PROMPTS):
            for places in combinations(range(N), one["n"]):
                top = reward[prompt, list(places)].max()
                best.append(top)
                tied = [place for place in places if reward[prompt, place] == top]
                held_out.append(gold[prompt, tied].mean())
        assert one["rewards"][REWARD]["value"] == pytest.approx(np.mean(best))
        assert one["rewards"][f"{HELD_OUT}gold"]["value"] == pytest.approx(np.mean(held_out))
        assert one["kl"] == pytest.approx(np.log(one["n"]) - (one["n"] - 1) / one["n"])
        assert one["tokens"]["value"] == pytest.approx(1.0)


def test_the_chosen_checkpoint_has_the_best_held_out_reward(done: Path) -> None:
    means = {step: rows(done, "moved", step)[f"{HELD_OUT}gold"].mean() for step in (1, 2, 3)}
    found = read_json(done / "frontier.json")["chosen"]
    assert [(one["run"], one["step"]) for one in found] == [
        ("moved", max(means, key=lambda step: means[step])),
        ("<b>same</b>", 0),
    ]
    assert found[0]["by"] == f"{HELD_OUT}gold"


def test_every_policy_has_the_rewards_of_its_own_completions(done: Path) -> None:
    rules: dict[str, Any] = {}
    exec(RULES, rules)
    folders = {("moved", step): f"0-0/step-{step:06d}" for step in (1, 2, 3)} | {("reference", 0): "reference"}
    found = {}
    for (run, step), folder in folders.items():
        lines = (done / "samples" / folder / "completions.jsonl").read_text().splitlines()
        texts = [text for line in lines for text in json.loads(line)["completions"]]
        own = rows(done, run, step)
        assert own[REWARD].tolist() == rules["trained"](texts)
        assert own[f"{HELD_OUT}gold"].tolist() == rules["gold"](texts)
        found[run, step] = own[f"{HELD_OUT}gold"].mean()
    assert len(set(found.values())) == len(found), "equal rewards would hide that they stand in each other's place"


def written_by_hand(run: str, step: int, rewards: list[float]) -> Written:
    """Two completions to each of three prompts."""
    ones = np.ones(6)
    own = {REWARD: np.array(rewards), f"{HELD_OUT}gold": -2.0 * np.array(rewards)}
    checkpoint = Checkpoint(run, 0, step, Path(f"{run}-{step}"))
    names = np.repeat(["p", "q", "r"], 2)
    return Written(checkpoint, names, np.tile([0, 1], 3), ones, ones > 0, [[1]] * 6, 0.1 * ones, 0.0, own)


def test_after_the_choice_it_is_the_last_minus_the_chosen_checkpoint() -> None:
    points = [
        written_by_hand("a", 1, [5.0, 5.0, 5.0, 5.0, 5.0, 5.0]),
        written_by_hand("a", 2, [0.0, 2.0, 1.0, 1.0, 2.0, 0.0]),
        written_by_hand("a", 3, [1.0, 3.0, 4.0, 6.0, 4.0, 6.0]),
        written_by_hand("b", 3, [9.0] * 6),
    ]
    choice = chosen([checkpoint_values(one, 2, 0.95) for one in points], f"{HELD_OUT}gold")
    (change,) = _changes(choice, points)
    assert (change["run"], change["from"], change["to"]) == ("a", 2, 3)
    # Prompt by prompt 1, 4 and 4 more: completions of a prompt say nothing about chance on their own.
    for name, factor in ((REWARD, 1.0), (f"{HELD_OUT}gold", -2.0)):
        gaps = factor * np.array([1.0, 4.0, 4.0])
        found = change["rewards"][name]
        assert found["value"] == pytest.approx(gaps.mean())
        assert (found["low"], found["high"]) == pytest.approx(stats.t.interval(0.95, 2, gaps.mean(), stats.sem(gaps)))


def test_without_a_held_out_reward_the_choice_is_warned_of() -> None:
    points: list[dict[str, Any]] = [
        {"run": "a", "seed": 0, "step": step, "policy": "p", "kl": {}} for step in (1, 2, 3)
    ]
    for point, value in zip(points, (1.0, 3.0, 3.0), strict=True):
        point["rewards"] = {REWARD: {"value": value}}
    # Of equal ones the earliest.
    assert [one["step"] for one in chosen(points, REWARD)] == [2]


def test_the_json_has_its_parts(done: Path) -> None:
    values = read_json(done / "frontier.json")
    assert sorted(values) == [
        "area_from",
        "area_to",
        "areas",
        "best_of",
        "changes",
        "checkpoints",
        "chosen",
        "differences",
        "findings",
        "from_reference",
        "level",
        "max_new_tokens",
        "n",
        "reference",
        "scorers",
        "sd",
        "temperature",
        "warnings",
    ]
    assert sorted(values["checkpoints"][0]) == [
        "completions",
        "distinct_1",
        "distinct_2",
        "kl",
        "policy",
        "prompts",
        "rewards",
        "rounding",
        "run",
        "seed",
        "step",
        "tokens",
        "unfinished",
    ]
    assert [(one["run"], one["step"]) for one in values["checkpoints"]] == [
        ("moved", 1),
        ("moved", 2),
        ("moved", 3),
        ("<b>same</b>", 0),
    ]
    columns = [
        "run",
        "seed",
        "step",
        "prompt_id",
        "number",
        "reward",
        "held_out.gold",
        "log_ratio",
        "tokens",
        "finished",
    ]
    table = pq.read_table(done / "frontier.parquet")
    assert table.column_names == columns
    assert table.num_rows == 5 * PROMPTS * N
    text = (done / "report.html").read_text()
    assert "&lt;b&gt;same&lt;/b&gt;" in text
    assert "<b>same</b>" not in text


def test_distinct_tokens_and_the_unfinished_are_counted(done: Path) -> None:
    samples = [json.loads(line) for line in _completions(done, 2).read_text().splitlines()]
    tokens = [ids[0] for one in samples for ids in one["meta"]["token_ids"]]
    found = of(done, "moved", 2)
    assert found["distinct_1"] == pytest.approx(len(set(tokens)) / len(tokens))
    assert found["distinct_2"] is None
    assert found["unfinished"]["value"] == pytest.approx(sum(token != 2 for token in tokens) / len(tokens))


def test_curves_have_their_seeds_and_begin_at_the_reference(done: Path) -> None:
    values = read_json(done / "frontier.json")
    assert values["from_reference"] == ["moved"]
    found = curve_rows(values, REWARD)
    assert next(row["kl"] for row in found if row["curve"] == "moved") == 0.0
    assert len([row for row in found if row["curve"] == "moved"]) == 4
    assert len([row for row in found if row["curve"] == "best of n"]) == 3
    twice = [{**one, "seed": seed} for one in values["checkpoints"] for seed in (0, 1)]
    several = curve_rows({**values, "checkpoints": twice, "from_reference": []}, REWARD)
    assert [(row["line"], row["step"]) for row in several if row["role"] == "mean"][:3] == [
        ("moved", 1),
        ("moved", 2),
        ("moved", 3),
    ]


def wrote(run: str, seed: int, kl: float, rewards: list[float]) -> Written:
    """A policy whose one completion of each prompt has these rewards."""
    count = len(rewards)
    return Written(
        Checkpoint(run, seed, 1, Path("policy")),
        np.array([f"prompt {place}" for place in range(count)]),
        np.zeros(count, int),
        np.ones(count, int),
        np.ones(count, bool),
        [[1]] * count,
        np.full(count, kl),
        0.0,
        {REWARD: np.array(rewards)},
    )


def test_areas_and_their_paired_differences_by_hand() -> None:
    reference = wrote("reference", 0, 0.0, [1.0, 1.0])
    # From (0, 1) to (4, height), level beyond: above the reference between 0 and 8 nats, 3/4 of the rise on average.
    rises = {"a": [4.0, 8.0, 6.0], "b": [2.0, 4.0, 6.0]}
    points = [wrote(run, seed, 4.0, [1.0 + rise] * 2) for run, own in rises.items() for seed, rise in enumerate(own)]
    found, differences = areas(points, reference, [], (0.0, 8.0), 0.95)
    assert [one["seeds"] for one in found] == [[3.0, 6.0, 4.5], [1.5, 3.0, 4.5]]
    assert [one["reach"] for one in found] == [4.0, 4.0]
    (apart,) = differences
    gaps = [1.5, 3.0, 0.0]
    assert apart["value"] == pytest.approx(1.5)
    assert (apart["low"], apart["high"]) == pytest.approx(stats.t.interval(0.95, 2, 1.5, stats.sem(gaps)))


def test_of_unequal_numbers_of_seeds_those_that_both_have_are_paired_and_the_others_told() -> None:
    reference = wrote("reference", 0, 0.0, [1.0, 1.0])
    rises = {"a": [4.0, 8.0, 6.0], "b": [2.0, 4.0]}
    points = [wrote(run, seed, 4.0, [1.0 + rise] * 2) for run, own in rises.items() for seed, rise in enumerate(own)]
    found, (apart,) = areas(points, reference, [1], (0.0, 8.0), 0.95)
    gaps = [1.5, 3.0]
    assert (apart["value"], apart["n"]) == (pytest.approx(2.25), 2)
    assert (apart["low"], apart["high"]) == pytest.approx(stats.t.interval(0.95, 1, 2.25, stats.sem(gaps)))
    told = "a, of 3 seeds, and b, of 2, are compared seed by seed over the first 2; the others of a have no partner."
    assert told in _warnings(found, (0.0, 8.0), set())
    alike = [one for one in points if one.checkpoint.seed < 2]
    even, _ = areas(alike, reference, [1], (0.0, 8.0), 0.95)
    assert not any("partner" in line for line in _warnings(even, (0.0, 8.0), set()))


@pytest.mark.parametrize(
    ("reach", "still", "said"),
    [
        (0.3, set(), "before 0.5, so its frontier there is level: train further"),
        (9.0, set(), "a straight line: keep more checkpoints"),
        (4.0, set(), "counts as level beyond"),
        (0.0, {"a"}, ""),
    ],
)
def test_what_is_advised_helps(reach: float, still: set[str], said: str) -> None:
    reference = wrote("reference", 0, 0.0, [1.0, 2.0])
    found, _ = areas([wrote("a", 0, reach, [1.0, 3.0])], reference, [], (0.5, 5.0), 0.95)
    assert [said in line for line in _warnings(found, (0.5, 5.0), still)] == ([True] if said else [])


def test_findings_say_every_reason_once_and_of_the_reference_that_it_is_it(done: Path) -> None:
    values = read_json(done / "frontier.json")
    text = "\n".join(values["findings"])
    reasons = {one["reason"] for one in [*values["areas"], *values["differences"]]} - {""}
    assert len(reasons) == 2
    assert [text.count(reason) for reason in reasons] == [1, 1]
    assert "<b>same</b>, seed 0: step 0, the best by gold (held out), is the reference: every log-ratio is 0." in text
    assert "<b>same</b>: a seed" not in text
    assert ": moved, <b>same</b>. It is called the reward trained on because the configuration says so." in text


def test_the_area_of_one_seed_has_an_interval_over_prompts() -> None:
    """Between 4 and 8 nats the area is the mean height above the reference: Student's interval, prompt by prompt."""
    reference = wrote("reference", 0, 0.0, [1.0, 0.0, 2.0])
    heights = [5.0, 1.0, 6.0]
    (single, best), _ = areas([wrote("a", 0, 4.0, heights)], reference, [1], (4.0, 8.0), 0.95)
    rises = np.array(heights) - [1.0, 0.0, 2.0]
    ends = stats.t.interval(0.95, 2, rises.mean(), stats.sem(rises))
    assert (single["value"], single["low"], single["high"]) == pytest.approx((rises.mean(), *ends))
    assert single["reason"] == "one seed: the interval is over prompts, given this training"
    assert (best["run"], best["value"], best["low"]) == ("best of n", 0.0, None)


@pytest.mark.parametrize(
    ("rule", "steps"),
    [
        ("all", [10, 20, 30, 40, 50]),
        ("first 2", [10, 20]),
        ("every 2", [10, 30, 50]),
        ("every 4", [10, 50]),
        ("40, 20", [20, 40]),
    ],
)
def test_rules_for_checkpoints(rule: str, steps: list[int]) -> None:
    assert chosen_steps([10, 20, 30, 40, 50], rule) == steps


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"top_k": 5, "repetition_penalty": 1.2}, "repetition_penalty: found 1.2; expected plain sampling"),
        ({"temperature": 0}, "temperature"),
        ({"checkpoints": "last 3"}, "all, first K, every K"),
        ({"best_of": [0, 2]}, "numbers from 1 on"),
        ({"runs": {"reference": "x"}}, "other names of runs than reference"),
        ({"area_from": 6}, "area_from below area_to"),
    ],
)
def test_what_cannot_be_measured_is_refused(place: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        FrontierEvaluation.build(options(place, **more))
    assert said in str(error.value)


def test_warped_sampling_is_refused_with_the_reason_wherever_it_is_asked_for(place: Path, tmp_path: Path) -> None:
    (tmp_path / "frontier.yaml").write_text(json.dumps(options(place), indent=1).replace("{", '{\n"top_k": 5,', 1))
    given = parse(["--top_p", "0.9"], grammar_of(FrontierEvaluation))
    with pytest.raises(ConfigError) as error:
        FrontierEvaluation.build(files=[tmp_path / "frontier.yaml"], flags=given.flags)
    said = "expected plain sampling: of warped samples there is no divergence"
    told = {str(problem) for problem in error.value.problems}
    assert told == {f"{tmp_path}/frontier.yaml:2:1, top_k: found 5; {said}", f"--top_p: found 0.9; {said}"}


def test_folders_without_the_policies_asked_for_are_named_together(place: Path, tmp_path: Path) -> None:
    values = options(place, runs={"a": str(place / "training"), "b": str(tmp_path)}, checkpoints=[2, 7])
    with pytest.raises(DataError) as error:
        run_in(tmp_path / "runs", values)
    assert "no step 7" in str(error.value)
    assert "no policies" in str(error.value)


def test_a_mistyped_folder_is_not_taken_for_runs_that_disagree(place: Path, tmp_path: Path) -> None:
    values = options(place, runs={"a": str(place / "training"), "b": str(tmp_path / "nope")}, reference=None)
    with pytest.raises(DataError, match="nope: found no such folder"):
        run_in(tmp_path / "runs", values)


def test_rewards_that_are_not_there_are_named_together_before_anything_is_sampled(place: Path, tmp_path: Path) -> None:
    members = [{"model": str(tmp_path / "seed-0")}, {"model": "rule:length_words"}]
    held_out = {"typo": "rule:lenght", "near": "length_word", "both": {"ensemble": {"members": members}}}
    with pytest.raises(ModelError) as error:
        run_in(tmp_path / "runs", options(place, reward=str(tmp_path / "nope"), held_out=held_out))
    told = [str(problem) for problem in error.value.problems]
    assert [one.split(": ")[0] for one in told] == ["reward", "held_out.typo", "held_out.near", "held_out.both"]
    assert all(
        part in one
        for part, one in zip(("nope", "rule:lenght", 'mean "rule:length_words"', "seed-0"), told, strict=True)
    )
    assert not list((tmp_path / "runs").rglob("samples"))


def test_policies_may_differ_in_how_much_they_wrote_but_not_in_how_they_read(place: Path, tmp_path: Path) -> None:
    def reads(name: str, **rules: int) -> Checkpoint:
        folder = save(tmp_path / name, 0.0)
        (folder / "rewardlab.json").write_text(json.dumps({"format": 1, "policy": rules}))
        return Checkpoint(name, 0, 0, folder)

    short, long = reads("ppo", max_completion_tokens=24), reads("dpo", max_completion_tokens=40)
    config = FrontierEvaluation.build(options(place, max_new_tokens=None))
    encoding = config.encoding_of([short, long])
    assert encoding == PolicyEncoding(max_completion_tokens=40)
    assert config.most(encoding) == 40
    assert FrontierEvaluation.build(options(place, max_new_tokens=20)).most(encoding) == 20
    other = reads("other", max_completion_tokens=24, max_prompt_tokens=30)
    with pytest.raises(ConfigError, match="read prompts in different ways") as error:
        config.encoding_of([short, long, other])
    assert "max_completion_tokens" not in str(error.value)


def test_the_reference_is_where_the_runs_started_if_they_agree(place: Path, tmp_path: Path) -> None:
    training = place / "training"
    assert reference_of([training, training], None) == (place / "reference").resolve()
    copy = tmp_path / "copy"
    shutil.copytree(place / "reference", copy)
    recorded(tmp_path / "copied", copy)
    assert reference_of([training, tmp_path / "copied"], None) == (place / "reference").resolve()
    save(copy, 1.0)
    with pytest.raises(ConfigError, match="do not agree"):
        reference_of([training, tmp_path / "copied"], None)
    recorded(tmp_path / "other", place / "training")
    with pytest.raises(ConfigError, match="do not agree"):
        reference_of([training, tmp_path / "other"], None)
    config = FrontierEvaluation.build({**options(place, runs={"a": str(training)}), "reference": None})
    assert config.pinned().reference == (place / "reference").resolve()


def test_a_run_that_was_stopped_draws_nothing_again(
    place: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def counted(config: Any, run: Any) -> Any:
        if len(drawn) == 3:
            drawn.append("stopped")
            raise KeyboardInterrupt
        drawn.append(config.model)
        return sample(config, run)

    monkeypatch.setattr(frontier_samples, "sample", counted)
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "runs", options(place))
    folder = run_in(tmp_path / "runs", options(place), resume=True)
    steps = [str(place / "training" / "policies" / f"step-{step:06d}") for step in (1, 2, 3)]
    reference = str(place / "reference")
    assert drawn == [reference, *steps[:2], "stopped", steps[2], reference]
    for name in ("frontier.parquet", "frontier.json"):
        assert (folder / name).read_bytes() == (done / name).read_bytes()


def test_what_could_be_sampled_can_be_measured(place: Path, tmp_path: Path) -> None:
    """Of 128 positions the encoding's longest prompt and 60 new tokens are too many; these prompts are short."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config_of("gpt2"), dtype=torch.float32).save_pretrained(tmp_path / "policy")
    word_tokenizer().save_pretrained(tmp_path / "policy")
    policy = str(tmp_path / "policy")
    more = {"n": 1, "best_of": [], "max_new_tokens": 60, "held_out": {}, "encoding": {"max_prompt_tokens": 100}}
    folder = run_in(tmp_path / "runs", options(place, runs={"a": policy}, reference=policy, **more))
    assert of(folder, "a", 0)["tokens"]["value"] > 1.0
    assert of(folder, "a", 0)["rounding"] < 1e-3


def test_adapters_along_a_training_write_what_their_merged_weights_write(place: Path, tmp_path: Path) -> None:
    model = new_policy(ModelSource(path=str(place / "reference")), None, seed=0, lora=LoRA(r=4))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.linspace(-0.3, 0.3, weight.numel()).reshape(weight.shape))
    save_policy(model, tmp_path / "adapters" / "policies" / "step-000004", merge=False)
    save_policy(model, tmp_path / "merged" / "policies" / "step-000004")
    runs = {name: str(tmp_path / name) for name in ("adapters", "merged")}
    encoding = {"max_prompt_tokens": 16, "max_completion_tokens": 16}
    more = {"n": 4, "best_of": [], "max_new_tokens": 6, "held_out": {}, "encoding": encoding}
    folder = run_in(tmp_path / "runs", options(place, runs=runs, **more))
    adapters, merged = (rows(folder, name, 4) for name in runs)
    assert (adapters["reward"] == merged["reward"]).all()
    assert adapters["log_ratio"] == pytest.approx(merged["log_ratio"], abs=1e-4)
    assert np.abs(merged["log_ratio"]).max() > 0.01
    warnings = read_json(folder / "frontier.json")["warnings"]
    assert warnings[0].startswith("The checkpoints are chosen by the reward that was trained on")


def test_all_policies_and_the_reference_are_loaded_in_few_bits(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def whole(path: Path, *, quantisation: Any, **more: Any) -> Any:
        seen.append(quantisation)
        return load_policy(path, **more)

    def drawn(config: Any, run: Run) -> Any:
        seen.append(config.quantisation)
        return sample(config.model_copy(update={"quantisation": None}), run)

    monkeypatch.setattr(frontier_samples, "load_policy", whole)
    monkeypatch.setattr(frontier_samples, "sample", drawn)
    more = {"n": 1, "best_of": [], "checkpoints": "1", "quantisation": "8bit"}
    measured_in(tmp_path / "runs", options(place, **more))
    # Two policies and the reference, sampled and measured, and the reference as what all are compared with.
    assert seen == ["8bit"] * 7


@pytest.mark.skipif(not is_bitsandbytes_available(), reason="needs the extra quantisation")
@pytest.mark.filterwarnings("ignore")
def test_adapters_beside_few_bits_are_compared_with_the_same_base(place: Path, tmp_path: Path) -> None:
    base = ModelSource(path=str(place / "reference"), quantisation="8bit")
    model = new_policy(base, None, seed=0, lora=LoRA(r=4))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.linspace(-0.3, 0.3, weight.numel()).reshape(weight.shape))
    save_policy(model, tmp_path / "adapter")
    runs = {"adapter": str(tmp_path / "adapter"), "same": str(place / "reference")}
    encoding = {"max_prompt_tokens": 16, "max_completion_tokens": 16}
    more = {"runs": runs, "n": 4, "best_of": [], "max_new_tokens": 6, "held_out": {}, "encoding": encoding}
    folder, few = measured_in(tmp_path / "few", options(place, **more, quantisation="8bit"))
    _, whole = measured_in(tmp_path / "whole", options(place, **more))
    assert (rows(folder, "same", 0)["log_ratio"] == 0).all()
    found, expected = (one["adapter"]["kl"]["value"] for one in (few, whole))
    # Of four completions each of twelve prompts, some of which are other ones.
    assert found != expected
    assert found == pytest.approx(expected, rel=0.5)
    assert few["adapter"]["rounding"] < 0.1


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    place: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    monkeypatch.setenv("REWARDLAB_HOME", str(root))
    (tmp_path / "config.yaml").write_text(json.dumps(options(place)))
    command = [sys.executable, "-m", "rewardlab", "evaluate", "frontier", "--config", str(tmp_path / "config.yaml")]
    command += ["--run", "frontier"]
    for kill in range(3):
        resume = ["--resume"] if (root / "frontier" / "run.json").exists() else []
        with subprocess.Popen([*command, *resume], stderr=subprocess.PIPE) as process:
            end = time.monotonic() + 120
            marks = ("done.json", "done.json", "ratios.json")
            wanted = (1, 3, 2)[kill]
            while process.poll() is None and len(list(root.rglob(marks[kill]))) < wanted:
                assert time.monotonic() < end
                time.sleep(0.01)
            process.kill()
            process.communicate()
    finished = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    for name in ("frontier.parquet", "frontier.json"):
        assert (root / "frontier" / name).read_bytes() == (done / name).read_bytes()
