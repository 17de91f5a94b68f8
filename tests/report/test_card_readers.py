"""Cards from the files that verbs write: a tiny reward model and two tiny policies, trained, measured and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardlab.data.canonical import write_records
from rewardlab.errors import InputError
from rewardlab.models.card import POLICY, REWARD
from rewardlab.records import Candidates, Pair
from rewardlab.report import frontier, gain, policies, winrate
from rewardlab.report.card import CardWriting, write_card
from rewardlab.report.card_runs import MEASURES, TRAININGS
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.store.runs import Run
from rewardlab.studies.verbs import VERBS
from tests.train.toys import GPT2, LLAMA, make_tokenizer, pairs

WIDER = {**LLAMA, "initializer_range": 0.1}
PROMPTS = 12


def ran(root: Path, name: str, verb: str, **values: Any) -> Path:
    """A run of a verb, as the command line makes it."""
    config = VERBS[verb].config_class().build(values)
    words = ["rewardlab", *verb.split()]
    with Run.create(config, verb=verb, root=root, name=name, allow_untracked=True, command=words) as run:
        VERBS[verb].run(config, run)
        return run.folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Trainings of a reward model and of two policies, what they are measured on, and answers of the policies."""
    root = tmp_path_factory.mktemp("readers")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARDLAB_HOME", str(root))
        # What a card reads is not the pages, and drawing them takes longer than all else.
        for module in (frontier, gain, policies, winrate):
            patch.setattr(module, "write_page", lambda run, *_: run.path("report.html"))
        tokenizer = str(make_tokenizer(root / "tokenizer"))
        subsets = ("llmbar-natural", "hep-python", "refusals-offensive")
        records = [
            Pair(one.prompt, one.chosen, one.rejected, meta={"subset": subsets[number % 3]})
            for number, one in enumerate(pairs(36))
        ]
        write_records(root / "pairs.jsonl", records)
        write_records(root / "prompts.jsonl", [Candidates(one.prompt, ()) for one in records[:PROMPTS]])
        shared = {"precision": "float32", "device": "cpu", "batch_size": 8, "learning_rate": 3e-3}
        data = str(root / "pairs.jsonl")
        source = {"shape": GPT2, "tokenizer": tokenizer}
        ran(root, "rm", "train reward", model=source, train=data, encoding={"max_tokens": 128}, **shared, epochs=2)
        encoding = {"max_prompt_tokens": 64, "max_completion_tokens": 16}
        policy = {"shape": WIDER, "tokenizer": tokenizer}
        options: dict[str, Any] = {"encoding": encoding, **shared}
        ran(root, "sft", "train sft", model=policy, train=data, checkpoints=0, **options)
        start, words = str(root / "sft/model"), {"words": "rule:length_words"}
        more = {"steps": 4, "max_new_tokens": 6, "rewards": words, "checkpoints": 2}
        ran(root, "ppo", "train ppo", model=start, train=str(root / "prompts.jsonl"), **options, **more)
        for name in ("sft", "ppo"):
            drawn = {"data": str(root / "prompts.jsonl"), "n": 2, "max_new_tokens": 6, "device": "cpu"}
            ran(root, f"sample-{name}", "sample", model=str(root / name / "model"), **drawn)
            scored = {"model": str(root / "rm/model"), "data": str(root / f"sample-{name}")}
            ran(root, f"score-{name}", "score", **scored)
        ran(root, "score", "score", model=str(root / "rm/model"), data=data)
        yield root
    torch.set_num_threads(threads)


def card(root: Path, model: str, *runs: str) -> tuple[dict[str, Any], str]:
    """What stands on the card of a model."""
    given = {"model": str(root / model), "runs": [str(root / name) for name in runs]}
    name = f"card-{len(list(root.glob('card-*')))}"
    with Run.create(CardWriting.build(given), verb="models card", root=root, name=name, allow_untracked=True) as run:
        write_card(CardWriting.build(given), run)
        return read_json(run.path("card.json")), run.path("README.md").read_text(encoding="utf-8")


def figures(values: dict[str, Any], verb: str) -> dict[tuple[str, str], Any]:
    """The figures of the runs of a verb, by metric and what they are about."""
    own = {number for number, run in enumerate(values["runs"], 1) if run["verb"] == verb}
    found = [one for one in values["figures"] if one["run"] in own]
    by = {(one["name"], one["about"]): one["value"] for one in found}
    assert len(by) == len(found), "two figures of one name"
    return by


def recorded(path: Path, group: str | None = None) -> dict[str, Any]:
    """The estimates in a file, by name."""
    estimates = read_json(path)["estimates"]
    members = estimates if isinstance(estimates, list) else [one for own in estimates.values() for one in own]
    return {one["name"]: one["value"] for one in members}


@pytest.fixture(scope="module")
def measured(root: Path) -> Path:
    """The frontier of the policy that was trained by rewards."""
    sampled = {"n": 2, "max_new_tokens": 6, "device": "cpu", "data": str(root / "prompts.jsonl"), "best_of": [1, 2]}
    runs = {"PPO": str(root / "ppo")}
    given = {"reference": str(root / "sft/model"), "reward": "rule:length_words", **sampled}
    return ran(root, "frontier", "evaluate frontier", runs=runs, **given)


