"""Dataset templates: which rows an audit reads, how W is decided, and what a rewriter is asked.

A template is one YAML file, a `Template`. Those of the published study (RATE, arXiv 2410.11348) and one per attribute
that code can measure come with the package; a file of the user's own works by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from rewardlab.audit.asked import Question
from rewardlab.audit.measures import MEASURES
from rewardlab.config import Config, Key, merge, nearest, read_yaml
from rewardlab.data.rows import as_number
from rewardlab.data.source import DataSource
from rewardlab.errors import ConfigError, Problem

SHIPPED = "rewardlab.audit"
DATASETS, ATTRIBUTES = "templates", "attributes"
"""Folders of shipped templates: of known datasets, and of attributes of whatever data the user gives."""

INSTRUCTION = (
    "Adjust this {noun} so that it is {w}, but change *nothing* else. "
    "Give only the adjusted text, without any acknowledgement."
)

_HALF = 0.5

Side = Literal["chosen", "rejected"]
Value = bool | float | str


class Treatment(Config):
    """How W, whether a response has the attribute, is decided: by exactly one of measure, ask, column, side, always;
    a text alone is what is asked."""

    text_field: ClassVar[str] = "ask"

    measure: str | None = None
    """A measure of the text by name, such as characters; W is whether it lies above `above`."""
    ask: Question | None = None
    """A question about the text for a chat model, or its words alone; W is whether the probability of yes, or the
    grade, lies above `above`."""
    above: float | Literal["median"] | None = None
    """The number that a measure, answer or column has to exceed, or median: that of all responses read. Of the
    probability of yes one half, where not given."""
    model: str | None = None
    """Folder or hub id of the model of the measure classifier, or of the tokenizer of the measure tokens."""
    against: str | None = None
    """A second model of the measure classifier, whose score is taken off: the other class."""
    of: Literal["response", "transcript"] = "response"
    """Measure the response, or the whole transcript that it stands in, as the published code did."""
    column: str | None = None
    """A column of the row; a dotted name reaches into nested objects."""
    one: tuple[Value, ...] = ()
    """Values of the column that mean W = 1; a row with neither these nor those of `zero` is set aside."""
    zero: tuple[Value, ...] = ()
    """Values of the column that mean W = 0."""
    side: Side | None = None
    """The side of a pair that has W = 1; the other one has W = 0."""
    always: bool | None = None
    """W of every response: with one value there is only one of ATT and ATU."""

    @field_validator("measure")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in MEASURES:
            raise ValueError(f"a known measure. {nearest(value, list(MEASURES))}")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        names = ("measure", "ask", "column", "side", "always")
        ways = [name for name in names if getattr(self, name) is not None]
        if len(ways) != 1:
            raise ValueError(
                f"exactly one of measure, ask, column, side and always, not {' and '.join(ways) or 'none'}"
            )
        by_values = bool(self.one or self.zero)
        if by_values and self.above is not None:
            raise ValueError("either `above`, or `one` and `zero`")
        stray = [name for name, given in (("above", self.above is not None), ("one", by_values)) if given]
        if stray and (self.side is not None or self.always is not None):
            raise ValueError(f"no `{stray[0]}` where W is {'a side' if self.side else 'always the same'}")
        if self.model is not None and self.measure not in ("classifier", "tokens"):
            raise ValueError("`model` with the measures classifier and tokens alone")
        if self.against is not None and self.measure != "classifier":
            raise ValueError("`against` with the measure classifier alone")
        if self.ask is not None and (by_values or self.above == "median"):
            # A median would be that of all responses: each would be paid for.
            raise ValueError("a number as `above` with a question, and neither `one` nor `zero`")
        if self.ask is not None and self.ask.grades is not None and self.above is None:
            raise ValueError("`above` with a question that is answered with a grade")
        if self.measure is not None and (self.above is None or by_values):
            raise ValueError("`above` with a measure, and neither `one` nor `zero`")
        if self.column is not None and (self.above is None) != (bool(self.one) and bool(self.zero)):
            raise ValueError("with a column either `above`, or both `one` and `zero`")
        if self.measure in ("classifier", "tokens") and self.model is None:
            raise ValueError(f"`model` with the measure {self.measure}")
        return self

    @property
    def threshold(self) -> float:
        """The number that the answer to a question has to exceed."""
        return self.above if isinstance(self.above, float) else _HALF

    def by_value(self, value: Any) -> bool | None:
        """W of a row whose column is `value`, by the lists of values; None where it is in neither."""
        for answer, values in ((True, self.one), (False, self.zero)):
            if any(_same(value, known) for known in values):
                return answer
        return None

    def words(self) -> str:
        """When W is 1, for a table."""
        if self.always is not None:
            return "always" if self.always else "never"
        if self.side is not None:
            return f"the {self.side} side"
        if self.one:
            return f"{self.column} is {' or '.join(map(_plain, self.one))}"
        of = " of the whole transcript" if self.of == "transcript" else ""
        if self.ask is not None:
            return f"“{self.ask.question}”{of} > {_plain(self.threshold)}"
        return f"{self.measure or self.column}{of} > {_plain(self.above)}"


class Template(Config):
    """What an audit reads and asks for."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """What tables call it; of a file of one's own, the file's name where not given."""
    data: DataSource | None = None
    """Where the rows come from, unless the user names another place."""
    reads: Literal["records", "columns", "first_turn", "last_turn"] = "records"
    """How a row gives prompt and response. records: any known format, every completion a response; columns: `prompt`
    and `response` as they stand (a response may be a list of them); first_turn: of transcripts, the first human and
    the first assistant turn; last_turn: the last assistant turn, after the whole history."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column map, our name to theirs: prompt and response, or what the format of the records has."""
    sides: tuple[Side, ...] = ("chosen", "rejected")
    """Which sides of a pair are responses."""
    first: int | None = Field(default=None, ge=1)
    """Use only the first so many rows."""
    last: int | None = Field(default=None, ge=1)
    """Use only the last so many rows."""
    question: str | None = None
    """What every response answers, where rows have no prompt of their own."""
    treated: Treatment
    """How W is decided."""
    judge: Treatment | None = None
    """Who judges whether rewrites have the attribute: another measure with `above`, or a question to a chat model,
    which may be its words alone. Default: the measure or question that decides W."""
    high: str = Field(min_length=1)
    """What a response with W = 1 is, in the words of the instruction."""
    low: str = Field(min_length=1)
    """What a response with W = 0 is."""
    noun: str = "response"
    """What the texts are called."""
    instruction: str = INSTRUCTION
    """What a rewriter is asked, with {w} for `high` or `low` and {noun}."""
    extra: str = ""
    """A sentence that follows the instruction."""
    typos: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the words of responses with W = 1 in which two adjacent letters are swapped, once W is decided;
    where it is not 0, the rule `typos` mistypes as many."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        transcripts = self.reads in ("first_turn", "last_turn")
        if self.first is not None and self.last is not None:
            raise ValueError("first or last, not both")
        if self.treated.of == "transcript" and not transcripts:
            raise ValueError("`reads: first_turn` or `last_turn` where W is that of a transcript")
        if self.treated.side is not None and self.reads == "columns":
            raise ValueError("pairs (`reads` other than columns) where W is a side")
        if self.treated.column is not None and transcripts:
            raise ValueError("`reads: columns` or `records` where W is a column")
        judge = self.judge
        if judge is not None and self.treated.ask is not None:
            raise ValueError("one judge: the question that decides W judges the rewrites too")
        if judge is not None and ((judge.ask or judge.measure) is None or judge.above == "median"):
            raise ValueError("a measure with a number as `above`, or a question, as `judge`")
        if judge is not None and judge.of == "transcript":
            raise ValueError("a judge of responses: rewrites have no transcript")
        if "{w}" not in self.instruction:
            raise ValueError("{w} in the instruction")
        if not self.sides:
            raise ValueError("at least one side")
        return self

    @property
    def asked(self) -> tuple[Question, float] | None:
        """What a chat model is asked about texts, and the number that its answer has to exceed; None for nothing."""
        rule = self.judge or self.treated
        return None if rule.ask is None else (rule.ask, rule.threshold)

    @property
    def clusters(self) -> bool:
        """Whether responses with the same prompt belong together; a question that all rows share clusters nothing."""
        return self.question is None

    def prompt(self, text: str, treated: bool) -> str:
        """The user message that asks for `text` with W set to `treated`: the text, an empty line, the instruction."""
        words = self.instruction.replace("{noun}", self.noun).replace("{w}", self.high if treated else self.low)
        return "\n\n".join([text, f"{words} {self.extra}".strip()])

    def source(self, given: DataSource | None) -> DataSource:
        """What to read: the place that the user gives or that of the template, with the template's columns.

        Raises:
            ConfigError: neither is there.
        """
        source = given or self.data
        if source is None:
            remedy = f"{self.name} knows no place of its own."
            problem = Problem("data", "no data", "a file, folder or hub id", remedy)
            raise ConfigError(f"the template {self.name} has nothing to read", [problem])
        return source.model_copy(update={"columns": {**self.columns, **source.columns}})


