"""Heads that other libraries wrote, and classifiers of several labels: always compared with plain transformers."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import FLAT_SHAPES, SHAPES, word_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from rewardlab.errors import ModelError
from rewardlab.models.loading import load_reward_model
from rewardlab.models.reward import RewardModel, grouped
from rewardlab.records import Prompt

PROMPT, COMPLETIONS = "w1 w2 w3 w4 ", ["w5 w6", "w7", "w8 w9 w10 w11", "w5"]


def rewards(model: RewardModel) -> list[float]:
    with torch.no_grad():
        encoded = model.encode([Prompt.of_text(PROMPT)], [COMPLETIONS])[0]
        return model([grouped(encoded)]).tolist()


def ids() -> list[torch.Tensor]:
    return [torch.tensor([word_tokenizer()(PROMPT + text)["input_ids"]]) for text in COMPLETIONS]


# --- labels --------------------------------------------------------------------------------------------------------

NAMES = {0: "bad", 1: "good", 2: "odd"}


def classifier(shape: str, folder: Path) -> Any:
    fields = dict((SHAPES | FLAT_SHAPES)[shape])
    names = {"id2label": NAMES, "label2id": {name: index for index, name in NAMES.items()}}
    config = AutoConfig.for_model(fields.pop("model_type"), **names, **fields)
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_config(config).eval()
    network.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return network


@pytest.mark.parametrize("layout", ["auto", "flat"])
@pytest.mark.parametrize(("shape", "shared"), [("llama", True), ("gpt2", True), ("mistral", False), ("bert", False)])
@pytest.mark.parametrize(("label", "column"), [("good", 1), ("2", 2), (0, 0)])
def test_the_chosen_label_is_the_logit_of_transformers(
    shape: str, shared: bool, label: Any, column: int, layout: Any, tmp_path: Path
) -> None:
    network = classifier(shape, tmp_path)
    model = load_reward_model(tmp_path, label=label, layout=layout)
    assert model.layout == ("shared" if shared and layout == "auto" else "flat")
    with torch.no_grad():
        expected = [network(input_ids=one).logits[0, column].item() for one in ids()]
    assert rewards(model) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (None, r"3 labels: 0 \(bad\), 1 \(good\), 2 \(odd\).*--label"),
        ("Good", r"label: found 'Good'; expected an index or a name .*0 \(bad\), 1 \(good\), 2 \(odd\)"),
        (3, "found 3"),
        ("-1", "found '-1'"),
    ],
)
def test_several_labels_and_no_choice_are_listed(label: Any, expected: str, tmp_path: Path) -> None:
    classifier("llama", tmp_path)
    with pytest.raises(ModelError, match=expected):
        load_reward_model(tmp_path, label=label)


def test_a_name_counts_before_an_index(tmp_path: Path) -> None:
    """Stars from 1 to 5 are such names."""
    classifier("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    names = {"id2label": {"0": "1", "1": "2", "2": "3"}, "label2id": {"1": 0, "2": 1, "3": 2}}
    (tmp_path / "config.json").write_text(json.dumps(config | names))
    assert load_reward_model(tmp_path, label="1").label == 0
    assert load_reward_model(tmp_path, label=1).label == 1, "a number is an index"
    assert load_reward_model(tmp_path, label="0").label == 0


def test_an_output_that_no_classifier_has(tmp_path: Path) -> None:
    classifier("llama", tmp_path)
    with pytest.raises(ModelError, match=r"output: found 'score'; expected logits.*--trust_remote_code"):
        load_reward_model(tmp_path, label=0, output="score")


# --- heads of other libraries --------------------------------------------------------------------------------------


@pytest.fixture(params=["llama", "gpt2", "opt"])
def causal(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """A causal language model without a head, and its folder."""
    fields = dict(SHAPES[request.param])
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields)).eval()
    network.save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    return network, tmp_path / "model"


WEIGHT = torch.linspace(-1, 1, 32)[None]
BIAS = torch.tensor([0.75])


def by_hand(network: Any, bias: torch.Tensor | None, *, eos: bool = False) -> list[float]:
    """As TRL and OpenRLHF compute it: the head on the last hidden state of the last token, which OpenRLHF's is EOS."""
    end = torch.full((1, int(eos)), word_tokenizer().eos_token_id)
    texts = [torch.cat([one, end], dim=1) for one in ids()]
    with torch.no_grad():
        states = [network(input_ids=one, output_hidden_states=True).hidden_states[-1][0, -1] for one in texts]
    return [(WEIGHT @ state).item() + (bias.item() if bias is not None else 0.0) for state in states]


def add(folder: Path, file: str = "model.safetensors", **tensors: torch.Tensor) -> None:
    path = folder / file
    weights = load_file(path) if path.exists() else {}
    named = {name.replace("__", "."): tensor.clone() for name, tensor in tensors.items()}
    save_file(weights | named, path, metadata={"format": "pt"})


