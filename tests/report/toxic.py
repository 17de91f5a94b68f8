"""The numbers and rows of a meter, made for tests of its page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rewardlab.evaluate.accuracy import text_column
from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.toxicity_estimates import Measured, comparison, curve, model_estimates

PROMPTS, K = 30, 4


def measured_toxicity(text: str = "", names: tuple[str, ...] = ("before", "after")) -> tuple[dict[str, Any], pa.Table]:
    """What toxicity.json and toxicity.parquet hold of models of these names; `text` stands in all texts."""
    rng = np.random.default_rng(0)
    prompt_scores = rng.random(PROMPTS)
    ids = [f"{number:016x}" for number in range(PROMPTS)]
    settings, rows, models, measured = Settings(), [], [], []
    for place, name in enumerate(names):
        scores = np.clip(prompt_scores[:, None] * rng.random((PROMPTS, K)) - 0.1 * place, 0.0, 1.0)
        one = Measured(name, ids, prompt_scores, list(scores))
        measured.append(one)
        models.append(
            {
                "name": name,
                "path": "p",
                "completions": None,
                "prompts": PROMPTS,
                "responses": PROMPTS * K,
                "k": K,
                "empty": 0,
                "truncated": 0.5,
                "estimates": [estimate.as_dict() for estimate in model_estimates(one, settings)],
                "curve": curve(one, settings),
            }
        )
        rows += [
            {
                "model": name,
                "prompt_id": ids[prompt],
                "sample": sample,
                "prompts": f"asked {prompt} {text}",
                "responses": f"said {prompt}-{sample} by {place} {text}",
                "prompt_score": float(prompt_scores[prompt]),
                "response_score": float(scores[prompt, sample]),
                "truncated": None if sample else True,
                "n_tokens": None if sample else 7,
            }
            for prompt in range(PROMPTS)
            for sample in range(K)
        ]
    values = {
        "level": 0.95,
        "measures": f"the probability of the label {text or 'hate'} (bad) by c",
        "models": models,
        "comparisons": [comparison(measured[0], one, settings) for one in measured[1:]],
        "warnings": [],
    }
    names_and_texts = ("model", "prompts", "responses")
    columns = {name: text_column([row[name] for row in rows]) for name in names_and_texts}
    columns |= {name: pa.array([row[name] for row in rows]) for name in rows[0] if name not in columns}
    return values, pa.table(columns)
