"""What a job is given: flags and environment → the script that sbatch gets."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from submitit import SlurmExecutor

from rewardlab.errors import ConfigError
from rewardlab.launch.slurm import Launch, executor, minutes, require_slurm
from rewardlab.studies.verbs import VERBS

SMALL = """\
#!/bin/bash

# Parameters
#SBATCH --job-name=first
#SBATCH --no-requeue
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=FOLDER/%j_0_log.out
#SBATCH --signal=USR2@120
#SBATCH --time=60

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output FOLDER/%j_%t_log.out PYTHON -u -m submitit.core._submit FOLDER
"""

LARGE = """\
#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=8
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --job-name=first
#SBATCH --mail-type=END
#SBATCH --mem=64G
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=FOLDER/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=2250

# setup
module load cuda
source venv/bin/activate

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output FOLDER/%j_%t_log.out --cpus-per-task=8 --kill-on-bad-exit=0 \
PYTHON -u -m submitit.core._submit FOLDER
"""


@pytest.fixture(autouse=True)
def _on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlurmExecutor, "affinity", classmethod(lambda cls: 2))


def given(text: str = "", environment: dict[str, str] | None = None) -> Launch:
    words = [word.partition("=") for word in text.split(";") if word]
    return Launch.given([(name, value) for name, _, value in words], environment or {})


def script(launch: Launch, folder: Path) -> str:
    made = executor(launch.slurm, "first", folder)
    text = made._make_submission_file_text(made._submitit_command_str, "")
    return text.replace(str(folder), "FOLDER").replace(sys.executable, "PYTHON")


def test_the_smallest_script(tmp_path: Path) -> None:
    assert script(given("slurm.requeues=0"), tmp_path) == SMALL


def test_a_script_with_everything(tmp_path: Path) -> None:
    flags = (
        "slurm.qos=long;slurm.time=1-13:30;slurm.nodes=2;slurm.tasks=4;slurm.gpus=4;slurm.cpus=8;slurm.memory=64G;"
        "slurm.sbatch.constraint=a100|h100;slurm.sbatch.mail_type=END;slurm.sbatch.exclusive=true;"
        "slurm.sbatch.spread-job=false;slurm.grace=300;"
        "slurm.setup=module load cuda;slurm.setup=source venv/bin/activate"
    )
    environment = {"REWARDLAB_PARTITION": "gpu", "REWARDLAB_ACCOUNT": "lab", "REWARDLAB_QOS": "short"}
    assert script(given(flags, environment), tmp_path) == LARGE


def test_no_secret_of_the_environment_is_in_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "abcdef0123456789")
    assert "abcdef0123456789" not in script(given(), tmp_path)


def test_the_environment_gives_defaults_and_flags_win() -> None:
    environment = {"REWARDLAB_PARTITION": "cpu", "REWARDLAB_SETUP": "module load python", "REWARDLAB_QOS": ""}
    assert given("", environment).slurm.partition == "cpu"
    assert given("", environment).slurm.setup == ("module load python",)
    assert given("", environment).slurm.qos is None
    changed = given("slurm.partition=gpu;slurm.setup=module load cuda", environment).slurm
    assert (changed.partition, changed.setup) == ("gpu", ("module load cuda",))


# The forms that the manual of sbatch gives for --time.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90:00", 90),
        ("90:01", 91),
        ("2:30:00", 150),
        ("0:00:01", 1),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("1-12:30:30", 2191),
    ],
)
def test_times_are_read_as_sbatch_reads_them(text: str, expected: int) -> None:
    assert minutes(text) == expected


def test_all_problems_are_told_at_once_with_the_flag_or_variable_they_come_from() -> None:
    with pytest.raises(ConfigError) as caught:
        given("slurm.time=soon;slurm.memory=many;slurm.tasks=0;slurm.sbatch.mem=4G", {"REWARDLAB_PARTITION": "a\nb"})
    said = str(caught.value)
    for part in ("--slurm.time: found 'soon'", "--slurm.memory: found 'many'", "--slurm.tasks: found 0"):
        assert part in said
    assert "REWARDLAB_PARTITION, slurm.partition: found 'a\\nb'; expected text of one line" in said
    assert "found mem (--slurm.memory)" in said


def test_a_line_end_cannot_bring_a_line_of_its_own() -> None:
    with pytest.raises(ConfigError, match="text of one line"):
        given("slurm.sbatch.comment=a\nrm -r .")


def test_without_submitit_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(Exception, match=r"pip install 'rewardlab\[slurm\]'") as caught:
        require_slurm()
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]


def test_without_slurm_it_is_said_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="found no sbatch and no srun on this machine"):
        require_slurm()


def test_the_page_names_the_verbs_whose_processes_share_their_work() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"share their work take any number \(([^)]*)\)", page.replace("\n", " "))
    assert set(re.findall(r"`([^`]+)`", named)) == {name for name, verb in VERBS.items() if verb.shares}
