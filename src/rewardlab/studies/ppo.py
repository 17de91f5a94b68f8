"""`rewardlab train ppo`: prompts and a reward → a policy that writes what the reward likes.

The one place where training and scoring meet: a policy is trained in `train`, rewards are computed in `score`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from rewardlab.score.manager import TermsByName, load_manager
from rewardlab.store.runs import Run
from rewardlab.store.together import together
from rewardlab.train.ppo import PPOTraining
from rewardlab.train.ppo_run import LengthOnly, TrainedByPPO, run_ppo


class PPO(PPOTraining):
    """Configuration of `train ppo`."""

    rewards: TermsByName = Field(default_factory=dict)
    """The terms of the reward by name; the reward is their weighted sum. A scorer's name alone stands for a term:
    `--rewards.words rule:length_words`."""

    len_only: float | None = Field(None, gt=0)
    """In place of rewards: 1 - |length / N - 1| for this N, in tokens of the policy."""

    def unmet(self) -> Iterator[str]:
        """What does not fit together."""
        yield from super().unmet()
        if bool(self.rewards) == (self.len_only is not None):
            yield "expected rewards or len_only, and not both: with len_only the length alone counts"
        elif self.best_by is not None:
            names = [name for name, term in self.rewards.items() if term.weight >= 0]
            if self.best_by not in names:
                known = ", ".join(names) or "none here"
                yield f"expected best_by to be a term of the rewards whose weight is 0 or more: {known}"


def train_ppo(config: PPO, run: Run) -> TrainedByPPO:
    """Train a policy on rewards of its own responses.

    Args:
        config: everything.
        run: its directory; an unfinished one goes on from the newest complete checkpoint.

    Raises:
        ConfigError: rewards that cannot be loaded, or a tracker that is not installed.
        DataError: no prompts, or unusable data.
        ModelError: unusable model, critic or device, a reward that is no number, or a saved policy that is not the one
            that was trained.
        RunError: resumed with other prompts, a server that does not answer, or the disk is full.
        RewardlabError: training diverged, or does not fit into memory.
        KeyboardInterrupt: stopped; the run can be resumed.
    """
    length = config.len_only
    rewards = together(lambda: load_manager(config.rewards) if length is None else LengthOnly(length))
    return run_ppo(config, run, rewards, says=rewards.line)
