"""Training of policies: TRL's DPOTrainer with its loss `exo_pair` and ours; the same ids, order and weights.

Products are in bfloat16 where the processor multiplies it in hardware, else in float32, on both sides, or as asked for.

The clock is one callback for both, from the beginning of training to the end of the last optimiser step; seconds of the
process's processors are taken beside it, which neighbours on a busy machine change less. TRL computes the reference in
every step, or beforehand, where asked to. Ours computes it beforehand: `rewardlab` is charged with all of that, from an
empty cache, hashes of the weights and writing to disk included; `rewardlab, cached` is what a later run takes, and
stands beside TRL's settings with a precomputed reference, whose computation is not timed either. Every setting has a
process of its own, which also gives its peak memory.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.setting import (
    MAX_TOKENS,
    PAIRS_PER_STEP,
    SIDES,
    Done,
    Row,
    Sizes,
    Timed,
    alone,
    clocks,
    cpu_precision,
    output_parameters,
    prepare_policy,
    rows,
    working,
)

GRID = ((16, False), (8, False), (2, False), (1, False), (2, True), (1, True))
"""Pairs in a micro-batch of TRL, and whether the reference is precomputed; the first is its default."""
CANDIDATES = (2, 4, 8)
AGREEMENT_STEPS = 3
"""Steps whose losses are compared in float32; before the first one the loss is the same for all policies."""
AGREEMENT_PAIRS = 2
"""Pairs in each of them."""
COLD, CACHED = "rewardlab", "rewardlab, cached"

SEED = 0
BETA, SMOOTHING = 0.1, 1e-3
BETAS = (0.9, 0.999)
LEARNING_RATE = 1e-6
AGREEMENT_RATE = 1e-5
"""Of the steps whose losses are compared: large enough to move them."""


def theirs(
    folder: Path,
    pairs: list[Row],
    micro: int,
    precomputed: bool,
    precision: str,
    per_step: int = PAIRS_PER_STEP,
    *,
    rate: float = LEARNING_RATE,
) -> Timed:
    """Train with TRL, `micro` pairs to a micro-batch.

    Returns:
        `pairs`, `seconds`, `work` (seconds of processors) and `losses` of the steps.
    """
    from rewardlab.data.layout import optimiser_steps

    groups = _groups(folder, pairs)
    # In the order in which our trainer takes them.
    ordered = [groups[i] for step in optimiser_steps(len(groups), per_step, seed=SEED, epoch=0) for i in step]
    with tempfile.TemporaryDirectory() as temporary, clocks() as marks:
        trainer = _trl_trainer(folder, ordered, (micro, per_step // micro), precomputed, temporary, precision, rate)
        trainer.train()
    return _timed(marks, len(pairs)) | {"losses": trainer.step_losses}


def ours(
    folder: Path,
    pairs: list[Row],
    precision: str,
    per_step: int = PAIRS_PER_STEP,
    *,
    rate: float = LEARNING_RATE,
) -> Timed:
    """Train with `train exo`, as the command line does, from an empty cache.

    Returns:
        What `theirs` does, and both kinds of seconds of the `reference`.
    """
    from rewardlab.store.files import write_jsonl

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_jsonl(root / "train.jsonl", pairs)
        # Pairs of the training set, whose references are computed once for both.
        write_jsonl(root / "held_out.jsonl", pairs[:1])
        source = {"adapter": "preference", "prompt_role": "text"}
        options = {"objective": "exo-pref", "label_smoothing": SMOOTHING}
        return _trained(folder, root, len(pairs), source, options, precision, per_step, rate=rate)


def of_candidates(
    folder: Path, prompts: list[Row], answers: list[str], count: int, precision: str, per_step: int
) -> Timed:
    """Train on `count` rewarded answers to every prompt.

    Args:
        folder: of the setting.
        prompts: pairs; of each the prompt is taken.
        answers: texts that stand in for sampled answers.
        count: K.
        precision: of products.
        per_step: prompts to a step.
    """
    from rewardlab.data.canonical import write_records
    from rewardlab.records import Candidates, Prompt

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        records = [
            Candidates(
                Prompt.of_text(row["prompt"]),
                # Every answer stands as often as any other, whatever K is.
                tuple(answers[(place * len(SIDES) + k) % len(answers)] for k in range(count)),
                tuple(float(k) for k in range(count)),
            )
            for place, row in enumerate(prompts)
        ]
        write_records(root / "train.jsonl", records)
        write_records(root / "held_out.jsonl", records[:1])
        options = {"objective": "exo-rw", "candidates": count}
        return _trained(folder, root, len(prompts), {}, options, precision, per_step)


def run(
    folder: Path, sizes: Sizes, repeats: int, log: Path, settings: Sequence[str] = (), precision: str = "auto"
) -> dict[str, Any]:
    """All rounds: TRL's settings and ours; and losses of some steps in float32.

    Args:
        folder: of the setting.
        sizes: how large the work is.
        repeats: rounds.
        log: of the processes.
        settings: names of TRL's settings, measured beside its default; all where there are none.
        precision: of products; `auto` for what the processor multiplies in hardware.
    """
    every, precision = _prepared(folder, sizes.steps * PAIRS_PER_STEP * repeats, log, precision)
    with working(log) as worker:
        tokens = worker(tokens_of, folder, every)
    done = Done(folder / f"alignment-{precision}.json")
    rounds = []
    for number in range(repeats):
        pairs = every[number * sizes.steps * PAIRS_PER_STEP :][: sizes.steps * PAIRS_PER_STEP]
        results = {}
        for micro, precomputed in GRID:
            name = f"TRL {micro}x{PAIRS_PER_STEP // micro}" + (", precomputed" if precomputed else "")
            # The page compares with the default: it is measured in any case.
            if not settings or name in settings or (micro, precomputed) == GRID[0]:
                key = f"{name}, {len(pairs)} pairs of round {number}"
                results[name] = done.once(key, alone, log, theirs, folder, pairs, micro, precomputed, precision)
        found = done.once(f"{COLD}, {len(pairs)} pairs of round {number}", alone, log, ours, folder, pairs, precision)
        cold = {kind: found[kind] + found["reference"][kind] for kind in ("seconds", "work")}
        rounds.append({"results": results | {COLD: found | cold, CACHED: found}})
    pairs = every[: AGREEMENT_STEPS * AGREEMENT_PAIRS]
    losses = {
        name: done.once(f"{name} in float32", alone, log, _in_float32, folder, pairs, name == "TRL")["losses"]
        for name in ("TRL", COLD)
    }
    done.path.unlink()
    return {
        "rounds": rounds,
        "agreement": losses,
        "precision": precision,
        "tokens": tokens,
        "output_layer": output_parameters(folder),
    }


def by_candidates(folder: Path, sizes: Sizes, repeats: int, log: Path, precision: str = "auto") -> dict[str, Any]:
    """Training on K answers to every prompt: each K of a round on the same prompts."""
    per_step = PAIRS_PER_STEP // 2
    prompts, precision = _prepared(folder, sizes.steps * per_step, log, precision)
    answers = [row[side] for row in prompts for side in SIDES]
    rounds = []
    for _ in range(repeats):
        one = {}
        for count in CANDIDATES:
            found = alone(log, of_candidates, folder, prompts, answers, count, precision, per_step)
            cost = {kind: found[kind] + found["reference"][kind] for kind in ("seconds", "work")}
            one[str(count)] = {"candidates": found["pairs"] * count} | cost
        rounds.append(one)
    return {"rounds": rounds, "precision": precision}


def _prepared(folder: Path, count: int, log: Path, precision: str) -> tuple[list[Row], str]:
    """So many pairs, and the precision of products."""
    with working(log) as worker:
        worker(prepare_policy, folder)
        return worker(usable, folder, count), worker(cpu_precision, precision)


def tokens_of(folder: Path, pairs: list[Row]) -> dict[str, int]:
    """Tokens that a pass over these pairs reads.

    Returns:
        `padded`: both sides of a pair whole and of equal length, as in a micro-batch of one pair; `shared`: what the
        sides have in common once; `logits`: those of `shared` that are predicted.
    """
    groups = _groups(folder, pairs)
    return {
        "padded": sum(len(SIDES) * (len(one.prefix) + max(map(len, one.branches))) for one in groups),
        "shared": sum(len(one.prefix) + sum(map(len, one.branches)) for one in groups),
        "logits": sum(len(one.prefix) - one.start + sum(map(len, one.branches)) for one in groups),
    }


def _in_float32(folder: Path, pairs: list[Row], peer: bool) -> Timed:
    options: dict[str, Any] = {"precision": "float32", "per_step": AGREEMENT_PAIRS, "rate": AGREEMENT_RATE}
    return theirs(folder, pairs, 1, False, **options) if peer else ours(folder, pairs, **options)


def usable(folder: Path, count: int) -> list[Row]:
    """The first pairs with two different answers, neither of them empty."""
    kept = [
        row
        for row in rows(folder, 0, 2 * count)
        if len({text.strip() for text in (row["chosen"], row["rejected"])} - {""}) == len(SIDES)
    ]
    if len(kept) < count:
        raise RuntimeError(f"{len(kept)} pairs are usable, and {count} were asked for")
    return kept[:count]


def _groups(folder: Path, pairs: list[Row]) -> list[Any]:
    """The pairs as token groups, prompt and completions encoded apart and nothing cut: what both sides train on."""
    from transformers import AutoTokenizer

    from rewardlab.data.layout import share_prompt
    from rewardlab.data.turns import PolicyEncoder, PolicyEncoding
    from rewardlab.records import Prompt

    encoder = PolicyEncoder(AutoTokenizer.from_pretrained(folder / "policy"), PolicyEncoding(**_ENCODING))
    prompts = [Prompt.of_text(row["prompt"]) for row in pairs]
    texts = [[row[side] for side in SIDES] for row in pairs]
    completions = encoder.completions(prompts, texts, [[True] * len(SIDES)] * len(pairs))
    return [
        share_prompt(prompt.ids, [one.ids for one in own])
        for prompt, own in zip(encoder.prompts(prompts), completions, strict=True)
    ]


_ENCODING = {"max_prompt_tokens": MAX_TOKENS, "max_completion_tokens": MAX_TOKENS}


def _timed(marks: dict[str, list[float]], pairs: int) -> Timed:
    return {"pairs": pairs} | {kind: own[-1] - own[0] for kind, own in marks.items()}


def _trained(
    folder: Path,
    root: Path,
    count: int,
    source: dict[str, str],
    options: dict[str, Any],
    precision: str,
    per_step: int,
    *,
    rate: float = LEARNING_RATE,
) -> Timed:
    """Run `train exo` on `root/train.jsonl`, with its references computed there."""
    from rewardlab.store.files import read_jsonl
    from rewardlab.store.runs import Run
    from rewardlab.train import preference

    config = preference.EXOTraining.build(
        {
            "model": {"path": str(folder / "policy")},
            "train": [{"path": str(root / "train.jsonl")} | source],
            "validation": {"held_out": {"path": str(root / "held_out.jsonl")} | source},
            "encoding": _ENCODING,
            "beta": BETA,
            "batch_size": per_step,
            "learning_rate": rate,
            "schedule": "linear",
            "warmup_share": 0.0,
            "betas": list(BETAS),
            "precision": precision,
            "checkpoints": 0,
            "seed": SEED,
            "device": "cpu",
        }
        | options
    )
    spent = {"seconds": 0.0, "work": 0.0}
    verb: Any = preference  # its imports, which it does not export
    compute = verb.cached_references

    def timed(*arguments: Any, **named: Any) -> Any:
        began, work = time.perf_counter(), time.process_time()
        found = compute(*arguments, **named)
        spent["seconds"], spent["work"] = time.perf_counter() - began, time.process_time() - work
        return found

    home = mock.patch.dict(os.environ, {"REWARDLAB_HOME": str(root)})
    with home, mock.patch.object(verb, "cached_references", timed), clocks() as marks:
        with Run.create(config, verb="train exo", name="run", root=root, allow_untracked=True) as run:
            trained = preference.train_preference(config, run)
        losses = [line["loss"] for line in read_jsonl(run.folder / "history.jsonl") if line["split"] == "train"]
    used, computed = trained.summary["counts"]["train"]["used"], trained.summary["reference"]["computed"]
    if used != count or not computed:
        raise RuntimeError(f"{used} of {count} prompts were used, and {computed} references were computed")
    return _timed(marks, count) | {"reference": spent, "losses": losses}


def _trl_trainer(
    folder: Path, groups: list[Any], micro: tuple[int, int], precomputed: bool, output: str, precision: str, rate: float
) -> Any:
    """Its trainer, with so many pairs to a micro-batch and so many micro-batches to a step."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import DPOConfig, DPOTrainer

    class OnIds(DPOTrainer):  # type: ignore[misc]  # trl is untyped
        """Theirs, given ids instead of texts."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def training_step(self, *arguments: Any, **named: Any) -> Any:
            loss = super().training_step(*arguments, **named)
            steps = self.state.global_step + 1
            self.step_losses += [0.0] * (steps - len(self.step_losses))
            self.step_losses[-1] += loss.item()
            return loss

    def network() -> Any:
        return AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)

    examples = []
    for group in groups:
        chosen, rejected = (list(ids[group.start :]) for ids in group.sequences())
        prompt = list(group.prefix[: group.start])
        examples.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    arguments = DPOConfig(
        output_dir=output,
        loss_type=["exo_pair"],
        beta=BETA,
        label_smoothing=SMOOTHING,
        per_device_train_batch_size=micro[0],
        gradient_accumulation_steps=micro[1],
        precompute_ref_log_probs=precomputed,
        num_train_epochs=1,
        learning_rate=rate,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        # Nothing is cut: the pairs are as long as they may be.
        max_length=None,
        bf16=precision == "bfloat16",
        # TRL's own default recomputes activations, which is slower and needs no memory saved here.
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=SEED,
    )
    trainer = OnIds(
        model=network(),
        ref_model=None if precomputed else network(),
        args=arguments,
        train_dataset=Dataset.from_list(examples),
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
    )
    trainer.step_losses = []
    trainer.remove_callback(PrinterCallback)
    return trainer
