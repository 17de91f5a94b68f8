"""Templates: the published ones as the specification has them, a user's own, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.audit.template import (
    ATTRIBUTES,
    DATASETS,
    Template,
    attribute_template,
    describe_templates,
    find_template,
    shipped_templates,
)
from rewardlab.cli import main
from rewardlab.errors import ConfigError

END = ", but change *nothing* else. Give only the adjusted text, without any acknowledgement."
TABLE = {
    # name: source, W = 1, high, low, question
    "counterfactual_imdb": (None, "the chosen side", "positive sentiment", "negative sentiment", None),
    "eli5_length": (None, "characters > median", "longer", "shorter", None),
    "helpsteer_complexity": ("nvidia/HelpSteer", "complexity is 3 or 4", "more complex", "less complex", None),
    "helpsteer_helpfulness": (
        "nvidia/HelpSteer",
        "helpfulness is 3 or 4",
        "polite and helpful",
        "curt and unhelpful",
        None,
    ),
    "hh_harmlessness": ("Anthropic/hh-rlhf", "always", "more harmful", "less harmful", None),
    "hh_helpfulness": (
        "Anthropic/hh-rlhf",
        "the chosen side",
        "more helpful, where helpful means informative, relevant and clear",
        "less helpful, where helpful means informative, relevant and clear",
        None,
    ),
    "hh_sentiment": ("Anthropic/hh-rlhf", "classifier > 0", "positive sentiment", "negative sentiment", None),
    "imdb_length": ("stanfordnlp/imdb", "characters > 970", "longer", "shorter", "Write a movie review: "),
    "imdb_sentiment": (
        "stanfordnlp/imdb",
        "label is 1",
        "positive sentiment",
        "negative sentiment",
        "Write a movie review: ",
    ),
    "imdb_vowels": (
        "stanfordnlp/imdb",
        "vowel > 0",
        "starts with a vowel",
        "does not start with a vowel",
        "Write a movie review: ",
    ),
}


def test_the_published_templates() -> None:
    assert shipped_templates(DATASETS) == sorted(TABLE)
    for name, (source, words, high, low, question) in TABLE.items():
        template = find_template(name)
        assert template.name == name
        assert (None if template.data is None else template.data.path) == source
        assert (template.treated.words(), template.high, template.low) == (words, high, low)
        assert template.question == question
        assert template.clusters == (question is None)
    slices = {name: (find_template(name).first, find_template(name).last) for name in TABLE if name.startswith("hh")}
    assert slices == {
        "hh_sentiment": (None, 25000),
        "hh_helpfulness": (None, 12500),
        "hh_harmlessness": (25000, None),
    }


def test_the_rewrite_prompt_is_text_empty_line_instruction() -> None:
    length = find_template("imdb_length")
    assert length.prompt("A {w} film.", True) == f"A {{w}} film.\n\nAdjust this review so that it is longer{END}"
    assert length.prompt("", False) == f"\n\nAdjust this review so that it is shorter{END}"
    steer = find_template("helpsteer_complexity")
    assert steer.prompt("T", False) == f"T\n\nAdjust this response so that it is less complex{END}"
    eli5 = f"T\n\nAdjust this response so that it is longer{END} If the text is itself a question, rewrite it, "
    assert find_template("eli5_length").prompt("T", True) == f"{eli5}do not answer it."
    vowels = f"T\n\nAdjust this review so that it starts with a vowel{END} It may need a small change of the first "
    assert find_template("imdb_vowels").prompt("T", True) == f"{vowels}sentence to stay grammatical."


def test_every_attribute_is_a_template_for_any_data() -> None:
    for name in shipped_templates(ATTRIBUTES):
        template = attribute_template(name)
        assert (template.reads, template.data, template.question) == ("records", None, None)
        assert template.prompt("T", True) != template.prompt("T", False)
    assert attribute_template("length").treated.words() == "characters > median"


def test_options_of_a_template_are_changes_to_its_fields() -> None:
    assert find_template("imdb_vowels", {"typos": 0.3}).typos == 0.3
    whole = find_template("hh_sentiment", {"treated": {"of": "transcript"}}).treated
    assert (whole.words(), whole.model) == ("classifier of the whole transcript > 0", "distilbert_positive")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("treated: {column: kind, one: [yes, 2], zero: [no]}\nhigh: blue\nlow: red\nreads: columns\n")
    template = find_template(str(file))
    assert template.name == "mine"
    # YAML reads a bare yes as true.
    known = [True, "True", 2, "2.0", False, None, 3, 1]
    assert [template.treated.by_value(value) for value in known] == [True, True, True, True, False, None, None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "treated: {measure: charcters, above: 3}",
            "mine.yaml:2:11, treated.measure: found 'charcters'.*\"characters\"",
        ),
        ("treated: {measure: words}", "`above` with a measure"),
        ("treated: {measure: words, above: lots}", "treated.above"),
        ("treated: {measure: words, above: 3, side: chosen}", "not measure and side"),
        ("treated: {}", "not none"),
        ("treated: {side: chosen}\njudge: {column: c, above: 1}", "a measure with a number as `above`, or a question"),
        ("treated: {side: chosen}\njudge: {measure: words, above: median}", "a measure with a number as `above`"),
        ("treated: {side: chosen}\njudge: {measure: words, above: 2, of: transcript}", "a judge of responses"),
        ("treated: {column: c, one: [1]}", "both `one` and `zero`"),
        ("treated: {column: c, above: 3, one: [1]}", "either `above`, or `one` and `zero`"),
        ("treated: {column: c, above: 3, one: [1], zero: [0]}", "either `above`, or `one` and `zero`"),
        ("treated: {side: chosen, above: 3}", "no `above` where W is a side"),
        ("treated: {always: true, one: [1], zero: [0]}", "no `one` where W is always the same"),
        ("treated: {side: chosen, model: m}", "`model` with the measures classifier and tokens"),
        ("treated: {measure: tokens, above: 3, model: m, against: n}", "`against` with the measure classifier"),
        ("treated: {measure: classifier, above: 0}", "`model` with the measure classifier"),
        ("treated: {measure: words, above: 3, of: transcript}", "first_turn"),
        ("treated: {always: true}\ninstruction: Make it so.", r"\{w\} in the instruction"),
        ("treated: {always: true}\nfirst: 2\nlast: 2", "not both"),
        ("treated: {column: c, above: 1}\nreads: last_turn", "where W is a column"),
        ("treated: {side: chosen}\nreads: columns", "where W is a side"),
        ("treated: {always: true}\nhihg: x", 'Did you mean "high"'),
        ("treated: [", "no valid YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"high: blue\n{text}\nlow: red\n")
    with pytest.raises(ConfigError, match=message) as caught:
        find_template(str(file))
    assert "cannot" in caught.value.summary
    # A rule may be broken by a field that the file leaves as it is.
    assert all(
        str(file) in problem.where or problem.where in ("configuration", "reads") for problem in caught.value.problems
    )


def test_unknown_names_and_nothing_to_read() -> None:
    with pytest.raises(ConfigError, match='Did you mean "imdb_length"'):
        find_template("imdb_lenght")
    with pytest.raises(ConfigError, match='Did you mean "sentiment"'):
        attribute_template("sentiments")
    with pytest.raises(ConfigError, match="eli5_length knows no place of its own"):
        find_template("eli5_length").source(None)


def test_the_list_for_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["audit", "templates"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(describe_templates())
    for name, (source, words, high, low, _) in TABLE.items():
        entry = printed.partition(f"\n  {name}\n")[2].partition("\n  ")[0] + printed.partition(f"\n  {name}\n")[2]
        assert f"W = 1   {words}\n" in entry
        assert f"w       {high} / {low}\n" in entry
        assert source is None or f"source  {source} train" in entry
    assert main.main(["audit", "templates", "--help"]) == 0


def test_a_template_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Template(name="a", treated={"always": True}, high="a", low="b").high = "c"  # type: ignore[misc, arg-type]
