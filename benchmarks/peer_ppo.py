"""PPO with TRL's `PPOTrainer`, in the environment of the last TRL that has it, which has no rewardlab.

`python -m benchmarks.peer_ppo JOB FOUND`: JOB is a JSON file with `folder` of the setting, `prompts` (ids), `responses`
to a batch, `longest` (tokens of every response), `inner_epochs`, `temperature`, `learning_rate`, `precision`, `micro`
(responses to a micro-batch) and `rollout` (to a forward pass without gradient). FOUND is what was measured.

Seconds are by what they were spent on: sampling (`batch_generation`), scoring and measuring (`get_reward` of the reward
model and of the value model), reference (`forward` of the reference); all else is the update. bfloat16 is autocast in
every one of these calls, as ours is: left to itself the trainer would use it nowhere, since transformers 5 no longer
hands `bf16` on to the accelerator that the trainer makes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.setting import Timed, clocks, peak_mebibytes

SEED = 0
PACKAGES = ("trl", "torch", "transformers")


def main() -> None:
    """Read the job, train, write what was found."""
    job, found = map(Path, sys.argv[1:])
    measured = trained(json.loads(job.read_text(encoding="utf-8")))
    found.write_text(json.dumps(measured), encoding="utf-8")


def trained(job: dict[str, Any]) -> Timed:
    """Train with TRL.

    Returns:
        `seconds` and `work` (seconds of processors) of the loop, `phases` (seconds by what they were spent on),
        `responses`, `tokens` (sampled), `peak` memory in MiB, and `versions`.
    """
    with tempfile.TemporaryDirectory() as temporary, clocks() as marks:
        trainer = _trainer(job, temporary)
        with _phases(trainer, job["precision"]) as (phases, widths):
            trainer.train()
    seconds, work = (own[-1] - own[0] for own in marks.values())
    return {
        "seconds": seconds,
        "work": work,
        "phases": phases | {"update": seconds - sum(phases.values())},
        "responses": trainer.state.episode,
        "tokens": sum(rows * width for rows, width in widths),
        "peak": peak_mebibytes(),
        "versions": {name: version(name) for name in PACKAGES},
    }


@contextmanager
def _phases(trainer: Any, precision: str) -> Iterator[tuple[dict[str, float], list[tuple[int, int]]]]:
    """Seconds by phase, and rows and tokens of what was sampled; everything runs in this precision."""
    import torch
    from trl.experimental.ppo import ppo_trainer

    names = {
        id(trainer.ref_model): "reference",
        id(trainer.reward_model): "scoring",
        id(trainer.value_model): "measuring",
    }
    phases = dict.fromkeys(("sampling", "scoring", "measuring", "reference"), 0.0)
    widths: list[tuple[int, int]] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(model: Any, ids: Any, *rest: Any) -> Any:
            name = "sampling" if function.__name__ == "batch_generation" else names.get(id(model))
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                result = function(model, ids, *rest)
            if name is not None:
                phases[name] += time.perf_counter() - began
            if name == "sampling":
                widths.append((len(ids), result[0].shape[1] - ids.shape[1]))
            return result

        return call

    with ExitStack() as stack:
        for name in ("batch_generation", "forward", "get_reward"):
            stack.enter_context(mock.patch.object(ppo_trainer, name, timed(getattr(ppo_trainer, name))))
        yield phases, widths


def _trainer(job: dict[str, Any], output: str) -> Any:
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        PrinterCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    def network(kind: Any, name: str) -> Any:
        return kind.from_pretrained(Path(job["folder"]) / name, dtype=torch.float32)

    micro = min(job["micro"], job["responses"])
    prompts = Dataset.from_dict({"input_ids": job["prompts"]})
    arguments = PPOConfig(
        output_dir=output,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=job["responses"] // micro,
        local_rollout_forward_batch_size=job["rollout"],
        num_ppo_epochs=job["inner_epochs"],
        num_mini_batches=1,
        total_episodes=len(job["prompts"]),
        response_length=job["longest"],
        # Without a token that ends responses all are as long as they may be.
        stop_token=None,
        temperature=job["temperature"],
        learning_rate=job["learning_rate"],
        bf16=False,
        gradient_checkpointing=False,
        num_sample_generations=0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=SEED,
    )
    trainer = PPOTrainer(
        args=arguments,
        processing_class=AutoTokenizer.from_pretrained(Path(job["folder"]) / "policy", padding_side="left"),
        model=network(AutoModelForCausalLM, "policy"),
        ref_model=network(AutoModelForCausalLM, "policy"),
        reward_model=network(AutoModelForSequenceClassification, "model"),
        value_model=network(AutoModelForSequenceClassification, "model"),
        train_dataset=prompts,
        # It has to be there, and is not used.
        eval_dataset=prompts.select([0]),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


if __name__ == "__main__":
    main()
