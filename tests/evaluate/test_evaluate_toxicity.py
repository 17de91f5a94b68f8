"""The toxicity meter with tiny policies: whose text is scored, every number by hand, and going on after a stop."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ranks import run_ranks
from scipy import stats
from small_models import ENCODER_DECODERS, WORDS, config_of, word_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from rewardlab.errors import ConfigError, DataError, InputError, ModelError
from rewardlab.evaluate import frontier_samples
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.toxicity import Classifier, ToxicityEvaluation, measure
from rewardlab.evaluate.toxicity_estimates import Measured, model_estimates
from rewardlab.report.toxicity import evaluate_toxicity
from rewardlab.sample.verb import Sampling
from rewardlab.store.files import read_json, write_json
from rewardlab.store.runs import Run
from rewardlab.store.table import ShardedTable

K, PROMPTS = 5, 12
RULES = """
def degree(completions, **_):
    texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
    return [sum(int(word[1:]) for word in text.split() if word[1:].isdigit()) % 97 / 96 for text in texts]

def beyond(completions, **_):
    return [1.5 for _ in completions]
"""


def degree(text: str) -> float:
    """What the rule says, written once more: a number from 0 to 1 that almost every other text has another one of."""
    return sum(int(word.removeprefix("w")) for word in text.split() if word.startswith("w")) % 97 / 96


def policy(folder: Path, seed: int, shape: str = "llama") -> Path:
    is_pair = shape in ENCODER_DECODERS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = AutoModelForSeq2SeqLM if is_pair else AutoModelForCausalLM
        kind.from_config(config_of(shape), dtype=torch.float32).save_pretrained(folder)
    word_tokenizer("$A </s>" if is_pair else "<s> $A").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toxicity")
    policy(root / "before", 0)
    policy(root / "after", 1)
    lines = [" ".join(WORDS[7 * number : 7 * number + 1 + number % 4]) for number in range(PROMPTS)]
    (root / "prompts.txt").write_text("\n\n".join(lines) + "\n")
    (root / "rules.py").write_text(RULES)
    return root


def options(place: Path, **more: Any) -> dict[str, Any]:
    return {
        "models": {"before": str(place / "before"), "<b>after</b>": str(place / "after")},
        "classifier": f"python:{place / 'rules.py'}:degree",
        "data": str(place / "prompts.txt"),
        "n": K,
        "max_new_tokens": 6,
        "top_p": 1.0,
        "device": "cpu",
        "csv": True,
        **more,
    }


def run_in(root: Path, values: dict[str, Any], *, resume: bool = False, with_page: bool = False) -> Path:
    """A run; without its page, which takes longer than all else, the JSON is what is measured."""
    config = ToxicityEvaluation.build(values)
    with Run.create(config, verb="evaluate toxicity", name="toxicity", root=root, resume=resume) as run:
        if with_page:
            evaluate_toxicity(config, run)
        else:
            write_json(run.path("toxicity.json"), measure(config, run).values)
    return root / "toxicity"


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARDLAB_ALLOW_UNTRACKED", "1")
        return run_in(tmp_path_factory.mktemp("runs"), options(place), with_page=True)


def table_of(done: Path) -> Any:
    return pq.read_table(done / "toxicity.parquet").to_pandas()


def of(values: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(one for one in values if one["name"] == name)


def test_responses_are_scored_as_responses_and_prompts_as_prompts(place: Path, done: Path) -> None:
    table = table_of(done)
    assert len(table) == 2 * PROMPTS * K
    assert [degree(text) for text in table["prompts"]] == pytest.approx(table["prompt_score"].tolist())
    assert [degree(text) for text in table["responses"]] == pytest.approx(table["response_score"].tolist())
    # Neither a copy of the other: that is how published code once had it.
    assert (table["prompt_score"] != table["response_score"]).mean() > 0.8
    assert list(dict.fromkeys(table["prompts"])) == (place / "prompts.txt").read_text().split("\n")[:-1:2]


def test_the_table_has_the_columns_of_the_published_form(done: Path) -> None:
    table = table_of(done)
    assert table.columns.tolist() == [
        "model",
        "prompt_id",
        "sample",
        "prompts",
        "responses",
        "prompt_score",
        "response_score",
        "truncated",
        "n_tokens",
    ]
    assert table["sample"].tolist() == list(range(K)) * 2 * PROMPTS
    samples = [json.loads(line) for line in (done / "samples/1/completions.jsonl").read_text().splitlines()]
    own = table[table["model"] == "<b>after</b>"]
    assert own["n_tokens"].tolist() == [count for one in samples for count in one["meta"]["tokens"]]
    reasons = [reason for one in samples for reason in one["meta"]["finish_reasons"]]
    assert own["truncated"].tolist() == [reason == "length" for reason in reasons]
    with (done / "csv/1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["responses"] for row in rows] == own["responses"].tolist()
    assert [float(row["response_score"]) for row in rows] == own["response_score"].tolist()


@pytest.mark.parametrize("model", ["before", "<b>after</b>"])
def test_the_estimates_are_those_by_hand(done: Path, model: str) -> None:
    table = table_of(done)
    own = table[table["model"] == model]
    scores = own["response_score"].to_numpy().reshape(PROMPTS, K)
    prompts = own["prompt_score"].to_numpy().reshape(PROMPTS, K)[:, 0]
    found = of(read_json(done / "toxicity.json")["models"], model)
    estimates = {one["name"]: one for one in found["estimates"]}
    by_prompt = {
        "mean": scores.mean(axis=1),
        "share": (scores > 0.5).mean(axis=1),
        "expected_maximum": scores.max(axis=1),
        "probability": (scores >= 0.5).any(axis=1).astype(float),
    }
    bands = {"low.": prompts < 0.333, "mid.": (prompts >= 0.333) & (prompts <= 0.666), "high.": prompts > 0.666}
    assert all(band.any() for band in bands.values())
    for band, inside in {"": np.ones(PROMPTS, bool), **bands}.items():
        for name, values in by_prompt.items():
            assert estimates[f"{band}{name}"]["value"] == pytest.approx(values[inside].mean())
    for name in ("mean", "share", "expected_maximum"):
        # Equally many responses to every prompt: the clustered interval is Student's over the prompts.
        low, high = stats.t.interval(0.95, PROMPTS - 1, by_prompt[name].mean(), stats.sem(by_prompt[name]))
        ends = (max(low, 0.0), min(high, 1.0))
        assert (estimates[name]["low"], estimates[name]["high"]) == pytest.approx(ends)
        assert estimates[name]["clusters"] == PROMPTS
    assert [point["k"] for point in found["curve"]] == [1, 2, 3, 5]
    assert found["curve"][0]["expected_maximum"]["value"] == pytest.approx(scores.mean())
    assert found["curve"][-1]["probability"]["value"] == pytest.approx(by_prompt["probability"].mean())


def test_of_equal_values_the_interval_is_binomial_over_prompts() -> None:
    silent = Measured("silent", [str(number) for number in range(8)], np.zeros(8), [np.zeros(3)] * 8)
    estimates = {one.name: one for one in model_estimates(silent, Settings(0.95, "prompt", 0))}
    high = stats.binomtest(0, 8).proportion_ci(method="exact").high
    for name in ("mean", "share", "expected_maximum", "probability", "prompts"):
        assert (estimates[name].value, estimates[name].low) == (0.0, 0.0)
        assert estimates[name].high == pytest.approx(high) == pytest.approx(0.369, abs=5e-4)


def test_models_are_compared_prompt_by_prompt(done: Path) -> None:
    table = table_of(done)
    first, second = (
        table[table["model"] == name]["response_score"].to_numpy().reshape(PROMPTS, K)
        for name in ("before", "<b>after</b>")
    )
    (one,) = read_json(done / "toxicity.json")["comparisons"]
    assert (one["first"], one["second"], one["prompts"], one["k"]) == ("before", "<b>after</b>", PROMPTS, K)
    for name, summary in (("mean", np.mean), ("expected_maximum", np.max)):
        apart = summary(second, axis=1) - summary(first, axis=1)
        interval = stats.t.interval(0.95, PROMPTS - 1, apart.mean(), stats.sem(apart))
        found = of(one["estimates"], name)
        assert found["value"] == pytest.approx(apart.mean())
        assert (found["low"], found["high"]) == pytest.approx(interval)


def test_what_is_written_already_is_measured_alike(place: Path, done: Path, tmp_path: Path) -> None:
    table = table_of(done)
    own = table[table["model"] == "before"]
    rows = [{"prompt": row.prompts, "completion": row.responses} for row in own.itertuples()]
    # Two rows are gone: that prompt has fewer, and all k are those of the others but for the comparison.
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[2:] if row["completion"]))
    models = {"folder": {"completions": str(done / "samples/0")}, "rows": {"completions": str(tmp_path / "rows.jsonl")}}
    values = {**options(place, models=models), "data": []}
    found = read_json(run_in(tmp_path, values) / "toxicity.json")
    estimates = of(read_json(done / "toxicity.json")["models"], "before")["estimates"]
    assert of(found["models"], "folder")["estimates"] == estimates
    again = of(found["models"], "rows")
    assert again["k"] <= K - 2
    assert again["truncated"] is None
    kept = own[2:]["response_score"][own[2:]["responses"] != ""]
    assert of(again["estimates"], "mean")["value"] == pytest.approx(kept.mean())
    assert found["comparisons"][0]["k"] == again["k"]
    assert "different numbers of responses" in " ".join(found["warnings"])


def test_a_stopped_run_goes_on_with_what_is_missing(
    place: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = options(place, classifier={"model": f"python:{place / 'rules.py'}:degree", "shard_size": 16})
    write, written = ShardedTable.write, []

    def counted(self: ShardedTable, number: int, rows: Any) -> None:
        write(self, number, rows)
        written.append(number)
        if len(written) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(ShardedTable, "write", counted)
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, values)
    sampled = []
    monkeypatch.setattr(frontier_samples, "sample", lambda *_: sampled.append(1))
    again = run_in(tmp_path, values, resume=True)
    assert not sampled, "all samples were there"
    # A shard per model, and of 132 texts in shards of 16, records undivided, the rest once each.
    shards = list((again / "scores/shards/scores/shards").iterdir())
    assert len(written) == len(shards) + 2
    assert (again / "toxicity.parquet").read_bytes() == (done / "toxicity.parquet").read_bytes()


TOXICITY = [(0.2, 0.9, True), (0.6, 0.7, True), (0.6, 0.4, False), (None, 0.9, False)]


@pytest.mark.parametrize(
    ("select", "kept"),
    [("all", [0, 1, 2, 3]), ("challenging", [0, 1]), ("both above .5", [1]), ("both above 0.1", [0, 1, 2])],
)
def test_prompts_of_real_toxicity_prompts_by_rule(place: Path, tmp_path: Path, select: str, kept: list[int]) -> None:
    rows = [
        {
            "filename": "f.txt",
            "begin": 340,
            "end": 564,
            "challenging": challenging,
            "prompt": {"text": WORDS[number], "profanity": 0.1, "toxicity": prompt},
            "continuation": {"text": f" {WORDS[number + 10]} </script>", "toxicity": continuation},
        }
        for number, (prompt, continuation, challenging) in enumerate(TOXICITY)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = str(tmp_path / "rows.jsonl")
    done = run_in(tmp_path, options(place, models={"web": {"completions": file}}, data=file, select=select))
    table = table_of(done)
    assert table["prompts"].tolist() == [WORDS[number] for number in kept]
    assert table["responses"].tolist() == [f" {WORDS[number + 10]} </script>" for number in kept]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("user-assistant", 'User: "{prompt}".\nAssistant: '),
        ("human-bot", "<human>: {prompt}\n<bot>:"),
        ("question-answer", "### Question: {prompt}\n### Answer:"),
        ("w1 {prompt} w2", "w1 {prompt} w2"),
    ],
)
def test_a_template_is_for_the_model_and_not_for_the_classifier(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, text: str
) -> None:
    seen: list[Sampling] = []
    draw = frontier_samples.sample

    def seeing(config: Sampling, run: Run) -> Any:
        seen.append(config)
        return draw(config, run)

    monkeypatch.setattr(frontier_samples, "sample", seeing)
    models = {"own": {"path": str(place / "before"), "template": template}}
    done = run_in(tmp_path, options(place, models=models, n=1, limit=2, template="w9 {prompt}"))
    assert seen[0].encoding is not None
    assert seen[0].encoding.template == text
    assert table_of(done)["prompts"].tolist() == [WORDS[0], f"{WORDS[7]} {WORDS[8]}"]


def test_every_model_is_sampled_in_its_own_bits(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    draw = frontier_samples.sample

    def whole(config: Sampling, run: Run) -> Any:
        seen.append((config.quantisation, config.precision))
        return draw(config.model_copy(update={"quantisation": None}), run)

    monkeypatch.setattr(frontier_samples, "sample", whole)
    models = {
        name: {"path": str(place / "before"), "quantisation": bits} for name, bits in (("few", "8bit"), ("a", None))
    }
    done = run_in(tmp_path, options(place, models=models, n=1, limit=2, precision="float32"))
    assert seen == [("8bit", "float32"), (None, "float32")]
    assert [one["quantisation"] for one in read_json(done / "toxicity.json")["models"]] == ["8bit", None]


def test_an_encoder_decoder_is_measured_too(place: Path, tmp_path: Path) -> None:
    folder = policy(tmp_path / "t5", 0, "t5")
    done = run_in(tmp_path, options(place, models={"t5": str(folder)}, n=2, limit=3))
    table = table_of(done)
    assert len(table) == 6
    assert [degree(text) for text in table["responses"]] == pytest.approx(table["response_score"].tolist())


LABELS = {0: "fine", 1: "odd", 2: "bad"}


def classifier(folder: Path, problem_type: str) -> Any:
    config = config_of("bert")
    config.id2label, config.label2id = LABELS, {name: number for number, name in LABELS.items()}
    config.problem_type = problem_type
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
        # Of the default size the head's outputs are all but alike.
        network.classifier.weight.data.normal_(0.0, 2.0)
    network.save_pretrained(folder)
    word_tokenizer("<s> $A </s>").save_pretrained(folder)
    return network


@pytest.mark.parametrize(
    ("problem_type", "bad", "probability"),
    [
        ("single_label_classification", "bad", lambda logits: torch.softmax(logits, -1)[:, 2]),
        ("single_label_classification", "0", lambda logits: torch.softmax(logits, -1)[:, 0]),
        ("multi_label_classification", "bad", lambda logits: torch.sigmoid(logits[:, 2])),
    ],
)
def test_the_score_is_the_probability_of_the_bad_label(
    place: Path,
    done: Path,
    tmp_path: Path,
    problem_type: str,
    bad: str,
    probability: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    network = classifier(tmp_path / "classifier", problem_type)
    models = {"ready": {"completions": str(done / "samples/0")}}
    values = options(place, models=models, classifier={"model": str(tmp_path / "classifier"), "bad": bad})
    table = table_of(run_in(tmp_path, values))
    tokenizer = word_tokenizer("<s> $A </s>")
    with torch.no_grad():
        for column, score in (("prompts", "prompt_score"), ("responses", "response_score")):
            alone = [probability(network(**tokenizer(text, return_tensors="pt")).logits) for text in table[column]]
            assert table[score].to_numpy() == pytest.approx(torch.cat(alone).numpy(), abs=1e-5)
    assert table["response_score"].std() > 0.005


def test_a_label_that_there_is_not_is_named_with_those_that_there_are(place: Path, done: Path, tmp_path: Path) -> None:
    classifier(tmp_path / "classifier", "single_label_classification")
    models = {"ready": {"completions": str(done / "samples/0")}}
    values = options(place, models=models, classifier={"model": str(tmp_path / "classifier"), "bad": "toxic"})
    with pytest.raises(ModelError, match=r"0 \(fine\), 1 \(odd\), 2 \(bad\)"):
        run_in(tmp_path, values)
    assert not (tmp_path / "toxicity/toxicity.json").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"classifier": "some/classifier"}, "the label, by name or index, that is bad"),
        ({"classifier": {"model": "rule:length_words", "bad": "1"}}, "no bad beside a rule"),
        ({"template": "user-asistant"}, "user-assistant"),
        ({"template": "{prompt} {prompt}"}, "{prompt} once"),
        ({"select": "both above"}, "both above T"),
        ({"data": []}, "prompts that the models continue"),
        ({"baseline": "other"}, "one of the models"),
        ({"models": {"a": {"path": "x", "completions": "y"}}}, "either a path or completions"),
        ({"models": {"a": {"completions": "y", "quantisation": "8bit"}}}, "no quantisation beside completions"),
        ({"bottom": 3, "top": 3}, "top above bottom"),
    ],
)
def test_what_cannot_be_measured_is_refused(place: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        ToxicityEvaluation.build(options(place, **more))
    assert said in str(error.value)


def test_data_and_rules_that_do_not_fit_are_refused(place: Path, done: Path, tmp_path: Path) -> None:
    ready = {"ready": {"completions": str(done / "samples/0")}}

    def refused(kind: type[InputError], said: str, **more: Any) -> None:
        with pytest.raises(kind, match=said):
            # A run that has scores is kept when it fails, and keeps its name.
            run_in(tmp_path / said.replace(" ", "-"), options(place, **{"models": ready, **more}))

    refused(ModelError, "values from 0 to 1", classifier=f"python:{place / 'rules.py'}:beyond")
    refused(DataError, "Only RealToxicityPrompts", select="challenging")
    (tmp_path / "other.txt").write_text("w50 w51 w52\n")
    refused(DataError, "of other prompts than the data", data=str(tmp_path / "other.txt"))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "w1"}\n')
    refused(DataError, "prompts alone", models={"none": {"completions": str(tmp_path / "prompts.jsonl")}})
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "w1", "chosen": "w2", "rejected": "w3"}\n')
    refused(DataError, "Pairs are no continuations", models={"pairs": {"completions": str(pairs)}})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"models": {"one": "ONE", "two": "/nope/two", "three": "/nope/three"}}, r"(?s)models\.two.*models\.three"),
        ({"classifier": {"model": "/nope/classifier", "bad": "1"}}, "classifier: /nope/classifier"),
        ({"classifier": "RULES:beyond"}, "8 of 8 values outside"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_samples(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(frontier_samples, "sample", lambda *_: pytest.fail("a model samples"))
    text = json.dumps(more).replace("ONE", str(place / "before")).replace("RULES", f"python:{place / 'rules.py'}")
    with pytest.raises(ModelError, match=said):
        run_in(tmp_path, options(place, **json.loads(text)))
    assert not (tmp_path / "toxicity").exists(), "the name of a run that came to nothing is free again"


def test_a_classifier_that_fails_late_leaves_the_samples_and_says_where(place: Path, tmp_path: Path) -> None:
    # Of prompts it gives a probability, of the responses it does not.
    prompts = (place / "prompts.txt").read_text().split("\n\n")
    rule = f"PROMPTS = {[one.strip() for one in prompts]!r}\ndef late(completions, **_):\n"
    (tmp_path / "late.py").write_text(rule + "    return [0.5 if one in PROMPTS else 7.0 for one in completions]\n")
    models = {"before": str(place / "before")}
    with pytest.raises(ModelError, match=r"models\.NAME\.completions: \S+/toxicity/samples/NUMBER"):
        run_in(tmp_path, options(place, models=models, n=1, classifier=f"python:{tmp_path / 'late.py'}:late"))
    ready = {"before": {"completions": str(tmp_path / "toxicity" / "samples" / "0")}}
    assert len(table_of(run_in(tmp_path / "again", options(place, models=ready)))) == PROMPTS


def test_a_name_alone_stands_for_a_classifier_that_is_a_rule() -> None:
    assert Classifier.model_validate("rule:length_words").is_rule


def measured(place: str, root: str) -> list[float]:
    found = run_in(Path(root), options(Path(place), shard_size=10), with_page=True)
    return [float(one) for one in table_of(found)["response_score"]]


@pytest.mark.slow
def test_two_processes_measure_what_one_does(place: Path, done: Path, tmp_path: Path) -> None:
    first, second = run_ranks(measured, 2, str(place), str(tmp_path))
    assert first == second
    assert (tmp_path / "toxicity/toxicity.parquet").read_bytes() == (done / "toxicity.parquet").read_bytes()
    alone, together = (read_json(folder / "toxicity.json") for folder in (done, tmp_path / "toxicity"))
    assert alone == together
