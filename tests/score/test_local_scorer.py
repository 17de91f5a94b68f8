"""The scorer in memory: scores depend on nothing but their text; and it is the callable that TRL uses."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import BOS, EOS, network_of, word_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import rewardlab
from rewardlab.data.layout import Group, cost
from rewardlab.data.tokenize import Encoding
from rewardlab.errors import DataError, ModelError
from rewardlab.protocols import Scorer
from rewardlab.records import Message, Prompt
from rewardlab.score.load import load_scorer
from rewardlab.score.local import LocalScorer

TOLERANCE = 1e-5
PROMPTS = [Prompt.of_text(f"w{number} " * (1 + 5 * (number % 4))) for number in range(9)]
COMPLETIONS = [[f"w{number + k} " * (1 + 3 * k) for k in range(number % 5)] for number in range(9)]


@pytest.fixture(scope="module")
def scorer(model_folder: Path) -> LocalScorer:
    return load_scorer(model_folder, device="cpu")


def plain_scores(folder: Path, texts: list[str]) -> list[float]:
    """transformers alone, a text at a time, EOS written by hand."""
    network: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return [
            network(input_ids=torch.tensor([tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]])).logits.item()
            for text in texts
        ]


def test_scores_are_those_of_transformers_in_the_order_given(scorer: LocalScorer, model_folder: Path) -> None:
    found = scorer.score(PROMPTS, COMPLETIONS)
    assert [len(scores) for scores in found] == [len(texts) for texts in COMPLETIONS]
    texts = [
        prompt.messages[0].content + text for prompt, texts in zip(PROMPTS, COMPLETIONS, strict=True) for text in texts
    ]
    assert [score for scores in found for score in scores] == pytest.approx(
        plain_scores(model_folder, texts), abs=TOLERANCE
    )


@pytest.mark.parametrize("layout", ["auto", "flat"])
@pytest.mark.parametrize("budget", [1, 40, 100, 10_000])
def test_a_score_does_not_depend_on_its_batch(
    scorer: LocalScorer, model_folder: Path, layout: Any, budget: int
) -> None:
    """Nor on the budget, the layout, the other candidates or the order: a budget of 1 splits every group."""
    expected = scorer.score(PROMPTS, COMPLETIONS)
    other = load_scorer(model_folder, device="cpu", layout=layout, token_budget=budget)
    for prompts, completions in ((PROMPTS, COMPLETIONS), (PROMPTS[::-1], COMPLETIONS[::-1])):
        found = other.score(prompts, completions)
        if prompts is not PROMPTS:
            found = found[::-1]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, abs=TOLERANCE)
    alone = [
        [other.score([prompt], [[text]])[0][0] for text in texts]
        for prompt, texts in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    for ours, theirs in zip(alone, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)


def test_a_group_larger_than_the_budget_is_split(scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the budget however many candidates a prompt has."""
    sizes = []
    forward = scorer.model.forward
    monkeypatch.setattr(scorer, "budget", 60)
    monkeypatch.setattr(
        scorer.model,
        "forward",
        lambda groups: sizes.append(sum(group.packed_size for group in groups)) or forward(groups),
    )
    prompt, texts = Prompt.of_text("w1 " * 20), [f"w{k} w2 w3" for k in range(30)]
    found = scorer.score([prompt], [texts])[0]
    assert max(sizes) <= 60
    assert len(sizes) > 1
    assert found == pytest.approx([scorer.score([prompt], [[text]])[0][0] for text in texts], abs=TOLERANCE)


def test_one_by_one_is_flat_and_leaves_the_layout(scorer: LocalScorer) -> None:
    encoded = scorer.model.encode(PROMPTS, COMPLETIONS)
    alone = scorer.one_by_one([one for candidates in encoded for one in candidates])
    assert scorer.model.layout == "shared"
    assert alone == pytest.approx(
        [score for scores in scorer.score_encoded(encoded) for score in scores], abs=TOLERANCE
    )


def test_scores_that_are_no_numbers_are_an_error(model_folder: Path) -> None:
    broken = load_scorer(model_folder, device="cpu")
    with torch.no_grad():
        broken.model.network.score.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="nan in float32"):
        broken.score(PROMPTS, COMPLETIONS)


# --- identity ------------------------------------------------------------------------------------------------------


