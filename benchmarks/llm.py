"""Speed of the live client against the loopback server of the tests, and of a large ledger.

python -m benchmarks.llm [requests] [concurrency] [rows]
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rewardlab.llm.client import LiveClient
from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.ledger import Ledger
from rewardlab.llm.requests import Answer, ChatRequest
from rewardlab.records import Message

SERVER = Path(__file__).resolve().parents[1] / "tests" / "chat_server.py"
TEXT = "The film was a long one and I did not like it very much at all. " * 15


def request(number: int) -> ChatRequest:
    return ChatRequest("some-model", (Message("user", f"{number} {TEXT}"),), {"temperature": 0.7})


def live(folder: Path, count: int, concurrency: int) -> None:
    wanted = [request(number) for number in range(count + 200)]
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        with Ledger(folder / "live.db") as ledger:
            client = LiveClient(Endpoint(url=url, model="some-model", concurrency=concurrency), ledger)
            list(client.run(wanted[:200]))
            start, own = time.perf_counter(), time.process_time()
            list(client.run(wanted[200:]))
            wall, own = time.perf_counter() - start, time.process_time() - own
            assert ledger.totals().answered == len(wanted)
        server.communicate()
    print(f"live: {count / wall:.0f} requests/s, {1e3 * own / count:.2f} ms of CPU each, {concurrency} at once")


def large(folder: Path, rows: int) -> None:
    with Ledger(folder / "large.db") as ledger:
        for number in range(rows):
            ledger.answer(request(number), Answer(TEXT, "stop", "", 300, 280, 0.01))
        some = [request(number) for number in random.Random(0).choices(range(2 * rows), k=10_000)]
        start = time.perf_counter()
        missing = ledger.missing(some)
        looked = time.perf_counter() - start
        again = [request(number) for number in range(rows // 10)]
        start = time.perf_counter()
        client = LiveClient(Endpoint(url="http://localhost/v1", model="some-model"), ledger)
        assert sum(1 for _ in client.run(again)) == len(again)
        resumed = time.perf_counter() - start
        fresh = [request(2 * rows + number) for number in range(2000)]
        start = time.perf_counter()
        for one in fresh:
            ledger.answer(one, Answer(TEXT, "stop", "", 300, 280, 0.01))
        each = (time.perf_counter() - start) / len(fresh)
    size = (folder / "large.db").stat().st_size / 1e9
    print(
        f"ledger of {rows} rows, {size:.1f} GB: missing() of 10,000 requests {looked:.2f} s "
        f"({len(missing)} missing), a run of {len(again)} answered ones {resumed:.1f} s, answer() {1e6 * each:.0f} us"
    )


if __name__ == "__main__":
    count, concurrency, rows = (
        int(given) for given in [*sys.argv[1:], *["4000", "32", "1000000"][len(sys.argv) - 1 :]]
    )
    with tempfile.TemporaryDirectory() as name:
        live(Path(name), count, concurrency)
        large(Path(name), rows)
