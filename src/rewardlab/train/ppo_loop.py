"""The steps of a training by PPO: sample, score, measure, learn, and write down what happened.

history.jsonl   a line per step, and per evaluation
samples.jsonl   some responses every few steps, with their rewards
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rewardlab.data.render import plain_text
from rewardlab.errors import RewardlabError
from rewardlab.functional import ppo
from rewardlab.models.generate import Asked, Generated
from rewardlab.models.policies import save_policy
from rewardlab.protocols import RewardTerms
from rewardlab.records import Prompt, Response
from rewardlab.store.files import append_line, clear_when_disk_is_full
from rewardlab.store.processes import processes
from rewardlab.store.runs import Run
from rewardlab.store.together import together
from rewardlab.train.policy import POLICIES
from rewardlab.train.policy_run import kept_steps
from rewardlab.train.ppo import PPOTraining
from rewardlab.train.ppo_checkpoints import HELD_OUT, State, resumed, save
from rewardlab.train.ppo_learner import Learner
from rewardlab.train.ppo_rollout import (
    Batch,
    Measured,
    Prompts,
    Row,
    batch_measures,
    learned_from,
    mask_of,
    shaped,
    weighted,
    without_long,
)
from rewardlab.train.shares import own_places
from rewardlab.train.trackers import LoopTrackers
from rewardlab.train.trainer import stop_signals

HISTORY, SAMPLES, BEST = "history.jsonl", "samples.jsonl", "best"
LOGS = (HISTORY, SAMPLES)
TIMES = ("sampling", "scoring", "measuring", "reference", "update")
"""What the seconds of a step are spent on."""
SHOWN = 4
"""Responses of a step in samples.jsonl."""


class Loop:
    """Steps in their order, with what is written along the way.

    Args:
        config: everything.
        run: where it is written.
        rewards: the terms of the reward.
        learner: the networks.
        prompts: of the training.
        held_out: prompts that nothing is learned from; may be empty.
    """

    def __init__(
        self,
        config: PPOTraining,
        run: Run,
        rewards: RewardTerms,
        learner: Learner,
        prompts: Prompts,
        held_out: Prompts,
    ) -> None:
        self.config, self.run, self.rewards = config, run, rewards
        self.learner, self.prompts, self.held_out = learner, prompts, held_out
        self.state = State(config.beta)
        self.kept = set(kept_steps(config.steps, config.checkpoints))
        self._seconds: dict[str, float] = {}
        self._trackers: LoopTrackers | None = None
        self._saved = 0

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the prompts: a run that is resumed has those that it began with."""
        digest = hashlib.sha256()
        for ids in (self.prompts.ids, self.held_out.ids):
            digest.update(np.array([len(ids), *map(len, ids)], np.int64).tobytes())
            digest.update(np.fromiter(chain.from_iterable(ids), np.int64).tobytes())
        return digest.hexdigest()

    # --- from step to step ------------------------------------------------------------------------------------

    def go_on(self) -> bool:
        """All steps that are left; whether they are done, rather than stopped."""
        config, state = self.config, self.state
        bar = tqdm(
            total=config.steps, initial=state.step, unit="step", desc="ppo", mininterval=0.5,
            disable=not processes().is_first,
        )  # fmt: skip
        with stop_signals() as stopped, bar, self._tracked() as self._trackers:
            self._evaluate_where_due()
            halt = processes().any(bool(stopped))
            while state.step < config.steps and not halt:
                line = self._step(state.step + 1)
                bar.set_postfix(_shown(line), refresh=False)
                bar.update()
                self._leave_along(line)
                # A signal may reach one process only: all of them stop after the same step.
                halt = processes().any(bool(stopped))
                if state.step % config.save_every == 0 or state.step == config.steps or halt:
                    self._save()
                    # A launcher may end what is left once one process has: nobody goes before the state is there.
                    processes().wait()
        return state.step == config.steps

    def _step(self, step: int) -> dict[str, Any]:
        """One batch: sampled, rewarded, measured, learned from."""
        began = time.perf_counter()
        self._seconds = dict.fromkeys(TIMES, 0.0)
        places = self.prompts.of_step(step, self.config.batch_size // self.config.samples)
        rows = self._sampled(self.prompts, [(place, (step, number)) for number, place in enumerate(places)])
        replaced = without_long(rows, [self.config.seed, step, 2]) if self.config.omit_long else rows
        learned = self._learned(step, replaced) if replaced else {}
        if not replaced:
            self.run.log.warning("step %d: no response ended within max_new_tokens; nothing is learned from it", step)
        # Nothing of the state changes before rewards are there: a step that fails for lack of them was never begun.
        self.state.step = step
        counts = self._counted(rows, replaced)
        if step == 1 and (words := self.endless_words(counts["unfinished"])):
            self.run.log.warning(words)
        line = {"step": step, "epoch": self._epoch(step), "split": "train"} | counts | learned
        line["completions_per_second"] = round(len(rows) / (time.perf_counter() - began), 3)
        return line | {f"seconds.{name}": round(seconds, 4) for name, seconds in self._seconds.items()}

    def _learned(self, step: int, rows: list[Row]) -> dict[str, Any]:
        config, state, learner = self.config, self.state, self.learner
        with self._timed("scoring"):
            terms, scores = self._scored(rows)
        rewards, state.history = shaped(config, rows, scores, state.history)
        state.counts["level"] += int(len(rows) > 1 and float(rewards.min()) == float(rewards.max()))
        batch = self._measured(rows, rewards)
        with self._timed("update"):
            learned = learner.learn(batch, step)
        line: dict[str, Any] = {"score": float(scores.mean()), "reward": float(rewards.mean())}
        line |= {f"term.{name}": sum(values) / len(values) for name, values in terms.items()}
        line |= batch_measures(batch, config) | {"beta": state.beta}
        line |= learned | {"learning_rate": config.learning_rate * learner.rate_share(step)}
        self._check_divergence(step, line)
        if config.target_kl is not None:
            state.beta = ppo.adapted_beta(state.beta, line["kl"], config.target_kl, len(rows), config.horizon)
        if processes().is_first and (step % config.samples_every == 0 or step == 1):
            self._show(step, batch, terms, scores, rewards)
        return line

    def _measured(self, rows: list[Row], rewards: Tensor) -> Batch:
        """What is learned from: what policy, critic and reference say of every token, and its advantage."""
        learner = self.learner
        mask = mask_of(rows).to(learner.policy.device)
        if learner.critic is not None:
            learner.critic.begin_at(float(rewards.mean()))
        with self._timed("measuring"):
            old, values, entropies = learner.measure(rows, mask)
        with self._timed("reference"):
            reference = learner.refer(rows, mask)
        measured = Measured(old, reference, values, entropies)
        return learned_from(self.config, rows, measured, rewards.to(mask.device), mask, self.state.beta)

    def _check_divergence(self, step: int, line: dict[str, Any]) -> None:
        if line["kl"] < -2.0 * line["kl_error"] - 1e-3:
            self.state.counts["negative_kl"] += 1
            self.run.log.warning(
                "step %d: the divergence from the reference is %.3f nats, below 0 by more than chance: "
                "are responses drawn from the policy itself?", step, line["kl"],
            )  # fmt: skip

    def _leave_along(self, line: dict[str, Any]) -> None:
        """History, policies and evaluation of a step: all before the checkpoint, so that a kill passes none over."""
        step, config = self.state.step, self.config
        self._write(line)
        if step in self.kept:
            self.save_policy(self.run.path(POLICIES) / f"step-{step:06d}", merge=config.lora is None)
        self._evaluate_where_due()

    # --- responses and their rewards --------------------------------------------------------------------------

    def _sampled(self, prompts: Prompts, drawn: Sequence[tuple[int, tuple[int | str, ...]]]) -> list[Row]:
        """Responses, `samples` of a kind one after another; by prompt and what their seed is made of."""
        most = self.learner.policy.encoding.max_completion_tokens
        samples = range(self.config.samples)
        asked = [
            (place, Asked(prompts.ids[place], most, prompts.response_seed(place, *parts, sample)))
            for place, parts in drawn
            for sample in samples
        ]
        with self._timed("sampling"):
            found = self.learner.sample([one for _, one in asked])
        encoder = self.learner.policy.encoder
        return [
            Row(
                one.ids,
                made.tokens,
                _response(prompts.prompts[place], encoder.text(prompts.prompts[place], made.ids), made),
            )
            for (place, one), made in zip(asked, found, strict=True)
        ]

    def some_rows(self, most: int) -> list[Row]:
        """Responses of the policy as it is now, to the first prompts: of them a saved folder must say the same."""
        return self._sampled(self.prompts, [(place, ("checked",)) for place in range(min(most, len(self.prompts)))])

    def _scored(self, rows: Sequence[Row]) -> tuple[dict[str, list[float]], Tensor]:
        """The terms of the reward by name, and the weighted sum of them, [rows].

        Raises:
            RewardlabError: a reward that is no number, or cannot be had. The state before it is saved, so that a run
                that is resumed asks for the same ones again.
        """
        own = own_places(range(len(rows)))
        try:
            found = together(lambda: weighted(self.rewards, [rows[place].response for place in own]) if own else [])
        except RewardlabError:
            if self.state.step > self._saved:
                self._save()
                self.run.log.info("no rewards after step %d, whose state is saved: resume the run", self._saved)
            raise
        ordered = processes().in_order(own, found, len(rows))
        terms = {name: [values[name] for _, values in ordered] for name in ordered[0][1]}
        return terms, torch.tensor([total for total, _ in ordered])

    def _counted(self, rows: Sequence[Row], replaced: Sequence[Row]) -> dict[str, float]:
        """Shares of responses that need care; also added to the counts of the run."""
        unfinished = sum(not row.response.finished for row in rows)
        empty = sum(not row.response.text.strip() for row in rows)
        found = {"responses": len(rows), "unfinished": unfinished, "empty": empty, "skipped": int(not replaced)}
        found["replaced"] = unfinished if self.config.omit_long and replaced else 0
        for name, count in found.items():
            self.state.counts[name] += count
        return {"unfinished": unfinished / len(rows), "empty": empty / len(rows), "skipped": found["skipped"]}

    def endless_words(self, unfinished: float) -> str:
        """What to do where most responses are cut off; empty where they are not.

        Args:
            unfinished: the share of them.
        """
        if unfinished <= 0.5:
            return ""
        return (
            f"{100 * unfinished:.0f} % of the responses did not end within "
            f"{self.learner.policy.encoding.max_completion_tokens} tokens. Fine-tune the policy on whole answers first "
            "(rewardlab train sft), or raise max_new_tokens."
        )

    def _evaluate_where_due(self) -> None:
        """Before the first step, every so many steps, and after the last one."""
        step, config = self.state.step, self.config
        due = step % config.evaluate_every == 0 or step == config.steps
        if len(self.held_out) and due and self.state.evaluated < step:
            self._evaluate()

    def _evaluate(self) -> None:
        """The mean reward on the held-out prompts; the best policy so far is kept, by the term that is to choose."""
        rows = self._sampled(self.held_out, [(place, (HELD_OUT,)) for place in range(len(self.held_out))])
        terms, scores = self._scored(rows)
        step, score = self.state.step, float(scores.mean())
        line: dict[str, Any] = {"step": step, "epoch": self._epoch(step), "split": HELD_OUT, "n": len(rows)}
        line |= {"score": score, "score_error": float(scores.std() / math.sqrt(len(rows))) if len(rows) > 1 else None}
        line |= {f"term.{name}": sum(values) / len(values) for name, values in terms.items()}
        line["length"] = sum(len(row.ids) for row in rows) / len(rows)
        line["unfinished"] = sum(not row.response.finished for row in rows) / len(rows)
        self._write(line)
        by = self.config.best_by
        reached = score if by is None else line[f"term.{by}"]
        if self.state.best is None or reached > self.state.best[0]:
            self.state.best = reached, step
            self.save_policy(self.run.path(BEST), merge=True)
        self.state.evaluated = step

    # --- what is written --------------------------------------------------------------------------------------

    def _write(self, line: dict[str, Any]) -> None:
        if not processes().is_first:
            return
        # Forced to disk with the next checkpoint: what comes after that one is computed again anyway.
        append_line(self.run.path(HISTORY), line, force=False)
        if self._trackers is not None:
            self._trackers.write(line)

    def _tracked(self) -> LoopTrackers:
        config = self.config
        settings = {
            "max_steps": config.steps,
            "per_device_train_batch_size": config.batch_size,
            "learning_rate": config.learning_rate,
            "weight_decay": config.weight_decay,
            "max_grad_norm": config.max_grad_norm,
            "seed": config.seed,
            "use_cpu": self.learner.policy.device.type == "cpu",
        }
        network = self.learner.policy.plain_network
        names = config.report_to if processes().is_first else []
        return LoopTrackers(names, self.run, network, done=self.state.step, settings=settings)

    def _show(self, step: int, batch: Batch, terms: Mapping[str, list[float]], scores: Tensor, rewards: Tensor) -> None:
        divergences = ppo.row_sums(ppo.divergence(batch.measured.old, batch.measured.reference), batch.mask).tolist()
        for place, row in enumerate(batch.rows[:SHOWN]):
            response = row.response
            line = {
                "step": step,
                "prompt": plain_text(response.prompt),
                "response": response.text,
                "tokens": response.tokens,
                "finished": response.finished,
                "terms": {name: values[place] for name, values in terms.items()},
                "score": float(scores[place]),
                "reward": float(rewards[place]),
                "kl": divergences[place],
            }
            append_line(self.run.path(SAMPLES), line, force=False)

    def save_policy(self, folder: Path, *, merge: bool, card: str = "") -> None:
        """Save the policy as it is now, in the first process.

        Raises:
            RunError: the disk is full.
        """
        if not processes().is_first:
            return
        with clear_when_disk_is_full(folder):
            save_policy(self.learner.policy, folder, merge=merge, card=card)

    def _save(self) -> None:
        if processes().is_first:
            save(self.run, self.state, self.learner, digest=self.digest, logs=LOGS)
        self._saved = self.state.step

    def resume(self) -> None:
        """Take over the newest complete checkpoint of the run, if there is one, and forget what came after it.

        Raises:
            RunError: it was made with other prompts.
        """
        state = resumed(self.run, self.learner, digest=self.digest, logs=LOGS)
        if state is not None:
            self.state, self._saved = state, state.step
            self.run.log.info("goes on after step %d of %d", state.step, self.config.steps)

    def _epoch(self, step: int) -> float:
        per_step = self.config.batch_size // self.config.samples
        return round(step * per_step / len(self.prompts), 4)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - began


def _response(prompt: Prompt, text: str, made: Generated) -> Response:
    return Response(prompt, text, len(made.tokens), made.ended)


def _shown(line: Mapping[str, Any]) -> dict[str, str]:
    """What the bar says of a step."""
    shown = {"score": "score", "kl": "kl", "tokens": "length", "answers/s": "completions_per_second"}
    return {title: f"{line[name]:.2f}" for title, name in shown.items() if name in line}
