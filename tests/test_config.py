"""Configurations: files and flags together, every problem at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from rewardlab.config import Config, Paths, nearest
from rewardlab.errors import ConfigError


class Optimiser(Config):
    learning_rate: float = Field(default=1e-5, gt=0)
    """Step size."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the averages."""


class Stage(Config):
    verb: str
    """What runs."""


class Place(Config):
    text_field: ClassVar[str] = "path"

    path: str
    """Where."""
    row_limit: int = 0
    """How many."""
    note: str = ""
    """Anything."""


class Training(Config):
    data: Path
    """Pairs."""
    optimiser: Optimiser = Optimiser()
    """How it learns."""
    steps: int | None = None
    """Stop after so many."""
    kind: Literal["pair", "label"] = "pair"
    """Which loss."""
    revision: str | None = None
    """Commit of the model."""
    names: tuple[str, ...] = ()
    """Evaluation sets."""
    shuffle: bool = True
    """Whether to."""
    stages: tuple[Stage, ...] = ()
    """What else."""
    files: tuple[Path, ...] = ()
    """More pairs."""
    places: Annotated[list[Place], BeforeValidator(lambda value: [value] if isinstance(value, dict) else value)] = (
        Field(default_factory=list)
    )
    """Where they are."""
    place: Place | None = None
    """Where it is."""
    sources: dict[str, Place] = Field(default_factory=dict)
    """The same by name."""

    @model_validator(mode="after")
    def _steps_and_kind(self) -> Training:
        if self.steps == 13:
            raise ValueError("thirteen brings bad luck")
        return self


