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
5. A text pair (`form: pair`) is what the tokenizer makes of two texts, with its segment ids where it has them. A longer
   one loses ids of the question first with `truncation_side: left`, of the answer first with `right`.

Lengths of prompts and completions are tokens of their own text, without special tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from rewardlab.config import Config
from rewardlab.data.render import Form, plain_text, question, render
from rewardlab.errors import ModelError, Problem
from rewardlab.records import Prompt

PROBE_TEXT = "The quick brown fox."
PROBE_ANSWER = "It jumps over the lazy dog."


class Encoding(Config):
    """How text becomes ids; saved with a model, so that scoring repeats what training did."""

    template: str | None = None
    """Text with {prompt} and {completion}; default: the chat template for conversations, else prompt + completion."""

    form: Form = "auto"
    """What is read: auto (see template), chat (always the chat template; a plain text is a user's turn), pair (question
    and answer as a text pair), answer (the completion alone)."""

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

    @model_validator(mode="after")
    def _one_rule(self) -> Encoding:
        if self.template is not None and self.form != "auto":
            raise ValueError("expected either a template or a form, and not both")
        return self


class TokenSequence(NamedTuple):
    """Token ids, special tokens included, whether the body was cut, and segment ids (of text pairs, or empty)."""

    ids: tuple[int, ...]
    truncated: bool
    types: tuple[int, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """One sequence.

    Attributes:
        ids: token ids, special tokens included.
        truncated: whether the body was cut.
        prompt_tokens: length of the uncut prompt, without special tokens.
        completion_tokens: length of the uncut completion, without special tokens.
        types: segment ids of a text pair, where the tokenizer has them; otherwise empty.
    """

    ids: tuple[int, ...]
    truncated: bool
    prompt_tokens: int
    completion_tokens: int
    types: tuple[int, ...] = ()


class _Frame(NamedTuple):
    """The special tokens around the texts of a pair, and the segment ids of all five parts; no ids where the tokenizer
    has none."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    types: tuple[tuple[int, ...], ...]


class Encoder:
    """A tokenizer under an `Encoding`: prompts and completions in, sequences out.

    Args:
        tokenizer: a transformers tokenizer.
        encoding: the rules.

    Raises:
        ModelError: when the tokenizer's special tokens are not a fixed prefix and suffix, or it cannot do what the
            form asks for.
    """

    def __init__(self, tokenizer: Any, encoding: Encoding) -> None:
        self.tokenizer = tokenizer
        self.encoding = encoding
        self.prefix, self.suffix = special_tokens(tokenizer)
        eos = tokenizer.eos_token_id
        self.eos: tuple[int, ...] = (eos,) if encoding.append_eos and eos is not None else ()
        self.frame = _pair_frame(tokenizer) if encoding.form == "pair" else None
        if encoding.form == "chat" and not tokenizer.chat_template:
            problem = Problem(type(tokenizer).__name__, "no chat template", "one, for the form chat")
            raise ModelError("The tokenizer cannot render conversations", [problem])

    def encode(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Encoded]]:
        """Sequences of `completions[i][k]` as answers to `prompts[i]`, with the lengths of both.

        Measuring takes as long again as the sequences: who needs no lengths asks for `sequences`.
        """
        answers = iter(self.lengths([completion for candidates in completions for completion in candidates]))
        prompt_lengths = self.lengths([plain_text(prompt) for prompt in prompts])
        return [
            [Encoded(one.ids, one.truncated, prompt_tokens, next(answers), one.types) for one in sequences]
            for sequences, prompt_tokens in zip(self.sequences(prompts, completions), prompt_lengths, strict=True)
        ]

    def sequences(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[TokenSequence]]:
        """Sequences of `completions[i][k]` as answers to `prompts[i]`."""
        if self.frame is not None:
            answers = iter(self._ids([completion for candidates in completions for completion in candidates]))
            questions = self._ids([question(prompt) for prompt in prompts])
            return [
                [self._paired(self.frame, tuple(ids), tuple(next(answers))) for _ in candidates]
                for ids, candidates in zip(questions, completions, strict=True)
            ]
        rules = self.encoding
        rendered = [
            render(prompt, completion, template=rules.template, tokenizer=self.tokenizer, form=rules.form)
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
            [encodable(text) for text in texts], add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return ids

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special tokens."""
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

    def _paired(self, frame: _Frame, question: tuple[int, ...], answer: tuple[int, ...]) -> TokenSequence:
        """The sequence of a text pair, and whether it was cut."""
        suffix = frame.suffix if frame.suffix[-1:] == self.eos else frame.suffix + self.eos
        room = max(self.encoding.max_tokens - len(frame.prefix) - len(frame.middle) - len(suffix), 0)
        excess = max(len(question) + len(answer) - room, 0)
        if self.encoding.truncation_side == "left":
            first = min(excess, len(question))
            question, answer = question[first:], answer[excess - first :]
        else:
            last = min(excess, len(answer))
            question, answer = question[: len(question) - excess + last], answer[: len(answer) - last]
        parts = (frame.prefix, question, frame.middle, answer, suffix)
        ids = tuple(token for part in parts for token in part)
        types = tuple(
            kind
            for part, kinds in zip(parts, frame.types, strict=False)
            for kind in (kinds + kinds[-1:] * len(part))[: len(part)]
        )
        return TokenSequence(ids, excess > 0, types)

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


def read_tokenizer(name: str) -> Any:
    """The tokenizer of a folder or hub id.

    Raises:
        ModelError: there is none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except Exception as error:  # transformers and tokenizers raise many kinds for an unreadable folder
        words = " ".join(str(error).split())[:200]
        problem = Problem("tokenizer", f"{name!r}: {words}", "a folder or hub id with a tokenizer")
        raise ModelError("the tokenizer cannot be read", [problem]) from error


def encodable(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer accepts, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def special_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
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


def _pair_frame(tokenizer: Any) -> _Frame:
    """What the tokenizer puts around and between the two texts of a pair.

    Raises:
        ModelError: it has no fixed form for pairs.
    """
    first, second = (
        tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (PROBE_TEXT, PROBE_ANSWER)
    )
    try:
        encoded = tokenizer(PROBE_TEXT, PROBE_ANSWER)
    except Exception as error:  # a tokenizer may have no rule for pairs at all
        raise _no_pairs(tokenizer, str(error)[:200]) from error
    full = tuple(encoded["input_ids"])
    start = _find(full, first, 0)
    between = start + len(first)
    answer = _find(full, second, between) if start >= 0 else -1
    if answer < 0:
        raise _no_pairs(tokenizer, f"{full} for {first} and {second}")
    edges = (0, start, between, answer, answer + len(second), len(full))
    spans = [slice(*edges[part : part + 2]) for part in range(5)]
    types = tuple(encoded.get("token_type_ids") or ())
    return _Frame(full[spans[0]], full[spans[2]], full[spans[4]], tuple(types[span] for span in spans) if types else ())


def _find(ids: tuple[int, ...], part: tuple[int, ...], start: int) -> int:
    """Where `part` begins in `ids`, at `start` or later; -1 where it does not."""
    places = (place for place in range(start, len(ids) - len(part) + 1) if ids[place : place + len(part)] == part)
    return next(places, -1)


def _no_pairs(tokenizer: Any, found: str) -> ModelError:
    expected = "both texts between fixed special tokens"
    problem = Problem(type(tokenizer).__name__, found, expected, "Use the model's fast tokenizer, or another form.")
    return ModelError("The tokenizer cannot read text pairs", [problem])
