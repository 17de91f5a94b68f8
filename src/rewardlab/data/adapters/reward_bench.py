"""RewardBench rows: v1 one chosen and one rejected answer, v2 several of either (arXiv 2403.13787, 2506.01937).

The prompt is what the user said. A v2 row (best of four) stays one record: candidates with reward 1 for the
right answers and 0 for the wrong ones, right ones first.
"""

from __future__ import annotations

from rewardlab.data.adapters.base import Adapter, Parsed, broken, set_aside, usable, user_prompt
from rewardlab.data.rows import Row
from rewardlab.records import Candidates, Pair


def parse(row: Row) -> Parsed:
    """A pair from v1, candidates from v2."""
    prompt = user_prompt(row.conversation("prompt"))
    if isinstance(row.raw("chosen"), str):
        chosen, rejected = row.text("chosen"), row.text("rejected", empty=True)
        return (
            broken(row) if row.problems else usable(row, Pair(prompt, chosen, rejected, None, row.source, row.rest()))
        )
    right, wrong = row.texts("chosen"), row.texts("rejected")
    if row.problems:
        return broken(row)
    if not right or not wrong:
        return set_aside(row, "empty", "no chosen or no rejected answers")
    rewards = (1.0,) * len(right) + (0.0,) * len(wrong)
    return usable(row, Candidates(prompt, right + wrong, rewards, row.source, row.rest()), whole=True)


def fits(row: Row) -> bool:
    """Whether a row has what RewardBench has beside its texts, and no margin, which would be lost."""
    is_marked = row.has("num_correct") or (row.has("subset") and row.has("chosen_model"))
    return is_marked and not row.has("margin") and all(_is_text(row.raw(side)) for side in ("chosen", "rejected"))


def _is_text(side: object) -> bool:
    """Whether a side is a text or a list of texts; null is an answer that is not there."""
    return all(text is None or isinstance(text, str) for text in (side if isinstance(side, list) else [side]))


ADAPTER = Adapter(
    name="reward-bench",
    title="RewardBench v1 {prompt, chosen, rejected, subset, ...}, and v2 with several rejected",
    required=("prompt", "chosen", "rejected"),
    optional=(),
    parse=parse,
    fits=fits,
    hub_ids=("allenai/reward-bench", "allenai/reward-bench-2"),
)
