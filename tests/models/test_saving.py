"""A saved folder against plain transformers: single, padded on the right, padded on the left; merged adapters."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import BOS, EOS, FLAT_SHAPES, SHAPES, word_tokenizer
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewardlab.data.tokenize import Encoding
from rewardlab.models.card import model_card, usage
from rewardlab.models.loading import load_reward_model, new_reward_model, save_reward_model
from rewardlab.models.reward import PromptForm, RewardModel, form_warning, grouped
from rewardlab.models.source import LoRA, ModelSource
from rewardlab.models.tiny import train_tokenizer
from rewardlab.records import Message, Prompt

TOLERANCE = 1e-5
"""Of max(1, |reward|), in fp32."""
PROMPTS = [Prompt.of_text("w1 w2 w3 "), Prompt.of_text("w4 ")]
COMPLETIONS = [["w5", "w6 w7 w8 w9", "w5 w5"], ["w10 w11 w12 w13 w14 w15", "w16"]]
SIDES = ("single", "right", "left")
CAUSAL = ["llama-grouped-query", "gpt2", "opt", "gpt-neox", "qwen3"]


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    word_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def fresh(shape: str, tokenizer: Path, encoding: Encoding | None = None, **options: Any) -> RewardModel:
    fields = {key: value for key, value in (SHAPES | FLAT_SHAPES)[shape].items() if not key.endswith("_token_id")}
    source = ModelSource(shape=fields, tokenizer=str(tokenizer))
    return new_reward_model(source, encoding or Encoding(max_tokens=64), seed=0, **options).eval()


def saved(model: RewardModel, folder: Path) -> Path:
    save_reward_model(model, folder, card="# card")
    return folder


def ids_of(model: RewardModel) -> list[tuple[int, ...]]:
    return [one.ids for candidates in model.encode(PROMPTS, COMPLETIONS) for one in candidates]


def rewards_of(model: RewardModel) -> Tensor:
    with torch.no_grad():
        return model([grouped(candidates) for candidates in model.encode(PROMPTS, COMPLETIONS)])


def by_transformers(folder: Path, sequences: Sequence[Sequence[int]], side: str) -> Tensor:
    """Logits of the plain checkpoint, as a user of transformers calls it."""
    network: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        if side == "single":
            return torch.cat([network(input_ids=torch.tensor([ids])).logits[0] for ids in sequences])
        batch = tokenizer.pad({"input_ids": [list(ids) for ids in sequences]}, padding_side=side, return_tensors="pt")
        if side == "left":
            # Absolute positions have to be told; rotary ones do not mind.
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return network(**batch).logits[:, 0]


def difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs() / expected.abs().clamp(min=1)).max().item()


@pytest.mark.parametrize("shape", CAUSAL)
def test_transformers_gives_the_same_scores(shape: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    model = fresh(shape, tokenizer_folder)
    folder = saved(model, tmp_path / "model")
    assert model.layout == "shared"
    assert rewards_of(model).std() > 0.01
    for side in SIDES:
        assert difference(by_transformers(folder, ids_of(model), side), rewards_of(model)) <= TOLERANCE, side


def test_the_real_gpt2_tokenizer_has_no_pad_token(shared: Path, tmp_path: Path) -> None:
    """pad = EOS, the usual remedy, would make transformers read the token before EOS."""
    tokenizer = shared / "models" / "gpt2-tokenizer"
    assert AutoTokenizer.from_pretrained(tokenizer).pad_token_id is None
    source = ModelSource(
        shape={"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50257},
        tokenizer=str(tokenizer),
    )
    model = new_reward_model(source, Encoding(max_tokens=64), seed=0).eval()
    folder = saved(model, tmp_path / "model")
    sequences = ids_of(model)
    pad_id = json.loads((folder / "config.json").read_text())["pad_token_id"]

    assert {ids[-1] for ids in sequences} == {model.tokenizer.eos_token_id}
    assert pad_id == AutoTokenizer.from_pretrained(folder).pad_token_id == 50257
    assert all(pad_id not in ids for ids in sequences)
    for side in SIDES:
        assert difference(by_transformers(folder, sequences, side), rewards_of(model)) <= TOLERANCE, side


def test_an_encoder_is_saved_with_its_own_head(tmp_path: Path) -> None:
    """Padding on the left is not what encoders are made for: [CLS] is read at the first place."""
    word_tokenizer("<s> $A </s>", bos_token=None, eos_token=None, cls_token=BOS, sep_token=EOS).save_pretrained(
        tmp_path / "tokenizer"
    )
    source = ModelSource(
        shape={"model_type": "bert", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64},
        tokenizer=str(tmp_path / "tokenizer"),
    )
    model = new_reward_model(source, Encoding(max_tokens=64), seed=0).eval()
    folder = saved(model, tmp_path / "model")
    assert (model.layout, model.fallback) == ("flat", "bert is not a causal backbone")
    for side in ("single", "right"):
        assert difference(by_transformers(folder, ids_of(model), side), rewards_of(model)) <= TOLERANCE, side
    assert difference(rewards_of(load_reward_model(folder)), rewards_of(model)) <= TOLERANCE


@pytest.mark.parametrize("taken", ["eos_token", "bos_token", "unk_token"])
def test_a_pad_token_that_can_be_read_is_replaced(taken: str, tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.pad_token = getattr(tokenizer, taken)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    # Without an EOS at the end any token may be the last one, an unknown word for example.
    model = fresh("llama", tmp_path / "tokenizer", Encoding(max_tokens=64, append_eos=False))
    read = model.encode([Prompt.of_text("w1 ")], [["unheard"]])[0][0].ids[-1]
    assert read == model.tokenizer.unk_token_id
    assert model.tokenizer.pad_token_id == 100
    assert model.network.config.pad_token_id == 100
    folder = saved(model, tmp_path / "model")
    for side in SIDES:
        assert difference(by_transformers(folder, ids_of(model), side), rewards_of(model)) <= TOLERANCE


def test_the_folder_is_plain_and_says_how_it_was_used(tokenizer_folder: Path, tmp_path: Path) -> None:
    encoding = Encoding(max_tokens=33, truncation_side="right", append_eos=False, template="{prompt}#{completion}")
    folder = saved(fresh("llama", tokenizer_folder, encoding), tmp_path / "model")
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "rewardlab.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert "rewardlab" not in json.dumps(config)
    assert load_reward_model(folder).encoding == encoding
    assert load_reward_model(folder, encoding=Encoding(max_tokens=9)).encoding.max_tokens == 9


def test_prompts_of_another_form_than_those_of_training_warn_once(
    tokenizer_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = fresh("llama-grouped-query", tokenizer_folder)
    model.prompt_form = "conversation"
    loaded = load_reward_model(saved(model, tmp_path / "model"))
    talk = Prompt((Message("user", "w1 w2"),))
    loaded.encode([talk], [["w3"]])
    assert caplog.text == ""
    loaded.encode(PROMPTS, COMPLETIONS)
    loaded.encode(PROMPTS, COMPLETIONS)
    assert caplog.text.count("prompts are plain texts, but the model was trained on conversations") == 1
    unknown = load_reward_model(saved(fresh("llama-grouped-query", tokenizer_folder), tmp_path / "other"))
    caplog.clear()
    unknown.encode([talk, *PROMPTS], [["w3"], *COMPLETIONS])
    assert caplog.text == ""


def test_saving_leaves_the_model_as_it_was(tokenizer_folder: Path, tmp_path: Path) -> None:
    model = fresh("llama", tokenizer_folder)
    before = rewards_of(model)
    saved(model, tmp_path / "model")
    assert torch.equal(rewards_of(model), before)


def test_a_folder_is_replaced_whole_or_not_at_all(tokenizer_folder: Path, tmp_path: Path) -> None:
    model = fresh("llama", tokenizer_folder)
    folder = saved(model, tmp_path / "model")
    (folder / "of an earlier model").touch()
    saved(model, folder)
    assert not (folder / "of an earlier model").exists()

    class Broken:
        def save_pretrained(self, _: Path) -> None:
            raise OSError("no more")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model.tokenizer = Broken()
    with pytest.raises(OSError, match="no more"):
        saved(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "tokenizer"]


def test_seeds_decide_the_new_weights_and_nothing_else_does(tokenizer_folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    one = rewards_of(fresh("llama", tokenizer_folder))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(rewards_of(fresh("llama", tokenizer_folder)), one)


@pytest.mark.parametrize("shape", ["llama-grouped-query", "gpt2"])
def test_adapters_are_merged_on_saving(shape: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = fresh(shape, tokenizer_folder, lora=LoRA(r=2))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert any("score" in name for name in trained), "the head is always trained"
    assert any("lora_A" in name for name in trained)
    untouched = rewards_of(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in trained:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    expected = rewards_of(model)
    assert model.layout == "shared"
    assert difference(expected, untouched) > 0.01

    folder = saved(model, tmp_path / "model")
    assert torch.equal(rewards_of(model), expected), "the adapters stay where they are"
    reloaded = load_reward_model(folder)
    assert difference(rewards_of(reloaded), expected) <= TOLERANCE
    assert difference(by_transformers(folder, ids_of(model), "left"), expected) <= TOLERANCE
    assert not any("lora" in name for name, _ in reloaded.named_parameters())


def test_a_card_shows_hostile_text_as_code() -> None:
    card = model_card(
        base="x`<script>alert(1)</script>",
        data=["a|b\nc"],
        settings={"learning_rate": 1e-5},
        measures={"accuracy": ".7 [.6, .8]"},
        notes=["Cut on the left."],
        use="",
    )
    metadata, _, body = card.removeprefix("---\n").partition("---\n")
    assert "pipeline_tag: text-classification" in metadata
    assert "`x'<script>alert(1)</script>`" in body
    assert "- `a/b c`" in body
    assert "| `accuracy` | `.7 [.6, .8]` |" in body


def code_in(markdown: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", markdown, re.DOTALL | re.MULTILINE)


CHAT = "{% for m in messages %}{{ bos_token + m['content'] }}{% endfor %}{{ end }}"


@pytest.mark.parametrize("is_text", [True, False])
@pytest.mark.parametrize("shape", ["llama-grouped-query", "gpt2", "bert"])
@pytest.mark.parametrize(
    ("encoding", "chat_template"),
    [
        ({}, None),
        ({"append_eos": False}, None),
        ({"template": "Q: {prompt}\nA: {completion}"}, None),
        ({}, CHAT.replace("{{ end }}", "")),
        ({}, CHAT.replace("{{ end }}", "{{ eos_token }}")),
    ],
)
def test_the_lines_of_a_card_give_the_score_of_the_scorer(
    tmp_path: Path, shape: str, encoding: dict[str, Any], chat_template: str | None, is_text: bool
) -> None:
    # What a byte-level tokenizer reads, so that every word of the card counts.
    tokenizer = train_tokenizer(["What is the capital of France? Paris."], vocab_size=300)
    tokenizer.chat_template = chat_template
    if shape == "bert":
        tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = fresh(shape, tmp_path / "tokenizer", Encoding(max_tokens=120, **encoding))
    use = usage(model.encoder, is_text=is_text)
    folder = saved(model, tmp_path / "model")
    ours, plain = (code.replace("path/to/this/folder", str(folder)) for code in code_in(use))
    found: list[dict[str, Any]] = [{}, {}]
    exec(ours, found[0])
    exec(plain, found[1])
    assert found[1]["reward"] == pytest.approx(found[0]["reward"], abs=1e-6)
    # The lines are not the same whatever is written in them: without the last id the reward is another one.
    with torch.no_grad():
        other = found[1]["model"](torch.tensor([found[1]["ids"][:-1]])).logits[0, 0].item()
    assert abs(other - found[0]["reward"]) > 1e-5


def test_the_lines_of_the_documentation_give_the_score_of_the_scorer(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["Name a prime. Where is the river?"], vocab_size=300)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    folder = saved(fresh("llama", tmp_path / "tokenizer", Encoding(max_tokens=120)), tmp_path / "model")
    pages = Path(__file__).resolve().parents[2]
    for page, name in (("README.md", "runs/rm/model"), ("docs/tour.md", "runs/demo/train/model")):
        found: dict[str, Any] = {}
        for code in code_in((pages / page).read_text(encoding="utf-8")):
            exec(code.replace(name, str(folder)), found)
        scorer = found["scorer"]
        text = [found["turn"]] if "turn" in found else "Name a prime.\n"
        answer = "In the north." if "turn" in found else "Seven."
        assert found["reward"] == pytest.approx(scorer([text], [answer])[0], abs=1e-6)
        assert found.get("same", found["reward"]) == pytest.approx(found["reward"], abs=1e-6)


@pytest.mark.parametrize(
    ("given", "trained", "role"),
    [("text", "conversation", "user"), ("both", "conversation", "user"), ("conversation", "text", "text")],
)
def test_a_warning_of_the_form_of_prompts_names_what_mends_it(
    given: PromptForm, trained: PromptForm, role: str
) -> None:
    assert f"--data.prompt_role {role})" in form_warning(given, trained)
    assert form_warning(trained, trained) == form_warning(given, None) == form_warning(given, "both") == ""
