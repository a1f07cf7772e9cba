"""Look for broken promises for as long as you like: every campaign of the gate, and further.

    python -m eventjobs.tools.soak [CAMPAIGN ...] [--rounds N | --seconds S] [--seed N] [--keep DIR]

The campaigns take turns: `kills` of the service, `stops` of it, `workers` that are killed and
paused, `power`, cuts of the power at any moment, `model`, the search through every order in which
things can happen, and `properties`, all tests that draw their examples, with others than the
gate's. Exits with 1 when something is not as promised, and then leaves the data directory where it
says.
"""

import argparse
import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import kills, stops, workers
from .job_model import Bounds
from .model_search import search
from .power import campaign as power

ROOT = Path(__file__).resolve().parents[2]
#: Of one data directory: the checks take longer as it grows.
KILLS, STOPS, JOBS = 400, 200, 5_000
#: Of each scenario of power cuts.
STATES = 2_000
#: Beyond the gate's: one each round, and of the largest only the states that are reached first.
STATES_MAX = 2_000_000
WORLDS = (
    Bounds(elsewhere=2, jobs=1, cancels=1, retries=1, releases=1, restarts=1, hides=1, lates=1),
    Bounds(elsewhere=3, jobs=2, cancels=1, restarts=1, lates=1),
    Bounds(elsewhere=2, jobs=2, releases=1, retries=1),
    Bounds(jobs=2, cancels=1, retries=1, releases=1, restarts=1),
    Bounds(max_attempts=3, cancels=2, retries=2, releases=2, restarts=2, lates=2, handovers=2),
)


class Told(NamedTuple):
    """What a campaign came to, in a line, and what was not as promised."""

    line: str
    faults: list[str]


def run_kills(data: Path, seed: int) -> Told:
    outcome = asyncio.run(kills.campaign(data, kills.Plan(KILLS, seed)))
    return Told(str(outcome), outcome.faults)


def run_stops(data: Path, seed: int) -> Told:
    campaign = stops.Stops(data, kills.Plan(STOPS, seed))
    outcome = asyncio.run(campaign.run())
    return Told(f"{outcome}, with SIGTERM; {campaign.released} given back", outcome.faults)


def run_workers(data: Path, seed: int) -> Told:
    outcome = asyncio.run(workers.campaign(data, workers.Plan(JOBS, seed)))
    return Told(str(outcome), outcome.faults)


def run_power(data: Path, seed: int) -> Told:
    outcome = power.campaign(data, seed, STATES)
    lines = [str(outcome), *(f"{name}: {each}" for name, each in outcome.tallies.items())]
    lines += [f"control {name}: {each}" for name, each in outcome.controls.items()]
    return Told("\n  ".join(lines), outcome.faults)


def model(data: Path, seed: int) -> Told:
    bounds = WORLDS[seed % len(WORLDS)]
    found = search(bounds, states_max=STATES_MAX)
    which = "all" if found.complete else "the first"
    line = f"{which} {found.states} states, {found.steps} steps, of the model with {bounds}"
    return Told(line, [] if found.violation is None else [*found.trace, found.violation])


def properties(data: Path, seed: int) -> Told:
    chosen = ["-m", "hypothesis", "--hypothesis-profile", "soak", "--hypothesis-seed", str(seed)]
    command = [sys.executable, "-m", "pytest", "-q", f"--basetemp={data}", *chosen]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = process.stdout.splitlines()
    line = f"{told[-1] if told else 'no word'}, with seed {seed}"
    return Told(line, [] if process.returncode == 0 else [*told, process.stderr])


CAMPAIGNS: dict[str, Callable[[Path, int], Told]] = {
    "kills": run_kills,
    "stops": run_stops,
    "workers": run_workers,
    "power": run_power,
    "model": model,
    "properties": properties,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=", ".join(CAMPAIGNS))
    parser.add_argument("--rounds", type=int, help="of them; 1 unless --seconds is given")
    parser.add_argument("--seconds", type=float, help="begin none when they are over")
    parser.add_argument("--seed", type=int, help="the one of an earlier run, to repeat it")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the data there")
    given = parser.parse_args(arguments)
    if unknown := set(given.campaigns) - set(CAMPAIGNS):
        parser.error(f"no such campaign: {', '.join(sorted(unknown))}")
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    until_s = float("inf") if given.seconds is None else time.monotonic() + given.seconds
    rounds = given.rounds or (sys.maxsize if given.seconds else 1)
    while rounds and time.monotonic() < until_s:
        for name in given.campaigns or CAMPAIGNS:
            if not kept_its_promises(name, seed, given.keep):
                return 1
        rounds -= 1
        seed += 1
    return 0


def kept_its_promises(name: str, seed: int, keep: Path | None) -> bool:
    """Run one campaign and tell about it; its data stays when something is wrong."""
    folder = keep if keep is not None else Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"soak-{name}-{seed}-", dir=folder))
    try:
        told = CAMPAIGNS[name](directory / "data", seed)
    except KeyboardInterrupt:
        print(f"interrupted; see {directory}", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"{name}: {told.line}", flush=True)
    for fault in told.faults:
        print(f"  {fault}")
    if told.faults or keep is not None:
        print(f"  see {directory}", flush=True)
    else:
        shutil.rmtree(directory)
    return not told.faults


if __name__ == "__main__":
    sys.exit(main())
