"""Study files: references, foreach, changes from the command line, all problems before the first step."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_verbs import VERBS, Join, Make

from rewardlab.errors import ConfigError
from rewardlab.store.runs import Run
from rewardlab.studies.study import StudyFile, shipped_studies

STUDY = """\
name: small
stages:
  - id: first
    verb: make
    config: {word: a}
  - id: many
    verb: make
    foreach: {word: [x, y], times: [1, 2]}
    config:
      word: "${word}-${times}"
      times: ${times}
      source: "${first}/lines.jsonl"
  - id: last
    verb: join files
    config:
      inputs: ["${first}/lines.jsonl", "${many}/lines.jsonl"]
"""
ROOT = Path("results")


def study(tmp_path: Path, text: str = STUDY) -> StudyFile:
    file = tmp_path / "small.yaml"
    file.write_text(text)
    return StudyFile.read(file)


def problems_of(source: StudyFile, *flags: tuple[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        source.steps(ROOT, flags, VERBS)
    return [str(problem) for problem in caught.value.problems]


def test_stages_expand_to_steps_in_order(tmp_path: Path) -> None:
    steps = study(tmp_path).steps(ROOT, (), VERBS)
    assert [step.name for step in steps] == ["first", "many.0", "many.1", "many.2", "many.3", "last"]
    configs = [step.config for step in steps]
    assert configs[0] == Make(word="a")
    assert configs[1:5] == [
        Make(word=f"{word}-{times}", times=times, source=ROOT / "first/lines.jsonl")
        for word in "xy"
        for times in (1, 2)
    ]
    names = ["first", "many.0", "many.1", "many.2", "many.3"]
    assert configs[5] == Join(inputs=tuple(ROOT / name / "lines.jsonl" for name in names))
    assert [sorted(step.needs) for step in steps] == [[], *[["first"]] * 4, names]


def test_single_steps_and_crossed_stages_are_referred_to_by_number(tmp_path: Path) -> None:
    text = STUDY.replace('"${many}/lines.jsonl"]', '"${many[3]}/lines.jsonl"]') + (
        "  - id: pair\n    verb: join files\n    foreach: {i: [2, 1]}\n"
        '    config: {inputs: ["${many[${i}]}/${first}/x"]}\n'
    )
    steps = study(tmp_path, text).steps(ROOT, (), VERBS)
    assert steps[5].config == Join(inputs=(ROOT / "first/lines.jsonl", ROOT / "many.3/lines.jsonl"))
    assert steps[6].config == Join(inputs=(Path("results/many.2/results/first/x"),))
    assert steps[7].needs == {"many.1", "first"}


SELECTED = """\
name: small
stages:
  - id: plain
    verb: make
    foreach: {seed: [0, 1], fold: [a, b]}
    config: {word: x}
  - id: arms
    verb: make
    foreach:
      arm: {wide: {width: 9}, far: {colour: "${fold}"}}
      fold: [red, blue]
    config: {word: x, shape: "${arm}"}
  - id: each
    verb: make
    foreach: {fold: [b, a]}
    config: {word: x, source: "${plain[fold=${fold},seed=1]}/lines.jsonl"}
  - id: together
    verb: join files
    config: {inputs: ["${plain[fold=b]}/x", "${arms[arm=far]}/x", "${plain[seed=0,fold=b]}/x"]}
