"""Shared prefixes against transformers itself, called with one plain text at a time: rewards and gradients."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from small_models import FLAT_SHAPES, SHAPES, config_of, network_of, random_group, reward_model_of
from torch import Tensor
from transformers import AutoConfig

from rewardlab.data.layout import Group, pack
from rewardlab.models import attention
from rewardlab.models.reward import Layout, RewardModel
from rewardlab.models.selftest import TOLERANCE, shared_layout_problem

REWARD_TOLERANCE = 1e-5
"""Of max(1, |reward|), in fp32."""
GRADIENT_TOLERANCE = 1e-4
"""Norm of the difference over the norm of the gradient, per tensor, in fp32."""
SMALL_SHARE = 1e-4
"""Gradients below this share of the largest one are compared with that share instead: a key's bias has none at all,
since softmax takes no shift, and what is found there is rounding. So 1e-8 of the largest gradient is let pass."""


def many_groups(seed: int = 0) -> list[Group]:
    """Pairs and K = 5, a prefix of length 0, one-token branches, branches of one token only, identical sequences."""
    generator = torch.Generator().manual_seed(seed)
    groups = [
        random_group(generator, 17, 9, 5),
        random_group(generator, 3, 30, 41),
        random_group(generator, 0, 6, 8),
        random_group(generator, 25, 1, 12),
        random_group(generator, 11, 1, 1),
        random_group(generator, 20, 4, 7, 1, 15, 6),
        random_group(generator, 0, 3),
        random_group(generator, 0, 1, 1),
    ]
    twin = random_group(generator, 8, 6)
    return [*groups, Group(twin.prefix, twin.branches * 2)]


def sequences_of(groups: list[Group]) -> list[tuple[int, ...]]:
    return [sequence for group in groups for sequence in group.sequences()]


def one_by_one(network: Any, groups: list[Group]) -> Tensor:
    """What `AutoModelForSequenceClassification` says to every sequence alone: no mask, no padding, none of our code."""
    return torch.cat([network(input_ids=torch.tensor([ids])).logits[0] for ids in sequences_of(groups)])


def gradients(module: Any, rewards: Tensor) -> dict[str, Tensor]:
    """Gradients of a fixed random combination of the rewards, so that no reward hides behind another."""
    weights = torch.randn(len(rewards), generator=torch.Generator().manual_seed(7))
    module.zero_grad()
    (rewards * weights).sum().backward()
    return {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


def worst_reward(found: Tensor, truth: Tensor) -> float:
    return ((found - truth).abs() / truth.abs().clamp(min=1)).max().item()


def worst_gradient(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    assert set(found) == set(truth)
    floor = SMALL_SHARE * max(gradient.norm().item() for gradient in truth.values())
    return max(((found[name] - truth[name]).norm() / truth[name].norm().clamp(min=floor)).item() for name in truth)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("shape", SHAPES)
def test_rewards_and_gradients_are_those_of_plain_texts(shape: str, implementation: str) -> None:
    groups = many_groups()
    plain = network_of(shape)
    plain.set_attn_implementation(implementation)
    model = reward_model_of(shape, "shared")

    truth = one_by_one(plain, groups)
    rewards = model(groups)

    assert rewards.shape == truth.shape
    assert truth.std() > 0.05, "rewards that hardly differ would hide a wrong layout"
    assert worst_reward(rewards.detach(), truth.detach()) <= REWARD_TOLERANCE
    difference = worst_gradient(gradients(model.network, rewards), gradients(plain, truth))
    assert difference <= GRADIENT_TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fused_kernel_gives_the_same(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MATRIX_ATTENTION_LIMIT", 0)
    groups = many_groups(1)
    plain, model = network_of(shape), reward_model_of(shape, "shared")
    truth, rewards = one_by_one(plain, groups), model(groups)
    assert worst_reward(rewards.detach(), truth.detach()) <= REWARD_TOLERANCE
    difference = worst_gradient(gradients(model.network, rewards), gradients(plain, truth))
    assert difference <= GRADIENT_TOLERANCE


@pytest.mark.parametrize("shape", [*SHAPES, "mistral", "gemma3", "bloom", "bert"])
def test_the_flat_layout_is_exact_too(shape: str) -> None:
    groups = many_groups(2)
    plain, model = network_of(shape), reward_model_of(shape, "flat")
    truth, rewards = one_by_one(plain, groups), model(groups)
    assert worst_reward(rewards.detach(), truth.detach()) <= REWARD_TOLERANCE
    difference = worst_gradient(gradients(model.network, rewards), gradients(plain, truth))
    assert difference <= GRADIENT_TOLERANCE


def test_a_reward_does_not_depend_on_its_company() -> None:
    model = reward_model_of("llama-grouped-query", "shared")
    groups = many_groups(3)
    with torch.no_grad():
        together = model(groups)
        backwards = model(groups[::-1]).split([len(group.branches) for group in groups[::-1]])
        apart = torch.cat([model([group.part([index])]) for group in groups for index in range(len(group.branches))])
    assert worst_reward(together, torch.cat(backwards[::-1])) <= REWARD_TOLERANCE
    assert worst_reward(together, apart) <= REWARD_TOLERANCE


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_gradient_checkpointing_changes_nothing() -> None:
    groups = many_groups(4)
    model = reward_model_of("qwen3", "shared")
    expected = gradients(model.network, model(groups))
    model.network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.network.train()
    difference = worst_gradient(gradients(model.network, model(groups)), expected)
    assert difference <= 1e-6


# --- bfloat16 -----------------------------------------------------------------------------------------------------


def bf16(model: RewardModel, groups: list[Group]) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(groups)


def rms(values: Tensor) -> float:
    return values.detach().double().square().mean().sqrt().item()


@pytest.mark.parametrize("shape", SHAPES)
def test_bf16_is_as_exact_as_the_flat_layout(shape: str) -> None:
    """Noise of the flat layout: its rms distance from fp32, the largest over batch compositions (every sequence alone,
    group by group, all together). The difference between two of its compositions is no yardstick: on a CPU products
    round row by row, and it can be 0 by luck. The issue allows three times the noise; the error is about once."""
    generator = torch.Generator().manual_seed(5)
    sizes = torch.randint(1, 40, (20, 3), generator=generator).tolist()
    groups = [random_group(generator, *size) for size in sizes]
    alone = [Group((), (sequence,)) for sequence in sequences_of(groups)]
    flat, shared = reward_model_of(shape, "flat"), reward_model_of(shape, "shared")

    with torch.no_grad():
        truth = flat(groups)
        batchings = [torch.cat([bf16(flat, [group]) for group in one]) for one in (alone, groups)]
        batchings.append(bf16(flat, groups))
        noise = max(rms(rewards - truth) for rewards in batchings)
        found = bf16(shared, groups)

    assert noise > 1e-4, "in bf16 something is rounded"
    assert rms(found - truth) <= 1.5 * noise
    assert max(rms(found - rewards) for rewards in batchings) <= 3 * noise

    exact = gradients(flat.network, flat(groups))
    rounded = gradients(flat.network, bf16(flat, groups))
    shared_gradients = gradients(shared.network, bf16(shared, groups))
    to_flat, to_exact, flat_to_exact = (
        cosine(shared_gradients, rounded),
        cosine(shared_gradients, exact),
        cosine(rounded, exact),
    )
    # A ReLU near 0 is on in one rounding and off in another: OPT's bf16 gradients are .998 from its own fp32 ones.
    assert to_flat >= (0.995 if shape == "opt" else 0.9999)
    assert 1 - to_exact <= 3 * (1 - flat_to_exact)


@pytest.mark.parametrize("layout", ["shared", "flat"])
def test_in_bf16_rewards_near_3_that_differ_by_004_are_told_apart(layout: Layout) -> None:
    """There, numbers of 8 bits are .016 apart."""
    generator = torch.Generator().manual_seed(6)
    groups = [random_group(generator, 6, 5, 9)]
    model = reward_model_of("llama", layout)
    head: Any = model.network.score
    seen: list[Tensor] = []
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().double()))
    wanted = torch.tensor([3.000, 3.004], dtype=torch.float64)
    with torch.no_grad():
        bf16(model, groups)
        head.weight.copy_((torch.linalg.pinv(seen[0]) @ wanted)[None])
        rewards = bf16(model, groups)
    assert rewards.tolist() == pytest.approx(wanted.tolist(), abs=5e-4)


@pytest.mark.parametrize("layout", ["shared", "flat"])
def test_weights_in_bf16_give_what_transformers_gives(layout: Layout) -> None:
    generator = torch.Generator().manual_seed(6)
    sequence = random_group(generator, 0, 20)
    model, plain = reward_model_of("gpt2", layout).bfloat16(), network_of("gpt2").bfloat16()
    with torch.no_grad():
        expected = plain(input_ids=torch.tensor(sequence.sequences())).logits.float()
        found = model([sequence])
    assert found.item() == pytest.approx(expected.item(), abs=1e-6 if layout == "flat" else 0.02)


def cosine(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    flattened = [torch.cat([side[name].flatten() for name in sorted(side)]).double() for side in (left, right)]
    return torch.nn.functional.cosine_similarity(*flattened, dim=0).item()


# --- visibility ---------------------------------------------------------------------------------------------------


def visible(groups: list[Group]) -> list[list[bool]]:
    """Which token of the stream each token sees, from the definition: same group, not later, prefix or own branch."""
    tokens = []
    for number, group in enumerate(groups):
        tokens += [(number, -1, position) for position in range(len(group.prefix))]
        for branch, ids in enumerate(group.branches):
            tokens += [(number, branch, len(group.prefix) + offset) for offset in range(len(ids))]
    return [
        [theirs[0] == own[0] and theirs[2] <= own[2] and theirs[1] in (-1, own[1]) for theirs in tokens]
        for own in tokens
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("limit", [0, 2**23])
def test_a_token_sees_its_prefix_and_its_own_branch(seed: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random groups: the derivative of output i by value j is the attention of i on j, and is not zero iff i sees j."""
    monkeypatch.setattr(attention, "MATRIX_ATTENTION_LIMIT", limit)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 4, (3,), generator=generator).tolist()
    groups = [
        random_group(
            generator,
            int(torch.randint(0, 5, (), generator=generator)),
            *(torch.randint(1, 5, (count,), generator=generator) + 0).tolist(),
        )
        for count in counts
    ]
    packed = pack(groups)
    tokens = len(packed.ids)
    query, key = (torch.randn(1, 2, tokens, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    value = torch.eye(tokens, dtype=torch.float64).expand(1, 2, tokens, tokens)
    weights = attention.PackedAttention(packed.segments).attend(query, key, value, 1.0)

    expected = torch.tensor(visible(groups))
    assert ((weights != 0) == expected).all()

    scores = (query @ key.transpose(-1, -2)).masked_fill(~expected, float("-inf"))
    torch.testing.assert_close(weights, torch.softmax(scores, dim=-1), rtol=0, atol=1e-12)


def test_changing_a_token_changes_the_reads_that_see_it() -> None:
    """Through a whole model, not only its attention."""
    generator = torch.Generator().manual_seed(11)
    groups = [random_group(generator, 3, 2, 4), random_group(generator, 0, 2, 1, 3), random_group(generator, 4, 1)]
    model = reward_model_of("llama", "shared")
    sees = torch.tensor(visible(groups))[torch.from_numpy(pack(groups).reads)]
    with torch.no_grad():
        before = model(groups)
        for token in range(sees.shape[1]):
            after = model(with_another_token(groups, token))
            assert torch.equal((after - before).abs() > 1e-5, sees[:, token]), f"token {token}"


def with_another_token(groups: list[Group], place: int) -> list[Group]:
    changed = []
    for group in groups:
        parts = []
        for part in (group.prefix, *group.branches):
            inside = 0 <= place < len(part)
            parts.append((*part[:place], part[place] % 90 + 5, *part[place + 1 :]) if inside else part)
            place -= len(part)
        changed.append(Group(parts[0], tuple(parts[1:])))
    return changed


# --- the self-test ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_the_self_test_passes_right_backbones(shape: str) -> None:
    assert shared_layout_problem(config_of(shape), 128) == ""


@pytest.mark.parametrize("shape", FLAT_SHAPES)
def test_the_self_test_refuses_wrong_backbones(shape: str) -> None:
    assert shared_layout_problem(config_of(shape), 128).startswith(config_of(shape).model_type)


@pytest.mark.parametrize("shape", ["mistral", "gemma3"])
def test_forced_onto_a_sliding_window_rewards_would_be_wrong(shape: str) -> None:
    """What the self-test guards against, and that it is far above its tolerance."""
    groups = many_groups()
    with torch.no_grad():
        difference = worst_reward(reward_model_of(shape, "shared")(groups), one_by_one(network_of(shape), groups))
    assert difference > 100 * TOLERANCE


def test_a_window_as_long_as_the_rows_is_no_window() -> None:
    assert shared_layout_problem(config_of("mistral"), 16) == ""
    assert shared_layout_problem(config_of("mistral"), 17) != ""


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("gpt_oss", {"num_local_experts": 4, "head_dim": 8, "sliding_window": 4096}),
        ("gemma2", {"head_dim": 8, "sliding_window": 4096}),
    ],
)
def test_attention_with_terms_of_its_own_is_refused(model_type: str, fields: dict[str, Any]) -> None:
    """Attention sinks and capped scores: with small random weights the cap is invisible, so it is refused by name."""
    config = AutoConfig.for_model(
        model_type,
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **fields,
    )
    assert "not plain softmax attention" in shared_layout_problem(config, 64)


def test_the_self_test_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    config = config_of("llama")
    before = config.to_dict()
    with caplog.at_level(logging.WARNING):
        shared_layout_problem(config, 64)
    assert torch.equal(torch.rand(3), expected)
    assert config.to_dict() == before
    assert not caplog.records
