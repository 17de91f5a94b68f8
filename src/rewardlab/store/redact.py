"""Secrets never reach a record or a log.

Three nets: the name a value goes by (`hf_token`, `--api-key`), the form of well-known tokens and of addresses
with credentials, and the very values that the environment and the `.env` file hold under such names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewardlab.store.env_file import read_env_file

REDACTED = "[redacted]"

# A name is secret by its last word (`hub_token`, `OPENAI_API_KEY`), or by how one of its words ends (`PGPASSWORD`).
_SECRET_LAST_WORDS = frozenset({"key", "auth", "authorization", "credential", "credentials"})
_SECRET_ENDINGS = ("secret", "secrets", "password", "passwords", "passwd", "passphrase", "apikey")
# Tokenizers and tables have tokens and keys that are no secrets.
_HARMLESS = re.compile(
    r"(pad|eos|bos|unk|sep|cls|mask|sort|group|prompt|record|content)[_-](token|key)$", re.IGNORECASE
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NUMBER_BEHIND = re.compile(r"[_\W\d]+$")

_SECRET_FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})"
)
_ADDRESS_WITH_CREDENTIALS = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*:/+)[^\s/@]+@")
_SHORTEST_SECRET = 6


def is_secret_name(name: str) -> bool:
    """Whether a value that goes by `name` is to be kept out of records."""
    leaf = _NUMBER_BEHIND.sub("", name.rsplit(".", maxsplit=1)[-1])
    words = [word.lower() for word in _WORD.findall(leaf)]
    if not words or _HARMLESS.search(leaf):
        return False
    is_last = words[-1] in _SECRET_LAST_WORDS or words[-1].endswith("token")
    return is_last or any(word.endswith(_SECRET_ENDINGS) for word in words)


class Redactor:
    """Takes secrets out of text, command lines and nested values.

    Args:
        environment: where to look for the values of secrets (default: the process's environment, and the `.env` file
            of the working directory).

    Raises:
        ConfigError: that file cannot be read.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        sources = [os.environ, read_env_file()] if environment is None else [environment]
        items = [item for source in sources for item in source.items()]
        held = {value for name, value in items if is_secret_name(name) and len(value) >= _SHORTEST_SECRET}
        # The longest first, so that a secret inside another one does not leave the rest of it standing.
        self._held = sorted(held, key=lambda value: (-len(value), value))

    def text(self, text: str) -> str:
        """`text` without known secrets, token forms and credentials in addresses."""
        for secret in self._held:
            text = text.replace(secret, REDACTED)
        text = _ADDRESS_WITH_CREDENTIALS.sub(rf"\1{REDACTED}@", text)
        return _SECRET_FORMS.sub(REDACTED, text)

    def command(self, words: Sequence[str]) -> list[str]:
        """A command line without the values of secret flags, `--name value` and `--name=value` alike."""
        result: list[str] = []
        hide_next = False
        for word in words:
            name, equals, value = word.partition("=")
            secret = is_secret_name(name) and (name.startswith("-") or bool(equals))
            if hide_next and not word.startswith("--"):
                result.append(REDACTED)
            elif secret and equals and value:
                result.append(f"{name}={REDACTED}")
            else:
                result.append(self.text(word))
            hide_next = secret and not equals
        return result

    def value(self, value: Any, name: str = "") -> Any:
        """A JSON-like value without secrets; `name` is the key it stands under."""
        if isinstance(value, Mapping):
            return {key: self.value(inner, str(key)) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner, name) for inner in value]
        if not isinstance(value, str):
            return value
        return REDACTED if value and is_secret_name(name) else self.text(value)
