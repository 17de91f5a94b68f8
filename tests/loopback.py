"""What tests say to the loopback server, and ask through it."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.requests import ChatRequest
from rewardlab.records import Message


class Loopback:
    """The server's switchboard."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.url = f"{self.origin}/v1"

    def _call(self, path: str, value: Any = None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        with urllib.request.urlopen(urllib.request.Request(self.origin + path, data), timeout=30) as reply:
            return json.load(reply)

    def reset(self) -> None:
        self._call("/reset")

    def plan(self, **plan: Any) -> None:
        self._call("/plan", plan)

    def seen(self) -> Any:
        return self._call("/seen")


def ask(text: str, draw: int = 0, **parameters: Any) -> ChatRequest:
    return ChatRequest("some-model", (Message("user", text),), parameters, draw)


def endpoint(server: Loopback, **values: Any) -> Endpoint:
    return Endpoint.build({"url": server.url, "model": "some-model", "timeout": 20.0, **values})
