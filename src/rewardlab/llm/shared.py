"""The ledger that all runs share: what one has paid for, no other pays for again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rewardlab.llm.ledger import Ledger
from rewardlab.store.lock import FolderLock
from rewardlab.store.settings import Settings

FOLDER, LEDGER = "ledger", "ledger.sqlite"
_IN_USE = (
    "One job at a time asks chat models, so that nothing is paid for twice: wait for it, or stop it (what it has paid "
    "for is kept), or give this one a ledger of its own with REWARDLAB_HOME."
)


@contextmanager
def shared_ledger() -> Iterator[Ledger]:
    """`ledger/ledger.sqlite` in the folder of runs, for one process at a time.

    Raises:
        RunError: another process has it, or it cannot be written to.
        DataError: the file is no ledger.
    """
    folder = Settings.from_environment().home / FOLDER
    lock = FolderLock(folder, "ledger of paid answers", _IN_USE)
    try:
        with Ledger(folder / LEDGER) as ledger:
            yield ledger
    finally:
        lock.release()
