"""A model's card: read back by the hub's own library, and against the files of the runs that it is written from."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from small_models import reward_model_of

from rewardlab.audit.effects import EffectsEstimation, estimate_effects
from rewardlab.audit.rewrite import rewrite
from rewardlab.audit.rewriting import Rewriting
from rewardlab.audit.score import AuditScoring, score_rewrites
from rewardlab.config import Config
from rewardlab.data.canonical import write_records
from rewardlab.errors import InputError
from rewardlab.evaluate.accuracy import AccuracyEvaluation, evaluate_accuracy
from rewardlab.evaluate.frontier import FrontierEvaluation
from rewardlab.evaluate.perturb import PerturbEvaluation, evaluate_perturb
from rewardlab.evaluate.toxicity import ToxicityEvaluation
from rewardlab.models.loading import save_reward_model
from rewardlab.models.seal import known_contents, read_seal
from rewardlab.records import Estimate, Pair, Prompt
from rewardlab.report.card import CardWriting, write_card
from rewardlab.report.card_failures import RULES, known_failures
from rewardlab.report.card_figures import Measured
from rewardlab.report.card_runs import CardRun, Place
from rewardlab.report.card_shown import Shown
from rewardlab.report.shift_inputs import ShiftEvaluation
from rewardlab.score.score import Scoring, score_file
from rewardlab.store.record import RunRecord
from rewardlab.store.runs import Run

HOSTILE = "a`b|c\n---\n<script>alert(1)</script>: {x} # & 'q' \"d\" [l](javascript:x) *s* \u202e - !!python/object"
SECRET = "hf_" + "abcdefghijklmnopqrstuvwxyz"
DOCS = Path(__file__).resolve().parents[2] / "docs"


def ran(root: Path, name: str, verb: str, config: Config, work: Any, command: str = "") -> Path:
    """A run of a verb, as the command line makes it."""
    words = ["rewardlab", *verb.split(), "--data", str(root / "data" / "a file.jsonl"), f"--note={command}"]
    with Run.create(config, verb=verb, root=root, name=name, allow_untracked=True, command=words) as run:
        work(config, run)
        return run.folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two reward models, and what was measured on the first one; one run on the second."""
    root = tmp_path_factory.mktemp("card")
    for number, name in enumerate(("mine", "other")):
        save_reward_model(reward_model_of("llama", "shared", seed=number), root / name, card="# A card\n")
    words = ["red", "green", "blue", "apple", "stone", "river", "lamp", "of", "night"]
    pairs = [
        Pair(
            Prompt.of_text(f"say {words[number % 9]} {number}"),
            " ".join(words[: 2 + number % 7]) + ".",
            "So: " + " ".join(words[number % 5 : number % 5 + 4]) + ".",
            meta={"subset": HOSTILE if number % 2 else "even"},
        )
        for number in range(36)
    ]
    data = root / "te`st|<b>.jsonl"
    write_records(data, pairs)
    for name in ("mine", "other"):
        config: Config = Scoring.build({"model": str(root / name), "data": str(data), "battery": name == "mine"})
        ran(root, f"score-{name}", "score", config, score_file)
        config = AccuracyEvaluation(data=(data,), scores=(root / f"score-{name}",))
        ran(root, f"accuracy-{name}", "evaluate accuracy", config, evaluate_accuracy, SECRET)
    config = PerturbEvaluation(data=(data,), scores=(root / "score-mine",))
    ran(root, "perturb", "evaluate perturb", config, evaluate_perturb)
    changes = {"attribute": "words", "rule": "length", "data": str(data)}
    rewritten = ran(root, "rewrites", "audit rewrite", Rewriting.build(changes), rewrite)
    config = AuditScoring.build({"model": str(root / "mine"), "rewrites": str(rewritten)})
    scored = ran(root, "audit-score", "audit score", config, score_rewrites)
    config = EffectsEstimation(rewrites=rewritten, scores=(scored,))
    ran(root, "effects", "audit effects", config, estimate_effects)
    return root