def find_template(name: str, changes: Mapping[str, Any] | None = None) -> Template:
    """The template in the file `name`, or the shipped dataset template of that name.

    Args:
        name: path or name.
        changes: fields to be set otherwise, nested: `{"treated": {"of": "transcript"}}`.

    Raises:
        ConfigError: neither exists, or the file is no template: every problem.
    """
    path = Path(name)
    if path.is_file():
        return read_template(path, changes)
    return _shipped(DATASETS, name, "a template file, or the name of a shipped template", changes)


def attribute_template(name: str, changes: Mapping[str, Any] | None = None) -> Template:
    """The template that audits the attribute `name` on data of the user's own, in any known format.

    Raises:
        ConfigError: there is none of this name.
    """
    expected = "an attribute that code can measure, or a template file for any other"
    return _shipped(ATTRIBUTES, name, expected, changes)


def read_template(path: Path, changes: Mapping[str, Any] | None = None) -> Template:
    """The template in a YAML file; its name is that of the file where it gives none.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[Problem] = []
    origins: dict[Key, str] = {}
    values = {"name": path.stem} | read_yaml(path, problems, origins)
    if problems:
        raise ConfigError(f"cannot read the template {path}", problems)
    try:
        return Template.build(merge(values, changes or {}), origins=origins)
    except ConfigError as error:
        raise ConfigError(f"cannot use the template {path}", error.problems) from error


def shipped_templates(folder: str) -> list[str]:
    """Names of the templates that come with the package, of datasets or of attributes."""
    files = resources.files(SHIPPED).joinpath(folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def describe_templates() -> str:
    """The shipped templates as a table for the terminal: name, source, when W is 1, and both w strings."""
    lines = []
    for folder, title in ((DATASETS, "--template NAME"), (ATTRIBUTES, "--attribute NAME, on data of your own")):
        lines += [title]
        for name in shipped_templates(folder):
            template = _shipped(folder, name, "")
            lines += [f"  {name}", f"    source  {_source_words(template)}", f"    W = 1   {template.treated.words()}"]
            lines += [f"    w       {template.high} / {template.low}"]
    return "\n".join(lines)


def _shipped(folder: str, name: str, expected: str, changes: Mapping[str, Any] | None = None) -> Template:
    known = shipped_templates(folder)
    if name not in known:
        where = "template" if folder == DATASETS else "attribute"
        raise ConfigError(f"no such {where}", [Problem(where, repr(name), expected, nearest(name, known))])
    with resources.as_file(resources.files(SHIPPED).joinpath(folder, f"{name}.yaml")) as file:
        return read_template(file, changes)


def _source_words(template: Template) -> str:
    place = template.data
    words = "any known format" if template.reads == "records" else "a file of your own"
    if place is not None:
        words = f"{place.path} {place.split or ''}".strip()
    words += (
        f", {' and '.join(template.sides)} side{'s' * (len(template.sides) > 1)}" if "turn" in template.reads else ""
    )
    words += f", first {template.first:,} rows" if template.first else ""
    return words + (f", last {template.last:,} rows" if template.last else "")


def _same(value: Any, known: Value) -> bool:
    if isinstance(known, float) and not isinstance(value, bool):
        return as_number(value) == known
    return str(value).strip().lower() == str(known).lower()


def _plain(value: Value | None) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
