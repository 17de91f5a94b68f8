"""Where else the measures of a training go: TensorBoard in the run's own folder, and the trackers of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from rewardlab.config import nearest
from rewardlab.errors import ConfigError, Problem
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run
from rewardlab.train.examples import Examples
from rewardlab.train.tensorboard import TENSORBOARD, TensorBoard


def unknown_trackers(names: Sequence[str]) -> Iterator[str]:
    """What is wrong with names of trackers that no machine has; whether one is installed, only training has to know."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            meant = nearest(name, list(INTEGRATION_TO_CALLBACK))
            yield f"expected report_to to name known trackers, which {name!r} is not. {meant}"


def check_trackers(names: Sequence[str]) -> None:
    """All trackers are installed.

    Raises:
        ConfigError: those that are not.
    """
    present = get_available_reporting_integrations()
    expected = f"an installed tracker ({', '.join(present)})" if present else "an installed tracker; there is none"
    installs = {TENSORBOARD: "pip install 'rewardlab[tensorboard]'"}
    problems = [
        Problem(
            "report_to",
            repr(name),
            expected,
            f"{installs.get(name, 'Install its package')}, or leave it out: history.jsonl is always written.",
        )
        for name in names
        if name not in present
    ]
    if problems:
        raise ConfigError("The tracker cannot be used", problems)


def tensor_board(
    names: Sequence[str], run: Run, sets: Mapping[str, Examples]
) -> AbstractContextManager[TensorBoard | None]:
    """What writes for TensorBoard, where that is among `names`. Training has to find out before it begins.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """
    if TENSORBOARD not in names or not processes().is_first:
        return nullcontext()
    return TensorBoard(run.path(TENSORBOARD), {name: data.target for name, data in sets.items()})
