"""Frozen, validated configurations: YAML files and dotted flags become one dictionary, validated once.

A configuration class stands beside what it builds and derives from `Config`; the docstring under a field is
its help text on the command line. All problems are reported at once, an unknown key with the nearest known
name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from rewardlab.errors import ConfigError, Problem


class Config(BaseModel):
    """Base of every configuration: frozen, typed, no unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @classmethod
    def build(
        cls, values: Mapping[str, Any] | None = None, *, files: Sequence[Path] = (), flags: Sequence[tuple[str, str]] = ()
    ) -> Self:
        """Merge `values`, then `files` (later wins), then `flags`, and validate once.

        Args:
            values: a plain dictionary, e.g. a stage of a study.
            files: YAML files whose top level is a mapping.
            flags: (dotted name, text) as on the command line; the text is read as YAML.

        Raises:
            ConfigError: with every problem found.
        """
        problems: list[Problem] = []
        merged: dict[str, Any] = _merged({}, values or {})
        for file in files:
            merged = _merged(merged, read_yaml(file, problems))
        for name, text in flags:
            _set_dotted(merged, name, _flag_value(text), problems)
        return cls._validated(merged, problems)

    @classmethod
    def _validated(cls, merged: dict[str, Any], problems: list[Problem]) -> Self:
        try:
            built = cls.model_validate(merged)
        except ValidationError as error:
            problems += [_problem(cls, detail) for detail in error.errors()]
        else:
            if not problems:
                return built
        raise ConfigError(f"{cls.__name__}: {_counted(len(problems), 'problem')} in the configuration", problems)

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


def nested_config(field: FieldInfo) -> type[Config] | None:
    """The configuration class of a field that holds one (also as `X | None`), else None."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Config):
            return candidate
    return None


def read_yaml(file: Path, problems: list[Problem]) -> dict[str, Any]:
    """The mapping in a YAML file; what is wrong with it is appended to `problems`."""
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(Problem(str(file), str(error.strerror), "a readable YAML file"))
    except UnicodeDecodeError as error:
        problems.append(Problem(str(file), f"bytes that are not UTF-8 at {error.start}", "a UTF-8 YAML file"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        problems.append(Problem(place, str(getattr(error, "problem", None) or "no valid YAML"), "valid YAML"))
    else:
        if loaded is None:
            return {}
        if isinstance(loaded, dict):
            return loaded
        problems.append(Problem(str(file), type(loaded).__name__, "a mapping of field names to values"))
    return {}


def nearest(name: str, known: Sequence[str]) -> str:
    """`Did you mean "x"?` for the known name nearest to `name`, or the known names when none is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f'Did you mean "{close[0]}"?'
    return f"Known: {', '.join(sorted(known))}." if known else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _flag_value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    # YAML 1.1 reads 1e-5 as a string; pydantic turns such strings into numbers where a number is wanted.
    return value


def _set_dotted(target: dict[str, Any], name: str, value: Any, problems: list[Problem]) -> None:
    *parents, leaf = name.split(".")
    for depth, parent in enumerate(parents):
        inner = target.get(parent)
        if inner is None:
            inner = {}
        elif not isinstance(inner, dict):
            where = ".".join(parents[: depth + 1])
            problems.append(Problem(f"--{name}", f"{where} set to {inner!r} elsewhere", f"{where} to be a mapping"))
            return
        target[parent] = dict(inner)
        target = target[parent]
    target[leaf] = value


def _problem(cls: type[Config], detail: Any) -> Problem:
    location = [str(part) for part in detail["loc"]]
    where = ".".join(location) or "configuration"
    if detail["type"] == "extra_forbidden":
        known = _known_names(cls, location[:-1])
        return Problem(where, "an unknown key", "a known one", nearest(location[-1], known))
    if detail["type"] == "missing":
        return Problem(where, "nothing", "a value", f"Set it in the YAML file or with --{where}.")
    message = str(detail["msg"]).removeprefix("Value error, ")
    return Problem(where, repr(detail["input"])[:200], message[:1].lower() + message[1:])


def _known_names(cls: type[Config], path: Sequence[str]) -> list[str]:
    for part in path:
        field = cls.model_fields.get(part)
        inner = nested_config(field) if field else None
        if inner is None:
            return []
        cls = inner
    return list(cls.model_fields)
