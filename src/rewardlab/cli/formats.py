"""`rewardlab data formats`: which forms of preference data can be read."""

from __future__ import annotations

from collections.abc import Sequence

from rewardlab.cli.arguments import Grammar, parse

COMMANDS = {"data formats": "the formats of preference data that are read, and their columns"}


def run_command(words: Sequence[str]) -> None:
    """Print the registry of formats.

    Raises:
        ConfigError: words behind the command, which takes none.
    """
    parse(words, Grammar())
    # Help must not wait for the libraries that read data.
    from rewardlab.data.adapters import describe_formats

    print(describe_formats())
