"""Answers of a language model, in batches, each as if it had been asked for alone.

Chance is a row's own: a uniform number per token, drawn from the row's seed. So an answer hangs on its prompt and its
seed and not on what else is in the batch, up to rounding: batches change the last bits of the logits (in half
precision, more of them), and where two tokens are all but equally near, that can change a word.

Rows that have ended leave the batch, and others take their places. Neighbours with the same prompt share one run of
it, and what it left in the cache is repeated. Rows are padded on the left; what no row sees any more is cut off.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rewardlab.models.decoding import Decoding, drawn, log_probabilities, warped
from rewardlab.models.places import Places

_LEAVING = 8
"""Rows leave together, an eighth of the batch at a time: each time what is in the cache is copied."""


class Asked(NamedTuple):
    """A prompt to be answered.

    Attributes:
        ids: its tokens, special ones included.
        most: tokens of the answer, at most, the one that ends it included.
        seed: of the answer's chance; at most 64 bits.
    """

    ids: tuple[int, ...]
    most: int
    seed: int = 0


class Generated(NamedTuple):
    """An answer.

    Attributes:
        ids: its tokens, without the one that ends it.
        end: the token with which the model ended it; None where it was cut off.
        log_probability: of its tokens, the end included, under the distribution that was sampled from; None where
            that was not asked for.
    """

    ids: tuple[int, ...]
    end: int | None
    log_probability: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the model ended it."""
        return self.end is not None

    @property
    def tokens(self) -> tuple[int, ...]:
        """All of its tokens, the end included."""
        return self.ids if self.end is None else (*self.ids, self.end)


def generate(network: Any, rows: Sequence[Asked], decoding: Decoding, **options: Any) -> list[Generated]:
    """Answers, in the order of the rows: all of `answers`."""
    found = dict(answers(network, rows, decoding, **options))
    return [found[number] for number in range(len(rows))]


@torch.inference_mode()
def answers(
    network: Any,
    rows: Sequence[Asked],
    decoding: Decoding,
    *,
    ends: Collection[int],
    pad: int,
    places: int | None = None,
    log_probability: bool = False,
) -> Iterator[tuple[int, Generated]]:
    """Every answer with the number of its row, as it ends.

    Args:
        network: a causal or encoder-decoder language model of transformers, in evaluation mode.
        rows: what is asked.
        decoding: how tokens are chosen.
        ends: tokens that end an answer.
        pad: any token id; it is never seen by the network.
        places: rows at once; all by default.
        log_probability: whether to give the answers' log-probabilities.

    Raises:
        ModelError: logits that are no numbers.
    """
    batch = _Batch(network, decoding, frozenset(ends), pad, log_probability)
    most = max((row.most for row in rows), default=0)
    waiting = deque(enumerate(rows))
    room = places or len(rows)
    while waiting or batch.rows:
        if joining := batch.joining(waiting, room):
            batch.join(joining, waiting[0][1].ids if waiting else None, most)
        yield from batch.choose()
        batch.leave()
        batch.read()


class _Row:
    """A row under way."""

    def __init__(self, number: int, asked: Asked) -> None:
        self.number, self.asked = number, asked
        self.tokens: list[int] = []
        self.log_probability = 0.0
        self.is_over = False


class _Held(NamedTuple):
    """A prompt that has been read and that further rows wait for."""

    ids: tuple[int, ...]
    places: Places
    logits: Tensor


