"""Which endpoint gave an answer that is not asked for again."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.requests import Answer

log = logging.getLogger("rewardlab")


class Origins:
    """Warns of answers in the ledger that another URL gave: the same name may mean another model there.

    They are used all the same, since an answer that is paid for is never paid for again.

    Args:
        endpoint: whose answers are wanted.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._model, self._url = endpoint.model, endpoint.url
        self._known = {"", _bare(endpoint.url)}

    def check(self, answers: Iterable[Answer]) -> None:
        """Warn, once for each URL."""
        for url in sorted({_bare(answer.url) for answer in answers} - self._known):
            self._known.add(url)
            log.warning(
                "Answers of %s that %s gave are taken from the ledger, and not asked for again at %s. "
                "If that is another model, give it another name, or another ledger with REWARDLAB_HOME.",
                self._model,
                url,
                self._url,
            )


def _bare(url: str) -> str:
    return url.rstrip("/")