"""


def test_steps_are_selected_by_the_values_or_labels_of_their_foreach(tmp_path: Path) -> None:
    steps = {step.name: step for step in study(tmp_path, SELECTED).steps(ROOT, (), VERBS)}
    made: list[Any] = [steps[f"arms.{number}"].config for number in range(4)]
    assert [(one.shape.width, one.shape.colour) for one in made] == [(9, "red"), (9, "red"), (3, "red"), (3, "blue")]
    alone: list[Any] = [steps[f"each.{number}"].config for number in range(2)]
    assert [one.source for one in alone] == [ROOT / "plain.3/lines.jsonl", ROOT / "plain.2/lines.jsonl"]
    names = ["plain.1", "plain.3", "arms.2", "arms.3", "plain.1"]
    assert steps["together"].config == Join(inputs=tuple(ROOT / name / "x" for name in names))
    assert steps["together"].needs == set(names)


def test_a_star_maps_every_label_to_its_steps(tmp_path: Path) -> None:
    def named(reference: str) -> Any:
        text = SELECTED.split("inputs:")[0] + f'inputs: [], named: "{reference}"}}\n'
        last = study(tmp_path, text).steps(ROOT, (), VERBS)[-1]
        config: Any = last.config
        return config.named, last.needs

    arms = {"wide": [ROOT / "arms.0/x", ROOT / "arms.1/x"], "far": [ROOT / "arms.2/x", ROOT / "arms.3/x"]}
    assert named("${arms[arm=*]}/x") == (arms, {f"arms.{number}" for number in range(4)})
    plain = {"0": ROOT / "plain.1/y", "1": ROOT / "plain.3/y"}
    assert named("${plain[seed=*,fold=b]}/y") == (plain, {"plain.1", "plain.3"})


def test_a_star_for_an_unknown_name_is_told(tmp_path: Path) -> None:
    text = SELECTED.replace("{arms[arm=far]", "{arms[amr=*]")
    found = "\n".join(problems_of(study(tmp_path, text)))
    assert 'found ${arms[amr=*]}; expected a name of the stage\'s foreach. Did you mean "arm"?' in found


def test_selections_that_mean_nothing_are_told(tmp_path: Path) -> None:
    text = (
        SELECTED.replace("{plain[fold=b]", "{plain[flod=b]")
        .replace("arm=far]", "arm=fra]")
        .replace("seed=0,fold=b", "seed=7,fold=b")
    )
    found = "\n".join(problems_of(study(tmp_path, text)))
    assert 'found ${plain[flod=b]}; expected a name of the stage\'s foreach. Did you mean "fold"?' in found
    assert 'found ${arms[arm=fra]}; expected a value of arm. Did you mean "far"?' in found
    assert "found ${plain[seed=7,fold=b]}; expected a value of seed. Known: 0, 1." in found


@pytest.mark.parametrize("values", ["[]", "[1, 1]", "{}", "[1, '1']"])
def test_a_foreach_without_values_or_with_one_twice_is_refused(tmp_path: Path, values: str) -> None:
    with pytest.raises(ConfigError, match=r"expected foreach\.seed to hold one value or more, each once"):
        study(tmp_path, SELECTED.replace("{seed: [0, 1], ", f"{{seed: {values}, "))


def test_changes_reach_one_stage_and_common_ones_every_stage(tmp_path: Path) -> None:
    flags = [("limit", "2"), ("stages.many.shape.width", "9"), ("stages.last.inputs", "${many}/lines.jsonl")]
    steps = study(tmp_path).steps(ROOT, flags, VERBS)
    made: list[Any] = [step.config for step in steps[:5]]
    assert [config.limit for config in made] == [2] * 5
    assert [config.shape.width for config in made] == [3, 9, 9, 9, 9]
    assert steps[5].config == Join(inputs=tuple(ROOT / f"many.{i}" / "lines.jsonl" for i in range(4)))


def test_a_flag_may_stand_for_a_value_of_foreach(tmp_path: Path) -> None:
    flags = [("stages.many.word", "${times}"), ("stages.many.seed", "${times}")]
    steps = study(tmp_path).steps(ROOT, flags, VERBS)
    made: list[Any] = [step.config for step in steps[1:5]]
    assert [(config.word, config.seed) for config in made] == [("1", 1), ("2", 2)] * 2


def test_every_problem_of_every_stage_comes_at_once(tmp_path: Path) -> None:
    text = """\
name: small
stages:
  - id: first
    verb: mak
  - id: second
    verb: make
    foreach: {n: [1, 2]}
    config:
      wrod: a
      source: "${frist}/x"
  - id: third
    verb: join files
    config:
      inputs: ["${second[2]}/x", "${third}/y", "${first[0]}"]
