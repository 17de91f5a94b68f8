"""Prompts and completions as a policy knows them: apart, the way it meets them when it answers.

A reward model reads a whole text (`data.tokenize`); a policy is given a prompt and goes on from its last token. So the
two are tokenised apart, and what is trained on is cut where generation begins:

1. The prompt is rendered by the template, else (a conversation) by the chat template with its generation prompt, else
   as plain text; the tokenizer's own prefix (BOS) stands before it once. What an encoder reads has the suffix, too.
2. A completion's ids are those of its text alone. In a transcript ("\\n\\nAssistant:") it begins with one space and has
   no other white space at its ends, whichever side of a pair it is: white space must not tell which one was chosen.
3. A completion that ended has the token that ends an answer: the one that the chat template writes, else EOS. One that
   was cut off, here or when it was sampled, has none.
4. More than `max_prompt_tokens` are cut on the left, more than `max_completion_tokens` (the end included) on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from rewardlab.config import Config
from rewardlab.data.render import plain_text
from rewardlab.data.tokenize import encodable, special_tokens
from rewardlab.errors import DataError, ModelError, Problem
from rewardlab.records import Message, Prompt

_PROBE = "Yes, that is it."


class PolicyEncoding(Config):
    """How prompts and completions become ids; saved with a policy, so that sampling repeats what training did."""

    template: str | None = None
    """Text with {prompt}, which the completion follows; default: the chat template for conversations, else the text."""

    form: Literal["auto", "chat"] = "auto"
    """chat: always the chat template; a plain text is a user's turn."""

    max_prompt_tokens: int = Field(512, ge=1)
    """Of a longer prompt the end is kept; special tokens included."""

    max_completion_tokens: int = Field(256, ge=1)
    """Of a longer completion the beginning is kept, without an end."""

    @field_validator("template")
    @classmethod
    def _prompt_once(cls, value: str | None) -> str | None:
        if value is not None and value.count("{prompt}") != 1:
            raise ValueError("expected {prompt} once")
        return value

    @model_validator(mode="after")
    def _one_rule(self) -> PolicyEncoding:
        if self.template is not None and self.form != "auto":
            raise ValueError("expected either a template or a form, and not both")
        return self


class Ids(NamedTuple):
    """Token ids, and whether some were cut off."""

    ids: tuple[int, ...]
    truncated: bool


