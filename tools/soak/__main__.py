"""Run the campaigns of the gate for longer, with other seeds.

    python -m eventjobs.tools.soak [CAMPAIGN ...] [--rounds N | --seconds S] [--seed N] [--keep DIR]

A round runs each campaign once: `kills` and `stops` of the service, `workers` that are killed and
paused, `hostile` clients, `power` cuts, the search of the `model`, requests to the `api`, and
`properties`, the tests of hypothesis with other examples than the gate's. The exit code is 1 when a
promise is broken; the data directory is then kept, and its path printed.
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

from .api import campaign as api
from .hostile import campaign as hostile
from .kills import campaign as kills
from .kills.stops import Stops
from .leases import campaign as leases
from .model_check.search import search
from .model_check.transitions import Bounds
from .power import campaign as power

ROOT = Path(__file__).resolve().parents[2]
#: Faults and jobs of one data directory: the checks take longer as it grows.
KILLS, STOPS, JOBS = 400, 200, 5_000
#: Rounds of hostile requests; each has thousands.
HOSTILE = 10
#: Disks after each scenario of power cuts.
STATES = 2_000
#: One mode of authentication each round; the requests of one operation for each caller.
EXAMPLES = 30
APIS = (
    api.Plan("required", 0, EXAMPLES),
    api.Plan("off", 0, EXAMPLES),
    api.Plan("optional", 0, EXAMPLES, rates="submit=1000/minute,read=10000/minute"),
)
#: Larger models than the gate's, one each round; only this many states of each are searched.
STATES_MAX = 2_000_000
WORLDS = (
    Bounds(
        remote_workers=2, jobs=1, cancels=1, retries=1, releases=1, restarts=1, hides=1, lates=1
    ),
    Bounds(remote_workers=3, jobs=2, cancels=1, restarts=1, lates=1),
    Bounds(remote_workers=2, jobs=2, releases=1, retries=1),
    Bounds(jobs=2, cancels=1, retries=1, releases=1, restarts=1),
    Bounds(max_attempts=3, cancels=2, retries=2, releases=2, restarts=2, lates=2, handovers=2),
)


class Report(NamedTuple):
    """The result of a campaign in a line, and the broken promises."""

    line: str
    faults: list[str]


def run_kills(data: Path, seed: int) -> Report:
    outcome = asyncio.run(kills.campaign(data, kills.Plan(KILLS, seed)))
    return Report(str(outcome), outcome.faults)


def run_stops(data: Path, seed: int) -> Report:
    campaign = Stops(data, kills.Plan(STOPS, seed))
    outcome = asyncio.run(campaign.run())
    return Report(f"{outcome}, with SIGTERM; {campaign.released} given back", outcome.faults)


def run_workers(data: Path, seed: int) -> Report:
    outcome = asyncio.run(leases.campaign(data, leases.Plan(JOBS, seed)))
    return Report(str(outcome), outcome.faults)


def run_hostile(data: Path, seed: int) -> Report:
    outcome = asyncio.run(hostile.Campaign(data, hostile.Plan(HOSTILE, seed)).run())
    return Report(str(outcome), outcome.faults)


def run_power(data: Path, seed: int) -> Report:
    outcome = power.campaign(data, seed, STATES)
    lines = [str(outcome), *(f"{name}: {each}" for name, each in outcome.tallies.items())]
    lines += [f"control {name}: {each}" for name, each in outcome.controls.items()]
    return Report("\n  ".join(lines), outcome.faults)


def run_api(data: Path, seed: int) -> Report:
    plan = APIS[seed % len(APIS)]._replace(seed=seed)
    outcome = asyncio.run(api.campaign(data, plan))
    return Report(str(outcome), outcome.faults)


def model(data: Path, seed: int) -> Report:
    bounds = WORLDS[seed % len(WORLDS)]
    result = search(bounds, states_max=STATES_MAX)
    which = "all" if result.complete else "the first"
    line = f"{which} {result.states} states, {result.steps} steps, of the model with {bounds}"
    return Report(line, [] if result.violation is None else [*result.trace, result.violation])


def properties(data: Path, seed: int) -> Report:
    chosen = ["-m", "hypothesis", "--hypothesis-profile", "soak", "--hypothesis-seed", str(seed)]
    command = [sys.executable, "-m", "pytest", "-q", f"--basetemp={data}", *chosen]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    output = process.stdout.splitlines()
    line = f"{output[-1] if output else 'no output'}, with seed {seed}"
    return Report(line, [] if process.returncode == 0 else [*output, process.stderr])


CAMPAIGNS: dict[str, Callable[[Path, int], Report]] = {
    "kills": run_kills,
    "stops": run_stops,
    "workers": run_workers,
    "hostile": run_hostile,
    "power": run_power,
    "model": model,
    "api": run_api,
    "properties": properties,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=", ".join(CAMPAIGNS))
    parser.add_argument("--rounds", type=int, help="1 unless --seconds is given")
    parser.add_argument("--seconds", type=float, help="start no campaign after this time")
    parser.add_argument("--seed", type=int, help="of an earlier run, to repeat it")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the data there")
    options = parser.parse_args(arguments)
    if unknown := set(options.campaigns) - set(CAMPAIGNS):
        parser.error(f"no such campaign: {', '.join(sorted(unknown))}")
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    until_s = float("inf") if options.seconds is None else time.monotonic() + options.seconds
    rounds = options.rounds or (sys.maxsize if options.seconds else 1)
    while rounds and time.monotonic() < until_s:
        for name in options.campaigns or CAMPAIGNS:
            if not run(name, seed, options.keep):
                return 1
        rounds -= 1
        seed += 1
    return 0


def run(name: str, seed: int, keep: Path | None) -> bool:
    """Run one campaign and print its report; False, and the data is kept, after a fault."""
    folder = keep if keep is not None else Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"soak-{name}-{seed}-", dir=folder))
    try:
        report = CAMPAIGNS[name](directory / "data", seed)
    except KeyboardInterrupt:
        print(f"interrupted; see {directory}", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"{name}: {report.line}", flush=True)
    for fault in report.faults:
        print(f"  {fault}")
    if report.faults or keep is not None:
        print(f"  see {directory}", flush=True)
    else:
        shutil.rmtree(directory)
    return not report.faults


if __name__ == "__main__":
    sys.exit(main())
