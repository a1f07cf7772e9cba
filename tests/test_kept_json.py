"""JSON text that is kept in memory holds its own bytes, without the rest of orjson's buffer."""

import resource
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from eventjobs.domain.codec import decode, encode
from eventjobs.domain.events import JobSubmitted, ProgressReported
from eventjobs.domain.job import fold
from eventjobs.domain.spec import JobSpec
from eventjobs.http.streams.snapshots import Snapshot, Snapshots
from eventjobs.projections import JobView, Views
from tests.support.decisions import as_recorded

COUNT = 5_000
REPORT = ProgressReported(1, 0.5, data={"n": 1})
FACTS, BODY = b'{"attempt":1}', b'{"result":{"n":1}}'
RECORDED = as_recorded(JobSubmitted(JobSpec("noop", {"n": 1})))


def snapshot() -> Snapshot:
    job = fold(RECORDED)
    assert job is not None
    return Snapshots(cast("Views", None)).of(JobView(job, None, None))


#: What is kept, and the bytes that one may hold. With the buffer each holds 4 KiB more.
KINDS: dict[str, tuple[Callable[[], Any], int]] = {
    "facts and body": (lambda: encode(REPORT), 1_000),
    "payload": (lambda: JobSpec("noop", {"n": 1}), 1_500),
    "decoded event": (lambda: decode("JobCompleted", FACTS, BODY), 1_000),
    "copy": (lambda: deepcopy(REPORT), 1_500),
    "snapshot": (lambda: snapshot().body, 3_000),
}


def growth(make: Callable[[], Any], kept: list[Any]) -> float:
    """The bytes by which this process grows for each value that it makes and keeps."""
    kept += [make() for _ in range(100)]
    before = resident_bytes()
    kept += [make() for _ in range(COUNT)]
    return (resident_bytes() - before) / COUNT


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture(scope="module")
def growths() -> dict[str, float]:
    """The growth by each kind, in a process that has nothing else to do."""
    output = subprocess.run([sys.executable, "-m", __name__], capture_output=True, check=True)
    bytes_by_kind: dict[str, float] = orjson.loads(output.stdout)
    return bytes_by_kind


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_holds_its_own_bytes(kind: str, growths: dict[str, float]) -> None:
    assert growths[kind] < KINDS[kind][1]


if __name__ == "__main__":
    kept = list[Any]()  # of all kinds: freed memory would be used again
    print(orjson.dumps({kind: growth(make, kept) for kind, (make, _) in KINDS.items()}).decode())
