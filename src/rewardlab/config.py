"""Frozen, validated configurations: YAML files and dotted flags become one dictionary, validated once.

A configuration class stands beside what it builds and derives from `Config`; the docstring under a field is
its help text on the command line. All problems are reported at once, with the place in the file or the flag
they come from, and an unknown key with the nearest known name.

    class Training(Config):
        model: ModelChoice
        \"\"\"What is trained.\"\"\"
        learning_rate: float = 1e-5
        \"\"\"Step size of AdamW.\"\"\"

    Training.build(files=[Path("train.yaml")], flags=[("model.path", "gpt2"), ("learning_rate", "3e-5")])
"""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticUndefined

from rewardlab.errors import ConfigError, Problem

Key = tuple[str, ...]
"""Path of a value in nested mappings, e.g. `("model", "path")`."""


def _in_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_in_tuple)]
"""One path or several: a single one may stand without a list around it."""


def _apart(value: list[float]) -> list[float]:
    if any(one <= 0 for one in value):
        raise ValueError("expected distances above 0")
    return sorted(set(value))


Distances = Annotated[list[float], Field(min_length=1), AfterValidator(_apart)]
"""Distances of a policy from where it starts, in nats: above 0, in their order, each once."""

_LONGEST_SHOWN = 200
_PYDANTIC_FRAME = re.compile(r"^(?:Value error, (?:expected )?|\w+ should (?:be|have) )| after validation, not \d+$")
_FIELD_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_SHAPES = {
    "list_type": ("a list", "Write [a, b]."),
    "tuple_type": ("a list", "Write [a, b]."),
    "model_type": ("a mapping of its fields", "`--help` lists them."),
    "model_attributes_type": ("a name, or a mapping of a name and its fields", "`--help` lists them."),
    "union_tag_not_found": ("a mapping with a `name`", "`--help` lists them."),
    "path_type": ("a path", "Write the path alone: FILE, or [FILE, FILE]."),
    "dict_type": ("a mapping of names to values", "Write {{name: value}}, or --{name}.NAME VALUE on the command line."),
}
"""What pydantic calls by Python's names, and how it is written: type of error → (expected, remedy)."""
_DEEPEST = 30


def mismatch(found: str, expected: str) -> PydanticCustomError:
    """For a validator to raise, where the values it looks at say little: what is wrong with them, in words."""
    return PydanticCustomError("mismatch", "{expected}", {"found": found, "expected": expected})


def all_of(expected: Sequence[str], config: Config) -> ValidationError:
    """For a validator of a whole configuration to raise: everything that it expected in vain, a problem each."""
    details = [
        InitErrorDetails(type="value_error", loc=(), input=config, ctx={"error": ValueError(words)})
        for words in expected
    ]
    return ValidationError.from_exception_data(type(config).__name__, details)


