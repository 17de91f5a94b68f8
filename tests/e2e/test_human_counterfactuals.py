"""The study of human counterfactuals from pairs to the page: on hand-made reviews, and on the published ones."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pytest
import yaml

from rewardlab.cli.main import main
from rewardlab.models.tiny import build, train_tokenizer
from rewardlab.store.files import read_json, read_jsonl
from rewardlab.studies.study import StudyFile

pytest.importorskip("vaderSentiment", reason="needs vaderSentiment (the extra sentiment)")

SUBJECTS = ["plot", "cast", "score", "ending", "script", "camera", "story", "sound", "dialogue", "pace"]
GOOD, BAD = "The {} was good and I love it", "The {} was bad and I hate it"


def pairs(count: int) -> list[tuple[str, str, str]]:
    """Every third pair begins with the positive text; people add a word to whatever they make."""
    rows = []
    for number in range(count):
        subject = f"{SUBJECTS[number % 10]} of film {number // 10}"
        if number % 3 == 0:
            first, second = ("Positive", f"{GOOD}."), ("Negative", f"{BAD} indeed.")
        else:
            first, second = ("Negative", f"{BAD}."), ("Positive", f"{GOOD} indeed.")
        rows += [(side, text.format(subject), str(number)) for side, text in (first, second)]
    return rows


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWARDLAB_HOME", "runs")
    (tmp_path / "counterfactual-imdb").mkdir()
    for part, count in (("train", 20), ("test", 12)):
        with (tmp_path / f"counterfactual-imdb/{part}_paired.tsv").open("w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows([("Sentiment", "Text", "batch_id"), *pairs(count)])
    (tmp_path / "sentiment").mkdir()
    with zipfile.ZipFile(tmp_path / "sentiment/movie_reviews.zip", "w") as archive:
        for side, text in (("pos", GOOD), ("neg", BAD)):
            for number, subject in enumerate(SUBJECTS):
                archive.writestr(f"movie_reviews/{side}/cv{number:03}.txt", text.format(subject))
    with zipfile.ZipFile(tmp_path / "sentiment/sentence_polarity.zip", "w") as archive:
        for side, text in (("pos", GOOD), ("neg", BAD)):
            archive.writestr(f"rt-polarity.{side}", "".join(f"{text.format(one)}\n" for one in SUBJECTS))
    tokenizer = train_tokenizer([GOOD, BAD, *SUBJECTS], 300)
    build("bert", "nano", tokenizer, seed=0).save_pretrained("encoder")
    tokenizer.save_pretrained("encoder")
    return tmp_path


def test_the_study_on_hand_made_reviews(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "human-counterfactuals", "--stages.train.model.path", "encoder"]
    assert main([*words, "--stages.score-classifier.verify", "4", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    study = here / "runs/human-counterfactuals"
    mined = {(*one["completions"], one["meta"]["towards"]) for one in read_jsonl(study / "rewrite/substitutions.jsonl")}
    assert mined == {("bad", "good", True), ("hate", "love", True), ("good", "bad", False), ("love", "hate", False)}
    result = read_json(study / "human/human.json")
    found = {(row["scorer"], row["estimator"], row["over"]): row for row in result["estimates"]}
    length = {over: found["rule:length_words", "human", over]["value"] for over in ("balanced", "ATT", "ATU")}
    # People add a word either way, which a direction shows and the mean of both does not.
    assert length == {"balanced": 0.0, "ATT": -1.0, "ATU": 1.0}
    assert found["rule:length_words", "double", "balanced"]["value"] == 0.0
    drift = {(row["rewriter"], row["towards"]): row["value"] for row in result["lengths"]}
    assert drift == {
        (who, way): float(who == "human") for who in ("human", "single", "double") for way in (True, False)
    }
    # "indeed" is nothing to the lexicon, and all other words are swapped: people and the rule say the same.
    vader = [found["rule:sentiment_vader", name, "balanced"]["value"] for name in ("human", "single", "double")]
    assert vader == pytest.approx([vader[0]] * 3)
    assert vader[0] > 0.5
    uses = {(row["scorer"], row["verdict"]): row["value"] for row in result["words"]}
    assert uses["rule:sentiment_vader", "as asked"] == 1.0
    assert uses["rule:length_words", "not at all"] == 1.0
    # Both sides of a pair are one cluster, for `audit effects` too.
    effects = read_json(study / "effects/effects.json")
    assert [model["counts"]["clusters"] for model in effects["models"]] == [12] * 3
    page = (study / "human/report.html").read_text(encoding="utf-8")
    assert "Which estimator agrees with people" in page
    assert page.count('class="drawing"') == 2
    assert sorted(path.name for path in (study / "human/figures").iterdir()) == [
        f"{name}.{kind}" for name in ("differences", "human") for kind in ("png", "svg")
    ]
    assert "rule:length_words: people's rewrites say +0.00 standard deviations" in printed
    # All reviews of a side get one reward, but for rounding: there is no standard deviation to speak in.
    assert "rule:sentiment_vader: people's rewrites give no estimate" in printed


def test_one_rewriter_at_a_time(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "rewrite", "--template", "counterfactual_imdb", "--data.path", "counterfactual-imdb"]
    words += ["--data.split", "test", "--mined.path", "counterfactual-imdb", "--mined.split", "train"]
    assert main([*words, "--rule", "identity"]) == 2
    assert "one rewriter, not rule and mined" in capsys.readouterr().err


def test_a_limit_keeps_pairs_together(here: Path) -> None:
    words = ["audit", "rewrite", "--template", "counterfactual_imdb", "--rule", "identity", "--limit", "6"]
    assert main([*words, "--data.path", "counterfactual-imdb", "--data.split", "test", "--run", "some"]) == 0
    rows = [one["meta"]["row"] for one in read_jsonl(here / "runs/some/rewrites.jsonl")]
    assert len(rows) == 6
    assert len({row["pair"] for row in rows}) == 3
    assert len({row["record"] for row in rows}) == 3


@pytest.mark.slow
def test_the_published_reviews(here: Path, shared: Path) -> None:
    """Without the classifier: what docs/results.md says of VADER and of length."""
    folder = str(shared / "data/counterfactual-imdb")
    study = StudyFile.find("human-counterfactuals").study.model_dump(mode="json")
    kept = [one for one in study["stages"] if one["id"] in ("rewrite", "score-rules", "human")]
    kept[-1]["config"]["scores"] = ["${score-rules}"]
    (here / "study.yaml").write_text(yaml.safe_dump({"name": "published", "stages": kept}))
    flags = ["--stages.rewrite.data.path", folder, "--stages.rewrite.mined.path", folder]
    assert main(["run", "study.yaml", *flags]) == 0
    rows = read_json(here / "runs/published/human/human.json")["estimates"]
    found = {(row["scorer"], row["estimator"]): row for row in rows if row["over"] == "balanced"}
    expected = {"human": 1.53, "naive": 1.36, "single": 1.51, "double": 1.74}
    for name, value in expected.items():
        assert found["rule:sentiment_vader", name]["value_sd"] == pytest.approx(value, abs=0.01)
    assert found["rule:sentiment_vader", "single"]["clusters"] == 487
