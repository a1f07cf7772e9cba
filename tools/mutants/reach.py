"""Which tests reach a line, and how long each takes: one run of all tests under coverage."""

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import chain
from pathlib import Path
from typing import Self

import coverage

#: A line of pytest's --durations, and the name that pytest-cov gives to a part of a test.
DURATION = re.compile(r"([\d.]+)s (?:setup|call|teardown) +(\S.*)")
CONTEXT = re.compile(r"(.+)\|(?:setup|run|teardown)")


class Reach:
    """The tests of each line of each file, by paths from the root, and seconds by test."""

    def __init__(self, tests: dict[str, dict[int, list[str]]], seconds: dict[str, float]) -> None:
        self.tests = tests
        self.seconds = seconds
        #: By file: how many of its lines each test runs; and of all lines.
        self._lines = {file: Counter(chain(*lines.values())) for file, lines in tests.items()}
        self._all_lines: Counter[str] = sum(self._lines.values(), Counter())

    @classmethod
    def load(cls, path: Path) -> Self:
        content = json.loads(path.read_text())
        names = content["names"]
        tests = {
            file: {int(line): [names[each] for each in numbers] for line, numbers in lines.items()}
            for file, lines in content["lines"].items()
        }
        return cls(tests, content["seconds"])

    def save(self, path: Path) -> None:
        number = {name: index for index, name in enumerate(sorted(self.seconds))}
        lines = {
            file: {line: [number[each] for each in names] for line, names in of_file.items()}
            for file, of_file in self.tests.items()
        }
        content = {"names": list(number), "lines": lines, "seconds": self.seconds}
        path.write_text(json.dumps(content))

    def of_line(self, path: str, line: int) -> list[str]:
        """The tests that run a line in their own process, the quickest first.

        All tests when none does: it may run in a process that a test starts.
        """
        names = self.tests.get(path, {}).get(line) or self.seconds
        return sorted(names, key=lambda name: (self.seconds.get(name, 0.0), name))

    def share(self, path: str, test: str) -> float:
        """How much of what a test runs is in this file: a test with a large share is about it."""
        lines = self._lines.get(path, Counter())
        return lines[test] / max(1, self._all_lines[test])


def record(root: Path, folder: Path, processes: int) -> Reach:
    """Run all tests; raises SystemExit when one fails, because it would hide what changes do."""
    data_file = folder / "coverage"
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(processes), "--dist", "loadfile"]
    command += ["--cov=.", "--cov-report=", "--cov-context=test"]
    command += ["--durations=0", "--durations-min=0", "-vv"]
    environment = {**os.environ, "COVERAGE_FILE": str(data_file)}
    log = folder / "record.log"
    with log.open("w") as output:
        finished = subprocess.run(command, cwd=root, stdout=output, check=False, env=environment)
    if finished.returncode:
        raise SystemExit(f"the tests fail without any change: see {log}")
    seconds: dict[str, float] = defaultdict(float)
    for line in log.read_text().splitlines():
        if match := DURATION.fullmatch(line.strip()):
            seconds[match[2]] += float(match[1])
    return Reach(tests_of_lines(root, data_file), dict(seconds))


def tests_of_lines(root: Path, data_file: Path) -> dict[str, dict[int, list[str]]]:
    data = coverage.CoverageData(str(data_file))
    data.read()
    tests = {}
    for file in data.measured_files():
        path = Path(file).resolve()
        if path.is_relative_to(root) and not path.is_relative_to(root / "tests"):
            tests[str(path.relative_to(root))] = {
                line: sorted({match[1] for each in contexts if (match := CONTEXT.fullmatch(each))})
                for line, contexts in data.contexts_by_lineno(file).items()
            }
    return tests
