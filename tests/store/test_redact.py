"""Secrets: by name, by form, by value."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.store.redact import Redactor, is_secret_name


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "api_key", "--api-key", "OPENAI_API_KEY", "llm.judge.apiKey", "password", "DB_PASSWORD_FILE", "secret",
     "aws_secret_access_key", "Authorization", "hub-token", "APIKEY", "REWARDLAB_JUDGE_KEY_2", "OPENAI_API_KEY_2",
     "PGPASSWORD", "HFTOKEN", "token2", "MYSQL_ROOTPASSWORD_01", "clientsecret"],
)  # fmt: skip
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens",
        "token_budget",
        "tokenizer",
        "pad_token",
        "sort_key",
        "keys",
        "monkey",
        "model.path",
        "",
        "pad_token_2",
        "tokens_2",
        "seed_2",
        "2",
    ],
)
def test_harmless_names(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("get https://user:pass@example.org/a?b=c@d", "get https://[redacted]@example.org/a?b=c@d"),
        ("mail me@example.org", "mail me@example.org"),
        ("hf_abcdefghijklmnopqrstuv", "[redacted]"),
        ("x=ghp_" + "a" * 36 + ";", "x=[redacted];"),
        ("shf_model sk-short", "shf_model sk-short"),
        ("value is hunter2hunter2!", "value is [redacted]!"),
        ("value is hunter2", "value is hunter2"),
    ],
)
def test_text(text: str, expected: str) -> None:
    assert Redactor({"MY_PASSWORD": "hunter2hunter2", "A_KEY": "ab", "HOME": "mail"}).text(text) == expected


def test_a_secret_within_a_secret_leaves_no_rest() -> None:
    assert Redactor({"A_TOKEN": "abcdef", "B_TOKEN": "abcdefghi"}).text("abcdefghi abcdef") == "[redacted] [redacted]"


def test_secrets_of_the_env_file_are_hidden_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("export MY_KEY='of-no-known-form'\nHOME_OF=not-secret\n")
    assert Redactor().text("sent of-no-known-form, not-secret") == "sent [redacted], not-secret"


def test_commands_and_values() -> None:
    redactor = Redactor({})
    words = ["--token", "a", "--hf-token=b", "--seed", "1", "--api_key", "--x", "y", "key", "z"]
    hidden = ["--token", "[redacted]", "--hf-token=[redacted]", "--seed", "1", "--api_key", "--x", "y", "key", "z"]
    assert redactor.command(words) == hidden
    value = {"a": {"token": "t", "tokens": ["u"]}, "keys": [{"api_key": ["v", 3]}], "password": "", "n": None}
    assert redactor.value(value) == {
        "a": {"token": "[redacted]", "tokens": ["u"]},
        "keys": [{"api_key": ["[redacted]", 3]}],
        "password": "",
        "n": None,
    }
