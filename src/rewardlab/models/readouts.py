"""From hidden states to one reward: what a readout reads of a backbone, and the small networks on top.

Blocks, for vectors of width d (no biases anywhere):

    RMSNorm(x)        g * x / sqrt(mean(x^2) + 1e-6), g learned
    GeGLU(x)          gelu_tanh(W x) * (V x)
    AttnPool({h_c})   sum_c a_c h_c with a = softmax_c(q . h_c); one learned q, no 1/sqrt(d), padding masked out
    AttnGeGLU         RMSNorm, AttnPool, GeGLU
    WeightedPool      sum_l w_l h_l, w free
    Head              [RMSNorm, Linear, gelu_tanh] per hidden size, then Linear to 1

A readout that reads one vector per layer of a sequence has *fixed states*, of shape [sequences, layers, width]: they
can be kept where the backbone is frozen. The others read every token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu

from rewardlab.config import Config

RMS_EPSILON = 1e-6

ReadoutName = Literal[
    "last",
    "mean",
    "layerwise-attention",
    "full-attention",
    "decoder-output",
    "pooled-encoder",
    "pooled-decoder",
]


Backbone = Literal["causal", "encoder", "encoder-decoder"]


class Readout(Config):
    """What of the backbone is read, and what is put on top."""

    text_field: ClassVar[str] = "name"

    name: ReadoutName = "last"
    """last: a linear head as transformers has it. mean, layerwise-attention, full-attention: of every token.
    pooled-encoder: of the last token (causal) or the first one, in several layers. decoder-output, pooled-decoder: of
    the decoder's first position."""

    layers: int = Field(4, ge=1)
    """How many layers are read, from the top; of the readouts that read several."""

    width: int = Field(256, ge=1)
    """Width after attention pooling; of the readouts that have it."""

    hidden: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    """Widths of hidden layers before the reward; none by default."""

    @property
    def is_plain(self) -> bool:
        """Whether the head is transformers' own, and so part of the network."""
        return self.name == "last"


LAST = Readout()
"""The linear head that transformers puts on a backbone: it belongs to the network."""


@dataclass(frozen=True)
class Reads:
    """What a readout reads.

    Attributes:
        of_decoder: of an encoder-decoder's decoder, rather than of its encoder.
        all_tokens: every token of a sequence; else the one token that stands for it.
        several_layers: the last `layers`; else the last alone.
        is_fixed: one vector per layer of a sequence.
    """

    of_decoder: bool = False
    all_tokens: bool = False
    several_layers: bool = False
    is_fixed: bool = True


READS: Mapping[ReadoutName, Reads] = MappingProxyType(
    {
        "last": Reads(),
        "mean": Reads(all_tokens=True),
        "layerwise-attention": Reads(all_tokens=True, several_layers=True, is_fixed=False),
        "full-attention": Reads(all_tokens=True, several_layers=True, is_fixed=False),
        "decoder-output": Reads(of_decoder=True),
        "pooled-encoder": Reads(several_layers=True),
        "pooled-decoder": Reads(of_decoder=True, several_layers=True),
    }
)


class RMSNorm(nn.Module):
    """Scale alone, in the precision of its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, values: Tensor) -> Tensor:
        """Shape [..., width], unchanged."""
        return nn.functional.rms_norm(values, self.weight.shape, self.weight, RMS_EPSILON)


class AttnPool(nn.Module):
    """Attention of one learned query, whose values are the vectors themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Scores of normed vectors are of order 1.
        self.query = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """One vector per set.

        Args:
            values: shape [sets, members, width], or [1, members, width] for sets out of one stream.
            mask: which members belong to a set, shape [sets, members]; None is all. No set is empty.

        Returns:
            Shape [sets, width].
        """
        scores = values @ self.query
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return weighted(torch.softmax(scores, dim=-1), values)


