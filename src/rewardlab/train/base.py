"""The warm start: a small language model that has read the world before anything else is asked of it.

From random weights a reward model would spend its training learning to read. This stage is run once, cached by the
content of its configuration and of the code, and the studies of reward models and policies start from what it leaves:
a causal language model and its tokenizer, in a folder that transformers loads.

The budget is a number of steps, never of seconds, so the same configuration gives the same model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rewardlab.config import Config
from rewardlab.data.render import render as conversation
from rewardlab.data.world import Copula, Response, render, respond, write_prompt
from rewardlab.models.loading import torch_device
from rewardlab.models.tiny import SizeName, build, train_tokenizer
from rewardlab.store.files import atomic_folder, write_jsonl
from rewardlab.store.runs import Run

IGNORED = -100
"""Label of positions that the loss leaves out (transformers' convention)."""
BATCHES_SORTED_TOGETHER = 20
"""Texts of so many steps are sorted by length before they are cut into batches: less padding, order still mixed."""
BETAS = (0.9, 0.98)
"""AdamW's decay rates: a short run wants a second moment that follows soon."""
FLOOR = 0.1
"""Share of the peak learning rate that the schedule ends at."""
TOKENIZER_TEXTS = 2000
"""How many texts the tokenizer learns from."""


class BaseTraining(Config):
    """Warm start of the world's small language model."""

    seed: int = Field(default=0, ge=0)
    """Seed of the world's texts, of the weights and of the order."""
    size: SizeName = "tiny"
    """Size of the Llama shape."""
    vocabulary: int = Field(default=2048, ge=300)
    """Largest vocabulary of the tokenizer."""
    policy: Copula = Copula()
    """Confounding in the corpus: what a policy that starts from this model writes like."""
    steps: int = Field(default=450, ge=1)
    """Optimiser steps; every text is seen once."""
    texts_per_step: int = Field(default=24, ge=1)
    """Texts (a prompt with its answer) in a step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak learning rate: linear warm-up, then a cosine down to a tenth."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps that the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """bfloat16: products in bf16 over float32 weights."""
    log_every: int = Field(default=25, ge=1)
    """Steps between two lines of history.jsonl."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most so many texts (smoke run)."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""

    @property
    def texts(self) -> int:
        """How many texts are read."""
        asked = self.steps * self.texts_per_step
        return asked if self.limit is None else min(asked, self.limit)

    @property
    def steps_taken(self) -> int:
        """Optimiser steps that these texts fill, the last one perhaps in part."""
        return math.ceil(self.texts / self.texts_per_step)


class BaseSummary(NamedTuple):
    """What the warm start came to: mean loss in nats per token over the first and the last logged steps."""

    parameters: int
    tokens: int
    first_loss: float
    last_loss: float

    def lines(self) -> list[str]:
        """One finding a line."""
        size = f"{self.parameters / 1e6:.1f}M parameters, {self.tokens / 1e6:.1f}M tokens read"
        loss = f"{self.first_loss:.2f} to {self.last_loss:.2f} nats per token"
        return [f"The world's language model ({size}) went from {loss}."]


def train_base(config: BaseTraining, run: Run) -> BaseSummary:
    """Build the tokenizer and the model, train, and write `model/` and `history.jsonl`, each whole or not at all."""
    device = torch_device(config.device)
    responses = corpus(config)
    tokenizer = train_tokenizer(_plain_texts(responses[:TOKENIZER_TEXTS]), config.vocabulary)
    batches = _batches(_encoded(responses, tokenizer), config)
    model = build("llama", config.size, tokenizer, seed=config.seed).to(device)
    history = _train(config, model, batches)
    with atomic_folder(run.path("model")) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    write_jsonl(run.path("history.jsonl"), history)
    tokens = sum(len(ids) for batch in batches for ids in batch)
    return BaseSummary(model.num_parameters(), tokens, history[0]["loss"], history[-1]["loss"])


def corpus(config: BaseTraining) -> list[Response]:
    """The answers that the model reads, each to a prompt of its own, in order."""
    prompts = (write_prompt(config.seed, f"corpus/{index}") for index in range(config.texts))
    return [respond(config.seed, prompt, "a", config.policy) for prompt in prompts]


def _plain_texts(responses: Sequence[Response]) -> Iterator[str]:
    for response in responses:
        yield response.prompt.text
        yield render(response)


def _encoded(responses: Sequence[Response], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Prompt and answer as the chat template writes them, special tokens included: as a reward model will read them."""
    progress = tqdm(responses, desc="writing the corpus", unit="text", leave=False)
    texts = [conversation(answer.prompt.record, render(answer), tokenizer=tokenizer).text for answer in progress]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids


def _batches(texts: Sequence[list[int]], config: BaseTraining) -> list[list[list[int]]]:
    """The texts of each step: of similar length within a step, steps of one sorted window in random order."""
    generator = torch.Generator().manual_seed(config.seed)
    window = config.texts_per_step * BATCHES_SORTED_TOGETHER
    batches = []
    for start in range(0, len(texts), window):
        near = sorted(texts[start : start + window], key=len)
        cut = [near[first : first + config.texts_per_step] for first in range(0, len(near), config.texts_per_step)]
        batches += [cut[index] for index in torch.randperm(len(cut), generator=generator).tolist()]
    return batches


def _train(config: BaseTraining, model: PreTrainedModel, batches: Sequence[list[list[int]]]) -> list[dict[str, Any]]:
    """Next-token training; gives the lines of history.jsonl."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=BETAS, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, config))
    history: list[dict[str, Any]] = []
    losses: list[float] = []
    model.train()
    progress = tqdm(batches, desc="warm start", unit="step", leave=False)
    for step, batch in enumerate(progress, start=1):
        losses.append(_step(config, model, optimizer, batch))
        if step % config.log_every == 0 or step == len(batches):
            line = {"step": step, "epoch": step / len(batches), "split": "train", "loss": sum(losses) / len(losses)}
            history.append(line | {"learning_rate": schedule.get_last_lr()[0]})
            progress.set_postfix(loss=f"{history[-1]['loss']:.3f}")
            losses.clear()
        schedule.step()
    return history


def _step(
    config: BaseTraining, model: PreTrainedModel, optimizer: torch.optim.Optimizer, batch: list[list[int]]
) -> float:
    ids, labels = padded(batch)
    ids, labels = ids.to(model.device), labels.to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        loss: Tensor = model(input_ids=ids, labels=labels).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    optimizer.step()
    return loss.item()


def learning_rate_share(step: int, config: BaseTraining) -> float:
    """Share of the peak learning rate at `step`, counted from 0."""
    rise = max(1, round(config.warmup * config.steps_taken))
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, config.steps_taken - rise)
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2


def padded(batch: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and labels, [texts, longest] each, padded on the right; a causal model needs no mask for that."""
    longest = max(map(len, batch))
    # What stands at a padded position is never read: everything real comes before it.
    ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in batch])
    labels = torch.tensor([[*text, *[IGNORED] * (longest - len(text))] for text in batch])
    return ids, labels
