"""`rewardlab evaluate winrate`: has answers compared (`evaluate.winrate`) and writes the page of what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardlab.audit.summary import number
from rewardlab.evaluate.summary import MINUS, estimate_lines, percent
from rewardlab.evaluate.winrate import WinrateEvaluation, compare, refuse_empty
from rewardlab.evaluate.winrate_estimates import STRENGTH, Values, winrate_values
from rewardlab.report.audit_figures import TEAL
from rewardlab.report.blocks import Figure, Section
from rewardlab.report.forest import forest
from rewardlab.report.html import Html, element
from rewardlab.report.page import MeasuredPage, write_page
from rewardlab.report.tables import Column, ResultTable
from rewardlab.report.vega import BLUE, GREY, Spec
from rewardlab.report.words import DASH
from rewardlab.store.files import write_json, write_text
from rewardlab.store.runs import Run

RESULT, SUMMARY = "winrate.json", "winrate.txt"
STRENGTHS = "Bradley-Terry strength (log-odds)"

_RATES = (
    "Grey is the raw win rate, blue the one that the fitted model gives for answers of equal length. Where the two are "
    "far apart, length decides much of who wins."
)
_STRATA = (
    "The comparisons of each model in parts of equal size, by how many characters its answer is longer than the other "
    "one. A judge without a taste for length, and models whose answers are as good at any length, give one height."
)
_FITS = (
    "Coefficients are on the logit scale: quality where the lengths are equal and the instruction is of middle "
    "difficulty, length per tanh of the difference in standard deviations, difficulty per unit of the instruction's."
)
_RANKING = (
    "Strengths are those of a Bradley-Terry model over all meetings; differences are log-odds of winning. The interval "
    "of a place is over resamples of the prompts."
)


def evaluate_winrate(config: WinrateEvaluation, run: Run) -> MeasuredPage:
    """Write `winrate.json`, `winrate.txt`, `comparisons.parquet`, `report.html` and its figures.

    Raises:
        RewardlabError: as `evaluate.winrate.compare`.
    """
    found = compare(config, run)
    refuse_empty(found)
    values = winrate_values(found, config, {name: one.rule for name, one in config.judges.items()})
    values = {**values, "findings": findings(values)}
    sections = winrate_sections(values)
    write_json(run.path(RESULT), values)
    write_text(run.path(SUMMARY), "\n".join([*values["findings"], *estimate_lines(values["estimates"])]) + "\n")
    return MeasuredPage(write_page(run, config.title, sections), values)


# --- words ---------------------------------------------------------------------------------------------------------


def findings(values: Values) -> list[str]:
    """What was found, in sentences."""
    lines = [_rate_words(values, name) for name in values["models"]]
    lines += ranking_words(values)
    lines += _judges_words(values)
    agreement = values["estimates"]["labelled"]
    if agreement:
        words = "; ".join(f"{_after(one)} {share_words(one)}" for one in agreement)
        lines.append(f"The judge agrees with people in {words} of the pairs.")
    return [*lines, *values["warnings"]]


def winrate_notes(values: Values) -> list[str]:
    """Findings without the ranking: every rate over the baseline, the judges, and warnings."""
    rates = [_rate_words(values, name) for name in values["models"]]
    return [*rates, *_judges_words(values), *values["warnings"]]


def _judges_words(values: Values) -> list[str]:
    return [line for one in values["outcomes"] if (line := _judge_words(values, one))]


def _rate_words(values: Values, name: str) -> str:
    raw, controlled = (_named(values, "win_rate", f"{kind}.{name}") for kind in ("raw", "lc"))
    fit = values["fits"][name]
    longer = fit["mean_difference"]
    length = f"its answers are {abs(longer):,.0f} characters {'longer' if longer >= 0 else 'shorter'} on average"
    even = (
        f"at equal length {share_words(controlled)}" if controlled["value"] is not None else f"none ({fit['reason']})"
    )
    return f"{name} against {values['baseline']}: raw {share_words(raw)}, {even}; {length}; {raw['n']:,} comparisons."


def ranking_words(values: Values) -> list[str]:
    """The order of the players in a sentence; nothing where there is no ranking."""
    places = [one for one in values["estimates"]["ranking"] if one["name"].startswith("rank.")]
    if not places:
        return []
    order = sorted(places, key=lambda one: one["value"])
    words = ", ".join(
        _after(one) + ("" if one["low"] is None else f" ({one['low']:.0f} to {one['high']:.0f})") for one in order
    )
    strengths = next(one for one in values["estimates"]["ranking"] if one["name"].startswith("strength."))
    regularised = strengths["reading"].removeprefix(STRENGTH)
    return [f"The ranking, with intervals of the places: {words}.{regularised}"]


def _judge_words(values: Values, one: Mapping[str, Any]) -> str:
    judge = one["judge"]
    place = _named(values, "judge", f"first_place.{judge}")
    if place is None or place["value"] is None:
        return ""
    same = _named(values, "judge", f"consistency.{judge}")
    return (
        f"{values['judges'].get(judge, judge)}: the answer in the first place is preferred in {share_words(place)} of "
        f"the questions (50.0 % without a bias); both orders name the same answer in {share_words(same)} of the pairs."
    )


def _named(values: Values, group: str, name: str) -> Any:
    return next((one for one in values["estimates"][group] if one["name"] == name), None)


def _after(one: Mapping[str, Any]) -> str:
    """What stands behind the kind in an estimate's name: of the data."""
    return str(one["name"]).partition(".")[2]


