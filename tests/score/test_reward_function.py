"""The manager as other trainers call it: what each of them tells, and what is missing."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import EOS, word_tokenizer
from transformers import GenerationConfig

import rewardlab
from rewardlab.errors import ConfigError, DataError, ModelError
from rewardlab.score.reward_function import RewardFunction, load_rewards

WORDS_TERM = "{words: rule:length_words}"
FACTS = "{words: rule:length_words, tokens: {length: {}, weight: 10}, end: {missing_eos: {}, weight: 1000}}"


def loaded(tmp_path: Path, terms: str, *, tokenizer: bool = True) -> RewardFunction:
    file = tmp_path / "rewards.yaml"
    lines = f"rewards: {terms}\n"
    if tokenizer:
        word_tokenizer().save_pretrained(tmp_path / "policy")
        lines += f"tokenizer: {tmp_path / 'policy'}\n"
    file.write_text(lines)
    return rewardlab.load_rewards(file)


def test_the_public_name() -> None:
    assert rewardlab.load_rewards is load_rewards
    assert "load_rewards" in rewardlab.__all__


# --- TRL -----------------------------------------------------------------------------------------------------------


def test_plain_and_conversational_calls_give_the_weighted_sum(tmp_path: Path) -> None:
    rewards = loaded(tmp_path, FACTS)
    ids = [[5, 6, 2], [5, 6, 7, 8], []]
    means: dict[str, float] = {}
    found = rewards(
        prompts=["a", "a", "b"],
        completions=["w1 w2", "w1 w2 w3 w4", ""],
        completion_ids=ids,
        log_metric=means.__setitem__,
        trainer_state=None,
        answer=["x", "y", "z"],
    )
    assert found == [2 + 30, 4 + 40 - 1000, 0 + 0 - 1000]
    assert means == {"words": 2.0, "tokens": pytest.approx(7 / 3), "end": pytest.approx(-2 / 3)}
    conversations = [[{"role": "user", "content": "a"}]] * 2
    answers = [[{"role": "assistant", "content": text}] for text in ("w1 w2", "w1")]
    assert rewards(conversations, answers, completion_ids=[[5, 6, 2], [5, 2]]) == [32.0, 21.0]


def test_texts_alone_are_whole_and_counted_by_the_tokenizer(tmp_path: Path) -> None:
    assert loaded(tmp_path, FACTS)(["a"], ["w1 w2"]) == [2 + 10 * 3]
    assert loaded(tmp_path, WORDS_TERM, tokenizer=False)(["a"], ["w1 w2"]) == [2.0]


def test_what_a_term_needs_and_is_not_told(tmp_path: Path) -> None:
    rewards = loaded(tmp_path, FACTS, tokenizer=False)
    with pytest.raises(ConfigError, match=r"tokenizer: found nothing.*which token ends"):
        rewards(["a"], ["w1"], completion_ids=[[5, 2]])
    with pytest.raises(ConfigError, match=r"tokenizer: found nothing.*counts tokens"):
        rewards(["a"], ["w1"])


def test_every_trainer_counts_the_end_of_the_same_response(tmp_path: Path) -> None:
    """Two words and an end are three tokens, the target, whoever asks."""
    rewards = loaded(tmp_path, "{length: {length: {target: 3}}}")
    asked = [
        rewards(["w1"], ["w5 w6"], completion_ids=[[9, 10, 2]])[0],
        rewards(["w1"], ["w5 w6"])[0],
        rewards.reward_func([f"w1 w5 w6{EOS}"], ["w1"], [""])["rewards"].item(),
        rewards.compute_score("d", "w5 w6", "g")["score"],
    ]
    assert asked == [1.0] * 4


CHAT = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %} w9{% endif %}{% endfor %}"


def test_all_ends_of_the_checkpoint_and_of_its_chat_template_end_a_response(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(additional_special_tokens=["w9"])
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "policy")
    GenerationConfig(eos_token_id=[2, 8]).save_pretrained(tmp_path / "policy")
    file = tmp_path / "rewards.yaml"
    file.write_text(f"rewards: {{end: {{missing_eos: {{}}}}}}\ntokenizer: {tmp_path / 'policy'}\n")
    rewards, ends = load_rewards(file), [2, 8, 13]
    assert tokenizer.convert_ids_to_tokens(ends) == [EOS, "w4", "w9"]
    assert rewards(["a"] * 4, ["w1"] * 4, completion_ids=[[5, last] for last in (*ends, 7)]) == [0, 0, 0, -1]
    queries = [f"w1 w5 {last}" for last in (EOS, "w4", "w9", "w3")]
    assert rewards.reward_func(queries, ["w1"] * 4, [""] * 4)["rewards"].tolist() == [0, 0, 0, -1]


def test_lists_that_do_not_match(tmp_path: Path) -> None:
    rewards = loaded(tmp_path, FACTS)
    with pytest.raises(DataError, match=r"completions: found 2.*\n.*completion_ids: found 3"):
        rewards(["a"], ["b", "c"], completion_ids=[[1], [2], [3]])
    with pytest.raises(DataError, match="One text"):
        rewards("a", "b")


# --- OpenRLHF ------------------------------------------------------------------------------------------------------


def test_openrlhf_gets_tensors_of_every_term(tmp_path: Path) -> None:
    rewards = loaded(tmp_path, FACTS)
    prompts = ["<s> w1", "<s> w1 w2"]
    queries = [f"<s> w1 w5 w6{EOS}", "<s> w1 w2 w7"]
    found = rewards.reward_func(queries, prompts, ["", ""], extra=1)
    assert found["rewards"].dtype == torch.float32
    assert found["rewards"].tolist() == found["scores"].tolist() == [2 + 10 * 3, 1 + 10 - 1000]
    assert {name: values.tolist() for name, values in found["extra_logs"].items()} == {
        "words": [2.0, 1.0],
        "tokens": [3.0, 1.0],
        "end": [0.0, -1.0],
    }


def test_openrlhf_rewards_are_asked_by_one_thread_at_a_time(tmp_path: Path) -> None:
    rewards = loaded(tmp_path, WORDS_TERM)
    at_once, most = [0], [0]
    term = rewards.manager.loaded["words"]
    inner = term.values

    def slow(responses: Any) -> Any:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        threading.Event().wait(0.02)
        at_once[0] -= 1
        return inner(responses)

    rewards.manager.loaded["words"] = type(term)(term.config, slow, term.words, term.needs_prompt)
    threads = [threading.Thread(target=rewards.reward_func, args=(["p w1"], ["p"], [""])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_query_that_does_not_begin_with_its_prompt(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="query 1: found 'w2 w3'"):
        loaded(tmp_path, WORDS_TERM).reward_func(["w1 w2", "w2 w3"], ["w1", "w1"], ["", ""])
    with pytest.raises(ConfigError, match=r"tokenizer: found nothing.*OpenRLHF"):
        loaded(tmp_path, WORDS_TERM, tokenizer=False).reward_func(["w1 w2"], ["w1"], [""])


# --- verl ----------------------------------------------------------------------------------------------------------


def test_verl_gets_the_score_and_every_term(tmp_path: Path) -> None:
    rewards = loaded(tmp_path, "{words: rule:length_words, tokens: {length: {}, weight: 10}}")
    assert list(inspect.signature(rewards.compute_score).parameters)[:4] == [
        "data_source",
        "solution_str",
        "ground_truth",
        "extra_info",
    ]
    found = rewards.compute_score(
        data_source="d", solution_str="w1 w2", ground_truth="g", extra_info={"question": "Q", "num_turns": 1}, more=2
    )
    assert found == {"score": 32.0, "words": 2.0, "tokens": 3.0}


def test_verl_has_no_prompt_of_its_own(tmp_path: Path) -> None:
    rewards = loaded(tmp_path, WORDS_TERM)
    with pytest.raises(DataError, match="the prompt as one of prompt, question"):
        rewards.compute_score("d", "w1", "g", {"index": 3})
    alone = loaded(tmp_path, "{form: {format: w1}}", tokenizer=False)
    assert alone.compute_score("d", "w1", "g") == {"score": 1.0, "form": 1.0}


def test_verl_does_not_say_whether_a_response_has_ended(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="verl does not tell"):
        loaded(tmp_path, FACTS).compute_score("d", "w1", "g", {"prompt": "Q"})


def test_a_file_without_a_tokenizer_that_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "rewards.yaml"
    file.write_text(f"rewards: {WORDS_TERM}\ntokenizer: {tmp_path / 'nowhere'}\n")
    with pytest.raises(ModelError, match="tokenizer"):
        load_rewards(file)
