"""Audited rewrites as training data: which texts, in which order, what is left out, and that a training reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rewardlab.audit.about import ABOUT, About
from rewardlab.audit.chains import REWRITES
from rewardlab.audit.export import Exported, Exporting, export
from rewardlab.data.canonical import read_records, write_records
from rewardlab.errors import ConfigError, DataError
from rewardlab.records import Candidates, Pair, Prompt, Source, completion_id
from rewardlab.store.files import read_json, write_json
from tests.report.test_report_page import Folder


def chain(number: int, treated: bool, texts: tuple[str, ...], outcomes: tuple[str, ...] = ("ok", "ok")) -> Candidates:
    meta = {"treated": treated, "draw": 0, "steps": 2, "outcomes": list(outcomes), "row": {"topic": number}}
    return Candidates(Prompt.of_text(f"Question {number}?"), texts, None, Source("answers.jsonl", number), meta)


CHAINS = [
    chain(1, True, ("a long one", "short", "a long two")),
    chain(2, False, ("short", "a long one", "brief")),
    # The second flip did not happen.
    chain(3, True, ("a long one", "short", "still")),
    chain(4, True, ("a long one", "the same", "the same")),
    chain(5, False, ("short", "a long one"), ("ok", "empty")),
]


@pytest.fixture
def rewrites(tmp_path: Path) -> Path:
    folder = tmp_path / "rewrite"
    folder.mkdir()
    write_records(folder / REWRITES, CHAINS)
    judge = {"measure": "words", "above": 1.0, "model": None, "against": None, "decided": True}
    about = About({"name": "length", "high": "longer", "low": "shorter"}, judge, "by hand")
    write_json(folder / ABOUT, about.as_dict())
    return folder


def exported(rewrites: Path, into: Path, **more: Any) -> Exported:
    into.mkdir()
    return export(Exporting.build({"rewrites": str(rewrites), **more}), Folder(into))


def test_ties_are_the_two_rewrites_the_one_with_the_attribute_first(rewrites: Path, tmp_path: Path) -> None:
    found = exported(rewrites, tmp_path / "out")
    records = read_records(tmp_path / "out" / "train.jsonl")
    assert [(type(one), one.completions) for one in records] == [
        (Candidates, ("a long two", "short")),
        (Candidates, ("a long one", "brief")),
        (Candidates, ("still", "short")),
    ]
    assert all(one.rewards == (0.0, 0.0) for one in records if isinstance(one, Candidates))
    assert found.values["left_out"] == {"incomplete": 1, "identical": 1, "unconfirmed": 0, "shared": 0, "limit": 0}
    assert found.lines()[-1].endswith("train.jsonl --objective.ties 1")


def test_every_record_says_where_it_comes_from(rewrites: Path, tmp_path: Path) -> None:
    exported(rewrites, tmp_path / "out")
    second = read_records(tmp_path / "out" / "train.jsonl")[1]
    assert second.source == Source("answers.jsonl", 2)
    assert second.meta["row"] == {"topic": 2}
    mend = second.meta["mend"]
    assert mend["chain"] == completion_id(second.prompt, "short")
    assert (mend["attribute"], mend["rewriter"], mend["treated"]) == ("length", "by hand", False)
    written = read_json(tmp_path / "out" / "export.json")
    assert (written["chains"], written["exported"], written["records"]) == (5, 3, 3)


def test_margins_are_both_orders_as_pairs(rewrites: Path, tmp_path: Path) -> None:
    found = exported(rewrites, tmp_path / "out", form="margins", tolerance=0.2, limit=1)
    first, second = read_records(tmp_path / "out" / "train.jsonl")
    assert isinstance(first, Pair)
    assert isinstance(second, Pair)
    assert (first.chosen, first.rejected) == (second.rejected, second.chosen)
    assert (first.margin, second.margin) == (-0.2, -0.2)
    assert found.values["left_out"]["limit"] == 2
    assert "--objective.ties" not in found.lines()[-1]
    plain = exported(rewrites, tmp_path / "plain", form="margins")
    assert plain.values["records"] == 6
    assert all(isinstance(one, Pair) and one.margin is None for one in read_records(plain.records))


def test_the_original_may_stand_in_for_the_second_rewrite(rewrites: Path, tmp_path: Path) -> None:
    exported(rewrites, tmp_path / "out", texts="original")
    texts = [one.completions for one in read_records(tmp_path / "out" / "train.jsonl")]
    assert texts == [("a long one", "short")] * 3 + [("a long one", "the same")]


def test_flips_that_were_not_confirmed_and_conversations_kept_apart_are_left_out(
    rewrites: Path, tmp_path: Path
) -> None:
    test = tmp_path / "test.jsonl"
    write_records(test, [Pair(Prompt.of_text("Question 1?"), "better", "worse")])
    found = exported(rewrites, tmp_path / "out", confirmed=True, apart_from=[str(test)])
    assert [one.meta["row"]["topic"] for one in read_records(tmp_path / "out" / "train.jsonl")] == [2]
    assert found.values["left_out"] == {"incomplete": 1, "identical": 1, "unconfirmed": 1, "shared": 1, "limit": 0}


def test_a_larger_limit_keeps_the_chains_of_a_smaller_one(rewrites: Path, tmp_path: Path) -> None:
    kept = []
    for limit in (1, 2, 3):
        exported(rewrites, tmp_path / str(limit), limit=limit)
        kept.append({one.id for one in read_records(tmp_path / str(limit) / "train.jsonl")})
    assert [len(one) for one in kept] == [1, 2, 3]
    assert kept[0] < kept[1] < kept[2]


def test_what_the_attribute_was_worth_is_kept(rewrites: Path, tmp_path: Path) -> None:
    ends = {"value": 0.62, "low": 0.5, "high": 0.7, "reason": ""}
    estimates = {"double": [{"name": f"double.{name}", **ends, "error": 0.05} for name in ("ATE", "ATT")]}
    attribute = {"name": "length", "high": "longer", "low": "shorter"}
    written = {"attribute": attribute, "judge": None, "models": [{"scorer": "rm", "sd": 2.0, "estimates": estimates}]}
    path = tmp_path / "run" / "steps" / "effects" / "effects.json"
    write_json(path, written)
    # The file, its folder, and that of the whole `audit run`.
    for number, named in enumerate((path, path.parent, tmp_path / "run")):
        found = exported(rewrites, tmp_path / f"out-{number}", effects=str(named))
        assert found.values["effects"] == [{"scorer": "rm", "sd": 2.0, **ends}]
    assert any("rm pays +0.31 standard deviations of its rewards" in line for line in found.lines())
    without = {**written, "models": [{"scorer": "rm", "sd": 2.0, "estimates": {"single": estimates["double"]}}]}
    for wrong, words in (
        ({**written, "models": [{"scorer": "rm", "sd": 2.0}]}, "models.0.estimates: found nothing"),
        (without, "rm without double.ATE"),
    ):
        write_json(path, wrong)
        with pytest.raises(DataError, match=f"(?s)effects cannot be read.*effects.json.*{words}"):
            exported(rewrites, tmp_path / f"again-{words[:2]}", effects=str(path))


def test_nothing_to_export_and_nobody_to_confirm_are_told(rewrites: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="form margins"):
        Exporting.build({"rewrites": str(rewrites), "tolerance": 0.1})
    write_records(rewrites / REWRITES, CHAINS[3:])
    with pytest.raises(DataError, match="1 without both rewrites, 1 whose two texts are the same"):
        exported(rewrites, tmp_path / "out")
    (rewrites / ABOUT).unlink()
    with pytest.raises(DataError, match="which nothing judges"):
        exported(rewrites, tmp_path / "blind", confirmed=True)
    assert not list((tmp_path / "out").iterdir())
