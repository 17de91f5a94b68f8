"""Rate limits and waits, against what they promise."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from rewardlab.llm.pace import Bucket, backoff, retry_after


@pytest.mark.parametrize("per_minute", [1.0, 7.0, 20.0, 60.0, 500.0, 6000.0])
def test_no_minute_sees_more_than_it_may(per_minute: float) -> None:
    bucket, now, gone = Bucket(per_minute), 0.0, list[float]()
    generator = random.Random(0)
    while now < 200:
        # Mostly as fast as allowed, now and then after a rest.
        now += generator.uniform(0, 20) if generator.random() < 0.01 else 0.0
        now += bucket.take(1, now)
        gone.append(now)
    for first in gone:
        assert sum(first <= other < first + 60 for other in gone) <= per_minute


def test_a_limit_is_used_up() -> None:
    bucket, now = Bucket(600.0), 0.0
    for _ in range(1000):
        now += bucket.take(1, now)
    # 600 a minute less the part that the first rush takes: 61 / 60 of 100 seconds, less that rush.
    assert now == pytest.approx(1000 * 61 / 600 - 1, abs=0.2)


def test_amounts_larger_than_the_bucket_are_paid_off() -> None:
    bucket = Bucket(60.0)
    assert bucket.take(30, 0.0) == 0.0
    # 30 of 60 a minute take half of 61 seconds.
    assert bucket.take(1, 0.0) == pytest.approx(30.5)
    bucket.correct(-20)
    assert bucket.take(1, 0.0) == pytest.approx(30.5 + 61 / 60 - 20 * 61 / 60)


def test_without_a_limit_nothing_waits() -> None:
    bucket = Bucket(None)
    assert {bucket.take(10**9, 5.0) for _ in range(100)} == {0.0}


def test_backoff_is_uniform_up_to_a_bound_that_doubles() -> None:
    generator = random.Random(0)
    for attempt, bound in [(1, 0.5), (2, 1.0), (5, 8.0), (8, 60.0), (10**6, 60.0)]:
        waits = [backoff(attempt, generator) for _ in range(2000)]
        assert min(waits) >= 0
        assert 0.98 * bound < max(waits) <= bound
        # Mean of a uniform distribution, within five standard errors.
        assert sum(waits) / 2000 == pytest.approx(bound / 2, abs=5 * bound / (12 * 2000) ** 0.5)
    assert [backoff(3, random.Random(1)) for _ in range(2)] == [backoff(3, random.Random(1))] * 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        # The example of RFC 9110, 10.2.3.
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 59.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:00:00 GMT"}, 0.0),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 +99999999999999"}, None),
    ],
)
def test_what_the_server_asks(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, datetime(1999, 12, 31, 23, 59, 0, tzinfo=UTC)) == seconds
