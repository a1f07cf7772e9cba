"""Change the code in one small place at a time, and see whether a test fails.

    python -m eventjobs.tools.mutants [PATH ...] [--changes N] [--seed N] [--budget S] [--again]

A sample of all changes is tried, each against the tests that reach its line: those of its module
first, then those that are most about it, until one fails or they have used their budget of seconds.
The first run records which tests reach which line, and so does --record; that takes as long as all
tests.
"""

import argparse
import json
import random
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from .changes import Change, changes_of
from .reach import Reach, record
from .trial import Outcome, Tree

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED = Path(__file__).with_name("accepted.toml")
#: The packages that carry the promises.
PATHS = [
    "eventjobs/domain",
    "eventjobs/log",
    "projections",
    "eventjobs/attempts",
    "eventjobs/execution",
    "eventjobs/outbound",
    "eventjobs/http/streams",
]
#: Seconds of the nearest tests, which are tried before all others.
NEAREST_S = 5
#: One in this many trials is repeated without its change: its tests must pass.
CONTROLS = 20


@dataclass(frozen=True)
class Trial:
    """*tests* were tried of the *reaching* ones."""

    change: Change
    outcome: Outcome
    tests: int
    reaching: int
    #: The tests fail without the change, too.
    control_failed: bool


class Campaign:
    """Tries changes in several copies of the tree at once."""

    def __init__(self, reach: Reach, trees: Iterable[Tree], budget_s: float) -> None:
        self._reach = reach
        self._budget_s = budget_s
        self._idle: SimpleQueue[Tree] = SimpleQueue()
        for tree in trees:
            self._idle.put(tree)

    def run(self, change: Change, *, control: bool) -> Trial:
        reaching = self._reach.of_line(change.path, change.line)
        tree = self._idle.get()
        try:
            outcome, count = Outcome.SURVIVED, 0
            batches = [each for each in self._batches(change, reaching) if each]
            with tree.apply(change):
                for batch in batches:
                    if outcome is Outcome.SURVIVED:
                        outcome = tree.run(batch)
                        count += len(batch)
            failed = control and any(tree.run(each) is not Outcome.SURVIVED for each in batches)
            return Trial(change, outcome, count, len(reaching), failed)
        finally:
            self._idle.put(tree)

    def _batches(
        self, change: Change, reaching: list[str]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """The nearest tests, and of the others those that are most about the module first.

        Both are within their times.
        """
        module = Path(change.path)
        near = sorted(reaching, key=lambda test: _distance(module, test))
        nearest = self._within(near, NEAREST_S)
        others = [test for test in reaching if test not in nearest]
        others.sort(key=lambda test: -self._reach.share(change.path, test))
        return nearest, self._within(others, self._budget_s)

    def _within(self, tests: list[str], budget_s: float) -> dict[str, float]:
        """The first of *tests* that take *budget_s* together, and their seconds."""
        chosen: dict[str, float] = {}
        spent_s = 0.0
        for test in tests:
            seconds = self._reach.seconds.get(test, 0.0)
            spent_s += seconds
            if chosen and spent_s > budget_s:
                break
            chosen[test] = seconds
        return chosen


def _distance(module: Path, test: str) -> int:
    """0 for the module's own tests, 1 for those of its package: tests/ has the same folders."""
    file = Path(test.partition("::")[0])
    if file.parent.name != module.parent.name:
        return 2
    return 0 if file.stem == f"test_{module.stem}" else 1


def accepted_changes() -> dict[tuple[str, str, str, str], str]:
    """The reasons, by the identity of a change."""
    return {
        (each["path"], each["function"], each["before"], each["after"]): each["reason"]
        for each in tomllib.loads(ACCEPTED.read_text()).get("accepted", [])
    }


def report(trials: list[Trial]) -> str:
    """Outcomes by module, and each change that survived."""
    reasons = accepted_changes()
    unexplained = [
        trial
        for trial in trials
        if trial.outcome is Outcome.SURVIVED and trial.change.identity not in reasons
    ]
    counts: dict[str, Counter[str]] = {}
    for trial in trials:
        excused = trial.outcome is Outcome.SURVIVED and trial not in unexplained
        name = "accepted" if excused else str(trial.outcome)
        for place in (trial.change.path, "all"):
            counts.setdefault(place, Counter())[name] += 1
    columns = ["killed", "timed out", "survived", "accepted", "not tried"]
    lines = ["".join(f"{name:>11}" for name in columns)]
    for place, outcomes in sorted(counts.items(), key=lambda item: (item[0] == "all", item[0])):
        lines.append("".join(f"{outcomes[name]:11}" for name in columns) + f"  {place}")
    unexplained.sort(key=lambda each: (each.change.path, each.change.line))
    lines += [f"{trial.change}  ({trial.tests} of {trial.reaching} tests)" for trial in unexplained]
    if failures := [trial for trial in trials if trial.control_failed]:
        lines.append(f"{len(failures)} controls failed: the tests of {failures[0].change.path}")
    total = counts["all"]
    caught = total["killed"] + total["timed out"]
    count = caught + total["survived"]
    lines.append(f"{caught} of {count} caught, {100 * caught / max(1, count):.1f} %")
    return "\n".join(lines)


def sample(root: Path, paths: list[str], number: int, seed: int) -> list[Change]:
    """So many changes, at most, of modules and folders of modules."""
    changes = [
        change
        for path in map(root.joinpath, paths)
        for module in (sorted(path.rglob("*.py")) if path.is_dir() else [path])
        for change in changes_of(root, module)
    ]
    return random.Random(seed).sample(changes, min(number, len(changes)))


def try_all(
    root: Path, changes: list[Change], reach: Reach, budget_s: float, processes: int
) -> Iterator[Trial]:
    """The trials as they end."""
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        ExitStack() as opened,
        ThreadPoolExecutor(processes) as threads,
    ):
        folders = [Path(folder) / str(number) for number in range(processes)]
        trees = list(threads.map(lambda each: Tree(root, each), folders))
        campaign = Campaign(reach, map(opened.enter_context, trees), budget_s)
        futures = [
            threads.submit(campaign.run, change, control=number % CONTROLS == 0)
            for number, change in enumerate(changes)
        ]
        for future in as_completed(futures):
            yield future.result()


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser("mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", metavar="PATH", default=PATHS, help="modules, folders")
    parser.add_argument("--changes", type=int, default=700, metavar="N", help="as many, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--budget", type=float, default=60, metavar="S", help="of tests a change")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--record", action="store_true", help="record again which tests reach what")
    parser.add_argument("--again", action="store_true", help="those that survived the last run")
    options = parser.parse_args(arguments)
    folder = root / "build" / "mutants"
    folder.mkdir(parents=True, exist_ok=True)
    recorded, results = folder / "reach.json", folder / "survivors.json"
    if options.record or not recorded.exists():
        record(root, folder, options.processes).save(recorded)
    changes = sample(root, options.paths, options.changes, options.seed)
    if options.again:
        last = {tuple(each) for each in json.loads(results.read_text())}
        changes = [change for change in changes if change.identity in last]
    trials, survivors = [], []
    results.write_text("[]")
    for trial in try_all(root, changes, Reach.load(recorded), options.budget, options.processes):
        trials.append(trial)
        if len(trials) % 50 == 0:
            print(f"{len(trials)} of {len(changes)}", flush=True)
        if trial.outcome is Outcome.SURVIVED:
            survivors.append(trial.change.identity)
            results.write_text(json.dumps(survivors))
            print(trial.change, flush=True)
    print(report(trials))
    return 0


if __name__ == "__main__":
    sys.exit(main())
