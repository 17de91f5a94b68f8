"""What objectives need and refuse, and that the table calls the losses with what they are given."""

from __future__ import annotations

import pytest
import torch

from rewardlab.functional import alignment
from rewardlab.functional.objectives import OBJECTIVES

VALUES = torch.tensor([[0.3, -1.0], [2.0, 0.1]])
REWARDS = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
LENGTHS = torch.tensor([[3, 8], [5, 2]])


def test_the_names_and_what_each_needs() -> None:
    found = {
        name: (one.labels, one.smallest, one.largest, one.reference, one.lengths) for name, one in OBJECTIVES.items()
    }
    assert found == {
        "exo-rw": ("rewards", 2, None, True, False),
        "exo-pref": ("order", 2, 2, True, False),
        "exo-pref-published": ("order", 2, 2, True, False),
        "dpo-rw": ("rewards", 2, None, True, False),
        "dpo-pref": ("order", 2, 2, True, False),
        "robust": ("order", 2, 2, True, False),
        "hinge": ("order", 2, 2, True, False),
        "ipo": ("order", 2, 2, True, True),
        "ipo-sum": ("order", 2, 2, True, False),
        "simpo": ("order", 2, 2, False, True),
    }


def test_options_with_their_defaults() -> None:
    assert {name: one.options for name, one in OBJECTIVES.items()} == {
        "exo-rw": {"beta": None, "reward_beta": None},
        "exo-pref": {"beta": None, "label_smoothing": 1e-3},
        "exo-pref-published": {"beta": None},
        "dpo-rw": {"beta": None, "reward_beta": None},
        "dpo-pref": {"beta": None, "label_smoothing": 0.0},
        "robust": {"beta": None, "label_smoothing": 0.1},
        "hinge": {"beta": None},
        "ipo": {"beta": None},
        "ipo-sum": {"beta": None},
        "simpo": {"beta": None, "gamma": None},
    }


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_candidates_suit_all(name: str) -> None:
    OBJECTIVES[name].check(2)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("candidates", [1, 3, 8])
def test_other_numbers_are_refused_where_the_loss_is_not_defined(name: str, candidates: int) -> None:
    if name.endswith("-rw") and candidates > 2:
        OBJECTIVES[name].check(candidates)
        return
    expected = "2 or more" if name.endswith("-rw") else "2, a winner and a loser. exo-rw and dpo-rw learn"
    with pytest.raises(ValueError, match=f"^{name}: found {candidates} candidates to a prompt; expected {expected}"):
        OBJECTIVES[name].check(candidates)


def test_the_losses_get_what_they_need() -> None:
    present = torch.tensor([[True, True], [True, False]])
    found = OBJECTIVES["exo-rw"].losses(VALUES, rewards=REWARDS, present=present, beta=0.5, reward_beta=0.2)
    assert torch.equal(found, alignment.exo_rw(VALUES, REWARDS, 0.5, 0.2, present))
    found = OBJECTIVES["dpo-pref"].losses(VALUES, beta=0.5, label_smoothing=0.2)
    assert torch.equal(found, alignment.dpo_pref(VALUES, 0.5, 0.2))
    found = OBJECTIVES["ipo"].losses(VALUES, lengths=LENGTHS, beta=0.5)
    assert torch.equal(found, alignment.ipo(VALUES, LENGTHS, 0.5))
    found = OBJECTIVES["simpo"].losses(VALUES, lengths=LENGTHS, beta=0.5, gamma=0.2)
    assert torch.equal(found, alignment.simpo(VALUES, LENGTHS, 0.5, 0.2))
    # Lengths are there for all objectives alike; whole pairs may come with a mask.
    found = OBJECTIVES["hinge"].losses(VALUES, lengths=LENGTHS, present=torch.ones_like(present), beta=0.5)
    assert torch.equal(found, alignment.hinge(VALUES, 0.5))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("exo-rw", {"beta": 1.0, "reward_beta": 1.0}, "exo-rw: found no rewards"),
        ("dpo-pref", {"beta": 1.0, "rewards": REWARDS}, "dpo-pref: found rewards; expected none, the winner first"),
        ("ipo", {"beta": 1.0}, "ipo: found no lengths"),
        ("hinge", {"beta": 1.0, "present": torch.tensor([[True, True], [True, False]])}, "hinge: found a prompt with"),
        ("hinge", {}, "hinge: found options none; expected beta"),
        ("exo-rw", {"beta": 1.0, "rewards": REWARDS}, "exo-rw: found options beta; expected beta, reward_beta"),
        (
            "exo-rw",
            {"beta": 1.0, "reward_beta": 1.0, "label_smoothing": 0.1, "rewards": REWARDS},
            "exo-rw: found options beta, reward_beta, label_smoothing; expected beta, reward_beta",
        ),
        ("dpo-pref", {"beta": 1.0, "gamma": 1.0}, r"expected beta, label_smoothing \(optional\)"),
        ("hinge", {"beta": 0.0}, "hinge: found beta 0.0; expected more than 0"),
        ("hinge", {"beta": float("nan")}, "hinge: found beta nan"),
        ("dpo-rw", {"beta": 1.0, "reward_beta": -1.0, "rewards": REWARDS}, "dpo-rw: found reward_beta -1.0"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name: str, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OBJECTIVES[name].losses(VALUES, **given)


def test_a_batch_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^simpo: found 3 candidates"):
        OBJECTIVES["simpo"].losses(torch.zeros(2, 3), lengths=torch.ones(2, 3), beta=1.0, gamma=0.5)
    with pytest.raises(ValueError, match=r"^exo-rw: found 1 candidates"):
        OBJECTIVES["exo-rw"].losses(torch.zeros(2, 1), rewards=torch.ones(2, 1), beta=1.0, reward_beta=1.0)
