"""From raw numbers to RESULTS.md: medians over rounds, ratios taken within a round."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

TITLE = """# Benchmarks

Written by `make bench`, `benchmarks.readouts` and `benchmarks.features` from [results.json](results.json); do not edit.
What is compared and why: [docs/benchmarks.md](../docs/benchmarks.md).
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
    writers = {
        "reward": _reward,
        "score": _score,
        "memory": _memory,
        "growth": _growth,
        "effects": _effects,
        "readouts": _readouts,
        "features": _features,
        "alignment": _alignment,
        "candidates": _candidates,
        "sampling": _sampling,
    }
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


def _readouts(part: Mapping[str, Any]) -> str:
    rows = []
    for backbone, found in part["backbones"].items():
        rounds, linear = found["rounds"], found["linear"]
        for name in rounds[0]:
            ratios = [one[name] / one[linear] for one in rounds]
            seconds = f"{statistics.median(one[name] for one in rounds):.2f}"
            is_linear = name == linear
            ratio = "1 (the linear head)" if is_linear else f"{statistics.median(ratios):.2f}"
            rows.append([backbone, name, seconds, ratio, "" if is_linear else f"{min(ratios):.2f}-{max(ratios):.2f}"])
    table = _table(["backbone", "readout", "s a step (median)", "times the linear head (median)", "range"], rows)
    first = next(iter(part["backbones"].values()))
    line = f"Forward and backward of {part['pairs']} pairs, bf16 over float32. Rounds: {len(first['rounds'])}."
    return "\n".join(["## Readouts", "", _made(part), *_note(part), "", table, "", line, ""])


def _features(part: Mapping[str, Any]) -> str:
    rounds = part["rounds"]
    table = _table(
        ["round", "s an epoch through the backbone", "s from the cache", "times less", "largest difference of a loss"],
        (
            [
                str(number),
                f"{one['backbone']:.1f}",
                f"{one['cache']:.2f}",
                f"{one['backbone'] / one['cache']:.0f}",
                f"{one['difference']:.1e}",
            ]
            for number, one in enumerate(rounds, 1)
        ),
    )
    line = f"An epoch of {part['pairs']} pairs; the readout is `{part['readout']}`."
    return "\n".join(["## Cached hidden states", "", _made(part), *_note(part), "", table, "", line, ""])


def _alignment(part: Mapping[str, Any]) -> str:
    rounds = part["rounds"]
    names = list(rounds[0]["results"])
    peers = [name for name in names if not name.startswith(OURS)]
    medians = {name: statistics.median(_rate(one, name, "pairs") for one in rounds) for name in names}

    def ratio(own: str, peer: str, kind: str) -> str:
        return f"{statistics.median(one['results'][peer][kind] / one['results'][own][kind] for one in rounds):.1f}"

    rows = []
    for name in names:
        own = f"{OURS}, cached" if name.endswith("precomputed") else OURS
        ratios = [ratio(own, name, kind) + "x" if name in peers else "" for kind in ("seconds", "work")]
        peak = f"{max(one['results'][name]['peak'] for one in rounds):,}"
        work = statistics.median(one["results"][name]["work"] / one["results"][name]["pairs"] for one in rounds)
        rows.append([name + " (default)" * (name == names[0]), f"{medians[name]:.3f}", f"{work:.2f}", *ratios, peak])
    head = ["setting", "pairs/s (median)", "s of processors a pair", "rewardlab is faster by", "by processors", "MiB"]
    cached = max((name for name in peers if name.endswith("precomputed")), key=medians.__getitem__)
    claim = (
        f"**{ratio(OURS, names[0], 'seconds')}x the peer's default from an empty cache, "
        f"{ratio(f'{OURS}, cached', cached, 'seconds')}x its best setting with the reference computed before on both "
        f"sides; in seconds of processors {ratio(OURS, names[0], 'work')}x and "
        f"{ratio(f'{OURS}, cached', cached, 'work')}x.**"
    )
    theirs, ours = part["agreement"]["TRL"], part["agreement"]["rewardlab"]
    losses = ", ".join(f"{a:.6f} and {b:.6f}" for a, b in zip(theirs, ours, strict=True))
    apart = max(abs(a - b) for a, b in zip(theirs, ours, strict=True))
    line = f"Losses of {len(ours)} steps in float32, TRL's and ours: {losses}; at most {apart:.1e} apart."
    title = "## Alignment: training with EXO on pairs"
    table = _table(head, rows)
    made = [title, "", _made(part), *_note(part), "", claim, "", table, "", line, ""]
    return "\n".join([*made, f"Rounds: {len(rounds)}, of {rounds[0]['results'][OURS]['pairs']} pairs each.", ""])


def _candidates(part: Mapping[str, Any]) -> str:
    rounds = part["rounds"]
    table = _table(
        ["candidates of a prompt", "s a candidate (median)", "s of processors a candidate"],
        (
            [count]
            + [
                f"{statistics.median(one[count][kind] / one[count]['candidates'] for one in rounds):.3f}"
                for kind in ("seconds", "work")
            ]
            for count in rounds[0]
        ),
    )
    line = "Training with exo-rw on K answers to each of the same prompts, the reference computed from an empty cache."
    title = "## Alignment: training by candidates"
    return "\n".join([title, "", _made(part), *_note(part), "", line, "", table, "", f"Rounds: {len(rounds)}.", ""])


def _sampling(part: Mapping[str, Any]) -> str:
    rounds, rows = part["rounds"], part["rows"]
    rates = {name: [one[name] for one in rounds] for name in rounds[0]}

    def ratio(name: str) -> str:
        own = f"{OURS} {name.rpartition(' ')[2]}"
        return (
            ""
            if name == own
            else f"{statistics.median(b / a for a, b in zip(rates[name], rates[own], strict=True)):.2f}x"
        )

    table = _table(
        ["setting", "tokens/s (median)", "range", "rewardlab is faster by, at as many rows"],
        (
            [name, f"{statistics.median(own):.1f}", f"{min(own):.1f}-{max(own):.1f}", ratio(name)]
            for name, own in rates.items()
        ),
    )
    best = {side: max(statistics.median(rates[f"{side} {count}"]) for count in rows) for side in ("generate", OURS)}
    claim = (
        f"**{best[OURS] / best['generate']:.2f}x plain batched generate of transformers, best setting against best.**"
    )
    line = (
        f"{part['answers']} answers to each of {part['prompts']} prompts a round, at most {part['longest']} tokens, of "
        "skewed lengths that both sides keep to; a setting has so many rows at once."
    )
    made = ["## Sampling", "", _made(part), *_note(part), "", claim, "", table, "", line, ""]
    return "\n".join([*made, f"Rounds: {len(rounds)}.", ""])


def _note(part: Mapping[str, Any]) -> list[str]:
    return ["", f"Measured {part['note']}."] if part.get("note") else []


def _table(head: list[str], body: Iterable[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *body])
