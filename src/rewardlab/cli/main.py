"""The command line: find the command, run it, turn what goes wrong into one clear message and an exit code.

0    done
1    something went wrong inside; the traceback is in the run's log
2    the input cannot be used: every problem, no traceback
130  stopped from the keyboard or by SIGTERM, with the line that goes on
141  whoever read our output has gone

Of several processes that a launcher has started, the first one speaks; another one only of what it alone knows.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from rewardlab.cli import formats, launching, runs, study, verb
from rewardlab.cli import help as texts
from rewardlab.cli.environment import load_env_file, spin_briefly
from rewardlab.config import nearest
from rewardlab.errors import ConfigError, ElsewhereError, Problem, RewardlabError
from rewardlab.store.processes import alone, launched, leave
from rewardlab.studies.verbs import VERBS, Verb

STOPPED = 130
READER_GONE = 141
"""128 + SIGPIPE, as for any program in a pipe."""
FIRST_SPEAKS = 30.0
"""Seconds within which the first of several processes has said what is wrong; under torchrun they end with its end."""


def main(words: Sequence[str] | None = None, verbs: Mapping[str, Verb] = VERBS) -> int:
    """Run one command line (default: the process's) and return the exit code."""
    words = sys.argv[1:] if words is None else list(words)
    # Schedulers, containers and `timeout` end a program so: what is under way is kept, as from the keyboard.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if _in_main_thread() else None
    try:
        load_env_file(Path(), os.environ)
        spin_briefly(os.environ)
        _print_anything()
        code = _dispatch(words, verbs)
        sys.stdout.flush()
        leave()
    except RewardlabError as error:
        return _fail(str(error), error, error.exit_code)
    except KeyboardInterrupt as error:
        begun = bool(getattr(error, "__notes__", ()))
        return _fail("stopped" if begun else "stopped before a run was begun", error, STOPPED)
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit, and must not fail there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except Exception as error:  # noqa: BLE001 - the edge: whatever it is, a person gets a message, not a traceback
        return _fail_unexpectedly(error, words)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return code


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _dispatch(words: Sequence[str], verbs: Mapping[str, Verb]) -> int:
    """Do what `words` say; gives the exit code, which is that of the job where one is waited for."""
    commands = {**formats.COMMANDS, "run": "run a study, shipped or from a file: run STUDY", **runs.COMMANDS}
    if words in (["--version"], ["-V"]):
        print(metadata.version("rewardlab"))
        return 0
    name, rest = _command(words, [*verbs, *commands])
    helps = not {"--help", "-h"}.isdisjoint(rest)
    own: list[str] = []
    if name in verbs or name == "run":
        own, rest = launching.split(rest)
    if not helps and (launch := launching.launch_of(own)).launcher == "slurm":
        return launching.run_command(name, rest, launch, verbs)
    if not (name in verbs and verbs[name].shares):
        alone(f"rewardlab {name}".rstrip())
    if name not in verbs and name not in commands:
        print(texts.overview(name, verbs, commands))
    elif name in verbs:
        print(texts.verb_help(name, verbs[name])) if helps else verb.run_verb(name, verbs[name], rest)
    elif name == "run":
        print(study.study_help()) if helps else study.run_command(rest, verbs)
    elif helps:
        print(texts.command_help(name, commands[name]))
    elif name in formats.COMMANDS:
        formats.run_command(name, rest)
    else:
        runs.run_command(name, rest)
    if helps and own:
        print(launching.launch_help())
    return 0


def _print_anything() -> None:
    """Where a terminal lacks a character of the data, its escape is printed, as Python does on standard error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _command(words: Sequence[str], known: Sequence[str]) -> tuple[str, list[str]]:
    """The command that `words` begin with and the rest; a group (`data`) or nothing at all asks for an overview."""
    plain = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    for length in range(len(plain), 0, -1):
        name = " ".join(plain[:length])
        if name in known:
            return name, list(words[length:])
    group = plain[0] if plain else ""
    only_help = all(word in ("--help", "-h") for word in words[len(plain) :])
    if only_help and len(plain) <= 1 and any(name.startswith(f"{group} " if group else "") for name in known):
        return group, []
    members = [name for name in known if name.startswith(f"{group} ")]
    if members and len(plain) == 1:
        raise ConfigError("no such command", [Problem(group, "half a command", f"one of {', '.join(members)}")])
    given = " ".join(plain[:2]) or words[0]
    raise ConfigError("no such command", [Problem(given, "an unknown command", "a known one", nearest(given, known))])


def _fail(message: str, error: BaseException, code: int) -> int:
    rank = launched().rank
    # The others have the same command line, and end with the first one.
    if rank and isinstance(error, ElsewhereError | ConfigError | KeyboardInterrupt):
        if not isinstance(error, KeyboardInterrupt):
            _let_the_first_speak()
        return code
    lines = [message, *getattr(error, "__notes__", ())]
    speaker = f"rewardlab, process {rank}" if rank else "rewardlab"
    print(f"{speaker}: " + "\n".join(lines), file=sys.stderr)
    return code


def _let_the_first_speak() -> None:
    """Wait for the launcher, which stops all processes when one has failed: to go before the first one has said why
    would silence it."""
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(FIRST_SPEAKS)


def _fail_unexpectedly(error: Exception, words: Sequence[str]) -> int:
    asked = any(word == "debug" or word == "--log-level=debug" for word in words)
    if asked:
        traceback.print_exception(error)
    hint = "" if asked else "\nFor the traceback here: --log-level debug"
    return _fail(f"unexpected {type(error).__name__}: {error}{hint}", error, RewardlabError.exit_code)


if __name__ == "__main__":
    sys.exit(main())
