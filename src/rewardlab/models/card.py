"""The model card that lies beside every saved model: what it is, what it saw, how to use it.

Texts from data or users stand in it as inline code, so that they cannot become markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from rewardlab.data.render import render
from rewardlab.data.tokenize import Encoder
from rewardlab.records import Message, Prompt


def model_card(
    *,
    base: str,
    data: Sequence[str],
    settings: Mapping[str, object],
    measures: Mapping[str, str],
    notes: Sequence[str],
    use: str,
) -> str:
    """Text of a README.md with a Hugging Face metadata block.

    Args:
        base: checkpoint or shape that training began from.
        data: one line per training set: name, rows, hash.
        settings: hyper-parameters by name.
        measures: measure → value with its interval or sample size.
        notes: what a user must know (encoding, truncation, fallbacks).
        use: the lines that score an answer, from `usage`.
    """
    lines = _head()
    lines += ["A scalar reward for an answer to a prompt; higher is better. Trained with rewardlab.", ""]
    lines += [f"Base: {_code(base)}", "", "## Data", "", *[f"- {_code(line)}" for line in data], ""]
    lines += ["## Measures", "", *_table("measure", measures), ""]
    lines += ["## Settings", "", *_table("setting", settings), ""]
    lines += ["## Use", "", *[f"- {note}" for note in notes], "", use]
    return "\n".join(lines)


def adapter_card(adapter: str, sources: Sequence[str], use: str) -> str:
    """Text of the README.md of a model that an adapter was merged into.

    Args:
        adapter: its name.
        sources: folders and commits that the weights came from.
        use: the lines that score an answer, from `usage`.
    """
    lines = [*_head(), "A scalar reward for an answer to a prompt; higher is better."]
    lines += [f"The adapter {_code(adapter)}, merged into the weights of its base by rewardlab.", "", "## Sources", ""]
    return "\n".join([*lines, *[f"- {_code(source)}" for source in sources], "", "## Use", "", use])


def policy_card(
    *, base: str, data: Sequence[str], settings: Mapping[str, object], measures: Mapping[str, str], notes: Sequence[str]
) -> str:
    """Text of the README.md of a policy.

    Args:
        base: checkpoint or shape that training began from.
        data: one line per training set: name, rows, hash.
        settings: objective and hyper-parameters by name.
        measures: measure → value with its sample size.
        notes: what a user must know (encoding, truncation).
    """
    lines = [*_head("Policy", "text-generation", "policy"), "A language model trained with rewardlab.", ""]
    lines += [f"Base: {_code(base)}", "", "## Data", "", *[f"- {_code(line)}" for line in data], ""]
    lines += ["## Measures", "", *_table("measure", measures), "", "## Settings", "", *_table("setting", settings), ""]
    return "\n".join(
        [*lines, "## Use", "", "A plain folder of transformers.", "", *[f"- {note}" for note in notes], ""]
    )


def _head(title: str = "Reward model", task: str = "text-classification", tag: str = "reward-model") -> list[str]:
    metadata = {"library_name": "transformers", "pipeline_tag": task, "tags": [tag, "rewardlab"]}
    return ["---", yaml.safe_dump(metadata, sort_keys=False).strip(), "---", "", f"# {title}", ""]


QUESTION, ANSWER = "What is the capital of France?", "Paris."


def usage(encoder: Encoder, *, is_text: bool, is_plain: bool = True) -> str:
    """The lines that score an answer, with rewardlab and with transformers alone: both give the same reward.

    Args:
        encoder: the model's tokenizer and rules.
        is_text: whether the model was trained on prompts of plain text, rather than on conversations.
        is_plain: whether transformers alone can load it; a readout of ours it does not know.
    """
    prompt = Prompt.of_text(f"{QUESTION}\n") if is_text else Prompt((Message("user", QUESTION),))
    by_template = not is_text and encoder.encoding.template is None and bool(encoder.tokenizer.chat_template)
    if by_template:
        turns = [*(message.as_dict() for message in prompt.messages), {"role": "assistant", "content": ANSWER}]
        text = f"tokenizer.apply_chat_template({turns!r}, tokenize=False)"
    else:
        text = repr(render(prompt, ANSWER, template=encoder.encoding.template).text)
    given = prompt.messages[0].content if is_text else [message.as_dict() for message in prompt.messages]
    by_us = _USE.format(prompt=repr(given), answer=repr(ANSWER))
    if not is_plain:
        return f"{by_us}\n{_NOT_PLAIN}"
    options = ", add_special_tokens=False" if by_template else ""
    lines = [f'ids = tokenizer(text{options})["input_ids"]']
    if encoder.eos and (by_template or encoder.suffix[-1:] != encoder.eos):
        unless = " if ids[-1] != tokenizer.eos_token_id else []" if by_template else ""
        lines.append(f"ids += [tokenizer.eos_token_id]{unless}")
    by_transformers = _PLAIN.format(text=text, ids="\n".join(lines))
    return f"{by_us}\n{by_transformers}"


_USE = """```python
import rewardlab

scorer = rewardlab.load_scorer("path/to/this/folder")
(reward,) = scorer([{prompt}], [{answer}])
```
"""

_NOT_PLAIN = """The backbone is a plain `AutoModel` checkpoint. What reads it lies in `readout.safetensors`
and is named in `rewardlab.json`; transformers alone gives no reward.
"""

_PLAIN = """\
The folder is also a plain `AutoModelForSequenceClassification` checkpoint with one label, and gives the same reward for
the same ids:

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForSequenceClassification.from_pretrained("path/to/this/folder")
text = {text}
{ids}
reward = model(torch.tensor([ids])).logits[0, 0].item()
```
"""


def _table(name: str, rows: Mapping[str, object]) -> list[str]:
    return [f"| {name} | value |", "|---|---|", *[f"| {_code(key)} | {_code(value)} |" for key, value in rows.items()]]


def _code(value: object) -> str:
    """`value` as inline code on one line: nothing in it can end the code, the cell or the line, or hide."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "/")
    return f"`{''.join(letter if letter.isprintable() else '?' for letter in text) or ' '}`"
