"""External services, put together: jobs are given to them, waited for, and reported on."""

from collections.abc import Mapping

from eventjobs.callbacks import Callbacks
from eventjobs.dispatch import Address, Dispatcher, service_name
from eventjobs.handlers import Handlers
from eventjobs.jobs import Jobs
from eventjobs.keys import Keys
from eventjobs.outbound import Outbound
from eventjobs.pending import Pending
from eventjobs.settlement import Settlement
from projections import Views


class ExternalServices:
    """An attempt goes from the dispatcher to *pending*, and ends there or by *callbacks*."""

    def __init__(
        self,
        jobs: Jobs,
        views: Views,
        settlement: Settlement,
        keys: Keys,
        outbound: Outbound,
        *,
        targets: Mapping[str, str],
        public_url: str | None,
        silence_s: float,
    ) -> None:
        self.address = Address(jobs.clock, public_url)
        self._dispatcher = Dispatcher(
            outbound, keys, jobs, self.address, targets=targets, silence_s=silence_s
        )
        self.pending = Pending(jobs, views, settlement, self._dispatcher.withdraw)
        names = {type: service_name(url) for type, url in targets.items()}
        self.callbacks = Callbacks(jobs, settlement, names)

    def bound(self, handlers: Handlers) -> Handlers:
        """*handlers*, with the external ones as functions that a runner can run."""
        return self._dispatcher.bound(handlers)
