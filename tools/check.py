"""The gate: format, lint, types, import contracts, tests.

    python -m eventjobs.tools.check            all of them
    python -m eventjobs.tools.check lint types

Every step runs, also after one that failed. The tests come last, so that the summary of pytest ends
the output; only a failure adds a line.
"""

import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sysconfig.get_path("scripts")

PYTEST = [sys.executable, "-m", "pytest"]
STEPS = {
    "format": [f"{SCRIPTS}/ruff", "format", "--check", "."],
    "lint": [f"{SCRIPTS}/ruff", "check", "."],
    "types": [f"{SCRIPTS}/mypy"],
    "imports": [f"{SCRIPTS}/lint-imports", "--no-logo"],
    # More processes than cores, because tests wait: for a disk, a start, a timeout. Whole modules,
    # because servers of their fixtures are shared. In the order of files, because the tests of
    # tests/campaigns are long and few: in xdist's order they would come last.
    "tests": [*PYTEST, "-n", "4", "--dist", "loadfile", "--no-loadscope-reorder"],
}


def main(names: list[str]) -> int:
    if unknown := set(names) - set(STEPS):
        print(f"no such step: {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
        return 2
    passed = {name: run(name) for name in STEPS if not names or name in names}
    if all(passed.values()):
        return 0
    print("\n" + ", ".join(f"{name} {'ok' if ok else 'FAILED'}" for name, ok in passed.items()))
    return 1


def run(name: str) -> bool:
    """Run one step; True when it passed."""
    print(f"\n=== {name}", flush=True)
    began = time.monotonic()
    passed = subprocess.run(STEPS[name], cwd=ROOT, check=False).returncode == 0
    if name != "tests":  # pytest prints its own outcome and time
        print(f"{'ok' if passed else 'FAILED'} in {time.monotonic() - began:.1f} s", flush=True)
    return passed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
