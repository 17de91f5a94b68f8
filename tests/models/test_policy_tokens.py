"""Tokens of completions one by one, and critics, by transformers alone."""

from __future__ import annotations

import pytest
import torch
from small_models import EOS, SHAPES, config_of, network_of, random_group, reward_model_of, word_tokenizer
from transformers import AutoModelForCausalLM

from rewardlab.data.layout import Group, share_prompt
from rewardlab.data.turns import PolicyEncoding
from rewardlab.models.attention import IMPLEMENTATION
from rewardlab.models.critic import Critic, head_on
from rewardlab.models.policy import PolicyModel
from rewardlab.models.reward import Layout

TEMPERATURE = 0.7


def policy_of(shape: str, layout: Layout, *, plain_head: bool = True) -> PolicyModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.float32).eval()
    if layout == "shared":
        network.set_attn_implementation(IMPLEMENTATION)
    encoding = PolicyEncoding(max_prompt_tokens=32, max_completion_tokens=32)
    return PolicyModel(
        network, word_tokenizer(eos_token=EOS), encoding, layout=layout, plain_head=plain_head, temperature=TEMPERATURE
    )


def groups() -> list[Group]:
    """Two prompts; two completions of the first begin alike, and one has a single token."""
    generator = torch.Generator().manual_seed(1)
    prompt, *endings = (random_group(generator, length, 1).prefix for length in (5, 4, 2, 6))
    first = share_prompt(prompt, [endings[0], endings[0][:3] + endings[1], endings[0][:3] + endings[2]])
    return [first, share_prompt(endings[1], [endings[2][:1]])]


def expected(model: PolicyModel) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Log-probabilities, entropies and states of every completion, a sequence at a time."""
    found = []
    for group in groups():
        for sequence in group.sequences():
            outputs = model.network(input_ids=torch.tensor([sequence]), output_hidden_states=True)
            before = slice(group.start - 1, len(sequence) - 1)
            ahead = torch.distributions.Categorical(logits=outputs.logits[0, before] / TEMPERATURE)
            ids = torch.tensor(sequence[group.start :])
            found.append((ahead.log_prob(ids), ahead.entropy(), outputs.hidden_states[-1][0, before]))
    return found


@pytest.mark.parametrize(("layout", "plain_head"), [("shared", True), ("flat", True), ("flat", False)])
def test_tokens_are_those_of_transformers(layout: Layout, plain_head: bool) -> None:
    model = policy_of("llama-grouped-query", layout, plain_head=plain_head)
    found = model.tokens(groups(), entropies=True)
    plain = policy_of("llama-grouped-query", "flat")
    logs, spread, states = (torch.cat(parts) for parts in zip(*expected(plain), strict=True))
    torch.testing.assert_close(found.log_probabilities, logs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.entropies, spread, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.states, states, rtol=1e-4, atol=1e-4)
    sums = torch.stack([part.sum() for part, *_ in expected(plain)])
    torch.testing.assert_close(model(groups()), sums, rtol=1e-4, atol=1e-4)


def test_the_entropy_has_the_gradient_of_plain_logits() -> None:
    model = policy_of("gpt2", "shared")
    found = model.tokens(groups(), entropies=True).entropies
    assert found is not None
    found.sum().backward()
    weight = model.network.get_input_embeddings().weight
    plain = policy_of("gpt2", "flat")
    sum(spread.sum() for _, spread, _ in expected(plain)).backward()  # type: ignore[union-attr]
    other = plain.network.get_input_embeddings().weight
    torch.testing.assert_close(weight.grad, other.grad, rtol=1e-3, atol=1e-4)


def test_a_head_on_the_policy_begins_at_0_and_reads_the_state_before_a_token() -> None:
    model = policy_of("llama", "shared")
    critic = head_on(model)
    states = model.tokens(groups()).states
    assert torch.equal(critic(groups(), states), torch.zeros(len(states)))
    torch.nn.init.normal_(critic.head.weight, generator=torch.Generator().manual_seed(2))
    values = torch.cat([state @ critic.head.weight[0] for *_, state in expected(policy_of("llama", "flat"))])
    torch.testing.assert_close(critic(groups(), states), values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["shared", "flat"])
def test_a_critic_of_its_own_is_a_reward_model_that_reads_every_token(layout: Layout) -> None:
    """Its value before a token is the reward of what stands before it."""
    assert "llama" in SHAPES
    model = reward_model_of("llama", layout)
    critic = Critic(model.network.score, model)
    values = critic(groups(), torch.empty(0))
    plain = network_of("llama")
    rewards = [
        plain(input_ids=torch.tensor([sequence[:end]])).logits[0, 0]
        for group in groups()
        for sequence in group.sequences()
        for end in range(group.start, len(sequence))
    ]
    torch.testing.assert_close(values, torch.stack(rewards), rtol=1e-4, atol=1e-4)
