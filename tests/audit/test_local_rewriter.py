"""Rewrites by a language model in this process: kept in the ledger, the same in any batch, judged as any other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from loopback import Loopback
from small_models import WORDS, config_of, network_of, word_tokenizer
from transformers import AutoModelForCausalLM

from rewardlab.audit import local
from rewardlab.audit.chat import ChatRewriter
from rewardlab.audit.local import LocalClient, LocalModel
from rewardlab.audit.template import attribute_template
from rewardlab.audit.units import Chain, Task, Unit
from rewardlab.cli.main import main
from rewardlab.errors import ModelError
from rewardlab.llm.ledger import Ledger, Totals
from rewardlab.llm.requests import Answer
from rewardlab.models.generate import Asked, Generated, generate
from rewardlab.records import Message, Prompt
from rewardlab.store.files import read_json, read_jsonl

TEMPLATE = attribute_template("length")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama shape over words: it ends after some words, or does not."""
    place = tmp_path_factory.mktemp("language")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config_of("llama"), dtype=torch.float32).save_pretrained(place)
    word_tokenizer().save_pretrained(place)
    return place


def tasks(count: int) -> list[Task]:
    texts = [" ".join(WORDS[n % 90 : n % 90 + 3 + n % 9]) + f" {WORDS[n]}" for n in range(count)]
    return [Task(Unit(Prompt.of_text(f"prompt {n}"), text, n % 2 == 0)) for n, text in enumerate(texts)]


def made(folder: Path, ledger: Ledger, asked: Sequence[Task], **options: Any) -> dict[str, Chain]:
    config = LocalModel(**{"path": str(folder), "temperature": 2.0, "max_tokens": 60, **options})
    client = LocalClient(config, ledger)
    chains = list(ChatRewriter(TEMPLATE, client, client).chains(asked, 2))
    return {f"{chain.task.unit.response}/{chain.task.draw}": chain for chain in chains}


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with Ledger(tmp_path / "ledger.db") as ledger:
        yield ledger


class Counted:
    """`generate`, counting rows; memory runs out above `most` rows."""

    def __init__(self, most: int = 10**9) -> None:
        self.rows, self.batches, self.most = 0, 0, most

    def __call__(self, network: Any, rows: Sequence[Asked], *others: Any, **named: Any) -> list[Generated]:
        if len(rows) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.rows, self.batches = self.rows + len(rows), self.batches + 1
        return generate(network, rows, *others, **named)


def test_an_answer_is_the_same_in_any_batch_and_beside_any_other_text(folder: Path, tmp_path: Path) -> None:
    found = []
    for number, (budget, asked) in enumerate([(64, tasks(10)), (4000, tasks(10)), (900, tasks(30)[::-1])]):
        with Ledger(tmp_path / f"{number}.db") as ledger:
            found.append(made(folder, ledger, asked, token_budget=budget))
    outcomes = Counter(chain.rewrites[-1].outcome for chain in found[0].values())
    # Both kinds of end are met, and second rewrites.
    assert outcomes["ok"]
    assert outcomes["truncated"]
    assert any(len(chain.rewrites) == 2 for chain in found[0].values())
    assert found[0] == found[1]
    assert {name: found[2][name] for name in found[0]} == found[0]


def test_what_is_in_the_ledger_is_not_generated_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path / "whole.db") as ledger:
        whole = made(folder, ledger, tasks(12))
    requests = sum(len(chain.rewrites) for chain in whole.values())
    path = tmp_path / "cut.db"
    with Ledger(path) as ledger:
        monkeypatch.setattr(local, "generate", counted := Counted())
        config = LocalModel(path=str(folder), temperature=2.0, max_tokens=60, token_budget=200)
        client = LocalClient(config, ledger)
        growing = ChatRewriter(TEMPLATE, client, client).chains(tasks(12), 2)
        # Left in the middle, as a run that is stopped leaves it.
        for _ in range(4):
            next(growing)
        growing.close()
        before = counted.rows
        assert 0 < ledger.totals().answered <= before < requests
        kept = ledger.totals().answered
    with Ledger(path) as ledger:
        monkeypatch.setattr(local, "generate", counted := Counted())
        assert made(folder, ledger, tasks(12)) == whole
        assert counted.rows == requests - kept
        assert ledger.totals().answered == requests
        assert ledger.totals().cost == 0.0
        monkeypatch.setattr(local, "generate", Counted(most=0))
        assert made(folder, ledger, tasks(12)) == whole


