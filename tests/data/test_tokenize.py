"""The text → ids contract, on tokenizers of several kinds: real ones and ones made here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small_models import BOS, EOS, PAD, UNK, word_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rewardlab.data.tokenize import Encoded, Encoder, Encoding
from rewardlab.errors import ConfigError, ModelError
from rewardlab.records import Message, Prompt

BOS_ID, EOS_ID = 1, 2
CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ ' <' + message['role'] + '> ' + message['content'] + ' ' }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def llama_like(**options: Any) -> PreTrainedTokenizerFast:
    """BOS before every text, no EOS."""
    return word_tokenizer(**options)


def bert_like() -> PreTrainedTokenizerFast:
    """[CLS] text [SEP], and no EOS of its own."""
    return word_tokenizer("<s> $A </s>", bos_token=None, eos_token=None, cls_token=BOS, sep_token=EOS)


def ends_in_eos() -> PreTrainedTokenizerFast:
    """BOS text EOS, as in RoBERTa and T5."""
    return word_tokenizer("<s> $A </s>")


def bare() -> PreTrainedTokenizerFast:
    """No special token before or after a text, but an EOS, as in GPT-2."""
    return word_tokenizer("$A", bos_token=None)


KINDS = {"llama": llama_like, "bert": bert_like, "roberta": ends_in_eos, "bare": bare}


def encode(tokenizer: Any, prompt: str | Prompt, completion: str, **rules: Any) -> Encoded:
    asked = Prompt.of_text(prompt) if isinstance(prompt, str) else prompt
    return Encoder(tokenizer, Encoding(**rules)).encode([asked], [[completion]])[0][0]


def conversation(*turns: str) -> Prompt:
    roles = ("user", "assistant")
    return Prompt(tuple(Message(roles[number % 2], turn) for number, turn in enumerate(turns)))


# --- the plain sequence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("prompt", "completion"), [("w1 w2", " w3"), ("w1", "w2"), ("", "w3 w3"), ("w1 ", "")])
def test_ids_are_the_tokenizers_own_on_the_whole_text(kind: str, prompt: str, completion: str) -> None:
    tokenizer = KINDS[kind]()
    assert (
        list(encode(tokenizer, prompt, completion, append_eos=False).ids) == tokenizer(prompt + completion)["input_ids"]
    )


def test_prompt_and_completion_are_never_tokenised_apart() -> None:
    assert encode(llama_like(), "w1 w", "2").ids == encode(llama_like(), "w1 w2", "").ids


REAL_TEXTS = [
    "Hello world",
    " leading",
    "trailing ",
    "\n\nHuman: hi\n\nAssistant:",
    "naïve 🦙 日本",
    "a\tb",
    "''",
    "<",
    "x" * 300,
]


@pytest.mark.parametrize("folder", ["gpt2-tokenizer", "stories260k"])
def test_real_tokenizers_give_their_own_ids(shared: Path, folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / folder)
    for text in REAL_TEXTS:
        own = tokenizer(text)["input_ids"]
        for cut in (0, 1, len(text) // 2, len(text)):
            assert list(encode(tokenizer, text[:cut], text[cut:], append_eos=False).ids) == own, text
        assert list(encode(tokenizer, text, "").ids) == [*own, tokenizer.eos_token_id], text


def test_lengths_are_of_the_uncut_texts_without_special_tokens() -> None:
    one = encode(llama_like(), "w1 w2 w3", " w4 w5", max_tokens=8)
    assert (one.prompt_tokens, one.completion_tokens, one.truncated) == (3, 2, False)
    long = encode(llama_like(), "w1 " * 50, "w4 " * 30, max_tokens=8)
    assert (long.prompt_tokens, long.completion_tokens, long.truncated) == (50, 30, True)


# --- special tokens once -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("append_eos", [True, False])
def test_special_tokens_stand_there_once(kind: str, append_eos: bool) -> None:
    tokenizer = KINDS[kind]()
    ids = encode(tokenizer, "w1", " w2", append_eos=append_eos).ids
    assert ids.count(BOS_ID) == (0 if kind == "bare" else 1)
    has_eos = kind in ("bert", "roberta") or (append_eos and tokenizer.eos_token_id is not None)
    assert ids.count(EOS_ID) == int(has_eos)
    assert (ids[-1] == EOS_ID) == has_eos


@pytest.mark.parametrize("completion", ["w2", f"w2 {EOS}", f"w2 {EOS} {EOS} {EOS}"])
def test_a_sequence_ends_in_exactly_one_eos(completion: str) -> None:
    assert encode(llama_like(), "w1 ", completion).ids == encode(llama_like(), "w1 ", "w2").ids
    assert encode(llama_like(), "w1 ", completion).ids[-2:] == (llama_like()("w2")["input_ids"][-1], EOS_ID)


def test_a_chat_template_that_writes_bos_gets_no_second_one() -> None:
    tokenizer = llama_like(chat_template=CHAT)
    prompt = conversation("w1", "w2", "w3")
    messages = [*(message.as_dict() for message in prompt.messages), {"role": "assistant", "content": "w4"}]
    own = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)

    ids = encode(tokenizer, prompt, "w4").ids
    assert list(ids) == own
    assert ids[0] == BOS_ID
    assert ids.count(BOS_ID) == 1
    assert ids[-1] == EOS_ID
    assert ids[-2] != EOS_ID
    # What a second pass through the tokenizer does, and why nothing is tokenised from templated text elsewhere:
    doubled = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False))["input_ids"]
    assert doubled[:2] == [BOS_ID, BOS_ID]


def test_a_chat_template_is_complete() -> None:
    """One that writes no BOS means none, as `apply_chat_template(tokenize=True)` does."""
    tokenizer = llama_like(chat_template=CHAT.replace("{{ bos_token }}", ""))
    assert BOS_ID not in encode(tokenizer, conversation("w1"), "w2").ids


def test_a_plain_text_does_not_meet_the_chat_template() -> None:
    assert encode(llama_like(chat_template=CHAT), "w1", " w2").ids == encode(llama_like(), "w1", " w2").ids


def test_a_text_that_brings_its_bos_gets_no_second_one() -> None:
    assert encode(llama_like(), f"{BOS} w1", " w2").ids == encode(llama_like(), "w1", " w2").ids
    assert encode(bert_like(), f"{BOS} w1", f" w2 {EOS}").ids == encode(bert_like(), "w1", " w2").ids


# --- truncation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("words", [1, 5, 6, 7, 8, 9, 40])
def test_only_the_body_is_cut(kind: str, side: str, words: int) -> None:
    tokenizer = KINDS[kind]()
    text = " ".join(f"w{number}" for number in range(words))
    rules: dict[str, Any] = {"truncation_side": side}
    whole = encode(tokenizer, text, "", max_tokens=1000, **rules)
    cut = encode(tokenizer, text, "", max_tokens=8, **rules)
    assert cut.truncated == (len(whole.ids) > 8)
    assert len(cut.ids) == min(len(whole.ids), 8)
    special = {BOS_ID, EOS_ID}
    assert [token for token in cut.ids if token in special] == [token for token in whole.ids if token in special]
    body, kept = ([token for token in one.ids if token not in special] for one in (whole, cut))
    assert kept == (body[len(body) - len(kept) :] if side == "left" else body[: len(kept)])


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_special_tokens_of_a_template_survive_the_cut(side: str) -> None:
    ids = encode(
        llama_like(chat_template=CHAT), conversation("w1 " * 30), "w2 " * 30, max_tokens=8, truncation_side=side
    ).ids
    assert len(ids) == 8
    assert (ids[0], ids[-1]) == (BOS_ID, EOS_ID)
    assert ids.count(EOS_ID) == 1


def test_left_truncation_keeps_the_answer_and_right_truncation_the_prompt() -> None:
    tokenizer = llama_like()
    prompt, answer = "w1 w1 w1 w1 w1 w1 w1 w1 ", "w2 w2 w2"
    own = tokenizer.convert_tokens_to_ids(["w1", "w2"])
    left = encode(tokenizer, prompt, answer, max_tokens=8).ids
    right = encode(tokenizer, prompt, answer, max_tokens=8, truncation_side="right").ids
    assert [left.count(token) for token in own] == [3, 3]
    assert [right.count(token) for token in own] == [6, 0]


# --- hostile and odd texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("append_eos", [True, False])
def test_an_empty_text_still_has_something_to_read(kind: str, append_eos: bool) -> None:
    tokenizer = KINDS[kind]()
    one = encode(tokenizer, "", "", append_eos=append_eos)
    assert one.ids
    assert one.ids[-1] != tokenizer.pad_token_id
    assert (one.prompt_tokens, one.completion_tokens, one.truncated) == (0, 0, False)


def test_lone_surrogates_become_question_marks(shared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "gpt2-tokenizer")
    assert encode(tokenizer, "a \ud83d b", "\udc80").ids == encode(tokenizer, "a ? b", "?").ids


def test_the_order_of_prompts_and_candidates_is_kept() -> None:
    encoder = Encoder(llama_like(), Encoding())
    prompts = [Prompt.of_text(f"w{number} ") for number in range(5)]
    completions = [[f"w{10 * number + k}" for k in range(number)] for number in range(5)]
    found = encoder.encode(prompts, completions)
    assert [len(candidates) for candidates in found] == [0, 1, 2, 3, 4]
    for prompt, texts, candidates in zip(prompts, completions, found, strict=True):
        assert candidates == [encode(llama_like(), prompt, text) for text in texts]
    assert encoder.encode([], []) == []
    plain = encoder.sequences(prompts, completions)
    assert plain == [[(one.ids, one.truncated, one.types) for one in candidates] for candidates in found]


def test_sequences_alone_cost_no_more_than_their_own_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training needs no lengths: prompt and completion are not tokenised on their own."""
    encoder = Encoder(llama_like(), Encoding())
    asked: list[str] = []
    once = encoder._ids

    def counted(texts: Sequence[str]) -> list[list[int]]:
        asked.extend(texts)
        return once(texts)

    monkeypatch.setattr(encoder, "_ids", counted)
    encoder.sequences([Prompt.of_text("w1 ")], [["w2", "w3"]])
    assert asked == ["w1 w2", "w1 w3"]