def weighted(weights: Tensor, values: Tensor) -> Tensor:
    """sum over members of weight times value, shape [sets, width].

    Args:
        weights: shape [sets, members].
        values: shape [sets, members, width], or [1, members, width] for sets out of one stream.
    """
    if len(values) == 1:
        return weights @ values[0]
    return torch.bmm(weights[:, None], values)[:, 0]


class GeGLU(nn.Module):
    """gelu_tanh(W x) * (V x)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.gate = nn.Linear(inputs, outputs, bias=False)
        self.value = nn.Linear(inputs, outputs, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        gated: Tensor = gelu(self.gate(values), approximate="tanh") * self.value(values)
        return gated


class AttnGeGLU(nn.Module):
    """A set of vectors to one of another width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = RMSNorm(inputs)
        self.pool = AttnPool(inputs)
        self.glu = GeGLU(inputs, outputs)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `AttnPool`, to shape [sets, outputs]."""
        pooled: Tensor = self.glu(self.pool(self.norm(values), mask))
        return pooled


class WeightedPool(nn.Module):
    """A free weight per layer."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(layers) / math.sqrt(layers))

    def forward(self, values: Tensor) -> Tensor:
        """[sequences, layers, width] to [sequences, width]."""
        return torch.einsum("l,slw->sw", self.weight, values)


class Head(nn.Module):
    """One vector per sequence to one reward."""

    def __init__(self, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [width, *hidden]
        self.norms = nn.ModuleList(RMSNorm(inputs) for inputs in widths[:-1])
        self.linears = nn.ModuleList(
            nn.Linear(inputs, outputs, bias=False) for inputs, outputs in zip(widths, [*hidden, 1], strict=True)
        )

    def forward(self, values: Tensor) -> Tensor:
        """[sequences, width] to [sequences]."""
        *inner, last = self.linears
        for norm, linear in zip(self.norms, inner, strict=True):
            values = gelu(linear(norm(values)), approximate="tanh")
        rewards: Tensor = last(values)[:, 0]
        return rewards


class _Built(nn.Module):
    """What every readout knows beside its weights; `build_readout` says what the arguments are."""

    def __init__(self, config: Readout, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = backbone


class StatesReadout(_Built):
    """Rewards from fixed states: attention over the layers where several are read, then the head."""

    def __init__(self, config: Readout, width: int, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        pools = READS[config.name].several_layers
        self.pool = AttnGeGLU(width, config.width) if pools else None
        self.head = Head(config.width if pools else width, config.hidden)

    def forward(self, states: Tensor) -> Tensor:
        """[sequences, layers, width] to [sequences]."""
        rewards: Tensor = self.head(states[:, -1] if self.pool is None else self.pool(states))
        return rewards


class TokensReadout(_Built):
    """Rewards from all tokens: attention over the tokens of every layer, then over the layers or a weight for each."""

    def __init__(self, config: Readout, width: int, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.pools = nn.ModuleList(AttnGeGLU(width, config.width) for _ in range(config.layers))
        is_full = config.name == "full-attention"
        self.over = AttnGeGLU(config.width, config.width) if is_full else WeightedPool(config.layers)
        self.head = Head(config.width, config.hidden)

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Rewards, shape [sequences].

        Args:
            layers: per layer the states of all tokens, shape [sequences, tokens, width], or [1, tokens, width] for
                sequences out of one stream.
            mask: which tokens a sequence is made of, shape [sequences, tokens].
        """
        dtype = next(self.parameters()).dtype
        pooled = [pool(states.to(dtype), mask) for pool, states in zip(self.pools, layers, strict=True)]
        rewards: Tensor = self.head(self.over(torch.stack(pooled, dim=1)))
        return rewards


AnyReadout = StatesReadout | TokensReadout


def build_readout(config: Readout, width: int, backbone: Backbone) -> AnyReadout:
    """A readout with fresh weights, drawn from torch's generator, in float32.

    Args:
        config: any but `last`, whose head belongs to the network.
        width: of the hidden states.
        backbone: what kind of network they are of.
    """
    kind = StatesReadout if READS[config.name].is_fixed else TokensReadout
    return kind(config, width, backbone)