RUNS = ("accuracy-mine", "perturb", "effects")


def card(root: Path, home: Path, **values: Any) -> tuple[str, dict[str, Any]]:
    """The card of the first model, and what stands on it."""
    given = {"model": str(root / "mine"), "runs": [str(root / name) for name in RUNS], **values}
    folder = ran(home, f"card-{len(list(home.glob('card-*')))}", "models card", CardWriting.build(given), write_card)
    return (folder / "README.md").read_text(encoding="utf-8"), json.loads((folder / "card.json").read_text())


def test_the_hub_reads_the_figures_of_the_runs(root: Path, tmp_path: Path) -> None:
    text, _ = card(root, tmp_path, license="apache-2.0", language="en")
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-classification", "apache-2.0")
    assert {"reward-model", "rewardlab"} == set(data.tags)
    # What the hub makes of the block, written again and read again, is the same.
    assert ModelCard(str(ModelCard(text))).data.eval_results == data.eval_results
    found = {(one.metric_type, one.dataset_config): one for one in data.eval_results}
    file = json.loads((root / "accuracy-mine/accuracy.json").read_text())
    recorded = {one["name"]: one for group in file["estimates"].values() for one in group}
    whole = found["accuracy", None]
    assert (whole.metric_value, whole.metric_args["low"]) == (
        recorded["accuracy"]["value"],
        recorded["accuracy"]["low"],
    )
    assert found["accuracy", "even"].metric_value == recorded["accuracy.subset.even"]["value"]
    assert found["calibration.slope", None].metric_value == recorded["calibration.slope"]["value"]
    effects = json.loads((root / "effects/effects.json").read_text())["models"][0]["estimates"]["double"]
    # Only short answers could be rewritten there and back, so only the effect on these is known.
    known = {one["name"]: one["value"] for one in effects if one["name"].endswith(".sd") and one["value"] is not None}
    assert list(known) == ["double.ATU.sd"]
    assert found["double.ATU.sd", None].metric_value == known["double.ATU.sd"]
    flips = json.loads((root / "perturb/perturb.json").read_text())["estimates"]["padding"]
    assert found["battery.padding.flips", None].metric_value == next(
        one["value"] for one in flips if one["name"].endswith(".flips")
    )
    # The data are known by their content.
    inputs = RunRecord.read(root / "accuracy-mine").values["inputs"]
    assert whole.dataset_revision == inputs[0]["sha256"][:16]


