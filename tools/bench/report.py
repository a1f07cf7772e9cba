"""The output of the benchmark: the machine, and each figure beside its limit and its floor."""

import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from .processes import Sample, now_s

HEADINGS = (
    "what",
    "eventjobs",
    "raw limit in the same run",
    "share",
    "floor",
    "met?",
    "CPU µs each, of the limit",
    "what the limit is",
)


@dataclass(frozen=True)
class Unit:
    """A unit of a figure; with *less*, smaller figures are better."""

    name: str
    digits: int = 0
    less: bool = False


JOBS = Unit("jobs/s")
EVENTS = Unit("events/s")
REQUESTS = Unit("requests/s")
DELIVERIES = Unit("deliveries/s")
MILLISECONDS = Unit("ms", 2, less=True)
KIBIBYTES = Unit("KiB", 1, less=True)
SECONDS = Unit("s", 2, less=True)
#: A part of the raw figure; the share says how large it is.
PART_US = Unit("µs", 1)


@dataclass(frozen=True)
class Floor:
    """The least that must be reached: a figure, or a share of the raw limit; by rates, or by CPU
    time, which other load on the machine hardly changes.
    """

    figure: float | None = None
    share: float | None = None
    cpu_share: float | None = None


@dataclass
class Row:
    """One line of the table; the n-th figures of *ours* and *raw* were measured in turn."""

    what: str
    unit: Unit
    limit: str
    floor: Floor | None = None
    ours: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    #: microseconds of CPU time for each; hardly changed by other load on the machine
    ours_cpu: list[float] = field(default_factory=list)
    raw_cpu: list[float] = field(default_factory=list)

    def add(self, ours: float | Sample, raw: float | Sample) -> None:
        for sample, figures, cpu in (
            (ours, self.ours, self.ours_cpu),
            (raw, self.raw, self.raw_cpu),
        ):
            if isinstance(sample, Sample):
                figures.append(sample.rate)
                cpu.append(sample.cpu_us)
            else:
                figures.append(sample)

    @property
    def share(self) -> float | None:
        """The share of the raw limit that is reached; the median of the pairs."""
        pairs = [(o, r) for o, r in zip(self.ours, self.raw, strict=False) if o and r]
        if not pairs:
            return None
        return median(raw / ours if self.unit.less else ours / raw for ours, raw in pairs)

    @property
    def cpu_share(self) -> float | None:
        """The CPU time of the raw limit as a share of ours; the median of the pairs."""
        pairs = [(o, r) for o, r in zip(self.ours_cpu, self.raw_cpu, strict=False) if o]
        return median(raw / ours for ours, raw in pairs) if pairs else None

    @property
    def met(self) -> bool | None:
        if self.floor is None or not self.ours:
            return None
        figure = self.floor.figure
        if figure is not None and (
            median(self.ours) > figure if self.unit.less else median(self.ours) < figure
        ):
            return False
        shares = (self.share, self.floor.share), (self.cpu_share, self.floor.cpu_share)
        return all(least is None or (share or 0) >= least for share, least in shares)

    def cells(self) -> tuple[str, ...]:
        return (
            self.what,
            _figures(self.ours, self.unit),
            _figures(self.raw, self.unit),
            "" if self.share is None else _percent(self.share),
            _floor(self.floor, self.unit),
            {None: "", True: "yes", False: "NO"}[self.met],
            "" if self.cpu_share is None else self._cpu(self.cpu_share),
            self.limit,
        )

    def _cpu(self, share: float) -> str:
        return f"{median(self.ours_cpu):.1f}, {median(self.raw_cpu):.1f} ({share:.0%})"

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "unit": self.unit.name,
            "eventjobs": self.ours,
            "raw": self.raw,
            "share": self.share,
            "floor": None if self.floor is None else vars(self.floor),
            "met": self.met,
            "cpu_us": {"eventjobs": self.ours_cpu, "raw": self.raw_cpu},
            "limit": self.limit,
        }


