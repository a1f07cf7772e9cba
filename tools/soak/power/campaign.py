"""Cuts the power of a service at any moment of its life, and checks what is left of its data.

The system calls of the service are traced. After each prefix of them a model of the disk gives what
a cut can leave: of unsynced changes nothing, everything, or any part. Every promise must hold on
each of these disks.
"""

import asyncio
import collections
import logging
import multiprocessing
import random
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import structlog

from eventjobs.clock import SystemClock

from .check import Checker, Reference
from .disk import RULES, Disk, Image, Left
from .scenarios import CONTROLS, DATA, SCENARIOS, Recording, Scenario, after, play, scratch, write

#: How much is left of the unsynced changes, for each prefix.
LEFT: tuple[Left, ...] = ("nothing", "everything", "something", "something", "something")
#: The share of states on which a whole service is started.
STARTED = 0.03
FAULTS_MAX = 5
#: At most so many states of a control are checked.
CONTROL_STATES = 3_000
now_s = SystemClock().monotonic_s

# --- checking


class Plan(NamedTuple):
    """How many states of a scenario are checked, and which part of them by this process."""

    states: int
    seed: int
    #: Stop at the first bad state: enough for a control.
    until_bad: bool = False
    part: int = 0
    parts: int = 1

    def split(self) -> list["Plan"]:
        return [self._replace(part=part) for part in range(self.parts)]


@dataclass
class Tally:
    """Numbers of checked and bad states, and the first faults."""

    operations: int = 0
    states: int = 0
    distinct: int = 0
    started: int = 0
    bad: int = 0
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)

    @classmethod
    def sum(cls, tallies: Iterable["Tally"]) -> "Tally":
        total = cls()
        for each in tallies:
            total.operations = each.operations
            total.states += each.states
            total.distinct += each.distinct
            total.started += each.started
            total.bad += each.bad
            total.kinds += each.kinds
            total.faults = (total.faults + each.faults)[:FAULTS_MAX]
        return total

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind}: {number}" for kind, number in sorted(self.kinds.items()))
        return (
            f"{self.states} states of {self.operations} operations ({self.distinct} distinct,"
            f" {self.started} started), {self.bad} bad{f' ({kinds})' if kinds else ''}"
        )


def check(recorded: Recording, plan: Plan, bad: Path) -> Tally:
    """Check a part of the states under all rules; the first bad ones are written to *bad*."""
    with scratch() as folder:
        return asyncio.run(_Cuts(recorded, plan, Path(folder), bad).check())


class _Cuts:
    def __init__(self, recorded: Recording, plan: Plan, folder: Path, bad: Path) -> None:
        self._recorded = recorded
        self._plan = plan
        self._bad = bad
        self._draw = random.Random(f"{plan.seed} {plan.part}")
        last = after("ordered", recorded.done)
        reference = Reference(_data(last.image("everything", self._draw)), folder / "reference")
        self._checker = Checker(reference, folder / "image", self._draw)
        self._seen: dict[int, list[str]] = {}
        self._tally = Tally(operations=len(recorded.done))

    async def check(self) -> Tally:
        chosen = self._choose()
        for rules in RULES:
            disk = Disk(rules)
            for index, operation in enumerate(self._recorded.done):
                disk.do(operation)
                for left in LEFT if index in chosen else ():
                    await self._check(disk, left, f"{rules}, {left}, after {index + 1}")
                    if self._tally.bad and self._plan.until_bad:
                        return self._tally
        return self._tally

    def _choose(self) -> set[int]:
        """The operations after which the power is cut, of this part."""
        recorded, plan = self._recorded, self._plan
        drawn = random.Random(plan.seed)
        prefixes = max(2, plan.states // (len(LEFT) * len(RULES)))
        some = {*drawn.sample(recorded.rare, min(prefixes // 2, len(recorded.rare)))}
        rest = [index for index in recorded.cuts if index not in some]
        some |= {*drawn.sample(rest, min(prefixes - len(some), len(rest)))}
        return set(sorted(some)[plan.part :: plan.parts])

    async def _check(self, disk: Disk, left: Left, where: str) -> None:
        data = _data(disk.image(left, self._draw))
        tally = self._tally
        tally.states += 1
        key = hash((len(disk.notes), *sorted(data.items())))
        if key not in self._seen:
            tally.distinct += 1
            start = self._draw.random() < STARTED
            tally.started += start
            self._seen[key] = await self._checker.faults(data, disk.notes, start=start)
        if faults := self._seen[key]:
            tally.bad += 1
            tally.kinds.update({each.partition(":")[0] for each in faults})
            if len(tally.faults) < FAULTS_MAX:
                tally.faults.append(f"{where}: {'; '.join(faults)}")
                write(data, self._bad / where)


def _data(image: Image) -> Image:
    prefix = f"{DATA}/"
    inside = {path: each for path, each in image.items() if path.startswith(prefix)}
    return {path[len(prefix) :]: each for path, each in inside.items() if path != prefix}


@dataclass
class Outcome:
    """The results of a campaign, by scenario."""

    tallies: dict[str, Tally]
    controls: dict[str, Tally]
    seconds: float

    @property
    def states(self) -> int:
        return sum(each.states for each in self.tallies.values())

    @property
    def faults(self) -> list[str]:
        faults = [
            f"{name}: {fault}" for name, each in self.tallies.items() for fault in each.faults
        ]
        missed = [name for name, each in self.controls.items() if not each.bad]
        return faults + [f"{name}: the control was not noticed" for name in missed]

    def __str__(self) -> str:
        bad = sum(each.bad for each in self.tallies.values())
        noticed = sum(bool(each.bad) for each in self.controls.values())
        return (
            f"{self.states} states after a power cut, in {len(self.tallies)} scenarios,"
            f" {bad} bad; {noticed} of {len(self.controls)} controls noticed,"
            f" {self.seconds:.1f} s"
        )


def campaign(
    folder: Path,
    seed: int,
    states: int,
    *,
    scenarios: dict[str, Scenario] = SCENARIOS,
    controls: dict[str, Scenario] = CONTROLS,
    processes: int = 2,
) -> Outcome:
    """Check *states* of each scenario, and some of each control, which must be bad.

    Bad states are written to *folder*.
    """
    begun_s = now_s()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=_be_silent) as pool:
        plan = Plan(states, seed, parts=processes)
        tallies = _tallies(scenarios, pool, folder, plan)
        plan = plan._replace(states=CONTROL_STATES, until_bad=True)
        return Outcome(tallies, _tallies(controls, pool, folder, plan), now_s() - begun_s)


def _be_silent() -> None:
    """Services that start after a cut log much; their logs are not checked."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _tallies(
    scenarios: dict[str, Scenario], pool: ProcessPoolExecutor, folder: Path, plan: Plan
) -> dict[str, Tally]:
    played = {name: pool.submit(play, each, plan.seed) for name, each in scenarios.items()}
    checked = {
        name: [pool.submit(check, recording.result(), part, folder / name) for part in plan.split()]
        for name, recording in played.items()
    }
    return {name: Tally.sum(each.result() for each in parts) for name, parts in checked.items()}
