"""What is played and traced: lives of a service, and at which moments the power is cut."""

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
#: Below the folder that is traced: the name of a parent that was made, too, can be lost.
DATA = "new/data"
#: Holds up each sync of Python's own, so that others see what is not synced.
SLOW_SYNC = "fsync:delay_enter=8000"

#: Where a life is killed: after so many operations.
Kill = Callable[[Sequence[Operation], random.Random], int]


def anywhere(done: Sequence[Operation], draw: random.Random) -> int:
    return draw.randrange(1, len(done))


def before_a_sync_of_the_log(done: Sequence[Operation], draw: random.Random) -> int:
    """A commit is written, and not synced."""
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
    """A file is stored, and its name is not synced."""
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
    """Lives, one after the other on what the page cache has; all but the last are killed.

    With *cuts* the power is cut at the kills, too, and the next life has what is left. Half of the
    cuts that are checked are *soon* after what they are *near* to, and the others are anywhere.
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
#: What has to be found.
CONTROLS = {
    "commits": Scenario(("load",), sabotage="commits"),
    "folders": Scenario(("start",), sabotage="folders"),
    "files": Scenario(("load",), sabotage="files"),
    "log": Scenario(("wait", "repeat"), (before_a_sync_of_the_log,), "log", near=acknowledges),
    "uploads": Scenario(("upload",), sabotage="uploads", slow=SLOW_SYNC),
    "views": Scenario(("swap",), sabotage="views", near=swaps_views, soon=20),
    "parents": Scenario(("start",), sabotage="parents"),
}


class Recorded(NamedTuple):
    """What was done in all lives, and after which operations it is cut, by their indexes."""

    done: list[Operation]
    #: any of them, and those that are worth more
    cuts: list[int]
    rare: list[int]

    @classmethod
    def of(cls, done: list[Operation], first: int, scenario: "Scenario") -> "Recorded":
        later = range(first, len(done))
        near = [index for index in later if scenario.near(done[index])]
        rare = {index + n for index in near for n in range(scenario.soon) if index + n in later}
        return cls(done, [index for index in later if _counts(done[index])], sorted(rare))


def _counts(operation: Operation) -> bool:
    """Whether it makes another state: the -shm of a database is made anew."""
    return not (isinstance(operation, Write) and operation.path.endswith("-shm"))


def play(scenario: Scenario, seed: int) -> Recorded:
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
                done = [*_made(disk.image("something", draw)), *map(Note, disk.notes)]
                first = len(done)
    return Recorded.of(done, first, scenario)


def _made(image: Image) -> list[Operation]:
    """Makes a disk that has *image*."""
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
    """In memory where the system has it: what is synced there is known from the calls."""
    memory = Path("/dev/shm")  # noqa: S108
    return TemporaryDirectory(prefix="power-", dir=memory if memory.is_dir() else None)


def write(image: Image, folder: Path, only: str = "") -> None:
    """Make *folder*, with what begins like *only*."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in image.items():
        at = folder / path
        if path.startswith(only):
            if path.endswith("/"):
                at.mkdir(parents=True, exist_ok=True)
            else:
                at.write_bytes(content)


def _compare(image: Image, folder: Path) -> None:
    """The model, brought to the end, is what is really there. Raises AssertionError."""
    found = {
        str(each.relative_to(folder)): each
        for each in folder.rglob("*")
        if each.is_file() and each.name not in {"trace", "notes"}
    }
    modelled = {path for path in image if not path.endswith("/")}
    assert modelled == set(found), f"the model has other files: {modelled ^ set(found)}"
    for path, file in found.items():
        same = path.endswith("-shm") or file.read_bytes() == image[path]
        assert same, f"the model has another content of {path}"
