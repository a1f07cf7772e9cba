"""The worker as a process: its handlers, its scratch space, its event loop."""

import os
from collections.abc import Sequence

from eventjobs import gc_tuning as garbage
from eventjobs.cli.process import Signals, load
from eventjobs.cli.service_process import run_main
from eventjobs.client.requests import base_url
from eventjobs.errors import InvalidInput
from eventjobs.execution.runner import REMOTE_MODES
from eventjobs.observability.log_capture import allow_level
from eventjobs.settings import Settings
from eventjobs.storage.scratch import scratch
from eventjobs.worker.worker import Worker


def run(url: str, names: Sequence[str], settings: Settings, lease_s: float | None) -> None:
    """Run jobs of the service at *url* until a signal says to stop. Raises InvalidInput,
    DataDirectoryError, WorkerRefused.
    """
    handlers = load(names)
    if all(each.mode in REMOTE_MODES for each in handlers):
        raise InvalidInput(f"no handler in {', '.join(names)} can be run by a worker")
    if settings.concurrency == 0:
        raise InvalidInput("a worker with concurrency 0 would never do anything")
    allow_level(settings.capture_logs)
    garbage.raise_gc_thresholds()
    # Random at each start: a restarted process must never look like the one that died.
    name = f"worker-{os.urandom(8).hex()}"
    with scratch(name) as folder:
        run_main(_until_signalled(Worker(name, base_url(url), handlers, settings, folder, lease_s)))


async def _until_signalled(worker: Worker) -> None:
    signals = Signals(worker.release_jobs)
    signals.catch()
    await worker.run(signals.asked())
