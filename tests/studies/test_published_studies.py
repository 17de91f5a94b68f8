"""The published experiments: every study is planned without a hub, and has the settings of the specification."""

from __future__ import annotations

import re
import socket
from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from rewardlab.cli import main
from rewardlab.cli.arguments import parse
from rewardlab.cli.verb import grammar_of
from rewardlab.data.adapters import ADAPTERS
from rewardlab.data.render import plain_text
from rewardlab.data.source import DataSource
from rewardlab.evaluate.winrate import meetings
from rewardlab.records import Message, Prompt
from rewardlab.studies.study import PUBLISHED, SHIPPED, Step, StudyFile, published_studies, shipped_studies

NAMES = published_studies()
LENGTH = ["length-rlcd", "length-stack", "length-webgpt"]
EXO = ["exo-hh", "exo-sentiment", "exo-tldr"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "published.md"
HUB_ID = re.compile(r"(?<![\w/.:$-])[A-Za-z][\w-]*/[A-Za-z][\w.-]*(?![\w/])")


def text_of(name: str) -> str:
    return resources.files(SHIPPED).joinpath(PUBLISHED, f"{name}.yaml").read_text(encoding="utf-8")


@cache
def steps_of(name: str, *flags: tuple[str, str]) -> dict[str, Step]:
    return {step.name: step for step in StudyFile.find(name).steps(Path("runs") / name, flags)}


def config_of(study: str, step: str) -> Any:
    return steps_of(study)[step].config


def by_verb(study: str) -> Counter[str]:
    return Counter(step.verb_name for step in steps_of(study).values())


def test_the_published_experiments_are_there_and_apart_from_what_runs_here() -> None:
    rewardlm = ["rewardlm-falcon", "rewardlm-pythia", "rewardlm-redpajama"]
    assert [*EXO, "flan-t5", *LENGTH, "rate", "rate-eli5-hh", *rewardlm] == NAMES
    assert not set(NAMES) & set(shipped_studies())


@pytest.mark.parametrize("name", NAMES)
def test_a_published_study_says_what_it_is_and_can_be_read_at_a_sitting(name: str) -> None:
    text = text_of(name)
    study = StudyFile.find(name).study
    assert study.name == name
    assert study.description
    heading = text[: text.index("\nname: ")]
    assert all(line.startswith("#") for line in heading.splitlines())
    assert f"#   rewardlab run {name}" in heading
    for words in ("# Needs: the hub", "ompare"):
        assert words in heading or name == "rate-eli5-hh"
    assert len(text.splitlines()) < 150
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_a_published_study_is_planned_without_a_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr("rewardlab.store.hub.HfApi", nobody)
    assert main.main(["run", name, "--dry-run"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    steps = steps_of(name)
    assert head == f"{name}: {len(steps)} steps ({len(steps)} run)"
    assert [line.split("  ")[1].split(" ")[0] for line in lines[::2]] == list(steps)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*NAMES, "demo", "hh-exo"])
def test_the_command_of_a_step_is_its_configuration(name: str) -> None:
    for step in steps_of(name).values():
        kind = step.verb.config_class()
        words = step.command()[1 + len(step.verb_name.split()) :]
        assert kind.build(flags=parse(words, grammar_of(kind)).flags) == step.config, step.name


@pytest.mark.parametrize("name", NAMES)
def test_a_smoke_run_of_a_published_study_is_small(name: str) -> None:
    configs = {step.verb_name: step.config for step in steps_of(name, ("limit", "10")).values()}
    whole = {"audit compare", "evaluate ablation", "evaluate gain"}  # these read what earlier steps made
    assert {verb for verb, config in configs.items() if getattr(config, "limit", None) != 10} == configs.keys() & whole


def sources_in(value: Any) -> list[DataSource]:
    if isinstance(value, DataSource):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    inner = [field for _, field in value] if hasattr(value, "model_fields_set") else inner
    return [source for one in inner for source in sources_in(one)]


@pytest.mark.parametrize("name", NAMES)
def test_formats_are_known_and_fit_the_data_sets_they_are_made_for(name: str) -> None:
    made_for = {hub_id: adapter.name for adapter in ADAPTERS.values() for hub_id in adapter.hub_ids}
    for step in steps_of(name).values():
        for source in sources_in(step.config):
            assert source.adapter in ("auto", *ADAPTERS)
            assert source.adapter in ("auto", made_for.get(source.path, source.adapter))


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_the_study_and_every_name_on_the_hub(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"`{name}`" in page
    stages = text_of(name).partition("\nstages:")[2]
    found = {one for one in HUB_ID.findall(stages) if one != "data/reward"}
    assert found <= set(HUB_ID.findall(page)), found - set(HUB_ID.findall(page))


def test_rate_has_twelve_audits() -> None:
    audits = [config_of("rate", f"audit.{number}") for number in range(4)]
    assert [(one.template, [model.template for model in one.model]) for one in audits] == [
        (concept, ["fsfairx", "offsetbias", "armorm"])
        for concept in ("imdb_length", "helpsteer_complexity", "helpsteer_helpfulness", "imdb_sentiment")
    ]
    for audit in audits:
        assert (audit.endpoint.model, audit.endpoint.temperature, audit.batch) == ("gpt-4o-2024-08-06", 0.7, True)
        assert audit.limit == 25_000
        assert [model.trust_remote_code for model in audit.model] == [False, False, True]
    assert config_of("rate-eli5-hh", "hh").the_template().treated.of == "transcript"


@pytest.mark.parametrize(
    ("name", "beta", "prompts", "completion"),
    [("exo-hh", 0.5, 128, 200), ("exo-tldr", 0.5, 128, 75), ("exo-sentiment", 0.1, 64, 500)],
)
def test_exo_has_four_alignments_with_the_published_settings(
    name: str, beta: float, prompts: int, completion: int
) -> None:
    sft, reward = config_of(name, "sft"), config_of(name, "reward")
    assert (sft.learning_rate, reward.learning_rate, reward.epochs) == (1e-5, 1e-5, 1)
    assert sft.encoding.max_completion_tokens == completion
    assert reward.choose_by == "accuracy"
    for step in ("exo-rw", "exo-pref", "dpo-rw", "dpo-pref"):
        config = config_of(name, step)
        assert config.objective == step
        assert (config.beta, config.temperature, config.learning_rate) == (beta, 0.8, 1e-6)
        assert (config.batch_size, config.epochs, config.checkpoints) == (prompts, 1, 10)
        assert (config.betas, config.weight_decay, config.schedule) == ((0.9, 0.95), 0.0, "cosine")
        assert config.max_grad_norm == 1.0
        assert config.reward_beta == (beta if step.endswith("rw") else None)
        assert steps_of(name)[step].needs >= {"sft"}
    assert config_of(name, "exo-pref").label_smoothing == 1e-3
    sample, frontier = config_of(name, "sample"), config_of(name, "frontier")
    assert (sample.n, sample.temperature, sample.top_k) == (2, 0.8, 0)
    assert (frontier.top, frontier.n, frontier.seed) == (512, 4, 42)
    assert len(frontier.runs) == 4


@pytest.mark.parametrize("name", LENGTH)
def test_length_has_four_reward_models_and_six_ppo(name: str) -> None:
    counts = by_verb(name)
    # The one on length alone asks no reward model: it is one training, not four.
    assert (counts["train reward"], counts["train ppo"]) == (4, 5 * 4 + 1)
    rewards = {step: config_of(name, step) for step in ("standard.0", "mended.0", "mended.1", "mended.2")}
    changes = [[one.name for one in config.interventions] for config in rewards.values()]
    assert changes == [[], ["balance-length"], ["random-pairs"], ["cut"]]
    assert rewards["mended.1"].interventions[0].ratio == 0.25
    assert rewards["mended.2"].interventions[0].published == name.removeprefix("length-")
    for config in rewards.values():
        assert (config.lora.r, config.lora.alpha, config.lora.dropout) == (8, 32, 0.1)
        assert (config.learning_rate, config.weight_decay, config.schedule) == (1e-5, 1e-3, "linear")
        assert config.encoding.template == "Question: {prompt}\n\nAnswer: {completion}"
        assert config.encoding.max_tokens == 512
    for number, reward in enumerate(rewards):
        own = {stage: config_of(name, f"{stage}.{number}") for stage in PPO}
        models = {stage: config.rewards["model"].model for stage, config in own.items()}
        assert models == dict.fromkeys(own, f"runs/{name}/{reward}/model")
        for stage, changed in PPO.items():
            values = PLAIN | changed
            assert {field: getattr(own[stage], field) for field in values} == values
            assert (own[stage].lora.r, own[stage].lora.alpha) == (16, 32)
            assert own[stage].encoding.max_completion_tokens == 156
    alone = config_of(name, "length-only")
    assert not alone.rewards
    assert alone.len_only == {"length-webgpt": 156, "length-rlcd": 120, "length-stack": 250}[name]
    answers = config_of(name, "answers.0")
    assert (answers.max_new_tokens, answers.temperature, answers.top_p, answers.repetition_penalty, answers.top) == (
        256, 0.9, 0.9, 1.2, 500
    )  # fmt: skip
    assert config_of(name, "sft").n == 8


PLAIN: dict[str, Any] = {
    "learning_rate": 1.4e-5,
    "batch_size": 32,
    "inner_epochs": 1,
    "steps": 1000,
    "beta": 0.04,
    "save_every": 25,
    "seed": 0,
    "scale_reward": False,
    "len_penalty": None,
    "omit_long": False,
    "reward_baseline": 0.0,
}
PPO: dict[str, dict[str, Any]] = {
    "ppo": {},
    "scaled": {"scale_reward": True, "scale_clip": 0.3},
    "penalised": {"len_penalty": 2.0, "len_penalty_tokens": 100.0},
    "omit-long": {"omit_long": True},
    "high-kl": {"beta": 0.12},
}
"""The interventions of section 5 by their stages: what they change."""


def test_the_three_studies_of_length_are_one_pipeline() -> None:
    def shape(name: str) -> list[tuple[str, str, frozenset[str]]]:
        return [(step.name, step.verb_name, step.needs) for step in steps_of(name).values()]

    assert shape("length-webgpt") == shape("length-stack") == shape("length-rlcd")
    one, other = (text_of(name).partition("\nstages:")[2].splitlines() for name in ("length-webgpt", "length-rlcd"))
    assert len(set(one) ^ set(other)) <= 12


@pytest.mark.parametrize("name", LENGTH)
def test_of_win_rates_the_published_pairs_are_asked_alone(name: str) -> None:
    """By the table of docs/published.md: of five over standard PPO, and of three over SFT."""
    asked = []
    for step in ("winrate", "winrate-sft"):
        config = config_of(name, step)
        own = meetings(list(config.sets), config.base, config.pairs)
        asked += [(config.sets[one].path, config.sets[one].pick, config.sets[other].path) for one, other in own]
        assert {other for _, other in own} == {{"winrate": "PPO", "winrate-sft": "SFT"}[step]}
    published = PAGE.read_text(encoding="utf-8")
    assert "| | SFT | PPO | scaled | penalised | long omitted | high KL | gain | against SFT |" in published
    columns = {"PPO", "SFT", "scaled", "penalised", "long omitted", "high KL"}
    assert set(config_of(name, "winrate").sets) == columns
    assert set(config_of(name, "winrate-sft").sets) == {"PPO", "SFT", "longest of 8", "length alone"}
    # The pair of PPO and SFT is in both, its questions are the same, and a judge is paid once.
    assert len(asked) == 8
    assert len({frozenset([(one, pick), (other, "first")]) for one, pick, other in asked}) == 7


def test_the_twins_that_the_page_names_are_studies_that_ship() -> None:
    """The last cell of every row of the table; whatever stands there as code, without a verb of ours, is a study."""
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("| experiment | study |")[2].partition("\n\n")[0].splitlines()[2:]
    named, others = [], []
    for row in table:
        _, study, *_, last = (cell.strip() for cell in row.strip("|").split("|"))
        named += re.findall(r"`([\w-]+)`", study)
        twins = [one for one in re.findall(r"`([^`]+)`", last) if not one.startswith("rewardlab ")]
        assert set(twins) <= set(shipped_studies()), row
        others += twins
    assert sorted(named) == sorted(NAMES)
    assert others
    # None of them asks for win rates, which is what the page says.
    verbs = {step.verb_name for name in others for step in StudyFile.find(name).steps(Path("runs") / name, ())}
    assert not {"evaluate winrate", "evaluate policies"} & verbs
    assert "None of them measures win rates" in text


def test_policies_of_length_are_asked_in_the_published_words() -> None:
    begin = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n"
    )
    asked = {
        "length-webgpt": (Prompt.of_text("why?"), f"{begin}why?\n\n### Response:"),
        "length-stack": (Prompt.of_text("why?"), "Question: why?\n\nAnswer: "),
        "length-rlcd": (
            Prompt((Message("user", "why?"),)),
            f"{begin}Continue the conversation:\n\nHuman: why?\n\nAssistant: \n\n### Response:",
        ),
    }
    for name, (prompt, text) in asked.items():
        template = config_of(name, "ppo.0").encoding.template
        assert template.replace("{prompt}", plain_text(prompt)) == text
        assert config_of(name, "answers.0").encoding.template == template


@pytest.mark.parametrize("name", ["rewardlm-redpajama", "rewardlm-falcon"])
def test_rewardlm_punishes_hate_and_measures_three_models(name: str) -> None:
    tuned, rl, meter = (config_of(name, step) for step in ("fine-tuned", "rl", "toxicity"))
    assert (tuned.lora.r, tuned.lora.alpha, tuned.lora.dropout, tuned.learning_rate) == (64, 32, 0.05, 2e-4)
    assert tuned.on_prompts
    assert (rl.gamma, rl.gae_lambda, rl.clip, rl.value_clip, rl.vf_coef) == (1.0, 0.95, 0.2, 0.2, 0.1)
    assert (rl.inner_epochs, rl.beta, rl.target_kl, rl.horizon) == (4, 0.2, 6.0, 10_000)
    (hate,) = rl.rewards.values()
    assert (hate.classifier, hate.bad, hate.weight) == ("facebook/roberta-hate-speech-dynabench-r4-target", "hate", 1.0)
    assert tuned.train == rl.train
    assert tuned.train[0].dialogue.full_stop == "always"
    assert list(meter.models) == ["pretrained", "fine-tuned", "RL"]
    assert meter.models["pretrained"].path == tuned.model.path
    assert meter.models["pretrained"].revision == tuned.model.revision
    assert meter.classifier.bad == "hate"
    assert [rows.path for rows in meter.data] == ["allenai/real-toxicity-prompts"]


def test_flan_t5_has_five_readouts_and_three_of_them_frozen() -> None:
    trained = [config_of("flan-t5", f"train.{number}") for number in range(5)]
    frozen = [config_of("flan-t5", f"frozen.{number}") for number in range(3)]
    names = ["layerwise-attention", "full-attention", "decoder-output", "pooled-encoder", "pooled-decoder"]
    assert [config.model.readout.name for config in trained] == names
    assert [config.model.readout.name for config in frozen] == names[2:]
    assert [config.freeze_backbone for config in (*trained, *frozen)] == [False] * 5 + [True] * 3
    for config in (*trained, *frozen):
        assert config.model.path == "google/flan-t5-small"
        assert (config.model.readout.layers, config.model.readout.width) == (4, 256)
        assert (config.learning_rate, config.final_learning_rate, config.schedule) == (1e-5, 2e-6, "exponential")
        assert (config.batch_size, config.epochs, config.evaluations_per_epoch) == (512, 10, 10)
        assert (config.early_stopping, config.choose_by) == (10, "loss")
        assert (config.encoding.max_tokens, config.encoding.overlong, config.encoding.template) == (512, "drop", None)
    assert config_of("flan-t5", "prepare").fractions.val == 0.1
