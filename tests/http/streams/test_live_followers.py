"""The followers that are up to date leave nothing behind."""

import asyncio

from eventjobs.auth.principals import LOCAL
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.live_followers import LiveFollowers
from eventjobs.http.streams.subscriber import Subscriber
from tests.support.reachable import reachable

FILTERS = [
    JobFilter(),
    JobFilter(reader="ann"),
    JobFilter(type=frozenset({"csv"})),
    JobFilter(ids=frozenset({"a", "b"})),
    JobFilter(ids=frozenset({"b", "c"}), reader="ann"),
]


def subscriber(job_filter: JobFilter) -> Subscriber:
    return Subscriber(asyncio.Transport(), job_filter, 1, principal=LOCAL, chunked=True)


def test_nothing_is_left_of_subscribers_that_leave() -> None:
    live = LiveFollowers(0)
    before = reachable(live)
    subscribers = [subscriber(each) for each in FILTERS for _ in range(2)]
    for each in subscribers:
        live.join(each)
    assert live
    stranger = subscriber(JobFilter(tag="none"))
    for each in (*subscribers, stranger):
        live.leave(each)
        live.leave(each)  # a stream that ends leaves once more
    assert not live
    assert reachable(live) == before