def _range(one: Mapping[str, Any]) -> str:
    """The range of a stratum, with true minus signs."""
    return str(one["name"]).rpartition(".")[2].replace("-", MINUS)


def share_words(one: Mapping[str, Any]) -> str:
    """`63.1 % (60.2 to 65.9)`; of small shares two digits."""
    if one["value"] is None:
        return "none"
    ends = "" if one["low"] is None else f" ({_percent(one['low'])} to {_percent(one['high'])})"
    return f"{_percent(one['value'])} %{ends}"


def _percent(share: float) -> str:
    return percent(share) if abs(share) >= 0.1 else f"{100 * share:.2f}"


# --- the page ------------------------------------------------------------------------------------------------------


def winrate_sections(values: Values) -> list[Section]:
    """The sections of the page, in order; those without anything to show are left out."""
    lead = (
        f"How often each model's answer is preferred over that of {values['baseline']}. "
        f"Judges: {', '.join(f'{name} ({what})' for name, what in values['judges'].items())}. "
        f"Intervals ({100 * values['options']['level']:g} %) are over prompts."
    )
    found = [element("ol", [element("li", line) for line in values["findings"]])]
    sections = [
        Section("findings", "Findings", lead, [*found, *rate_figures(values)]),
        Section("length", "By length", "", _length_blocks(values)),
        Section("ranking", "Everyone against everyone", _RANKING, _ranking_blocks(values)),
        Section("judge", "The judge", "", _judge_blocks(values)),
    ]
    return [one for one in sections if one.blocks]


def rate_figures(values: Values, name: str = "win-rates", by: str = "") -> list[Figure]:
    """Win rates over the baseline, raw and at equal length; nothing where there are none.

    Args:
        values: what winrate.json holds.
        name: of the figure.
        by: who judges, for the title.
    """
    rows = []
    for one in values["estimates"]["win_rate"]:
        is_raw = one["name"].startswith("raw.")
        if one["value"] is not None:
            rows.append(_lane(one, _after(one), "raw" if is_raw else "at equal length", GREY if is_raw else BLUE))
    if not rows:
        return []
    told = f"Win rates against {values['baseline']}{by}"
    return [Figure(name, told, told, _RATES, _shares(rows), _rate_table(values), plain=False)]


def _rate_table(values: Values) -> Html:
    rows = []
    for name in values["models"]:
        raw, controlled = (_named(values, "win_rate", f"{kind}.{name}") for kind in ("raw", "lc"))
        fit = values["fits"][name]
        rows.append(
            {
                "model": name,
                "raw": share_words(raw),
                "raw_error": fit["raw_error"],
                "lc": share_words(controlled),
                "lc_error": fit["lc_error"],
                "n": raw["n"],
                "reason": controlled["reason"],
            }
        )
    columns = (
        Column("model", "Model"),
        Column("raw", "Raw"),
        Column("raw_error", "SE", _error),
        Column("lc", "At equal length"),
        Column("lc_error", "SE", _error),
        Column("n", "Comparisons", lambda value: f"{value:,}"),
        Column("reason", "Why not"),
    )
    return ResultTable(f"Win rates against {values['baseline']}", columns, tuple(rows)).to_html()


def _length_blocks(values: Values) -> list[Figure | Html]:
    rows = [
        _lane(one, _after(one).rpartition(".")[0], f"{_range(one)} characters", BLUE)
        for one in values["estimates"]["strata"]
        if one["value"] is not None
    ]
    if not rows:
        return []
    told = "Win rate by difference in length"
    fits = tuple({"model": name, **values["fits"][name]} for name in values["models"])
    columns = (
        Column("model", "Model"),
        Column("mean_difference", "Longer by (characters)", lambda value: f"{value:,.0f}".replace("-", MINUS)),
        Column("as_long", "At least as long", lambda value: f"{100 * value:.1f} %"),
        Column("theta", "Quality", number),
        Column("phi", "Length", number),
        Column("psi", "Difficulty", number),
        Column("penalty", "Ridge on difficulty", lambda value: f"{value:g}"),
        Column("reason", "Note"),
    )
    table = ResultTable("The fits behind the win rates at equal length", columns, fits).to_html()
    figure = Figure("strata", told, told, _STRATA, _shares(rows), plain=False)
    return [figure, element("p", _FITS), table]


