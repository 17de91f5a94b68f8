"""Agreement with the rewards that come with candidates: K completions of one prompt, each with a known reward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewardlab.evaluate.estimates import Settings
from rewardlab.evaluate.length import within_prompt
from rewardlab.evaluate.table import ScoredCandidates
from rewardlab.functional import intervals
from rewardlab.functional.accuracy import candidate_agreement
from rewardlab.functional.agreement import kendall_along, pearson_along, within_groups
from rewardlab.records import Estimate


def agreement_group(candidates: Sequence[ScoredCandidates], settings: Settings) -> list[Estimate]:
    """Order within a prompt, best of K, and correlation within a prompt, against the given rewards."""
    known = [(one, np.array(one.record.rewards, dtype=np.float64)) for one in candidates if one.record.rewards]
    found = [(one.cluster, *candidate_agreement(one.scores, rewards)) for one, rewards in known]
    judged = [(cluster, order, best) for cluster, order, best in found if order is not None and best is not None]
    clusters = np.array([cluster for cluster, _, _ in judged], dtype=np.int64)
    if not known:
        reason = "the data hold no candidates with rewards"
    else:
        reason = "all candidates of a prompt have the same reward, for every prompt"

    def share(name: str, values: list[float], reading: str) -> Estimate:
        interval = intervals.proportion(np.array(values, dtype=np.float64), clusters, settings.level)
        return settings.estimate(name, interval, reading, unit="prompts", reason=reason)

    group = [
        share(
            "agreement.pairwise",
            [order for _, order, _ in judged],
            "Share of pairs of candidates that the scores order as the rewards do, mean over prompts; chance is 0.5.",
        ),
        share(
            "agreement.best_of_k",
            [best for _, _, best in judged],
            "Share of prompts whose highest-scoring candidate has the highest reward; chance is one in K.",
        ),
    ]
    sizes = [len(rewards) for _, rewards in known]
    label = np.repeat(np.arange(len(known)), sizes)
    scores = np.concatenate([one.scores for one, _ in known]) if known else np.zeros(0)
    rewards = np.concatenate([rewards for _, rewards in known]) if known else np.zeros(0)
    cluster_of = np.array([one.cluster for one, _ in known], dtype=np.int64)
    if known:
        reason = "no prompt has three or more candidates whose scores and rewards both vary"
    for kind, along in (("pearson", pearson_along), ("kendall", kendall_along)):
        reading = (
            "Correlation of score and reward among the candidates of one prompt, mean over prompts; 1 is agreement."
        )
        within = within_groups(rewards, scores, label, along, smallest=3)
        group.append(within_prompt(f"agreement.within_prompt_{kind}", within, cluster_of, settings, reading, reason))
    return group