@pytest.mark.parametrize("layout", ["auto", "flat"])
@pytest.mark.parametrize("kind", ["trl", "llama-factory", "openrlhf", "openrlhf-score"])
def test_a_causal_checkpoint_with_a_head(causal: tuple[Any, Path], kind: str, layout: Any) -> None:
    network, folder = causal
    if kind == "trl":
        add(folder, v_head__summary__weight=WEIGHT, v_head__summary__bias=BIAS)
    elif kind == "llama-factory":
        add(folder, "value_head.safetensors", v_head__summary__weight=WEIGHT, v_head__summary__bias=BIAS)
    else:
        add(folder, **{"value_head__weight" if kind == "openrlhf" else "score__weight": WEIGHT})
    model = load_reward_model(folder, layout=layout)
    assert model.layout == ("shared" if layout == "auto" else "flat")
    expected = by_hand(network, None if kind.startswith("openrlhf") else BIAS, eos=kind == "openrlhf")
    assert rewards(model) == pytest.approx(expected, abs=1e-5)


def test_a_head_in_shards(tmp_path: Path) -> None:
    fields = dict(SHAPES["llama"])
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields)).eval()
    network.save_pretrained(tmp_path, max_shard_size="30KB")
    word_tokenizer().save_pretrained(tmp_path)
    add(tmp_path, "model-extra.safetensors", v_head__summary__weight=WEIGHT, v_head__summary__bias=BIAS)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"] |= dict.fromkeys(["v_head.summary.weight", "v_head.summary.bias"], "model-extra.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert rewards(load_reward_model(tmp_path)) == pytest.approx(by_hand(network, BIAS), abs=1e-5)


def test_an_adapter_with_a_head_beside_it(tmp_path: Path) -> None:
    """What LLaMA-Factory leaves after training a reward model with LoRA."""
    fields = dict(SHAPES["llama"])
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields)).eval()
    network.save_pretrained(tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False)).eval()
        adapted.save_pretrained(tmp_path / "adapter")
    add(tmp_path / "adapter", "value_head.safetensors", v_head__summary__weight=WEIGHT, v_head__summary__bias=BIAS)
    expected = by_hand(adapted, BIAS)
    assert rewards(load_reward_model(tmp_path / "adapter")) == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(by_hand(network, BIAS), abs=1e-3)


def test_a_head_keeps_its_own_precision(causal: tuple[Any, Path]) -> None:
    """TRL keeps it in float32 above a half-precision backbone."""
    network, folder = causal
    network.to(torch.bfloat16).save_pretrained(folder)
    add(folder, v_head__summary__weight=WEIGHT, v_head__summary__bias=BIAS)
    auto, half = (load_reward_model(folder, precision=precision) for precision in ("auto", "bfloat16"))
    assert (auto.network.score.weight.dtype, half.network.score.weight.dtype) == (torch.float32, torch.bfloat16)
    assert {weight.dtype for weight in auto.network.base_model.parameters()} == {torch.bfloat16}


def pickle_head(folder: Path, name: str = "value_head.bin") -> None:
    torch.save({"v_head.summary.weight": WEIGHT, "v_head.summary.bias": BIAS}, folder / name)