def test_where_memory_runs_out_batches_are_halved(
    folder: Path, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(folder, ledger, tasks(12))
    with Ledger(tmp_path / "again.db") as other:
        monkeypatch.setattr(local, "generate", counted := Counted(most=3))
        assert made(folder, other, tasks(12)) == whole
        assert counted.batches > 1
    with Ledger(tmp_path / "none.db") as other:
        monkeypatch.setattr(local, "generate", Counted(most=0))
        with pytest.raises(ModelError, match="does not fit into memory"):
            made(folder, other, tasks(12))


def test_draws_differ_and_a_seed_repeats_them(folder: Path, tmp_path: Path) -> None:
    asked = [Task(one.unit, draw) for one in tasks(3) for draw in range(2)]

    def texts(seed: int) -> list[str | None]:
        with Ledger(tmp_path / f"{seed}-{len(list(tmp_path.iterdir()))}.db") as ledger:
            client = LocalClient(LocalModel(path=str(folder), temperature=2.0, max_tokens=20), ledger, seed)
            requests = [client.request([Message("user", one.unit.response)], one.draw) for one in asked]
            found = {request.key: answer.text for request, answer in client.run(requests)}  # type: ignore[union-attr]
            return [found[request.key] for request in requests]

    first = texts(0)
    assert len(set(first)) == 6
    assert texts(0) == first
    assert not set(texts(1)) & set(first)


def test_a_text_that_leaves_no_room_for_an_answer_fails_alone(folder: Path, ledger: Ledger) -> None:
    # The shape reads 128 tokens; the instruction takes some twenty of them.
    long = Task(Unit(Prompt.of_text("p"), " ".join(WORDS[:90] + WORDS[:20]), True))
    found = made(folder, ledger, [*tasks(2), long])
    [failed] = [chain for chain in found.values() if chain.task == long]
    assert [rewrite.outcome for rewrite in failed.rewrites] == ["failed"]
    assert "tokens; the model has room for 128 in all" in failed.rewrites[0].detail
    assert ledger.totals().failed == 1


def test_a_chat_template_is_asked_as_its_options_say(folder: Path, ledger: Ledger, tmp_path: Path) -> None:
    place = tmp_path / "chatty"
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    tokenizer = word_tokenizer()
    tokenizer.chat_template = (
        "{{ bos_token }} {{ messages[0]['content'] }}{% if loud %} w1 w1{% endif %}"
        "{% if add_generation_prompt %} w2{% endif %}"
    )
    tokenizer.save_pretrained(place)
    lengths = {}
    for options in ({}, {"loud": True}):
        config = LocalModel(path=str(place), max_tokens=5, template_options=options)
        client = LocalClient(config, ledger)
        [(request, answer)] = client.run([client.request([Message("user", "w7 w8 w9")])])
        assert isinstance(answer, Answer)
        lengths[request.key] = answer.prompt_tokens
    # BOS once, three words, and where the model's turn begins.
    assert list(lengths.values()) == [5, 7]


def test_a_chat_template_that_refuses_is_named(folder: Path, ledger: Ledger, tmp_path: Path) -> None:
    place = tmp_path / "refusing"
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('only tools here') }}"
    tokenizer.save_pretrained(place)
    client = LocalClient(LocalModel(path=str(place)), ledger)
    with pytest.raises(ModelError, match="only tools here"):
        list(client.run([client.request([Message("user", "w7")])]))


