"""The data doctor on data whose faults are known because they were put there."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import word_tokenizer

from rewardlab.data import cues
from rewardlab.data.checks import Check
from rewardlab.data.cues import is_finished, summary
from rewardlab.data.doctor import DataDoctor, doctor, examine, format_doctor
from rewardlab.data.load import Loaded
from rewardlab.data.overlap import ngrams
from rewardlab.data.prepare import DataPreparation, prepare
from rewardlab.data.render import render
from rewardlab.data.tokenize import Encoder, Encoding
from rewardlab.errors import DataError, ModelError
from rewardlab.records import Candidates, Message, Pair, Prompt, Record, SetAside, Source
from rewardlab.store.files import read_json, read_jsonl


def loaded(records: Sequence[Record], aside: Sequence[SetAside] = ()) -> Loaded:
    return Loaded(tuple(records), tuple(aside), "test", ())


def pair(chosen: str = "good.", rejected: str = "bad.", question: str = "q", **more: Any) -> Pair:
    return Pair(Prompt((Message("user", question),)), chosen, rejected, None, Source("f", 1), more)


def check(name: str, *sets: Sequence[Record], **options: Any) -> Check:
    named = {f"set{number}": loaded(records) for number, records in enumerate(sets)}
    (found,) = (item for item in examine(named, **options) if item.name == name)
    return found


CLEAN = [pair(f"good {i}.", f"nice {i}.", f"question {i}?") for i in range(200)]


def test_clean_data_have_no_findings() -> None:
    found = {item.name: (item.count, item.severity) for item in examine({"all": loaded(CLEAN)})}
    assert {name for name, (_, severity) in found.items() if severity not in ("ok", "skipped")} == set()
    assert {name for name, (_, severity) in found.items() if severity == "skipped"} == {
        "leakage_ids",
        "leakage_roots",
        "doubled_bos",
        "missing_eos",
        "overlap",
    }


def test_rows_set_aside_are_counted_by_reason_and_set() -> None:
    aside = [SetAside(Source("f", n), reason, "why", {"chosen": "x"}) for n, reason in enumerate(REASONS)]
    checks = {item.name: item for item in examine({"a": loaded(CLEAN), "b": loaded([], aside)})}
    assert [checks[name].count for name in ("identical_sides", "empty_answers", "other_set_aside")] == [2, 1, 2]
    assert checks["other_set_aside"].numbers["by_reason"] == {"several_turns": 1, "tie": 1}
    assert checks["identical_sides"].numbers["by_set"] == {"a": 0, "b": 2}
    assert checks["identical_sides"].total == 206
    assert checks["prefix_mismatch"].numbers["set_aside"] == 1
    assert checks["identical_sides"].examples[0]["source"] == "f:0"


REASONS = ["identical", "empty", "tie", "identical", "several_turns", "prefix_mismatch"]


def test_dialogues_that_part_early() -> None:
    found = check("prefix_mismatch", [*CLEAN, pair(dropped_turns=2), pair(dropped_turns=1)])
    assert (found.count, found.numbers["used_up_to_first_difference"]) == (2, 2)
    assert found.examples[0]["note"] == "2 later turns left out"


def test_empty_turns_in_prompts() -> None:
    silent = Pair(Prompt((Message("user", "q"), Message("assistant", " "), Message("user", "?"))), "a.", "b.")
    assert check("empty_turns", [*CLEAN, silent]).count == 1


def test_duplicates_within_a_set_and_the_other_way_round() -> None:
    twice = [*CLEAN, CLEAN[3], CLEAN[3], CLEAN[5]]
    assert check("duplicates", twice).count == 3
    assert check("duplicates", CLEAN, CLEAN).count == 0
    reversed_pair = Pair(CLEAN[7].prompt, CLEAN[7].rejected, CLEAN[7].chosen)
    found = check("conflicting_duplicates", CLEAN, [reversed_pair])
    assert (found.count, found.total) == (2, 201)
    assert found.numbers["by_set"] == {"set0": 1, "set1": 1}


def test_leakage_between_sets_by_id_and_by_root() -> None:
    same_root = Pair(Prompt((*CLEAN[1].prompt.messages, Message("assistant", "x"))), "a.", "b.")
    other = [CLEAN[0], same_root, pair(question="new")]
    ids, roots = check("leakage_ids", CLEAN, other), check("leakage_roots", CLEAN, other)
    assert (ids.count, ids.total, ids.severity) == (1, 3, "problem")
    assert (roots.count, roots.numbers["between"]) == (2, {"set0 / set1": 2})
    assert roots.examples[0]["note"] == "set1, also in set0"
    assert check("leakage_roots", CLEAN, [pair(question="new")]).severity == "ok"


def test_the_leak_of_a_random_split_is_what_random_splits_leak() -> None:
    """Against simulation: 200 random 10 % test halves, their rows drawn independently."""
    records = [pair(f"a{turn}.", f"b{turn}.", f"q{root}") for root in range(300) for turn in range(1 + root % 3)]
    roots = np.array([record.prompt.root_id for record in records])
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        test = generator.random(len(records)) < 0.1
        shares.append(np.isin(roots[test], roots[~test]).mean())
    found = check("shared_roots", records).numbers["leak_of_random_split"]
    assert found == pytest.approx(np.mean(shares), abs=4 * np.std(shares) / np.sqrt(200))


@pytest.mark.parametrize(
    ("cue", "chosen", "rejected"),
    [
        ("leading_whitespace", "good.", " bad."),
        ("trailing_whitespace", "good. ", "bad."),
        ("final_newline", "good.", "bad.\n"),
        ("carriage_return", "go\rod.", "bad."),
    ],
)
def test_whitespace_that_tells_the_sides_apart(cue: str, chosen: str, rejected: str) -> None:
    telling = [pair(chosen, rejected, f"t{i}") for i in range(40)]
    found = check("whitespace_cues", [*CLEAN, *telling])
    assert (found.count, found.total, found.severity) == (40, 240, "problem")
    numbers = found.numbers[cue]
    assert numbers["tells"] == 40
    right = chosen != "good."
    assert numbers["chosen_when_told"]["value"] == (1.0 if right else 0.0)
    assert numbers["accuracy"]["value"] == pytest.approx(0.5 + (0.5 if right else -0.5) * 40 / 240)
    assert numbers["accuracy"]["low"] < numbers["accuracy"]["value"] < numbers["accuracy"]["high"]


def test_whitespace_that_is_on_both_sides_or_at_random_is_no_problem() -> None:
    both = [pair(" good.", " bad.", f"t{i}") for i in range(40)]
    assert check("whitespace_cues", [*CLEAN, *both]).count == 0
    draw = random.Random(0)
    noise = [pair(*draw.sample([" good.", "bad."], 2), f"t{i}") for i in range(200)]
    found = check("whitespace_cues", noise)
    assert (found.count, found.severity) == (200, "warning")


def text_pair(prompt: str, chosen: str, rejected: str) -> Pair:
    return Pair(Prompt.of_text(prompt), chosen, rejected, None, Source("f", 1))


def test_prompts_that_run_on_into_their_answers() -> None:
    apart = [
        text_pair("Which flavor?\n", "Any.", "None."),
        text_pair("Which flavor?", " Any.", "\nNone."),
        text_pair("", "Any.", "None."),
        pair("Any.", "None.", "Which flavor?"),
    ]
    glued = [text_pair("Which flavor?", "Any.", "None."), text_pair("Which flavor?", " Any.", "None.")]
    assert (check("touching_prompts", apart).count, check("touching_prompts", apart).severity) == (0, "ok")
    found = check("touching_prompts", [*apart, *glued])
    assert (found.count, found.total, found.severity) == (2, 6, "warning")
    assert "`prompt_role: user`" in found.reading
    assert "Which flavor?Any." in found.examples[0]["note"]
    assert check("touching_prompts", [*CLEAN, *glued[:1]]).severity == "note"
    parted = {"encoding": Encoding(template="Q: {prompt}\nA: {completion}")}
    assert check("touching_prompts", glued, **parted).count == 0
    assert check("touching_prompts", glued, encoding=Encoding(template="{prompt}{completion}")).count == 2


def test_excerpts_are_readable_and_steer_no_terminal() -> None:
    texts = ["it\u2019s größe 味は?\x1b[31m\u202e ", "b."]
    told = check("whitespace_cues", [*CLEAN, *[pair(texts[0], texts[1], f"q{i}") for i in range(9)]])
    shown = told.examples[0]["ends"]["chosen"]
    assert "it\u2019s größe 味は?" in shown
    assert "\\x1b[31m\\u202e" in shown
    assert "\x1b" not in shown
    assert "größe" in check("cut_off", [pair("größe", "b.")]).examples[0]["note"]


def test_special_tokens_in_the_text() -> None:
    marked = [pair(question="<s>[INST] q"), pair("good.</s>", question="x"), pair("a <b> c.", question="y")]
    found = check("special_tokens", [*CLEAN, *marked])
    assert (found.count, found.severity) == (2, "note")
    assert found.numbers == {"by_mark": {"<s>": 1, "</s>": 1}}
    assert "other tools" in found.reading
    assert check("special_tokens", [*CLEAN, *marked[:1] * 3]).severity == "warning"
    assert check("special_tokens", [pair(question="<|im_start|>user")]).count == 1


BEGINNINGS = [Pair(Prompt.of_text(text), " w2", " w3") for text in ("w1", "<s> w1", "<s> <s> w1", "w1 <s> <s>")]


def test_a_bos_in_the_text_stays_the_only_one_and_two_are_counted() -> None:
    encoder = Encoder(word_tokenizer(), Encoding(max_tokens=32))
    found = check("doubled_bos", BEGINNINGS, encoder=encoder)
    assert (found.count, found.total, found.severity) == (2, 8, "warning")
    assert [item["prompt"] for item in found.examples] == ["<s> <s> w1"]
    assert check("doubled_bos", BEGINNINGS[:2], encoder=encoder).severity == "ok"


def test_sequences_without_eos_are_counted() -> None:
    records = [Pair(Prompt.of_text("w1"), " w2 </s>", " w3"), Candidates(Prompt.of_text("w1"), (" w4",))]
    appended, bare = (Encoder(word_tokenizer(), Encoding(max_tokens=32, append_eos=eos)) for eos in (True, False))
    assert check("missing_eos", records, encoder=appended).count == 0
    found = check("missing_eos", records, encoder=bare)
    assert (found.count, found.total, found.severity) == (2, 3, "warning")


def test_without_the_token_there_is_nothing_to_count() -> None:
    encoder = Encoder(word_tokenizer("$A", bos_token=None, eos_token=None), Encoding(max_tokens=32))
    for name in ("doubled_bos", "missing_eos"):
        found = [check(name, BEGINNINGS), check(name, BEGINNINGS, encoder=encoder)]
        assert [(item.count, item.severity) for item in found] == [(None, "skipped")] * 2
        assert [item.reading for item in found] == ["Needs a tokenizer.", "The tokenizer has no such token."]


@pytest.mark.parametrize(
    "text", ["Yes.", "Yes!\n", "really? ", "(so)", '"so"', "a 1", "`x`", "wow 😀", "好。", "1. a:"]
)
def test_finished_texts(text: str) -> None:
    assert is_finished(text)


@pytest.mark.parametrize("text", ["and then", "such as,", "the (", "I was", "こんにち"])
def test_texts_that_stop_in_the_middle(text: str) -> None:
    assert not is_finished(text)


def test_cut_off_answers_and_what_they_tell() -> None:
    cut = [pair("All is said.", "and then", f"t{i}") for i in range(50)]
    found = check("cut_off", [*CLEAN, *cut])
    assert (found.count, found.total, found.severity) == (50, 500, "warning")
    finished = found.numbers["finished"]
    assert (finished["share_chosen"], finished["share_rejected"]) == (1.0, 0.8)
    assert finished["accuracy"]["value"] == pytest.approx(0.5 + 0.5 * 50 / 250)


def test_odd_characters() -> None:
    odd = [pair("a\ud800."), pair("a\x00.", question="\ufeffq"), pair("caf\ufffd."), pair("tab\tnew\nline.")]
    found = check("odd_characters", odd)
    assert found.count == 3
    assert found.numbers["by_kind"] == {
        "lone_surrogate": 1,
        "nul": 1,
        "byte_order_mark": 1,
        "replacement_character": 1,
    }


def test_lengths_against_numpy() -> None:
    values = [3, 1, 4, 1, 5, 9, 2, 6]
    found = summary(values)
    assert (found["n"], found["min"], found["max"], found["mean"]) == (8, 1, 9, 3.875)
    assert found["median"] == np.median(values)
    records = [pair("one two", "x" * 11, "q"), Candidates(Prompt.of_text("four"), ("a", "bc"), None)]
    numbers = check("lengths", records).numbers
    assert numbers["words"]["chosen"]["max"] == 2
    assert numbers["characters"]["rejected"]["max"] == 11
    assert numbers["characters"]["completion"]["n"] == 2


def test_how_often_the_longer_one_is_chosen() -> None:
    records = [
        pair("x" * long, "x" * short + "y", f"q{i}") for i, (long, short) in enumerate([(5, 1)] * 60 + [(1, 5)] * 20)
    ]
    records += [pair("aa", "bb", f"t{i}") for i in range(20)]
    found = check("longer_chosen", records)
    numbers = found.numbers["characters"]
    assert (found.count, numbers["ties"], found.severity) == (60, 20, "warning")
    assert numbers["longer_chosen"]["value"] == 0.6
    assert numbers["longer_is_better"]["value"] == pytest.approx(0.7)
    # Student's interval of 100 independent values: 60 ones, 20 zeros, 20 halves.
    spread = np.std([1] * 60 + [0] * 20 + [0.5] * 20, ddof=1) / 10
    assert numbers["longer_is_better"]["high"] == pytest.approx(0.7 + 1.98422 * spread, abs=1e-5)


def test_truncation_in_words_without_a_tokenizer() -> None:
    encoding = Encoding(max_tokens=8, truncation_side="left")
    long = [pair("one " * 20 + "end.", "two " * 20 + "end."), pair("first " + "same " * 9, "other " + "same " * 9, "p")]
    fits = pair("just as it.", "is this one.", "a b")
    assert render(fits.prompt, fits.chosen).text.split() == ["Human:", "a", "b", "Assistant:", "just", "as", "it."]
    eight = pair("exactly as it is", "as it is exactly", "a b")
    assert check("truncated", [*CLEAN, fits, eight, *long], encoding=encoding).count == 4
    found = check("identical_after_truncation", [*CLEAN, *long], encoding=encoding)
    assert (found.count, found.total) == (1, 202)
    right = encoding.model_copy(update={"truncation_side": "right"})
    assert check("identical_after_truncation", [*CLEAN, *long], encoding=right).count == 0


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_tokens_are_those_of_each_record_however_many_are_encoded_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardlab.data.doctor.ENCODED_AT_ONCE", at_once)
    records = [pair("the cat " * n, "the dog", "the cat") for n in range(1, 8)]
    encoder = Encoder(word_tokenizer(), Encoding(max_tokens=12, template="{prompt} {completion}"))
    tokens = check("lengths", records, encoder=encoder).numbers["tokens"]
    assert [tokens["chosen"][name] for name in ("n", "min", "median", "max")] == [7, 2, 8, 14]
    assert [tokens["rejected"][name] for name in ("n", "min", "max")] == [7, 2, 2]


def test_overlap_with_evaluation_sets() -> None:
    passage = " ".join(f"word{i}" for i in range(30, 0, -1))
    records = [pair(f"He said: {passage.upper()}!", question="x"), pair(" ".join(passage.split()[:12]), question="y")]
    evaluation = {"exam": [pair(passage)], "other": [pair("short")]}
    found = check("overlap", [*CLEAN, *records], evaluation=evaluation)
    assert (found.count, found.numbers["by_evaluation_set"]) == (1, {"exam": 1, "other": 0})
    beginning = " ".join(passage.split()[:13])
    assert found.examples[0]["note"] == f"exam: {beginning!r}"
    assert list(ngrams(" ".join("abcdefghijklm"))) == ["a b c d e f g h i j k l m"]
    assert list(ngrams("a b c")) == []


def test_overlap_is_that_of_sets_of_words() -> None:
    """Against sets of the n-grams themselves, on texts of few words, of which many share some and many share none."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices("ab", (5, 1), k=rng.randrange(5, 24))) for _ in range(120)]
    records = [pair(text, "no.", f"r{i}") for i, text in enumerate(texts[:80])]
    exam = [pair(text, "yes.", f"e{i}") for i, text in enumerate(texts[80:])]
    known = {gram for text in texts[80:] for gram in ngrams(text)}
    shared = {i: known & set(ngrams(text)) for i, text in enumerate(texts[:80])}
    telling = [i for i, grams in shared.items() if grams]
    assert 10 < len(telling) < 70
    found = check("overlap", records, evaluation={"exam": exam, "none": []}, shown=80)
    assert (found.count, found.numbers["by_evaluation_set"]) == (len(telling), {"exam": len(telling), "none": 0})
    first = [next(gram for gram in ngrams(texts[i]) if gram in known) for i in telling]
    assert [item["note"] for item in found.examples] == [f"exam: {gram!r}" for gram in first]