def _ranking_blocks(values: Values) -> list[Figure | Html]:
    players = list(dict.fromkeys(one["model"] for one in values["matrix"]))
    if len(players) < 3:
        return []
    strengths = [one for one in values["estimates"]["ranking"] if one["value"] is not None]
    rows = strength_rows(strengths, "Strength")
    blocks: list[Figure | Html] = []
    if rows:
        spec = forest(rows, axis_title=STRENGTHS, reference_label="the mean")
        told = "The ranking"
        blocks.append(Figure("ranking", told, told, "Point at a dot for how to read it.", spec, plain=False))
    else:
        blocks += [element("p", one["reason"]) for one in values["estimates"]["ranking"]]
    cells = {(one["model"], one["other"]): one for one in values["matrix"]}
    table = tuple(
        {"model": name, **{str(at): _cell(cells.get((name, other))) for at, other in enumerate(players)}}
        for name in players
    )
    columns = (Column("model", "Wins of"), *(Column(str(at), f"over {name}") for at, name in enumerate(players)))
    return [*blocks, ResultTable("Win rate of the row over the column", columns, table).to_html()]


def strength_rows(ranking: Sequence[Mapping[str, Any]], group: str) -> list[dict[str, Any]]:
    """Lanes of a forest: the strengths among the estimates of a ranking, the strongest first."""
    strengths = [one for one in ranking if one["value"] is not None and one["name"].startswith("strength.")]
    return [
        {
            "group": group,
            "label": _after(one),
            **{name: one[name] for name in ("value", "low", "high")},
            "text": _strength(one),
            "short": number(one["value"]),
            "color": TEAL,
            "hint": one["reading"],
        }
        for one in sorted(strengths, key=lambda one: -one["value"])
    ]


def _strength(one: Mapping[str, Any]) -> str:
    ends = "" if one["low"] is None else f" ({number(one['low'])} to {number(one['high'])})"
    return f"{number(one['value'])}{ends}"


def _cell(one: Mapping[str, Any] | None) -> str:
    return DASH if one is None else share_words(one)


def _judge_blocks(values: Values) -> list[Figure | Html]:
    rows = []
    for one in values["outcomes"]:
        judge, outcomes = one["judge"], one["outcomes"]
        place, same = (_named(values, "judge", f"{kind}.{judge}") for kind in ("first_place", "consistency"))
        unusable = {name: count for name, count in outcomes.items() if name not in ("wins", "losses", "ties")}
        rows.append(
            {
                "judge": values["judges"].get(judge, judge),
                **{name: outcomes[name] for name in ("wins", "losses", "ties")},
                "unusable": ", ".join(f"{count} {name}" for name, count in unusable.items()) or "none",
                "first_place": "" if place is None or place["value"] is None else share_words(place),
                "consistency": "" if same is None or same["value"] is None else share_words(same),
            }
        )
    columns = (
        Column("judge", "Judge"),
        *(Column(name, name.capitalize(), lambda value: f"{value:,}") for name in ("wins", "losses", "ties")),
        Column("unusable", "Without a preference"),
        Column("first_place", "First place preferred"),
        Column("consistency", "Both orders agree"),
    )
    blocks: list[Figure | Html] = [ResultTable("What the judges said", columns, tuple(rows)).to_html()]
    agreement = [one for one in values["estimates"]["labelled"] if one["value"] is not None]
    if agreement:
        lanes = [_lane(one, "Agreement with people", _after(one), TEAL) for one in agreement]
        told = "How often the judge prefers what people prefer"
        reading = "Ties of the judge count half; on the dashed line it does no better than a coin."
        blocks.append(Figure("people", told, told, reading, _shares(lanes, "Agreement (%)"), plain=False))
    if values["counts"]:
        columns = (Column("what", "What"), Column("count", "How many", lambda value: f"{value:,}"))
        rows = [{"what": name, "count": count} for name, count in values["counts"].items()]
        blocks.append(ResultTable("What was left out", columns, tuple(rows)).to_html())
    return blocks


def _lane(one: Mapping[str, Any], group: str, label: str, color: str) -> dict[str, Any]:
    """A lane of a forest of shares, in per cent."""
    ends = {name: None if one[name] is None else 100 * one[name] for name in ("value", "low", "high")}
    words = {"text": share_words(one), "short": f"{_percent(one['value'])} %", "hint": one["reading"]}
    return {"group": group, "label": label, **ends, **words, "color": color}


def _shares(rows: Sequence[Mapping[str, Any]], title: str = "Win rate (%)") -> Spec:
    """The line at even odds is drawn where a rate comes near it."""
    near = any((row["high"] or row["value"]) > 35.0 for row in rows)
    return forest(rows, axis_title=title, reference=50.0 if near else None, reference_label="even")


def _error(value: float) -> str:
    return f"{100 * value:.2f}"
