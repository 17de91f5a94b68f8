"""A training by PPO from its prompts to its folder: what it begins with, and what is left.

model/                the policy at the end, a plain folder; adapters are merged into its weights, or beside quantised
                      ones are all that it has
policies/step-000123/ evenly spaced policies: plain folders, or with lora adapter folders
best/                 the policy that is best on held-out prompts, where there are any, by the reward or by `best_by`
history.jsonl         a line per step, and per evaluation
samples.jsonl         some responses every few steps, with their rewards
checkpoints/          the newest state to resume from
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rewardlab.data.layout import share_prompt
from rewardlab.data.load import load_all
from rewardlab.data.source import with_limit
from rewardlab.data.turns import PolicyEncoding
from rewardlab.errors import DataError, ModelError, Problem, RunError, counted
from rewardlab.functional import shaping
from rewardlab.models.card import policy_card
from rewardlab.models.critic import Critic, head_on, own_critic
from rewardlab.models.language import answer_ends
from rewardlab.models.loading import context_length
from rewardlab.models.memory import keep_freed_memory
from rewardlab.models.policies import new_policy, saved_encoding
from rewardlab.models.policy import PolicyModel
from rewardlab.models.source import product_precision
from rewardlab.protocols import RewardTerms
from rewardlab.records import Prompt, Response
from rewardlab.store.files import (
    read_jsonl,
    write_json,
)
from rewardlab.store.processes import clear_when_lost, processes
from rewardlab.store.runs import Run
from rewardlab.store.together import together
from rewardlab.train.policy import MODEL, POLICIES
from rewardlab.train.policy_run import CHECKED_GROUPS, compare_reloaded
from rewardlab.train.ppo import PPOTraining
from rewardlab.train.ppo_checkpoints import HELD_OUT
from rewardlab.train.ppo_learner import Learner
from rewardlab.train.ppo_loop import BEST, HISTORY, TIMES, Loop
from rewardlab.train.ppo_rollout import Prompts, Row
from rewardlab.train.sets import set_aside_words
from rewardlab.train.setup import (
    ACCELERATOR_BUDGET,
    CPU_BUDGET,
    checkpoint_activations,
    lines_of,
    set_aside_of,
    training_device,
)
from rewardlab.train.trackers import check_trackers
from rewardlab.train.trainer import clear_when_out_of_memory

TRAINED_ON = (
    f"{BEST}/ is chosen by a reward that is trained on, which flatters it: name a term of weight 0 with best_by."
)


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
            by = f" by {summary['best_by']}" if summary["best_by"] else ""
            lines.append(f"Best on held-out prompts{by}: {best['score']:.3f}, after step {best['step']}: {BEST}/")
        lines += summary["warnings"]
        counts = summary["counts"]
        lines += [
            f"{counted(counts[name], noun)} {words}."
            for name, noun, words in (
                ("unfinished", "response", "cut off before an end"),
                ("empty", "response", "without a token"),
                ("replaced", "response", "replaced by finished ones"),
                ("skipped", "batch", "without a finished response left out"),
                ("level", "step", "had one reward for all responses, which teaches nothing"),
                ("negative_kl", "step", "had a divergence below 0 by more than chance"),
            )
            if counts[name]
        ]
        if summary["policies"]:
            lines.append(f"{counted(len(summary['policies']), 'policy')} along the way: {POLICIES}/")
        return [*lines, f"Policy: {self.model}"]


def run_ppo(config: PPOTraining, run: Run, rewards: RewardTerms, *, says: str = "") -> TrainedByPPO:
    """Train a policy on rewards of its own responses.

    Args:
        config: everything else.
        run: its directory; an unfinished one goes on from the newest complete checkpoint.
        rewards: the terms of the reward.
        says: what the reward is, for the first line of the log.

    Raises:
        ConfigError: a tracker that is not installed.
        DataError: no prompts, or unusable data.
        ModelError: unusable model, critic or device, or a saved policy that is not the one that was trained.
        RunError: resumed with other prompts, or the disk is full.
        RewardlabError: training diverged, out of memory, or rewards that cannot be had or are no numbers; of these the
            state before them is saved.
        KeyboardInterrupt: stopped; the run can be resumed.
    """
    check_trackers(config.report_to)
    keep_freed_memory()
    if says:
        run.log.info(says)
    with clear_when_out_of_memory(), clear_when_lost():
        loop, described, set_aside = together(lambda: _prepared(config, run, rewards))
        _refuse_other_prompts(loop)
        loop.learner.begin_together()
        _log_start(run, loop)
        loop.resume()
        if not loop.go_on():
            raise KeyboardInterrupt
        rows = loop.some_rows(CHECKED_GROUPS)
        return TrainedByPPO(run.path(MODEL), processes().first(lambda: _finish(loop, rows, described, set_aside)))


def _prepared(config: PPOTraining, run: Run, rewards: RewardTerms) -> tuple[Loop, list[str], dict[str, dict[str, int]]]:
    """The loop before its first step, a line per training file for the card, and the rows that cannot be used.

    Raises:
        InputError: something that is configured cannot be used.
    """
    training, held_out, described, set_aside = _read_prompts(config)
    for words in set_aside_words(set_aside) if processes().is_first else ():
        run.log.warning(words)
    device = training_device(config.device)
    config = config.model_copy(update={"precision": product_precision(config.precision, device)})
    policy = _policy(config).to(device)
    critic = _critic(config, policy, device)
    budget = config.token_budget or (CPU_BUDGET if policy.device.type == "cpu" else ACCELERATOR_BUDGET)
    learner = Learner(config, policy, critic, ends=_ends(policy, [*training, *held_out]), budget=budget)
    streams = [_stream(config, policy, prompts) for prompts in (training, held_out)]
    _check_context(policy, streams)
    return Loop(config, run, rewards, learner, *streams), described, set_aside


def _refuse_other_prompts(loop: Loop) -> None:
    """Every process is to know all prompts, of whose responses it takes its share.

    Raises:
        RunError: one has read others.
    """
    differ = processes().any(loop.digest != processes().first(lambda: loop.digest))

    def refuse() -> None:
        if differ:
            problem = Problem("the prompts", "others in another process", "the same in all", "Same files everywhere?")
            raise RunError("the processes do not train on the same prompts", [problem])

    together(refuse)


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


def _course(steps: int, first: Mapping[str, float], last: Mapping[str, float]) -> str:
    return (
        f"Mean reward {first['score']:.3f} in the first {first['steps']} of {steps} steps, {last['score']:.3f} in the "
        f"last {last['steps']}; divergence from the start {last['kl']:.2f} nats, {last['length']:.0f} tokens a "
        f"response (at first {first['length']:.0f})."
    )


def _read_prompts(config: PPOTraining) -> tuple[list[Prompt], list[Prompt], list[str], dict[str, dict[str, int]]]:
    """Training prompts, held-out prompts, a line per training file for the card, and the rows that cannot be used.

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
    set_aside = set_aside_of({"train": loaded[:count], "validation": loaded[count:]})
    return training, held_out, lines_of(loaded[:count]), set_aside


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
    own = answer_ends(policy.tokenizer, policy.plain_network.generation_config)
    return own.union(*(policy.encoder.end(prompt) for prompt in prompts))