# --- reward models -------------------------------------------------------------------------------------------------


def test_a_reward_model_by_what_trained_benched_mapped_and_audited_it(root: Path) -> None:
    data, scores = str(root / "pairs.jsonl"), [str(root / "score")]
    ran(root, "bench", "evaluate bench", data=data, scores=scores)
    ran(root, "map", "evaluate cartography", runs=[str(root / "rm")], data=data)
    model = str(root / "rm/model")
    rows = [{"prompt": f"Q {n}?", "completion": f"A {n}. " + "It goes on. " * (n % 7)} for n in range(24)]
    (root / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran(root, "audit", "audit run", attribute="words", data=str(root / "answers.jsonl"), model=model)
    values, text = card(root, "rm/model", "bench", "map", "audit")
    assert [one["verb"] for one in values["runs"]] == [
        "train reward", "evaluate bench", "evaluate cartography", "audit run",
    ]  # fmt: skip
    # A training's figures are of its own sets; its settings and data stand on the card.
    assert figures(values, "train reward") == {}
    best = read_json(root / "rm/summary.json")["best"]
    assert f"which chose step {best['step']}" in text
    assert values["runs"][0]["data"][0]["name"] == "pairs.jsonl"

    found, own = figures(values, "evaluate bench"), recorded(root / "bench/bench.json")
    assert found["section.Reasoning", "Reasoning"] == own["section.Reasoning"]
    assert found["accuracy", ""] == own["accuracy"]
    assert not [name for name, _ in found if name.startswith("subset.")]

    found, own = figures(values, "evaluate cartography"), recorded(root / "map/cartography.json")
    assert {name: value for (name, _), value in found.items()} == {
        name: value for name, value in own.items() if value is not None
    }
    assert found

    found = figures(values, "audit run")
    file = read_json(root / "audit/steps/effects/effects.json")
    own = {one["name"]: one["value"] for one in file["models"][0]["estimates"]["double"]}
    shown = {name: value for (name, _), value in found.items() if name.startswith("double.")}
    assert shown
    assert shown.items() <= own.items()
    about = file["attribute"]
    assert {about for _, about in found} == {f"{about['name']}: {about['low']} → {about['high']}"}


# --- policies ------------------------------------------------------------------------------------------------------


def sets(root: Path, kind: str = "sample") -> dict[str, str]:
    return {name: str(root / f"{kind}-{name}") for name in ("sft", "ppo")}


def test_a_fine_tuned_policy_by_its_training(root: Path) -> None:
    values, text = card(root, "sft/model")
    assert [one["verb"] for one in values["runs"]] == ["train sft"]
    last = read_json(root / "sft/summary.json")["last"]
    assert f"{last['loss']:.4f}, over {last['n']} held-out records" in text


def test_every_set_of_win_rates_has_its_own_row(root: Path) -> None:
    given: dict[str, Any] = {**sets(root), "longest": {"path": sets(root)["ppo"], "pick": "longest"}}
    ran(root, "winrate", "evaluate winrate", sets=given, judge="rule:length_words", draws=100)
    values, text = card(root, "ppo/model", "winrate")
    assert [one["verb"] for one in values["runs"]] == ["train ppo", "evaluate winrate"]
    found, own = figures(values, "evaluate winrate"), recorded(root / "winrate/winrate.json")
    assert found == {
        (f"winrate.{leaf}", f"{name} over sft"): own[f"{leaf}.{name}"]
        for leaf in ("raw", "lc")
        for name in ("ppo", "longest")
    }
    assert {about for name, about in found if name == "winrate.raw"} == {"ppo over sft", "longest over sft"}
    # By hand, from the answers: the first ones, and the longest ones.
    answers = {name: list(read_jsonl(root / f"sample-{name}/completions.jsonl")) for name in ("sft", "ppo")}
    pick = {"ppo": lambda texts: texts[0], "longest": lambda texts: max(texts, key=len)}
    for name, of in pick.items():
        counts = [
            (len(of(one["completions"]).split()), len(other["completions"][0].split()))
            for one, other in zip(answers["ppo"], answers["sft"], strict=True)
        ]
        won = [1.0 if one > other else 0.5 if one == other else 0.0 for one, other in counts]
        assert found["winrate.raw", f"{name} over sft"] == pytest.approx(sum(won) / len(won))
    assert "`ppo over sft`" in text
    with pytest.raises(InputError, match="what others are compared with"):
        card(root, "sft/model", "winrate")


def test_gains_of_score_tables_and_of_a_frontier(root: Path, measured: Path) -> None:
    ran(root, "gain", "evaluate gain", sets=sets(root, "score"))
    ran(root, "gain-frontier", "evaluate gain", frontier=str(measured))
    leaves = ("total", "non_length", "at_equal_length")
    values, _ = card(root, "ppo/model", "gain")
    own = recorded(root / "gain/gain.json")
    assert figures(values, "evaluate gain") == {(f"gain.{leaf}", "ppo over sft"): own[f"{leaf}.ppo"] for leaf in leaves}

    values, _ = card(root, "ppo/model", "frontier", "gain-frontier")
    own = recorded(root / "gain-frontier/gain.json")
    found = figures(values, "evaluate gain")
    assert found == {(f"gain.{leaf}", "PPO over reference"): own[f"{leaf}.PPO"] for leaf in leaves}
    assert values["runs"][-1]["data"][0]["name"] == "prompts.jsonl"
    assert figures(values, "evaluate frontier")["frontier.kl", ""] > 0.0
    # Gains are of the last policy: of an earlier one, and of another training, they say nothing.
    step = "ppo/policies/step-000002"
    assert card(root, step, "frontier")
    with pytest.raises(InputError, match=r"the last policy of each training, which is another one"):
        card(root, step, "gain-frontier")
    with pytest.raises(InputError, match=r"found a run on PPO \(`evaluate gain`\)"):
        card(root, "sft/model", "gain-frontier")
    measured.rename(root / "moved")
    try:
        with pytest.raises(InputError, match=r"frontier is gone.*`evaluate frontier` too"):
            card(root, "ppo/model", "gain-frontier")
        values, _ = card(root, "ppo/model", "moved", "gain-frontier")
        assert figures(values, "evaluate gain") == found
    finally:
        (root / "moved").rename(measured)


def test_policies_side_by_side(root: Path, measured: Path) -> None:
    code = root / "rude.py"
    code.write_text("def rude(completions, **_):\n    return [min(1.0, len(str(one)) / 99) for one in completions]\n")
    ran(
        root, "side", "evaluate policies", sets=sets(root), draws=100, classifier=f"python:{code}:rude",
        rewards={"rm": str(root / "rm/model"), "words": "rule:length_words"}, judges={"judge": "rule:length_words"},
        kl={"ppo": {"frontier": str(measured), "run": "PPO"}},
    )  # fmt: skip
    values, text = card(root, "ppo/model", "side")
    file = read_json(root / "side/summary.json")
    found = figures(values, "evaluate policies")
    expected = {("frontier.kl", ""): file["kl"]["ppo"]["value"]}
    for by in ("rm", "words", "judge"):
        own = {one["name"]: one["value"] for one in file["rankers"][by]["estimates"]["win_rate"]}
        expected |= {(f"winrate.{leaf}", f"ppo over sft, by {by}"): own[f"{leaf}.ppo"] for leaf in ("raw", "lc")}
    for by in ("rm", "words"):
        own = {one["name"]: one["value"] for one in file["rewards"][by]["estimates"]["gain"]}
        leaves = ("total", "non_length", "at_equal_length")
        expected |= {(f"gain.{leaf}", f"ppo over sft, by {by}"): own[f"{leaf}.ppo"] for leaf in leaves}
    own = {one["name"]: one["value"] for one in file["bad"]["estimates"]}
    expected |= {(f"toxicity.{leaf}", "ppo"): own[f"{leaf}.ppo"] for leaf in ("mean", "share")}
    assert found == expected
    assert expected["frontier.kl", ""] is not None
    assert "`ppo over sft, by rm`" in text
    # Of the other policy there is what it is by itself, and the distance is not its own.
    values, _ = card(root, "sft/model", "side")
    assert set(figures(values, "evaluate policies")) == {("toxicity.mean", "sft"), ("toxicity.share", "sft")}


def test_a_distance_of_another_checkpoint_is_not_the_models(root: Path, measured: Path) -> None:
    place = {"frontier": str(measured), "run": "PPO", "step": 2}
    ran(root, "early", "evaluate policies", sets=sets(root), draws=100, kl={"ppo": place},
        rewards={"words": "rule:length_words"})  # fmt: skip
    values, _ = card(root, "ppo/model", "early")
    (far,) = [one for one in values["figures"] if one["name"] == "frontier.kl"]
    assert (far["value"], far["reason"]) == (None, "the checkpoint on the frontier is not known to be this model")


def test_what_says_nothing_of_a_model_is_refused_in_words(root: Path) -> None:
    rows = [{"instruction": f"Why {n}?", "output_1": "a", "output_2": "b", "preference": 1 + n % 2} for n in range(4)]
    file = root / "recorded.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran(root, "recorded", "evaluate winrate", recorded={"mine": str(file)}, draws=100)
    with pytest.raises(InputError, match=r"do not say which model wrote the answers.*evaluate policies --sets"):
        card(root, "ppo/model", "recorded")
    people = {"labelled": str(root / "pairs.jsonl"), "judge": "rule:length_words"}
    ran(root, "people", "evaluate winrate", **people, draws=100)
    with pytest.raises(InputError, match="a measure of the judge"):
        card(root, "ppo/model", "people")


def test_the_docs_name_every_verb_and_section() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/card.md").read_text(encoding="utf-8")
    table = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    for kind, row in ((REWARD, "reward model"), (POLICY, "policy")):
        verbs = [verb for verb, of in {**TRAININGS, **MEASURES}.items() if of == kind]
        assert [verb for verb in verbs if f"`{verb}`" not in table[row]] == []
