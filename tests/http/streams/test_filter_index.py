"""An index of filters finds at least those that match."""

import random

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.spec import JobSpec
from eventjobs.http.streams.filter_index import FilterIndex
from eventjobs.http.streams.job_filter import JobFilter
from tests.support.histories import START_US, job_id, record


def drawn_filter(rng: random.Random) -> JobFilter:
    return JobFilter(
        ids=rng.choice((None, None, frozenset({job_id(0), job_id(rng.randrange(4))}))),
        type=rng.choice((None, frozenset({"a"}), frozenset({"a", "b"}))),
        owner=rng.choice((None, None, "ann", "bob")),
        queue=rng.choice((None, None, "mail", "default")),
        parent=rng.choice((None, None, job_id(9))),
        tag=rng.choice((None, None, "t", "u")),
    )


def drawn_job(rng: random.Random, number: int) -> Job:
    spec = JobSpec(
        rng.choice("abc"),
        owner=rng.choice((None, "ann", "bob")),
        queue=rng.choice((None, "mail")),
        parent=rng.choice((None, job_id(9))),
        tags=rng.choice(((), ("t",), ("t", "u"))),
    )
    return evolve(None, record(JobSubmitted(spec), job_id(number), None, 1, START_US))


def test_all_filters_that_match_a_job_are_found() -> None:
    rng = random.Random(1)
    for _ in range(200):
        index, filters = FilterIndex(), {drawn_filter(rng) for _ in range(20)}
        for each in filters:
            index.add(each)
        gone = set(rng.sample(sorted(filters, key=repr), 5))
        for each in gone:
            index.discard(each)
        for number in range(4):
            job = drawn_job(rng, number)
            candidates = index.candidates(job.job_id, job)
            assert {each for each in filters - gone if each.matches(job)} <= candidates
            assert not candidates & gone


def test_filters_of_other_jobs_are_not_looked_at() -> None:
    index = FilterIndex()
    others = [
        JobFilter(ids=frozenset({job_id(1)})),
        JobFilter(type=frozenset({"b"})),
        JobFilter(owner="bob"),
        JobFilter(type=frozenset({"a"}), tag="u"),
    ]
    mine = JobFilter(type=frozenset({"a"}))
    for each in (*others, mine, JobFilter()):
        index.add(each)
    spec = JobSpec("a", owner="ann")
    job = evolve(None, record(JobSubmitted(spec), job_id(0), None, 1, START_US))
    assert index.candidates(job.job_id, job) == {mine, JobFilter()}
    assert index.candidates(job.job_id, None) == {JobFilter()}


def test_an_empty_index_keeps_nothing() -> None:
    index = FilterIndex()
    job_filter = JobFilter(ids=frozenset({job_id(0), job_id(1)}))
    index.add(job_filter)
    index.discard(job_filter)
    assert not index._by_key
