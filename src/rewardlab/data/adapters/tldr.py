"""Summaries of Reddit posts: comparisons by people, and posts with their authors' own summaries (arXiv 2009.01325).

    tldr-comparison  {info {id, post, title, subreddit, ...}, summaries [{text, policy, note}], choice, worker, batch,
                     split, extra}: `openai/summarize_from_feedback`, subset comparisons
    tldr-post        {id, subreddit, title, post, summary?}: the filtered TL;DR posts

The prompt is the text of the published experiments, ready for the summary. A summary begins with one space and has no
other white space at its ends, whichever side it is. The comparisons of news articles have no post and are set aside.
"""

from __future__ import annotations

from typing import Any

from rewardlab.data.adapters.base import Adapter, Parsed, broken, set_aside, usable
from rewardlab.data.rows import Row, json_safe, shown
from rewardlab.records import Candidates, Pair, Prompt

PROMPT = "SUBREDDIT: r/{subreddit}\nTITLE: {title}\nPOST: {post}\nTL;DR:"
POST = ("subreddit", "title", "post")


def prompt_of_post(post: dict[str, str]) -> Prompt:
    """The text that a summary follows."""
    return Prompt.of_text(PROMPT.format(**post))


def parse_comparison(row: Row) -> Parsed:
    """The summary that people chose and the other one; `meta` has the policies that wrote them."""
    info, items = row.mapping("info"), row.items("summaries")
    summaries = [item.get("text") if isinstance(item, dict) else None for item in items]
    if len(items) != 2 or not all(isinstance(text, str) for text in summaries):
        row.complain("summaries", "two objects {text, policy, ...}")
    choice = row.raw("choice")
    if choice not in (0, 1) or isinstance(choice, bool):
        row.complain("choice", "0 or 1, which of the summaries is better")
    is_article = info.get("post") is None and info.get("article") is not None
    post = {} if is_article else _post(row, info)
    if row.problems:
        return broken(row)
    if is_article:
        return set_aside(row, "no_post", f"an article of {shown(info.get('site'))}")
    better, worse = int(choice), 1 - int(choice)
    rest = {name: json_safe(value) for name, value in info.items() if name not in (*POST, "article")}
    meta = {**row.rest(), "info": rest, "policies": [json_safe(items[side].get("policy")) for side in (better, worse)]}
    chosen, rejected = (_summary(str(summaries[side])) for side in (better, worse))
    return usable(row, Pair(prompt_of_post(post), chosen, rejected, None, row.source, meta))


def parse_post(row: Row) -> Parsed:
    """A post with its author's summary, or a prompt alone where there is none."""
    post = {name: row.text(name, empty=True) for name in POST}
    summary = row.text("summary") if row.has("summary") else None
    if row.problems:
        return broken(row)
    completions = () if summary is None else (_summary(summary),)
    return usable(row, Candidates(prompt_of_post(post), completions, None, row.source, row.rest()))


def _post(row: Row, info: dict[str, Any]) -> dict[str, str]:
    """Subreddit, title and post; what is missing is nothing said."""
    post = {name: "" if info.get(name) is None else info[name] for name in POST}
    for name, value in post.items():
        if not isinstance(value, str):
            row.complain("info", f"text as {name}", found=shown(value))
    if info.get("post") is None:
        row.complain("info", "an object {post, title, subreddit}")
    return post


def _summary(text: str) -> str:
    return f" {text.strip()}"


COMPARISON = Adapter(
    name="tldr-comparison",
    title="comparisons of summaries: {info {post, title, subreddit}, summaries [{text, policy}], choice}",
    required=("info", "summaries", "choice"),
    optional=(),
    parse=parse_comparison,
    hub_ids=("openai/summarize_from_feedback",),
)
POSTS = Adapter(
    name="tldr-post",
    title="posts with their authors' summaries: {subreddit, title, post, summary?}",
    required=POST,
    optional=("summary",),
    parse=parse_post,
)