def test_lengths_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(text: str) -> int:
        calls.append(text)
        return len(text.split())

    monkeypatch.setattr(cues, "words", counted)
    examine({"a": loaded(CLEAN)})
    assert len(calls) == 3 * len(CLEAN)


def write(path: Path, rows: Sequence[Any]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"path": str(path)}


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"prompt": f"q{i}", "chosen": f"a{i}.", "rejected": f"b{i}."} for i in range(20)]
    rows += [{"prompt": "<s>q", "chosen": "\x1b[31mred\ud800.", "rejected": "b."}]
    rows += [{"prompt": "q", "chosen": "same", "rejected": "same"}]
    return {"train": write(tmp_path / "train.jsonl", rows), "test": write(tmp_path / "test.jsonl", rows[:2])}


def test_the_verb_writes_findings_and_rows_set_aside(sources: dict[str, Any], run: Any, tmp_path: Path) -> None:
    evaluation = {"exam": sources["test"]}
    config = DataDoctor.build({"sources": sources, "evaluation_sets": evaluation, "examples": 1})
    diagnosis = doctor(config, run)
    result = diagnosis.as_dict()
    assert diagnosis["leakage_ids"].count == 2
    assert read_json(tmp_path / "out/doctor.json") == json.loads(json.dumps(result))
    (aside,) = read_jsonl(tmp_path / "out/set_aside.jsonl")
    assert aside["reason"] == "identical"
    assert all(len(item["examples"]) <= 1 for item in result["checks"])
    keys = {"name", "title", "count", "total", "severity", "reading", "examples", "numbers"}
    assert all(set(item) == keys for item in result["checks"])
    assert result["sets"]["train"]["records"] == 21
    assert result["evaluation_sets"] == {"exam": 2}


