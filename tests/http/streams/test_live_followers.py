"""The followers that are up to date leave nothing behind."""

from unittest.mock import create_autospec

from eventjobs.auth.principals import LOCAL
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.live_followers import LiveFollowers
from eventjobs.http.streams.subscriber import Subscriber, SubscriberFeed
from tests.support.reachable import reachable

FILTERS = [
    JobFilter(),
    JobFilter(reader="ann"),
    JobFilter(type=frozenset({"csv"})),
    JobFilter(ids=frozenset({"a", "b"})),
    JobFilter(ids=frozenset({"b", "c"}), reader="ann"),
]


def subscriber(job_filter: JobFilter) -> Subscriber:
    feed = create_autospec(SubscriberFeed)
    return Subscriber(feed, job_filter, 0, principal=LOCAL, request_id="a", is_chunked=True)


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
