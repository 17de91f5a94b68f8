"""From text to token ids: one contract for training, scoring and every later stage.

1. The text is rendered by `data.render`. A chat template writes the whole text, special tokens included, and
   nothing is added to it; to any other text the tokenizer's own prefix (BOS, [CLS]) and suffix ([SEP]) are added,
   unless it begins or ends with them already: they stand there once.
2. With `append_eos`, the sequence ends in the tokenizer's EOS (where it has one), exactly one.
3. A sequence of more than `max_tokens` ids, special ones included, is cut in its body on `truncation_side`;
   prefix, suffix and EOS always survive. Cut sequences are counted. With `overlong: drop` a training record with
   such a sequence is set aside instead.
4. A prompt and its completion are tokenised as one whole text, never piecewise, so that the ids are those of the
   plain sequence; shared prefixes are found afterwards, on ids (`data.layout`).

Lengths of prompts and completions are tokens of their own text, without special tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator

from rewardlab.config import Config
from rewardlab.data.render import plain_text, render
from rewardlab.errors import ModelError, Problem
from rewardlab.records import Prompt

PROBE_TEXT = "The quick brown fox."


class Encoding(Config):
    """How text becomes ids; saved with a model, so that scoring repeats what training did."""

    template: str | None = None
    """Text with {prompt} and {completion}; default: the chat template for conversations, else prompt + completion."""

    max_tokens: int = Field(1024, ge=8)
    """Longest sequence in tokens, special tokens included."""

    truncation_side: Literal["left", "right"] = "left"
    """Which end of a longer sequence is cut; left keeps the answer."""

    overlong: Literal["truncate", "drop"] = "truncate"
    """What happens to a training record with a longer sequence. Scoring always truncates."""

    append_eos: bool = True
    """End every sequence with the tokenizer's EOS, where it has one."""

    @field_validator("template")
    @classmethod
    def _both_fields_once(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if value.count("{prompt}") != 1 or value.count("{completion}") != 1:
            raise ValueError("expected {prompt} and {completion} once each")
        if value.index("{prompt}") > value.index("{completion}"):
            raise ValueError("expected {prompt} before {completion}")
        return value


class TokenSequence(NamedTuple):
    """Token ids, special tokens included, and whether the body was cut."""

    ids: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True)
class Encoded:
    """One sequence.

    Attributes:
        ids: token ids, special tokens included.
        truncated: whether the body was cut.
        prompt_tokens: length of the uncut prompt, without special tokens.
        completion_tokens: length of the uncut completion, without special tokens.
    """

    ids: tuple[int, ...]
    truncated: bool
    prompt_tokens: int
    completion_tokens: int


class Encoder:
    """A tokenizer under an `Encoding`: prompts and completions in, sequences out.

    Args:
        tokenizer: a transformers tokenizer.
        encoding: the rules.

    Raises:
        ModelError: when the tokenizer's special tokens are not a fixed prefix and suffix.
    """

    def __init__(self, tokenizer: Any, encoding: Encoding) -> None:
        self.tokenizer = tokenizer
        self.encoding = encoding
        self.prefix, self.suffix = _special_tokens(tokenizer)
        eos = tokenizer.eos_token_id
        self.eos: tuple[int, ...] = (eos,) if encoding.append_eos and eos is not None else ()

    def encode(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Encoded]]:
        """Sequences of `completions[i][k]` as answers to `prompts[i]`, with the lengths of both.

        Measuring takes as long again as the sequences: who needs no lengths asks for `sequences`.
        """
        answers = iter(self._lengths([completion for candidates in completions for completion in candidates]))
        prompt_lengths = self._lengths([plain_text(prompt) for prompt in prompts])
        return [
            [Encoded(*sequence, prompt_tokens, next(answers)) for sequence in sequences]
            for sequences, prompt_tokens in zip(self.sequences(prompts, completions), prompt_lengths, strict=True)
        ]

    def sequences(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[TokenSequence]]:
        """Sequences of `completions[i][k]` as answers to `prompts[i]`."""
        rendered = [
            render(prompt, completion, template=self.encoding.template, tokenizer=self.tokenizer)
            for prompt, candidates in zip(prompts, completions, strict=True)
            for completion in candidates
        ]
        bodies = self._ids([item.text for item in rendered])
        finished = (self._finished(body, item.has_special_tokens) for body, item in zip(bodies, rendered, strict=True))
        return [[next(finished) for _ in candidates] for candidates in completions]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(
            [_encodable(text) for text in texts], add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return ids

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._ids(texts)]

    def _finished(self, ids: list[int], is_complete: bool) -> TokenSequence:
        """The sequence of a text's `ids`, and whether it was cut; a complete text gets no prefix or suffix."""
        prefix, body, suffix = self._parts(tuple(ids), is_complete)
        if self.eos and suffix[-1:] != self.eos:
            while not suffix and body[-1:] == self.eos:
                body = body[:-1]
            suffix += self.eos
        room = max(self.encoding.max_tokens - len(prefix) - len(suffix), 0)
        truncated = len(body) > room
        if truncated:
            body = body[len(body) - room :] if self.encoding.truncation_side == "left" else body[:room]
        return TokenSequence((prefix + body + suffix) or (self._filler,), truncated)

    def _parts(self, ids: tuple[int, ...], is_complete: bool) -> tuple[tuple[int, ...], ...]:
        """Prefix, body and suffix. Special tokens that the text brought stay the only ones, and are never cut."""
        prefix, suffix = self.prefix, self.suffix
        if ids[: len(prefix)] == prefix:
            ids = ids[len(prefix) :]
        elif is_complete:
            prefix = ()
        if suffix and ids[-len(suffix) :] == suffix:
            ids = ids[: -len(suffix)]
        elif is_complete:
            suffix = ()
        return prefix, ids, suffix

    @property
    def _filler(self) -> int:
        """What is read where a text has no token at all: never the pad id, which transformers would not read."""
        candidates = (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, 0, 1)
        return next(token for token in candidates if token not in (None, self.tokenizer.pad_token_id))


def _encodable(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer accepts, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _special_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer puts before and after one text."""
    body = tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"]
    full = tokenizer(PROBE_TEXT)["input_ids"]
    for start in range(len(full) - len(body) + 1):
        if full[start : start + len(body)] == body:
            return tuple(full[:start]), tuple(full[start + len(body) :])
    problem = Problem(
        type(tokenizer).__name__,
        f"{full} with and {body} without special tokens",
        "a fixed prefix and suffix around the text's ids",
        "Use the model's fast tokenizer.",
    )
    raise ModelError("The tokenizer changes the text's own ids when it adds special tokens", [problem])
