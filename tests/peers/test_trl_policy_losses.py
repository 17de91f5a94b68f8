"""Our losses of a policy and its log-probabilities against TRL's trainers."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOTrainer

from benchmarks.setting import rows
from rewardlab.functional.logprobs import completion_log_probabilities
from rewardlab.functional.objectives import OBJECTIVES
from rewardlab.models.tiny import build

PROMPT, LONGEST = 3, 40
# TRL's name, ours, and the smoothing: its `sigmoid` ignores label smoothing.
LOSSES = [
    ("sigmoid", "dpo-pref", 0.0),
    ("ipo", "ipo", 0.0),
    ("hinge", "hinge", 0.0),
    ("robust", "robust", 0.0),
    ("robust", "robust", 0.1),
    ("robust", "robust", 0.4),
    ("exo_pair", "exo-pref", 1e-3),
    ("exo_pair", "exo-pref", 0.1),
]


def trainer_of(kind: str, beta: float, smoothing: float) -> SimpleNamespace:
    """What `DPOTrainer._compute_loss` reads of its trainer, with log-probabilities of the reference in the batch."""
    return SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), gather=lambda values: values, gather_for_metrics=lambda values: values
        ),
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=smoothing,
        precompute_ref_logps=True,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        aux_loss_enabled=False,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )


def their_loss(trainer: SimpleNamespace, tokens: Tensor, lengths: Tensor, reference: Tensor) -> float:
    """TRL's loss of one pair.

    Args:
        tokens: log-probability of every token of the completions, 0 behind their ends; shape [2, LONGEST].
        lengths: of both completions.
        reference: log-probabilities of the completions, shape [2].
    """
    total = PROMPT + LONGEST
    places = torch.arange(total).expand(2, -1)
    mask = ((places >= PROMPT) & (places < PROMPT + lengths.unsqueeze(1))).long()
    shifted = torch.zeros(2, total - 1, dtype=tokens.dtype)
    shifted[:, PROMPT - 1 :] = tokens

    def model(**inputs):
        blank = torch.zeros_like(shifted)
        return SimpleNamespace(log_probs=shifted, entropy=blank, mean_logits=blank, is_top1=blank.bool())

    inputs = {
        "input_ids": torch.ones(2, total, dtype=torch.int64),
        "attention_mask": torch.ones(2, total, dtype=torch.int64),
        "completion_mask": mask,
        "ref_chosen_logps": reference[:1],
        "ref_rejected_logps": reference[1:],
    }
    return DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False).item()


@pytest.mark.parametrize(("kind", "name", "smoothing"), LOSSES)
@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_on_the_same_log_probabilities(kind, name, smoothing, beta, dtype):
    generator = torch.Generator().manual_seed(0)
    trainer = trainer_of(kind, beta, smoothing)
    options = {"beta": beta} | ({"label_smoothing": smoothing} if "label_smoothing" in OBJECTIVES[name].options else {})
    losses = []
    for pair in range(40):
        lengths = torch.randint(1, LONGEST + 1, (2,), generator=generator)
        # Multiples of 2^-12: their sums are exact in float32, in whatever order they are taken.
        tokens = -torch.randint(1, 2**14, (2, LONGEST), generator=generator).to(dtype) / 2**12
        tokens = tokens.masked_fill(torch.arange(LONGEST) >= lengths.unsqueeze(1), 0.0)
        # Near and far from the reference: h of both signs, from about 0 to about 20.
        reference = tokens.sum(dim=1) + torch.randn(2, generator=generator, dtype=dtype) * 2.0 ** (pair % 6)
        ratios = (tokens.sum(dim=1) - reference).unsqueeze(0)
        found = OBJECTIVES[name].losses(ratios, lengths=lengths.unsqueeze(0), **options).item()
        expected = their_loss(trainer, tokens, lengths, reference)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
        losses.append(found)
    assert max(losses) > min(losses) + 0.05


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_simpo_on_the_same_means(gamma):
    generator = torch.Generator().manual_seed(1)
    sums, lengths = -100.0 * torch.rand(40, 2, generator=generator), torch.randint(1, 60, (40, 2), generator=generator)
    trainer = SimpleNamespace(
        alpha=0.0,
        loss_type="simpo",
        simpo_gamma=gamma,
        beta=2.0,
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device=torch.device("cpu")),
    )
    expected, *_ = CPOTrainer.cpo_loss(trainer, *(sums / lengths).unbind(dim=1))
    found = OBJECTIVES["simpo"].losses(sums, lengths=lengths, beta=2.0, gamma=gamma)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "name", "smoothing"), [one for one in LOSSES if one[2] in (0.0, 1e-3)])
def test_losses_of_a_trainer_of_theirs_from_logits(setting, tmp_path, kind, name, smoothing):
    """Policy and reference are two models; log-probabilities are ours from their batch, an end of sequence included."""
    tokenizer = AutoTokenizer.from_pretrained(setting / "model")
    policy, reference = (build("llama", "nano", tokenizer, seed=seed).float() for seed in (0, 1))
    arguments = DPOConfig(
        output_dir=str(tmp_path),
        loss_type=[kind],
        beta=0.5,
        label_smoothing=smoothing,
        per_device_train_batch_size=6,
        max_length=None,
        bf16=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list(rows(setting, 8, 6)),
        processing_class=tokenizer,
    )
    (batch,) = trainer.get_train_dataloader()
    expected = trainer.compute_loss(trainer.model, dict(batch)).item()

    sums = []
    for model in (policy, reference):
        with torch.no_grad():
            logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        sums.append(completion_log_probabilities(logits, batch["input_ids"], batch["completion_mask"].bool()))
    chosen, rejected = (sums[0] - sums[1]).chunk(2)
    lengths = torch.stack(batch["completion_mask"].sum(dim=1).chunk(2), dim=1)
    options = {"beta": 0.5} | ({"label_smoothing": smoothing} if "label_smoothing" in OBJECTIVES[name].options else {})
    found = OBJECTIVES[name].losses(torch.stack([chosen, rejected], dim=1), lengths=lengths, **options)
    assert found.mean().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
