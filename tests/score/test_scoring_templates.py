"""Scoring templates: the loading code is the real one, the models are small ones of the same architectures, and the
truth is what each model's card does with transformers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published_models import ANSWERS, QUESTION, deberta, distilbert, llama_3
from scoring_data import Score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from rewardlab import load_scorer
from rewardlab.cli.main import main
from rewardlab.data.tokenize import Encoding
from rewardlab.errors import ConfigError, ModelError
from rewardlab.records import Message, Prompt
from rewardlab.score.local import LocalScorer
from rewardlab.score.score import ScorerOptions
from rewardlab.score.template import ScoringTemplate, read_template, templates
from rewardlab.store.keys import content_key

NAMES = ["armorm", "deberta", "distilbert_negative", "distilbert_positive", "fsfairx", "offsetbias"]


def scorer_of(folder: Path, template: str | Path, **options: Any) -> LocalScorer:
    scorer = load_scorer(folder, template=template, device="cpu", precision="float32", **options)
    assert isinstance(scorer, LocalScorer)
    return scorer


def parts(folder: Path) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()


def ids_of(scorer: LocalScorer, prompt: str | Prompt = QUESTION) -> list[list[int]]:
    asked = Prompt.of_text(prompt) if isinstance(prompt, str) else prompt
    return [list(one.ids) for one in scorer.model.encode([asked], [ANSWERS])[0]]


# --- the shipped ones ----------------------------------------------------------------------------------------------


def test_the_shipped_templates_are_those_of_the_specification() -> None:
    assert list(templates()) == NAMES
    assert {name: template.model for name, template in templates().items()} == {
        "armorm": "RLHFlow/ArmoRM-Llama3-8B-v0.1",
        "deberta": "OpenAssistant/reward-model-deberta-v3-large-v2",
        "distilbert_negative": "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        "distilbert_positive": "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        "fsfairx": "sfairXC/FsfairX-LLaMA3-RM-v0.1",
        "offsetbias": "NCSOFT/Llama-3-OffsetBias-RM-8B",
    }
    assert read_template("sfairxc") is read_template("fsfairx")
    assert read_template("ncsoft") is read_template("offsetbias")
    assert [name for name in NAMES if templates()[name].needs_own_code] == ["armorm"]
    assert all(field.description for field in ScoringTemplate.model_fields.values())


@pytest.mark.parametrize("template", ["fsfairx", "sfairxc", "offsetbias", "ncsoft"])
def test_a_llama_reward_model_as_on_its_card(template: str, tmp_path: Path) -> None:
    """The card takes the template's BOS away, since the pipeline adds one; the score is the raw logit."""
    llama_3(tmp_path)
    scorer = scorer_of(tmp_path, template)
    tokenizer, network = parts(tmp_path)
    chats = [[{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}] for text in ANSWERS]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False).replace(tokenizer.bos_token, "") for chat in chats]
    expected = [tokenizer(text)["input_ids"] for text in texts]
    assert ids_of(scorer) == expected
    assert all(ids.count(tokenizer.bos_token_id) == 1 for ids in expected)
    conversation = Prompt((Message("user", QUESTION),))
    assert ids_of(scorer, conversation) == expected, "a text is the one turn of a user"

    card = pipeline("sentiment-analysis", model=network, tokenizer=tokenizer, device="cpu")
    outputs = card(texts, top_k=None, function_to_apply="none", batch_size=1)
    rewards = [output[0]["score"] for output in outputs]
    assert scorer([QUESTION] * 3, ANSWERS) == pytest.approx(rewards, abs=1e-5)
    assert scorer.model.layout == "shared"