def test_braces_in_the_data_are_no_fields() -> None:
    rules = {"template": "Q: {prompt} A: {completion}"}
    tokenizer = byte_like()
    ids = encode(tokenizer, "{completion} {0} {prompt!r}", "{prompt}{{x}}", **rules).ids
    assert tokenizer.decode(ids) == "Q: {completion} {0} {prompt!r} A: {prompt}{{x}}"


@pytest.mark.parametrize(
    "template", ["{prompt}", "{completion}", "{completion}{prompt}", "{prompt}{prompt}{completion}", ""]
)
def test_a_template_needs_both_fields_once_in_order(template: str) -> None:
    with pytest.raises(ConfigError, match="template"):
        Encoding.build({"template": template})


def byte_like() -> PreTrainedTokenizerFast:
    """Every byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def test_a_tokenizer_without_any_special_token() -> None:
    one = encode(byte_like(), "ab", "c")
    assert byte_like().decode(one.ids) == "abc"
    assert len(encode(byte_like(), "", "").ids) == 1


def test_a_tokenizer_whose_special_tokens_change_the_text_is_refused() -> None:
    class Reversing:
        """The text's ids come back in another order once special tokens are asked for."""

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [9, 3, 2, 1] if add_special_tokens else [1, 2, 3]}

    with pytest.raises(ModelError, match="fast tokenizer"):
        Encoder(Reversing(), Encoding())


