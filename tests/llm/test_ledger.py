"""The ledger: what is paid stays paid, whatever happens."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rewardlab.errors import DataError, RunError
from rewardlab.llm.endpoint import Endpoint
from rewardlab.llm.ledger import Ledger, Totals
from rewardlab.llm.requests import Answer, ChatRequest
from rewardlab.llm.wire import answer_of
from rewardlab.records import Message


def request(text: str = "hello", draw: int = 0, **parameters: object) -> ChatRequest:
    return ChatRequest("some-model", (Message("user", text),), parameters, draw)


def test_the_key_is_the_content_and_nothing_else() -> None:
    assert request("a", temperature=0.7).key == request("a", temperature=0.7).key
    # Written down once: keys are for ever, or what is paid is paid again.
    assert request("a", temperature=0.7).key == "96ef8dfb655ff7f1"
    different = [request("b"), request("a"), request("a", draw=1), request("a", temperature=0.8)]
    assert len({one.key for one in different}) == 4


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    answer = Answer("Größe \x00 \U0001f600", "stop", "", 12, 34, 0.5, {"content": [{"logprob": -0.1}]}, "http://a/v1")
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.answer(request(), answer)
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.answers([request(), request("other")]) == {request().key: answer}
        assert ledger.missing([request(), request("other"), request("other")]) == [request("other")]
        assert ledger.totals() == Totals(answered=1, prompt_tokens=12, completion_tokens=34, cost=0.5)


def test_a_lone_surrogate_does_not_lose_the_answer(tmp_path: Path) -> None:
    message = {"content": "\ud800!", "refusal": "\ud801?"}
    body = {"choices": [{"message": message, "finish_reason": "\ud802", "logprobs": {"token": "\ud800"}}]}
    answer = answer_of(body, Endpoint(url="http://localhost/v1"))
    assert isinstance(answer, Answer)
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.answer(request("\ud800"), answer)
        kept = ledger.answers([request("\ud800")])[request("\ud800").key]
    # What the ledger has and what the first run went on with are the same.
    assert kept == answer
    assert (kept.text, kept.refusal, kept.finish_reason) == ("?!", "??", "?")


def test_an_answer_is_never_overwritten(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.answer(request(), Answer("first", cost=1.0))
        ledger.answer(request(), Answer("second", cost=1.0))
        ledger.fail(request(), "late failure")
        ledger.send([request()], "batch-1")
        assert ledger.answers([request()])[request().key].text == "first"
        assert ledger.batches() == []
        assert ledger.totals() == Totals(answered=1, cost=1.0)


def test_a_failed_request_may_be_sent_again_and_then_answered(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.fail(request(), "429 for an hour")
        assert ledger.failures([request()]) == {request().key: "429 for an hour"}
        assert ledger.missing([request()]) == [request()]
        ledger.answer(request(), Answer("at last"))
        assert ledger.failures([request()]) == {}
        assert ledger.totals() == Totals(answered=1)


def test_what_is_in_a_batch_is_not_missing_until_the_batch_ends(tmp_path: Path) -> None:
    several = [request(str(number), temperature=0.7, draw=number) for number in range(3)]
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.send(several, "batch-1")
        assert ledger.missing(several) == []
        assert ledger.batches() == ["batch-1"]
        assert ledger.batch("batch-1") == {one.key: one for one in several}
        ledger.answer(several[0], Answer("one"))
        assert ledger.release("batch-1", "expired") == 2
        assert ledger.batches() == []
        assert ledger.missing(several) == several[1:]
        assert set(ledger.failures(several).values()) == {"expired"}


def test_a_batch_changes_its_name_and_keeps_its_time(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        before = time.time()
        ledger.send([request("a"), request("b")], "token:1")
        sent = ledger.sent_at("token:1")
        assert before <= sent <= time.time()
        ledger.rename("token:1", "batch-1")
        assert ledger.sent_at("batch-1") == sent
        assert ledger.sent_at("token:1") == 0.0
        ledger.answer(request("a"), Answer("one"))
        assert ledger.under_way([request("a"), request("b"), request("c")]) == {request("b").key: "batch-1"}


def test_more_keys_than_a_query_takes(tmp_path: Path) -> None:
    several = [request(str(number)) for number in range(1201)]
    with Ledger(tmp_path / "l.db") as ledger:
        for one in several[::2]:
            ledger.answer(one, Answer(one.messages[0].content))
        assert ledger.missing(several) == several[1::2]
        assert {answer.text for answer in ledger.answers(several).values()} == {str(n) for n in range(0, 1201, 2)}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer("fine"), "ok"),
        (Answer(" \n"), "empty"),
        (Answer(None), "empty"),
        (Answer("cut", "length"), "truncated"),
        (Answer(None, "content_filter"), "refused"),
        (Answer(None, "stop", refusal="I cannot help with that."), "refused"),
    ],
)
def test_outcomes(answer: Answer, outcome: str) -> None:
    assert answer.outcome == outcome


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, and there are many of them\n" * 100)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"notes\.txt: found file is not a database"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_ledger_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l.db") as base:
        base.execute("PRAGMA user_version = 99")
    with pytest.raises(DataError, match="found version 99; expected version 1"):
        Ledger(tmp_path / "l.db")


def test_a_ledger_that_is_refused_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def noted(*args: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", noted)
    (tmp_path / "notes.txt").write_text("these are my notes, and there are many of them\n" * 100)
    with pytest.raises(DataError):
        Ledger(tmp_path / "notes.txt")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("SELECT 1")


def test_a_damaged_page_is_an_error_that_says_where(tmp_path: Path) -> None:
    several = [request(f"{number} {'x' * 500}") for number in range(500)]
    with Ledger(tmp_path / "l.db") as ledger:
        for one in several:
            ledger.answer(one, Answer("y" * 500))
    content = bytearray((tmp_path / "l.db").read_bytes())
    content[3 * 4096 :] = b"\xff" * (len(content) - 3 * 4096)
    (tmp_path / "l.db").write_bytes(content)
    with Ledger(tmp_path / "l.db") as ledger:
        with pytest.raises(RunError, match=r"cannot read the ledger of paid answers\n  .*l\.db: found .*malformed"):
            ledger.answers(several)
        with pytest.raises(RunError, match="cannot write to the ledger of paid answers"):
            ledger.answer(request("new"), Answer("z"))


def test_a_ledger_is_not_closed_in_the_middle_of_writing(tmp_path: Path) -> None:
    """SQLite would crash the process, whose writer was not waited for."""
    ledger = Ledger(tmp_path / "l.db")
    closer = threading.Thread(target=ledger.close)
    with ledger._using("write to") as base:
        closer.start()
        closer.join(0.2)
        assert closer.is_alive()
        base.execute("SELECT 1")
    closer.join()
    with pytest.raises(RunError, match="closed database"):
        ledger.answer(request(), Answer("late"))


def test_a_place_where_nothing_can_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="a file that can be written to"):
        Ledger(tmp_path / "file" / "l.db")


WRITER = """
import sys
import time
from pathlib import Path
from rewardlab.llm.ledger import Ledger
from rewardlab.llm.requests import Answer, ChatRequest
from rewardlab.records import Message
with Ledger(Path(sys.argv[1])) as ledger:
    for number in range(10**6):
        ledger.answer(ChatRequest("m", (Message("user", str(number)),)), Answer(str(number)))
        print(number, flush=True)
"""


def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "l.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(300):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        # The last line may be cut.
        last = max([last, *(int(line) for line in writer.stdout.read().split("\n")[:-1])])
    several = [ChatRequest("m", (Message("user", str(number)),)) for number in range(last + 1)]
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.missing(several) == []
        assert ledger.totals().answered - len(several) in (0, 1)
