"""A reward model: a backbone, what reads it, its tokenizer and its encoding.

By default the network inside is transformers' own sequence-classification model, so a saved folder loads anywhere.
Causal backbones are read at the last token of every sequence, found by position and never by the pad id; encoders are
read by their own classification head. With a readout of ours the network is a backbone alone, and the readout stands
beside it (`models.readouts`). A network whose code came with its checkpoint is run as its author runs it: whole
sequences without any padding, the reward read from the output that is named.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from rewardlab.data.layout import Group, pad, share_prefix
from rewardlab.data.tokenize import Encoded, Encoder, Encoding, TokenSequence
from rewardlab.errors import ModelError, Problem
from rewardlab.models.classes import ClassReading, is_exclusive
from rewardlab.models.memory import is_out_of_memory
from rewardlab.models.quantisation import quantised_by
from rewardlab.models.readouts import READS, AnyReadout, Readout
from rewardlab.models.states import Reading, reads_segments
from rewardlab.records import Prompt

Layout = Literal["shared", "flat"]
PromptForm = Literal["text", "conversation", "both"]
LOGITS = "logits"
"""The output that a classifier's scores are called by."""

log = logging.getLogger("rewardlab")


def form_of(prompts: Iterable[Prompt]) -> PromptForm:
    """Whether prompts are plain texts, conversations or some of each."""
    forms = {prompt.is_text for prompt in prompts}
    return "both" if len(forms) > 1 else "text" if True in forms else "conversation"


def form_warning(given: PromptForm, trained: PromptForm | None, of: str = "prompts", source: str = "data") -> str:
    """What is to be said of prompts of one form for a model trained on another; empty where there is nothing to say.

    Args:
        given: form of the prompts.
        trained: form of those of training.
        of: what the prompts are called.
        source: the option that names their source.
    """
    if trained not in ("text", "conversation") or given == trained:
        return ""
    words = {"text": "plain texts", "conversation": "conversations", "both": "both texts and conversations"}
    role = "text" if trained == "text" else "user"
    return (
        f"{of} are {words[given]}, but the model was trained on {words[trained]}: the same words are other tokens "
        f"there, and rewards others. Data read with `prompt_role: {role}` (--{source}.prompt_role {role}) have that "
        "form"
    )


