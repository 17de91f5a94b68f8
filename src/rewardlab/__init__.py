"""rewardlab: train, score, evaluate and audit reward models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rewardlab.errors import ConfigError, DataError, InputError, ModelError, RewardlabError, RunError
from rewardlab.records import Candidates, Estimate, Message, Pair, Prompt, Rated

if TYPE_CHECKING:
    from rewardlab.score.load import load_scorer
    from rewardlab.score.reward_function import load_rewards

__all__ = [
    "Candidates",
    "ConfigError",
    "DataError",
    "Estimate",
    "InputError",
    "Message",
    "ModelError",
    "Pair",
    "Prompt",
    "Rated",
    "RewardlabError",
    "RunError",
    "load_rewards",
    "load_scorer",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Names that need torch are imported when they are first used."""
    if name == "load_scorer":
        from rewardlab.score.load import load_scorer

        return load_scorer
    if name == "load_rewards":
        from rewardlab.score.reward_function import load_rewards

        return load_rewards
    raise AttributeError(f"module 'rewardlab' has no attribute {name!r}")
