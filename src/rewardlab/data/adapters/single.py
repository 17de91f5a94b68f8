"""TRL's formats with at most one completion: {messages}, {prompt}, {prompt, completion} and with label or score."""

from __future__ import annotations

from rewardlab.data.adapters.base import (
    Adapter,
    Parsed,
    answer,
    broken,
    prompt_of,
    set_aside,
    template_options,
    usable,
    user_prompt,
)
from rewardlab.data.rows import Row
from rewardlab.records import Candidates, Prompt, Rated, SetAside


def parse_messages(row: Row) -> Parsed:
    """A conversation: its last assistant turn is the completion; one that ends otherwise is a prompt."""
    turns = row.messages("messages")
    if row.problems:
        return broken(row)
    ends_with_answer = turns[-1].role == "assistant"
    prompt = Prompt(turns[:-1] if ends_with_answer else turns, template_options(row))
    completions = (turns[-1].content,) if ends_with_answer else ()
    return usable(row, Candidates(prompt, completions, None, row.source, row.rest()))


def parse_prompt(row: Row) -> Parsed:
    """A prompt alone: candidates, none yet."""
    prompt = prompt_of(row.conversation("prompt"), template_options(row))
    return broken(row) if row.problems else Candidates(prompt, (), None, row.source, row.rest())


def parse_completion(row: Row) -> Parsed:
    """A prompt and its one completion, unrated."""
    read = _prompt_and_completion(row)
    if isinstance(read, SetAside):
        return read
    prompt, completion = read
    return usable(row, Candidates(prompt, (completion,), None, row.source, row.rest()))


def parse_labelled(row: Row) -> Parsed:
    """A completion that is good or bad."""
    label, read = row.truth("label"), _prompt_and_completion(row)
    return read if isinstance(read, SetAside) else usable(row, Rated(*read, label, None, row.source, row.rest()))


def parse_scored(row: Row) -> Parsed:
    """A completion with a score; one without is set aside."""
    score, read = row.number("score"), _prompt_and_completion(row)
    if isinstance(read, SetAside):
        return read
    if score is None:
        return set_aside(row, "no_score", "no score was given")
    return usable(row, Rated(*read, None, score, row.source, row.rest()))


def _prompt_and_completion(row: Row) -> tuple[Prompt, str] | SetAside:
    prompt, completion = row.conversation("prompt"), row.conversation("completion")
    make = user_prompt if isinstance(completion, tuple) else prompt_of
    context, text = make(prompt, template_options(row)), answer(row, "completion", completion)
    if row.problems:
        return broken(row)
    return set_aside(row, "several_turns", "a completion of several turns") if text is None else (context, text)


OPTIONS = ("chat_template_kwargs", "tools")

LABELLED = Adapter(
    name="labelled",
    title="a completion that is good or bad: {prompt, completion, label}",
    required=("prompt", "completion", "label"),
    optional=OPTIONS,
    parse=parse_labelled,
)
SCORED = Adapter(
    name="scored",
    title="a completion with a score: {prompt, completion, score}",
    required=("prompt", "completion", "score"),
    optional=OPTIONS,
    parse=parse_scored,
)
COMPLETION = Adapter(
    name="completion",
    title="a prompt and its completion: {prompt, completion}",
    required=("prompt", "completion"),
    optional=OPTIONS,
    parse=parse_completion,
)
MESSAGES = Adapter(
    name="messages",
    title="a conversation: {messages}",
    required=("messages",),
    optional=OPTIONS,
    parse=parse_messages,
)
PROMPT = Adapter(
    name="prompt", title="prompts alone: {prompt}", required=("prompt",), optional=OPTIONS, parse=parse_prompt
)