class RewardModel(nn.Module):
    """Groups of token sequences in, one reward per sequence out.

    Args:
        network: a transformers sequence-classification model, or beside a readout the backbone alone, with or without
            PEFT adapters.
        tokenizer: its tokenizer; the pad id differs from every id that can be read.
        encoding: how text becomes ids.
        layout: `shared` runs prefixes once (causal backbones that passed the self-test), `flat` every sequence whole.
        fallback: why the layout is flat where it could have been shared; empty otherwise.
        sources: where trained weights were read from: folders, and commits of hub ids.
        prompt_form: of the prompts that it was trained on; None where that is not known.
        label: which column of the output is the reward; None is the only one.
        own_code: the network's class came with its checkpoint; the layout is flat.
        output: name of the network's output that holds the reward; only code of its own knows others than `logits`.
        readout: reads the backbone's states; None is the network's own head.
        classes: how the class `label` becomes the reward; None for its logit.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        encoding: Encoding,
        *,
        layout: Layout,
        fallback: str = "",
        sources: Sequence[str] = (),
        prompt_form: PromptForm | None = None,
        label: int | None = None,
        own_code: bool = False,
        output: str = LOGITS,
        readout: AnyReadout | None = None,
        classes: ClassReading | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.readout = readout
        self.tokenizer = tokenizer
        self.encoding = encoding
        self.encoder = Encoder(tokenizer, encoding)
        self.layout: Layout = layout
        self.fallback = fallback
        self.sources = tuple(sources)
        self.prompt_form = prompt_form
        self.label = label or 0
        self._label_chosen = label is not None
        self.own_code = own_code
        self.output = output
        self.classes = classes
        self._warned = False

    @property
    def plain_network(self) -> nn.Module:
        """The sequence-classification model itself, PEFT wrapper taken off (adapters stay in place)."""
        unwrap = getattr(self.network, "get_base_model", None)
        network: nn.Module = unwrap() if unwrap is not None else self.network
        return network

    @property
    def is_causal(self) -> bool:
        """Whether the backbone is causal: classifiers of that kind call their head `score` and read the last token."""
        if self.readout is not None:
            return self.readout.backbone == "causal"
        return "score" in dict(self.plain_network.named_children())

    @property
    def has_fixed_states(self) -> bool:
        """Whether a sequence is read as one vector per layer, `states`, which are all that its reward depends on.

        So of the linear head of causal models and of every readout but those that attend to tokens; not of an
        encoder's own classification head, and not of code that came with a checkpoint.
        """
        if self.readout is None:
            return self.is_causal and not self.own_code
        return READS[self.readout.config.name].is_fixed

    @property
    def quantisation(self) -> dict[str, Any] | None:
        """What the backbone's weights were quantised by, as transformers says it; None where they were not."""
        return quantised_by(self.plain_network)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def _pad_id(self) -> int:
        """What fills the rows of the flat layout: masked out and never read, so any id will do."""
        pad_id: int | None = self.tokenizer.pad_token_id
        return 0 if pad_id is None else pad_id

    def read_by(self, encoding: Encoding) -> None:
        """Turn text into ids by other rules from now on."""
        self.encoding = encoding
        self.encoder = Encoder(self.tokenizer, encoding)

    def encode(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Encoded]]:
        """Token sequences of completions as answers to prompts.

        A conversation given as plain text is another text than its rendering: the first call with prompts of another
        form than those of training warns.
        """
        if prompts and not self._warned and (said := form_warning(form_of(prompts), self.prompt_form)):
            self._warned = True
            log.warning(said)
        return self.encoder.encode(prompts, completions)

    def forward(self, groups: Sequence[Group]) -> Tensor:
        """Rewards in float32, by group, then branch; shape [sequences]."""
        if self.has_fixed_states:
            return self.rewards_of(self.states(groups))
        if self.readout is not None:
            layers, mask = self._reading.tokens(self.plain_network, groups)
            with torch.autocast(mask.device.type, enabled=False):
                tokens_rewards: Tensor = self.readout(layers, mask)
            return tokens_rewards
        rewards = self._by_own_code(groups) if self.own_code else self._by_own_head(groups)
        return rewards.float()

    def states(self, groups: Sequence[Group]) -> Tensor:
        """What is read of every sequence, by group, then branch, shape [sequences, layers, width], in the dtype that
        the backbone gives (float32 for means); only where `has_fixed_states`."""
        return self._reading.states(self.plain_network, groups)

    def rewards_of(self, states: Tensor) -> Tensor:
        """Rewards in float32, shape [sequences], of what `states` gave; only where `has_fixed_states`."""
        # Under autocast a head would round rewards to 8 bits: ties where there are none, and coarse gradients. It
        # runs in the precision of its own weights, which costs nothing.
        with torch.autocast(states.device.type, enabled=False):
            if self.readout is None:
                head: Any = self.plain_network.score
                rewards = self._of_outputs(head(states[:, -1].to(next(head.parameters()).dtype)))
            else:
                rewards = self.readout(states.to(next(self.readout.parameters()).dtype))
        return rewards.float()

    @property
    def _reading(self) -> Reading:
        config, backbone = (self.readout.config, self.readout.backbone) if self.readout else (Readout(), "causal")
        return Reading(config, backbone, self.layout == "shared", self._pad_id)

    def _by_own_head(self, groups: Sequence[Group]) -> Tensor:
        padded = pad(groups, self._pad_id)
        ids, mask, types = (self._tensor(array) for array in (padded.ids, padded.mask, padded.types))
        network: Any = self.plain_network
        if getattr(network.config, "summary_type", None) == "last":
            # XLNet reads the last column, and positions relative to each other: the padding goes to the left.
            order = mask.argsort(dim=1, stable=True)
            ids, mask, types = (tensor.gather(1, order) for tensor in (ids, mask, types))
        if network.config.is_encoder_decoder:
            return self._of_outputs(self._at_the_end(ids, mask))
        segments = {"token_type_ids": types} if reads_segments(self.plain_network, groups) else {}
        return self._of_outputs(network(input_ids=ids, attention_mask=mask, return_dict=True, **segments).logits)

    def _at_the_end(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Outputs of an encoder-decoder's head, shape [sequences, outputs]: it reads the state at the last EOS, and
        transformers takes rows of equally many EOS at a time. Turns of a conversation may end in one, too.

        Raises:
            ModelError: a sequence without any.
        """
        network: Any = self.plain_network
        ends = (ids == network.config.eos_token_id).sum(dim=1)
        if not ends.all():
            expected = f"the end that the model's head reads, token {network.config.eos_token_id}, in every sequence"
            problem = Problem("encoding.append_eos", "a sequence without it", expected, "Let it be appended.")
            raise ModelError("The model's head has nothing to read", [problem])
        rows = [(ends == count).nonzero().squeeze(1) for count in ends.unique()]
        outputs = [network(input_ids=ids[own], attention_mask=mask[own], return_dict=True).logits for own in rows]
        return torch.cat(outputs)[torch.cat(rows).argsort()]

    def _of_outputs(self, outputs: Tensor) -> Tensor:
        """Rewards, shape [sequences], of what a head gives, shape [sequences, outputs]."""
        if self.classes is None:
            return outputs[:, self.label]
        return self.classes.rewards(outputs, self.label, exclusive=is_exclusive(self.plain_network.config))

    def _by_own_code(self, groups: Sequence[Group]) -> Tensor:
        """Sequences of one length at a time: where such code looks for the last token is its own affair, and without
        padding there is only one place."""
        sequences = [sequence for group in groups for sequence in group.sequences()]
        types = [own for group in groups for own in group.types or [()] * len(group.branches)]
        segments = reads_segments(self.plain_network, groups)
        # transformers' own rule: a model without a pad id takes one sequence at a time.
        has_pad = getattr(self.plain_network.config, "pad_token_id", None) is not None
        together: dict[tuple[int, int], list[int]] = {}
        for row, sequence in enumerate(sequences):
            together.setdefault((len(sequence), 0 if has_pad else row), []).append(row)
        rewards = torch.zeros(len(sequences), device=self.device)
        for rows in together.values():
            inputs = {"input_ids": torch.tensor([sequences[row] for row in rows], device=self.device)}
            if segments:
                inputs["token_type_ids"] = torch.tensor([types[row] for row in rows], device=self.device)
            rewards[rows] = self._own_output(inputs, len(rows))
        return rewards

    def _own_output(self, inputs: dict[str, Tensor], count: int) -> Tensor:
        """The reward that the network's own code gives to each of `count` sequences.

        Raises:
            ModelError: the code fails, or gives no such output, or several numbers and no choice among them.
        """
        network: Any = self.plain_network
        name = type(network).__name__
        try:
            outputs = network(**inputs)
        except Exception as error:  # code from outside may raise anything
            if is_out_of_memory(error):
                raise
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            problem = Problem(name, found, "a reward for every sequence", "Was the text that it looks for cut off?")
            raise ModelError("The code that came with the model fails", [problem]) from error
        values = outputs.get(self.output) if isinstance(outputs, ModelOutput) else None
        if not isinstance(values, Tensor):
            found = ", ".join(outputs) if isinstance(outputs, ModelOutput) else type(outputs).__name__
            raise ModelError(
                "The model's output holds no reward", [Problem(name, found, f"an output called {self.output}")]
            )
        if values.ndim == 1 and self._label_chosen:
            found = f"{self.output} with one number per sequence"
            problem = Problem(name, found, "several, to choose from", "Leave --label away, or name another output.")
            raise ModelError("There is no choice of labels", [problem])
        if values.ndim == 2 and (values.shape[1] == 1 or (self._label_chosen and values.shape[1] > self.label)):
            values = values[:, self.label]
        if values.shape != (count,):
            found = f"{self.output} of shape {list(values.shape)} for {count} sequences"
            problem = Problem(name, found, "one number per sequence, or several and a choice", "Choose with --label.")
            raise ModelError("The model's output holds no reward", [problem])
        return values.float()

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def grouped(encoded: Sequence[Encoded] | Sequence[TokenSequence]) -> Group:
    """The group of the encoded completions of one prompt."""
    group = share_prefix([sequence.ids for sequence in encoded])
    types = tuple(sequence.types for sequence in encoded)
    return replace(group, types=types) if any(types) else group
