"""`rewardlab audit score`: the texts of an audit through a reward model, by the same table as `rewardlab score`."""

from __future__ import annotations
