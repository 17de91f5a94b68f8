"""From a source to records: detection, column maps, limits, options; all problems in one error."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from fake_hub import COMMIT, FakeHub
from huggingface_hub.errors import HFValidationError
from pydantic import Field

from rewardlab.config import Config
from rewardlab.data.load import DataSource, load, load_all
from rewardlab.data.source import Sources, with_limit
from rewardlab.errors import ConfigError, DataError
from rewardlab.records import Candidates, Message, Pair, Prompt

HH_ROW = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}


def write(path: Path, *rows: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"q{i}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(count)]


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """No test asks the real one."""
    hub = FakeHub()
    monkeypatch.setattr("rewardlab.store.hub.HfApi", hub)
    return hub


def test_a_path_stands_for_a_source_and_one_source_for_a_list() -> None:
    class Reading(Config):
        data: Sources = Field(min_length=1)
        named: dict[str, DataSource] = Field(default_factory=dict)

    one = DataSource(path="a.jsonl")
    assert Reading.build({"data": "a.jsonl"}).data == [one]
    assert Reading.build({"data": {"path": "a.jsonl", "limit": 3}}).data == [DataSource(path="a.jsonl", limit=3)]
    assert Reading.build({"data": ["a.jsonl", {"path": "b.csv"}]}).data == [one, DataSource(path="b.csv")]
    assert Reading(data=one).data == [one]
    typed = Reading.build(flags=[("data", "a.jsonl"), ("named.val", "a.jsonl"), ("named.test.path", "0123")])
    assert (typed.data, typed.named) == ([one], {"val": one, "test": DataSource(path="0123")})
    assert Reading.build(flags=[("data.path", "a.jsonl")]).data == [one]
    assert Reading.build(flags=[("data", "a.jsonl"), ("data", "b.csv")]).data == [one, DataSource(path="b.csv")]
    assert Reading.build({"data": "c.tsv"}, flags=[("data", "[]"), ("data", "a.jsonl")]).data == [one]
    more = [("data", "a.jsonl"), ("data.limit", "3"), ("named.val", "a.jsonl"), ("named.val.limit", "3")]
    limited = DataSource(path="a.jsonl", limit=3)
    assert Reading.build(flags=more) == Reading(data=limited, named={"val": limited})
    with pytest.raises(ConfigError, match="data: found \\[\\]; expected at least 1 item"):
        Reading.build({"data": []})
    with pytest.raises(ConfigError, match=r"--named: found 'a\.jsonl'; expected a mapping of names to values\. Write"):
        Reading.build(flags=[("data", "a.jsonl"), ("named", "a.jsonl")])


def test_a_file_is_read_with_positions_reasons_and_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *rows(2), {"prompt": "q", "chosen": "same", "rejected": "same"})
    loaded = load(DataSource(path=path))
    assert loaded.adapter == "preference"
    assert [str(record.source) for record in loaded.records] == [f"{path}:1", f"{path}:2"]
    assert [(item.reason, item.source.row) for item in loaded.set_aside] == [("identical", 3)]
    (file,) = loaded.files
    assert file.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert (file.name, file.rows) == (path, 3)


@pytest.mark.parametrize(
    ("good", "broken", "adapter", "column"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "a"}, "preference", "rejected"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q", "rejcted": "b"}, "preference", "rejected"),
        (HH_ROW, {"chosen": HH_ROW["chosen"]}, "hh-rlhf", "rejected"),
        ({"prompt": "q", "completion": "a", "label": True}, {"prompt": "q", "completion": "a"}, "labelled", "label"),
        ({"prompt": "q", "completions": ["a"]}, {"prompt": "q"}, "k-way", "completions"),
    ],
)
@pytest.mark.parametrize("place", [1, 6, 9])
def test_a_broken_row_is_named_and_makes_its_file_no_other_format(
    tmp_path: Path, place: int, good: dict[str, Any], broken: dict[str, Any], adapter: str, column: str
) -> None:
    whole = write(tmp_path / "whole.jsonl", *[good] * 8)
    assert load(DataSource(path=whole)).adapter == adapter
    path = write(tmp_path / "p.jsonl", *[good] * (place - 1), broken, *[good] * (9 - place))
    with pytest.raises(DataError) as error:
        load(DataSource(path=path))
    assert f'{path}:{place}, column "{column}": found no such column' in str(error.value)
    assert {problem.where.partition(",")[0] for problem in error.value.problems} == {f"{path}:{place}"}


def test_a_library_is_no_format_but_its_formats_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *rows(1))
    with pytest.raises(DataError, match=r"found 'TRL'; expected a known format\. TRL's formats are preference \("):
        load(DataSource(path=path, adapter="TRL"))


def test_where_few_rows_have_more_columns_their_file_is_of_what_all_have(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *rows(3), {"prompt": "q"}, {"prompt": "r"}, {"prompt": "s"})
    assert load(DataSource(path=path)).adapter == "prompt"


def test_an_explicit_format_wins_over_what_the_columns_look_like(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", HH_ROW)
    assert load(DataSource(path=path)).adapter == "hh-rlhf"
    loaded = load(DataSource(path=path, adapter="preference"))
    assert loaded.records[0].prompt == Prompt.of_text("\n\nHuman: q\n\nAssistant:")


def test_columns_are_mapped_and_the_rest_goes_to_meta(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"question": "q", "good": "a", "bad": "b", "who": 3})
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    (record,) = load(DataSource(path=path, columns=columns)).records
    assert record == Pair(Prompt.of_text("q"), "a", "b", None, record.source)
    assert record.meta == {"who": 3}


def test_the_limit_counts_rows_over_all_files(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *rows(3))
    write(tmp_path / "b.jsonl", *rows(3))
    loaded = load(DataSource(path=str(tmp_path), limit=4))
    assert [file.rows for file in loaded.files] == [3, 1]


def test_prompts_can_be_read_as_user_turns_and_answers_stripped(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        {"prompt": "q", "chosen": " a\n", "rejected": "b"},
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], **rows(1)[0]},
    )
    one = load(DataSource(path=path, prompt_role="user", strip=True, limit=1)).records[0]
    assert one == Pair(Prompt((Message("user", "q"),)), "a", "b", None, one.source)
    path = write(tmp_path / "k.jsonl", {"prompt": "q", "completions": ["a ", " b"], "rewards": [1, 0]})
    (several,) = load(DataSource(path=path, strip=True)).records
    assert isinstance(several, Candidates)
    assert several.completions == ("a", "b")


def test_one_error_tells_everything_that_is_wrong(tmp_path: Path) -> None:
    bad = [{"prompt": "q", "chosen": 1, "rejected": 2}] * 30
    path = write(tmp_path / "p.jsonl", *rows(1), *bad)
    with pytest.raises(DataError) as error:
        load(DataSource(path=path))
    assert len(error.value.problems) == 60
    message = str(error.value)
    assert message.splitlines()[0] == "the data cannot be used: 60 problems"
    assert f'{path}:2, column "chosen": found 1; expected a string' in message
    assert message.endswith("... and 40 more (60 in all)")


def test_broken_lines_and_wrong_columns_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n{broken\n', encoding="utf-8")
    write(tmp_path / "b.jsonl", {"prompt": "q", "chosen": 3, "rejected": "b"})
    with pytest.raises(DataError) as error:
        load(DataSource(path=str(tmp_path)))
    assert len(error.value.problems) == 2


def test_a_column_that_no_row_has_is_told_once(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *({"prompt": "q", "choosen": "a", "rejected": "b"} for _ in range(50)))
    with pytest.raises(DataError) as error:
        load(DataSource(path=path, adapter="preference"))
    (problem,) = error.value.problems
    assert problem.where == f'{path}, column "chosen"'
    assert problem.found == "columns 'prompt', 'choosen', 'rejected'"
    assert 'Did you mean "choosen"?' in problem.remedy
    assert "columns: {chosen: their name}" in problem.remedy


def test_a_column_that_some_rows_lack_is_told_by_row(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *rows(2), {"prompt": "q", "chosen": "a"})
    with pytest.raises(DataError, match=r':3, column "rejected": found no such column'):
        load(DataSource(path=path, adapter="preference"))


def test_unknown_columns_say_where_the_known_formats_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"words": "x"})
    with pytest.raises(DataError) as error:
        load(DataSource(path=path))
    (problem,) = error.value.problems
    assert problem.found == "columns 'words'"
    assert "`rewardlab data formats` lists them." in problem.remedy


@pytest.mark.parametrize(
    ("row", "place", "told"),
    [
        ({"chosen": "a", "rejcted": "b"}, "", 'Did you mean "rejected" by "rejcted"?'),
        # Without a second look these would be answers without rejected ones, and pairs without a prompt.
        ({"prompt": "q", "chosen": "a", "rejcted": "b"}, ', column "rejcted"', "`columns: {rejected: rejcted}`"),
        ({"promt": "q", "chosen": "a", "rejected": "b"}, ', column "promt"', "`columns: {prompt: promt}`"),
    ],
)
def test_a_misspelt_column_is_told_with_the_one_that_is_meant(
    row: dict[str, str], place: str, told: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "p.jsonl", row)
    with pytest.raises(DataError) as error:
        load(DataSource(path=path))
    (problem,) = error.value.problems
    assert (problem.where, told in problem.remedy) == (f"{path}{place}", True)
    if place:
        right = dict(zip(("prompt", "chosen", "rejected"), row, strict=True))
        assert isinstance(load(DataSource(path=path, columns=right)).records[0], Pair)


def test_misspelt_formats_and_columns_name_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *rows(1))
    with pytest.raises(DataError, match='Did you mean "preference"'):
        load(DataSource(path=path, adapter="preferences"))
    with pytest.raises(DataError, match='Did you mean "chosen"'):
        load(DataSource(path=path, columns={"choosen": "a"}))
    with pytest.raises(DataError, match="known format"):
        load(DataSource(path=path, adapter="xyz"))
    with pytest.raises(DataError, match="a hub id as path"):
        load(DataSource(path=path, revision="v1"))
    with pytest.raises(ConfigError, match='Did you mean "split"'):
        DataSource.build({"path": path, "spilt": "test"})


def test_problems_of_several_sources_come_in_one_error(tmp_path: Path) -> None:
    sources = [DataSource(path=str(tmp_path / name)) for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(DataError) as error:
        load_all(sources)
    assert [problem.found for problem in error.value.problems] == ["no such file", "no such file"]


@pytest.mark.parametrize("name", ["{subset}.{split}.jsonl", "{subset}/{split}.jsonl"])
def test_hh_folders_in_both_layouts(name: str, tmp_path: Path) -> None:
    for subset in ("harmless-base", "helpful-base", "red-team-attempts"):
        for split in ("train", "test"):
            write(tmp_path / name.format(subset=subset, split=split), HH_ROW)
    loaded = load(DataSource(path=str(tmp_path), adapter="hh-rlhf", split="test"))
    assert [record.meta for record in loaded.records] == [
        {"subset": "harmless-base", "split": "test"},
        {"subset": "helpful-base", "split": "test"},
    ]
    one = load(DataSource(path=str(tmp_path), adapter="hh-rlhf", split="train", subsets=("helpful-base",)))
    assert [record.meta for record in one.records] == [{"subset": "helpful-base", "split": "train"}]
    with pytest.raises(DataError, match="'helpful'; expected one of harmless-base"):
        load(DataSource(path=str(tmp_path), adapter="hh-rlhf", split="test", subsets=("helpful",)))
    with pytest.raises(DataError, match="no split asked for"):
        load(DataSource(path=str(tmp_path), adapter="hh-rlhf"))


def test_hh_from_the_hub_reads_a_folder_a_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[str] = []

    def load_dataset(hub_id: str, *, name: str | None, data_dir: str, revision: str | None) -> datasets.DatasetDict:
        folders.append(data_dir)
        return datasets.DatasetDict({"test": datasets.Dataset.from_list([HH_ROW])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = load(DataSource(path="Anthropic/hh-rlhf", split="test"))
    assert loaded.adapter == "hh-rlhf"
    assert folders == ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]
    assert Counter(record.meta["subset"] for record in loaded.records) == dict.fromkeys(folders, 1)
    assert loaded.files[0].name == "Anthropic/hh-rlhf/harmless-base:test"
    assert {file.commit for file in loaded.files} == {COMMIT}


def test_a_generic_hub_id_reads_each_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(hub_id: str, *, name: str | None, **options: Any) -> datasets.DatasetDict:
        row = {"prompt": str(name), "chosen": "a", "rejected": "b"}
        return datasets.DatasetDict({"train": datasets.Dataset.from_list([row])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = load(DataSource(path="owner/pairs", subsets=("x", "y"), split="train"))
    assert [record.prompt.messages[0].content for record in loaded.records] == ["x", "y"]


def test_a_subset_with_a_slash_is_a_folder_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str | None, str | None]] = []

    def load_dataset(_: str, *, name: str | None, data_dir: str | None, **options: Any) -> datasets.DatasetDict:
        asked.append((name, data_dir))
        row = {"question": "q", "response_j": "a", "response_k": "b"}
        return datasets.DatasetDict({"train": datasets.Dataset.from_list([row])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = load(DataSource(path="lvwerra/stack-exchange-paired", subsets=("data/reward",), split="train"))
    assert asked == [(None, "data/reward")]
    assert [(pair.chosen, pair.rejected) for pair in loaded.records if isinstance(pair, Pair)] == [("a", "b")]


def test_a_hub_split_without_rows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"prompt": [], "chosen": [], "rejected": []})})
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: empty)
    for adapter in ("auto", "preference"):
        with pytest.raises(DataError, match="owner/none: found no rows"):
            load(DataSource(path="owner/none", adapter=adapter))


def test_names_on_the_hub_are_tied_to_a_commit_and_files_are_left_alone(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reading(Config):
        data: Sources = Field(min_length=1)
        named: dict[str, DataSource] = Field(default_factory=dict)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    local = DataSource(path=write(tmp_path / "p.jsonl", *rows(1)))
    reading = Reading(data=[local, DataSource(path="owner/pairs", limit=3)], named={"a": DataSource(path="owner/a")})
    tied = DataSource(path="owner/pairs", limit=3, revision=COMMIT)
    assert reading.pinned() == Reading(data=[local, tied], named={"a": DataSource(path="owner/a", revision=COMMIT)})
    for silence in (ConnectionError("no route to host"), HFValidationError("no such name")):
        hub.answer = silence
        assert reading.pinned() == reading
    # What was read here last is what would be read again.
    hub.answer = ConnectionError("no route to host")
    for age, commit in enumerate(("new", "old")):
        folder = tmp_path / "cache/datasets--owner--pairs/snapshots" / commit
        folder.mkdir(parents=True)
        os.utime(folder, (1000 - age, 1000 - age))
    assert [source.revision for source in reading.pinned().data] == [None, "new"]
    assert DataSource(path="owner/pairs", revision="v1").pinned().revision == "v1"


def test_the_smaller_limit_holds() -> None:
    assert with_limit(DataSource(path="x", limit=3), 5).limit == 3
    assert with_limit(DataSource(path="x", limit=7), 5).limit == 5
    assert with_limit(DataSource(path="x"), 5).limit == 5
    assert with_limit(DataSource(path="x"), None).limit is None
