"""A folder of `evaluate cartography`, made from made-up margins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rewardlab.evaluate.cartography import Cartography, evaluate_cartography
from rewardlab.records import Pair, Prompt
from rewardlab.store.files import write_jsonl
from rewardlab.train.margins import MARGINS, SCHEMA
from tests.report import finished


class Folder:
    """Where to write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str | Path = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def made_up_margins(pairs: int, epochs: int) -> np.ndarray:
    """Shape [pairs, epochs]: learnt by and by, the first tenth never."""
    rng = np.random.default_rng(3)
    level = rng.normal(1.0, 0.8, size=pairs)
    level[: pairs // 10] = -2.0
    rows = level[:, None] * np.linspace(0.3, 1.5, epochs) + rng.normal(0, 0.4, size=(pairs, epochs))
    return rows.astype(np.float32)


def write_map(
    root: Path, *, pairs: int = 60, epochs: int = 4, hostile: str = "", margins: Sequence[Sequence[float]] = ()
) -> Path:
    """The folder; the last pair is not among the data given.

    With `margins`, a row of epochs per training, every pair has those; else one training has made-up ones.
    """
    records = [
        Pair(
            Prompt.of_text(f"Human: What about number {number}? {hostile}\n\nAssistant:"),
            f"chosen answer {number} {'and more ' * (number % 3)}{hostile}",
            f"rejected answer {number} {'and more ' * (number % 2)}{hostile}",
        )
        for number in range(pairs)
    ]
    data = root / "train.jsonl"
    root.mkdir(parents=True, exist_ok=True)
    names = ("prompt", "chosen", "rejected")
    texts = [(one.prompt.messages[0].content, one.chosen, one.rejected) for one in records[:-1]]
    write_jsonl(data, [dict(zip(names, row, strict=True)) for row in texts])
    trainings = [np.tile(one, (pairs, 1)) for one in margins] or [made_up_margins(pairs, epochs)]
    runs = []
    for number, table in enumerate(trainings):
        rows = [
            {"pair_id": one.id, "occurrence": 0, "epoch": epoch + 1, "step": epoch + 1}
            | {"chosen_reward": margin, "rejected_reward": 0.0, "margin": margin}
            for epoch in range(table.shape[1])
            for one, margin in zip(records, table[:, epoch].tolist(), strict=True)
        ]
        runs.append(root / f"run{'<i>' if hostile else ''}{number or ''}")
        runs[-1].mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), runs[-1] / MARGINS)
    folder = root / "map"
    finished.write_record(folder, "evaluate cartography", hostile)
    evaluate_cartography(Cartography.build({"runs": [str(run) for run in runs], "data": [str(data)]}), Folder(folder))
    return folder
