"""The process of `eventjobs worker`: its handlers, its scratch directory, its event loop."""

import os
from collections.abc import Sequence

from eventjobs import gc_tuning
from eventjobs.cli.process import Signals, load_handlers, run_main, write_shutdown_lines
from eventjobs.client.requests import base_url
from eventjobs.errors import InvalidInput
from eventjobs.execution.runner import REMOTE_MODES
from eventjobs.observability.log_capture import allow_level
from eventjobs.settings import Settings
from eventjobs.storage.scratch import scratch
from eventjobs.worker.worker import Worker


def run_worker(
    url: str,
    modules: Sequence[str],
    settings: Settings,
    lease_s: float | None,
    token: str | None,
) -> None:
    """Run jobs of the service at *url* until the process gets a signal.

    Raises InvalidInput, DataDirectoryError, WorkerRefused.
    """
    handlers = load_handlers(modules)
    if all(each.mode in REMOTE_MODES for each in handlers):
        raise InvalidInput(f"no handler in {', '.join(modules)} can be run by a worker")
    if settings.concurrency == 0:
        raise InvalidInput("a worker with concurrency 0 would never do anything")
    allow_level(settings.capture_logs)
    write_shutdown_lines(settings)
    gc_tuning.raise_gc_thresholds()
    # Random at each start: a restarted process is another worker than the one that died.
    name = f"worker-{os.urandom(8).hex()}"
    with scratch(name) as directory:
        worker = Worker(name, base_url(url), handlers, settings, directory, lease_s, token=token)
        run_main(_until_signalled(worker))


async def _until_signalled(worker: Worker) -> None:
    signals = Signals(worker.release_jobs)
    signals.install()
    await worker.run(signals.wait_for_stop())
