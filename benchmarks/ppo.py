"""PPO: TRL's `PPOTrainer` and `train ppo`; the same weights, prompts, lengths of responses and passes over a batch.

The last TRL with that trainer has an environment of its own, in which `peer_ppo.py` is run; what it needs is written to
files. Every setting has a process of its own, which also gives its peak memory. The clock runs from the beginning of
the first batch to the end of the last: sampling, scoring, measuring, learning and the log of a batch; models are loaded
and saved outside it. Products are in bfloat16 where the processor multiplies it in hardware, else in float32.

TRL has a value model; so does `rewardlab, critic of its own`, with the same weights, while `rewardlab` has its default,
a head on the policy's states. Policies with random weights hardly ever end a response; so that all are equally long, no
token ends one on either side.

The floor is what the bare matrix products of a phase would take, at the rates of `ceiling.py` measured before and after
ours: 2 x parameters x tokens forward, three times that with gradients. Sampling runs prompts at once and then one token
of each response at a time, which has a ceiling of its own. The output layer counts where there are responses.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import ceiling
from benchmarks.setting import (
    Done,
    Sizes,
    Timed,
    alone,
    cpu_precision,
    output_parameters,
    prepare_policy,
    rows,
    working,
)

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".venv-ppo" / "bin" / "python"
"""Of the environment of TRL 1.12; `make .venv-ppo/.ready` makes it."""

GRID = ((8, 64), (16, 64), (4, 64), (2, 64), (8, 16))
"""Responses to a micro-batch of TRL, and to a forward pass without gradient; the first is its default."""
HEAD, CRITIC = "rewardlab", "rewardlab, critic of its own"

RESPONSES = 32
"""To a batch, each to a prompt of its own."""
LONGEST = 53
"""Tokens of every response: TRL's default."""
MAX_PROMPT_TOKENS = 256
INNER_EPOCHS = 4
TEMPERATURE = 1.0
LEARNING_RATE = 3e-6
SEED = 0
NO_LIMIT = 1e9
"""Of the divergence at which passes over a batch end: TRL has no such limit."""


def ours(folder: Path, prompts: list[str], precision: str, own_critic: bool) -> Timed:
    """Train with `train ppo`.

    Returns:
        `seconds` and `work` (seconds of processors) of the loop, `phases` (seconds by what they were spent on),
        `responses` and `tokens` (sampled).
    """
    from rewardlab.store.files import read_jsonl, write_jsonl
    from rewardlab.store.runs import Run
    from rewardlab.studies.ppo import PPO, train_ppo
    from rewardlab.train import ppo_run
    from rewardlab.train.ppo_loop import TIMES

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        source = {"path": str(root / "train.jsonl"), "adapter": "prompt", "prompt_role": "text"}
        write_jsonl(root / "train.jsonl", [{"prompt": prompt} for prompt in prompts])
        config = PPO.build(
            {
                "model": {"path": str(folder / "policy")},
                "train": [source],
                "rewards": {"model": {"model": str(folder / "model"), "precision": precision, "device": "cpu"}},
                "critic": {"path": str(folder / "model")} if own_critic else None,
                "encoding": _ENCODING,
                "steps": len(prompts) // RESPONSES,
                "batch_size": RESPONSES,
                "temperature": TEMPERATURE,
                "inner_epochs": INNER_EPOCHS,
                "inner_kl": NO_LIMIT,
                "learning_rate": LEARNING_RATE,
                "precision": precision,
                "checkpoints": 0,
                "seed": SEED,
                "device": "cpu",
            }
        )
        home = mock.patch.dict(os.environ, {"REWARDLAB_HOME": str(root)})
        endless = mock.patch.object(ppo_run, "_ends", return_value=frozenset())
        with home, endless, _clocked() as marks:
            with Run.create(config, verb="train ppo", name="run", root=root, allow_untracked=True) as run:
                train_ppo(config, run)
            lines = list(read_jsonl(run.folder / "history.jsonl"))
    if any(line["inner_steps"] != INNER_EPOCHS for line in lines):
        raise RuntimeError(f"not all batches were learned from {INNER_EPOCHS} times: {lines}")
    return {kind: own[-1] - own[0] for kind, own in marks.items()} | {
        "phases": {name: sum(line[f"seconds.{name}"] for line in lines) for name in TIMES},
        "responses": len(lines) * RESPONSES,
        "tokens": round(sum(line["length"] for line in lines) * RESPONSES),
    }


def theirs(folder: Path, prompts: list[list[int]], precision: str, setting: tuple[int, int], log: Path) -> Timed:
    """Train with TRL in its environment; what `peer_ppo.trained` gives.

    Args:
        folder: of the setting.
        prompts: as ids.
        precision: of products.
        setting: responses to a micro-batch, and to a forward pass without gradient.
        log: gets what it prints.
    """
    micro, rollout = setting
    job = {
        "folder": str(folder.resolve()),
        "prompts": prompts,
        "responses": RESPONSES,
        "longest": LONGEST,
        "inner_epochs": INNER_EPOCHS,
        "temperature": TEMPERATURE,
        "learning_rate": LEARNING_RATE,
        "precision": precision,
        "micro": micro,
        "rollout": rollout,
    }
    with tempfile.TemporaryDirectory() as temporary, log.open("a", encoding="utf-8") as printed:
        asked, found = Path(temporary) / "job.json", Path(temporary) / "found.json"
        asked.write_text(json.dumps(job), encoding="utf-8")
        command = [str(PEER), "-m", "benchmarks.peer_ppo", str(asked), str(found)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=printed, stderr=printed)
        measured: Timed = json.loads(found.read_text(encoding="utf-8"))
    return measured


