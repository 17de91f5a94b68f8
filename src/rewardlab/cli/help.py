"""Help texts, made from the verb table and the docstrings of configurations."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rewardlab.config import Config, configs_within, nested_config
from rewardlab.studies.verbs import Verb

_NAME_COLUMNS = 30

LAUNCH_OPTIONS = {
    "--launcher slurm": "as a job of a SLURM cluster; with --help: its flags, --slurm.partition and others",
}
VERB_OPTIONS = {
    "--config FILE": "YAML file with the configuration; may be given again, the later wins",
    "--run NAME": "name of the run directory, new unless --resume (default: description and index)",
    "--resume": "go on with the unfinished run --run NAME",
    "--description TEXT": "what the run is for; names its directory",
    "--allow-untracked": "run although the package's source has files that git does not track",
    "--log-level LEVEL": "debug, info, warning or error on standard error (default: info)",
} | LAUNCH_OPTIONS


def overview(group: str, verbs: Mapping[str, Verb], commands: Mapping[str, str]) -> str:
    """Help of the program, or of a group (`data`): every command with its line."""
    entries = {name: verb.help for name, verb in verbs.items()} | dict(commands)
    shown = _grouped({name: text for name, text in entries.items() if not group or name.startswith(f"{group} ")})
    lines = [f"usage: rewardlab {f'{group} ' if group else ''}COMMAND [--flag value ...]", "", "commands:"]
    lines += [line for name, text in shown.items() for line in _entry(name, text)]
    lines += ["", "rewardlab COMMAND --help lists the flags of a command."]
    return "\n".join(lines)


def verb_help(name: str, verb: Verb) -> str:
    """Help of a verb: options of every verb, then a flag per field with type, meaning and default."""
    kind = verb.config_class()
    lines = [f"usage: rewardlab {name} [--flag value ...]", "", *_wrapped(f"{verb.help}.", "")]
    purpose = inspect.getdoc(kind)
    lines += ["", *_wrapped(purpose.partition("\n\n")[0], "")] if purpose else []
    lines += ["", "options:", *(line for option, text in VERB_OPTIONS.items() for line in _entry(option, text))]
    # A group that is null has fields with defaults all the same: they hold once one of its flags is given.
    groups = {name for name, field in kind.model_fields.items() if nested_config(field) and field.default is None}
    lines += ["", "configuration:"]
    for flag, field in kind.flag_names():
        group = flag.partition(".")[0]
        lines += _flag(flag, field, f"; without any --{group} flag: null" if group in groups else "")
    return "\n".join(lines)


def flag_help(flags: Mapping[str, FieldInfo]) -> list[str]:
    """A flag per field with type, meaning and default."""
    return [line for flag, field in flags.items() for line in _flag(flag, field, "")]


def command_help(usage: str, text: str, options: Mapping[str, str] = MappingProxyType({})) -> str:
    """Help of a command that is not a verb."""
    lines = [f"usage: rewardlab {usage}", "", *_wrapped(text, "")]
    lines += ["", "options:"] if options else []
    return "\n".join([*lines, *(line for option, about in options.items() for line in _entry(option, about))])


def type_name(annotation: Any) -> str:
    """A type in words: `INT`, `a|b`, `FLOAT or null`, `list of TEXT`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return "|".join(str(choice) for choice in arguments)
    if origin in (Union, UnionType):
        return " or ".join(type_name(argument) for argument in arguments)
    if origin in (list, tuple):
        inner = [type_name(argument) for argument in arguments if argument is not Ellipsis]
        return f"list of {' and '.join(dict.fromkeys(inner))}" if inner else "list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping"
    names = {int: "INT", float: "FLOAT", str: "TEXT", bool: "BOOL", Path: "PATH", type(None): "null"}
    if annotation in names:
        return names[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation.__name__
    return str(getattr(annotation, "__name__", annotation))


def _grouped(entries: Mapping[str, str]) -> dict[str, str]:
    """The entries with those of one group (`data ...`) together, groups in the order of their first entry."""
    groups = list(dict.fromkeys(name.split()[0] for name in entries))
    return {name: entries[name] for name in sorted(entries, key=lambda name: groups.index(name.split()[0]))}


def _flag(name: str, field: FieldInfo, otherwise: str) -> list[str]:
    about = " ".join((field.description or "").split())
    kinds = list(configs_within(field.annotation))
    each = f"Each has {', '.join(kinds[0].model_fields)}." if len(kinds) == 1 else _alternatives(kinds)
    return _entry(
        f"--{name} {type_name(field.annotation)}", " ".join(filter(None, (about, each, _default(field, otherwise))))
    )


def _alternatives(kinds: Sequence[type[Config]]) -> str:
    """`One of cut (ids, table), margin (to, value).` for configurations that are told apart by their `name`."""
    named = {str(kind.model_fields["name"].default): kind for kind in kinds if "name" in kind.model_fields}
    fields = {name: ", ".join(field for field in kind.model_fields if field != "name") for name, kind in named.items()}
    return f"One of {'; '.join(f'{name} ({inner})' for name, inner in fields.items())}." if fields else ""


def _default(field: FieldInfo, otherwise: str) -> str:
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return ""
    shown = {None: "null", True: "true", False: "false"}.get(value, value) if isinstance(value, bool | None) else value
    return f"(default: {shown}{otherwise})" if shown != "" else ""


def _entry(name: str, text: str) -> list[str]:
    lines = _wrapped(text, " " * _NAME_COLUMNS)
    if len(name) + 4 > _NAME_COLUMNS or not lines:
        return [f"  {name}", *lines]
    return [f"  {name}".ljust(_NAME_COLUMNS) + lines[0].strip(), *lines[1:]]


def _wrapped(text: str, indent: str) -> list[str]:
    width = max(60, min(shutil.get_terminal_size().columns, 110))
    return textwrap.wrap(" ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent)