def _figures(values: list[float], unit: Unit) -> str:
    if not values:
        return ""
    middle, low, high = (
        f"{v:,.{unit.digits}f}" for v in (median(values), min(values), max(values))
    )
    return f"{middle} {unit.name}" + (f" ({low}..{high})" if len(values) > 1 else "")


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _floor(floor: Floor | None, unit: Unit) -> str:
    if floor is None:
        return ""
    parts = []
    if floor.figure is not None:
        parts.append(f"{'under' if unit.less else 'at least'} {floor.figure:,g} {unit.name}")
    if floor.share is not None:
        parts.append(f"at least {_percent(floor.share)}")
    if floor.cpu_share is not None:
        parts.append(f"at least {floor.cpu_share:.0%} by CPU time")
    return ", ".join(parts)


def table(rows: Sequence[Row], *, markdown: bool) -> str:
    cells = [HEADINGS, *(row.cells() for row in rows)]
    if markdown:
        lines = ["| " + " | ".join(line) + " |" for line in cells]
        return "\n".join([lines[0], "| --- " * len(HEADINGS) + "|", *lines[1:]])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# --- the machine


def machine(directory: Path) -> dict[str, str]:
    """The properties of this machine; *directory* is where the databases are."""
    return {
        "cpu": f"{_cpu()}, {_cores()} cores",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "filesystem": _filesystem(directory),
        "fsync": ", ".join(f"{kib} KiB {_fsync_ms(directory, kib):.2f} ms" for kib in (4, 64)),
    }


class Conditions:
    """The speed of the machine during the benchmark, and the load of other processes."""

    def __init__(self) -> None:
        self._began_s = now_s()
        self._all_s, self._own_s = _busy_s(), _own_s()
        self._speeds: list[float] = []

    def measure(self) -> None:
        self._speeds.append(_loop_speed())

    def summary(self) -> dict[str, str]:
        spent_s = now_s() - self._began_s
        others_s = (_busy_s() - self._all_s) - (_own_s() - self._own_s)
        low, high = min(self._speeds), max(self._speeds)
        return {
            "python loop": f"{median(self._speeds):.0f} ({low:.0f}..{high:.0f}) million turns/s",
            "others took": f"{max(0.0, others_s) / spent_s:.1f} of {_cores()} cores on average",
            "all took": f"{spent_s:.0f} s",
        }


def _busy_s() -> float:
    """CPU seconds of the whole machine since its start."""
    user, nice, system, _, _, irq, softirq, steal, *_ = (
        Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    ticks = sum(map(int, (user, nice, system, irq, softirq, steal)))
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """CPU seconds of this process and its reaped children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _filesystem(directory: Path) -> str:
    """The type of the mount that *directory* is on."""
    best, filesystem = -1, "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted, kind, *_ = line.split()
        if directory.is_relative_to(mounted) and len(mounted) > best:
            best, filesystem = len(mounted), kind
    return filesystem


def _fsync_ms(directory: Path, kib: int, times: int = 50) -> float:
    """The median milliseconds of an fdatasync after an overwrite of *kib* KiB."""
    path = directory / "fsync"
    block = os.urandom(kib * 1024)
    spent = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.seek(0)
            began_s = now_s()
            file.write(block)
            os.fdatasync(file.fileno())
            spent.append(now_s() - began_s)
    path.unlink()
    return median(spent) * 1000


def _loop_speed(turns: int = 1_000_000) -> float:
    """Millions of turns a second of an empty loop, to compare machines and moments."""
    began_s = now_s()
    for _ in range(turns):
        pass
    return turns / (now_s() - began_s) / 1e6


def machine_lines(properties: dict[str, str], *, markdown: bool) -> str:
    mark = "- " if markdown else ""
    return "\n".join(f"{mark}{name}: {value}" for name, value in properties.items())
