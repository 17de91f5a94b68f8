"""Completions by a policy in this process, in shards that appear whole.

The shard plan is fixed before the first token; how rows follow each other inside a shard depends on the plan alone. So
a run that was killed goes on where it was, and its completions are those of a run that was not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from tqdm import tqdm

from rewardlab.data.pairs import CUT_OFF
from rewardlab.data.turns import Ids
from rewardlab.errors import ConfigError, ModelError, Problem
from rewardlab.models.decoding import Decoding
from rewardlab.models.generate import Asked, Generated, answers
from rewardlab.models.memory import is_out_of_memory, keep_freed_memory
from rewardlab.records import Prompt, content_id
from rewardlab.sample.drawn import Drawn, seed_of
from rewardlab.sample.policy import Policy
from rewardlab.store.processes import processes
from rewardlab.store.table import Plan, ShardedTable

log = logging.getLogger("rewardlab")

SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("completions", pa.list_(pa.string())),
        ("finish_reasons", pa.list_(pa.string())),
        ("token_ids", pa.list_(pa.list_(pa.int32()))),
        ("logprobs", pa.list_(pa.float64())),
    ]
)


class Wanted(NamedTuple):
    """What is to be drawn of every prompt.

    Attributes:
        n: completions.
        most: tokens of one, at most, its end included.
        decoding: how tokens are chosen.
        seed: of all chance.
        log_probability: whether log-probabilities are kept.
        token_budget: tokens at once, prompts and longest answers together.
        shard_size: completions to a shard.
    """

    n: int
    most: int
    decoding: Decoding
    seed: int
    log_probability: bool
    token_budget: int
    shard_size: int


class LocalSampler:
    """Draws completions of prompts.

    Args:
        policy: from which.
        prompts: of what.
        wanted: how many, and how.

    Raises:
        ConfigError: a prompt and its longest answer do not fit into the model's context.
    """

    def __init__(self, policy: Policy, prompts: Sequence[Prompt], wanted: Wanted) -> None:
        keep_freed_memory()
        self._policy, self._prompts, self._wanted = policy, prompts, wanted
        self.encoded: list[Ids] = policy.encoder.prompts(prompts)
        self._check_room()
        self._ends = policy.ends(list(prompts))
        self._places: int | None = None
        self.tokens = 0

    def draw(self, folder: Path) -> list[Drawn]:
        """The completions of all prompts, in their order; those of shards that are there already as they stand.

        Args:
            folder: of the shards.

        Raises:
            ModelError: one prompt does not fit into memory, or logits are no numbers.
            RunError: the folder holds shards of something else, or cannot be written to.
        """
        here = processes()
        shards = self._shards()
        plan = Plan(self._key(), tuple(map(tuple, shards)))
        table = here.in_turn(lambda: ShardedTable(folder, SCHEMA, plan))
        missing = here.first(table.missing)
        own = missing[here.rank :: here.count]
        whole = len(self._prompts) - sum(len(shards[number]) for number in missing)
        waiting = sum(len(shards[number]) for number in own)
        # The bar begins at what earlier sessions did, so that rate and time left are about the rest.
        with tqdm(
            total=(whole + waiting) * self._wanted.n,
            initial=whole * self._wanted.n,
            unit="answer",
            desc="sample",
            mininterval=0.5,
            disable=not here.is_first,
        ) as bar:
            for number in own:
                table.write(number, list(self._rows(shards[number], bar)))
        here.wait()
        return [_drawn(row) for row in table.merged().to_pylist()]

    def _rows(self, shard: Sequence[int], bar: Any) -> Iterator[dict[str, Any]]:
        count = self._wanted.n
        asked = [
            Asked(self.encoded[index].ids, self._wanted.most, seed_of(self._prompts[index], self._wanted.seed, draw))
            for index in shard
            for draw in range(count)
        ]
        made = self._answers(asked, bar)
        self.tokens += sum(len(one.tokens) for one in made)
        for place, index in enumerate(shard):
            own, prompt = made[place * count : (place + 1) * count], self._prompts[index]
            yield {
                "prompt_id": prompt.id,
                "completions": [self._policy.encoder.text(prompt, one.ids) for one in own],
                "finish_reasons": ["stop" if one.ended else CUT_OFF for one in own],
                "token_ids": [list(one.tokens) for one in own],
                "logprobs": [one.log_probability for one in own] if self._wanted.log_probability else None,
            }

    def _answers(self, asked: Sequence[Asked], bar: Any) -> list[Generated]:
        """Answers to all; where memory runs out, half as many at once, from then on.

        Raises:
            ModelError: one alone does not fit into memory.
        """
        longest = max(len(one.ids) for one in asked)
        places = max(1, self._wanted.token_budget // (longest + self._wanted.most))
        while True:
            places = min(places, self._places or places, len(asked))
            found: dict[int, Generated] = {}
            try:
                for number, one in self._stream(asked, places):
                    found[number] = one
                    bar.update()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if places == 1:
                    said = f"out of memory with a prompt of {longest} tokens and {self._wanted.most} to come"
                    remedy = "Use precision bfloat16, a smaller max_new_tokens or another device."
                    problem = Problem("model", said, "memory for one answer", remedy)
                    raise ModelError("The model does not fit into memory", [problem]) from error
            else:
                return [found[number] for number in range(len(asked))]
            # Out here the error and the activations that its frames hold are gone.
            bar.update(-len(found))
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._places = places // 2
            log.warning("out of memory: from here on %d answers at once; token_budget sets it", self._places)

    def _stream(self, asked: Sequence[Asked], places: int) -> Iterator[tuple[int, Generated]]:
        return answers(
            self._policy.network,
            asked,
            self._wanted.decoding,
            ends=self._ends,
            pad=self._policy.language.tokenizer.pad_token_id or 0,
            places=places,
            log_probability=self._wanted.log_probability,
        )

    def _shards(self) -> list[list[int]]:
        """Prompt numbers, long prompts first: where memory does not suffice, that shows at the beginning."""
        order = sorted(range(len(self._prompts)), key=lambda index: (-len(self.encoded[index].ids), index))
        size = max(1, self._wanted.shard_size // self._wanted.n)
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _key(self) -> str:
        """Of everything that the completions depend on."""
        texts = [[prompt.id, list(one.ids)] for prompt, one in zip(self._prompts, self.encoded, strict=True)]
        return content_id([self._policy.content, sorted(self._ends), list(self._wanted), content_id(texts)])

    def _check_room(self) -> None:
        longest, context = max(len(one.ids) for one in self.encoded), self._policy.context
        if context is not None and longest + self._wanted.most > context:
            found = f"a prompt of {longest} tokens and {self._wanted.most} to come"
            remedy = "Set --max_new_tokens or --encoding.max_prompt_tokens lower."
            problem = Problem("data", found, f"{context} tokens, the model's context, at most", remedy)
            raise ConfigError("Prompts and completions are longer than the model can read", [problem])


def _drawn(row: dict[str, Any]) -> Drawn:
    ids = tuple(map(tuple, row["token_ids"]))
    logprobs = None if row["logprobs"] is None else tuple(row["logprobs"])
    return Drawn(tuple(row["completions"]), tuple(row["finish_reasons"]), tuple(map(len, ids)), ids, logprobs)
