"""The gate: format, lint, types, import contracts, tests.

    python -m eventjobs.tools.check            all of them
    python -m eventjobs.tools.check lint types

Every step runs, whichever failed before. The tests come last, so that what pytest says last is
what is read last; only a failure adds a line below it.
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
    # In more processes than cores, because much of a test is waiting: for a disk, a start, a
    # timeout. Whole modules, because what their fixtures start is shared and slow; in their own
    # order, because the longest are the few tests of tests/campaigns, which would come last.
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
    if name != "tests":  # pytest tells its own outcome and time
        print(f"{'ok' if passed else 'FAILED'} in {time.monotonic() - began:.1f} s", flush=True)
    return passed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
