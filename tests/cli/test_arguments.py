"""Words of a command line."""

from __future__ import annotations

import pytest

from rewardlab.cli.arguments import Arguments, Grammar, parse
from rewardlab.errors import ConfigError

GRAMMAR = Grammar(
    options=("config", "run"),
    switches=("resume",),
    flags=("model.path", "model.lora.rank", "learning_rate", "shuffle", "columns"),
    switch_flags=("shuffle",),
    open_flags=("stages.",),
    names=("STUDY",),
)


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("--learning_rate 1e-5", [("learning_rate", "1e-5")]),
        ("--learning-rate=1e-5", [("learning_rate", "1e-5")]),
        ("--learning_rate -1", [("learning_rate", "-1")]),
        ("--columns.gold-label x-y", [("columns.gold-label", "x-y")]),
        ("--stages.train-base.rate 3", [("stages.train-base.rate", "3")]),
        ("--model.path a=b", [("model.path", "a=b")]),
        ("--model.path=", [("model.path", "")]),
        ("--model.path=--x", [("model.path", "--x")]),
        ("--model.lora null --model.lora.rank 8", [("model.lora", "null"), ("model.lora.rank", "8")]),
        ("--columns.chosen good", [("columns.chosen", "good")]),
        ("--stages.train.rate 3", [("stages.train.rate", "3")]),
        ("--shuffle", [("shuffle", "true")]),
        ("--shuffle --resume", [("shuffle", "true")]),
        ("--no-shuffle", [("shuffle", "false")]),
        ("--shuffle False", [("shuffle", "False")]),
        ("--shuffle=no", [("shuffle", "no")]),
        ("--shuffle x", [("shuffle", "true")]),
    ],
)
def test_flags(words: str, flags: list[tuple[str, str]]) -> None:
    names = () if words.endswith(" x") else ("x",)
    assert parse([*words.split(), *names], GRAMMAR).flags == flags


def test_options_switches_and_names() -> None:
    words = ["--config", "a.yaml", "demo", "--resume", "--config=b.yaml", "--run", "first", "--run", "second"]
    given = parse(words, GRAMMAR)
    assert given == Arguments({"config": ["a.yaml", "b.yaml"], "run": ["first", "second"]}, {"resume"}, [], ["demo"])
    assert given.option("run") == "second"
    assert given.option("description", "none") == "none"


def test_everything_not_understood_is_named_at_once() -> None:
    words = ["one", "two", "--learnin_rate", "--model.pth", "x", "--run", "--zzzzzzzz", "--model.path", "--resume=1"]
    with pytest.raises(ConfigError) as caught:
        parse(words, GRAMMAR)
    assert [str(problem) for problem in caught.value.problems] == [
        '--learnin_rate: found an unknown flag; expected a known one. Did you mean "--learning_rate"?',
        '--model.pth: found an unknown flag; expected a known one. Did you mean "--model.path"?',
        "--run: found nothing; expected a value",
        "--zzzzzzzz: found an unknown flag; expected a known one. --help lists them.",
        "--model.path: found nothing; expected a value",
        '--resume: found an unknown flag; expected a known one. Did you mean "--resume"?',
        "'two': found one word too many; expected flags that begin with --",
    ]
    with pytest.raises(ConfigError) as caught:
        parse(["--learnin_rate", "one"], GRAMMAR)
    assert len(caught.value.problems) == 1, "a word may be the name that is still to come"


def test_a_missing_name_is_named() -> None:
    with pytest.raises(ConfigError, match="STUDY: found nothing; expected a name"):
        parse([], GRAMMAR)
