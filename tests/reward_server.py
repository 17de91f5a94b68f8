"""A loopback server of rewards: OpenRLHF's form, and it misbehaves on order."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]


class RewardServer:
    """Answers with what `answer` gives for a request's values; every request is kept in `seen`, in order."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/get_reward"
        self.seen: list[Any] = []
        self.paths: list[str] = []
        self.delay = 0.0
        self.plan: list[Reply] = []
        self.answer: Callable[[Any], Any] = lambda asked: {"rewards": [float(len(text)) for text in asked["query"]]}

    def reply(self, asked: Any) -> Reply:
        if self.plan:
            return self.plan.pop(0)
        return 200, {"Content-Type": "application/json"}, json.dumps(self.answer(asked)).encode()


@contextlib.contextmanager
def reward_server() -> Iterator[RewardServer]:
    state: list[RewardServer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server = state[0]
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.seen.append(asked)
            server.paths.append(self.path)
            threading.Event().wait(server.delay)
            status, headers, body = server.reply(asked)
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.append(RewardServer(http.server_address[1]))
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state[0]
        finally:
            http.shutdown()
            thread.join()
