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
        "ppo": _ppo,
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
    return f"`{made['command']}`, {made['date']}, {made['machine']}; {_listed(made['versions'])}."


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
        return _faster(rounds, own, peer, kind)

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
    tokens, output = part["tokens"], part["output_layer"]
    operations = [
        part["parameters"] * tokens[read] + output * tokens[predicted]
        for read, predicted in (("padded", "padded"), ("shared", "logits"))
    ]
    less = (
        f"Of these pairs TRL at one to a micro-batch reads {tokens['padded']:,} tokens and has logits at all of them; "
        f"with shared prompts ours has {tokens['shared']:,}, of which {tokens['logits']:,} are predicted: "
        f"{operations[0] / operations[1]:.1f} times our operations, attention apart."
    )
    title = "## Alignment: training with EXO on pairs"
    table = _table(head, rows)
    made = [title, "", _made(part), *_note(part), "", claim, "", table, "", line, "", less, ""]
    count = f"{len(rounds)}, of {rounds[0]['results'][OURS]['pairs']} pairs each"
    return "\n".join([*made, f"Rounds: {count}; products in {part['precision']}.", ""])


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
    rest = ["", line, "", table, "", f"Rounds: {len(rounds)}; products in {part['precision']}.", ""]
    return "\n".join(["## Alignment: training by candidates", "", _made(part), *_note(part), *rest])


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


def _ppo(part: Mapping[str, Any]) -> str:
    rounds, default = part["rounds"], part["default"]
    names = list(rounds[0]["results"])
    peers = [name for name in names if not name.startswith(OURS)]
    own, alike = (name for name in names if name not in peers)
    rates = {name: [_rate(one, name, "responses") for one in rounds] for name in names}
    best = max(peers, key=lambda name: statistics.median(rates[name]))
    rows = []
    for name in names:
        results = [one["results"][name] for one in rounds]
        work = statistics.median(one["work"] / one["responses"] for one in results)
        ratios = [_faster(rounds, side, name, "seconds") + "x" if name in peers else "" for side in (own, alike)]
        span = f"{min(rates[name]):.3f}-{max(rates[name]):.3f}"
        peak = f"{max(one['peak'] for one in results):,}"
        title = name + " (default)" * (name == default) + " (best)" * (name == best)
        rows.append([title, f"{statistics.median(rates[name]):.3f}", span, f"{work:.2f}", *ratios, peak])
    head = ["setting", "completions/s (median)", "range", "s of processors a completion"]
    table = _table([*head, "rewardlab is faster by", "with a critic of its own by", "MiB"], rows)
    ratios = [_faster(rounds, side, peer, "seconds") for side in (own, alike) for peer in (default, best)]
    claim = (
        f"**{ratios[0]}x the peer's default, {ratios[1]}x its best setting; with a critic of its own, as the peer has "
        f"one, {ratios[2]}x and {ratios[3]}x.**"
    )
    count = rounds[0]["results"][own]["responses"]
    prompt = statistics.mean(one["prompt_tokens"] for one in rounds) / count
    line = (
        f"Rounds: {len(rounds)}, of {count} responses of {part['longest']} tokens, {part['responses']} to a batch, "
        f"{part['inner_epochs']} passes over each; prompts of {prompt:.0f} tokens on average. "
        f"Products in {part['precision']}. In the peer's environment: {_listed(part['peer'])}."
    )
    made = ["## PPO", "", _made(part), *_note(part), "", claim, "", table, "", line, ""]
    return "\n".join([*made, *_ppo_profile(part, dict.fromkeys([default, best]), (own, alike)), ""])


def _ppo_profile(part: Mapping[str, Any], peers: Iterable[str], own: Iterable[str]) -> list[str]:
    """Seconds of a batch by what they were spent on, ours beside their floors."""
    rounds = part["rounds"]

    def spent(name: str) -> list[float]:
        found = [one["results"][name] for one in rounds]
        phases = [statistics.median(one["phases"][phase] / one["responses"] for one in found) for phase in PHASES]
        whole = statistics.median(one["seconds"] / one["responses"] for one in found)
        return [value * part["responses"] for value in (*phases, whole)]

    def floor(name: str) -> list[float]:
        each = [ppo_floor(part, one, has_critic=name != OURS) for one in rounds]
        values = [statistics.median(one[phase] for one in each) for phase in PHASES]
        return [*values, sum(values)]

    columns = {name: spent(name) for name in peers}
    for name in own:
        columns |= {name: spent(name), f"floor of {name}": floor(name)}
    body = zip([*PHASES, "all"], *([f"{value:.2f}" for value in one] for one in columns.values()), strict=True)
    rates = {kind: f"{statistics.median(_ceilings(one)[kind] for one in rounds):.0f}" for kind in CEILINGS}
    line = (
        f"The floor is operations over the ceiling: {part['parameters']:,} non-embedding parameters, "
        f"{part['output_layer']:,} of the output layer; GFLOP/s: {_listed(rates)}."
    )
    return [_table(["seconds of a batch", *columns], map(list, body)), "", line]


PHASES = ("sampling", "scoring", "measuring", "reference", "update")
"""What the seconds of a batch of PPO are spent on."""
CEILINGS = ("forward", "training", "decoding")
"""Of a micro-batch, without and with gradients, and of a token of each response at a time."""


def ppo_floor(part: Mapping[str, Any], one: Mapping[str, Any], *, has_critic: bool) -> dict[str, float]:
    """Seconds of a batch that the bare matrix products of every phase take.

    Args:
        part: `parameters` without embeddings, those of the `output_layer`, `responses` to a batch, their tokens
            (`longest`) and `inner_epochs`.
        one: a round: `prompt_tokens` of all its responses, `results` and `ceilings` in GFLOP/s.
        has_critic: with a backbone of its own, as large as the policy's.
    """
    count = next(iter(one["results"].values()))["responses"]
    made = count * part["longest"]
    rates = _ceilings(one)
    read = part["parameters"] * (one["prompt_tokens"] + made)
    predicted = part["output_layer"] * made
    measured = read * (2 if has_critic else 1) + predicted
    begun = part["parameters"] * one["prompt_tokens"] + part["output_layer"] * count
    # The last token of a response is not run.
    drawn = (part["parameters"] + part["output_layer"]) * (made - count)
    products = {
        "sampling": begun / rates["forward"] + drawn / rates["decoding"],
        "scoring": read / rates["forward"],
        "measuring": measured / rates["forward"],
        "reference": (read + predicted) / rates["forward"],
        "update": 3 * part["inner_epochs"] * measured / rates["training"],
    }
    return {name: 2 * value / 1e9 * part["responses"] / count for name, value in products.items()}


def _ceilings(one: Mapping[str, Any]) -> dict[str, float]:
    return {kind: statistics.mean(found[kind] for found in one["ceilings"]) for kind in CEILINGS}


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _faster(rounds: list[Any], own: str, peer: str, kind: str) -> str:
    """How many times the peer's seconds are ours, the median over rounds."""
    return f"{statistics.median(one['results'][peer][kind] / one['results'][own][kind] for one in rounds):.1f}"


def _note(part: Mapping[str, Any]) -> list[str]:
    return ["", f"Measured {part['note']}."] if part.get("note") else []


def _table(head: list[str], body: Iterable[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *body])
