"""Audits of the same responses by different rewriters, with side effects that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rewardlab.audit.rewriters import Comparison, Rewritten, compare_rewriters

N = 200


def triples(
    gap: float = 0.0,
    seed: int = 0,
    n: int = N,
    draws: int = 1,
    lost: tuple[int, ...] = (),
    noise: float = 0.3,
    treated: bool | None = None,
    per_prompt: int = 1,
) -> pa.Table:
    """A rewriter that finds an effect of 1 + `gap`; texts are the same for every seed, the rewriter's chance is not."""
    texts, chance = np.random.default_rng(99), np.random.default_rng(seed)
    sides, effect, original = texts.random(n) < 0.4, 1.0 + 0.5 * texts.normal(size=n), texts.normal(size=n)
    rows: list[dict[str, Any]] = []
    for number in range(n):
        side = bool(sides[number]) if treated is None else treated
        for draw in range(draws):
            d = effect[number] + gap + noise * chance.normal()
            rewrite = original[number] - 0.7
            again = None if number in lost else float(rewrite + (d if side else -d))
            rows.append(
                {
                    "id": f"r{number}",
                    "prompt_id": f"p{number // per_prompt}",
                    "draw": draw,
                    "treated": side,
                    "original_reward": float(original[number]),
                    "rewrite_reward": float(rewrite),
                    "rerewrite_reward": again,
                }
            )
    return pa.Table.from_pylist(rows)


def compared(*tables: pa.Table, level: float = 0.95) -> Comparison:
    rewritten = [Rewritten(f"rewriter {number}", table) for number, table in enumerate(tables, 1)]
    found = compare_rewriters("length", "some-rm", rewritten, level)
    assert found is not None
    return found


def test_two_of_a_kind_agree() -> None:
    found = compared(triples(seed=1), triples(seed=2))
    assert found.robustness == "same"
    assert found.of("rewriter.1").value == pytest.approx(1.0, abs=0.1)
    difference = found.of("difference.1.2")
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < 0.0 < difference.high
    # 0.3 by either on a text: the texts' own spread of 0.5 is not in it.
    assert difference.error == pytest.approx(0.3 * (2 / N) ** 0.5, rel=0.15)
    assert "Robust: every rewriter finds the effect" in found.verdict
    assert "by 2 rewriters over the same 200 responses" in found.line()


def test_a_rewriter_with_a_side_effect_of_its_own_is_told_apart() -> None:
    found = compared(triples(seed=1), triples(gap=0.5, seed=2))
    assert found.robustness == "direction"
    assert found.of("difference.1.2").value == pytest.approx(-0.5, abs=0.1)
    assert compared(triples(seed=1), triples(gap=-1.0, seed=2)).robustness == "depends"
    assert compared(triples(seed=1), triples(gap=-2.0, seed=2)).robustness == "depends"
    three = compared(triples(seed=1), triples(seed=2), triples(gap=0.5, seed=3))
    assert three.robustness == "direction"
    assert [three.of(f"difference.{pair}").level for pair in ("1.2", "1.3", "2.3")] == pytest.approx([1 - 0.05 / 3] * 3)


def test_only_responses_that_all_brought_through_count() -> None:
    found = compared(triples(seed=1, lost=(0, 1, 2)), triples(gap=0.2, seed=2, lost=(2, 3)))
    assert found.responses == N - 4
    kept = [number for number in range(N) if number > 3]
    table = triples(seed=1)
    d = [(1 if row["treated"] else -1) * (row["rerewrite_reward"] - row["rewrite_reward"]) for row in table.to_pylist()]
    assert found.of("rewriter.1").value == pytest.approx(np.mean([d[number] for number in kept]), rel=1e-12)
    others = [Rewritten("a", triples(n=5)), Rewritten("b", triples(n=5, lost=(0, 1, 2, 3)))]
    assert compare_rewriters("length", "some-rm", others) is None


def test_equal_responses_are_matched_one_by_one() -> None:
    twice = pa.concat_tables([triples(seed=1), triples(seed=3)])
    assert compared(twice, triples(seed=2)).responses == N
    assert compared(twice, twice).responses == 2 * N


def test_responses_of_a_prompt_belong_together() -> None:
    found = compared(triples(seed=1, per_prompt=4), triples(seed=2, per_prompt=4))
    assert (found.of("rewriter.1").clusters, found.of("difference.1.2").clusters) == (N // 4, N // 4)
    shared = compared(triples(seed=1, per_prompt=N), triples(seed=2, per_prompt=N))
    assert shared.of("difference.1.2").clusters == N


def test_components_tell_texts_rewriters_and_chance() -> None:
    found = compared(triples(seed=1, n=3000), triples(gap=0.4, seed=2, n=3000)).components
    assert (found["texts"], found["draws"]) == (3000, 1)
    assert found["text"] == pytest.approx(0.25, rel=0.1)
    assert found["rest"] == pytest.approx(0.09, rel=0.1)
    # Of two rewriters at 0 and 0.4 the variance is 0.08.
    assert found["rewriter"] == pytest.approx(0.08, rel=0.1)
    several = compared(triples(seed=1, n=3000, draws=3), triples(seed=2, n=3000, draws=2)).components
    assert (several["texts"], several["draws"], several["rest"]) == (3000, 2, None)
    assert several["draw"] == pytest.approx(0.09, rel=0.1)
    assert several["interaction"] == pytest.approx(0.0, abs=0.01)


def test_where_one_side_is_missing_the_effect_is_that_on_the_other() -> None:
    found = compared(triples(seed=1, treated=False), triples(seed=2, treated=False))
    assert found.target == "ATU"
    assert found.of("rewriter.2").value == pytest.approx(1.0, abs=0.1)
    assert found.robustness == "same"


def test_without_spread_nothing_is_judged() -> None:
    table = pa.Table.from_pylist([
        {"id": f"r{n}", "prompt_id": f"p{n}", "draw": 0, "treated": n % 2 == 0, "original_reward": 0.0,
         "rewrite_reward": 0.0, "rerewrite_reward": 0.0} for n in range(10)
    ])  # fmt: skip
    found = compared(table, table)
    assert found.robustness == "unknown"
    assert found.of("rewriter.1.sd").value is None
    assert found.line()
