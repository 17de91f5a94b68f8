"""When to send: rate limits as token buckets, and how long to wait before another try."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_BURST_SECONDS = 1.0
_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 60.0


class Bucket:
    """A token bucket that holds what one second brings: no minute sees more than it may, nor does it begin with a rush.

    What is larger than the bucket goes when the bucket is full, and what follows waits until it is paid off.

    Args:
        per_minute: the most that may go in any minute; None for no limit.
    """

    def __init__(self, per_minute: float | None) -> None:
        # A full bucket and the 60 seconds after it make a minute's worth together.
        self._seconds_each = 0.0 if per_minute is None else (60.0 + _BURST_SECONDS) / per_minute
        self._empty = -math.inf
        """When the bucket was, or will be, empty."""

    def take(self, amount: float, now: float) -> float:
        """Seconds to wait before this much may go; it counts as gone."""
        empty = max(self._empty, now - _BURST_SECONDS)
        seconds = amount * self._seconds_each
        self._empty = empty + seconds
        return max(0.0, empty + min(seconds, _BURST_SECONDS) - now)

    def correct(self, amount: float) -> None:
        """Count this much more, or less, than was taken."""
        self._empty += amount * self._seconds_each


def backoff(attempt: int, generator: random.Random) -> float:
    """Seconds before try number `attempt` + 1: exponential with full jitter.

    Source: Brooker 2015, "Exponential Backoff and Jitter" (AWS Architecture Blog).

    Args:
        attempt: tries so far, from 1.
        generator: the chance in it.
    """
    return generator.uniform(0.0, min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(attempt - 1, 30)))


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that the server asks to wait, None where it does not say or says nonsense.

    Args:
        headers: of the response: `retry-after-ms`, or `retry-after` in seconds or as a date (RFC 9110, 10.2.3).
        now: what the date is compared with; None for the present.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