def test_a_normalizer_that_prepends_is_part_of_the_text() -> None:
    """As SentencePiece does with its underscore: once for the whole text, not once for each part."""
    tokenizer = llama_like()
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend("w7 ")
    assert encode(tokenizer, "w1 ", "w2", append_eos=False).ids == tuple(tokenizer("w1 w2")["input_ids"])


def test_special_names_are_those_of_the_tokenizer() -> None:
    """The test tokenizers are what they say."""
    tokenizer = llama_like()
    assert tokenizer.convert_tokens_to_ids([PAD, BOS, EOS, UNK]) == [0, 1, 2, 3]


# --- text pairs ----------------------------------------------------------------------------------------------------


def pair_like(pair: str, **options: Any) -> PreTrainedTokenizerFast:
    tokenizer = word_tokenizer(**options)
    ids = [(BOS, 1), (EOS, 2)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", pair=pair, special_tokens=ids
    )
    return tokenizer


@pytest.mark.parametrize("append_eos", [True, False])
@pytest.mark.parametrize(
    "pair",
    [f"{BOS} $A {EOS} $B:1 {EOS}:1", f"{BOS} $A {EOS} {EOS} $B {EOS}", "$A $B:1", f"$A {EOS} $B:1 {EOS}:1 {BOS}:2"],
)
def test_text_pairs_are_what_the_tokenizer_makes_of_two_texts(pair: str, append_eos: bool) -> None:
    """Those of BERT, RoBERTa, a tokenizer without special tokens, and XLNet."""
    tokenizer = pair_like(pair, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    for question, answer in (("w1 w2", "w3"), ("", "w1 w1 w1"), ("w5", "unknown words")):
        own = tokenizer([question], [answer])
        one = encode(tokenizer, question, answer, form="pair", append_eos=append_eos)
        ids, types = own["input_ids"][0], own["token_type_ids"][0]
        added = append_eos and ids[-1:] != [tokenizer.eos_token_id]
        assert list(one.ids) == ids + [tokenizer.eos_token_id] * added
        assert list(one.types)[: len(types)] == types
        assert (one.truncated, one.prompt_tokens) == (False, len(question.split()))


def test_a_tokenizer_without_segment_ids_gives_none() -> None:
    tokenizer = pair_like(f"{BOS} $A {EOS} $B {EOS}")
    assert encode(tokenizer, "w1", "w2", form="pair").types == ()


def test_a_tokenizer_that_knows_no_pairs() -> None:
    with pytest.raises(ModelError, match=r"cannot read text pairs.*\n.*another form"):
        Encoder(pair_like(f"{BOS} $B {EOS} $A"), Encoding(form="pair"))


def test_an_answer_alone() -> None:
    one = encode(bert_like(), "w1 w2", "w3", form="answer", append_eos=False)
    assert list(one.ids) == bert_like()("w3")["input_ids"]
    assert (one.prompt_tokens, one.completion_tokens, one.types) == (2, 1, ())
