"""Where data come from: the configuration of one source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from rewardlab.config import Config
from rewardlab.data.files import FileRows, is_hub_id, read_hub, read_path
from rewardlab.errors import Problem

AUTO = "auto"
"""The adapter name that stands for: look at the columns."""


class DialogueText(Config):
    """How a dialogue becomes one text, of formats whose rows are turns."""

    user_name: str = "User:"
    """What stands in front of the user's turns."""
    bot_name: str = "Assistant:"
    """What stands in front of the assistant's turns, and ends a prompt."""
    full_stop: Literal["where missing", "always"] = "where missing"
    """Behind the user's turns: where they do not end in . ? or !, or always, as published code has it."""
    delete_last_assistant_response: bool = False
    """Leave the answer out: prompts alone."""


class DataSource(Config):
    """One source of rows and how to read it; its path alone stands for a source with that path."""

    text_field: ClassVar[str] = "path"

    path: str
    """A file, a folder of data files, of `sample` or of `datasets`, or a hub id (owner/name)."""
    adapter: str = AUTO
    """The format by name (hh-rlhf, preference, k-way, ...); auto looks at the columns of the first rows."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column map, our name to theirs; a dotted name reaches into nested objects (`question.full_text`)."""
    split: str | None = None
    """Which split of a folder or hub id; all for every one. Needed where there are several."""
    revision: str | None = None
    """Commit, tag or branch of a hub id; a run records the commit."""
    subsets: tuple[str, ...] = ()
    """Configurations of a hub id, or its folders where there is a slash (`data/reward`); of a local folder its folders,
    or dotted parts of file names."""
    prompt_role: Literal["text", "user"] | None = None
    """Read a prompt that is a string as plain text or as a user turn; left out, as the format has it."""
    strip: bool = False
    """Cut white space off both ends of every completion, so that it cannot tell the sides apart."""
    dialogue: DialogueText | None = None
    """How dialogues become texts, of the format dialoconan. Default: its fields' own."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first so many rows."""

    def pinned(self, *, offline: bool = False) -> Self:
        """The source at the commit that its revision on the hub stands for now, as far as that can be found out."""
        if not is_hub_id(self.path):
            return self
        from rewardlab.store.hub import dataset_commit

        commit = dataset_commit(self.path, self.revision, offline=offline)
        return self if commit is None else self.model_copy(update={"revision": commit})


def _in_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Mapping | DataSource) else value


Sources = Annotated[list[DataSource], BeforeValidator(_in_list)]
"""One source or several: a single one may stand without a list around it."""


def with_limit(source: DataSource, limit: int | None) -> DataSource:
    """The source, cut to `limit` rows where it is not shorter already."""
    limits = [value for value in (source.limit, limit) if value is not None]
    return source.model_copy(update={"limit": min(limits)}) if limits else source


def read_source(source: DataSource, problems: list[Problem]) -> list[FileRows]:
    """The rows of a source as they stand; what is wrong is added to `problems`."""
    if not is_hub_id(source.path):
        if source.revision is not None:
            problems.append(Problem("revision", repr(source.revision), "a hub id as path", "Drop `revision`."))
        return read_path(source.path, problems, split=source.split, subsets=source.subsets)
    files = []
    for subset in source.subsets or (None,):
        # No configuration has a slash in its name.
        place = {"folder" if subset and "/" in subset else "subset": subset}
        files += read_hub(source.path, problems, split=source.split, revision=source.revision, **place)
    return files
