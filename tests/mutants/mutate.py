"""Mutation tests: change one thing in the code, and see whether a test notices.

`make mutants COUNT=300 SEED=0` draws mutants of `functional/` and of the layout engine with Cosmic Ray's operators and
runs, for each, the tests that answer for its file. Nothing is written into the working tree but `mutants/`: every
worker mutates a copy of its own. One process imports torch once and forks per mutant. Results are kept by content in
`mutants/results.txt`, so an interrupted run goes on where it stopped.

Exit code 0 when enough mutants are noticed, 1 when not, 2 when the tests fail without any mutation.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import importlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Never

import cosmic_ray.ast
import cosmic_ray.mutating
import cosmic_ray.plugins
import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "mutants" / "results.txt"
PACKAGE = "src/rewardlab"
FUNCTIONAL = (
    "tests/functional",
    "tests/laws/test_losses.py",
    "tests/laws/test_metrics.py",
    "tests/laws/test_policy_losses.py",
)
LAYOUT = (
    "tests/data/test_layout.py",
    "tests/models/test_attention.py",
    "tests/models/test_selftest_clone.py",
    "tests/models/test_shared_layout.py",
)
SUITES = {
    f"{PACKAGE}/data/layout.py": LAYOUT,
    f"{PACKAGE}/data/predictions.py": ("tests/data/test_predictions.py",),
    f"{PACKAGE}/models/attention.py": LAYOUT,
    f"{PACKAGE}/models/selftest.py": LAYOUT,
    f"{PACKAGE}/models/token_logprobs.py": ("tests/models/test_token_logprobs.py",),
    **{str(path.relative_to(ROOT)): FUNCTIONAL for path in sorted((ROOT / PACKAGE / "functional").glob("*.py"))},
}
"""Mutated files and the tests that answer for each."""

NETWORKS = ("llama", "gpt2", "gpt_neox", "opt", "qwen2", "qwen3", "mistral", "gemma3", "bloom")
PRELOADED = (
    *("scipy.optimize", "scipy.stats", "scipy.sparse", "torch", "transformers.modeling_utils"),
    *(f"transformers.models.{name}.modeling_{name}" for name in NETWORKS),
)
"""What is imported before forking: slow, and none of it is mutated."""

MEMORY = 16 * 2**30
"""Bytes of address space of one test process: a mutant may allocate without end."""

FAMILIES = (
    frozenset({"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}),
    frozenset({"BitAnd", "BitOr", "BitXor", "LShift", "RShift"}),
    frozenset({"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE"}),
    frozenset({"Is", "IsNot"}),
    frozenset({"In", "NotIn"}),
)
"""What may replace what: `a >> b` of floats stops at once whatever the tests look at, and `is` often equals `==`."""

BROKEN = 70
"""Exit code of a test process that says nothing about its mutant; pytest has no such code."""


@dataclass(frozen=True)
class Mutant:
    """A file with one change. `line` counts from 1."""

    path: str
    line: int
    operator: str
    original: str
    mutated: str

    @property
    def place(self) -> str:
        """File and line, as editors read them."""
        return f"{self.path}:{self.line}"

    @property
    def diff(self) -> str:
        """The change, with a line of context on both sides."""
        before, after = self.original.splitlines(), self.mutated.splitlines()
        return "\n".join(list(difflib.unified_diff(before, after, n=1, lineterm=""))[2:])


def meaning(source: str) -> str:
    """The program without its annotations: `int | None` mutated to `int + None` is never evaluated."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


def tells(operator: str) -> bool:
    """Whether the name of an operator, such as `ReplaceBinaryOperator_Add_Sub`, stays within a family."""
    kind, *pair = operator.rpartition("/")[2].split("_")
    return kind not in {"ReplaceBinaryOperator", "ReplaceComparisonOperator"} or any(
        family.issuperset(pair) for family in FAMILIES
    )


def candidates(path: str, source: str) -> Iterator[tuple[str, int, str, int, tuple[int, int]]]:
    """Every (path, line, operator, occurrence, position) at which an operator without arguments applies."""
    nodes = list(cosmic_ray.ast.ast_nodes(cosmic_ray.ast.get_ast(source)))
    for name in filter(tells, cosmic_ray.plugins.operator_names()):
        kind = cosmic_ray.plugins.get_operator(name)
        if not kind.arguments():
            positions = [start for node in nodes for start, _ in kind().mutation_positions(node)]
            for occurrence, start in enumerate(positions):
                yield path, start[0], name, occurrence, start