def test_it_is_a_scorer_with_a_name_that_changes_whenever_the_scores_could(model_folder: Path, tmp_path: Path) -> None:
    scorer = load_scorer(model_folder, device="cpu")
    assert isinstance(scorer, Scorer)
    name, _, key = scorer.name.partition("@")
    assert (name, len(key)) == ("small", 12)
    assert scorer.name == load_scorer(model_folder, device="cpu", token_budget=99, layout="flat").name
    assert scorer.name != load_scorer(model_folder, device="cpu", precision="bfloat16").name
    assert scorer.name != load_scorer(model_folder, device="cpu", encoding=Encoding(max_tokens=50)).name

    (tmp_path / "run" / "model").mkdir(parents=True)
    for file in model_folder.iterdir():
        (tmp_path / "run" / "model" / file.name).write_bytes(file.read_bytes())
    assert load_scorer(tmp_path / "run" / "model", device="cpu").name == f"run/model@{key}"


def test_the_name_of_an_adapter_changes_with_its_base(model_folder: Path, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(model_folder, base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = AutoModelForSequenceClassification.from_pretrained(base)
        peft.get_peft_model(network, peft.LoraConfig(task_type="SEQ_CLS", r=2)).save_pretrained(adapter)
    before = load_scorer(adapter, device="cpu").name
    assert before == load_scorer(adapter, device="cpu").name
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] *= 2
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    after = load_scorer(adapter, device="cpu").name
    assert after.partition("@")[0] == before.partition("@")[0] == "adapter"
    assert after != before


# --- as a reward function ------------------------------------------------------------------------------------------


def test_load_scorer_is_at_the_root_of_the_package(model_folder: Path, scorer: LocalScorer) -> None:
    assert rewardlab.load_scorer(model_folder, device="cpu")(["w1 "], ["w2"]) == scorer(["w1 "], ["w2"])
    assert rewardlab.load_scorer is load_scorer


def test_called_with_texts(scorer: LocalScorer) -> None:
    prompts, completions = ["w1 ", "w2 ", "w1 "], ["w3", "w4 w5", "w6"]
    expected = [scorer.score([Prompt.of_text(p)], [[c]])[0][0] for p, c in zip(prompts, completions, strict=True)]
    rewards = scorer(prompts, completions)
    assert rewards == pytest.approx(expected, abs=TOLERANCE)
    assert all(type(reward) is float for reward in rewards)


def test_called_as_trl_calls_it(scorer: LocalScorer) -> None:
    """GRPO: every prompt repeated, messages on both sides, and whatever else the trainer and the data set know."""
    prompts = [[{"role": "user", "content": f"w{number}"}] for number in (1, 1, 2, 2)]
    completions = [[{"role": "assistant", "content": f"w{number}"}] for number in (3, 4, 5, 6)]
    rewards = scorer(
        prompts=prompts,
        completions=completions,
        completion_ids=[[1], [2], [3], [4]],
        trainer_state=object(),
        log_metric=print,
        ground_truth=["a"] * 4,
    )
    expected = [
        scorer.score([Prompt((Message("user", p[0]["content"]),))], [[c[0]["content"]]])[0][0]
        for p, c in zip(prompts, completions, strict=True)
    ]
    assert rewards == pytest.approx(expected, abs=TOLERANCE)
    assert scorer.__name__ == scorer.name


def test_equal_prompts_share_their_prefix_wherever_they_stand(
    scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = scorer.model.forward
    monkeypatch.setattr(scorer.model, "forward", lambda groups: seen.extend(groups) or forward(groups))
    scorer(["w1 ", "w2 ", "w1 "], ["w3", "w3", "w4"])
    assert sorted(len(group.branches) for group in seen) == [1, 2]


def test_prompts_that_differ_only_in_normal_form_are_not_the_same_text(model_folder: Path, tmp_path: Path) -> None:
    """Ids are taken over Unicode normal form C, tokens are not."""
    network = network_of("llama")
    network.save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_tokens(["caf\u00e9"])
    tokenizer.save_pretrained(tmp_path / "model")
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    network.save_pretrained(tmp_path / "model")
    scorer = load_scorer(tmp_path / "model", device="cpu")
    composed, decomposed = "caf\u00e9 ", "cafe\u0301 "
    apart = scorer([composed], ["w1"]) + scorer([decomposed], ["w1"])
    assert abs(apart[0] - apart[1]) > 1e-3
    assert scorer([composed, decomposed], ["w1", "w1"]) == pytest.approx(apart, abs=TOLERANCE)


def test_template_options_are_part_of_the_prompt(model_folder: Path, tmp_path: Path) -> None:
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    template = "{% for message in messages %}{{ message['content'] + ' ' }}{% endfor %}{{ extra }}"
    word_tokenizer(chat_template=template).save_pretrained(tmp_path)
    scorer = load_scorer(tmp_path, device="cpu")
    prompts = [Prompt((Message("user", "w1"),), {"extra": extra}) for extra in ("w2 w3", "w4 w5")]
    one, other = scorer(prompts, ["w6", "w6"])
    assert abs(one - other) > 1e-3
    assert [one, other] == pytest.approx([scorer([prompt], ["w6"])[0] for prompt in prompts], abs=TOLERANCE)


@pytest.mark.parametrize(
    ("prompts", "completions", "expected"),
    [
        (["a"], ["b", "c"], "do not match"),
        ([[{"role": "user"}]], ["b"], "prompt 0"),
        ([["hello"]], ["b"], "prompt 0"),
        (["a", "a"], ["b", []], "completion 1"),
        (["a"], [[{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]], "2 messages"),
        (["a"], [[{"role": "assistant", "content": None}]], "completion 0"),
        ("abc", "def", "prompts: found 'abc'; expected a list"),
        (["abc"], "d", "completions: found 'd'; expected a list"),
        ([1], ["b"], "prompt 0: found 1; expected a text, or a list of messages"),
        ([{"role": "user", "content": "a"}], ["b"], "prompt 0: found {'role'"),
        (["a"], [None], "completion 0: found None; expected a text"),
    ],
)
def test_inputs_of_another_form(scorer: LocalScorer, prompts: Any, completions: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        scorer(prompts, completions)


def test_the_folder_of_a_run_in_place_of_its_model(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "rm/model")
    with pytest.raises(ModelError, match=f"Did you mean {tmp_path}/rm/model"):
        load_scorer(tmp_path / "rm")
    assert load_scorer(tmp_path / "rm/model", device="cpu")(["w1 "], ["w2"])


def test_nothing_to_score(scorer: LocalScorer) -> None:
    assert scorer([], []) == []
    assert scorer.score([], []) == []
    assert scorer.score(PROMPTS[:2], [[], []]) == [[], []]


# --- foreign folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["gpt2", "mistral", "bloom", "bert"])
def test_foreign_folders(shape: str, tmp_path: Path) -> None:
    """A checkpoint of plain transformers is scored as it stands, with no EOS of ours."""
    template = f"{BOS} $A {EOS}" if shape == "bert" else f"{BOS} $A"
    network = network_of(shape)
    network.save_pretrained(tmp_path)
    tokenizer = word_tokenizer(template)
    tokenizer.save_pretrained(tmp_path)
    scorer = rewardlab.load_scorer(tmp_path, device="cpu")
    texts = [f"w{number} " * (number + 1) for number in range(6)]
    with torch.no_grad():
        expected = [network(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits.item() for text in texts]
    assert scorer([""] * 6, texts) == pytest.approx(expected, abs=TOLERANCE)


# --- memory --------------------------------------------------------------------------------------------------------


def short_of_memory(scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """Lets micro-batches of more tokens run out of memory; the tokens of those that ran."""
    forward, ran = scorer.model.forward, []

    def limited(groups: list[Group]) -> torch.Tensor:
        size = cost(groups, shared=scorer.model.layout == "shared")
        if size > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        ran.append(size)
        return forward(groups)

    monkeypatch.setattr(scorer.model, "forward", limited)
    return ran


@pytest.mark.parametrize("layout", ["auto", "flat"])
@pytest.mark.parametrize("tokens", [40, 100])
def test_out_of_memory_halves_the_batch_and_goes_on(
    model_folder: Path, layout: Any, tokens: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = load_scorer(model_folder, device="cpu", layout=layout)
    expected = scorer.score(PROMPTS, COMPLETIONS)
    assert caplog.records == []
    ran = short_of_memory(scorer, monkeypatch, tokens)
    found = scorer.score(PROMPTS, COMPLETIONS)
    assert len(ran) > 1
    assert "--token_budget" in caplog.text
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)


def test_one_sequence_that_does_not_fit_is_a_clear_error(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load_scorer(model_folder, device="cpu")
    short_of_memory(scorer, monkeypatch, 20)
    with pytest.raises(ModelError, match=r"(?s)does not fit into memory.*one sequence of 2\d tokens.*--precision"):
        scorer.score(PROMPTS, COMPLETIONS)


def test_other_errors_are_not_taken_for_memory(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load_scorer(model_folder, device="cpu")

    def wrong(_: list[Group]) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(scorer.model, "forward", wrong)
    with pytest.raises(RuntimeError, match="mat1"):
        scorer.score(PROMPTS, COMPLETIONS)
