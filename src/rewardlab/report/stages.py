"""The sections on what was run, the data doctor, training and scoring."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewardlab.records import Estimate
from rewardlab.report import chosen
from rewardlab.report.blocks import Figure, Section, disclosure, facts, prose, table
from rewardlab.report.curves import Measure, curve, last_points, points_of
from rewardlab.report.html import Content, Html, content, element
from rewardlab.report.inputs import Check, DoctorFile, Inputs, Stage, Training
from rewardlab.report.interventions import intervention_blocks
from rewardlab.report.words import DASH, estimate_words, flat, plain_number

_SHOWN_EXAMPLES = 5
_EXAMPLE_CHARACTERS = 600
_MAIN_PACKAGES = ("rewardlab", "torch", "transformers", "accelerate", "peft", "numpy", "pyarrow")
_GIBIBYTE = 2**30
_SEVERITIES = ("problem", "warning", "note", "ok", "skipped")
_QUIET = ("ok", "skipped")


def runs_section(inputs: Inputs) -> Section:
    """What was run: a row per stage, and its whole record on demand."""
    described = [(_code_words(stage.record), _machine_words(stage.record)) for stage in inputs.stages if stage.record]
    # Stages of one study share code and machine: said once, not on every line.
    shared = len(set(described)) <= 1
    header = ("Stage", "Verb", "Started", "Took", *(() if shared else ("Code", "Machine")))
    rows = [_run_row(stage, shared) for stage in inputs.stages]
    blocks = [table("Stages", header, rows)]
    if shared and described:
        code, machine = described[0]
        blocks.insert(0, facts({"Code": code, "Machine": machine}))
    records = [disclosure(stage.label, *_record(stage)) for stage in inputs.stages if stage.record]
    if records:
        blocks.append(disclosure("Records: commands, configurations, seeds, packages and inputs with hashes", *records))
    lead = (
        "Every stage keeps a record of the exact command, configuration, code, packages, seeds, inputs and machine; "
        "rewardlab runs restore prints the commands that bring them back."
    )
    return Section("runs", "What was run", lead, blocks)


def doctor_section(stages: Sequence[Stage[DoctorFile]]) -> Section:
    """The checks of the data, the most serious ones first."""
    blocks: list[Html] = []
    for stage in stages:
        found = sorted(stage.content.checks, key=_seriousness)
        of = "" if len(stages) == 1 else f" of {stage.label}"
        loud = [check for check in found if check.severity not in _QUIET]
        quiet = [check for check in found if check.severity in _QUIET]
        if loud:
            blocks.append(_check_table(f"Checks{of} that found something", loud))
        if quiet:
            title = f"Checks{of} that found nothing, or were skipped"
            blocks.append(disclosure(f"{title} ({len(quiet)})", _check_table(title, quiet)))
    lead = (
        "What is wrong, odd or worth knowing about the data, before any model saw them. Counts are of the whole data, "
        "not of a sample, so they have no intervals; the estimates under the details have theirs."
    )
    return Section("data", "Data doctor", lead, blocks)


def training_section(stages: Sequence[Stage[Training]]) -> Section:
    """Loss, held-out accuracy and speed over the steps, a line per fold."""
    several = len(stages) > 1
    blocks: list[Figure | Html] = [
        figure for measure in _MEASURES for figure in [curve(stages, measure)] if figure is not None
    ]
    blocks.append(_training_table(stages, "Fold" if several else "Run"))
    for number, stage in enumerate(stages, start=1):
        if stage.content.interventions is not None:
            blocks += intervention_blocks(
                stage.content.interventions, f"-train-{number}", stage.label if several else ""
            )
    blocks += [
        disclosure(f"Summary of {stage.label}" if several else "Summary", facts(_training_facts(stage.content)))
        for stage in stages
        if stage.content.summary
    ]
    lead = f"Training loss is what the optimiser sees, the other curves are held out. {chosen.choice_words(stages)}"
    return Section("training", "Training", lead, blocks)


def _training_facts(training: Training) -> dict[str, str]:
    """The summary without the interventions and the test set, which stand in tables of their own."""
    return flat({name: value for name, value in training.summary.items() if name not in ("interventions", "test")})


def score_section(stages: Sequence[Stage[dict[str, Any]]]) -> Section:
    """What scoring did: counts, truncations, probes."""
    several = len(stages) > 1
    blocks = [
        content([element("h3", stage.label) if several else None, facts(_score_facts(stage.content))])
        for stage in stages
    ]
    lead = (
        "Every text that was scored, with truncations counted: of a truncated text the model did not see the side "
        "that was cut. These are counts, not estimates."
    )
    return Section("scoring", "Scoring", lead, blocks)


_SCORE_FACTS = {
    "scorer": "Model",
    "layout": "Layout",
    "fallback": "Flat layout because",
    "readout": "Readout",
    "encoding.template": "Chat template",
    "encoding.form": "What is read",
    "encoding.max_tokens": "Most tokens read",
    "encoding.truncation_side": "Side cut beyond them",
    "encoding.append_eos": "End token appended",
    "ensemble.rule": "Rule of the ensemble",
    "ensemble.weight": "Weight of the doubt",
    "ensemble.members": "Members",
    "ensemble.means": "Taken off each",
    "ensemble.sds": "Divided by then",
    "implicit.beta": "Beta of the implicit reward",
    "implicit.temperature": "Temperature of its policies",
    "disagreement": "Disagreement of members (mean standard deviation)",
    "records": "Records",
    "completions": "Answers scored",
    "unscored": "Answers without a score",
    "truncated": "Answers truncated",
    "probes": "Probes",
    "completions_per_second": "Answers per second",
    "trained_prompts": "Prompts that it was trained on",
    "verified.completions": "Answers scored again, one by one",
    "verified.difference": "Largest difference then",
    "verified.tolerance": "Difference allowed",
    "verified.dtype": "Number format",
}
_IN_TRAINING_ONLY = "encoding.overlong"


def _score_facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """summary.json of scoring in the words of a reader; what is empty, or not about scoring, is left out."""
    found = {key: text for key, text in flat(summary).items() if text not in ("", DASH) and key != _IN_TRAINING_ONLY}
    return {_SCORE_FACTS.get(key, key.replace("set_aside.", "Rows set aside: ")): text for key, text in found.items()}


_MEASURES = (
    Measure(
        "loss",
        "Loss",
        "loss",
        "The mean of the objective; lower is better. Under Bradley\N{EN DASH}Terry it is in nats per pair, and a model "
        "that knows nothing has .693 (ln 2). When training loss goes on falling while a held-out curve rises, the "
        "model learns its examples by heart.",
    ),
    Measure(
        "accuracy",
        "Held-out accuracy while training",
        "accuracy (%)",
        "Higher is better, 50 % is a coin flip. One point is one evaluation of the held-out set, and as unsure as the "
        "interval of the last one says: read the trend and not single steps.",
        percent=True,
    ),
    Measure(
        "pairs_per_second",
        "Speed",
        "pairs per second",
        "How fast training went on this machine. Dips are evaluations, checkpoints or a busy machine.",
        half=False,
    ),
)


def _training_table(stages: Sequence[Stage[Training]], name: str) -> Html:
    """A row per training; measures that none of them has are left out."""
    header = (name, *chosen.HEADER, "Last training loss", "Median pairs per second")
    rows = [_training_row(stage) for stage in stages]
    kept = [place for place in range(len(header)) if place == 0 or any(row[place] != DASH for row in rows)]
    cells = [[row[place] for place in kept] for row in rows]
    return table("Training in numbers", [header[place] for place in kept], cells, numeric=range(1, len(kept)))


def _training_row(stage: Stage[Training]) -> list[str]:
    history = stage.content.history
    losses = last_points(history, "train", "loss")
    speeds = sorted(value for _, value in points_of(history, "train", "pairs_per_second"))
    return [
        stage.label,
        *chosen.cells(stage),
        plain_number(losses[0].value) if losses else DASH,
        plain_number(speeds[len(speeds) // 2], 1) if speeds else DASH,
    ]


def _seriousness(check: Check) -> tuple[int, str]:
    order = {name: rank for rank, name in enumerate(_SEVERITIES)}
    return order.get(check.severity, len(order)), check.name


def _check_table(title: str, checks: Sequence[Check]) -> Html:
    return table(
        title, ("Check", "Found", "Share", "How to read it"), [_check_row(check) for check in checks], numeric=(1, 2)
    )


def _check_row(check: Check) -> list[Content]:
    more: list[Content] = []
    found = {
        item.name: content([element("strong", estimate_words(item)), " ", prose(item.reading or item.reason)])
        for item in estimates_in(check.numbers)
    }
    numbers = flat(_without_estimates(check.numbers))
    if found or numbers:
        more.append(facts({**found, **numbers}))
    if check.examples:
        shown = check.examples[:_SHOWN_EXAMPLES]
        of = f" of {check.count:,}" if check.count and check.count > len(shown) else ""
        more += [element("h3", f"Examples ({len(shown)}{of})"), [element("pre", _example_text(item)) for item in shown]]
    badge = element("span", check.severity, class_="badge", data_severity=check.severity)
    share = f"{100 * check.count / check.total:.1f} %" if check.count is not None and check.total else DASH
    of_total = f" of {check.total:,}" if check.total is not None else ""
    return [
        content([check.title, " ", badge]),
        DASH if check.count is None else content([element("strong", f"{check.count:,}"), of_total]),
        share,
        content([prose(check.reading), disclosure("Details", more) if more else None]),
    ]


def estimates_in(value: Any) -> Iterator[Estimate]:
    """The estimates, as dictionaries, anywhere in JSON values."""
    if _is_estimate(value):
        yield Estimate.from_dict(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from estimates_in(inner)


def _without_estimates(values: Mapping[str, Any]) -> dict[str, Any]:
    rest = {
        key: _without_estimates(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if not _is_estimate(value)
    }
    return {key: value for key, value in rest.items() if value != {}}


def _is_estimate(value: Any) -> bool:
    return isinstance(value, Mapping) and {"name", "value", "low", "high", "reading", "reason"} <= value.keys()


def _example_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    return text if len(text) <= _EXAMPLE_CHARACTERS else f"{text[:_EXAMPLE_CHARACTERS]} \N{HORIZONTAL ELLIPSIS}"


def _run_row(stage: Stage[Any], shared: bool) -> list[Content]:
    record = stage.record
    sessions = _sessions(record)
    verb = str(record.get("verb", DASH)) if record else "no record (run.json) in this folder"
    started = str(sessions[0].get("started", DASH)) if sessions else DASH
    row: list[Content] = [stage.label, verb, started.replace("T", " ").replace("+00:00", " UTC"), _duration(sessions)]
    return row if shared else [*row, _code_words(record), _machine_words(record)]


def _code_words(record: Mapping[str, Any]) -> str:
    code = _mapping(record, "code")
    if not code:
        return DASH
    commit = str(code.get("commit") or "")
    changed = " with changes (code.diff)" if code.get("diff_bytes") else ""
    source = f"commit {commit[:12]}{changed}" if commit else "an installed package"
    return f"rewardlab {code.get('version', DASH)}, {source}"


def _machine_words(record: Mapping[str, Any]) -> str:
    machine = _mapping(record, "machine")
    memory, accelerators = machine.get("memory_bytes"), machine.get("accelerators")
    parts = [
        str(machine.get("processor", "")),
        f"{machine['cores']} cores" if machine.get("cores") else "",
        f"{memory / _GIBIBYTE:.0f} GiB of memory" if isinstance(memory, int | float) else "",
        *(str(name) for name in (accelerators if isinstance(accelerators, list) else [])),
    ]
    return ", ".join(part for part in parts if part) or DASH


def _record(stage: Stage[Any]) -> list[Html]:
    record = stage.record
    packages = _mapping(record, "packages")
    main = {name: str(packages[name]) for name in _MAIN_PACKAGES if name in packages}
    commands = [str(session.get("command", "")) for session in _sessions(record)]
    parts = [
        element("h3", "Command"),
        element("pre", "\n".join(commands) or DASH),
        facts(
            {**_flat_facts(record), "packages": ", ".join(f"{name} {value}" for name, value in main.items()) or DASH}
        ),
    ]
    inputs = [item for item in record.get("inputs", []) if isinstance(item, Mapping)]
    if inputs:
        rows = [[str(item.get("path", DASH)), element("code", str(item.get("sha256", DASH)))] for item in inputs]
        parts.append(table("Inputs", ("File or folder", "SHA-256 of its content"), rows))
    if stage.config:
        parts += [element("h3", "Configuration"), element("pre", stage.config)]
    if packages:
        every = "\n".join(f"{name} {value}" for name, value in packages.items())
        parts.append(disclosure(f"All {len(packages)} packages", element("pre", every)))
    return parts


def _flat_facts(record: Mapping[str, Any]) -> dict[str, str]:
    shown = {key: record[key] for key in ("name", "description", "status", "seeds") if record.get(key)}
    code = {key: value for key, value in _mapping(record, "code").items() if key in ("version", "commit", "diff_bytes")}
    return flat({**shown, "code": code, "machine": _mapping(record, "machine")})


def _duration(sessions: Sequence[Mapping[str, Any]]) -> str:
    seconds = [session["seconds"] for session in sessions if isinstance(session.get("seconds"), int | float)]
    if not seconds:
        return DASH
    total = math.fsum(seconds)
    words = f"{total:.1f} s" if total < 100 else f"{total / 60:.0f} min" if total < 6000 else f"{total / 3600:.1f} h"
    return words if len(sessions) == 1 else f"{words} in {len(sessions)} sessions"


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _sessions(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    value = record.get("sessions")
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