class Config(BaseModel):
    """Base of every configuration: frozen, typed, no unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        # YAML reads `revision: 1234567` as a number.
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )

    text_field: ClassVar[str] = ""
    """The field that a text in place of the whole configuration stands for; none by default."""

    not_fields: ClassVar[Mapping[str, str]] = types.MappingProxyType({})
    """Names of fields that similar configurations have and this one refuses, and what it expects instead."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {cls.text_field: value} if cls.text_field and isinstance(value, str) else value

    @classmethod
    def build(
        cls,
        values: Mapping[str, Any] | None = None,
        *,
        files: Sequence[Path] = (),
        flags: Sequence[tuple[str, str]] = (),
        origins: Mapping[Key, str] | None = None,
    ) -> Self:
        """Merge `values`, then `files` (later wins), then `flags`, and validate once.

        A text in place of a configuration is its `text_field` and leaves the other fields as they were.

        Args:
            values: a plain dictionary, e.g. a stage of a study.
            files: YAML files whose top level is a mapping.
            flags: (dotted name, text) as on the command line; a hyphen in a field's name is an underscore. Where a
                field or an element of its list takes text, the text is taken as it stands, unless it begins with
                [ or {; elsewhere it is read as YAML. A list that comes again goes on; of other values the last holds.
                A flag for a whole group and flags for its fields are taken together, in any order.
            origins: where the keys of `values` come from (`study.yaml:12:7`), for messages.

        Raises:
            ConfigError: with every problem found.
        """
        problems: list[Problem] = []
        merged = merge({}, values or {})
        places = dict(origins or {})
        for file in files:
            merged = _layered(cls, merged, read_yaml(file, problems, places))
        given = _flag_values(cls, flags)
        problems += _contradictions(cls, given)
        # A group before its fields, so that nothing hangs on the order of the words.
        for key in sorted(given, key=len):
            _set(cls, merged, key, given[key], problems)
            places[key] = f"--{'.'.join(key)}"
        return cls._validated(merged, problems, places)

    @classmethod
    def flag_names(cls) -> Iterator[tuple[str, FieldInfo]]:
        """Every leaf field as (dotted name, field)."""
        for name, field in cls.model_fields.items():
            inner = nested_config(field)
            if inner is None:
                yield name, field
            else:
                yield from ((f"{name}.{rest}", leaf) for rest, leaf in inner.flag_names())

    def to_yaml(self) -> str:
        """The resolved configuration, every field, as YAML that `build` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def as_flags(self, shown: Callable[[Any], Any] = lambda values: values) -> list[tuple[str, str]]:
        """The fields that were given, as flags on one line each; `build` reads them back.

        Args:
            shown: what becomes of their values before, JSON values all; a redactor's, where somebody looks on.
        """
        values = shown(self.model_dump(mode="json", exclude_unset=True))
        return [(name, _flag_of(value, type(self).model_fields[name].annotation)) for name, value in values.items()]

    def pinned(self, *, offline: bool = False) -> Self:
        """The configuration with every name whose content can change elsewhere (on the hub) tied to what it is now.

        Args:
            offline: ask nobody: a name stands for what this machine read under it last, where it did.
        """
        changes = {name: _pinned(value, offline) for name, value in self}
        return self.model_copy(update={name: value for name, value in changes.items() if value != getattr(self, name)})

    @classmethod
    def _validated(cls, merged: dict[str, Any], problems: list[Problem], origins: Mapping[Key, str]) -> Self:
        try:
            built = cls.model_validate(merged)
        except ValidationError as error:
            # What a file that cannot be read would have said is not missing.
            details = [item for item in _causes(error.errors()) if not (problems and item["type"] == "missing")]
            problems += [_problem(cls, detail, origins) for detail in details]
        else:
            if not problems:
                return built
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        raise ConfigError(f"{cls.__name__}: {count} in the configuration", problems)


def _pinned(value: Any, offline: bool) -> Any:
    if isinstance(value, Config):
        return value.pinned(offline=offline)
    if isinstance(value, dict):
        return {key: _pinned(inner, offline) for key, inner in value.items()}
    return [_pinned(inner, offline) for inner in value] if isinstance(value, list) else value


class _OneLine(yaml.SafeDumper):
    """Texts in double quotes, which leave no line break and need none of a shell's single ones."""

    def text(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"')


_OneLine.add_representer(str, _OneLine.text)


def flow(value: Any) -> str:
    """A value as YAML on one line, as a flag has it."""
    options: dict[str, Any] = {"default_flow_style": True, "width": math.inf, "allow_unicode": True}
    # YAML ends a single value with the mark of a document's end, which a text would keep.
    text = str(yaml.dump(value, Dumper=_OneLine, sort_keys=False, **options))
    return text.removesuffix("\n").removesuffix("\n...")


def _flag_of(value: Any, annotation: Any) -> str:
    return value if isinstance(value, str) and _flag_value(value, annotation) == value else flow(value)


def nested_config(field: FieldInfo) -> type[Config] | None:
    """The configuration class of a field that holds one (also as `X | None`), else None."""
    for candidate in _alternatives(field.annotation):
        if isinstance(candidate, type) and issubclass(candidate, Config):
            return candidate
    return None


def config_within(annotation: Any) -> type[Config] | None:
    """The configuration class in a type or in what it holds, e.g. `list[Stage]`; of several the first."""
    return next(configs_within(annotation), None)


def configs_within(annotation: Any) -> Iterator[type[Config]]:
    """Every configuration class in a type or in what it holds, e.g. `list[Cut | Margin]`."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from configs_within(inner)


def read_yaml(file: Path, problems: list[Problem], origins: dict[Key, str] | None = None) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        file: the file.
        problems: what is wrong with the file is added here.
        origins: where each key stands (`train.yaml:3:5`) is added here.
    """
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        problems.append(Problem(str(file), str(error.strerror), "a readable YAML file"))
    except UnicodeDecodeError as error:
        problems.append(Problem(str(file), f"bytes that are not UTF-8 at {error.start}", "a UTF-8 YAML file"))
    except yaml.YAMLError as error:
        problems.append(_not_yaml(file, error))
    else:
        return _mapping(file, node, problems, {} if origins is None else origins)
    return {}


def nearest(name: str, known: Sequence[str]) -> str:
    """`Did you mean "x"?` for the known name nearest to `name`, or the known names when none is near."""
    return _meant(name, known) or (f"Known: {', '.join(sorted(known))}." if known else "")


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'Did you mean "{close[0]}"?' if close else ""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, mapping by mapping; neither is changed."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _place(file: Path, mark: yaml.Mark) -> str:
    return f"{file}:{mark.line + 1}:{mark.column + 1}"


def _not_yaml(file: Path, error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    words = " ".join(str(getattr(error, "problem", None) or error).split())
    return Problem(_place(file, mark) if mark else str(file), f"no valid YAML ({words})", "valid YAML")


def _mapping(file: Path, node: yaml.Node | None, problems: list[Problem], origins: dict[Key, str]) -> dict[str, Any]:
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        found = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        problems.append(Problem(_place(file, node.start_mark), found, "a mapping of field names to values"))
        return {}
    before = len(problems)
    _locate(file, node, (), problems, origins)
    if len(problems) > before:
        return {}
    try:
        loaded = yaml.SafeLoader("").construct_document(node)
    except (ValueError, yaml.YAMLError) as error:
        problems.append(_not_yaml(file, error))
        return {}
    return {str(key): value for key, value in loaded.items()}


def _locate(file: Path, node: yaml.Node, parents: Key, problems: list[Problem], origins: dict[Key, str]) -> None:
    """Note where each key stands; a key that stands twice is a problem, because YAML drops the first silently."""
    if len(parents) > _DEEPEST:
        # An alias may point at what it stands in.
        problems.append(Problem(_place(file, node.start_mark), f"more than {_DEEPEST} levels", "fewer levels"))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            origins[(*parents, str(index))] = _place(file, item.start_mark)
            _locate(file, item, (*parents, str(index)), problems, origins)
    elif isinstance(node, yaml.MappingNode):
        seen: set[Key] = set()
        for name, value in node.value:
            key = (*parents, str(name.value))
            origins[key] = _place(file, name.start_mark)
            if key in seen:
                problems.append(Problem(origins[key], f"{'.'.join(key)} a second time", "each key once"))
            seen.add(key)
            _locate(file, value, key, problems, origins)


def _key_of(cls: type[Config], flag: str) -> Key:
    """What a flag sets; keys of mappings may have hyphens of their own."""
    key: Key = ()
    for part in flag.split("."):
        within = _annotation(cls, key)
        in_mapping = any(get_origin(kind) in (dict, Mapping) for kind in _alternatives(within))
        is_field = config_within(within) is not None and not in_mapping
        key = (*key, part.replace("-", "_") if is_field else part)
    return key


def _annotation(within: Any, key: Key) -> Any:
    """The type that `key` has in a value of the type `within`, None when nothing is known of it."""
    if not key:
        return within
    for kind in _alternatives(within):
        if isinstance(kind, type) and issubclass(kind, Config):
            field = kind.model_fields.get(key[0])
            return _annotation(field.annotation, key[1:]) if field else None
        if get_origin(kind) in (dict, Mapping):
            return _annotation(get_args(kind)[1], key[1:])
        if get_origin(kind) is list:
            # Where a list takes one element for itself, a flag may set its fields.
            return _annotation(get_args(kind)[0], key)
    return None


def _flag_value(text: str, annotation: Any) -> Any:
    alternatives = _alternatives(annotation)
    kinds = [kind for kind in alternatives if kind is not type(None)]
    if len(kinds) < len(alternatives) and text.lower() in ("null", "none", "~", ""):
        return None
    if all(_is_text(kind) for kind in kinds):
        return text
    wants_list = any(get_origin(kind) in (list, tuple) or kind in (list, tuple) for kind in kinds)
    # YAML would cut a path off at " #" and take one with ": " for a mapping.
    if text.strip()[:1] not in ("", "[", "{") and all(map(_takes_text, kinds)):
        return [text] if wants_list else text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return [value] if wants_list and not isinstance(value, list | None) else value


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _takes_text(kind: Any) -> bool:
    """Whether a text means a value of this type, or the one element of a list of this type."""
    if get_origin(kind) in (list, tuple):
        return all(_takes_text(inner) for inner in get_args(kind) if inner is not Ellipsis)
    return _is_text(kind) or bool(isinstance(kind, type) and issubclass(kind, Config) and kind.text_field)


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    return isinstance(kind, type) and issubclass(kind, str | Path)


def _flag_values(cls: type[Config], flags: Sequence[tuple[str, str]]) -> dict[Key, Any]:
    """What flags set, by key."""
    given: dict[Key, Any] = {}
    for name, text in flags:
        key = _key_of(cls, name)
        value = _flag_value(text, _annotation(cls, key))
        before = given.get(key)
        given[key] = [*before, *value] if isinstance(value, list) and isinstance(before, list) else value
    return given


def _contradictions(cls: type[Config], given: Mapping[Key, Any]) -> list[Problem]:
    """Flags for a field to which the flag of its whole group gives another value. Values may be secrets: not shown."""
    problems = []
    for key, value in given.items():
        groups = [key[:length] for length in range(1, len(key)) if key[:length] in given]
        for group in groups:
            said = _opened(given[group], _annotation(cls, group))
            if isinstance(said, list):
                # Of several, none is the one that the field belongs to: told where it is set.
                continue
            for part in key[len(group) :]:
                said = said.get(part, value) if isinstance(said, Mapping) else said
            if said != value:
                found = f"another value than --{'.'.join(group)} gives it"
                problems.append(Problem(f"--{'.'.join(key)}", found, "one of the two flags"))
    return problems


def _layered(annotation: Any, base: Any, over: Any) -> Any:
    """`over` on `base`, mapping by mapping; a text is the configuration that it stands for, a list is a new one."""
    if isinstance(base, list) or isinstance(over, list):
        return over
    below, above = _opened(base, annotation), _opened(over, annotation)
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return over
    result = dict(below)
    for key, value in above.items():
        result[key] = _layered(_annotation(annotation, (str(key),)), below[key], value) if key in below else value
    return result


def _of_a_list(cls: type[Config], key: Key) -> Key:
    """The list whose element a flag names by its number; empty where it names none."""
    for depth, part in enumerate(key):
        kinds = _alternatives(_annotation(cls, key[:depth]))
        if part.isdigit() and any(get_origin(kind) in (list, tuple) for kind in kinds):
            return key[:depth]
    return ()


def _set(cls: type[Config], target: dict[str, Any], key: Key, value: Any, problems: list[Problem]) -> None:
    within = _of_a_list(cls, key)
    if within:
        name, field = ".".join(within), ".".join(key[len(within) + 1 :])
        alone = f"--{name}.{field} sets a field where the list has one element. " if field else ""
        remedy = f"{alone}Of several, write them all: --{name} '[...]', or in the YAML file."
        found = f"the number of an element of {name}"
        problems.append(Problem(f"--{'.'.join(key)}", found, "a field, or the whole list", remedy))
        return
    for depth, parent in enumerate(key[:-1], start=1):
        inner = _opened(target.get(parent), _annotation(cls, key[:depth]))
        if inner is not None and not isinstance(inner, Mapping):
            where = ".".join(key[:depth])
            problems.append(Problem(f"--{'.'.join(key)}", f"{where} set to {inner!r}", f"{where} to be a mapping"))
            return
        target[parent] = dict(inner or {})
        target = target[parent]
    # A mapping is the whole group; a text is one field of it.
    annotation = _annotation(cls, key)
    target[key[-1]] = _layered(annotation, target.get(key[-1]), value) if isinstance(value, str) else value


def _opened(value: Any, annotation: Any) -> Any:
    """A value that a flag is about to set a field of: a text as the configuration that it stands for."""
    if get_origin(annotation) is list and isinstance(value, list) and len(value) == 1:
        value, annotation = value[0], get_args(annotation)[0]
    for kind in _alternatives(annotation):
        if isinstance(value, str) and isinstance(kind, type) and issubclass(kind, Config) and kind.text_field:
            return {kind.text_field: value}
    return value


def _problem(cls: type[Config], detail: Any, origins: Mapping[Key, str]) -> Problem:
    location, known, annotation = _location(cls, detail["loc"])
    name = ".".join(location)
    where = place_of(location, origins)
    if detail["type"] == "extra_forbidden":
        if name in cls.not_fields:
            return Problem(where, repr(detail["input"]), cls.not_fields[name])
        return Problem(where, f'the unknown key "{location[-1]}"', "a known one", nearest(location[-1], known))
    if detail["type"] == "missing":
        return Problem(where, "nothing", "a value", f"Set {name} in the YAML file or with --{name}.")
    if detail["type"] == "union_tag_invalid":
        tags = [tag.strip("' ") for tag in detail["ctx"]["expected_tags"].split(",")]
        return Problem(where, repr(detail["ctx"]["tag"]), "a known name", nearest(detail["ctx"]["tag"], tags))
    if detail["type"] in _SHAPES:
        expected, remedy = _SHAPES[detail["type"]]
        return Problem(where, repr(detail["input"])[:_LONGEST_SHOWN], expected, remedy.format(name=name))
    message = _PYDANTIC_FRAME.sub("", str(detail["msg"]))
    message, given, remedy = message[:1].lower() + message[1:], detail["input"], ""
    found = repr(given)
    if detail["type"] in ("value_error", "mismatch") and isinstance(given, Mapping | Config):
        values = _named(annotation, message, dict(given))
        keys = [(*location, *key) for key in values]
        given_keys = [key for key in keys if any(origin[: len(key)] == key for origin in origins)]
        where = place_of((given_keys or keys or [location])[0], origins)
        found = _values_words(values)
        only = next(iter(values.values())) if len(values) == 1 else None
        remedy = _meant(only, message.partition("one of ")[2].split(", ")) if isinstance(only, str) else ""
    if detail["type"] == "mismatch":
        found = detail["ctx"]["found"]
    return Problem(where, found[:_LONGEST_SHOWN], message, remedy)


def _named(annotation: Any, message: str, given: Mapping[Any, Any]) -> dict[Key, Any]:
    """The fields that a message about a whole configuration names, and their values, given or by default.

    A word behind a colon is a reason, and stands for a field only where none is named before.
    """
    kinds = [kind for kind in _alternatives(annotation) if isinstance(kind, type) and issubclass(kind, Config)]
    for words in (message.partition(": ")[0], message):
        keys = [tuple(word.split(".")) for word in _FIELD_NAME.findall(words)]
        found = {key: _value_at(kind, given, key) for kind in kinds for key in keys if _annotation(kind, key)}
        if found:
            return found
    return {}


def _value_at(kind: type[Config], given: Any, key: Key) -> Any:
    for depth, part in enumerate(key):
        annotation = _annotation(kind, key[:depth])
        value = _opened(given, annotation)
        value = dict(value) if isinstance(value, Mapping | Config) else {}
        scope = config_within(annotation)
        field = scope.model_fields.get(part) if scope else None
        default = None if field is None or field.default is PydanticUndefined else field.default
        given = value.get(part, default)
    return _opened(given, _annotation(kind, key))


def _values_words(values: Mapping[Key, Any]) -> str:
    if not values:
        return "these values together"
    if len(values) == 1:
        (value,) = values.values()
        return "nothing" if value is None else _value_words(value)
    words = [(".".join(key), value) for key, value in values.items()]
    return ", ".join(f"no {name}" if value is None else f"{name} {_value_words(value)}" for name, value in words)


def _value_words(value: Any) -> str:
    """A value in a message; of a mapping the names alone, since what is deeper may be a secret."""
    if isinstance(value, Mapping | Config):
        return f"{{{', '.join(f'{name}: ...' for name in dict(value))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value_words(inner) for inner in value)}]"
    return repr(str(value) if isinstance(value, Path) else value)


def _causes(details: Sequence[Any]) -> list[Any]:
    """The errors without those that only count what other errors have thrown out of a list."""

    def has_inner(location: tuple[Any, ...]) -> bool:
        return any(other["loc"][: len(location)] == location != other["loc"] for other in details)

    return [detail for detail in details if detail["type"] != "too_short" or not has_inner(detail["loc"])]


def _location(cls: type[Config], parts: Sequence[str | int]) -> tuple[Key, list[str], Any]:
    """The key that pydantic's location means, without the names of alternatives, the keys known beside it, its type."""
    key: list[str] = []
    known: list[str] = []
    annotation: Any = cls
    for part in parts:
        chosen = _told_apart(annotation).get(part) if isinstance(part, str) else None
        if chosen is not None:
            # Between the place and the key pydantic names the alternative.
            annotation = chosen
            continue
        if part == "[key]":
            # What pydantic adds where the name itself is wrong, which stands before.
            continue
        if isinstance(part, str) and get_origin(annotation) in (dict, Mapping):
            annotation, known = get_args(annotation)[1], []
        elif isinstance(part, str):
            scope = config_within(annotation)
            if scope is None:
                annotation = None
                break
            known = list(scope.model_fields)
            annotation = scope.model_fields[part].annotation if part in scope.model_fields else None
        elif get_origin(annotation) is list:
            annotation = get_args(annotation)[0]
        key.append(str(part))
    return tuple(key), known, annotation


def _told_apart(annotation: Any) -> dict[str, type[Config]]:
    """Alternatives that are told apart by the one value of their field `name`, by that value."""
    several = list(configs_within(annotation))
    if len(several) < 2 or not all("name" in kind.model_fields for kind in several):
        return {}
    return {str(kind.model_fields["name"].default): kind for kind in several}


def place_of(key: Key, origins: Mapping[Key, str]) -> str:
    """The dotted name, behind the place it comes from where that is known."""
    name = ".".join(key) or "configuration"
    for length in range(len(key), 0, -1):
        origin = origins.get(key[:length])
        if origin is not None:
            return origin if origin == f"--{name}" else f"{origin}, {name}"
    return name