@pytest.mark.parametrize("type_vocab_size", [0, 2])
def test_a_text_pair_as_on_the_card_of_the_deberta_model(type_vocab_size: int, tmp_path: Path) -> None:
    deberta(tmp_path, type_vocab_size)
    scorer = scorer_of(tmp_path, "deberta")
    tokenizer, network = parts(tmp_path)
    # Called with one text each, transformers takes an empty answer for no second text at all; in a batch it does not.
    inputs = [tokenizer([QUESTION], [answer], return_tensors="pt") for answer in ANSWERS]
    assert inputs[0]["input_ids"].equal(tokenizer(QUESTION, ANSWERS[0], return_tensors="pt")["input_ids"])
    assert ids_of(scorer) == [one["input_ids"][0].tolist() for one in inputs]
    encoded = scorer.model.encode([Prompt.of_text(QUESTION)], [ANSWERS])[0]
    assert [list(one.types) for one in encoded] == [one["token_type_ids"][0].tolist() for one in inputs]
    with torch.no_grad():
        expected = [network(**one).logits[0].item() for one in inputs]
    assert scorer([QUESTION] * 3, ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert scorer.one_by_one(encoded) == pytest.approx(expected, abs=1e-5)
    for budget in (1, 30, 45):
        split = scorer_of(tmp_path, "deberta", token_budget=budget)
        assert split([QUESTION] * 3, ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert scorer.model.layout == "flat"
    if type_vocab_size:
        with torch.no_grad():
            blind = [network(input_ids=one["input_ids"]).logits[0].item() for one in inputs]
        assert blind != pytest.approx(expected, abs=1e-4), "the segments count in this model"


def test_conversations_as_the_first_of_a_pair(tmp_path: Path) -> None:
    deberta(tmp_path)
    scorer = scorer_of(tmp_path, "deberta")
    assert ids_of(scorer, Prompt((Message("user", QUESTION),))) == ids_of(scorer)
    turns = Prompt((Message("user", "hot"), Message("assistant", "Very"), Message("user", QUESTION)))
    tokenizer, _ = parts(tmp_path)
    transcript = f"\n\nHuman: hot\n\nAssistant: Very\n\nHuman: {QUESTION}\n\nAssistant:"
    assert ids_of(scorer, turns) == tokenizer([transcript] * 3, ANSWERS)["input_ids"]


@pytest.mark.parametrize(("template", "column"), [("distilbert_positive", 1), ("distilbert_negative", 0)])
def test_sentiment_is_the_raw_logit_of_a_class_on_the_answer_alone(template: str, column: int, tmp_path: Path) -> None:
    distilbert(tmp_path)
    scorer = scorer_of(tmp_path, template)
    tokenizer, network = parts(tmp_path)
    assert ids_of(scorer) == [tokenizer(answer)["input_ids"] for answer in ANSWERS]
    with torch.no_grad():
        expected = [network(**tokenizer(text, return_tensors="pt")).logits[0, column].item() for text in ANSWERS]
    assert scorer(["anything", QUESTION, ""], ANSWERS) == pytest.approx(expected, abs=1e-5)

    long = "hot very " * 600
    card = pipeline("sentiment-analysis", model=network, tokenizer=tokenizer, device="cpu")
    (outputs,) = card([long], top_k=None, function_to_apply="none", truncation=True, max_length=512)
    by_label = {output["label"]: output["score"] for output in outputs}
    assert scorer([""], [long])[0] == pytest.approx(by_label[("NEGATIVE", "POSITIVE")[column]], abs=1e-5)
    assert scorer.model.encode([Prompt.of_text("")], [[long]])[0][0].truncated


def test_the_gated_model_runs_its_code_by_flag_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ArmoRM: [user, assistant] through the chat template, and the output called score."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    folder = tmp_path / "armo"
    llama_3(folder)
    (folder / "modeling_custom.py").write_text(ARMO)
    config = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoModelForSequenceClassification": "modeling_custom.Armo"}, "architectures": ["Armo"]}
    labels = {"id2label": {str(number): f"LABEL_{number}" for number in range(19)}, "label2id": {}}
    (folder / "config.json").write_text(json.dumps(config | code | labels))
    with pytest.raises(ModelError, match=r"(?s)brings code of its own.*--trust_remote_code"):
        scorer_of(folder, "armorm")
    scorer = scorer_of(folder, "armorm", trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network: Any = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
    expected = []
    for text in ANSWERS:
        messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            expected.append(network(ids).score.item())
    assert scorer([QUESTION] * 3, ANSWERS) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ModelError, match=r"(?s)no choice of labels.*one number per sequence"):
        scorer_of(folder, "armorm", trust_remote_code=True, label="LABEL_3")([QUESTION], ANSWERS[:1])


def test_a_long_answer_keeps_the_header_that_the_gated_model_looks_for() -> None:
    assert templates()["armorm"].encoding.truncation_side == "right"


ARMO = """
from dataclasses import dataclass
from typing import Optional
import torch
from torch import nn
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput

@dataclass
class Output(ModelOutput):
    logits: Optional[torch.FloatTensor] = None
    score: Optional[torch.FloatTensor] = None

class Armo(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **options):
        hidden = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        lengths = (torch.eq(input_ids, self.config.pad_token_id).int().argmax(-1) - 1) % input_ids.shape[-1]
        score = self.score(hidden[torch.arange(len(hidden)), lengths])[:, 0]
        return Output(logits=torch.zeros(len(hidden), 19), score=2 * score + 1)
"""


# --- truncation, tables, files of the user's -----------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_which_end_of_a_longer_pair_is_cut(side: str, tmp_path: Path) -> None:
    """Left cuts the question first, right the answer; special tokens stay, and so does what is cut last."""
    deberta(tmp_path)
    tokenizer, _ = parts(tmp_path)
    question, answer = "hot things Very Explain", "fusion is like five things hot"
    a, b = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (question, answer))
    start, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert (len(a), len(b)) == (4, 6)
    for length in range(8, 14):
        encoding = Encoding(form="pair", max_tokens=length, truncation_side=side, append_eos=False)
        (one,) = scorer_of(tmp_path, "deberta", encoding=encoding).model.encode([Prompt.of_text(question)], [[answer]])[
            0
        ]
        cut = 13 - length
        left = (a[min(cut, 4) :], b[max(cut - 4, 0) :])
        right = (a[: min(4, 10 - cut)], b[: max(6 - cut, 0)])
        first, second = left if side == "left" else right
        assert list(one.ids) == [start, *first, sep, *second, sep]
        assert list(one.types) == [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert one.truncated == (cut > 0)
        assert (one.prompt_tokens, one.completion_tokens) == (4, 6)


def test_the_score_verb_counts_what_a_template_cuts(score: Score, tmp_path: Path) -> None:
    deberta(tmp_path / "model")
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": QUESTION, "completions": ["hot " * number for number in (3, 600, 20)]}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = score(model=str(tmp_path / "model"), template="deberta", data=data, verify=3)
    assert scored.table["truncated"].to_pylist() == [False, True, False]
    assert scored.summary["truncated"] == 1
    assert scored.summary["encoding"]["form"] == "pair"
    assert scored.summary["verified"]["difference"] <= 1e-5


def test_a_template_of_the_users_own(tmp_path: Path) -> None:
    distilbert(tmp_path / "model")
    own = {"model": str(tmp_path / "model"), "encoding": {"form": "answer", "append_eos": False, "max_tokens": 64}}
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(own | {"label": "POSITIVE"}))
    scorer = load_scorer(template=file, device="cpu")
    assert scorer([""], ["hot"]) == scorer_of(tmp_path / "model", "distilbert_positive")([""], ["hot"])
    chosen = load_scorer(template=file, device="cpu", label="NEGATIVE")
    assert chosen([""], ["hot"]) == scorer_of(tmp_path / "model", "distilbert_negative")([""], ["hot"])
    assert chosen.name != scorer.name, "the label is part of the identity"
    assert chosen.name.partition("@")[0] == f"{tmp_path.name}/model"


def test_the_model_that_a_template_names_is_an_input(tmp_path: Path) -> None:
    """So that a study scores anew when it has been trained anew."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("1")
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({"model": str(tmp_path / "model"), "encoding": {}, "revision": "v1"}))
    options = ScorerOptions.build({"template": str(file)}).pinned()
    assert (options.model, options.revision) == (str(tmp_path / "model"), "v1")
    key = content_key(options.model_dump())
    (tmp_path / "model" / "weights").write_text("2")
    assert content_key(options.model_dump()) != key


@pytest.mark.parametrize("name", ["fsfairx", "sfairxc"])
def test_the_name_of_a_template_will_do_as_a_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = ScorerOptions.build({"model": name}).pinned()
    assert (pinned.model, pinned.template) == ("sfairXC/FsfairX-LLaMA3-RM-v0.1", name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert ScorerOptions.build({"model": name}).pinned().template is None, "a folder of that name is the folder"


def test_the_templates_are_listed_with_those_of_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "templates"]) == 0
    printed = capsys.readouterr().out
    for name, template in templates().items():
        assert f"  {', '.join([name, *template.aliases])}\n    model   {template.model}\n" in printed


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("fsfairxx", 'Did you mean "fsfairx"'),
        ("", "Known: armorm, deberta, .*sfairxc"),
        ("nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_an_unknown_template(template: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_scorer("model", template=template)


def test_all_that_is_wrong_with_a_template_comes_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({"model": "a/b", "encoding": {"form": "poem"}, "prcision": "float32"}))
    with pytest.raises(ConfigError) as caught:
        load_scorer(template=file)
    assert len(caught.value.problems) == 2


def test_a_form_that_the_tokenizer_cannot_do(tmp_path: Path) -> None:
    distilbert(tmp_path)
    with pytest.raises(ModelError, match="no chat template"):
        scorer_of(tmp_path, "distilbert_positive", encoding=Encoding(form="chat", max_tokens=64))
    with pytest.raises(ConfigError, match="either a template or a form"):
        Encoding.build({"template": "{prompt}{completion}", "form": "chat"})


def test_a_model_or_a_template_is_named(score: Score) -> None:
    with pytest.raises(ConfigError, match="a model, a template, or both"):
        score(model=None)
    with pytest.raises(ConfigError, match="a model, a template, or both"):
        load_scorer()
