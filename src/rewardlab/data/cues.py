"""Checks of the texts: cues that give the sides away, special tokens, cut-offs, lengths, truncation.

Conventions are those of `data.checks`. A cue is a feature that an answer has or lacks. Where exactly one side
of a pair has it, it "tells" the sides apart; guessing the side that has it (a coin where it tells nothing) is
right with the cue's accuracy. A cue that knows nothing has accuracy 1/2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rewardlab.data.checks import MANY, Check, Examined, Member, Severity, example, excludes, graded, share
from rewardlab.data.render import plain_text, render
from rewardlab.data.tokenize import Encoding
from rewardlab.records import Pair, Prompt, Record

WHITESPACE_CUES: dict[str, Callable[[str], bool]] = {
    "leading_whitespace": lambda text: text[:1].isspace(),
    "trailing_whitespace": lambda text: text[-1:].isspace(),
    "final_newline": lambda text: text.endswith("\n"),
    "carriage_return": lambda text: "\r" in text,
}

BOS_MARKS = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>", "[CLS]")
"""Beginnings that tokenizers write themselves."""

EOS_MARKS = ("</s>", "<eos>", "<|end_of_text|>", "<|eot_id|>", "<|endoftext|>", "<|im_end|>", "[SEP]")
"""Ends that tokenizers and chat templates write themselves."""

TURN_MARKS = ("<|im_start|>",)
"""Beginnings of turns that chat templates write themselves."""

FINISHED = re.compile(r"[.!?…。！？:;)\]}>\"'”’»`*_~|/\-=\d]\s*$|[^\w\s,(\[{]\s*$")
"""A text that ends like a finished one: on punctuation, a closing mark, a digit, a symbol or an emoji."""

ODD = {
    "lone_surrogate": re.compile("[\ud800-\udfff]"),
    "nul": re.compile("\x00"),
    "replacement_character": re.compile("�"),
    "byte_order_mark": re.compile("﻿"),
    "control_character": re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]"),
}

QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
EVEN = (0.45, 0.55)
"""How often the longer side may be chosen before the doctor warns."""


def cue_numbers(examined: Examined, name: str, has: Callable[[str], bool]) -> dict[str, Any]:
    """How often a cue tells the sides apart, how often then the side that has it is chosen, and its accuracy."""
    chosen = np.array([has(pair.chosen) for _, pair in examined.pairs], dtype=np.float64)
    rejected = np.array([has(pair.rejected) for _, pair in examined.pairs], dtype=np.float64)
    tells = chosen != rejected
    told_reading = "Among pairs that the cue tells apart: how often the side that has it is chosen; 1/2 knows nothing."
    reading = "How often guessing the side that has the cue is right, ties counting 1/2; 1/2 knows nothing."
    return {
        "tells": int(tells.sum()),
        "share_chosen": float(chosen.mean()) if len(chosen) else None,
        "share_rejected": float(rejected.mean()) if len(rejected) else None,
        "chosen_when_told": share(f"{name}.chosen_when_told", chosen[tells], examined.roots[tells], told_reading),
        "accuracy": examined.share(f"{name}.accuracy", (1.0 + chosen - rejected) / 2.0, reading),
    }


def whitespace_cues(examined: Examined) -> Check:
    """White space that only one side of a pair has."""
    numbers = {name: cue_numbers(examined, name, has) for name, has in WHITESPACE_CUES.items()}
    told = [
        (pair, [name for name, has in WHITESPACE_CUES.items() if has(pair.chosen) != has(pair.rejected)])
        for _, pair in examined.pairs
    ]
    found = [(pair, cues) for pair, cues in told if cues]
    total = len(examined.pairs)
    gives_away = any(
        cue["tells"] >= MANY * total and excludes(cue["chosen_when_told"], 0.5) for cue in numbers.values()
    )
    severity: Severity = "problem" if found and gives_away else graded(len(found), total)
    reading = (
        "A scorer can read the label off such white space instead of judging the answer. `strip: true` in the "
        "source cuts it off both sides alike."
    )
    examples = tuple(_cue_example(pair, ", ".join(cues)) for pair, cues in found[: examined.shown])
    title = "Pairs in which white space tells the sides apart"
    return Check("whitespace_cues", title, len(found), total, severity, reading, examples, numbers)


def _cue_example(pair: Pair, note: str) -> dict[str, Any]:
    ends = {
        side: f"{text[:20]!r} ... {text[-20:]!r}"
        for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }
    return example(pair, note, ends=ends)


def touching_prompts(examined: Examined, template: str | None) -> Check:
    """Plain-text prompts that run on into their answers: `...the answer?It is`.

    Args:
        examined: the data.
        template: of the encoding; what it writes between prompt and completion parts them.
    """
    parted = template is not None and "{prompt}{completion}" not in template
    found = [] if parted else [member for member in examined.members if _touches(member)]
    total = len(examined.members)
    reading = (
        "A prompt that is a string is plain text: the answer follows it as it stands, with nothing between them. "
        "Where it is what a user said, set `prompt_role: user` in the source, or write what parts them: a line break "
        "at the end of the prompt, or a template (`encoding.template`)."
    )
    examples = tuple(
        example(member.record, f"reads {plain_text(member.prompt)[-30:] + member.completions[0][:30]!r}")
        for member in found[: examined.shown]
    )
    title = "Records whose prompt and answer touch without white space"
    numbers = {"by_set": examined.by_set(member.set for member in found)}
    return Check("touching_prompts", title, len(found), total, graded(len(found), total), reading, examples, numbers)


def _touches(member: Member) -> bool:
    prompt = plain_text(member.prompt)
    if not member.prompt.is_text or not prompt or prompt[-1].isspace():
        return False
    return any(text and not text[0].isspace() for text in member.completions)


def special_tokens(examined: Examined, marks: Iterable[str] = ()) -> Check:
    """Texts with special tokens written out, which tokenizers read as real ones and other tools write once more.

    Args:
        examined: the data.
        marks: the tokenizer's own BOS, EOS and the like, beside the well-known ones.
    """
    known = {*BOS_MARKS, *EOS_MARKS, *TURN_MARKS, *marks}
    pattern = re.compile("|".join(re.escape(mark) for mark in sorted(known, key=lambda mark: (-len(mark), mark))))
    found, counts = [], Counter[str]()
    for member in examined.members:
        prompt = plain_text(member.prompt)
        marked = {mark for text in (prompt, *member.completions) for mark in pattern.findall(text)}
        if marked:
            counts.update(marked)
            found.append((member.record, marked))
    total = len(examined.members)
    examples = tuple(example(record, ", ".join(sorted(marked))) for record, marked in found[: examined.shown])
    reading = (
        "A tokenizer reads special tokens that are written out as real ones. rewardlab keeps a BOS before and an EOS "
        "behind a text as the only ones; other tools add theirs all the same. Take them out of the data."
    )
    numbers = {"by_mark": dict(counts.most_common())}
    title = "Records with special tokens written in the text"
    return Check("special_tokens", title, len(found), total, graded(len(found), total), reading, examples, numbers)


def doubled_bos(examined: Examined, bos: int | None) -> Check:
    """Sequences that begin with BOS twice; `bos` is the id with which the tokenizer begins, None where it has none."""
    reading = (
        "Models are pre-trained with one BOS. The text or a template writes one more than the tokenizer does: take it "
        "out there."
    )
    title = "Sequences that begin with BOS twice"
    return _ids_check(examined, "doubled_bos", title, bos, lambda ids: ids[:2] == (bos, bos), reading)


def missing_eos(examined: Examined, eos: int | None) -> Check:
    """Sequences that do not end in EOS; `eos` is its id, None where the tokenizer has none."""
    reading = (
        "Nothing marks the end of the answer, so an answer that was cut off reads like a whole one. "
        "`encoding.append_eos` ends every sequence in EOS."
    )
    title = "Sequences that do not end in EOS"
    return _ids_check(examined, "missing_eos", title, eos, lambda ids: ids[-1:] != (eos,), reading)


def _ids_check(
    examined: Examined,
    name: str,
    title: str,
    token: int | None,
    is_odd: Callable[[tuple[int, ...]], bool],
    reading: str,
) -> Check:
    """How many sequences are odd; skipped without a tokenizer and where it lacks the token that the check is about."""
    if examined.encoded is None or token is None:
        lacking = "Needs a tokenizer." if examined.encoded is None else "The tokenizer has no such token."
        return Check(name, title, None, None, "skipped", lacking)
    odd = [sum(is_odd(sequence.ids) for sequence in sequences) for sequences in examined.encoded]
    found = [member.record for member, count in zip(examined.members, odd, strict=True) if count]
    total = sum(map(len, examined.encoded))
    examples = tuple(example(record) for record in found[: examined.shown])
    return Check(name, title, sum(odd), total, graded(sum(odd), total), reading, examples)


def cut_off(examined: Examined) -> Check:
    """Answers that stop in mid-sentence: a length limit of their generator, and often of one side only."""
    texts = [(member, text) for member in examined.members for text in member.completions if text.strip()]
    found = [(member, text) for member, text in texts if not is_finished(text)]
    numbers = {"finished": cue_numbers(examined, "finished", is_finished)}
    reading = (
        "No closing punctuation at the end: the answer was probably cut off by a length limit. Where one side is "
        "cut off more often, an end-of-text token tells the sides apart (`finished`)."
    )
    examples = tuple(example(member.record, f"ends {text[-60:]!r}") for member, text in found[: examined.shown])
    telling = excludes(numbers["finished"]["accuracy"], 0.5) and len(found) >= MANY * len(texts)
    severity: Severity = "warning" if telling else graded(len(found), len(texts), many="note")
    title = "Answers that end as if cut off"
    return Check("cut_off", title, len(found), len(texts), severity, reading, examples, numbers)


def is_finished(text: str) -> bool:
    """Whether a text ends like a finished one."""
    return FINISHED.search(text[-80:]) is not None


def odd_characters(examined: Examined) -> Check:
    """Characters that speak of a wrong encoding or of binary data."""
    found, counts = [], Counter[str]()
    for member in examined.members:
        whole = "\n".join([*(turn.content for turn in member.prompt.messages), *member.completions])
        odd = [name for name, pattern in ODD.items() if pattern.search(whole)]
        counts.update(odd)
        if odd:
            found.append((member.record, odd))
    total = len(examined.members)
    examples = tuple(example(record, ", ".join(odd)) for record, odd in found[: examined.shown])
    reading = "They come from wrong decoding or binary data; tokenizers replace lone surrogates."
    title = "Records with odd characters"
    numbers = {"by_kind": dict(counts.most_common())}
    return Check("odd_characters", title, len(found), total, graded(len(found), total), reading, examples, numbers)


# --- lengths ---------------------------------------------------------------------------------------------------


Measured = Mapping[str, Mapping[str, Sequence[int]]]
"""Unit → role → lengths. Roles: prompt, chosen, rejected, and completion for everything that is no pair."""


def lengths(examined: Examined, measured: Measured) -> Check:
    """How long prompts and answers are, in characters, words and (with a tokenizer) tokens."""
    numbers: dict[str, Any] = {}
    for unit, roles in measured.items():
        numbers[unit] = {role: summary(values) for role, values in roles.items() if values}
    tokens = "; tokens are the given tokenizer's, special ones left out" if examined.encoded is not None else ""
    reading = (
        f"Quantiles over prompts and answers{tokens}. Compare the 95 % points with the longest sequence you train on."
    )
    return Check("lengths", "Lengths of prompts and answers", None, None, "ok", reading, (), numbers)


def measured_lengths(examined: Examined) -> Measured:
    """The lengths of all prompts and answers, in characters, words and (with a tokenizer) tokens."""
    texts = [(member, plain_text(member.prompt)) for member in examined.members]
    units: dict[str, dict[str, list[int]]] = {}
    for unit, measure in (("characters", len), ("words", words)):
        roles = units.setdefault(unit, {"prompt": [measure(prompt) for _, prompt in texts]})
        for member, _ in texts:
            _add_answers(roles, member.record, [measure(text) for text in member.completions])
    if examined.encoded is not None:
        roles = units.setdefault("tokens", {"prompt": []})
        for (member, _), sequences in zip(texts, examined.encoded, strict=True):
            roles["prompt"] += [sequence.prompt_tokens for sequence in sequences[:1]]
            _add_answers(roles, member.record, [sequence.completion_tokens for sequence in sequences])
    return units


def _add_answers(roles: dict[str, list[int]], record: Record, values: Sequence[int]) -> None:
    names = ("chosen", "rejected") if isinstance(record, Pair) else ("completion",) * len(values)
    for name, value in zip(names, values, strict=True):
        roles.setdefault(name, []).append(value)


def words(text: str) -> int:
    """Number of words: runs of characters between white space."""
    return len(text.split())


def summary(values: Sequence[int]) -> dict[str, float]:
    """Count, mean, extremes and quantiles of lengths."""
    array = np.asarray(values)
    quantiles = {name: float(np.quantile(array, at)) for name, at in QUANTILES.items()}
    return {
        "n": len(values),
        "mean": float(array.mean()),
        "min": int(array.min()),
        **quantiles,
        "max": int(array.max()),
    }


def longer_chosen(examined: Examined, measured: Measured) -> Check:
    """How often the longer side is the chosen one: what length alone would score."""
    numbers: dict[str, Any] = {}
    for unit, roles in measured.items():
        chosen, rejected = (np.asarray(roles.get(side, []), dtype=np.int64) for side in ("chosen", "rejected"))
        numbers[unit] = _longer(examined, unit, np.sign(chosen - rejected))
    main = numbers["characters"]
    accuracy = main["longer_is_better"]
    beyond = accuracy["low"] is not None and (accuracy["low"] > EVEN[1] or accuracy["high"] < EVEN[0])
    reading = (
        "`longer_is_better` is the accuracy of length alone, ties counting 1/2: a scorer must beat it, and one that "
        "has learned only length reaches it. `longer_chosen` is the plain share of pairs, ties not counted as longer."
    )
    severity: Severity = "warning" if beyond else "ok"
    title = "Pairs whose chosen answer is the longer one (characters)"
    return Check("longer_chosen", title, main["longer"], len(examined.pairs), severity, reading, (), numbers)


def _longer(examined: Examined, unit: str, sign: np.ndarray) -> dict[str, Any]:
    strict = "Share of pairs whose chosen answer is strictly longer."
    half = "Accuracy of preferring the longer answer, ties counting 1/2; 1/2 means length says nothing."
    return {
        "longer": int((sign > 0).sum()),
        "ties": int((sign == 0).sum()),
        "longer_chosen": examined.share(f"{unit}.longer_chosen", (sign > 0).astype(float), strict),
        "longer_is_better": examined.share(f"{unit}.longer_is_better", (1.0 + sign) / 2.0, half),
    }


# --- truncation ------------------------------------------------------------------------------------------------


def truncated(examined: Examined, encoding: Encoding) -> list[Check]:
    """Sequences that are cut to `max_tokens`, and pairs that are identical after the cut.

    Without a tokenizer words stand in for tokens; a text has fewer words than tokens, so both counts are then
    lower bounds.
    """
    cuts, same = _cuts(examined, encoding)
    unit = "words" if examined.encoded is None else "tokens"
    total = sum(len(member.completions) for member in examined.members)
    found = [member.record for member, cut in zip(examined.members, cuts, strict=True) if any(cut)]
    count = sum(map(sum, cuts))
    kept = "end" if encoding.truncation_side == "left" else "beginning"
    limit = f"{encoding.max_tokens} {unit}"
    lower = "" if unit == "tokens" else " Words stand in for tokens: a lower bound; give a tokenizer."
    return [
        Check(
            "truncated",
            f"Sequences longer than {limit}",
            count,
            total,
            graded(count, total),
            f"Prompt and answer together are cut, the {kept} is kept (`encoding`).{lower}",
            tuple(example(record) for record in found[: examined.shown]),
        ),
        Check(
            "identical_after_truncation",
            f"Pairs that are identical once cut to {limit}",
            len(same),
            len(examined.pairs),
            graded(len(same), len(examined.pairs)),
            f"What tells the sides apart is cut off; such pairs teach nothing.{lower}",
            tuple(example(record) for record in same[: examined.shown]),
        ),
    ]


def _cuts(examined: Examined, encoding: Encoding) -> tuple[list[list[bool]], list[Record]]:
    """Per member which sequences are cut, and the pairs whose sequences are then the same."""
    cuts: list[list[bool]] = []
    same: list[Record] = []
    for number, member in enumerate(examined.members):
        if examined.encoded is not None:
            sequences = [_Sequence(encoded.ids, encoded.truncated) for encoded in examined.encoded[number]]
        else:
            sequences = [_in_words(member.prompt, text, encoding) for text in member.completions]
        cuts.append([sequence.truncated for sequence in sequences])
        if isinstance(member.record, Pair) and sequences[0].pieces == sequences[1].pieces:
            same.append(member.record)
    return cuts, same


class _Sequence(NamedTuple):
    """What is left of a text after the cut, in tokens or words."""

    pieces: Sequence[int] | Sequence[str]
    truncated: bool


def _in_words(prompt: Prompt, completion: str, encoding: Encoding) -> _Sequence:
    pieces = render(prompt, completion, template=encoding.template).text.split()
    room = encoding.max_tokens
    kept = pieces[-room:] if encoding.truncation_side == "left" else pieces[:room]
    return _Sequence(kept, len(pieces) > room)
