"""A training by PPO from its first step to its folder: the loop, its checkpoints, its history, what is left.

model/                the policy at the end, a plain folder; adapters are merged into its weights
policies/step-000123/ evenly spaced policies: plain folders, or with lora adapter folders
best/                 the policy with the best reward on held-out prompts, where there are any
history.jsonl         a line per step, and per evaluation
samples.jsonl         some responses every few steps, with their rewards
checkpoints/          the newest state to resume from
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from rewardlab.data.layout import Group, share_prompt
from rewardlab.data.load import load_all
from rewardlab.data.render import plain_text
from rewardlab.data.source import with_limit
from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import DataError, ModelError, Problem, RewardlabError, RunError
from rewardlab.functional import ppo, shaping
from rewardlab.models.card import policy_card
from rewardlab.models.critic import Critic, head_on, own_critic
from rewardlab.models.generate import Asked, Generated
from rewardlab.models.loading import product_precision, torch_device
from rewardlab.models.memory import keep_freed_memory
from rewardlab.models.policies import new_policy, save_policy, saved_encoding
from rewardlab.models.policy import PolicyModel
from rewardlab.protocols import RewardTerms
from rewardlab.records import Prompt, Response, content_id
from rewardlab.store.files import (
    append_line,
    atomic_path,
    clear_when_disk_is_full,
    read_json,
    read_jsonl,
    sync_file,
    write_json,
)
from rewardlab.store.processes import alone
from rewardlab.store.runs import Run
from rewardlab.train.checkpoints import cut_history, newest_complete, rotate, seal, step_of
from rewardlab.train.policy import MODEL, POLICIES
from rewardlab.train.policy_run import CHECKED_GROUPS, compare_reloaded, kept_steps
from rewardlab.train.ppo import PPOTraining
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
    without_long,
)
from rewardlab.train.setup import ACCELERATOR_BUDGET, CPU_BUDGET, checkpoint_activations, lines_of
from rewardlab.train.tensorboard import TENSORBOARD, import_writer
from rewardlab.train.trainer import clear_when_out_of_memory, stop_signals

HISTORY, SAMPLES, BEST, CHECKPOINTS = "history.jsonl", "samples.jsonl", "best", "checkpoints"
WEIGHTS, OPTIMISER, STATE = "trained.safetensors", "optimiser.pt", "state.json"
SHOWN = 4
"""Responses of a step in samples.jsonl."""
HELD_OUT = "validation"


@dataclass
class State:
    """What training goes on from, beside weights and optimiser; chance needs nothing, as every draw has its own seed.

    Attributes:
        step: steps done.
        beta: what a nat of divergence costs in the next one.
        history: what the last rewards were like.
        best: reward on the held-out prompts of the policy in best/, and its step.
        counts: over all steps: responses, those unfinished, empty and replaced, and batches that were left out.
    """

    beta: float
    step: int = 0
    history: tuple[shaping.Batch, ...] = ()
    best: tuple[float, int] | None = None
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("responses", "unfinished", "empty", "replaced", "skipped"), 0)
    )

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**self.__dict__, "history": [list(one) for one in self.history]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> State:
        """What `as_dict` gave."""
        history = tuple(shaping.Batch(*one) for one in values["history"])
        best = None if values["best"] is None else (values["best"][0], values["best"][1])
        return cls(values["beta"], values["step"], history, best, dict(values["counts"]))


@dataclass(frozen=True)
class TrainedByPPO:
    """What training gave.

    Attributes:
        model: folder of the policy at the end.
        summary: what summary.json holds.
    """

    model: Path
    summary: dict[str, Any]

    def lines(self) -> list[str]:
        """The result in words."""
        summary, first, last = self.summary, self.summary["first"], self.summary["last"]
        lines = [
            _course(summary["steps"], first, last) if first else "Nothing was learned: no response ended by itself."
        ]
        if summary["best"] is not None:
            best = summary["best"]
            lines.append(f"Best on held-out prompts: {best['score']:.3f}, after step {best['step']}: {BEST}/")
        counts = summary["counts"]
        lines += [
            f"{counts[name]} {words}."
            for name, words in (
                ("unfinished", "responses did not end by themselves"),
                ("empty", "responses were empty"),
                ("replaced", "responses were replaced by finished ones"),
                ("skipped", "batches without a finished response were left out"),
                ("negative_kl", "steps had a divergence below 0 by more than chance"),
            )
            if counts[name]
        ]
        if summary["policies"]:
            lines.append(f"{len(summary['policies'])} policies along the way: {POLICIES}/")
        return [*lines, f"Policy: {self.model}"]


def run_ppo(config: PPOTraining, run: Run, rewards: RewardTerms, *, says: str = "") -> TrainedByPPO:
    """Train a policy on rewards of its own responses.

    Args:
        config: everything else.
        run: its directory; an unfinished one goes on from the newest complete checkpoint.
        rewards: the terms of the reward.
        says: what the reward is, for the first line of the log.

    Raises:
        ConfigError: several processes.
        DataError: no prompts, or unusable data.
        ModelError: unusable model, critic or device, or a saved policy that is not the one that was trained.
        RunError: resumed with other prompts, or the disk is full.
        RewardlabError: training diverged, a reward that is no number, or out of memory.
        KeyboardInterrupt: stopped; the run can be resumed.
    """
    alone("train ppo")
    keep_freed_memory()
    if says:
        run.log.info(says)
    training, held_out, described = _read_prompts(config)
    device = torch_device(config.device)
    config = config.model_copy(update={"precision": product_precision(config.precision, device)})
    with clear_when_out_of_memory():
        policy = _policy(config).to(device)
        critic = _critic(config, policy, device)
        budget = config.token_budget or (CPU_BUDGET if policy.device.type == "cpu" else ACCELERATOR_BUDGET)
        every = [*training, *held_out]
        ends = _ends(policy, every)
        learner = Learner(config, policy, critic, ends=ends, budget=budget)
        loop = Loop(config, run, rewards, learner, _stream(config, policy, training), _stream(config, policy, held_out))
        _log_start(run, loop)
        loop.resume()
        if not loop.go_on():
            raise KeyboardInterrupt
        return TrainedByPPO(run.path(MODEL), loop.finish(described))


class LengthOnly:
    """The reward of length-only PPO, which asks no reward model.

    Args:
        target: length that is best, in tokens of the policy, the end included.
    """

    def __init__(self, target: float) -> None:
        self.target = target

    @property
    def weights(self) -> Mapping[str, float]:
        """The one term counts once."""
        return {"length": 1.0}

    @property
    def line(self) -> str:
        """The reward in one line."""
        return f"reward = 1 - |tokens / {self.target:g} - 1|"

    def terms(self, responses: Sequence[Response]) -> dict[str, list[float]]:
        """What each length is worth."""
        lengths = torch.tensor([one.tokens for one in responses])
        return {"length": shaping.length_rewards(lengths, self.target).tolist()}


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
        self._board: Any = None

    @property
    def digest(self) -> str:
        """Of the prompts: a run that is resumed has those that it began with."""
        return content_id([list(map(list, self.prompts.ids)), list(map(list, self.held_out.ids))])

    # --- from step to step ------------------------------------------------------------------------------------

    def go_on(self) -> bool:
        """All steps that are left; whether they are done, rather than stopped."""
        config, state = self.config, self.state
        if TENSORBOARD in config.report_to:
            self._board = import_writer()(log_dir=str(self.run.path(TENSORBOARD)), purge_step=state.step + 1)
        bar = tqdm(total=config.steps, initial=state.step, unit="step", desc="ppo", mininterval=0.5)
        with (
            stop_signals() as stopped,
            bar,
            contextlib.closing(self._board) if self._board else contextlib.nullcontext(),
        ):
            if state.step == 0:
                self._evaluate()
            while state.step < config.steps and not stopped:
                line = self._step(state.step + 1)
                bar.set_postfix(_shown(line), refresh=False)
                bar.update()
                self._leave_along(line)
                if state.step % config.save_every == 0 or state.step == config.steps or stopped:
                    self._save()
        return state.step == config.steps

    def _step(self, step: int) -> dict[str, Any]:
        """One batch: sampled, rewarded, measured, learned from."""
        began = time.perf_counter()
        self._seconds = dict.fromkeys(("sampling", "scoring", "measuring", "reference", "update"), 0.0)
        places = self.prompts.of_step(step, self.config.batch_size // self.config.samples)
        rows = self._sampled(self.prompts, [(place, (step, number)) for number, place in enumerate(places)])
        line = {"step": step, "epoch": self._epoch(step), "split": "train"} | self._counted(rows)
        replaced = without_long(rows, [self.config.seed, step, 2]) if self.config.omit_long else rows
        if replaced:
            if replaced is not rows:
                self.state.counts["replaced"] += sum(not row.response.finished for row in rows)
            line |= self._learned(step, replaced)
        else:
            self.state.counts["skipped"] += 1
            self.run.log.warning("step %d: no response ended within max_new_tokens; nothing is learned from it", step)
        self.state.step = step
        line["skipped"] = int(not replaced)
        line["completions_per_second"] = round(len(rows) / (time.perf_counter() - began), 3)
        return line | {f"seconds.{name}": round(seconds, 4) for name, seconds in self._seconds.items()}

    def _learned(self, step: int, rows: list[Row]) -> dict[str, Any]:
        config, state, learner = self.config, self.state, self.learner
        with self._timed("scoring"):
            terms, scores = self._scored(rows)
        rewards, state.history = shaped(config, rows, scores, state.history)
        mask = mask_of(rows).to(learner.policy.device)
        with self._timed("measuring"):
            old, values, entropies = learner.measure(rows, mask)
        with self._timed("reference"):
            reference = learner.refer(rows, mask)
        measured = Measured(old, reference, values, entropies)
        batch = learned_from(config, rows, measured, rewards.to(mask.device), mask, state.beta)
        with self._timed("update"):
            learned = learner.learn(batch, step)
        line: dict[str, Any] = {"score": float(scores.mean()), "reward": float(rewards.mean())}
        line |= {f"term.{name}": sum(values) / len(values) for name, values in terms.items()}
        line |= batch_measures(batch, config) | {"beta": state.beta}
        line |= learned | {"learning_rate": config.learning_rate * learner.rate_share(step)}
        self._check_divergence(step, line)
        if config.target_kl is not None:
            state.beta = ppo.adapted_beta(state.beta, line["kl"], config.target_kl, len(rows), config.horizon)
        if step % config.samples_every == 0 or step == 1:
            self._show(step, batch, terms, scores, rewards)
        return line

    def _check_divergence(self, step: int, line: dict[str, Any]) -> None:
        if line["kl"] < -2.0 * line["kl_error"] - 1e-3:
            self.state.counts["negative_kl"] = self.state.counts.get("negative_kl", 0) + 1
            self.run.log.warning(
                "step %d: the divergence from the reference is %.3f nats, below 0 by more than chance: "
                "are responses drawn from the policy itself?", step, line["kl"],
            )  # fmt: skip

    def _leave_along(self, line: dict[str, Any]) -> None:
        """History, policies and evaluation of a step: all before the checkpoint, so that a kill passes none over."""
        step, config = self.state.step, self.config
        self._write(line)
        if step in self.kept:
            self._save_policy(self.run.path(POLICIES) / f"step-{step:06d}", merge=config.lora is None)
        if step % config.evaluate_every == 0 or step == config.steps:
            self._evaluate()

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

    def _scored(self, rows: Sequence[Row]) -> tuple[dict[str, list[float]], Tensor]:
        """The terms of the reward by name, and the weighted sum of them, [rows].

        Raises:
            RewardlabError: a reward that is no number.
        """
        terms = self.rewards.terms([row.response for row in rows])
        weights = self.rewards.weights
        sums = [math.fsum(weights[name] * own[place] for name, own in terms.items()) for place in range(len(rows))]
        if not all(map(math.isfinite, sums)):
            raise RewardlabError("A reward is no finite number: look at the terms of the reward, one by one.")
        return terms, torch.tensor(sums)

    def _counted(self, rows: Sequence[Row]) -> dict[str, float]:
        """Shares of responses that need care; also added to the counts of the run."""
        unfinished = sum(not row.response.finished for row in rows)
        empty = sum(not row.response.text.strip() for row in rows)
        for name, count in (("responses", len(rows)), ("unfinished", unfinished), ("empty", empty)):
            self.state.counts[name] += count
        return {"unfinished": unfinished / len(rows), "empty": empty / len(rows)}

    def _evaluate(self) -> None:
        """The mean reward on the held-out prompts; the best policy so far is kept."""
        if not len(self.held_out):
            return
        rows = self._sampled(self.held_out, [(place, (HELD_OUT,)) for place in range(len(self.held_out))])
        terms, scores = self._scored(rows)
        step, score = self.state.step, float(scores.mean())
        line: dict[str, Any] = {"step": step, "epoch": self._epoch(step), "split": HELD_OUT, "n": len(rows)}
        line |= {"score": score, "score_error": float(scores.std() / math.sqrt(len(rows))) if len(rows) > 1 else None}
        line |= {f"term.{name}": sum(values) / len(values) for name, values in terms.items()}
        line["length"] = sum(len(row.ids) for row in rows) / len(rows)
        line["unfinished"] = sum(not row.response.finished for row in rows) / len(rows)
        self._write(line)
        if self.state.best is None or score > self.state.best[0]:
            self.state.best = score, step
            self._save_policy(self.run.path(BEST), merge=True)

    # --- what is written --------------------------------------------------------------------------------------

    def _write(self, line: dict[str, Any]) -> None:
        # Forced to disk with the next checkpoint: what comes after that one is computed again anyway.
        append_line(self.run.path(HISTORY), line, force=False)
        if self._board is not None:
            for name, value in line.items():
                if isinstance(value, int | float) and name not in ("step", "epoch"):
                    self._board.add_scalar(f"{line['split']}/{name}", value, line["step"])

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

    def _save_policy(self, folder: Path, *, merge: bool, card: str = "") -> None:
        with clear_when_disk_is_full(folder):
            save_policy(self.learner.policy, folder, merge=merge, card=card)

    def _save(self) -> None:
        """A state to resume from, complete or not used."""
        folder = self.run.path(CHECKPOINTS)
        checkpoint = folder / f"checkpoint-{self.state.step}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        with clear_when_disk_is_full(checkpoint):
            save_file(
                {name: one.detach().contiguous() for name, one in self.learner.trained().items()}, checkpoint / WEIGHTS
            )
            with atomic_path(checkpoint / OPTIMISER) as temporary:
                torch.save(self.learner.optimiser.state_dict(), temporary)
            facts = {"prompts": self.digest, "budget": self.learner.budget, "places": self.learner.places}
            write_json(checkpoint / STATE, self.state.as_dict() | facts)
            for name in (HISTORY, SAMPLES):
                if self.run.path(name).exists():
                    sync_file(self.run.path(name))
            seal(checkpoint)
        rotate(folder, {self.state.step})

    def resume(self) -> None:
        """Take over the newest complete checkpoint of the run, if there is one, and forget what came after it.

        Raises:
            RunError: it was made with other prompts.
        """
        checkpoint = newest_complete(self.run.path(CHECKPOINTS)) if self.run.resumed else None
        for name in (HISTORY, SAMPLES):
            # What stands at step 0 goes too, where nothing was saved.
            cut_history(self.run.path(name), -1 if checkpoint is None else step_of(checkpoint))
        if checkpoint is None:
            return
        values = read_json(checkpoint / STATE)
        if values["prompts"] != self.digest:
            remedy = "Put the prompts and the tokenizer back as they were, or start another run."
            problem = Problem(str(checkpoint), "a run that now has other prompts", "those it was trained on", remedy)
            raise RunError("a training is resumed with the data it began with", [problem])
        learner, device = self.learner, self.learner.policy.device
        weights = load_file(checkpoint / WEIGHTS)
        if weights.keys() != learner.trained().keys():
            raise RewardlabError(f"{checkpoint} does not hold the weights that this run trains")
        learner.modules.load_state_dict(weights, strict=False)
        learner.optimiser.load_state_dict(torch.load(checkpoint / OPTIMISER, map_location=device, weights_only=True))
        self.state = State.from_dict(values)
        # A run may go on on a smaller device than it began on.
        learner.budget, learner.places = min(learner.budget, values["budget"]), values["places"]
        self.run.log.info("goes on after step %d of %d", self.state.step, self.config.steps)

    def finish(self, described: Sequence[str]) -> dict[str, Any]:
        """Save the policy, load it again, compare, and write the summary."""
        folder, policy = self.run.path(MODEL), self.learner.policy.eval()
        summary = self._summary()
        self._save_policy(folder, merge=True, card=_card(self.config, policy, summary, described))
        groups = self._checked_groups()
        self.learner.free_optimiser()
        compare_reloaded(policy, folder, groups, self.run.log, trust_remote_code=self.config.model.trust_remote_code)
        write_json(self.run.path("summary.json"), summary)
        return summary

    def _checked_groups(self) -> list[Group]:
        """Prompts with the beginnings of responses, of which a saved folder must say the same."""
        rows = self._sampled(
            self.prompts, [(place, ("checked",)) for place in range(min(CHECKED_GROUPS, len(self.prompts)))]
        )
        return [share_prompt(row.prompt_ids, [row.ids]) for row in rows]

    def _summary(self) -> dict[str, Any]:
        lines = [line for line in read_jsonl(self.run.path(HISTORY)) if line["split"] == "train" and "score" in line]
        edge = max(1, len(lines) // 10)
        rates = sorted(line["completions_per_second"] for line in lines)
        policy, state = self.learner.policy, self.state
        return {
            "steps": state.step,
            "first": _means(lines[:edge]) if lines else None,
            "last": _means(lines[-edge:]) if lines else None,
            "best": None if state.best is None else {"score": state.best[0], "step": state.best[1]},
            "counts": {"negative_kl": 0, **state.counts},
            "policies": sorted(path.name for path in self.run.path(POLICIES).glob("step-*")),
            "completions_per_second": rates[len(rates) // 2] if rates else None,
            "seconds": {
                name: round(sum(line[f"seconds.{name}"] for line in lines), 2)
                for name in ("sampling", "scoring", "measuring", "reference", "update")
            },
            "beta": state.beta,
            "parameters": sum(weight.numel() for weight in policy.parameters()),
            "layout": policy.layout,
            "fallback": policy.fallback,
            "token_budget": self.learner.budget,
            "seed": self.config.seed,
        }

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


def _course(steps: int, first: Mapping[str, float], last: Mapping[str, float]) -> str:
    return (
        f"Mean reward {first['score']:.3f} in the first {first['steps']} of {steps} steps, {last['score']:.3f} in the "
        f"last {last['steps']}; divergence from the start {last['kl']:.2f} nats, {last['length']:.0f} tokens a "
        f"response (at first {first['length']:.0f})."
    )


def _response(prompt: Prompt, text: str, made: Generated) -> Response:
    return Response(prompt, text, len(made.tokens), made.ended)


def _shown(line: Mapping[str, Any]) -> dict[str, str]:
    """What the bar says of a step."""
    shown = {"reward": "score", "kl": "kl", "tokens": "length", "answers/s": "completions_per_second"}
    return {title: f"{line[name]:.2f}" for title, name in shown.items() if name in line}


def _means(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = ("score", "reward", "kl", "length", "entropy", "unfinished")
    return {name: sum(line[name] for line in lines) / len(lines) for name in names} | {"steps": len(lines)}


def _read_prompts(config: PPOTraining) -> tuple[list[Prompt], list[Prompt], list[str]]:
    """Training prompts, held-out prompts, and a line per training file for the card.

    Raises:
        DataError: unusable data, or prompts that are in both.
    """
    loaded = load_all((with_limit(source, config.limit) for source in [*config.train, *config.validation]), usable=True)
    count = len(config.train)
    training, held_out = (
        list(dict.fromkeys(record.prompt for one in part for record in one.records))
        for part in (loaded[:count], loaded[count:])
    )
    both = set(training) & set(held_out)
    if both:
        found = f"{len(both)} prompts that are in train too"
        problem = Problem("validation", found, "prompts that nothing is learned from", "rewardlab data prepare splits.")
        raise DataError("Held-out prompts are held out", [problem])
    return training, held_out, lines_of(loaded[:count])


def _policy(config: PPOTraining) -> PolicyModel:
    """The policy before its first step.

    Raises:
        ModelError: unusable, or an encoder-decoder.
    """
    source = config.model
    saved = saved_encoding(source.path, source.revision) if source.path is not None else None
    encoding = config.encoding or saved or PolicyEncoding()
    if config.max_new_tokens is not None:
        encoding = encoding.model_copy(update={"max_completion_tokens": config.max_new_tokens})
    policy = new_policy(
        source, encoding, seed=config.seed, lora=config.lora, layout=config.layout, temperature=config.temperature
    )
    if policy.is_encoder_decoder:
        problem = Problem("model", "an encoder-decoder", "a decoder-only language model", "train exo takes both.")
        raise ModelError("PPO trains causal policies", [problem])
    if config.gradient_checkpointing:
        checkpoint_activations(policy)
    return policy


def _critic(config: PPOTraining, policy: PolicyModel, device: str) -> Critic | None:
    if config.baseline == "rloo":
        return None
    if config.critic is None:
        return head_on(policy).to(device)
    return own_critic(config.critic, policy, seed=config.seed, layout=config.layout).to(device)


def _ends(policy: PolicyModel, prompts: Sequence[Prompt]) -> frozenset[int]:
    """The tokens that end a response: the checkpoint's own, and what its chat template ends one with."""
    own = policy.plain_network.generation_config.eos_token_id
    named = {policy.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    return frozenset(named.union(*(policy.encoder.end(prompt) for prompt in prompts)))


def _stream(config: PPOTraining, policy: PolicyModel, prompts: Sequence[Prompt]) -> Prompts:
    return Prompts(prompts, [one.ids for one in policy.encoder.prompts(prompts)], config.seed)


def _log_start(run: Run, loop: Loop) -> None:
    """What a person who reads the log has to know."""
    policy, learner = loop.learner.policy, loop.learner
    run.log.info("%d prompts, %d held-out ones", len(loop.prompts), len(loop.held_out))
    run.log.info(
        "%d parameters, %d of policy and critic trained, on %s, products in %s; %s layout%s; %d tokens a micro-batch",
        sum(weight.numel() for weight in policy.parameters()),
        sum(weight.numel() for weight in learner.trained().values()),
        policy.device,
        loop.config.precision,
        policy.layout,
        f" ({policy.fallback})" if policy.fallback else "",
        learner.budget,
    )


def _card(config: PPOTraining, policy: PolicyModel, summary: Mapping[str, Any], described: Sequence[str]) -> str:
    last = summary["last"]
    over = f"(mean of the last {last['steps']} steps of {config.batch_size} responses)" if last else ""
    measures = {name: f"{last[name]:.4f} {over}" for name in ("score", "kl", "length", "unfinished")} if last else {}
    fields = {
        "steps", "batch_size", "inner_epochs", "learning_rate", "beta", "target_kl", "temperature", "baseline", "seed",
        "lora", "precision",
    }  # fmt: skip
    settings = {"objective": "ppo"} | config.model_dump(mode="json", include=fields)
    path = config.model.path
    base = str(config.model.shape) if path is None else Path(path).name if Path(path).is_dir() else path
    encoding = policy.encoding
    notes = [
        f"Of prompts longer than {encoding.max_prompt_tokens} tokens the end is read.",
        f"Responses had {encoding.max_completion_tokens} tokens at most.",
    ]
    return policy_card(base=base, data=described, settings=settings, measures=measures, notes=notes)
