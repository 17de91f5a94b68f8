"""Where else the measures of a training go: TensorBoard in the run's own folder, and the trackers of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from rewardlab.config import nearest
from rewardlab.errors import ConfigError, Problem
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run
from rewardlab.train.examples import Examples
from rewardlab.train.tensorboard import TENSORBOARD, TensorBoard, import_writer


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


class LoopTrackers:
    """Tells trackers the lines of history.jsonl, for a loop that is not transformers' own. A context manager.

    Args:
        names: of the trackers; all are installed.
        run: whose folder TensorBoard's curves go to.
        model: what is trained; trackers note its configuration.
        done: steps done before this session, whose curves a resumed run keeps.
        settings: fields of `TrainingArguments` that trackers note besides.
    """

    def __init__(self, names: Sequence[str], run: Run, model: Any, *, done: int, settings: Mapping[str, Any]) -> None:
        self._folder = str(run.path(TENSORBOARD)) if TENSORBOARD in names else ""
        self._done = done
        self._board: Any = None
        self._callbacks = [INTEGRATION_TO_CALLBACK[name]() for name in names if name != TENSORBOARD]
        self._model = model
        if self._callbacks:
            self._arguments = TrainingArguments(output_dir=str(run.path("checkpoints")), report_to=[], **settings)
            self._state, self._control = TrainerState(global_step=done), TrainerControl()

    def __enter__(self) -> Self:
        if self._folder:
            self._board = import_writer()(log_dir=self._folder, purge_step=self._done + 1)
        self._tell("on_train_begin")
        return self

    def __exit__(self, *_: object) -> None:
        self._tell("on_train_end")
        if self._board is not None:
            self._board.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """A line of the history: of training under the names that it has, of other sets as `eval_<set>_<name>`."""
        step, split = int(line["step"]), str(line["split"])
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float) and name != "step"}
        if self._board is not None:
            for name, value in numbers.items():
                if name != "epoch":
                    self._board.add_scalar(f"{split}/{name}", value, step)
        if self._callbacks:
            self._state.global_step, self._state.epoch = step, line["epoch"]
            of = "" if split == "train" else f"eval_{split}_"
            self._tell(
                "on_log", logs={name if name == "epoch" else f"{of}{name}": value for name, value in numbers.items()}
            )

    def _tell(self, event: str, **more: Any) -> None:
        for one in self._callbacks:
            getattr(one, event)(self._arguments, self._state, self._control, model=self._model, **more)
