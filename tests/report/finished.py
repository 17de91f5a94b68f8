"""Folders as finished stages leave them, with plausible made-up content, written by hand to the file contract."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SUBJECTS = [
    "the bicycle",
    "a sourdough loaf",
    "the kitchen tap",
    "my garden soil",
    "a small aquarium",
    "the night train",
]
VERBS = ["repair", "choose", "clean", "prepare", "describe", "compare"]
GOOD = [
    "Start with the simplest cause and check it by hand",
    "Work from the outside in, and write down what you change",
    "If nothing moves, a drop of oil and ten minutes of patience often help",
    "After that, look at the joint itself: dirt, wear and a loose screw explain most cases",
    "Finally, test it twice before you put the tools away",
]
PADDING = [
    "I hope that this is of some use to you",
    "There are of course many ways to look at it",
    "As always, it depends on what you need",
    "Please tell me if you would like to hear more about it",
    "It is worth keeping in mind that every case is different",
]


def write_all(root: Path, *, pairs: int = 420, folds: int = 2, hostile: str = "") -> dict[str, list[Path]]:
    """Doctor, training (the last one by PPO), scoring and evaluation folders under `root`.

    `hostile` is put into every text there is.
    """
    rng = np.random.default_rng(7)
    train = [write_train(root / f"train-{fold}", rng, hostile) for fold in range(folds)]
    train.append(write_ppo(root / "ppo", hostile))
    doctor, score = write_doctor(root / "doctor", hostile), write_score(root / "score", hostile)
    evaluate = write_evaluation(root / "evaluate", rng, pairs, hostile)
    return {"doctor": [doctor], "train": train, "score": [score], "evaluate": [evaluate]}


def write_record(folder: Path, verb: str, hostile: str = "", config: dict[str, Any] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "name": f"{folder.name}{hostile}",
        "verb": f"{verb}{hostile}",
        "description": f"a try{hostile}",
        "status": "done",
        "seeds": {"seed": 0},
        "inputs": [{"path": f"data/pairs{hostile}.jsonl", "sha256": "ab12" * 16}],
        "code": {
            "version": "0.1.0",
            "commit": "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432",
            "diff_bytes": 0,
            "untracked": [],
            "files": None,
            "diff_recorded": True,
        },
        "packages": {"numpy": "2.3.0", "rewardlab": "0.1.0", "torch": "2.13.0", f"odd{hostile}": "1"},
        "machine": {
            "system": "Linux-6.1",
            "python": "3.11.2",
            "processor": f"AMD EPYC 7763{hostile}",
            "cores": 2,
            "memory_bytes": 8_589_934_592,
            "torch_threads": 2,
            "accelerators": [],
        },
        "environment": {},
        "sessions": [
            {
                "command": f"rewardlab {verb} --seed 0 {hostile}",
                "started": "2026-01-05T10:00:00+00:00",
                "status": "done",
                "seconds": 48.25,
                "commit": "9f8e7d6c",
                "diff": None,
            }
        ],
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    lines = [f"{key}: {value}" for key, value in (config or {"seed": 0, "epochs": 1}).items()]
    (folder / "config.yaml").write_text("\n".join([*lines, f"note: '{hostile}'"]), encoding="utf-8")


def write_doctor(folder: Path, hostile: str = "") -> Path:
    write_record(folder, "data doctor", hostile)

    def check(
        name: str, title: str, count: int, severity: str, reading: str, examples: list[Any], **numbers: Any
    ) -> Any:
        return {
            "name": name,
            "title": f"{title}{hostile}",
            "count": count,
            "total": 2103,
            "severity": severity,
            "reading": f"{reading}{hostile}",
            "examples": examples,
            "numbers": numbers,
        }

    example = {"source": f"pairs.jsonl:17{hostile}", "chosen": f"Try again.{hostile}", "rejected": "Try again."}
    checks = [
        check(
            "identical",
            "Identical answers",
            3,
            "problem",
            "They carry no preference.",
            [example],
        ),
        check(
            "leakage",
            "Conversations in more than one split",
            0,
            "ok",
            "No leak.",
            [],
        ),
        check("duplicates", "Repeated pairs", 41, "warning", "Repeats count twice in every mean.", [example] * 7),
        check(
            "longer",
            "Longer answer chosen",
            1187,
            "note",
            "Above one half, length alone predicts the choice.",
            [],
            median_chosen_tokens=61,
            median_rejected_tokens=52,
            by_set={"train": 1000, "test": 187},
            share=estimate("characters.longer_is_better", 0.564, 0.02, reading=f"One half knows nothing.{hostile}"),
        ),
    ]
    (folder / "doctor.json").write_text(json.dumps({"checks": checks}), encoding="utf-8")
    return folder


def write_train(folder: Path, rng: np.random.Generator, hostile: str = "") -> Path:
    write_record(folder, "train reward", hostile)
    lines: list[dict[str, Any]] = []
    for step in range(1, 241):
        loss = 0.56 + 0.14 * math.exp(-step / 70) + rng.normal(0, 0.03)
        lines.append(
            {
                "step": step,
                "epoch": step / 120,
                "split": "train",
                "loss": loss,
                "learning_rate": 1e-4,
                "grad_norm": 1.2,
                "pairs_per_second": 31 + rng.normal(0, 1.5),
            }
        )
        if step % 20 == 0:
            accuracy = 0.66 - 0.14 * math.exp(-step / 60) + rng.normal(0, 0.008)
            lines.append(
                {
                    "step": step,
                    "epoch": step / 120,
                    "split": f"val{hostile}",
                    "loss": 0.6 + 0.09 * math.exp(-step / 60),
                    "accuracy": accuracy,
                }
            )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "history.jsonl").write_text(text, encoding="utf-8")
    summary = {"steps": 240, "best": {"step": 220, "accuracy": 0.658}, "note": hostile or "stopped at the last step"}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def write_ppo(folder: Path, hostile: str = "", *, steps: int = 80, every: int = 4, held_out: bool = True) -> Path:
    """The reward is half a point a step, less a hundredth of it; every fifth response is cut off."""
    write_record(folder, "train ppo", hostile)
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        values = {"score": step / 2, "term.words": step / 1.0, "term.dull": -0.5, "reward": step / 2, "kl": step / 10}
        more = {"kl_error": 0.1, "length": 30.0 + step, "entropy": 3.0 - step / 50, "unfinished": 0.2}
        more["beta"] = 0.2 + step / 800
        rest = {"explained_variance": None if step < 3 else 0.4, "clip_share": 0.02, "skipped": 0}
        lines.append({"step": step, "epoch": step / 40, "split": "train", **values, **more, **rest})
        if held_out and step % 20 == 0:
            line = {"step": step, "epoch": step / 40, "split": "validation", "n": 50, "score": step / 2 - 1}
            lines.append({**line, "score_error": 0.3, "unfinished": 0.1, "length": 31.0})
    samples = [
        {
            "step": step,
            "prompt": f"How do I repair {SUBJECTS[place]}?{hostile}",
            "response": f"{GOOD[place]}.{hostile}" if place else "",
            "tokens": 20 + place,
            "finished": place != 2,
            "terms": {"words": step + place / 4, "dull": -0.5},
            "score": step / 2,
            "reward": step / 2 - 0.1,
            "kl": step / 10,
        }
        for step in (1, *range(every, steps + 1, every))
        for place in range(3)
    ]
    for name, rows in (("history.jsonl", lines), ("samples.jsonl", samples)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ends = {
        name: {"score": score, "reward": score, "kl": kl, "length": 31.0, "entropy": 2.5, "unfinished": 0.2, "steps": 8}
        for name, score, kl in (("first", 2.25, 0.45), ("last", 38.25, 7.65))
    }
    counts = {
        "responses": 2560,
        "unfinished": 512,
        "empty": 7,
        "replaced": 0,
        "skipped": 1,
        "level": 0,
        "negative_kl": 0,
    }
    best = {"score": 39.0, "step": 80} if held_out else None
    summary = {"steps": steps, **ends, "best": best, "counts": counts, "note": hostile or "as it should be"}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def write_score(folder: Path, hostile: str = "") -> Path:
    write_record(folder, "score", hostile)
    summary = {
        "scorer": f"tiny-llama{hostile}",
        "completions": 840,
        "truncated": 4,
        "probes": ["shuffled_prompt", "response_only"],
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def write_evaluation(folder: Path, rng: np.random.Generator, pairs: int = 420, hostile: str = "") -> Path:
    write_record(folder, "evaluate accuracy", hostile)
    rows = made_up_pairs(rng, pairs, hostile)
    pq.write_table(pa.Table.from_pylist(rows, schema=PAIRS_SCHEMA), folder / "pairs.parquet")
    (folder / "accuracy.json").write_text(json.dumps(accuracy(rows, hostile)), encoding="utf-8")
    return folder


PAIRS_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("pair_id", "prompt_id", "root_id", "prompt", "chosen", "rejected")),
        *((name, pa.string()) for name in ("subset", "source")),
        *(
            (name, pa.float64())
            for name in (
                "chosen_score",
                "rejected_score",
                "margin",
                "given_margin",
                "shuffled_prompt_margin",
                "response_only_margin",
                "bag_of_words_margin",
            )
        ),
        *(
            (name, pa.int32())
            for name in (
                "occurrence",
                "chosen_tokens",
                "rejected_tokens",
                "chosen_characters",
                "rejected_characters",
                "fold",
            )
        ),
        *((name, pa.bool_()) for name in ("chosen_truncated", "rejected_truncated")),
    ]
)


def made_up_pairs(rng: np.random.Generator, count: int, hostile: str = "") -> list[dict[str, Any]]:
    """Pairs whose scores follow quality a little and length a little."""
    rows = []
    for index in range(count):
        subject, verb = SUBJECTS[rng.integers(6)], VERBS[rng.integers(6)]
        prompt = f"Human: May I ask something?\n\nAssistant: Yes.\n\nHuman: How do I best {verb} {subject} ({index})?"
        chosen, rejected = _answer(rng, 0.6), _answer(rng, 0.53)
        chosen_tokens, rejected_tokens = (int(1.3 * len(text.split())) + 1 for text in (chosen, rejected))
        margin = float(0.012 * (chosen_tokens - rejected_tokens) + rng.normal(0.36, 0.9))
        base = float(rng.normal(0, 0.5) + 0.01 * rejected_tokens)
        rows.append(
            {
                "pair_id": f"{index:016x}",
                "occurrence": 0,
                "prompt_id": f"p{index // 2}",
                "root_id": f"r{index // 2}",
                "prompt": prompt + hostile,
                "chosen": chosen + hostile,
                "rejected": rejected + hostile,
                "chosen_score": base + margin,
                "rejected_score": base,
                "margin": margin,
                "given_margin": None,
                "chosen_tokens": chosen_tokens,
                "rejected_tokens": rejected_tokens,
                "chosen_characters": len(chosen),
                "rejected_characters": len(rejected),
                "chosen_truncated": index == 3,
                "rejected_truncated": False,
                "subset": f"helpful{hostile}" if index % 2 else "harmless",
                "fold": index % 2,
                "source": f"pairs{hostile}.jsonl:{index + 1}",
                "shuffled_prompt_margin": margin / 2,
                "response_only_margin": margin / 3,
                "bag_of_words_margin": margin / 4,
            }
        )
    return rows


def _answer(rng: np.random.Generator, quality: float) -> str:
    sentences = [line for line in GOOD if rng.random() < quality]
    sentences += [line for line in PADDING if rng.random() < 0.35]
    rng.shuffle(sentences)
    return ". ".join(line.rstrip(".") for line in sentences or ["I cannot say"]) + "."


def estimate(
    name: str, value: float | None, half: float = 0.0, *, reading: str = "", reason: str = ""
) -> dict[str, Any]:
    ends = (None, None) if value is None or not half else (value - half, value + half)
    return {
        "name": name,
        "value": value,
        "low": ends[0],
        "high": ends[1],
        "level": 0.95,
        "n": 420,
        "unit": "pairs",
        "clusters": 210,
        "method": "t, clustered by prompt (CR1)",
        "reading": reading,
        "reason": reason,
    }


def accuracy(rows: list[dict[str, Any]], hostile: str = "") -> dict[str, Any]:
    """accuracy.json for these pairs: shares and bins are counted, the intervals are binomial approximations."""
    margins = np.array([row["margin"] for row in rows])
    delta = np.array([row["chosen_tokens"] - row["rejected_tokens"] for row in rows])
    right = margins > 0
    half = lambda share, n: 1.96 * math.sqrt(max(share * (1 - share), 0.01) / max(n, 1))  # noqa: E731

    def share(name: str, hits: Any, reading: str) -> dict[str, Any]:
        value = float(np.mean(hits)) if len(hits) else None
        reason = f"there are no such pairs{hostile}" if value is None else ""
        return estimate(
            name, value, half(value, len(hits)) if value is not None else 0, reading=reading + hostile, reason=reason
        )

    overall = float(right.mean())
    length = []
    for unit in ("tokens", "characters"):
        name = f"length.{unit}."
        correlation = float(np.corrcoef(delta, margins)[0, 1]) if len(rows) > 2 else None
        length += [
            share(name + "heuristic_accuracy", delta > 0, "What choosing the longer answer gets right."),
            share(name + "accuracy_longer_chosen", right[delta > 0], "Accuracy where the longer answer was chosen."),
            share(name + "accuracy_shorter_chosen", right[delta < 0], "Accuracy where the shorter answer was chosen."),
            estimate(name + "accuracy_gap", 0.17, 0.09, reading="Zero for a model that does not follow length."),
            share(name + "accuracy_balanced", right[np.abs(delta) < 15], "Accuracy where length is no help."),
            share(
                name + "longer_scores_higher",
                (margins * delta) > 0,
                "One half for a model that does not follow length.",
            ),
            share(name + "longer_is_chosen", delta > 0, "What the model is compared with."),
            estimate(name + "delta_pearson", correlation, 0.09, reading="0 is no relation, 1 a straight line."),
            estimate(name + "delta_spearman", correlation, 0.09, reading="The same for ranks."),
            estimate(name + "pooled_pearson", 0.21, 0.07, reading="Over all answers, prompts mixed."),
            estimate(name + "pooled_spearman", 0.19, 0.07, reading="The same for ranks."),
            estimate(
                name + "within_prompt_pearson", None, reason="needs prompts with three or more completions; all have 2"
            ),
            estimate(
                name + "within_prompt_kendall", None, reason="needs prompts with three or more completions; all have 2"
            ),
        ]
    groups = {
        "accuracy": [
            share("accuracy", right, "One half is guessing."),
            estimate("accuracy.ties", 0.0, 0, reading="Pairs that get the same score."),
            estimate("accuracy.ties_lose", overall, 0.04, reading="As some published code counts."),
            estimate("accuracy.ties_win", overall, 0.04, reading="As other published code counts."),
            share(f"accuracy.subset.helpful{hostile}", right[1::2], "Within the subset."),
            share("accuracy.subset.harmless", right[::2], "Within the subset."),
            share("accuracy.fold.0", right[::2], "Within the fold."),
            share("accuracy.fold.1", right[1::2], "Within the fold."),
        ],
        "calibration": [
            estimate("calibration.ece", 0.046, 0.02, reading="Mean distance of confidence and accuracy."),
            estimate("calibration.ece_if_calibrated", 0.038, 0.012, reading="A calibrated model would show as much."),
            estimate("calibration.log_loss", 0.612, 0.02, reading="0.693 is guessing."),
            estimate("calibration.confidence", 0.654, 0.01, reading="Equals accuracy for a calibrated model."),
            estimate("calibration.slope", 0.83, 0.2, reading="Below one: too sure of itself."),
        ],
        "margin": [
            estimate("margin.mean", float(margins.mean()), 0.08, reading="Above zero: right on average."),
            estimate("margin.sd", float(margins.std()), 0.05, reading="Spread of the margins."),
            estimate("margin.given_pearson", None, reason="the data have no margins"),
        ],
        "length": length,
        "ignorance": [
            estimate("ignorance.shuffled_prompt.accuracy", 0.6, 0.045, reading="What is left with a wrong prompt."),
            estimate("ignorance.shuffled_prompt.lost", overall - 0.6, 0.03, reading="What the right prompt adds."),
            estimate("ignorance.response_only.accuracy", 0.585, 0.046, reading="What is left without a prompt."),
            estimate("ignorance.response_only.lost", overall - 0.585, 0.03, reading="What the prompt adds."),
        ],
        "baselines": [
            share("baselines.longer_tokens.accuracy", delta > 0, "The longer answer wins."),
            estimate("baselines.longer_tokens.gain", 0.07, 0.05, reading="What the model adds."),
            estimate("baselines.length_only.accuracy", None, reason="no training pairs were given"),
            estimate("baselines.length_only.gain", None, reason="no training pairs were given"),
            estimate("baselines.bag_of_words.accuracy", 0.562, 0.047, reading="Words without order or prompt."),
            estimate("baselines.bag_of_words.gain", overall - 0.562, 0.04, reading="What the model adds."),
        ],
        "agreement": [estimate("agreement.pairwise", None, reason="the records have no rewards")],
    }
    counts = {
        "records": len(rows),
        "pairs": len(rows),
        "prompts": len(rows) // 2,
        "roots": len(rows) // 2,
        "ties": 0,
        "equal_length_pairs": int((delta == 0).sum()),
        "duplicate_pairs": None,
    }
    return {
        "split": f"test{hostile}",
        "scorer": {"names": [f"tiny-llama{hostile}"], "folds": 2},
        "options": {"level": 0.95, "cluster": "prompt", "seed": 0},
        "counts": counts,
        "estimates": groups,
        "curves": curves(margins, delta, rows),
    }


def curves(margins: np.ndarray, delta: np.ndarray, rows: list[dict[str, Any]]) -> dict[str, Any]:
    def observed(predicted: np.ndarray, outcome: np.ndarray) -> list[dict[str, Any]]:
        result = []
        for part in np.array_split(np.argsort(predicted, kind="stable"), 10):
            if len(part):
                share = float(outcome[part].mean())
                half = 1.96 * math.sqrt(max(share * (1 - share), 0.01) / len(part))
                result.append(
                    {
                        "n": len(part),
                        "predicted": float(predicted[part].mean()),
                        "observed": share,
                        "observed_low": max(0.0, share - half),
                        "observed_high": min(1.0, share + half),
                    }
                )
        return result

    both = np.concatenate([margins, -margins])
    sigmoid = 1 / (1 + np.exp(-both))
    outcome = np.concatenate([np.ones(len(margins)), np.zeros(len(margins))])
    edges = np.arange(-3.2, 3.61, 0.2)
    histogram = [
        {
            "low": round(float(low), 1),
            "high": round(float(high), 1),
            "n": int(n),
            "accuracy": float(low >= -1e-9) if n else None,
        }
        for low, high, n in zip(edges[:-1], edges[1:], np.histogram(margins, edges)[0], strict=True)
    ]
    rising = [(1, 10), (11, 20), (21, 50), (51, None)]
    falling = [(None if high is None else -high, -low) for low, high in reversed(rising)]
    length_bins = []
    for low, high in [*falling, (0, 0), *rising]:
        inside = (delta >= (-np.inf if low is None else low)) & (delta <= (np.inf if high is None else high))
        n = int(inside.sum())
        share = float((margins[inside] > 0).mean()) if n else None
        half = 1.96 * math.sqrt(max(share * (1 - share), 0.01) / n) if n else 0.0
        length_bins.append(
            {
                "low": low,
                "high": high,
                "n": n,
                "accuracy": share,
                "accuracy_low": max(0.0, share - half) if n else None,
                "accuracy_high": min(1.0, share + half) if n else None,
                "mean_margin": float(margins[inside].mean()) if n else None,
            }
        )
    tokens = np.array([row[f"{side}_tokens"] for row in rows for side in ("chosen", "rejected")])
    scores = np.array([row[f"{side}_score"] for row in rows for side in ("chosen", "rejected")])
    length_scores = []
    for low, high in [(0, 0), *((start, start + 19) for start in range(1, 140, 20))]:
        inside = (tokens >= low) & (tokens <= high)
        n = int(inside.sum())
        length_scores.append(
            {
                "low": low,
                "high": high,
                "n": n,
                "mean_score": float(scores[inside].mean()) if n else None,
                "sd_score": float(scores[inside].std()) if n else None,
            }
        )
    balanced = [
        {"low": low, "high": low + 10, "longer_chosen": 40, "shorter_chosen": 30, "kept": 30}
        for low in range(0, 60, 10)
    ]
    return {
        "reliability": observed(sigmoid, outcome),
        "confidence": observed(1 / (1 + np.exp(-np.abs(margins))), (margins > 0).astype(float)),
        "margins": histogram,
        "length_bins": length_bins,
        "length_scores": length_scores,
        "balanced_bins": balanced,
    }
