"""From raw numbers to RESULTS.md: medians over rounds, ratios taken within a round."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

TITLE = """# Benchmarks

Written by `make bench` from [results.json](results.json); do not edit. What is compared and why:
[docs/benchmarks.md](../docs/benchmarks.md).
"""

OURS = "rewardlab"


def summary(part: Mapping[str, Any], unit: str, operations: int) -> dict[str, Any]:
    """Medians of a part that has rounds.

    Args:
        part: its raw numbers.
        unit: what is counted, `pairs` or `texts`.
        operations: useful operations per shared-prefix token.

    Returns:
        `rates` by setting, `ratios` of ours to each setting, `default`, `best` (names of peer settings), `ceiling`
        in GFLOP/s and our `share` of it.
    """
    rounds = part["rounds"]
    rates = {name: [_rate(one, name, unit) for one in rounds] for name in rounds[0]["results"]}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    peers = [name for name in medians if name != OURS]
    ratios = {
        name: statistics.median(ours / peer for ours, peer in zip(rates[OURS], rates[name], strict=True))
        for name in peers
    }
    ceilings = [statistics.mean(one["ceilings"]) for one in rounds]
    shares = [
        operations * one["tokens"] / one["results"][OURS]["seconds"] / 1e9 / ceiling
        for one, ceiling in zip(rounds, ceilings, strict=True)
    ]
    return {
        "rates": medians,
        "ranges": {name: (min(values), max(values)) for name, values in rates.items()},
        "ratios": ratios,
        "default": peers[0],
        "best": max(peers, key=medians.__getitem__),
        "ceiling": statistics.median(ceilings),
        "share": statistics.median(shares),
    }


def page(results: Mapping[str, Any]) -> str:
    """The whole of RESULTS.md."""
    writers = {"reward": _reward, "score": _score, "memory": _memory, "growth": _growth, "effects": _effects}
    parts = [writers[name](results["parts"][name]) for name in writers if name in results["parts"]]
    return "\n".join([TITLE, *parts])


def _reward(part: Mapping[str, Any]) -> str:
    found = summary(part, "pairs", 6 * part["parameters"])
    gradients = part["gradients"]
    line = (
        f"Gradients of one step of 16 pairs against TRL's, bf16: cosine {gradients['bfloat16']['cosine']:.5f}; "
        f"float32: cosine {gradients['float32']['cosine']:.7f}, largest relative distance of a parameter tensor "
        f"{gradients['float32']['largest_distance']:.1e}."
    )
    return _rounds("Reward model training", "pairs", part, found, 6, line)


def _score(part: Mapping[str, Any]) -> str:
    found = summary(part, "texts", 2 * part["parameters"])
    errors = ", ".join(f"{name} {error:.1e}" for name, error in part["largest_error"].items())
    line = f"Largest difference of a score from float32 (scores spread over {part['spread']:.2f}): {errors}."
    return _rounds("Scoring", "texts", part, found, 2, line)


def _rounds(title: str, unit: str, part: Mapping[str, Any], found: Mapping[str, Any], factor: int, line: str) -> str:
    default, best, ratios = found["default"], found["best"], found["ratios"]
    table = _table(
        ["setting", f"{unit}/s (median)", "range", "rewardlab is faster by"],
        (
            [
                name + {default: " (default)"}.get(name, "") + (" (best)" if name == best else ""),
                f"{rate:.2f}",
                "{:.2f}-{:.2f}".format(*found["ranges"][name]),
                f"{ratios[name]:.2f}x" if name in ratios else "",
            ]
            for name, rate in found["rates"].items()
        ),
    )
    claim = (
        f"**{ratios[default]:.1f}x the peer's default, {ratios[best]:.2f}x its best setting; {found['share']:.0%} of "
        f"the ceiling in useful operations** ({factor} x {part['parameters']:,} non-embedding parameters x "
        f"shared-prefix tokens; ceiling {found['ceiling']:.0f} GFLOP/s in bf16)."
    )
    rounds = len(part["rounds"])
    return "\n".join([f"## {title}", "", _made(part), "", claim, "", table, "", line, "", f"Rounds: {rounds}.", ""])


def _memory(part: Mapping[str, Any]) -> str:
    table = _table(["side", "peak memory (MiB)"], ([name, f"{peak:,}"] for name, peak in part["peaks"].items()))
    return "\n".join(["## Peak memory", "", _made(part), "", table, ""])


def _growth(part: Mapping[str, Any]) -> str:
    titles = {"pairs": "Training by data size", "tokens": "Training by length", "candidates": "Scoring by candidates"}
    lines = ["## How time grows", "", _made(part), ""]
    for name, title in titles.items():
        rows = part["tables"][name]
        cells = ([f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows)
        lines += [f"### {title}", "", _table(list(rows[0]), cells), ""]
    return "\n".join(lines)


def _effects(part: Mapping[str, Any]) -> str:
    large = _table(
        ["triples", "prompts", "intervals", "seconds", "seconds of processors", "peak memory (MiB)"],
        (
            [
                f"{one['triples']:,}",
                f"{one['prompts']:,}",
                str(one["intervals"]),
                f"{one['seconds']:.1f}",
                f"{one['work']:.1f}",
                f"{one['peak']:,}",
            ]
            for one in part["large"]
        ),
    )
    rounds = part["rounds"]
    seconds = {
        name: statistics.median(one["results"][name]["seconds"] for one in rounds) for name in rounds[0]["results"]
    }
    peers = [name for name in seconds if name != OURS]
    ratio = {
        name: statistics.median(one["results"][name]["seconds"] / one["results"][OURS]["seconds"] for one in rounds)
        for name in peers
    }
    best = min(peers, key=seconds.__getitem__)
    first = rounds[0]["results"]
    table = _table(
        ["side", "intervals", "seconds (median)", "rewardlab is faster by", "ends of the ATE in sd, first round"],
        (
            [
                name + (" (best)" if name == best else ""),
                str(first[name]["intervals"]),
                f"{value:.3f}",
                f"{ratio[name]:.0f}x" if name in ratio else "",
                "{:.4f} to {:.4f}".format(*first[name]["ends"]),
            ]
            for name, value in seconds.items()
        ),
    )
    claim = (
        f"**{ratio[best]:.0f}x scipy's best setting** at {part['peer_triples']:,} triples, for all effects against one."
    )
    words = f"Every effect of an audit with its BCa interval, {part['draws']:,} resamples of whole prompts:"
    return "\n".join(
        ["## Effects", "", _made(part), "", words, "", large, "", claim, "", table, "", f"Rounds: {len(rounds)}.", ""]
    )


def _made(part: Mapping[str, Any]) -> str:
    made = part["made"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"`{made['command']}`, {made['date']}, {made['machine']}; {versions}."


def _rate(one: Mapping[str, Any], name: str, unit: str) -> float:
    result = one["results"][name]
    rate: float = result[unit] / result["seconds"]
    return rate


def _table(head: list[str], body: Iterable[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *body])