def run(
    folder: Path, sizes: Sizes, repeats: int, log: Path, settings: Sequence[str] = (), precision: str = "auto"
) -> dict[str, Any]:
    """All rounds: TRL's settings, the ceilings, ours, the ceilings again.

    Args:
        folder: of the setting.
        sizes: how large the work is.
        repeats: rounds.
        log: of the processes.
        settings: names of TRL's settings beside its default; all where there are none.
        precision: of products; `auto` for what the processor multiplies in hardware.
    """
    if not PEER.is_file():
        raise SystemExit("The peer of this part has an environment of its own: make .venv-ppo/.ready")
    count = sizes.batches * RESPONSES
    with working(log) as worker:
        worker(prepare_policy, folder)
        every = worker(prompts_of, folder, count * repeats)
        precision = worker(cpu_precision, precision)
    done = Done(folder / f"ppo-{precision}.json")
    rounds, versions = [], {}
    for number in range(repeats):
        prompts = every[number * count :][:count]
        work = f"{count} responses of round {number}"
        results: dict[str, Timed] = {}
        for setting in GRID:
            name = peer_name(setting)
            if not settings or name in settings or setting == GRID[0]:
                ids = [one["ids"] for one in prompts]
                found = done.once(f"{name}, {work}", theirs, folder, ids, precision, setting, log)
                results[name], versions = found, found["versions"]
        ceilings = [done.once(f"ceilings before {work}", alone, log, measured_ceilings, sizes.shape, precision)]
        for name in (HEAD, CRITIC):
            texts = [one["text"] for one in prompts]
            results[name] = done.once(f"{name}, {work}", alone, log, ours, folder, texts, precision, name == CRITIC)
        ceilings.append(done.once(f"ceilings after {work}", alone, log, measured_ceilings, sizes.shape, precision))
        _check_tokens(results)
        read = sum(len(one["ids"]) for one in prompts)
        rounds.append({"results": results, "ceilings": ceilings, "prompt_tokens": read})
    done.path.unlink()
    return {
        "rounds": rounds,
        "default": peer_name(GRID[0]),
        "precision": precision,
        "peer": versions,
        "responses": RESPONSES,
        "longest": LONGEST,
        "inner_epochs": INNER_EPOCHS,
        "output_layer": output_parameters(folder),
    }


def peer_name(setting: tuple[int, int]) -> str:
    """A setting of TRL in words: its micro-batch times how many to a batch, and its rollouts where not the default."""
    micro, rollout = setting
    at_once = "" if rollout == GRID[0][1] else f", {rollout} at once"
    return f"TRL {micro}x{RESPONSES // micro}{at_once}"


def measured_ceilings(shape: tuple[int, int, int, int], precision: str) -> dict[str, float]:
    """GFLOP/s of the bare products: at our micro-batches, forward and with gradients; at a token of each response."""
    from rewardlab.train.setup import CPU_BUDGET

    kinds = {"forward": (CPU_BUDGET, False), "training": (CPU_BUDGET, True), "decoding": (RESPONSES, False)}
    return {
        kind: ceiling.measure(shape, tokens, backward=backward, precision=precision)
        for kind, (tokens, backward) in kinds.items()
    }


def _check_tokens(results: dict[str, Timed]) -> None:
    tokens = {name: (one["responses"], one["tokens"]) for name, one in results.items()}
    if set(tokens.values()) != {(responses, responses * LONGEST) for responses, _ in tokens.values()}:
        raise RuntimeError(f"the sides did different work (responses, tokens): {tokens}")


def prompts_of(folder: Path, count: int) -> list[dict[str, Any]]:
    """The first different prompts that are short enough, as `text` and as `ids`."""
    from transformers import AutoTokenizer

    from rewardlab.data.turns import PolicyEncoder, PolicyEncoding
    from rewardlab.records import Prompt

    encoder = PolicyEncoder(AutoTokenizer.from_pretrained(folder / "policy"), PolicyEncoding(**_ENCODING))
    lines = len((folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines())
    texts = list(dict.fromkeys(row["prompt"] for row in rows(folder, 0, lines)))
    encoded = encoder.prompts([Prompt.of_text(text) for text in texts])
    kept = [
        {"text": text, "ids": list(one.ids)}
        for text, one in zip(texts, encoded, strict=True)
        if text.strip() and not one.truncated
    ]
    if len(kept) < count:
        raise RuntimeError(f"{len(kept)} prompts are usable, and {count} were asked for")
    return kept[:count]


_ENCODING = {"max_prompt_tokens": MAX_PROMPT_TOKENS, "max_completion_tokens": LONGEST}


@contextmanager
def _clocked() -> Iterator[dict[str, list[float]]]:
    """Marks at the beginning and at the end of every batch of ours: seconds, and seconds of processors."""
    from rewardlab.train.ppo_loop import Loop

    marks: dict[str, list[float]] = {"seconds": [], "work": []}
    step = Loop._step

    def mark() -> None:
        marks["seconds"].append(time.perf_counter())
        marks["work"].append(time.process_time())

    def clocked(loop: Loop, number: int) -> dict[str, Any]:
        mark()
        line = step(loop, number)
        mark()
        return line

    with mock.patch.object(Loop, "_step", clocked):
        yield marks
