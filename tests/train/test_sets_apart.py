"""What is said of the sets of a training: shared records and conversations, prompts of another form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.canonical import write_records
from rewardlab.data.load import DataSource, load
from rewardlab.errors import InputError
from rewardlab.records import Candidates, Message, Pair, Prompt
from rewardlab.store.files import read_json
from rewardlab.store.runs import Run
from rewardlab.studies.verbs import VERBS
from rewardlab.train.preference import EXOTraining, train_preference
from rewardlab.train.reward import RewardTraining, train_reward
from rewardlab.train.sets import sampling_words, set_aside_words, warnings_of
from rewardlab.train.setup import set_aside_of
from tests.train import toys


def asked(*questions: str, answer: str = "yes", is_text: bool = True) -> list[Pair]:
    prompts = [Prompt.of_text(text) if is_text else Prompt((Message("user", text),)) for text in questions]
    return [Pair(prompt, answer, "never") for prompt in prompts]


def said(train: Sequence[Pair], validation: Sequence[Pair], test: Sequence[Pair] = ()) -> list[str]:
    return list(warnings_of(train, {"dev": validation}, test))


def test_sets_that_are_apart_have_no_warning() -> None:
    assert said(asked("a", "b"), asked("c"), asked("d")) == []


def test_shared_records_and_conversations_are_counted() -> None:
    (words,) = said(asked("a", "b"), [*asked("a", "c"), *asked("b", answer="perhaps")])
    assert "validation.dev is not apart from train: of its 3 records 1 are in train too" in words
    assert "and 2 are of conversations that train has" in words


def test_a_test_set_is_compared_with_the_data_and_with_what_chooses() -> None:
    words = said(asked("a"), asked("b"), asked("a", "b"))
    assert [line.partition(":")[0] for line in words] == [
        "test is not apart from train",
        "test is not apart from validation.dev",
    ]


def test_prompts_of_another_form_are_said_once_a_set() -> None:
    (words,) = said(asked("a"), asked("b", is_text=False))
    assert "the prompts of validation.dev are conversations, but the model was trained on plain texts" in words
    assert "--validation.dev.prompt_role text" in words


def drawn(temperature: object, *, warped: object = False) -> Candidates:
    return Candidates(Prompt.of_text("q"), ("a", "b"), (1.0, 0.0), meta={"temperature": temperature, "warped": warped})


def test_completions_of_another_distribution_than_the_policys_are_told() -> None:
    assert list(sampling_words([*asked("a"), drawn(1), drawn(1.0), drawn("hot", warped="no")], 1.0)) == []
    assert list(sampling_words([drawn(0.7)], 0.7)) == []
    cold, greedy, warped = sampling_words([drawn(0.7), drawn(0.7, warped=True), drawn(0), *asked("a")], 1.0)
    assert cold == (
        "of 4 training records 2 were sampled at temperature 0.7, but their log-probabilities are taken at 1: "
        "--temperature 0.7 takes them there too"
    )
    assert greedy.endswith("1 were sampled at temperature 0, but their log-probabilities are taken at 1")
    assert "1 were sampled with tokens left out or penalised" in warped


def test_a_training_on_such_completions_says_it(tokenizer: Path, tmp_path: Path) -> None:
    file = tmp_path / "drawn.jsonl"
    records = [
        Candidates(Prompt.of_text(f"river {place}"), ("lamp", "cloud"), (1.0, 0.0), meta={"temperature": 0.7})
        for place in range(4)
    ]
    write_records(file, records)
    model = {"shape": toys.LLAMA, "tokenizer": str(tokenizer)}
    config = EXOTraining.build({"model": model, "train": str(file), "device": "cpu", "precision": "float32"})
    with Run.create(config, verb="train exo", name="run", root=tmp_path) as run:
        train_preference(config, run)
    (words,) = read_json(run.folder / "summary.json")["warnings"]
    assert "3 were sampled at temperature 0.7" in words
    assert words in (run.folder / "run.log").read_text(encoding="utf-8")


def test_rows_that_cannot_be_used_are_counted_and_said(tokenizer: Path, tmp_path: Path) -> None:
    """By set and reason: on the console and in the log, and in summary.json; of every verb that trains."""
    file = toys.write_pairs(tmp_path / "pairs.jsonl", toys.pairs(8))
    odd = [{"prompt": "q", "chosen": "", "rejected": "b"}, {"prompt": "q", "chosen": "b", "rejected": None}]
    same = {"prompt": "q", "chosen": "b", "rejected": "b"}
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(file.read_text(encoding="utf-8") + json.dumps(same) + "\n", encoding="utf-8")
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in [*odd, same])
    common = {"model": {"shape": toys.LLAMA, "tokenizer": str(tokenizer)}, "train": str(file), "device": "cpu"}
    few = {"validation": {"val": str(held_out)}, "epochs": 1, "precision": "float32"}
    own: dict[str, dict[str, Any]] = {
        "train reward": {**few, "test": str(held_out)},
        "train dpo": few,
        "train ppo": {"len_only": 3, "steps": 1, "batch_size": 8, "max_new_tokens": 4, "precision": "float32"},
    }
    expected = {"train": {"empty": 2, "identical": 1}}
    held = {"train reward": ("val", "test"), "train dpo": ("val",), "train ppo": ()}
    for verb, settings in own.items():
        config = VERBS[verb].config_class().build({**common, **settings})
        with Run.create(config, verb=verb, name=verb.partition(" ")[2], root=tmp_path) as run:
            VERBS[verb].run(config, run)
        sets = {name: {"identical": 1} for name in held[verb]}
        assert read_json(run.folder / "summary.json")["set_aside"] == expected | sets
        log = (run.folder / "run.log").read_text(encoding="utf-8")
        assert "train: 3 rows set aside (2 empty, 1 identical); `rewardlab data doctor` shows them" in log
        assert log.count("1 row set aside (1 identical)") == len(sets)


def test_dropped_completions_are_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "lists.jsonl"
    rows = [{"prompt": "q", "completions": own} for own in (["a", "", ""], ["", "b"], ["", ""])]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    counts = set_aside_of({"train": [load(DataSource(path=str(file)))], "val": []})
    assert counts == {"train": {"empty": 1, "empty_completions_dropped": 3}}
    dropped, aside = set_aside_words(counts)
    assert dropped == "train: 3 empty completions dropped, the others of their rows are used"
    assert aside.startswith("train: 1 row set aside (1 empty);")


def test_a_training_says_it(tokenizer: Path, tmp_path: Path) -> None:
    file = toys.write_pairs(tmp_path / "pairs.jsonl", toys.pairs(8))
    model = {"shape": toys.LLAMA, "tokenizer": str(tokenizer)}
    config = RewardTraining.build(
        {"model": model, "train": str(file), "validation": {"val": str(file)}, "test": str(file), "device": "cpu"}
    )
    with Run.create(config, verb="train reward", name="run", root=tmp_path) as run:
        train_reward(config, run)
    log = (run.folder / "run.log").read_text(encoding="utf-8")
    assert "validation.val is not apart from train: of its 8 records 8 are in train too" in log
    assert log.count("is not apart from") == 3


# --- columns that were not read ------------------------------------------------------------------------------------


def table(path: Path, **row: str) -> str:
    path.write_text("".join(json.dumps(row).replace("{}", str(n)) + "\n" for n in range(8)), encoding="utf-8")
    return str(path)


def refused(verb: str, tokenizer: Path, tmp_path: Path, **settings: Any) -> str:
    model = {"model": {"shape": toys.LLAMA, "tokenizer": str(tokenizer)}}
    config = VERBS[verb].config_class().build({**model, "device": "cpu", **settings})
    with pytest.raises(InputError) as caught, Run.create(config, verb=verb, name="run", root=tmp_path) as run:
        VERBS[verb].run(config, run)
    return str(caught.value)


def test_data_without_a_preference_name_their_files_and_the_columns_left_unread(
    tokenizer: Path, tmp_path: Path
) -> None:
    """What is held out of the training data counts with it; of a set of its own the faults come in the same error."""
    file = table(tmp_path / "a.jsonl", prompt="river {}", chosen="stone {}", refused="no stone {}")
    alone = table(tmp_path / "b.jsonl", prompt="cloud {}")
    told = refused("train dpo", tokenizer, tmp_path, train=file)
    assert f"train ({file}), 8 of 8 records ({file}:1, {file}:2, {file}:3, ...): found one completion" in told
    assert "Text of the column 'refused' was not read" in told
    told = refused("train exo", tokenizer, tmp_path, train=[file, alone], validation={"dev": alone})
    assert f"train ({file}, {alone}), 8 of 16 records ({file}:1" in told
    assert f"train ({file}, {alone}), 8 of 16 records ({alone}:1" in told
    assert f"validation.dev ({alone}), 8 of 8 records ({alone}:1" in told
    assert told.count("found a prompt alone") == 2


def test_a_reward_model_cannot_be_trained_on_half_a_pair(tokenizer: Path, tmp_path: Path) -> None:
    file = table(tmp_path / "a.jsonl", prompt="river {}", good="stone {}", rejected="no stone {}")
    told = refused("train reward", tokenizer, tmp_path, train=file)
    assert "Text of the columns 'good', 'rejected' was not read" in told


@pytest.mark.parametrize("verb", ["train sft", "train reward"])
def test_data_and_a_model_that_are_not_there_are_told_together(verb: str, tokenizer: Path, tmp_path: Path) -> None:
    there = table(tmp_path / "a.jsonl", prompt="river {}", chosen="stone {}", rejected="no stone {}")
    absent, model = str(tmp_path / "pairs.jsonl"), str(tmp_path / "model")
    told = refused(verb, tokenizer, tmp_path, train=absent, model=model)
    assert f"{absent}: found no such file" in told
    assert f"{model}: found no such folder" in told
    assert "no such folder" not in refused(verb, tokenizer, tmp_path, train=absent)
    assert "no such file" not in refused(verb, tokenizer, tmp_path, train=there, model=model)
