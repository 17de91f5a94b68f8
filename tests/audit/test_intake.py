"""From rows to units: what each template reads, how W falls, what is set aside, and which units a limit draws."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from fake_hub import FakeHub

from rewardlab.audit.intake import Intake, units
from rewardlab.audit.template import attribute_template, find_template
from rewardlab.data.source import DataSource
from rewardlab.errors import ConfigError, DataError
from rewardlab.records import Message, Prompt, SetAside


def user(text: str) -> Prompt:
    return Prompt((Message("user", text),))


def write(path: Path, *rows: Any) -> DataSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSource(path=str(path))


def found(intake: Intake) -> list[tuple[str, bool]]:
    return [(unit.response, unit.treated) for unit in intake.units]


def reasons(intake: Intake) -> list[tuple[int, str]]:
    return [(item.source.row, item.reason) for item in intake.set_aside]


def on_the_hub(monkeypatch: pytest.MonkeyPatch, rows: Sequence[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """A hub with one dataset, whatever is asked for; gives what was asked for."""
    asked: list[tuple[str, str | None]] = []

    def load_dataset(hub_id: str, *, data_dir: str | None = None, **options: Any) -> datasets.DatasetDict:
        asked.append((hub_id, data_dir))
        return datasets.DatasetDict(
            {"train": datasets.Dataset.from_list(list(rows)), "test": datasets.Dataset.from_list([])}
        )

    monkeypatch.setattr("rewardlab.store.hub.HfApi", FakeHub())
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_imdb_templates_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "A" * 970, "label": 1}, {"text": "b" * 971, "label": 0}, {"text": "Ok", "label": -1}]
    assert on_the_hub(monkeypatch, rows) == []
    length = units(find_template("imdb_length"))
    assert [unit.treated for unit in length.units] == [False, True, False]
    assert {unit.prompt for unit in length.units} == {user("Write a movie review: ")}
    assert length.threshold == 970
    sentiment = units(find_template("imdb_sentiment"))
    assert [unit.treated for unit in sentiment.units] == [True, False]
    assert reasons(sentiment) == [(3, "neither")]
    assert "label is -1" in sentiment.set_aside[0].detail
    assert [unit.treated for unit in units(find_template("imdb_vowels")).units] == [True, False, True]


def test_eli5_is_the_median_of_all_answers(tmp_path: Path) -> None:
    source = write(
        tmp_path / "eli5.jsonl",
        {"title": "Why?", "answers": {"text": ["aaaa", "bb"]}},
        {"title": "How?", "answers": {"text": ["c", "ddd", " "]}},
        {"title": "Who?", "answers": {"text": []}},
    )
    template = find_template("eli5_length")
    intake = units(template, source)
    assert intake.threshold == 2.5
    assert found(intake) == [("aaaa", True), ("bb", False), ("c", False), ("ddd", True)]
    assert [unit.prompt for unit in intake.units] == [user("Why?")] * 2 + [user("How?")] * 2
    assert reasons(intake) == [(2, "empty"), (3, "no_response")]
    # A smaller sample does not move the median.
    assert units(template, source, limit=1).threshold == 2.5


def test_helpsteer_skips_what_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [4, 3, 2, 0, None, 5]
    rows = [{"prompt": "q", "response": f"r{i}", "complexity": score, "verbosity": 1} for i, score in enumerate(scores)]
    on_the_hub(monkeypatch, rows)
    intake = units(find_template("helpsteer_complexity"))
    assert found(intake) == [("r0", True), ("r1", True), ("r2", False), ("r3", False)]
    assert reasons(intake) == [(5, "neither"), (6, "neither")]
    assert intake.units[0].meta == {"complexity": 4, "verbosity": 1}


HH = "\n\nHuman: Hi \n\nAssistant: Hello!\n\nHuman: And?\n\nAssistant: "


def test_hh_templates_read_turns_sides_and_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"chosen": f"{HH}good {i}", "rejected": f"{HH}bad {i}\n\nHuman: more"} for i in range(3)]
    asked = on_the_hub(monkeypatch, [*rows, {"chosen": f"{HH}same", "rejected": f"{HH}same"}])
    helpful = units(find_template("hh_helpfulness", {"last": 3}))
    folders = ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]
    assert asked == [("Anthropic/hh-rlhf", folder) for folder in folders]
    assert found(helpful) == [("good 1", True), ("bad 1", False), ("good 2", True), ("bad 2", False)]
    assert helpful.units[0].prompt == Prompt(
        (Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "And?"))
    )
    assert [item.reason for item in helpful.set_aside] == ["both", "both"]
    harmless = units(find_template("hh_harmlessness", {"first": 2}))
    assert found(harmless) == [("bad 0", True), ("bad 1", True)]

    class Good:
        name = "good"

        def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float]]:
            return [[float(text.count("bad 1"))] for (text,) in completions]

    names: list[str] = []

    def load_model(name: str) -> Good:
        names.append(name)
        return Good()

    changes = {"treated": {"against": None}}
    response = units(find_template("hh_sentiment", changes), load_model=load_model)
    assert {unit.prompt for unit in response.units} == {user("Hi")}
    assert set(found(response)) == {("Hello!", False)}
    changes = {"treated": {"against": None, "of": "transcript"}, "last": 3}
    # The first answers are alike, so that one transcript makes the text positive and the others do not.
    with pytest.raises(DataError, match=r"(?s)nothing to audit.*3 both.*W = 1 and with W = 0"):
        units(find_template("hh_sentiment", changes), load_model=load_model)
    assert names == ["distilbert_positive"] * 2


def test_any_known_format_with_an_attribute(tmp_path: Path) -> None:
    source = write(
        tmp_path / "pairs.jsonl",
        {"prompt": "q", "chosen": "a long answer", "rejected": "short", "tag": 7},
        {"prompt": "p", "chosen": "mid size", "rejected": "x"},
        {"prompt": "p", "chosen": "y", "rejected": "y"},
    )
    intake = units(attribute_template("length"), source)
    assert intake.threshold == 6.5
    assert found(intake) == [("a long answer", True), ("short", False), ("mid size", True), ("x", False)]
    assert (intake.units[0].meta["tag"], intake.units[0].meta["side"], intake.units[1].meta["side"]) == (
        7,
        "chosen",
        "rejected",
    )
    assert intake.units[0].prompt == Prompt.of_text("q")
    assert reasons(intake) == [(3, "identical")]
    assert found(units(attribute_template("length", {"sides": ["rejected"]}), source)) == [
        ("short", True),
        ("x", False),
    ]
    rated = write(tmp_path / "rated.jsonl", *({"prompt": "q", "completion": f"c{i}", "score": i} for i in range(3)))
    by_score = attribute_template("length", {"treated": {"measure": None, "column": "score", "above": 1}})
    assert found(units(by_score, rated)) == [("c0", False), ("c1", False), ("c2", True)]
    prompts = write(tmp_path / "prompts.jsonl", {"prompt": "q"})
    with pytest.raises(DataError, match=r"(?s)nothing to audit.*1 no_completion.*Say which column is the answer"):
        units(attribute_template("length"), prompts)


def test_a_limit_draws_by_content_and_is_nested(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": f"answer {i}" * (1 + i % 3)} for i in range(400)]
    source, turned = write(tmp_path / "a.jsonl", *rows), write(tmp_path / "b.jsonl", *reversed(rows))
    template = attribute_template("length")
    few, more = (units(template, source, limit=limit) for limit in (40, 120))
    assert [len(few.units), len(more.units)] == [40, 120]
    assert {unit.id for unit in few.units} < {unit.id for unit in more.units}
    assert {unit.id for unit in units(template, turned, limit=40).units} == {unit.id for unit in few.units}
    assert {unit.id for unit in units(template, source, limit=40, seed=1).units} != {unit.id for unit in few.units}
    assert [unit.source.row for unit in few.units if unit.source] == sorted(
        unit.source.row for unit in few.units if unit.source
    )
    # 40 of 400 drawn evenly: the mean row is 200.5 with standard error 400/sqrt(12)/sqrt(40) = 18.
    assert abs(sum(unit.source.row for unit in more.units if unit.source) / 120 - 200.5) < 4 * 10.6
    again = write(tmp_path / "c.jsonl", rows[0], rows[0], rows[1])
    assert (units(template, again).counts["duplicates"], len(units(template, again, limit=2).units)) == (1, 2)


def test_typos_come_after_w_and_into_its_group_alone(tmp_path: Path) -> None:
    texts = ["An interesting picture about friendship", "The interesting picture about friendship"]
    source = write(tmp_path / "r.jsonl", *({"text": text} for text in texts))
    intake = units(find_template("imdb_vowels", {"typos": 1.0}), source)
    treated, plain = intake.units
    assert (treated.treated, plain.treated, plain.response) == (True, False, texts[1])
    assert treated.response != texts[0]
    assert Counter(treated.response) == Counter(texts[0])
    assert treated.response.startswith("An ")
    assert intake == units(find_template("imdb_vowels", {"typos": 1.0}), source)


def test_all_problems_at_once(tmp_path: Path) -> None:
    source = write(
        tmp_path / "r.jsonl", {"prompt": "q", "response": 3, "complexity": 1}, {"prompt": [1], "response": "a"}
    )
    with pytest.raises(DataError) as caught:
        units(find_template("helpsteer_complexity"), source)
    where = [problem.where.rpartition("/")[2] for problem in caught.value.problems]
    assert where == ['r.jsonl:1, column "response"', 'r.jsonl:2, column "prompt"', 'r.jsonl:2, column "complexity"']
    with pytest.raises(DataError, match="'text', which the template imdb_sentiment reads") as caught:
        units(find_template("imdb_sentiment"), write(tmp_path / "s.jsonl", {"review": "a"}))
    assert len(caught.value.problems) == 2
    with pytest.raises(DataError, match="no such file"):
        units(find_template("imdb_length"), DataSource(path=str(tmp_path / "none.jsonl")))
    with pytest.raises(DataError, match="a string"):
        units(find_template("hh_harmlessness"), write(tmp_path / "h.jsonl", {"chosen": "a", "rejected": 3}))
    with pytest.raises(ConfigError, match="nothing to read"):
        units(find_template("eli5_length"))
    mapped = DataSource(path=str(tmp_path / "s.jsonl"), columns={"response": "review"})
    assert found(units(find_template("imdb_length"), mapped)) == [("a", False)]


def test_dialogues_without_an_answer_are_set_aside(tmp_path: Path) -> None:
    rows = ["no marks", "\n\nHuman: q", "\n\nAssistant: a", "\n\nHuman: q\n\nAssistant: ", f"{HH}fine"]
    source = write(tmp_path / "h.jsonl", *({"chosen": "x", "rejected": row} for row in rows))
    intake = units(find_template("hh_harmlessness"), source)
    assert [item.reason for item in intake.set_aside] == ["no_dialogue", "no_answer", "no_answer", "empty"]
    assert found(intake) == [("fine", True)]
    assert all(isinstance(item, SetAside) for item in intake.set_aside)


def test_published_transcripts(shared: Path) -> None:
    """Counts of the test splits: 36 pairs with identical sides and 11 empty last turns are known."""
    intake = units(find_template("hh_helpfulness"), DataSource(path=str(shared / "data/hh-rlhf")))
    assert intake.counts["rows"] == 2312 + 2354 + 1137 + 2749
    assert intake.counts["set_aside"]["empty"] == 4 + 4 + 3 + 0
    # Beside the identical pairs, one answer was chosen in one row and rejected in another.
    assert intake.counts["set_aside"]["both"] == 2 * (0 + 2 + 2 + 32) + 2
    assert len(intake.units) + len(intake.set_aside) == 2 * intake.counts["rows"]


def test_human_counterfactuals_as_a_template_of_ones_own(shared: Path) -> None:
    """Each of the 488 test pairs has one review of either sentiment; one was not rewritten at all."""
    changes = {
        "columns": {"response": "Text"},
        "treated": {"column": "Sentiment", "one": ["positive"], "zero": ["negative"]},
    }
    source = DataSource(path=str(shared / "data/counterfactual-imdb/test_paired.tsv"))
    intake = units(find_template("imdb_sentiment", changes), source)
    assert (intake.counts["rows"], intake.counts["treated"], intake.counts["untreated"]) == (976, 487, 487)
    assert intake.counts["set_aside"] == {"both": 2}
