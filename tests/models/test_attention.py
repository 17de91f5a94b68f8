"""Packed attention against finite differences, autograd and torch's own kernel."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rewardlab.data.layout import Segment
from rewardlab.models import attention
from rewardlab.models.attention import PackedAttention, packed_attention

SEGMENTS = (Segment(0, 3, (2, 1, 4)), Segment(10, 0, (1, 3)), Segment(14, 5, (2,)))
TOKENS = 21


def random_inputs(dtype: torch.dtype = torch.float64, heads: int = 2, dim: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(1, heads, TOKENS, dim, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for _ in range(3)
    )


def dense_mask(segments: tuple[Segment, ...], tokens: int) -> Tensor:
    """The additive mask over the whole stream that the packed kernel never builds."""
    mask = torch.full((tokens, tokens), float("-inf"), dtype=torch.float64)
    for segment in segments:
        start = segment.start + segment.prefix
        for length in (0, *segment.branches):
            for token in range(start, start + length):
                mask[token, segment.start : segment.start + segment.prefix] = 0
                mask[token, start : token + 1] = 0
            start += length
        for token in range(segment.start, segment.start + segment.prefix):
            mask[token, segment.start : token + 1] = 0
    return mask


@pytest.mark.parametrize("limit", [0, 2**23])
def test_derivatives_are_those_of_finite_differences(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MATRIX_ATTENTION_LIMIT", limit)

    def function(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return PackedAttention(SEGMENTS).attend(query, key, value, 0.7)

    assert torch.autograd.gradcheck(function, random_inputs(), fast_mode=True)


@pytest.mark.parametrize("limit", [0, 40, 2**23])
def test_equal_to_one_dense_masked_call(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 40, some runs are kept for the backward pass and longer ones go to the fused kernel."""
    monkeypatch.setattr(attention, "MATRIX_ATTENTION_LIMIT", limit)
    inputs = random_inputs()
    upstream = torch.randn(1, 2, TOKENS, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = PackedAttention(SEGMENTS).attend(*inputs, 0.7)
    truth = scaled_dot_product_attention(*inputs, attn_mask=dense_mask(SEGMENTS, TOKENS), scale=0.7)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(truth, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_long_rows_are_equal_too() -> None:
    """Longer than any block of queries that an implementation may take at a time."""
    segments = (Segment(0, 150, (140, 1, 290)), Segment(581, 0, (300,)))
    tokens = 881
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(1, 1, tokens, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    upstream = torch.randn(1, 1, tokens, 4, generator=generator, dtype=torch.float64)
    found = PackedAttention(segments).attend(*inputs, 0.5)
    truth = scaled_dot_product_attention(*inputs, attn_mask=dense_mask(segments, tokens), scale=0.5)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(truth, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_scores_far_out_stay_finite() -> None:
    query, key, value = random_inputs(torch.float32)
    output = PackedAttention(SEGMENTS).attend(query * 1e4, key * 1e4, value, 1.0)
    output.sum().backward()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(tensor.grad).all() for tensor in (query, key, value))


@pytest.mark.parametrize("scale", [0.7, None])
def test_grouped_queries_read_the_key_head_of_their_group(scale: float | None) -> None:
    """Without a scale it is the plain kernel's own, 1 / sqrt(head_dim)."""
    query, _, _ = random_inputs(heads=4)
    _, key, value = random_inputs(heads=2)
    output, weights = packed_attention(
        nn.Identity(), query, key, value, None, scaling=scale, packed=PackedAttention(SEGMENTS)
    )
    mask = dense_mask(SEGMENTS, TOKENS)
    truth = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)
    assert weights is None
    torch.testing.assert_close(output, truth.transpose(1, 2), rtol=0, atol=1e-12)


def test_without_a_packed_stream_it_is_the_plain_kernel() -> None:
    query, key, value = random_inputs()
    module = nn.Identity()
    module.is_causal = True
    output, _ = packed_attention(module, query, key, value, None)
    truth = scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(output, truth.transpose(1, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("term", attention.EXTRA_TERMS)
def test_unknown_terms_are_refused(term: str) -> None:
    with pytest.raises(ValueError, match=term):
        packed_attention(
            nn.Identity(), *random_inputs(), None, packed=PackedAttention(SEGMENTS), **{term: torch.ones(1)}
        )


def test_probabilities_are_kept_up_to_the_limit_and_not_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest run (5 + 2 queries over as many keys, 2 heads) decides; the kernel by hand stands aside beyond it."""
    longest = 2 * 7 * 7
    taken = []
    by_hand = attention._MatrixAttention.apply
    monkeypatch.setattr(
        attention._MatrixAttention, "apply", staticmethod(lambda *words: taken.append(limit) or by_hand(*words))
    )
    for limit in (longest - 1, longest, longest + 1):
        monkeypatch.setattr(attention, "MATRIX_ATTENTION_LIMIT", limit)
        PackedAttention(SEGMENTS).attend(*random_inputs(), 0.7)
    assert taken == [longest, longest + 1]


def test_a_run_keeps_at_most_16_mib_for_the_backward_pass() -> None:
    """In bf16 with one head, 2,896 tokens square are the last that fit; about half of them are behind a query."""

    def kept(tokens: int) -> int:
        inputs = [torch.randn(1, 1, tokens, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        sizes = []
        keep = torch.autograd.graph.saved_tensors_hooks(lambda one: sizes.append(one.nbytes) or one, lambda one: one)
        with keep:
            PackedAttention((Segment(0, 0, (tokens,)),)).attend(*inputs, 0.25)
        return sum(sizes)

    assert 8 * 2**20 < kept(2896) <= 16 * 2**20
    assert kept(2897) < 2**20


def test_without_a_backward_pass_no_probabilities_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    softmax = torch.softmax
    made: list[weakref.ref[Tensor]] = []
    alive = []

    def watched(*words: Any, **options: Any) -> Tensor:
        result = softmax(*words, **options)
        made.append(weakref.ref(result))
        alive.append(sum(one() is not None for one in made))
        return result

    monkeypatch.setattr(torch, "softmax", watched)
    attend = PackedAttention(SEGMENTS).attend
    trained = attend(*random_inputs(), 0.7)
    assert alive[-1] == len(made) == 6
    del trained
    made.clear()
    attend(*(one.detach() for one in random_inputs()), 0.7)
    assert len(made) == 6
    assert max(alive[6:]) <= 2
