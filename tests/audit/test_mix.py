"""Samples in which W goes along with something else: their composition, and what becomes of the estimates."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rewardlab.audit.about import ABOUT, About
from rewardlab.audit.chains import REWRITES, AuditedText, read_chains, write_chains
from rewardlab.audit.effects import EffectsEstimation, estimate_effects
from rewardlab.audit.mix import Mix, mixed
from rewardlab.audit.template import Treatment
from rewardlab.audit.units import Chain, Rewrite, Task, Unit
from rewardlab.errors import ConfigError, DataError
from rewardlab.records import Prompt
from rewardlab.store.files import read_json, write_json
from tests.report.audited import Here, write_scores

BY_COLUMN = Treatment(column="mood", one=("glad",), zero=("sad",))
PROMPT = Prompt.of_text("Write: ")


def text(number: int, treated: bool, glad: bool) -> str:
    return f"{'long ' * 9 if treated else ''}{'glad' if glad else 'sad'} text {number}"


def chains(per_kind: int) -> list[AuditedText]:
    kinds = [(treated, glad) for treated in (True, False) for glad in (True, False)]
    return [
        AuditedText(PROMPT, (text(number, *kind),), kind[0], 0, 2, (), row={"mood": "glad" if kind[1] else "sad"})
        for number in range(per_kind)
        for kind in kinds
    ]


def drawn(own: list[AuditedText], mix: Mix, seed: int = 0) -> np.ndarray:
    return mixed(own, np.ones(len(own), dtype=bool), mix, seed)


def counts(own: list[AuditedText], kept: np.ndarray) -> Counter[tuple[bool, str]]:
    return Counter((one.treated, str(one.row["mood"])) for one, there in zip(own, kept, strict=True) if there)


@pytest.mark.parametrize(("share", "long_and_glad"), [(0.5, 10), (0.75, 15), (1.0, 20), (0.2, 4)])
def test_half_are_glad_and_so_many_of_them_are_long(share: float, long_and_glad: int) -> None:
    own = chains(30)
    found = counts(own, drawn(own, Mix(by=BY_COLUMN, share=share, size=40)))
    expected = {(True, "glad"): long_and_glad, (False, "sad"): long_and_glad}
    expected |= {(True, "sad"): 20 - long_and_glad, (False, "glad"): 20 - long_and_glad}
    assert found == Counter({kind: count for kind, count in expected.items() if count})


def test_the_size_is_the_same_for_every_share_by_default() -> None:
    """The rarest kind has 7 responses: 14 can be drawn for any share."""
    own = chains(9)
    usable = np.ones(len(own), dtype=bool)
    usable[[at for at, one in enumerate(own) if one.treated and one.row["mood"] == "sad"][:2]] = False
    sizes = {int(mixed(own, usable, Mix(by=BY_COLUMN, share=share), 0).sum()) for share in (0.0, 0.35, 0.5, 1.0)}
    assert sizes == {14}
    assert not (mixed(own, usable, Mix(by=BY_COLUMN, share=0.0), 0) & ~usable).any()


def test_a_larger_share_keeps_who_was_drawn_and_the_seed_draws_others() -> None:
    own = chains(30)
    alike = np.array([one.treated == (one.row["mood"] == "glad") for one in own])
    some, more = (drawn(own, Mix(by=BY_COLUMN, share=share, size=40)) for share in (0.6, 0.8))
    assert not (some & alike & ~more).any()
    assert not (more & ~alike & ~some).any()
    assert (drawn(own, Mix(by=BY_COLUMN, share=0.6, size=40), seed=1) != some).any()


def test_the_other_attribute_may_be_a_measure_and_who_has_no_value_is_not_drawn() -> None:
    own = chains(10)
    # The texts of 30 words or more are those with W = 1: nobody has W = 1 without V, or V without W = 1.
    with pytest.raises(DataError) as caught:
        drawn(own, Mix(by=Treatment(measure="words", above=5), share=0.5, size=20))
    assert [problem.found[:23] for problem in caught.value.problems] == [
        "0 responses with W = 1 ",
        "0 responses with W = 0 ",
    ]
    odd = [*chains(10), AuditedText(PROMPT, ("odd",), True, 0, 2, (), row={"mood": "odd"})]
    assert not drawn(odd, Mix(by=BY_COLUMN, share=1.0))[-1]


def test_too_few_of_a_kind_are_named_with_what_is_needed() -> None:
    own = chains(12)
    with pytest.raises(DataError) as caught:
        drawn(own, Mix(by=BY_COLUMN, share=0.9, size=40))
    found = [(problem.found, problem.expected) for problem in caught.value.problems]
    assert found == [
        ("12 responses with W = 1 and V = 1", "at least 18"),
        ("12 responses with W = 0 and V = 0", "at least 18"),
    ]
    with pytest.raises(ConfigError, match="share"):
        Mix.build({"by": {"column": "mood", "one": ["glad"], "zero": ["sad"]}, "share": 1.5})


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_effects_are_those_of_the_sample(share: float, tmp_path: Path) -> None:
    """The reward is 1 for a glad text: at share 1 all long ones are glad, no short one is, and length does nothing."""
    units = [Unit(PROMPT, one.texts[0], one.treated, None, one.row) for one in chains(8)]
    made = []
    for unit in units:
        glad = unit.meta["mood"] == "glad"
        steps = [Rewrite(f"{text(900, side, glad)} {unit.id}", "ok") for side in (not unit.treated, unit.treated)]
        made.append(Chain(Task(unit), tuple(steps)))
    write_chains(tmp_path / REWRITES, made, 2)
    write_json(
        tmp_path / ABOUT, About({"name": "length", "high": "longer", "low": "shorter"}, clusters=False).as_dict()
    )
    scores = write_scores(tmp_path / "scores.parquet", made, "glad", lambda words: float("glad" in words), 0.0)
    mix = Mix(by=BY_COLUMN, share=share, size=12)
    result = estimate_effects(EffectsEstimation(rewrites=tmp_path, scores=(scores,), mix=mix), Here(tmp_path / "out"))
    (model,) = result.models
    assert model.counts["complete"] == 12
    assert model["naive.ATE"].value == pytest.approx(2 * share - 1)
    assert model["double.ATE"].value == 0.0
    stored = read_json(tmp_path / "out" / "effects.json")["options"]["mix"]
    assert stored == {"by": {"column": "mood", "one": ["glad"], "zero": ["sad"]}, "share": share, "size": 12}
    assert len(read_chains(tmp_path / REWRITES)) == 32