class PolicyEncoder:
    """A tokenizer under a `PolicyEncoding`: prompts and completions in, ids out, and text back.

    Args:
        tokenizer: a transformers tokenizer.
        encoding: the rules.
        encoder_decoder: whether prompts go into an encoder, with the tokenizer's suffix.

    Raises:
        ModelError: special tokens that are not a fixed prefix and suffix, no chat template where the form asks for one,
            or nothing that ends an answer.
    """

    def __init__(self, tokenizer: Any, encoding: PolicyEncoding, *, encoder_decoder: bool = False) -> None:
        self.tokenizer = tokenizer
        self.encoding = encoding
        prefix, suffix = special_tokens(tokenizer)
        self.prefix = prefix
        self.suffix = suffix if encoder_decoder else ()
        if encoding.form == "chat" and not tokenizer.chat_template:
            problem = Problem(type(tokenizer).__name__, "no chat template", "one, for the form chat")
            raise ModelError("The tokenizer cannot render conversations", [problem])
        if tokenizer.eos_token_id is None:
            problem = Problem(type(tokenizer).__name__, "no EOS token", "a token that ends an answer")
            raise ModelError("The tokenizer cannot end an answer", [problem])
        self._eos = (int(tokenizer.eos_token_id),)

    def prompts(self, prompts: Sequence[Prompt]) -> list[Ids]:
        """The ids that a completion of each prompt follows, or that an encoder reads."""
        rendered = [self._rendered(prompt) for prompt in prompts]
        found = []
        for ids, prompt in zip(self._ids(rendered), prompts, strict=True):
            # A prefix that the text has brought is cut no more than one that is put there.
            has_prefix = ids[: len(self.prefix)] == self.prefix
            prefix = self.prefix if has_prefix or not self._is_chat(prompt) else ()
            body = ids[len(prefix) :] if has_prefix else ids
            room = max(self.encoding.max_prompt_tokens - len(prefix) - len(self.suffix), 0)
            whole = prefix + body[max(len(body) - room, 0) :] + self.suffix
            # A policy that goes on from nothing goes on from the end of what came before, as GPT-2 does.
            found.append(Ids(whole or self._eos, len(body) > room))
        return found

    def completions(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], ended: Sequence[Sequence[bool]]
    ) -> list[list[Ids]]:
        """The ids of `completions[i][k]` as answers to `prompts[i]`.

        Args:
            prompts: what they answer.
            completions: texts.
            ended: of every text, whether it is whole; one that was cut off gets no end.
        """
        texts = [self._answer(prompt, text) for prompt, own in zip(prompts, completions, strict=True) for text in own]
        flat = iter(self._ids(texts))
        return [
            [self._cut(next(flat), self.end(prompt) if is_whole else ()) for is_whole in own]
            for prompt, own in zip(prompts, ended, strict=True)
        ]

    def text(self, prompt: Prompt, ids: Sequence[int]) -> str:
        """The completion that ids stand for, without the token that ends it; the inverse of `completions`."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip() if self._is_transcript(prompt) else text

    def as_sampled(self, prompt: Prompt, text: str, ids: Any) -> Ids | None:
        """Token ids that a policy wrote, the one that ends them included; None where they do not stand for `text` with
        this tokenizer, which itself may split the text in other ways."""
        known = range(len(self.tokenizer))
        if not isinstance(ids, list) or not ids or not all(isinstance(one, int) and one in known for one in ids):
            return None
        return self._cut(tuple(ids), ()) if self.text(prompt, ids) == text else None

    def end(self, prompt: Prompt) -> tuple[int, ...]:
        """The token that ends an answer to this prompt."""
        return self._chat_end if self._is_chat(prompt) else self._eos

    def _cut(self, ids: tuple[int, ...], end: tuple[int, ...]) -> Ids:
        whole = ids + end
        most = self.encoding.max_completion_tokens
        return Ids(whole[:most], len(whole) > most)

    def _is_chat(self, prompt: Prompt) -> bool:
        if self.encoding.template is not None or not self.tokenizer.chat_template:
            return False
        return self.encoding.form == "chat" or not prompt.is_text

    def _is_transcript(self, prompt: Prompt) -> bool:
        """Whether the prompt ends in `Assistant:`, which a space follows."""
        return self.encoding.template is None and not prompt.is_text and not self._is_chat(prompt)

    def _answer(self, prompt: Prompt, text: str) -> str:
        return f" {text.strip()}" if self._is_transcript(prompt) else text

    def _rendered(self, prompt: Prompt) -> str:
        if self._is_chat(prompt):
            return self._chat(prompt, None)
        if self.encoding.template is not None:
            # Cut, not formatted: braces inside a prompt are never read as fields.
            head, _, tail = self.encoding.template.partition("{prompt}")
            return head + plain_text(prompt) + tail
        return plain_text(prompt)

    def _chat(self, prompt: Prompt, answer: str | None) -> str:
        turns = [Message("user", prompt.messages[0].content)] if prompt.is_text else prompt.messages
        messages = [one.as_dict() for one in turns]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=answer is None, **prompt.template_options
            )
        except Exception as error:  # a template is a program of its own: it can raise anything
            roles = [message.role for message in turns]
            problem = Problem(
                f"prompt {prompt.id}",
                f"roles {roles} ({error})",
                "a conversation that the template accepts",
                "Give a template string (--encoding.template), or map the roles.",
            )
            raise DataError("The chat template of the tokenizer refuses a conversation", [problem]) from error
        return text

    @cached_property
    def _chat_end(self) -> tuple[int, ...]:
        """The first special token that the chat template writes behind an answer; EOS where it writes none."""
        text = self._chat(Prompt((Message("user", "Is it?"),)), _PROBE)
        (tail,) = self._ids([text[text.rindex(_PROBE) + len(_PROBE) :]])
        special = set(self.tokenizer.all_special_ids)
        return next(((token,) for token in tail if token in special), self._eos)

    def _ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        if not texts:
            return []
        found = self.tokenizer([encodable(text) for text in texts], add_special_tokens=False, verbose=False)
        return [tuple(ids) for ids in found["input_ids"]]