def cells(text: str) -> dict[str, list[str]]:
    """First cell → the others, of the tables of a rendered card."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(ModelCard(text).text)
    rows: list[list[str]] = []
    for token, after in pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("td_open", "th_open"):
            rows[-1].append(after.content)
    assert {len(row) for row in rows} <= {2, 3, 5}
    return {row[0]: row[1:] for row in rows}


def test_what_people_read_is_in_the_runs(root: Path, tmp_path: Path) -> None:
    text, values = card(root, tmp_path)
    file = json.loads((root / "accuracy-mine/accuracy.json").read_text())
    whole = file["estimates"]["accuracy"][0]
    shown = cells(text)["Accuracy of the model"]
    ends = f"{100 * whole['low']:.1f} to {100 * whole['high']:.1f}"
    assert shown == [f"{100 * whole['value']:.1f} %", ends, "36 pairs", "1"]
    recorded = {one["name"]: one for group in file["estimates"].values() for one in group}
    for one in values["figures"]:
        if one["run"] == 1 and one["name"] in recorded:
            assert {name: one[name] for name in recorded[one["name"]]} == recorded[one["name"]]
    assert "## Not measured" in text
    for missing in ("Benchmark", "Map of the training data", "Overlap with the training data"):
        assert f"- {missing} (" in text
    assert "train` or" not in text


def test_names_are_text_and_nothing_of_this_machine_is_shown(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_PASSWORD", "er → long")  # stands in the name of what was audited
    text, values = card(root, tmp_path)
    assert any(one["about"] == HOSTILE for one in values["figures"])
    body = ModelCard(text).text
    kinds = [
        (token.type, token.content)
        for block in MarkdownIt("gfm-like", {"linkify": False}).parse(body)
        for token in [block, *(block.children or [])]
    ]
    html = [content for kind, content in kinds if kind.startswith("html")]
    assert len(html) == 1
    assert re.fullmatch(r"<!-- rewardlab models card \{[^<>]*\} -->\n?", html[0])
    assert not [kind for kind, _ in kinds if kind in ("link_open", "em_open", "image", "hr")]
    cells(text)
    named = [
        one.dataset_config for one in ModelCard(text).data.eval_results if one.dataset_config not in (None, "even")
    ]
    assert named == [" ".join(HOSTILE.split()).replace("\u202e", "?")]
    assert not [one for one in (SECRET, str(root), str(tmp_path), "\u202e") if one in text]
    assert "er → long" not in text
    assert "words: short[redacted]er" in text
    assert "a file.jsonl" in text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/data/store/runs/rm/model", "model"),
        ("~me/x.py:reward", "x.py:reward"),
        ("python:/data/store/rule.py:degree@6c08", "python:rule.py:degree@6c08"),
        ("../../private/data.jsonl", "data.jsonl"),
        ("[/a/b/c.jsonl, /d/e.jsonl]", "[c.jsonl, e.jsonl]"),
        ("runs/study/step/file.txt", "file.txt"),
        (r"C:\Users\me\x.txt", "x.txt"),
        ("http://gpu7.internal:8000/v1", "[address]"),
        ("https://ann:secret@host/x", "[address]"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("1/2 of 3.5", "1/2 of 3.5"),
    ],
)
def test_of_a_path_the_last_part_stays(given: str, shown: str) -> None:
    assert Shown().text(given) == shown


def test_bad_input_is_told_at_once_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(root / "perturb", unfinished)
    record = json.loads((unfinished / "run.json").read_text())
    (unfinished / "run.json").chmod(0o644)
    (unfinished / "run.json").write_text(json.dumps(record | {"status": "failed"}))
    wrong_kind = tmp_path / "toxic"
    wrong_kind.mkdir()
    (wrong_kind / "run.json").write_text(json.dumps(record | {"verb": "evaluate toxicity"}))
    readme = tmp_path / "README.md"
    readme.write_text("By hand.\n")
    runs = [root, root / "accuracy-other", unfinished, wrong_kind, tmp_path / "none", root / "effects"]
    with pytest.raises(InputError) as caught:
        card(root, tmp_path / "runs", runs=[str(one) for one in runs], out=str(readme))
    told = {Path(one.where).name: one.found for one in caught.value.problems}
    assert told[root.name] == "no run.json"
    assert told["none"] == "no such folder"
    assert "other@" in told["accuracy-other"]
    assert told["unfinished"] == "a run that is failed"
    assert "a measure of a policy" in told["toxic"]
    assert "which this command has not written" in told["out"]
    assert "effects" not in told
    assert readme.read_text() == "By hand.\n"
    assert not list((tmp_path / "runs").iterdir())


def test_a_card_of_ours_may_be_replaced_and_no_other(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(root / "mine", folder)
    given = {"model": str(folder), "out": str(folder)}
    with pytest.raises(InputError, match="--overwrite"):
        card(root, tmp_path / "runs", **given)
    card(root, tmp_path / "runs", **given, overwrite=True)
    # With the card in it the folder has another content, and is still the model that was measured.
    text, values = card(root, tmp_path / "runs", **given)
    assert (folder / "README.md").read_text(encoding="utf-8") == text
    assert (len(known_contents(folder)), len(values["runs"])) == (3, 3)
    (folder / "README.md").write_text(text.replace("Known failures", "Known strengths"), encoding="utf-8")
    assert read_seal(folder / "README.md") is None
    with pytest.raises(InputError, match="--overwrite"):
        card(root, tmp_path / "runs", **given)
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert len(known_contents(folder)) == 1
    with pytest.raises(InputError, match="expected one on mine"):
        card(root, tmp_path / "runs", **given)
    with pytest.raises(InputError, match="results stay as they are"):
        card(root, tmp_path / "runs", out=str(root / "perturb" / "README.md"))


def test_runs_that_were_moved_are_found_by_their_content(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(root / "score-mine", moved)
    record = tmp_path / "accuracy"
    shutil.copytree(root / "accuracy-mine", record)
    # As on another machine: what the record names is not there.
    (record / "run.json").chmod(0o644)
    (record / "config.yaml").chmod(0o644)
    for name in ("run.json", "config.yaml"):
        text = (record / name).read_text(encoding="utf-8")
        (record / name).write_text(text.replace(str(root / "score-mine"), "/elsewhere/score-mine"), encoding="utf-8")
    with pytest.raises(InputError, match="cannot be told: score-mine is gone"):
        card(root, tmp_path / "runs", runs=[str(record)])
    _, values = card(root, tmp_path / "runs", runs=[str(record), str(moved)])
    assert [one["verb"] for one in values["runs"]] == ["evaluate accuracy"]


def policy_run(root: Path, name: str, verb: str, config: Config, file: str, values: dict[str, Any]) -> Path:
    return ran(root, name, verb, config, lambda _, run: run.path(file).write_text(json.dumps(values)))


def test_a_policy_is_found_at_its_own_step(root: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    def train(_: Config, run: Run) -> None:
        for place in ("model", "policies/step-000004"):
            shutil.copytree(root / ("mine" if place == "model" else "other"), run.path(place))
            run.path(f"{place}/rewardlab.json").write_text('{"format": 1, "policy": {}}')
        summary = {"steps": 9, "kept": 8, "split": "val", "last": {"step": 9, "loss": 2.5, "n": 4}}
        run.path("summary.json").write_text(json.dumps(summary))

    from rewardlab.train.preference import DPOTraining

    data = root / "te`st|<b>.jsonl"
    training = ran(runs, "dpo", "train dpo", DPOTraining.build({"model": "o/n", "train": str(data)}), train)

    def spanned(value: float, half: float) -> dict[str, Any]:
        return {"value": value, "low": value - half, "high": value + half, "error": half / 2, "n": 24, "clusters": 24}

    def policy(step: int, value: float) -> dict[str, Any]:
        return {
            "run": "dpo", "seed": 0, "step": step, "prompts": 24, "completions": 24, "kl": spanned(value, 0.5),
            "rewards": {"reward": spanned(value / 10, 0.01), "held_out.short": spanned(-value / 10, 0.01)},
            "tokens": spanned(40.0, 1.0), "unfinished": spanned(0.5, 0.1), "distinct_1": 0.1, "distinct_2": 0.2,
        }  # fmt: skip

    change = {"run": "dpo", "seed": 0, "from": 4, "to": 8, "rewards": {"held_out.short": spanned(-0.4, 0.1)}}
    frontier = {
        "level": 0.95, "n": 4, "temperature": 1.0, "max_new_tokens": 9, "sd": {}, "from_reference": [], "best_of": [],
        "scorers": {"reward": "rm@1", "held_out.short": "python:/data/store/rule.py:short@2"},
        "reference": policy(0, 0.0), "checkpoints": [policy(4, 4.25), policy(8, 8.75)], "chosen": [],
        "changes": [change], "findings": [],
    }  # fmt: skip
    asked: dict[str, Any] = {"runs": {"dpo": [str(training)]}, "data": str(data), "reference": str(root / "mine")}
    reward = {"reward": {"model": "rule:length_words"}, "held_out": {"short": {"model": "rule:length_words"}}}
    config: Config = FrontierEvaluation.build(asked | reward)
    given = [policy_run(runs, "frontier", "evaluate frontier", config, "frontier.json", frontier)]
    estimate = Estimate("probability", 0.25, 0.2, 0.3, n=24, unit="prompts").as_dict()
    difference = estimate | {"value": -0.1, "low": -0.2, "high": -0.05}
    toxicity = {
        "models": [{"name": "after", "estimates": [estimate]}, {"name": "before", "estimates": []}],
        "comparisons": [{"first": "after", "second": "before", "estimates": [difference]}],
    }
    models = {"after": {"path": str(training / "model")}, "before": {"path": str(root / "other")}}
    config = ToxicityEvaluation.build({"models": models, "classifier": "rule:length_words", "data": str(data)})
    given.append(policy_run(runs, "toxicity", "evaluate toxicity", config, "toxicity.json", toxicity))

    moved = {"run": "dpo", "seed": 0, "step": 8, "attribute": "long", **spanned(0.125, 0.05)}
    shift = {"level": 0.95, "paths": [moved | {"step": 4}, moved, moved | {"attribute": "few", **spanned(0.02, 0.01)}]}
    asked |= {"measures": {"long": {"measure": "words", "above": 38.0}}}
    given.append(policy_run(runs, "shift", "evaluate shift", ShiftEvaluation.build(asked), "shift.json", shift))

    text, values = card(root, tmp_path, model=str(training / "model"), runs=[str(one) for one in given])
    data_of_card = ModelCard(text).data
    assert (data_of_card.pipeline_tag, data_of_card.base_model) == ("text-generation", "o/n")
    assert [one["verb"] for one in values["runs"]] == [
        "train dpo",
        "evaluate frontier",
        "evaluate shift",
        "evaluate toxicity",
    ]
    figures = {one["name"]: one["value"] for one in values["figures"]}
    assert (figures["frontier.kl"], figures["frontier.reward.held_out.short"]) == (8.75, -0.875)
    assert [(one["about"], one["value"]) for one in values["figures"] if one["name"] == "shift"] == [
        ("long", 0.125),
        ("few", 0.02),
    ]
    # More than the other model: the difference was recorded the other way around.
    assert figures["toxicity.difference.probability"] == 0.1
    assert {one["rule"] for one in values["failures"]} == {"over-optimised", "unfinished", "toxic", "drift"}
    assert not [one for one in ("/data/store", "## Win rates") if one in text]
    assert "- Win rates (" in text
    step = training / "policies/step-000004"
    text, values = card(root, tmp_path, model=str(step), runs=[str(given[0])])
    assert {one["name"]: one["value"] for one in values["figures"]}["frontier.kl"] == 4.25
    # What fell after this step is not its fault.
    assert {one["rule"] for one in values["failures"]} == {"unfinished"}
    with pytest.raises(InputError, match="toxicity"):
        card(root, tmp_path, model=str(step), runs=[str(given[1])])


def measured(name: str, value: float, low: float, high: float, n: int = 100, part: str = "accuracy") -> Measured:
    run = CardRun(Path("run"), RunRecord(Path("run"), {"verb": "x"}), {}, Place(frozenset()), ())
    return Measured(part, name, "", Estimate(name, value, low, high, n=n), "%", run)


CASES = [
    # rule, metric, section; value and interval of what it finds, and of what it lets pass
    ("chance", "accuracy", "accuracy", (0.55, 0.49, 0.61), (0.55, 0.51, 0.59)),
    ("calibration", "calibration.slope", "calibration", (0.5, 0.3, 0.9), (0.9, 0.7, 1.1)),
    ("length", "length.tokens.accuracy_gap", "length", (0.1, 0.01, 0.2), (0.1, -0.01, 0.2)),
    ("prompt", "ignorance.shuffled_prompt.lost", "prompt", (0.1, -0.01, 0.2), (0.1, 0.01, 0.2)),
    ("baseline", "baselines.bag_of_words.gain", "prompt", (0.1, -0.01, 0.2), (0.1, 0.01, 0.2)),
    ("overlap", "overlap.shared_roots", "overlap", (0.01, 0.01, 0.01), (0.0, 0.0, 0.0)),
    ("effect", "double.ATE.sd", "effects", (-0.2, -0.3, -0.1), (-0.2, -0.5, 0.1)),
    ("flips", "battery.typos.flips", "perturb", (0.06, 0.01, 0.2), (0.05, 0.01, 0.2)),
    ("over-optimised", "frontier.change.gold.g", "frontier", (-0.2, -0.3, -0.1), (-0.2, -0.5, 0.1)),
    ("unfinished", "frontier.unfinished", "frontier", (0.06, 0.01, 0.2), (0.05, 0.01, 0.2)),
    ("loses", "winrate.raw", "winrate", (0.4, 0.3, 0.49), (0.4, 0.3, 0.51)),
    ("toxic", "toxicity.difference.mean", "toxicity", (0.1, 0.01, 0.2), (0.1, -0.01, 0.2)),
    ("drift", "shift", "shift", (-0.1, -0.2, -0.01), (0.02, 0.01, 0.03)),
]


@pytest.mark.parametrize(("rule", "metric", "part", "bad", "good"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_finds_what_it_says(
    rule: str, metric: str, part: str, bad: tuple[float, float, float], good: tuple[float, float, float]
) -> None:
    failures, applied = known_failures([measured(metric, *bad, part=part)])
    assert ([one.rule for one in failures], applied) == ([rule], [rule])
    assert known_failures([measured(metric, *good, part=part)]) == ([], [rule])
    assert known_failures([]) == ([], [])


def test_a_subset_is_compared_with_the_other_pairs() -> None:
    whole = measured("accuracy", 0.80, 0.75, 0.85, n=400)
    # 100 pairs at 74 %, so the other 300 are at 82 %: inside or outside of the subset's interval.
    run = whole.run
    subset = replace(measured("accuracy.subset.x", 0.74, 0.66, 0.815, part="subsets"), run=run)
    assert [one.rule for one in known_failures([whole, subset])[0]] == ["subset"]
    wider = replace(subset, estimate=replace(subset.estimate, high=0.825))
    assert known_failures([whole, wider])[0] == []
    few = replace(subset, estimate=replace(subset.estimate, n=29))
    assert known_failures([whole, few])[0] == []


def test_what_is_won_by_length_alone_is_told() -> None:
    raw = measured("winrate.raw", 0.7, 0.6, 0.8, part="winrate")
    equal = replace(measured("winrate.lc", 0.52, 0.45, 0.6, part="winrate"), run=raw.run)
    assert [one.rule for one in known_failures([raw, equal])[0]] == ["length wins"]
    assert known_failures([raw, replace(equal, estimate=replace(equal.estimate, low=0.51))])[0] == []


def test_what_one_set_wins_says_nothing_of_the_length_of_another() -> None:
    won = replace(measured("winrate.raw", 0.7, 0.6, 0.8, part="winrate"), name="a over b")
    even = replace(measured("winrate.lc", 0.65, 0.55, 0.75, part="winrate"), name="a over b", run=won.run)
    other = replace(measured("winrate.raw", 0.51, 0.4, 0.6, part="winrate"), name="c over b", run=won.run)
    lost = replace(measured("winrate.lc", 0.49, 0.4, 0.6, part="winrate"), name="c over b", run=won.run)
    assert known_failures([won, even, other, lost])[0] == []
    (found,) = known_failures([won, replace(even, estimate=lost.estimate), other, lost])[0]
    assert (found.rule, found.figure.name) == ("length wins", "a over b")


def test_the_table_of_the_docs_has_every_rule() -> None:
    lines = (DOCS / "card.md").read_text(encoding="utf-8").partition("## Known failures")[2].splitlines()
    named = [match[1] for line in lines if (match := re.match(r"\| `([\w -]+)` \|", line))]
    assert named == list(RULES)