"""
    source = study(tmp_path, text)
    file = tmp_path / "small.yaml"
    flags = [("stages.second.shape.width", "0"), ("stages.secnd.times", "1"), ("limits", "3"), ("stages.third", "{}")]
    flag = "found an unknown flag; expected --stages.<id>.<field>"
    earlier = "expected an earlier stage or a foreach name."
    assert problems_of(source, *flags) == [
        f'--stages.secnd.times: {flag}. Did you mean "stages.second"?',
        f'--limits: {flag}. Did you mean "limit"?',
        f"--stages.third: {flag}",
        f"{file}:4:5, verb (stage first): found 'mak'; expected a known verb. Did you mean \"make\"?",
        f'{file}:8:5, stage second: found ${{frist}}; {earlier} Did you mean "first"?',
        "word (stage second): found nothing; expected a value. Set word in the YAML file or with --word.",
        "--stages.second.shape.width: found 0; expected greater than or equal to 1",
        f'{file}:9:7, wrod (stage second): found the unknown key "wrod"; expected a known one. Did you mean "word"?',
        f"{file}:13:5, stage third: found ${{second[2]}}; expected one of the 2 steps of second, counted from 0",
        f"{file}:13:5, stage third: found ${{third}}; {earlier} Known: first, second.",
        f"{file}:13:5, stage third: found ${{first[0]}}; expected ${{first}}: the stage has no foreach",
    ]


def test_templates_that_do_not_exist_are_told_before_anything_runs(tmp_path: Path) -> None:
    text = """\
name: small
stages:
  - {id: one, verb: audit run, config: {template: imdb_lenght, model: rule:length_words}}
  - {id: two, verb: score, config: {template: armrom, data: x.jsonl}}