class _Batch:
    """The rows under way, the logits of the next token of each, and what the network keeps of them."""

    def __init__(self, network: Any, decoding: Decoding, ends: frozenset[int], pad: int, log_probability: bool) -> None:
        self._network, self._decoding, self._ends, self._pad = network, decoding, ends, pad
        self._log_probability = log_probability
        self._is_encoder_decoder = bool(network.config.is_encoder_decoder)
        self._takes = frozenset(inspect.signature(network.forward).parameters)
        self.rows: list[_Row] = []
        self._places: Places | None = None
        self._held: _Held | None = None
        self._logits = torch.empty(0)
        self._tokens = torch.empty(0)
        self._chances = torch.empty(0)
        self._seen: Tensor | None = None

    def joining(self, waiting: deque[tuple[int, Asked]], room: int) -> list[tuple[int, Asked]]:
        """Take those out of what waits that have a place now."""
        if self.rows and not (self._places and self._places.can_join):
            return []
        count = min(len(waiting), room - len(self.rows))
        if self._held is not None and not self._held.places.can_join:
            # Only rows that follow on the same prompt can stand beside each other.
            count = next((place for place in range(count) if waiting[place][1].ids != self._held.ids), count)
        return [waiting.popleft() for _ in range(count)]

    def join(self, joining: Sequence[tuple[int, Asked]], following: tuple[int, ...] | None, most: int) -> None:
        """Read the prompts, each once, and put their rows behind those that are there.

        Args:
            joining: rows and their numbers.
            following: the prompt of the row that waits next: if it is one of these, it is kept until that row joins.
            most: of the longest answer of all.
        """
        prompts = list(dict.fromkeys(asked.ids for _, asked in joining))
        if self._held is not None and self._held.ids == prompts[0]:
            own = list(takewhile(lambda one: one[1].ids == prompts[0], joining))
            self._place(self._held.places.part([0]), self._held.logits, [0] * len(own), own, most)
            joining = joining[len(own) :]
            prompts = list(dict.fromkeys(asked.ids for _, asked in joining))
        if prompts:
            places, logits = Places.of(self._network, self._takes, prompts, self._pad)
            if prompts[-1] == following:
                last = len(prompts) - 1
                self._held = _Held(following, places.part([last]), logits[last:])
            self._place(places, logits, [prompts.index(asked.ids) for _, asked in joining], joining, most)
        if self._held is not None and self._held.ids != following:
            self._held = None

    def _place(
        self, places: Places, logits: Tensor, owners: list[int], joining: Sequence[tuple[int, Asked]], most: int
    ) -> None:
        index = torch.tensor(owners, device=logits.device)
        places.select(index)
        logits = logits.index_select(0, index)
        chances = torch.from_numpy(np.stack([_chances(asked, most) for _, asked in joining])).to(logits.device)
        seen = self._seen_in([asked.ids for _, asked in joining], logits) if self._has_penalty else None
        if self._places is None:
            self._places, self._logits, self._chances, self._seen = places, logits, chances, seen
        else:
            self._places.append(places)
            self._logits = torch.cat([self._logits, logits])
            self._chances = torch.cat([self._chances, chances])
            self._seen = None if self._seen is None or seen is None else torch.cat([self._seen, seen])
        self.rows += [_Row(number, asked) for number, asked in joining]

    def choose(self) -> Iterator[tuple[int, Generated]]:
        """The next token of every row; gives the answers that end with it."""
        scores = warped(self._logits, self._decoding, self._seen)
        steps = torch.tensor([[min(len(row.tokens), row.asked.most - 1)] for row in self.rows], device=scores.device)
        chances = self._chances.gather(1, steps).squeeze(1)
        self._tokens = drawn(scores, chances, self._decoding.temperature)
        if self._seen is not None:
            self._seen.scatter_(1, self._tokens.unsqueeze(1), True)
        found = log_probabilities(scores, self._tokens).tolist() if self._log_probability else None
        for place, (row, token) in enumerate(zip(self.rows, self._tokens.tolist(), strict=True)):
            if row.is_over:
                continue
            row.tokens.append(token)
            row.log_probability += found[place] if found else 0.0
            row.is_over = token in self._ends or len(row.tokens) == row.asked.most
            if row.is_over:
                ids, end = (row.tokens[:-1], token) if token in self._ends else (row.tokens, None)
                yield row.number, Generated(tuple(ids), end, row.log_probability if found else None)

    def leave(self) -> None:
        """Let those go that are over, once they are many enough."""
        kept = [place for place, row in enumerate(self.rows) if not row.is_over]
        gone = len(self.rows) - len(kept)
        if gone * _LEAVING < len(self.rows) and kept:
            return
        self.rows = [self.rows[place] for place in kept]
        if not kept or self._places is None:
            self._places = None
            return
        index = torch.tensor(kept, device=self._tokens.device)
        self._places.select(index)
        self._tokens, self._chances = self._tokens.index_select(0, index), self._chances.index_select(0, index)
        self._seen = None if self._seen is None else self._seen.index_select(0, index)

    def read(self) -> None:
        """The logits that follow on the tokens chosen last."""
        if self._places is not None:
            going = torch.tensor([not row.is_over for row in self.rows], device=self._tokens.device)
            self._logits = self._places.read(self._tokens, going)

    @property
    def _has_penalty(self) -> bool:
        return self._decoding.repetition_penalty != 1.0

    def _seen_in(self, prompts: Sequence[tuple[int, ...]], logits: Tensor) -> Tensor:
        seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        for row, ids in enumerate(prompts):
            # An encoder-decoder's answer begins with a token of its own, and its prompt stands elsewhere.
            own = [self._network.config.decoder_start_token_id] if self._is_encoder_decoder else list(ids)
            seen[row, torch.tensor(own, device=logits.device)] = True
        return seen


def _chances(asked: Asked, most: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A row's numbers, in a row of `most`."""
    own = np.random.default_rng(asked.seed).random(asked.most).astype(np.float32)
    return np.pad(own, (0, most - asked.most))
