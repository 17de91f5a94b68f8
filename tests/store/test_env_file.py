"""`.env` files, as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.errors import ConfigError
from rewardlab.store.env_file import read_env_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("K=abc", "abc"),
        ("export K = abc  # my key", "abc"),
        ("K='a#b' # quoted", "a#b"),
        ('K="a # b"', "a # b"),
        ('K="abc" # mine', "abc"),
        ('K="abc"\r\n', "abc"),
        ("K=a#b", "a#b"),
        ("#K=abc", None),
        ("K=", ""),
        ("K=#", ""),
        ("K=#x", ""),
        ("K=a\nK=b", "b"),
        ("KK=abc", None),
        ("K K=abc", None),
        ("\ufeffK=abc", "abc"),
        ("nonsense\n\nK=$HOME", "$HOME"),
    ],
)
def test_a_value(tmp_path: Path, text: str, value: str | None) -> None:
    (tmp_path / ".env").write_bytes(text.encode())
    assert read_env_file(tmp_path).get("K") == value


def test_no_file_is_no_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_env_file(tmp_path) == {}
    # The name that many give to a virtual environment.
    (tmp_path / ".env").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_env_file() == {}


def test_a_file_that_cannot_be_read_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"K=hush\xff")
    with pytest.raises(ConfigError, match=r"\.env: found bytes that are not UTF-8; expected a UTF-8 file") as refused:
        read_env_file(tmp_path)
    assert refused.value.__cause__ is None
    assert "hush" not in str(refused.value)
