"""`rewardlab data formats` and `rewardlab audit templates`: lists of what the package knows."""

from __future__ import annotations

from collections.abc import Sequence

from rewardlab.cli.arguments import Grammar, parse

COMMANDS = {
    "data formats": "the formats of preference data that are read, and their columns",
    "audit templates": "the data sets, attributes and reward models that an audit knows, and how it reads them",
}


def run_command(name: str, words: Sequence[str]) -> None:
    """Print the list that `name` asks for.

    Raises:
        ConfigError: words behind the command, which takes none.
    """
    parse(words, Grammar())
    # Help must not wait for the libraries that read data.
    if name == "data formats":
        from rewardlab.data.adapters import describe_formats

        print(describe_formats())
    else:
        from rewardlab.audit.template import describe_templates
        from rewardlab.score.template import describe_templates as describe_scoring

        print(f"{describe_templates()}\n{describe_scoring()}")