def _stream(config: PPOTraining, policy: PolicyModel, prompts: Sequence[Prompt]) -> Prompts:
    encoded = policy.encoder.prompts(prompts)
    return Prompts(prompts, [one.ids for one in encoded], config.seed, truncated=sum(one.truncated for one in encoded))


def _check_context(policy: PolicyModel, streams: Sequence[Prompts]) -> None:
    """Refuse responses that the policy was not made to write.

    Raises:
        ModelError: the longest prompt and response do not fit into its context.
    """
    context = context_length(policy.plain_network)
    longest = max(len(ids) for stream in streams for ids in stream.ids)
    most = policy.encoding.max_completion_tokens
    if context is not None and longest + most > context:
        found = f"a prompt of {longest} tokens and responses of up to {most}"
        remedy = "Set max_new_tokens or encoding.max_prompt_tokens lower."
        problem = Problem("model", found, f"{context} tokens, the model's context, at most", remedy)
        raise ModelError("Prompts and responses are longer than the model can read", [problem])


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
    for words in _warnings(loop):
        run.log.warning(words)


def _truncated(loop: Loop) -> dict[str, int]:
    """How many prompts of each set were cut on the left."""
    return {"train": loop.prompts.truncated, HELD_OUT: loop.held_out.truncated}


def _warnings(loop: Loop) -> list[str]:
    """What the result has to be read with."""
    most = loop.learner.policy.encoding.max_prompt_tokens
    cut = [
        f"{name}: {counted(count, 'prompt')} cut on the left, to encoding.max_prompt_tokens, {most}."
        for name, count in _truncated(loop).items()
        if count
    ]
    by = loop.config.best_by
    trained_on = len(loop.held_out) > 0 and (by is None or loop.rewards.weights[by] != 0)
    return [*cut, TRAINED_ON] if trained_on else cut