def test_what_preparing_left_out_counts_with_what_is_left(tmp_path: Path, run: Any) -> None:
    """On the sides of prepared data the doctor finds what it finds on the raw data."""
    rows = [{"prompt": f"q{i}", "chosen": f"a{i}.", "rejected": f"b{i}."} for i in range(20)]
    rows += [{"prompt": "q", "chosen": "same", "rejected": "same"}, {"prompt": "q", "chosen": "", "rejected": "b."}]
    raw = write(tmp_path / "raw.jsonl", rows)
    fractions = {"val": 0, "test": 0.3}
    prepare(DataPreparation.build({"sources": {"raw": raw}, "fractions": fractions}), run)
    prepared = (tmp_path / "out").rename(tmp_path / "prepared")
    sides = {side: str(prepared / f"{side}.jsonl") for side in ("train", "test")}
    aside = str(prepared / "set_aside.jsonl")

    plain = doctor(DataDoctor.build({"sources": {"raw": raw}}), run)
    blind = doctor(DataDoctor.build({"sources": sides}), run)
    found = doctor(DataDoctor.build({"sources": sides, "set_aside": aside}), run)
    for name in ("identical_sides", "empty_answers", "other_set_aside", "prefix_mismatch"):
        assert (found[name].count, found[name].total) == (plain[name].count, plain[name].total)
        assert (blind[name].count, blind[name].total) == (0, 20)
    same = found["identical_sides"]
    assert same.reading.endswith("1 of 1 were already set aside by data prepare.")
    assert same.numbers["by_set"] == {"train": 0, "test": 0, "already set aside by data prepare": 1}
    assert same.examples[0]["source"].endswith("raw.jsonl:21")
    assert found.as_dict()["set_aside"] == {"empty": 1, "identical": 1}
    assert "already set aside by data prepare: 1 empty, 1 identical" in found.lines()
    assert "already" not in plain["identical_sides"].reading
    assert [row["reason"] for row in read_jsonl(tmp_path / "out/set_aside.jsonl")] == ["identical", "empty"]


