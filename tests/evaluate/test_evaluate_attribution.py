"""`evaluate attribution`: its numbers from known matrices, what it says without Inseq, and Inseq itself where it is."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import WORDS, config_of, word_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from rewardlab.errors import DataError, MissingExtraError
from rewardlab.evaluate.attribution import AttributionEvaluation
from rewardlab.report.attribution import evaluate_attribution
from rewardlab.store.files import read_json
from rewardlab.store.runs import Run


def run_in(root: Path, **values: Any) -> dict[str, Any]:
    config = AttributionEvaluation.build({"model": "m", "device": "cpu", **values})
    with Run.create(config, verb="evaluate attribution", name="attribution", root=root) as run:
        evaluate_attribution(config, run)
    found: dict[str, Any] = read_json(root / "attribution/attribution.json")
    return found


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    texts = [
        {"prompt": " ".join(WORDS[n : n + 2]), "completion": f" {WORDS[40 + n]} {WORDS[50 + n]}"} for n in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in texts))
    return path


def test_without_inseq_the_install_line_is_said(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inseq", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rewardlab\[attribution\]'"):
        run_in(tmp_path, completions=str(rows))


def test_shares_are_those_of_the_matrices(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompt tokens and two written ones: the first has all of its mass on the prompt, the second 3/4 or 1/4."""
    asked: list[tuple[str, str]] = []

    class Model:
        is_encoder_decoder = False

        def attribute(self, prompt: str, text: str, show_progress: bool) -> Model:
            asked.append((prompt, text))
            return self

        def aggregate(self) -> Any:
            second = [1.5, 1.5, 1.0] if len(asked) % 2 else [0.5, 0.5, 3.0]
            nan = float("nan")
            matrix = np.array([[1.0, second[0]], [-1.0, second[1]], [nan, second[2]], [nan, nan]])
            one = types.SimpleNamespace(target_attributions=matrix, source_attributions=None, attr_pos_start=2)
            return types.SimpleNamespace(sequence_attributions=[one])

    fake = types.SimpleNamespace(load_model=lambda *_, **__: Model())
    monkeypatch.setitem(sys.modules, "inseq", fake)
    found = run_in(tmp_path, completions=str(rows), template="human-bot")
    assert asked[0] == ("<human>: w0 w1\n<bot>:", "<human>: w0 w1\n<bot>: w40 w50")
    share, _ = found["estimates"]
    # By response (1 + 3/4)/2 and (1 + 1/4)/2, three of each.
    assert share["value"] == pytest.approx(0.75)
    assert (share["n"], share["clusters"]) == (12, 6)
    assert [(point["token"], point["prompt_share"]["value"]) for point in found["along"]] == [(1, 1.0), (2, 0.5)]
    assert found["along"][0]["entropy"]["value"] == pytest.approx(np.log(2.0))


def test_nothing_to_attribute_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": " ", "completion": "w1"}\n')
    model = types.SimpleNamespace(is_encoder_decoder=False)
    monkeypatch.setitem(sys.modules, "inseq", types.SimpleNamespace(load_model=lambda *_, **__: model))
    with pytest.raises(DataError, match="nothing to attribute"):
        run_in(tmp_path, completions=str(tmp_path / "rows.jsonl"))


def saved(kind: str, loader: Any, folder: Path) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loader.from_config(config_of(kind), dtype=torch.float32).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def test_inseq_itself(rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("inseq", reason="needs inseq (the attribution extra)")
    model = saved("llama", AutoModelForCausalLM, tmp_path / "model")
    found = run_in(tmp_path, model=model, completions=str(rows))
    # Nothing but the prompt stands before the first token; the second has one of its own before it.
    first, second = found["along"]
    assert first["prompt_share"]["value"] == pytest.approx(1.0)
    assert 0.0 < second["prompt_share"]["value"] < 1.0
    assert second["entropy"]["value"] < np.log(4.0)


def test_inseq_on_an_encoder_decoder(rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("inseq", reason="needs inseq (the attribution extra)")
    model = saved("t5", AutoModelForSeq2SeqLM, tmp_path / "model")
    found = run_in(tmp_path, model=model, completions=str(rows))
    # Two words and the end; the token that the decoder begins with stands before each and is not the prompt's.
    assert [point["token"] for point in found["along"]] == [1, 2, 3]
    assert all(0.0 < point["prompt_share"]["value"] < 1.0 for point in found["along"])
    # The prompt's three tokens, that beginning and the tokens so far share the mass.
    for point, sources in zip(found["along"], (4, 5, 6), strict=True):
        assert point["entropy"]["value"] < np.log(sources)
