"""What bench.json says, in a few sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewardlab.errors import counted
from rewardlab.evaluate.summary import FEW_PAIRS, Number, percent

_Found = Mapping[str, Number]


def findings(result: Mapping[str, Any]) -> list[str]:
    """Plain sentences: pairs and sections, best of K, ties, style; only what the data have.

    Args:
        result: the object in bench.json.
    """
    estimates = [one for group in result["estimates"].values() for one in group if one["value"] is not None]
    found = {one["name"]: Number(one["value"], one["low"], one["high"]) for one in estimates}
    sizes = {one["name"]: one["n"] for one in estimates}
    lines = [
        *_pairs(result, found, sizes),
        *_sections(result, found),
        *_best_of_k(result, found),
        *_ties(found),
        *_styles(found),
    ]
    return lines or ["The data hold no pairs and no candidates of which some are right: there is nothing to count."]


def _pairs(result: Mapping[str, Any], found: _Found, sizes: Mapping[str, int]) -> list[str]:
    accuracy = found.get("accuracy")
    if accuracy is None:
        return []
    share = accuracy.percent(f"{100 * result['options']['level']:g} % interval ")
    line = f"It prefers the chosen answer in {share} of {counted(result['counts']['pairs'], 'pair')}"
    subsets = {
        name.removeprefix("subset."): one
        for name, one in found.items()
        if name.startswith("subset.") and sizes[name] >= FEW_PAIRS
    }
    if len(subsets) < 2:
        return [f"{line}."]
    worst, best = (choose(subsets, key=lambda name: subsets[name].value) for choose in (min, max))
    line = f"{line}, best in {best}, {subsets[best].percent()}, and worst in {worst}, {subsets[worst].percent()}"
    below = [name for name, one in subsets.items() if one.is_below(0.5)]
    return [f"{line}; it is worse than a coin flip in {', '.join(below)}." if below else f"{line}."]


def _sections(result: Mapping[str, Any], found: _Found) -> list[str]:
    names = [name for name in found if name.startswith("section.") and name != "section.average"]
    if not names:
        return []
    parts = ", ".join(f"{name.removeprefix('section.')} {found[name].percent()}" for name in names)
    line = f"By section: {parts}"
    if len(names) > 1:
        line = f"{line}; their mean is {found['section.average'].percent()}"
    absent = len(result["absent_subsets"])
    lack = f" The data lack {counted(absent, 'subset')} of the sections: these are not the published scores."
    return [f"{line}.{lack if absent else ''}"]


def _best_of_k(result: Mapping[str, Any], found: _Found) -> list[str]:
    best = found.get("best_of_k")
    if best is None:
        return []
    prompts = counted(result["counts"]["best_of_k"], "prompt")
    line = f"It puts a right answer on top in {best.percent()} of {prompts}; lots would in "
    line += f"{percent(found['best_of_k.chance'].value)} %"
    average = found.get("best_of_k.average")
    return [f"{line}; the mean over subsets is {average.percent()}." if average else f"{line}."]


def _ties(found: _Found) -> list[str]:
    score = found.get("ties.overall")
    if score is None:
        return []
    above, close = found["ties.tied"].percent(), found["ties.preferred"].percent()
    line = f"Where many answers are right, it scores all of them above every wrong one in {above} of the prompts"
    return [f"{line}, and keeps them closer together than that in {close}; the Ties score is {percent(score.value)} %."]


def _styles(found: _Found) -> list[str]:
    gap = found.get("style.gap")
    if gap is None:
        return []
    parts = [found[f"style.{name}"].percent() for name in ("easy", "normal", "hard")]
    line = (
        f"The right answer wins {parts[0]} of the comparisons where its style is the more elaborate one, {parts[1]} "
        f"in the same style, {parts[2]} where the wrong one is the more elaborate one"
    )
    if gap.is_above(0.0):
        return [f"{line}: style alone moves it by {gap.points()}."]
    if gap.is_below(0.0):
        return [f"{line}: it prefers plain answers, by {gap.opposite().points()}."]
    return [f"{line}: nothing shows that style moves it ({gap.points()})."]