def test_a_file_that_is_not_of_rows_set_aside(sources: dict[str, Any], run: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"reason": "empty", "detail": 1}\n[]\n', encoding="utf-8")
    with pytest.raises(DataError) as error:
        doctor(DataDoctor.build({"sources": sources, "set_aside": [str(other)]}), run)
    places = [problem.where for problem in error.value.problems]
    assert places == [f'{other}:{row}, column "{name}"' for row, name in ((1, "detail"), (2, "reason"), (2, "detail"))]


def test_the_table_names_every_check_and_lets_no_control_character_through(
    sources: dict[str, Any], run: Any, tmp_path: Path
) -> None:
    diagnosis = doctor(DataDoctor.build({"sources": sources}), run)
    table = format_doctor(read_json(tmp_path / "out/doctor.json"))
    assert diagnosis.lines() == table.splitlines()
    assert all(check.title in table for check in diagnosis.checks)
    assert "PROBLEM" in table
    assert "train: 21 records (preference), set aside: 1 identical" in table
    assert "\x1b" not in table
    assert all(character.isprintable() or character == "\n" for character in table)


def test_problems_of_all_sources_and_of_the_tokenizer(sources: dict[str, Any], run: Any, tmp_path: Path) -> None:
    missing = {"path": str(tmp_path / "gone.jsonl")}
    config = DataDoctor.build({"sources": {"a": missing, "b": missing}, "evaluation_sets": {"c": missing}})
    with pytest.raises(DataError) as error:
        doctor(config, run)
    assert len(error.value.problems) == 3
    empty = tmp_path / "no-tokenizer"
    empty.mkdir()
    config = DataDoctor.build({"sources": sources, "tokenizer": str(empty)})
    with pytest.raises(ModelError, match="tokenizer"):
        doctor(config, run)
    (empty / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="tokenizer"):
        doctor(config, run)
    assert not (tmp_path / "out").exists()


def test_sets_without_pairs_are_examined_too() -> None:
    only_candidates = [Candidates(Prompt.of_text(f"q{i}"), ("a.", "b."), None) for i in range(3)]
    found = {item.name: item for item in examine({"all": loaded(only_candidates)})}
    assert (found["longer_chosen"].count, found["longer_chosen"].total) == (0, 0)
    assert found["longer_chosen"].numbers["characters"]["longer_chosen"]["reason"] == "there are no observations"
    assert found["whitespace_cues"].severity == "ok"
    nothing = {item.name: item for item in examine({"none": loaded([])})}
    assert nothing["lengths"].numbers == {"characters": {}, "words": {}}