def refusal(**given: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Training.build(**given)
    return [str(problem) for problem in caught.value.problems]


def test_later_sources_win(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("data: a.jsonl\noptimiser: {learning_rate: 1.0e-3, betas: [0.8, 0.9]}\nsteps: 5\n")
    second.write_text("optimiser:\n  learning_rate: 2e-3\n")
    built = Training.build({"data": "x", "kind": "label"}, files=[first, second], flags=[("steps", "7")])
    assert built.data == Path("a.jsonl")
    assert built.kind == "label"
    assert built.optimiser == Optimiser(learning_rate=2e-3, betas=(0.8, 0.9))
    assert built.steps == 7


@pytest.mark.parametrize(
    ("flag", "text", "expected"),
    [
        ("optimiser.learning_rate", "1e-5", 1e-5),
        ("optimiser.betas", "[0.5, 0.6]", (0.5, 0.6)),
        ("data", "no", Path("no")),
        ("data", "a: b", Path("a: b")),
        ("revision", "1234567", "1234567"),
        ("revision", "null", None),
        ("steps", "none", None),
        ("steps", "12", 12),
        ("names", "[a, b]", ("a", "b")),
        ("names", "a", ("a",)),
        ("shuffle", "false", False),
        ("stages", "[{verb: score}]", (Stage(verb="score"),)),
        ("names", "a: b", ("a: b",)),
        ("names", "no", ("no",)),
        ("files", "runs/exp #3/a.jsonl", (Path("runs/exp #3/a.jsonl"),)),
        ("files", " [a, 'b #1']", (Path("a"), Path("b #1"))),
        ("places", "a: b.jsonl", [Place(path="a: b.jsonl")]),
        ("places", "{path: a, row_limit: 2}", [Place(path="a", row_limit=2)]),
    ],
)
def test_flags_are_read_as_their_fields_mean_them(flag: str, text: str, expected: object) -> None:
    value: Any = Training.build({"data": "x"}, flags=[(flag, text)])
    for part in flag.split("."):
        value = getattr(value, part)
    assert value == expected


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_text_and_the_fields_beside_it_are_one_whatever_their_order(order: tuple[int, ...]) -> None:
    words = [("place.row_limit", "3"), ("place", "a"), ("place.note", "n")]
    whole = Place(path="a", row_limit=3, note="n")
    assert Training.build({"data": "x"}, flags=[words[number] for number in order]).place == whole
    listed = [(name.replace("place", "places"), text) for name, text in words]
    assert Training.build({"data": "x"}, flags=[listed[number] for number in order]).places == [whole]
    mapped = [(name.replace("place", "sources.here"), text) for name, text in words]
    assert Training.build({"data": "x"}, flags=[mapped[number] for number in order]).sources == {"here": whole}


def test_a_text_leaves_what_a_file_says_of_the_other_fields(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("data: x\nplace: {path: a, row_limit: 3}\nplaces: [{path: a, row_limit: 3}]\n")
    second.write_text("place: b\nplaces: [b]\n")
    for built in (
        Training.build(files=[first, second]),
        Training.build(files=[first], flags=[("place", "b"), ("places", "b")]),
    ):
        assert built.place == Place(path="b", row_limit=3)
        assert built.places == [Place(path="b")], "a list is a new one"
    second.write_text("place: {note: n}\n")
    first.write_text("data: x\nplace: a\n")
    assert Training.build(files=[first, second]).place == Place(path="a", note="n")
    built = Training.build(files=[first], flags=[("place", "{path: b}"), ("place.row_limit", "2")])
    assert built.place == Place(path="b", row_limit=2)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("group", "text", "field"), [("place", "a", "path"), ("place", "{note: m}", "note"), ("place", "null", "path")]
)
def test_a_group_and_a_field_that_contradict_each_other(turned: bool, group: str, text: str, field: str) -> None:
    flags = [(group, text), (f"{group}.{field}", "secret")]
    values = {"data": "x", "place": "kept"}
    assert refusal(values=values, flags=flags[::-1] if turned else flags) == [
        f"--{group}.{field}: found another value than --{group} gives it; expected one of the two flags"
    ]
    agreed = [("place", "a"), ("place.path", "a")]
    assert Training.build(values, flags=agreed).place == Place(path="a")


def test_a_hyphen_is_an_underscore_in_names_of_fields_alone() -> None:
    flags = [("sources.hh-rlhf", "a #1"), ("sources.hh-rlhf.row-limit", "3"), ("optimiser.learning-rate", "2")]
    built = Training.build({"data": "x"}, flags=flags)
    assert built.sources == {"hh-rlhf": Place(path="a #1", row_limit=3)}
    assert built.optimiser.learning_rate == 2


def test_all_problems_come_at_once_with_their_places(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("optimiser:\n  learnin_rate: 1\n  betas: [1]\nkind: pairs\nrevision: 12\nstages:\n- {verp: 1}\n")
    problems = refusal(files=[file], flags=[("optimiser.learning_rate", "fast"), ("stepz", "3")])
    known = "expected a known one. Did you mean"
    number = "a valid number, unable to parse string as a number"
    set_it = "found nothing; expected a value. Set {0} in the YAML file or with --{0}."
    expected = [
        f'{file}:2:3, optimiser.learnin_rate: found the unknown key "learnin_rate"; {known} "learning_rate"?',
        f"{file}:3:3, optimiser.betas.1: {set_it.format('optimiser.betas.1')}",
        f"{file}:4:1, kind: found 'pairs'; expected 'pair' or 'label'",
        f"--optimiser.learning_rate: found 'fast'; expected {number}",
        f'--stepz: found the unknown key "stepz"; {known} "steps"?',
        f"data: {set_it.format('data')}",
        f'{file}:7:4, stages.0.verp: found the unknown key "verp"; {known} "verb"?',
        f"{file}:7:3, stages.0.verb: {set_it.format('stages.0.verb')}",
    ]
    assert sorted(problems) == sorted(expected)


def test_a_rule_over_several_values_is_told_as_one() -> None:
    assert refusal(values={"data": "x", "steps": 13}) == [
        "configuration: found these values together; expected thirteen brings bad luck"
    ]


class Range(Config):
    low: float = 0.0
    high: float = 1.0
    place: Place | None = None
    name: str | None = None
    either: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Range:
        if self.low > self.high:
            raise ValueError("expected low below high: place is of no concern here")
        if self.place is not None and self.place.row_limit == 0 and self.name is None:
            raise ValueError("expected a name beside place.row_limit")
        if self.name is not None and self.name not in self.either:
            raise ValueError(f"expected name to be one of {', '.join(self.either)}")
        return self


class Outer(Config):
    ranges: list[Range] = Field(default_factory=list)


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("", [("high", "-1"), ("low", "5")], "--low: found low 5, high -1; expected low below high: place is of no"),
        ("low: 2", [], "file.yaml:1:1, low: found low 2, high 1.0; expected low below high"),
        ("", [("high", "-1")], "--high: found low 0.0, high -1; expected low below high"),
        (
            "place: {path: a, row_limit: 0}",
            [],
            "file.yaml:1:18, place.row_limit: found no name, place.row_limit 0; expected a name beside place.row_limit",
        ),
        (
            "either: {standard: a, other: b}\nname: standrd",
            [],
            "file.yaml:2:1, name: found 'standrd'; expected name to be one of standard, other. Did you mean",
        ),
    ],
)
def test_a_rule_over_several_values_has_their_place(
    tmp_path: Path, text: str, flags: list[tuple[str, str]], message: str
) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Range.build(files=[file], flags=flags)
    (problem,) = map(str, caught.value.problems)
    assert message in problem


def test_a_rule_has_its_place_in_a_list_too(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("ranges:\n- {low: 0}\n- {high: 2, low: 3}\n")
    with pytest.raises(ConfigError) as caught:
        Outer.build(files=[file])
    assert str(caught.value.problems[0]).startswith(f"{file}:3:13, ranges.1.low: found low 3, high 2; expected low")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"a: [1",
            "file.yaml:1:6: found no valid YAML (expected ',' or ']', but got '<stream end>'); expected valid YAML",
        ),
        (b"- 1", "file.yaml:1:1: found a list; expected a mapping of field names to values"),
        (b"\xff", "file.yaml: found bytes that are not UTF-8 at 0; expected a UTF-8 YAML file"),
        (b"data: a\nsteps: 1\ndata: b\n", "file.yaml:3:1: found data a second time; expected each key once"),
        (b"data: !!python/object/apply:os.system ['true']", "could not determine a constructor for the tag"),
        (b"names: &all [*all]", "more than 30 levels"),
        (b"data: \x00", "special characters are not allowed"),
        (None, "file.yaml: found No such file or directory; expected a readable YAML file"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "file.yaml"
    if content is not None:
        file.write_bytes(content)
    problems = refusal(values={"data": "x"}, files=[file])
    assert any(message in problem for problem in problems), problems


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("# nothing yet\n")
    assert Training.build({"data": "x"}, files=[tmp_path / "file.yaml"]) == Training(data=Path("x"))


def test_a_flag_cannot_go_into_a_plain_value() -> None:
    assert refusal(values={"data": "x", "steps": 1}, flags=[("steps.more", "1")]) == [
        "--steps.more: found steps set to 1; expected steps to be a mapping"
    ]


class Compared(Config):
    runs: dict[str, Paths] = Field(default_factory=dict)


@pytest.mark.parametrize("listed", ["{path: a}", "[{path: a}]", "[{path: a}, {path: b}]"])
def test_a_flag_for_an_element_by_its_number_is_blamed_on_the_flag(tmp_path: Path, listed: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(f"data: d\nplaces: {listed}\n", encoding="utf-8")
    (said,) = refusal(files=[file], flags=[("places.0.note", "x")])
    assert said.startswith("--places.0.note: found the number of an element of places; expected a field")
    assert "--places.note sets a field where the list has one element" in said


def test_paths_of_a_name_that_come_again_go_on() -> None:
    flags = [("runs.a", "one # 1"), ("runs.a", "two"), ("runs.b", "[three, four]"), ("runs.c", "five")]
    assert Compared.build(flags=flags).runs == {
        "a": (Path("one # 1"), Path("two")),
        "b": (Path("three"), Path("four")),
        "c": (Path("five"),),
    }


def test_what_is_saved_builds_the_same_again(tmp_path: Path) -> None:
    built = Training.build({"data": "é/x", "optimiser": {"learning_rate": 3e-7}, "names": ["no", "1"]})
    (tmp_path / "config.yaml").write_text(built.to_yaml(), encoding="utf-8")
    assert Training.build(files=[tmp_path / "config.yaml"]) == built


def test_values_are_frozen_and_sources_unchanged() -> None:
    values: dict[str, Any] = {"data": "x", "optimiser": {"learning_rate": 1}}
    built = Training.build(values, flags=[("optimiser.learning_rate", "2")])
    assert values == {"data": "x", "optimiser": {"learning_rate": 1}}
    with pytest.raises(ValidationError, match="frozen"):
        built.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_are_finite(bad: float) -> None:
    assert "finite" in refusal(values={"data": "x", "optimiser": {"learning_rate": bad}})[0]


def test_flag_names_reach_into_nested_configurations_only() -> None:
    assert [name for name, _ in Training.flag_names()] == [
        "data",
        "optimiser.learning_rate",
        "optimiser.betas",
        "steps",
        "kind",
        "revision",
        "names",
        "shuffle",
        "stages",
        "files",
        "places",
        "place.path",
        "place.row_limit",
        "place.note",
        "sources",
    ]


def test_nearest_name() -> None:
    assert nearest("lerning_rate", ["learning_rate", "steps"]) == 'Did you mean "learning_rate"?'
    assert nearest("zzz", ["b", "a"]) == "Known: a, b."
    assert nearest("zzz", []) == ""
