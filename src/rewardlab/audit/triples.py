"""triples.parquet: every chain with the rewards of its texts, to browse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rewardlab.audit.scored import ScoredChains

TRIPLES = "triples.parquet"
TEXT_COLUMNS = ("original", "rewrite", "rerewrite", "third")
TRIPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_id", pa.string()),
        ("draw", pa.int32()),
        ("scorer", pa.string()),
        ("treated", pa.bool_()),
        ("prompt", pa.string()),
        ("source", pa.string()),
        ("outcomes", pa.list_(pa.string())),
        *((name, pa.string()) for name in TEXT_COLUMNS),
        *((f"{name}_reward", pa.float64()) for name in TEXT_COLUMNS),
        ("single", pa.float64()),
        ("double", pa.float64()),
    ]
)


def triples(scored: Sequence[ScoredChains]) -> pa.Table:
    """A row per chain and reward model: rewards and signed differences; prompts and texts stand with the first reward
    model, and are null with the others.

    Args:
        scored: the same chains through every reward model.
    """
    return pa.concat_tables(_of_model(one, with_texts=number == 0) for number, one in enumerate(scored))


def _of_model(scored: ScoredChains, *, with_texts: bool) -> pa.Table:
    chains = scored.chains
    original, rewrite, again = scored.rewards[:, 0], scored.rewards[:, 1], scored.rewards[:, 2]
    sign = np.where(scored.treated, 1.0, -1.0)
    columns = {
        "id": [chain.id for chain in chains],
        "prompt_id": [chain.prompt.id for chain in chains],
        "draw": [chain.draw for chain in chains],
        "scorer": [_storable(scored.scorer)] * len(chains),
        "treated": scored.treated,
        "source": [None if chain.source is None else _storable(str(chain.source)) for chain in chains],
        "outcomes": [list(chain.outcomes) for chain in chains],
        "single": sign * (original - rewrite),
        "double": sign * (again - rewrite),
        **{f"{name}_reward": scored.rewards[:, stage] for stage, name in enumerate(TEXT_COLUMNS)},
    }
    if with_texts:
        prompts = ("\n\n".join(message.content for message in chain.prompt.messages) for chain in chains)
        columns["prompt"] = [_storable(prompt) for prompt in prompts]
        for stage, name in enumerate(TEXT_COLUMNS):
            columns[name] = [_storable(chain.texts[stage]) if len(chain.texts) > stage else None for chain in chains]
    nothing = pa.nulls(len(chains))
    return pa.table(
        [
            # Not a number is no reward.
            pa.array(columns[field.name], field.type, from_pandas=True)
            if field.name in columns
            else nothing.cast(field.type)
            for field in TRIPLE_SCHEMA
        ],
        schema=TRIPLE_SCHEMA,
    )


def _storable(text: str) -> str:
    """The text, with lone surrogates, which UTF-8 cannot hold, written as their escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text
