"""The world's rewriter over units: the same texts as the world itself makes, joined to exact truths by id."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.audit.intake import units
from rewardlab.audit.template import attribute_template
from rewardlab.audit.units import Chain, Task, Unit
from rewardlab.audit.world import WorldRewriter, response_of
from rewardlab.data.canonical import write_records
from rewardlab.data.source import DataSource
from rewardlab.data.world import (
    Copula,
    Direction,
    GoldReward,
    Preference,
    Response,
    Rewriter,
    draw_pair,
    exact_effects,
    parse,
    render,
    triples,
)
from rewardlab.records import Prompt, completion_id

FAULTY = Rewriter(
    high=Direction(drift={"politeness": 0.7}, variance={"sentiment": 1.0}, failure=0.2, damage=0.1),
    low=Direction(drift={"structure": -0.4}, failure=0.1),
    saturation=0.5,
)
SEED = 5


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Response, Response]]:
    drawn = [draw_pair(SEED, f"test/{i}", Copula(), GoldReward(), Preference()) for i in range(40)]
    return [(pair.chosen, pair.rejected) for pair in drawn]


@pytest.fixture
def file(tmp_path: Path) -> DataSource:
    drawn = [draw_pair(SEED, f"test/{i}", Copula(), GoldReward(), Preference()) for i in range(40)]
    write_records(tmp_path / "test.jsonl", [pair.record() for pair in drawn])
    return DataSource(path=str(tmp_path / "test.jsonl"))


def chains(found: list[Unit], rewriter: WorldRewriter, draw: int = 0) -> list[Chain]:
    return list(rewriter.chains([Task(unit, draw) for unit in found], 2))


@pytest.mark.parametrize("attribute", ["length", "sentiment"])
def test_chains_are_the_triples_of_the_world(
    attribute: str, file: DataSource, pairs: list[tuple[Response, Response]]
) -> None:
    intake = units(attribute_template(f"world_{attribute}"), file)
    responses = [response for pair in pairs for response in pair]
    assert [unit.treated for unit in intake.units] == [one.reading.levels.high(attribute) for one in responses]
    made = chains(intake.units, WorldRewriter(attribute, FAULTY), draw=2)  # type: ignore[arg-type]
    for chain, triple in zip(made, triples(responses, attribute, FAULTY, draw=2), strict=True):
        assert [rewrite.text for rewrite in chain.rewrites] == [render(triple.rewrite), render(triple.back)]
        same = render(triple.rewrite) == render(triple.original)
        assert chain.rewrites[0].outcome == ("identical" if same else "ok")
    outcomes = {rewrite.outcome for chain in made for rewrite in chain.rewrites}
    assert outcomes == {"ok", "identical"}


def test_the_truth_of_a_unit_is_found_by_its_id(file: DataSource, pairs: list[tuple[Response, Response]]) -> None:
    """The response behind a unit is the very one that was drawn, so its exact effects are the unit's."""
    by_id = {completion_id(one.prompt.record, render(one)): one for pair in pairs for one in pair}
    for unit in units(attribute_template("world_length"), file).units:
        assert response_of(unit) == by_id[unit.id]
    found = [response_of(unit) for unit in units(attribute_template("world_length"), file).units]
    gold = GoldReward()
    effects = exact_effects([one for one in found if isinstance(one, Response)], "length", gold)
    assert effects.shape == (80,)


def test_text_without_its_draws_is_rewritten_in_other_words(pairs: list[tuple[Response, Response]]) -> None:
    response = pairs[0][0]
    unit = Unit(response.prompt.record, render(response), response.reading.levels.high("sentiment"))
    (chain,) = chains([unit], WorldRewriter("sentiment", Rewriter()))
    high = [parse(rewrite.text or "").reading.levels.high("sentiment") for rewrite in chain.rewrites]
    assert high == [not unit.treated, unit.treated]
    assert parse(chain.rewrites[0].text or "").reading.statements == response.reading.statements
    assert [rewrite.outcome for rewrite in chain.rewrites] == ["ok", "ok"]


def test_what_is_not_the_worlds_fails_and_says_why(pairs: list[tuple[Response, Response]]) -> None:
    prompt, text = pairs[0][0].prompt.record, render(pairs[0][0])
    cases = [
        (Unit(Prompt.of_text("Why?"), text, True), "its prompt is none of the world's"),
        (Unit(Prompt(()), text, True), "its prompt is none of the world's"),
        (Unit(prompt, f"{text} Buy now.", True), "the world cannot read 'Buy now.'"),
        (Unit(prompt, "", True), "no statement to be read"),
    ]
    for chain, (_, detail) in zip(
        chains([unit for unit, _ in cases], WorldRewriter("length", Rewriter())), cases, strict=True
    ):
        (only,) = chain.rewrites
        assert (only.text, only.outcome, only.detail) == (None, "failed", detail)
    # Meta that lies, or is broken, is not believed.
    for meta in (
        {"seed": 9, "key": "x", "side": "chosen", "chosen": {"author": 0}},
        {"seed": "1", "key": 3, "side": []},
    ):
        (chain,) = chains([Unit(prompt, text, True, meta=meta)], WorldRewriter("length", Rewriter()))
        assert {rewrite.outcome for rewrite in chain.rewrites} <= {"ok", "identical"}


def test_the_name_says_what_the_texts_hang_on() -> None:
    rewriters = [
        WorldRewriter("length", Rewriter()),
        WorldRewriter("sentiment", Rewriter()),
        WorldRewriter("length", FAULTY),
        WorldRewriter("length", Rewriter(), "held-out"),
    ]
    assert len({rewriter.name for rewriter in rewriters}) == 4
