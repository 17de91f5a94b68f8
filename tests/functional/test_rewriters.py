"""Several rewriters of the same responses, against scipy, worked examples and simulations with known components."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rewardlab.functional import effects, rewriters
from rewardlab.functional.effects import Rewards
from rewardlab.functional.intervals import Interval
from rewardlab.functional.rewriters import Robustness


def two(
    rng: np.random.Generator, n: int, gap: float = 0.0, share: float = 0.5, prompts: int | None = None
) -> list[Rewards]:
    """Two rewriters of n responses whose effects vary from text to text; the second finds `gap` more."""
    treated = rng.random(n) < share
    text, original = 1.0 + rng.normal(size=n), rng.normal(size=n)
    labels = np.arange(n) if prompts is None else rng.integers(prompts, size=n)
    shift = np.zeros(n) if prompts is None else rng.normal(size=prompts)[labels]
    found = []
    for number in range(2):
        d = text + gap * number + 0.5 * rng.normal(size=n) + shift * (0.5 + number)
        rewrite = original + rng.normal(size=n)
        found.append(Rewards(treated, original, rewrite, rewrite + np.where(treated, d, -d), None, labels))
    return found


def test_the_difference_is_the_paired_t_test_of_scipy() -> None:
    first, second = two(np.random.default_rng(0), 60)
    for target, kept in (("ATT", first.treated), ("ATU", ~first.treated)):
        found = rewriters.difference(first, second, target=target)  # type: ignore[arg-type]
        one, other = (effects.signed_differences(rewards, "double")[kept] for rewards in (first, second))
        test = stats.ttest_rel(one, other)
        ends = test.confidence_interval(0.95)
        assert (found.low, found.high, found.p) == pytest.approx((ends.low, ends.high, test.pvalue), rel=1e-10)


@pytest.mark.parametrize("estimator", ["single", "double"])
@pytest.mark.parametrize("target", ["ATE", "ATT", "ATU", "balanced"])
def test_the_difference_is_that_of_the_effects(estimator: effects.Estimator, target: effects.Target) -> None:
    first, second = two(np.random.default_rng(1), 80, gap=0.3, prompts=25)
    apart = [effects.effect(one, estimator, target).value for one in (first, second)]
    assert None not in apart
    assert rewriters.difference(first, second, estimator, target).value == pytest.approx(apart[0] - apart[1], rel=1e-12)  # type: ignore[operator]
    assert rewriters.difference(first, second, estimator, target).clusters == 25 - (target in ("ATT", "ATU")) * (
        25 - len(np.unique(first.clusters[first.treated == (target == "ATT")]))  # type: ignore[index]
    )


def test_what_the_responses_have_in_common_cancels() -> None:
    first, second = two(np.random.default_rng(2), 200)
    alone = [effects.effect(one, "double", "ATE").error or 0.0 for one in (first, second)]
    # Texts differ by 1, the two rewriters by 0.5 each on a text: sqrt(2) * 0.5 instead of sqrt(2) * sqrt(1.25).
    paired = rewriters.difference(first, second).error
    assert paired == pytest.approx((2 * 0.25 / 200) ** 0.5, rel=0.15)
    assert paired is not None
    assert paired < 0.6 * float(np.hypot(*alone))


def test_other_responses_are_refused() -> None:
    first, second = two(np.random.default_rng(3), 10)
    with pytest.raises(ValueError, match="other responses"):
        rewriters.difference(first, second._replace(treated=~second.treated))


def test_components_of_a_worked_example() -> None:
    # Means by text 2, 5, by rewriter 3, 4; overall 3.5; residuals of 0.5 everywhere:
    # MS_rest = 4 * 0.25 / 1, MS_text = 2 * 4.5 / 1 = 9, MS_rewriter = 2 * 0.5 / 1 = 1.
    found = rewriters.unreplicated_components(np.array([[2.0, 2.0], [4.0, 6.0]]))
    assert found == pytest.approx((4.0, 0.0, 1.0))


def test_components_of_known_variances_are_found() -> None:
    rng = np.random.default_rng(4)
    sides = np.array([-1.5, -0.5, 0.0, 0.5, 1.0, 0.5])
    values = 2.0 + 0.8 * rng.normal(size=(4000, 1)) + sides + 0.6 * rng.normal(size=(4000, 6))
    found = rewriters.unreplicated_components(values)
    assert found.text == pytest.approx(0.64, rel=0.06)
    assert found.rewriter == pytest.approx(np.var(sides, ddof=1), rel=0.06)
    assert found.rest == pytest.approx(0.36, rel=0.03)


def test_means_over_draws_have_the_components_of_the_draws() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(300, 1, 1)) + [[[0.0]], [[2.0]], [[3.0]]][1] + rng.normal(size=(300, 3, 4))
    values = values + np.array([0.0, 1.0, 3.0])[None, :, None] + 0.7 * rng.normal(size=(300, 3, 1))
    whole, means = effects.variance_components(values), rewriters.unreplicated_components(values.mean(axis=2))
    assert (means.text, means.rewriter) == pytest.approx((whole.text, whole.rewriter), rel=1e-10)
    assert means.rest == pytest.approx((whole.interaction or 0.0) + whole.draw / 4, rel=1e-10)


def ends(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high)


UP, DOWN, AROUND, WITHOUT = ends(0.1, 0.5), ends(-0.5, -0.1), ends(-0.2, 0.3), Interval(0.2)


@pytest.mark.parametrize(
    ("found", "apart", "expected"),
    [
        ([UP, UP], [AROUND], "same"),
        ([DOWN, DOWN, DOWN], [AROUND] * 3, "same"),
        ([UP, UP], [DOWN], "direction"),
        ([AROUND, AROUND], [AROUND], "none"),
        ([AROUND, AROUND], [UP], "depends"),
        ([UP, AROUND], [AROUND], "open"),
        ([UP, AROUND], [UP], "depends"),
        ([UP, DOWN], [UP], "depends"),
        ([UP, DOWN, UP], [AROUND] * 3, "depends"),
        ([UP, WITHOUT], [UP], "unknown"),
        # No spread: the difference is known exactly.
        ([UP, UP], [Interval(0.0)], "same"),
        ([UP, UP], [Interval(0.1)], "direction"),
    ],
)
def test_what_rewriters_say_together(found: list[Interval], apart: list[Interval], expected: Robustness) -> None:
    assert rewriters.robustness(found, apart) == expected


def test_equal_rewriters_are_told_apart_as_seldom_as_the_level_says() -> None:
    rng, times, sides = np.random.default_rng(6), 600, 3
    wrong = 0
    for _ in range(times):
        treated = rng.random(40) < 0.5
        d = 1.0 + rng.normal(size=(1, 40)) + 0.7 * rng.normal(size=(sides, 40))
        zero = np.zeros(40)
        audits = [Rewards(treated, zero, zero, np.where(treated, one, -one)) for one in d]
        found = [effects.effect(one, "double", "ATE") for one in audits]
        differences = list(rewriters.all_differences(audits).values())
        wrong += rewriters.robustness(found, differences) in ("direction", "depends")
    # Bonferroni keeps it below 5 %: three standard errors of a share above that.
    assert 0 < wrong / times < 0.05 + 3 * (0.05 * 0.95 / times) ** 0.5


def test_the_level_of_pairs() -> None:
    assert rewriters.pairs_level(2, 0.95) == 0.95
    assert rewriters.pairs_level(4, 0.94) == pytest.approx(0.99)
