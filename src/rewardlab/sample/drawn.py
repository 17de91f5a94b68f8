"""What sampling gives for a prompt, wherever the model computes, and the record that becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardlab.data.pairs import CUT_OFF
from rewardlab.records import Candidates, Prompt, Record, Source, content_id


@dataclass(frozen=True)
class Drawn:
    """The completions of a prompt.

    Attributes:
        completions: texts.
        finish_reasons: `stop` or `length`; a server may have others.
        tokens: of each completion, the one that ends it included; None where a server does not count them.
        token_ids: the tokens; None from a server.
        logprobs: log-probability of each completion under the distribution it was drawn from; None where that was not
            asked for.
    """

    completions: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    tokens: tuple[int | None, ...]
    token_ids: tuple[tuple[int, ...], ...] | None = None
    logprobs: tuple[float, ...] | None = None

    @property
    def cut_off(self) -> int:
        """Completions that their model did not end."""
        return sum(reason == CUT_OFF for reason in self.finish_reasons)

    def record(self, prompt: Prompt, source: Source | None, meta: Mapping[str, Any]) -> Candidates:
        """The canonical record; `meta` says how it was sampled."""
        own: dict[str, Any] = {"finish_reasons": list(self.finish_reasons), "tokens": list(self.tokens)}
        if self.token_ids is not None:
            own["token_ids"] = [list(ids) for ids in self.token_ids]
        if self.logprobs is not None:
            own["logprobs"] = list(self.logprobs)
        return Candidates(prompt, self.completions, None, source, {**own, **meta})


def seed_of(prompt: Prompt, seed: int, draw: int) -> int:
    """The seed of a completion: the same whatever other prompts there are, and however many completions."""
    return int(content_id([prompt.id, seed, draw]), 16)


def different_prompts(records: Sequence[Record], bottom: int, top: int | None) -> dict[Prompt, Source | None]:
    """The prompts from number `bottom` to before number `top`, each once, in order, and where each came first."""
    return dict(list(_first_seen(records))[bottom:top])


def _first_seen(records: Sequence[Record]) -> Iterator[tuple[Prompt, Source | None]]:
    seen: set[str] = set()
    for record in records:
        if record.prompt.id not in seen:
            seen.add(record.prompt.id)
            yield record.prompt, record.source
