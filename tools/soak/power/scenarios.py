"""Scenarios: which lives of a service are traced, and where they are killed or cut."""

import random
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from .disk import Disk, Image, Rules
from .trace import Create, MakeFolder, Note, Operation, Remove, Rename, Sync, Write, read, record

ROOT = Path(__file__).resolve().parents[3]
#: In the traced folder, below a parent that the service makes: the name of that can be lost, too.
DATA = "new/data"
#: Delays each fsync of Python, so that unsynced files are read meanwhile.
SLOW_SYNC = "fsync:delay_enter=8000"

#: Chooses after how many operations a life is killed.
Kill = Callable[[Sequence[Operation], random.Random], int]


def anywhere(done: Sequence[Operation], draw: random.Random) -> int:
    return draw.randrange(1, len(done))


def before_a_sync_of_the_log(done: Sequence[Operation], draw: random.Random) -> int:
    """A commit is written, but not synced."""
    log = [index for index, each in enumerate(done) if _path(each) == f"{DATA}/log.db-wal"]
    commits = [
        sync
        for write, sync in pairwise(log)
        if isinstance(done[write], Write) and isinstance(done[sync], Sync)
    ]
    return draw.choice(commits[len(commits) // 2 :])


def _path(operation: Operation) -> str | None:
    match operation:
        case Note() | Rename():
            return None
        case _:
            return operation.path


def after_a_rename(done: Sequence[Operation], draw: random.Random) -> int:
    """A file is stored, but its name is not synced."""
    renames = [index for index, each in enumerate(done) if isinstance(each, Rename)]
    return draw.choice(renames) + 1


def swaps_views(operation: Operation) -> bool:
    match operation:
        case Rename(new=path) | Remove(path=path):
            return path == f"{DATA}/views.db"
        case _:
            return False


def acknowledges(operation: Operation) -> bool:
    return isinstance(operation, Note)


def is_no_write(operation: Operation) -> bool:
    return not isinstance(operation, Write)


class Scenario(NamedTuple):
    """Lives on one data directory, one after another; all but the last are killed.

    With *cuts* each kill is a power cut, and the next life starts on the remains. Half of the
    checked cuts are at most *soon* operations after one that is *near*; the others are anywhere.
    """

    lives: tuple[str, ...]
    kills: tuple[Kill, ...] = ()
    sabotage: str = ""
    slow: str | None = None
    near: Callable[[Operation], bool] = is_no_write
    soon: int = 1
    cuts: bool = False


SCENARIOS = {
    "start": Scenario(("start",)),
    "load": Scenario(("load",)),
    "rebuild": Scenario(("rebuild",), near=swaps_views, soon=20),
    "swap": Scenario(("swap",), near=swaps_views, soon=20),
    "upgrade": Scenario(("upgrade",), near=swaps_views, soon=20),
    "restart": Scenario(("restart",)),
    "upload": Scenario(("upload",), slow=SLOW_SYNC),
    "http": Scenario(("http",)),
    "repeat": Scenario(("wait", "repeat"), (before_a_sync_of_the_log,), near=acknowledges),
    "attach": Scenario(("wait", "repeat"), (after_a_rename,)),
    "killed": Scenario(("load", "go_on", "go_on"), (anywhere, anywhere)),
    "cut": Scenario(("load", "go_on", "go_on"), (anywhere, anywhere), cuts=True),
}
#: Scenarios with a sabotage; the check must find it.
CONTROLS = {
    "commits": Scenario(("load",), sabotage="commits"),
    "folders": Scenario(("start",), sabotage="folders"),
    "files": Scenario(("load",), sabotage="files"),
    "log": Scenario(("wait", "repeat"), (before_a_sync_of_the_log,), "log", near=acknowledges),
    "uploads": Scenario(("upload",), sabotage="uploads", slow=SLOW_SYNC),
    "views": Scenario(("swap",), sabotage="views", near=swaps_views, soon=20),
    "parents": Scenario(("start",), sabotage="parents"),
}


class Recording(NamedTuple):
    """The operations of all lives, and the indexes after which the power may be cut."""

    done: list[Operation]
    #: every index that makes another state, and those near to the scenario's operations
    cuts: list[int]
    rare: list[int]

    @classmethod
    def of(cls, done: list[Operation], first: int, scenario: "Scenario") -> "Recording":
        later = range(first, len(done))
        near = [index for index in later if scenario.near(done[index])]
        rare = {index + n for index in near for n in range(scenario.soon) if index + n in later}
        return cls(done, [index for index in later if _counts(done[index])], sorted(rare))


def _counts(operation: Operation) -> bool:
    """Whether it changes what a cut leaves: the -shm of a database is rebuilt."""
    return not (isinstance(operation, Write) and operation.path.endswith("-shm"))


def play(scenario: Scenario, seed: int) -> Recording:
    """Trace all lives of *scenario*."""
    draw = random.Random(f"{scenario} {seed}")
    done: list[Operation] = []
    first = 0
    for number, life in enumerate(scenario.lives):
        before = len(done)
        with scratch() as folder:
            place = Path(folder)
            write(after("ordered", done).image("everything", draw), place)
            command = [sys.executable, "-m", f"{__package__}.lives", life, str(place / DATA)]
            command += [str(seed + number), scenario.sabotage]
            record(command, place, {"PYTHONPATH": str(ROOT)}, slow=scenario.slow)
            done += [_later(each, before) for each in read(place)]
            _compare(after("ordered", done).image("everything", draw), place)
        if number < len(scenario.kills):
            first = before + scenario.kills[number](done[before:], draw)
            del done[first:]
            if scenario.cuts:
                disk = after("strict", done)
                done = [*_operations_of(disk.image("something", draw)), *map(Note, disk.notes)]
                first = len(done)
    return Recording.of(done, first, scenario)


def _operations_of(image: Image) -> list[Operation]:
    """Operations that make a durable *image*."""
    done: list[Operation] = []
    for path, content in sorted(image.items()):
        if path.endswith("/"):
            done.append(MakeFolder(path.rstrip("/")))
        else:
            done += [Create(path, emptied=False), Write(path, 0, content)]
    return done + [Sync(path, len(done)) for path in ("", *(each.rstrip("/") for each in image))]


def _later(operation: Operation, by: int) -> Operation:
    if isinstance(operation, Sync):
        return operation._replace(begun=operation.begun + by)
    return operation


def after(rules: Rules, done: Sequence[Operation]) -> Disk:
    disk = Disk(rules)
    for each in done:
        disk.do(each)
    return disk


def scratch() -> TemporaryDirectory[str]:
    """A temporary directory, in memory if possible: syncs are read from the trace."""
    memory = Path("/dev/shm")  # noqa: S108
    return TemporaryDirectory(prefix="power-", dir=memory if memory.is_dir() else None)


def write(image: Image, folder: Path, only: str = "") -> None:
    """Write the files of *image* whose paths begin with *only* into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in image.items():
        at = folder / path
        if path.startswith(only):
            if path.endswith("/"):
                at.mkdir(parents=True, exist_ok=True)
            else:
                at.write_bytes(content)


def _compare(image: Image, folder: Path) -> None:
    """Raises AssertionError when *folder* differs from *image*, its model."""
    files = {
        str(each.relative_to(folder)): each
        for each in folder.rglob("*")
        if each.is_file() and each.name not in {"trace", "notes"}
    }
    modelled = {path for path in image if not path.endswith("/")}
    assert modelled == set(files), f"the model has other files: {modelled ^ set(files)}"
    for path, file in files.items():
        same = path.endswith("-shm") or file.read_bytes() == image[path]
        assert same, f"the model has another content of {path}"
