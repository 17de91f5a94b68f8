"""From messages to the one text that a tokenizer reads. Every prompt of rewardlab is rendered here.

Three ways, tried in this order unless the form says otherwise:

1. a template string of the configuration, `"Question: {prompt}\\n\\nAnswer: {completion}"`;
2. the tokenizer's chat template, for conversations (a plain-text prompt never meets it);
3. plain text: a text prompt verbatim, followed by the completion verbatim; a conversation as
   "\\n\\nHuman: ..." and "\\n\\nAssistant: ..." turns, the way helpful-harmless data are written.

The form `chat` takes a plain-text prompt for the one turn of a user and always uses the chat template; `answer` is the
completion alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rewardlab.errors import DataError, Problem
from rewardlab.records import Message, Prompt

Form = Literal["auto", "chat", "pair", "answer"]

ROLE_NAMES = {"user": "Human", "assistant": "Assistant", "system": "System", "tool": "Tool"}


@dataclass(frozen=True)
class Rendered:
    """A text and whether its special tokens are already in it (a chat template writes its own BOS)."""

    text: str
    has_special_tokens: bool


def plain_text(prompt: Prompt) -> str:
    """The prompt as a person reads it; a conversation ends ready for the assistant's turn."""
    if prompt.is_text:
        return prompt.messages[0].content
    if not prompt.messages:
        return ""
    turns = "".join(f"\n\n{_role(message)}: {message.content}" for message in prompt.messages)
    return f"{turns}\n\nAssistant:"


def question(prompt: Prompt) -> str:
    """The first of a text pair: a plain text or the one turn of a user as it stands, else the plain transcript."""
    if len(prompt.messages) == 1 and prompt.messages[0].role == "user":
        return prompt.messages[0].content
    return plain_text(prompt)


def render(
    prompt: Prompt, completion: str, *, template: str | None = None, tokenizer: Any = None, form: Form = "auto"
) -> Rendered:
    """The full text of `completion` as the answer to `prompt`.

    Args:
        prompt: the conversation so far, or a plain text.
        completion: the answer.
        template: a string with `{prompt}` and `{completion}`; wins over everything else.
        tokenizer: its chat template, where it has one, renders conversations.
        form: auto, chat or answer; a pair is no single text.

    Raises:
        DataError: when the chat template refuses the conversation.
    """
    if form == "answer":
        return Rendered(completion, False)
    if form == "chat" and prompt.is_text:
        prompt = Prompt((Message("user", prompt.messages[0].content),), prompt.template_options)
    if template is not None:
        return Rendered(_filled(template, plain_text(prompt), completion), False)
    if prompt.is_text:
        return Rendered(prompt.messages[0].content + completion, False)
    if tokenizer is not None and tokenizer.chat_template:
        return Rendered(_chat(tokenizer, prompt, completion), True)
    separator = " " if prompt.messages and not completion[:1].isspace() else ""
    return Rendered(plain_text(prompt) + separator + completion, False)


def _role(message: Message) -> str:
    return ROLE_NAMES.get(message.role, message.role.capitalize())


def _filled(template: str, prompt: str, completion: str) -> str:
    # Cut, not formatted: braces inside the texts are never read as fields.
    head, _, rest = template.partition("{prompt}")
    middle, _, tail = rest.partition("{completion}")
    return head + prompt + middle + completion + tail


def _chat(tokenizer: Any, prompt: Prompt, completion: str) -> str:
    messages = [*(message.as_dict() for message in prompt.messages), {"role": "assistant", "content": completion}]
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, **prompt.template_options)
    except Exception as error:  # a template is a program of its own: it can raise anything
        roles = [message.role for message in prompt.messages]
        problem = Problem(
            f"prompt {prompt.id}",
            f"roles {roles} ({error})",
            "a conversation that the template accepts",
            "Give a template string (--encoding.template), or map the roles.",
        )
        raise DataError("The chat template of the tokenizer refuses a conversation", [problem]) from error
    return text
