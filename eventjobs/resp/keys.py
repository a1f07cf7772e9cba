"""The keys that there are for a principal: one of each job, and one of the queued uploads."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from eventjobs.auth.policy import Action
from eventjobs.auth.principals import Principal
from eventjobs.domain.events import is_own
from eventjobs.domain.job import Status
from eventjobs.errors import InvalidInput, JobNotFound
from eventjobs.http.auth import check_permission, restrict_owner
from eventjobs.http.dialects.job_ids import parse_any_id
from eventjobs.http.dialects.jobs import view_for
from eventjobs.http.dialects.prefixed_status import render
from eventjobs.http.requests import permitted_counts, views_caught_up
from eventjobs.resp.patterns import compile_pattern
from eventjobs.service import Service

#: Keys of one answer to KEYS: those of so many jobs take 1.6 MB while it is sent.
KEYS_MAX = 100_000
#: Jobs that are looked at together. Other requests are served in between.
PAGE = 2000
_PREFIX = b"job:job_"


class JobKeys:
    """Keys of jobs, in 16 bytes each."""

    def __init__(self) -> None:
        self._ids = bytearray()

    def __len__(self) -> int:
        return len(self._ids) // 16

    def add(self, digits: str) -> None:
        """Add the key of the job with these hex *digits*. Raises InvalidInput after KEYS_MAX."""
        if len(self) == KEYS_MAX:
            raise InvalidInput(f"more than {KEYS_MAX} keys match; use a narrower pattern")
        self._ids += bytes.fromhex(digits)

    def pages(self) -> Iterator[list[bytes]]:
        for begin in range(0, len(self._ids), 16 * PAGE):
            digits = self._ids[begin : begin + 16 * PAGE].hex().encode()
            yield [_PREFIX + digits[each : each + 32] for each in range(0, len(digits), 32)]


class Keys:
    """Reads jobs by their keys, as the policy permits. *base_url* is the address of the service."""

    def __init__(self, service: Service, base_url: str) -> None:
        self._service = service
        self._base_url = base_url
        #: The key of the queued uploads, which is a list.
        self.queue = service.settings.redis_queue.encode()

    async def job(self, principal: Principal, key: bytes) -> dict[str, Any]:
        """The job at *key*, `job:<id>`, for *principal*.

        Raises JobNotFound, JobGone, BadJobId, JobUnreadable, Forbidden.
        """
        check_permission(principal, Action.READ)
        kind, _, text = key.decode("latin-1").partition(":")
        if kind != "job":
            raise JobNotFound
        _, job_id = parse_any_id(text)
        return render(await view_for(self._service, principal, job_id), self._base_url)

    async def queue_length(self, principal: Principal) -> int:
        """The number of queued uploads that *principal* may list. Raises Forbidden, ViewsBehind."""
        of_type = (await self._counts(principal)).get(self._service.settings.upload_type, {})
        return of_type.get(Status.QUEUED, 0)

    async def job_count(self, principal: Principal) -> int:
        """The number of jobs that *principal* may list. Raises Forbidden, ViewsBehind."""
        counts = await self._counts(principal)
        return sum(
            sum(by_status.values()) for type, by_status in counts.items() if not is_own(type)
        )

    async def _counts(self, principal: Principal) -> dict[str, dict[str, int]]:
        counts, _ = await permitted_counts(self._service, principal)
        return counts

    async def matching(self, principal: Principal, pattern: bytes) -> JobKeys:
        """The keys of jobs that match *pattern*, the oldest first.

        Raises InvalidInput for too many, Forbidden, ViewsBehind.
        """
        matches, job_keys = compile_pattern(pattern).fullmatch, JobKeys()
        async for ids in self._listed_ids(restrict_owner(principal, None)):
            for job_id in ids:
                digits = job_id.replace("-", "")
                if matches(_PREFIX + digits.encode()):
                    job_keys.add(digits)
        return job_keys

    async def _listed_ids(self, owner: str | None) -> AsyncIterator[list[str]]:
        await views_caught_up(self._service)
        cursor = 0
        while True:
            ids, cursor = await self._service.views.listed_ids(owner, cursor=cursor, limit=PAGE)
            if not ids:
                return
            yield ids