def _finish(
    loop: Loop, rows: Sequence[Row], described: Sequence[str], set_aside: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """Save the policy, load it again, compare what both say of some rows, and write the summary."""
    run, learner, config = loop.run, loop.learner, loop.config
    folder, policy = run.path(MODEL), learner.policy.eval()
    summary = _summary(loop) | {"set_aside": set_aside}
    loop.save_policy(folder, merge=True, card=_card(config, policy, summary, described))
    groups = [share_prompt(row.prompt_ids, [row.ids]) for row in rows]
    learner.free_optimiser()
    compare_reloaded(policy, folder, groups, run.log, config.model)
    write_json(run.path("summary.json"), summary)
    return summary


def _summary(loop: Loop) -> dict[str, Any]:
    run, learner, state = loop.run, loop.learner, loop.state
    steps = [line for line in read_jsonl(run.path(HISTORY)) if line["split"] == "train"]
    late = steps[-max(1, len(steps) // 10) :]
    endless = loop.endless_words(sum(line["unfinished"] for line in late) / len(late))
    lines = [line for line in steps if "score" in line]
    edge = max(1, len(lines) // 10)
    rates = sorted(line["completions_per_second"] for line in lines)
    return {
        "steps": state.step,
        "first": _means(lines[:edge]) if lines else None,
        "last": _means(lines[-edge:]) if lines else None,
        "best_by": loop.config.best_by,
        "best": None if state.best is None else {"score": state.best[0], "step": state.best[1]},
        "counts": state.counts,
        "truncated_prompts": _truncated(loop),
        "warnings": [*_warnings(loop), *filter(None, [endless])],
        "policies": sorted(path.name for path in run.path(POLICIES).glob("step-*")),
        "completions_per_second": rates[len(rates) // 2] if rates else None,
        "seconds": {name: round(sum(line[f"seconds.{name}"] for line in lines), 2) for name in TIMES},
        "beta": state.beta,
        "parameters": sum(weight.numel() for weight in learner.policy.parameters()),
        "layout": learner.policy.layout,
        "fallback": learner.policy.fallback,
        "token_budget": learner.budget,
        "seed": loop.config.seed,
    }


def _means(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = ("score", "reward", "kl", "length", "entropy", "unfinished")
    return {name: sum(line[name] for line in lines) / len(lines) for name in names} | {"steps": len(lines)}


def _card(config: PPOTraining, policy: PolicyModel, summary: Mapping[str, Any], described: Sequence[str]) -> str:
    last = summary["last"]
    over = f"(mean of the last {last['steps']} steps of {config.batch_size} responses)" if last else ""
    measures = {name: f"{last[name]:.4f} {over}" for name in ("score", "kl", "length", "unfinished")} if last else {}
    fields = {
        "steps", "batch_size", "inner_epochs", "learning_rate", "beta", "target_kl", "temperature", "baseline", "seed",
        "lora", "precision",
    }  # fmt: skip
    settings = {"objective": "ppo"} | config.model_dump(mode="json", include=fields)
    settings["quantisation"] = config.model.quantisation
    path = config.model.path
    base = str(config.model.shape) if path is None else Path(path).name if Path(path).is_dir() else path
    encoding = policy.encoding
    notes = [
        f"Of prompts longer than {encoding.max_prompt_tokens} tokens the end is read.",
        f"Responses had {encoding.max_completion_tokens} tokens at most.",
    ]
    return policy_card(base=base, data=described, settings=settings, measures=measures, notes=notes)