def test_the_name_is_that_of_the_weights_and_settings(folder: Path, ledger: Ledger, tmp_path: Path) -> None:
    def name(place: Path, **options: Any) -> str:
        client = LocalClient(LocalModel(path=str(place), **options), ledger)
        return ChatRewriter(TEMPLATE, client, client).name

    elsewhere = tmp_path / "copy" / folder.name
    elsewhere.mkdir(parents=True)
    for file in folder.iterdir():
        (elsewhere / file.name).write_bytes(file.read_bytes())
    assert name(elsewhere, token_budget=100) == name(folder)
    config = json.loads((elsewhere / "config.json").read_text())
    (elsewhere / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    others = [name(elsewhere), name(folder, temperature=0.0), name(folder, max_tokens=9)]
    others += [name(folder, precision="bfloat16")]
    assert len({name(folder), *others}) == 5


# --- from the command line ---------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", "runs")
    stories = [
        "Lily had a red ball.",
        "Tom saw a big dog in the park. They ran and played all day long, and it was fun.",
    ]
    rows = [{"prompt": f"Tell story {n}.", "completion": f"{stories[n % 2]} Her number is {n}."} for n in range(8)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


REWRITE = ["audit", "rewrite", "--attribute", "words", "--data", "data.jsonl"]


def test_a_real_model_rewrites_and_every_outcome_is_recorded(here: Path, shared: Path) -> None:
    model = str(shared / "models/stories260k")
    assert main([*REWRITE, "--rewriter", model, "--rewriter.max_tokens", "12", "--run", "first"]) == 0
    chains = list(read_jsonl(here / "runs/first/rewrites.jsonl"))
    assert len(chains) == 8
    # The model tells stories and never ends one: cut off, so not used, and nothing is asked of what is not there.
    assert all(chain["meta"]["outcomes"] == ["truncated"] for chain in chains)
    about = read_json(here / "runs/first/audit.json")
    assert about["rewriter"].startswith("stories260k@")
    assert about["counts"]["outcomes"] == {"truncated": 8}
    with Ledger(here / "runs/ledger/ledger.sqlite") as ledger:
        assert ledger.totals().answered == 8
        assert ledger.totals().completion_tokens == 8 * 12


@pytest.mark.slow
def test_one_command_audits_with_a_local_rewriter(here: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--rewriter.path", str(folder), "--rewriter.temperature", "2", "--rewriter.max_tokens", "90"]
    run = [*REWRITE, *words, "--model", "rule:length_words", "--run", "whole", "--rewrites_per_response", "3"]
    assert main(["audit", "run", *run[2:]]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "The report: runs/whole/report.html"
    chains = list(read_jsonl(here / "runs/whole/steps/rewrite/rewrites.jsonl"))
    assert len(chains) == 24
    assert sum(len(chain["completions"]) == 3 for chain in chains) >= 2


def test_what_a_judge_will_cost_is_asked_before_anything_is_computed(
    here: Path, folder: Path, server: Loopback, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    (here / "asked.yaml").write_text(
        "treated: {measure: words, above: median}\nhigh: longer\nlow: shorter\nnoun: response\n"
        "judge: Is this response long?\n"
    )
    words = ["--template", "asked.yaml", "--data", "data.jsonl", "--rewriter", str(folder), "--judge", server.url]
    assert main(["audit", "rewrite", *words, "--judge.model", "some-model"]) == 2
    said = capsys.readouterr().err
    assert "At most 24 requests to some-model" in said
    assert "--yes" in said
    with Ledger(here / "runs/ledger/ledger.sqlite") as ledger:
        assert ledger.totals() == Totals()
    assert not server.seen()["tries"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--rewriter", "./nowhere"], "no such folder"),
        (["--rewriter", "x", "--rule", "length"], "expected one rewriter, not rewriter and rule"),
        (["--rewriter", "x", "--rewriter.temperature", "0", "--rewrites_per_response", "2"], "temperature above 0"),
        (["--rewriter", "x", "--rewriter.device", "cuda:77"], "a device of this machine"),
        (["--rewriter", "reward"], "no weights for lm_head.weight"),
    ],
)
def test_bad_settings_are_named(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    network_of("llama").save_pretrained(here / "reward")
    word_tokenizer().save_pretrained(here / "reward")
    assert main([*REWRITE, *words]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
