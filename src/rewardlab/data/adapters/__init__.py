"""The registry of formats, most specific first: the order in which columns are matched."""

from __future__ import annotations

from collections.abc import Sequence

from rewardlab.data.adapters import (
    canonical,
    comparison,
    counterfactual,
    dialoconan,
    exo,
    generated,
    hh_rlhf,
    instructions,
    kway,
    polarity,
    preference,
    qa_feedback,
    real_toxicity,
    reward_bench,
    rewrites,
    rm_bench,
    scored_answers,
    single,
    stack_exchange,
    texts,
    tldr,
    webgpt,
)
from rewardlab.data.adapters.base import Adapter
from rewardlab.data.rows import Row

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        canonical.ADAPTER,
        hh_rlhf.ADAPTER,
        reward_bench.ADAPTER,
        rm_bench.ADAPTER,
        preference.ADAPTER,
        comparison.ADAPTER,
        comparison.INSTRUCTION,
        comparison.LLMBAR,
        webgpt.ADAPTER,
        stack_exchange.ADAPTER,
        tldr.COMPARISON,
        tldr.POSTS,
        scored_answers.HELPSTEER,
        scored_answers.ULTRAFEEDBACK,
        qa_feedback.ADAPTER,
        rewrites.ADAPTER,
        counterfactual.ADAPTER,
        polarity.ADAPTER,
        dialoconan.ADAPTER,
        kway.RANKED,
        kway.ADAPTER,
        generated.ADAPTER,
        exo.ADAPTER,
        instructions.ADAPTER,
        real_toxicity.ADAPTER,
        single.LABELLED,
        single.SCORED,
        single.COMPLETION,
        single.MESSAGES,
        single.PROMPT,
        texts.ADAPTER,
        texts.LABELLED,
    )
}
"""Every format by its name."""


def detect(rows: Sequence[Row]) -> Adapter | None:
    """The first format of the registry that all of these rows fit; None where none does.

    A few broken rows do not make a file one of another format: where most rows have columns that this format would not
    read, and the others lack one of them, it is the first format that reads them.
    """
    if not rows:
        return None
    richer: list[Adapter] = []
    for adapter in ADAPTERS.values():
        if all(_fits(adapter, row) for row in rows):
            unread = (one for one in richer if not set(one.required) <= set(adapter.columns))
            return next(unread, adapter)
        if _most_fit(adapter, rows):
            richer.append(adapter)
    return next(iter(richer), None)


def for_hub_id(hub_id: str) -> Adapter | None:
    """The format that a dataset on the hub is known to have."""
    return next((adapter for adapter in ADAPTERS.values() if hub_id in adapter.hub_ids), None)


def describe_formats() -> str:
    """The formats as a table for the terminal: name, what it is, columns (optional ones with a question mark)."""
    width = max(map(len, ADAPTERS))
    lines = []
    for name, adapter in ADAPTERS.items():
        columns = [*adapter.required, *(f"{column}?" for column in adapter.optional)]
        lines += [f"{name:{width}}  {adapter.title}", f"{'':{width}}  columns: {', '.join(columns)}"]
    return "\n".join(lines)


def _fits(adapter: Adapter, row: Row) -> bool:
    has_columns = all(row.knows(name) for name in adapter.required)
    return has_columns and (adapter.fits is None or adapter.fits(row))


def _most_fit(adapter: Adapter, rows: Sequence[Row]) -> bool:
    """Whether more than half of the rows fit, and the others lack a column that the format needs."""
    others = [row for row in rows if not _fits(adapter, row)]
    lacking = all(not all(row.knows(name) for name in adapter.required) for row in others)
    return lacking and 2 * len(others) < len(rows)
