"""The model card that lies beside every saved model: what it is, what it saw, how to use it.

Texts from data or users stand in it as inline code, so that they cannot become markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml


def model_card(
    *, base: str, data: Sequence[str], settings: Mapping[str, object], measures: Mapping[str, str], notes: Sequence[str]
) -> str:
    """Text of a README.md with a Hugging Face metadata block.

    Args:
        base: checkpoint or shape that training began from.
        data: one line per training set: name, rows, hash.
        settings: hyper-parameters by name.
        measures: measure → value with its interval or sample size.
        notes: what a user must know (encoding, truncation, fallbacks).
    """
    metadata = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "rewardlab"],
    }
    lines = ["---", yaml.safe_dump(metadata, sort_keys=False).strip(), "---", "", "# Reward model", ""]
    lines += ["A scalar reward for an answer to a prompt; higher is better. Trained with rewardlab.", ""]
    lines += [f"Base: {_code(base)}", "", "## Data", "", *[f"- {_code(line)}" for line in data], ""]
    lines += ["## Measures", "", *_table("measure", measures), ""]
    lines += ["## Settings", "", *_table("setting", settings), ""]
    lines += ["## Use", "", *[f"- {note}" for note in notes], "", _USE]
    return "\n".join(lines)


_USE = """```python
import rewardlab

scorer = rewardlab.load_scorer("path/to/this/folder")
rewards = scorer(["What is the capital of France?"], ["Paris."])
```

The folder is also a plain `AutoModelForSequenceClassification` checkpoint with one label.
"""


def _table(name: str, rows: Mapping[str, object]) -> list[str]:
    return [f"| {name} | value |", "|---|---|", *[f"| {_code(key)} | {_code(value)} |" for key, value in rows.items()]]


def _code(value: object) -> str:
    """`value` as inline code on one line: nothing in it can end the code, the cell or the line, or hide."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "/")
    return f"`{''.join(letter if letter.isprintable() else '?' for letter in text) or ' '}`"