def mutants(sources: dict[str, str], seed: int) -> Iterator[Mutant]:
    """All mutants in a seeded order that visits every place once before it visits one twice.

    Otherwise binary operators, with six replacements each, would be most of a sample. A longer sample begins with
    the shorter one.
    """
    found = [candidate for path, source in sources.items() for candidate in candidates(path, source)]
    random.Random(seed).shuffle(found)
    visits: Counter[tuple[str, tuple[int, int]]] = Counter()
    rounds = []
    for path, line, name, occurrence, start in found:
        rounds.append((visits[path, start], (path, line, name, occurrence)))
        visits[path, start] += 1
    for _, (path, line, name, occurrence) in sorted(rounds, key=lambda entry: entry[0]):
        source = sources[path]
        mutated = cosmic_ray.mutating.mutate_code(source, cosmic_ray.plugins.get_operator(name)(), occurrence)
        try:
            if mutated is None or meaning(mutated) == meaning(source):
                continue
        except SyntaxError:
            continue
        yield Mutant(path, line, name.rpartition("/")[2], source, mutated)


def snapshot(folder: Path) -> str:
    """Copy what the tests read into `folder`; the digest of code, tests and their settings."""
    folder.mkdir()
    shutil.copy2(ROOT / "pyproject.toml", folder)
    for name in ("src", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".toml"}):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def run_tests(folder: Path, tests: Sequence[str], processor_seconds: int) -> Never:
    """Become a test run of the copy in `folder`; ends the process with pytest's exit code."""
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (processor_seconds, resource.RLIM_INFINITY))
    sys.path[:0] = [str(folder / "src"), str(folder)]
    code = BROKEN
    try:
        # What is imported before the fork includes a pytest plugin (of anyio), which nothing here needs rewritten.
        early = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
        options = ("-x", "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp'}", *early)
        code = int(pytest.main([*options, *tests]))
        if not str(sys.modules["rewardlab"].__file__).startswith(str(folder)):
            print("the tests imported another rewardlab than the mutated one")
            code = BROKEN
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def outcome(status: int, output: str) -> str:
    """What the wait status of a test run says about its mutant."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return "timeout"
    if code == -signal.SIGKILL:
        raise SystemExit("a test run was killed from outside (memory?); run again to go on, perhaps with WORKERS=1")
    if code == BROKEN:
        raise SystemExit(f"{output}\nthis test run says nothing about its mutant")
    return "survived" if code == 0 else "killed"


class Workers:
    """Copies of the repository, each with at most one forked test run in it."""

    def __init__(self, folder: Path, count: int) -> None:
        self.free = [folder / str(number) for number in range(count)]
        self.original = folder / "original"
        self.digest = snapshot(self.original)
        for copy in self.free:
            shutil.copytree(self.original, copy)
        self.running: dict[int, tuple[Path, str]] = {}

    def start(self, path: str, source: str | None, tests: Sequence[str], processor_seconds: int) -> int:
        """Fork a test run with `source` in place of the file at `path`, or with the code as it is; its process id."""
        folder = self.free.pop()
        if source is not None:
            (folder / path).write_text(source, encoding="utf-8")
        if (pid := os.fork()) == 0:
            # Bytecode is told apart by seconds and size only, which a mutant may share with the code as it is.
            sys.dont_write_bytecode = source is not None
            run_tests(folder, tests, processor_seconds)
        self.running[pid] = folder, path
        return pid

    def wait(self) -> tuple[int, int, float, str]:
        """The next test run that ends: process id, wait status, processor seconds and output."""
        pid, status, usage = os.wait4(-1, 0)
        folder, path = self.running.pop(pid)
        shutil.copy2(self.original / path, folder / path)
        self.free.append(folder)
        output = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        return pid, status, usage.ru_utime + usage.ru_stime, output

    def stop(self) -> None:
        """End the test runs that are left."""
        for pid in self.running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def time_limits(workers: Workers, paths: Iterable[str]) -> dict[tuple[str, ...], int]:
    """Processor seconds allowed per suite: ten more than five times what it needs without mutation.

    Processor seconds, so that a busy machine makes no timeouts.
    """
    limits = {}
    for tests, path in {SUITES[path]: path for path in paths}.items():
        workers.start(path, None, tests, processor_seconds=600)
        _, status, seconds, output = workers.wait()
        if status != 0:
            print(output, f"The tests fail without any mutation: {' '.join(tests)}", sep="\n", file=sys.stderr)
            raise SystemExit(2)
        limits[tests] = 10 + int(5 * seconds)
    return limits


def run(workers: Workers, sample: Sequence[Mutant]) -> dict[Mutant, str]:
    """The outcome of every mutant of the sample; what earlier runs found is not run again."""
    key_of = {m: hashlib.sha256(f"{workers.digest} {m.path} {m.mutated}".encode()).hexdigest() for m in sample}
    # A record begins a line, so that one cut short by a kill stays alone; its key is then too short to be found.
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    known = {key: word for word, _, key in (line.partition(" ") for line in lines)}
    todo = [mutant for mutant in sample if key_of[mutant] not in known]
    print(f"{len(sample)} mutants, {len(sample) - len(todo)} known from earlier runs", flush=True)
    limits = time_limits(workers, {mutant.path for mutant in todo})
    waiting, tested, began, ended = list(reversed(todo)), dict[int, Mutant](), time.monotonic(), 0
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as results:
        while waiting or workers.running:
            while waiting and workers.free:
                mutant = waiting.pop()
                tests = SUITES[mutant.path]
                tested[workers.start(mutant.path, mutant.mutated, tests, limits[tests])] = mutant
            pid, status, seconds, output = workers.wait()
            mutant, word = tested.pop(pid), outcome(status, output)
            known[key_of[mutant]] = word
            results.write(f"\n{word} {key_of[mutant]}")
            results.flush()
            ended += 1
            left = (time.monotonic() - began) / ended * (len(todo) - ended) / 60
            progress = f"{ended}/{len(todo)}, {left:.0f} min left"
            print(f"{word:8} {seconds:5.1f} s  {mutant.place} {mutant.operator}  ({progress})", flush=True)
    return {mutant: known[key_of[mutant]] for mutant in sample}


def changed_since(commit: str) -> set[str]:
    """Files that differ from `commit`, committed or not."""
    command = ["git", "diff", "--name-only", commit, "--"]
    return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines())


def summary(outcomes: dict[Mutant, str]) -> float:
    """Print the survivors and the counts; the share of mutants that the tests noticed."""
    for mutant, word in outcomes.items():
        if word == "survived":
            print(f"\n{mutant.place} {mutant.operator}\n{mutant.diff}")
    counts = Counter(outcomes.values())
    # A mutant that never ends is noticed too: the tests do not pass.
    share = 1 - counts["survived"] / len(outcomes)
    words = ", ".join(f"{counts[word]} {word}" for word in ("killed", "survived", "timeout"))
    print(f"\n{words}: {share:.1%} of {len(outcomes)} noticed (killed or timeout)")
    return share


def main() -> int:
    """Draw, test, summarise; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="size of the sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--since", metavar="COMMIT", help="only files changed since COMMIT")
    parser.add_argument("--minimum", type=float, default=0.85, help="share to notice, below which the exit code is 1")
    arguments = parser.parse_args()
    paths = sorted(SUITES.keys() & changed_since(arguments.since) if arguments.since else SUITES)
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    os.environ.setdefault("REWARDLAB_SHARED", str(ROOT.parent / "shared"))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        workers = Workers(Path(folder), arguments.workers)
        sources = {path: (workers.original / path).read_text(encoding="utf-8") for path in paths}
        sample = list(islice(mutants(sources, arguments.seed), arguments.count))
        if not sample:
            print("no mutants: nothing that is mutated has changed")
            return 0
        for name in PRELOADED:
            importlib.import_module(name)
        try:
            outcomes = run(workers, sample)
        finally:
            workers.stop()
    return 0 if summary(outcomes) >= arguments.minimum else 1


if __name__ == "__main__":
    sys.exit(main())