"""
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, text).steps(ROOT)
    found = [str(problem) for problem in caught.value.problems]
    assert 'Did you mean "imdb_length"?' in found[0]
    assert 'Did you mean "armorm"?' in found[1]


def test_flags_keep_the_hyphens_of_stages_and_keys(tmp_path: Path) -> None:
    source = study(tmp_path, STUDY.replace("first", "train-base"))
    flags = [("stages.train-base.columns.gold-label", "a-b"), ("stages.train-base.shape.wid-th", "2")]
    assert problems_of(source, *flags) == [
        '--stages.train-base.shape.wid_th: found the unknown key "wid_th"; expected a known one. Did you mean "width"?'
    ]
    config = source.steps(ROOT, flags[:1], VERBS)[0].config
    assert isinstance(config, Make)
    assert config.columns == {"gold-label": "a-b"}


def test_two_lists_in_one_text_are_refused(tmp_path: Path) -> None:
    text = STUDY + (
        "  - id: more\n    verb: make\n    foreach: {n: [1]}\n    config: {word: a}\n"
        '  - id: both\n    verb: join files\n    config: {inputs: ["${many}/${more}"]}\n'
    )
    assert "references to one stage with foreach at most" in problems_of(study(tmp_path, text))[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a b\nstages: [{id: x, verb: make}]", ":1:1, name: found 'a b'; expected string should match pattern"),
        ("name: a\nstages: []", ":2:1, stages: found \\[\\]; expected at least 1 item"),
        ("name: a\nstages: [{id: x.1, verb: make}]", ":2:11, stages.0.id: found 'x.1'"),
        ("name: a\nstages: [{id: x, verb: y}, {id: x, verb: y}]", "stage ids that are unique"),
        ("name: a\nstages: [{id: superseded, verb: y}]", "stage ids that are unique and not 'superseded'"),
        ("name: a\nstages: [{id: x, verb: y, foreach: {n: 3}}]", "stages.0.foreach.n: found 3"),
        ("stages:\n- id: x", "name: found nothing"),
        ("", "stages: found nothing"),
    ],
)
def test_files_that_are_no_studies(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study(tmp_path, text)


def test_studies_are_found_by_path_or_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study(tmp_path)
    assert StudyFile.find("small.yaml").study.name == "small"
    assert "demo" in shipped_studies()
    assert StudyFile.find("demo").study.name == "demo"
    with pytest.raises(ConfigError, match='Did you mean "demo"'):
        StudyFile.find("demmo")
    with pytest.raises(ConfigError, match="no such file"):
        StudyFile.find("absent.yaml")
    with pytest.raises(ConfigError, match="no such study"):
        StudyFile.find("../studies/demo")


def test_a_folder_of_results_does_not_hide_the_shipped_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "absent"):
        Path(name).mkdir()
    assert StudyFile.find("demo").study.name == "demo"
    with pytest.raises(ConfigError, match="no such study"):
        StudyFile.find("absent")


def test_the_study_in_the_documentation_is_valid(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "runs.md"
    (text,) = re.findall(r"```yaml\n(name: .*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    steps = study(tmp_path, text).steps(ROOT)
    assert [step.name for step in steps[-4:]] == ["score.0", "score.1", "score.2", "evaluate"]
    assert steps[-3].needs == {"data", "train.1"}


def test_the_study_from_pairs_to_a_policy_in_the_documentation_is_valid(tmp_path: Path) -> None:
    """The pairs are in TRL's form, and nothing that judges has learnt from the prompts of the frontier."""
    page = Path(__file__).resolve().parents[2] / "docs" / "alignment.md"
    (text,) = re.findall(r"```yaml\n(name: .*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Say {n}. ", "chosen": f"{n}", "rejected": f"not {n}"} for n in range(400)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = study(tmp_path, text)
    flags = [("stages.pairs.sources.mine.path", str(pairs)), ("stages.pairs.sources.mine.split", "null")]
    steps = {step.name: step for step in source.steps(ROOT, flags)}
    assert list(steps) == [
        "pairs", "reward.0", "reward.1", "sft", "sample", "score", "label", "exo", "dpo", "frontier"
    ]  # fmt: skip
    assert steps["frontier"].needs == {"exo", "dpo", "pairs", "reward.0", "reward.1"}
    with Run.create(steps["pairs"].config, verb="data prepare", name="pairs", root=tmp_path / "runs") as run:
        steps["pairs"].verb.run(steps["pairs"].config, run)
    folds = tmp_path / "runs" / "pairs"
    asked, *learnt = (
        {row["prompt_id"] for row in map(json.loads, (folds / name).read_text().splitlines())}
        for name in ("fold-0/val.jsonl", "fold-0/train.jsonl", "fold-1/train.jsonl")
    )
    assert asked
    assert all(asked.isdisjoint(prompts) for prompts in learnt)
    assert learnt[0].isdisjoint(learnt[1])


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_are_valid(name: str) -> None:
    source = StudyFile.find(name)
    assert source.study.name == name
    assert source.study.description
    assert source.steps(ROOT, [("limit", "10")])


@pytest.mark.parametrize("name", shipped_studies())
def test_the_doctor_of_a_shipped_study_also_sees_what_preparing_set_aside(name: str) -> None:
    configs = {step.name: step.config for step in StudyFile.find(name).steps(ROOT)}
    if "doctor" not in configs:
        assert "prepare" not in configs
        pytest.skip("no doctor: a study of an audit")
    prepared = [step for step in configs if step == "prepare"]
    assert configs["doctor"].set_aside == tuple(ROOT / step / "set_aside.jsonl" for step in prepared)


@pytest.mark.parametrize("name", shipped_studies())
def test_a_smoke_run_is_small_in_every_stage_that_reads_or_writes_rows(name: str) -> None:
    configs = {step.verb_name: step.config.model_dump() for step in StudyFile.find(name).steps(ROOT, [("limit", "10")])}
    # These read what earlier stages made, whole.
    later = {"report", "audit score", "audit effects", "audit report", "audit human", "audit compare"}
    later |= {"evaluate ablation", "evaluate overoptimisation", "evaluate gain", "evaluate forecasts"}
    assert {verb: config.get("limit") for verb, config in configs.items() if verb not in later} == dict.fromkeys(
        configs.keys() - later, 10
    )