def pickle_all(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no head": (lambda _: None, r"no trained head \(missing: score.weight\).*rewardlab train reward"),
    "a pickled head": (pickle_head, r"value_head.bin, a pickle, which is not read.*weights_only=True.*value_head.safe"),
    "a head in TRL's pickle": (lambda folder: pickle_head(folder, "pytorch_model.bin"), "pytorch_model.bin, a pickle"),
    "everything in a pickle": (pickle_all, r"(?s)cannot be loaded.*weights_only=True"),
    "a head of another width": (
        lambda folder: add(folder, v_head__summary__weight=torch.ones(1, 31)),
        r"does not fit.*v_head.summary.weight.*weight \[1, 31\]; expected weight \[outputs, 32\]",
    ),
    "a bias of another width": (
        lambda folder: add(folder, v_head__summary__weight=WEIGHT, v_head__summary__bias=torch.ones(3)),
        r"bias \[3\]",
    ),
    "two heads": (
        lambda folder: add(folder, v_head__summary__weight=WEIGHT, value_head__weight=WEIGHT),
        r"does not have: value_head.weight",
    ),
    "a trained head and another": (
        lambda folder: add(folder, score__weight=WEIGHT, v_head__summary__weight=WEIGHT),
        r"does not have: v_head.summary.weight",
    ),
    "a broken head file": (
        lambda folder: (folder / "value_head.safetensors").write_bytes(b"hello") and None,
        "cannot be read",
    ),
    "several outputs": (
        lambda folder: add(folder, value_head__weight=WEIGHT.repeat(3, 1)),
        r"3 labels: 0 \(LABEL_0\).*--label",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_head_that_cannot_be_used_is_one_clear_error(name: str, tmp_path: Path) -> None:
    fields = dict(SHAPES["llama"])
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    network.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    break_it, expected = BROKEN[name]
    break_it(tmp_path)
    with pytest.raises(ModelError, match=f"(?s){expected}"):
        load_reward_model(tmp_path)


@pytest.mark.parametrize("name", ["value_head__weight", "score__weight"])
def test_a_head_with_several_outputs_and_a_choice(causal: tuple[Any, Path], name: str) -> None:
    network, folder = causal
    add(folder, **{name: torch.cat([torch.zeros(2, 32), WEIGHT])})
    expected = by_hand(network, None, eos=name == "value_head__weight")
    assert rewards(load_reward_model(folder, label=2)) == pytest.approx(expected, abs=1e-5)


# --- code that comes with the model --------------------------------------------------------------------------------

GATED = '''
from dataclasses import dataclass
from typing import Optional

import torch
from torch import nn
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput


@dataclass
class GatedOutput(ModelOutput):
    rewards: Optional[torch.Tensor] = None
    logits: Optional[torch.Tensor] = None
    score: Optional[torch.Tensor] = None


class GatedReward(LlamaPreTrainedModel):
    """Gated objectives, in the manner of ArmoRM: the gate is read where the answer begins."""

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, 3, bias=False)
        self.gating = nn.Linear(config.hidden_size, 3)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **options):
        if self.config.pad_token_id is None and len(input_ids) > 1:
            raise ValueError("Cannot handle batch sizes > 1 if no padding token is defined.")
        hidden = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        places = (input_ids == 6).int().argmax(dim=1)
        if (places == 0).any():
            raise ValueError("Token pattern not found in the list.")
        gates = torch.softmax(self.gating(hidden[torch.arange(len(hidden)), places]), dim=-1)
        # Whatever the padding is, the last column is read.
        rewards = self.regression_layer(hidden[:, -1])
        return GatedOutput(rewards=rewards, logits=rewards, score=(gates * rewards).sum(-1))
'''


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like that of ArmoRM: a Llama whose classifier is code of its own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    folder = tmp_path / "gated"
    folder.mkdir()
    fields = {key: value for key, value in SHAPES["llama"].items() if key != "model_type"}
    config = AutoConfig.for_model("llama", **fields)
    namespace: dict[str, Any] = {"__name__": "gated_reward"}
    exec(compile(GATED, "gated_reward.py", "exec", dont_inherit=True), namespace)
    torch.manual_seed(0)
    namespace["GatedReward"](config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    (folder / "gated_reward.py").write_text(GATED)
    values = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoModelForSequenceClassification": "gated_reward.GatedReward"}}
    (folder / "config.json").write_text(json.dumps(values | code | {"architectures": ["GatedReward"]}))
    return folder


@pytest.mark.parametrize("output", ["score", "rewards"])
def test_code_of_its_own_is_run_as_its_author_runs_it(gated: Path, output: str) -> None:
    network: Any = AutoModelForSequenceClassification.from_pretrained(gated, trust_remote_code=True).eval()
    with torch.no_grad():
        values = [network(one)[output] for one in ids()]
    expected = [value.item() if output == "score" else value[0, 2].item() for value in values]
    label = None if output == "score" else 2
    if output == "rewards":
        values_in = json.loads((gated / "config.json").read_text())
        (gated / "config.json").write_text(json.dumps(values_in | {"id2label": {"0": "a", "1": "b", "2": "c"}}))
    for pad_id in (0, None):
        config = json.loads((gated / "config.json").read_text())
        (gated / "config.json").write_text(json.dumps(config | {"pad_token_id": pad_id}))
        model = load_reward_model(gated, trust_remote_code=True, output=output, label=label)
        assert (model.layout, model.fallback) == ("flat", "its own code says what is read")
        assert rewards(model) == pytest.approx(expected, abs=1e-5)


def test_code_is_run_by_flag_alone(gated: Path) -> None:
    (gated / "gated_reward.py").write_text("raise SystemError('it ran')")
    with pytest.raises(ModelError, match=r"(?s)no trained head.*code of its own.*--trust_remote_code"):
        load_reward_model(gated)
    with pytest.raises(ModelError, match="it ran"):
        load_reward_model(gated, trust_remote_code=True)


@pytest.mark.parametrize(
    ("output", "prompt", "expected"),
    [
        ("logits", PROMPT, r"logits of shape \[1, 3\].*--label"),
        ("preference", PROMPT, r"found rewards, logits, score; expected an output called preference"),
        ("score", "w9 ", r"GatedReward: found ValueError: Token pattern not found.*cut off"),
    ],
)
def test_what_its_own_code_does_not_give(gated: Path, output: str, prompt: str, expected: str) -> None:
    model = load_reward_model(gated, trust_remote_code=True, output=output)
    encoded = model.encode([Prompt.of_text(prompt)], [["w9"]])[0]
    with pytest.raises(ModelError, match=expected):
        model([grouped(encoded)])


def test_weights_are_checked_in_code_of_its_own_too(gated: Path, tmp_path: Path) -> None:
    shutil.copytree(gated, tmp_path / "cut")
    weights = load_file(gated / "model.safetensors")
    del weights["gating.weight"]
    save_file(weights, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing: gating\.weight"):
        load_reward_model(tmp_path / "cut", trust_remote_code=True, output="score")
