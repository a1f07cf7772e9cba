"""The subscribers that are up to date."""

from itertools import chain

from eventjobs.http.streams.selection import JobFilter
from eventjobs.http.streams.subscriber import HEARTBEAT, Left, Subscriber, as_chunk


class LiveSubscribers:
    """The clients at the head, together with those who want the same."""

    def __init__(self, position: int) -> None:
        #: everything up to here was written to those at the head, unless they were further
        self.position = position
        self._same: dict[JobFilter, set[Subscriber]] = {}
        self._by_job: dict[str, set[JobFilter]] = {}
        self._others: set[JobFilter] = set()  # those that name no jobs

    def __bool__(self) -> bool:
        return bool(self._same)

    def join(self, client: Subscriber) -> None:
        selection = client.selection
        if (same := self._same.get(selection)) is not None:
            same.add(client)
            return
        self._same[selection] = {client}
        if selection.ids is None:
            self._others.add(selection)
        for job_id in selection.ids or ():
            self._by_job.setdefault(job_id, set()).add(selection)

    def leave(self, client: Subscriber) -> None:
        selection = client.selection
        same = self._same.get(selection, set())
        same.discard(client)
        if same or selection not in self._same:
            return
        del self._same[selection]
        self._others.discard(selection)
        for job_id in selection.ids or ():
            self._by_job[job_id].discard(selection)
            if not self._by_job[job_id]:
                del self._by_job[job_id]

    def everyone(self) -> list[Subscriber]:
        return list(chain.from_iterable(self._same.values()))

    def detach_with(self, client: Subscriber, why: Left) -> None:
        """Let a client go on by itself, from where those at the head are now."""
        if client.listening:
            client.position = max(client.position, self.position)
            client.detach(why)

    def beat(self) -> None:
        chunk = as_chunk(HEARTBEAT)
        for client in self.everyone():
            self.write_or_detach(client, HEARTBEAT, chunk)

    def write_or_detach(self, client: Subscriber, plain: bytes, chunk: bytes) -> None:
        """Write now, or let it go: never wait, never hold more than the transport's bound."""
        if not client.listening:
            return
        if client.gone:
            self.detach_with(client, "gone")
        elif client.full:
            self.detach_with(client, "behind")
        else:
            client.write(plain, chunk)
