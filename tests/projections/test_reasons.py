"""The texts of reasons."""

import pytest

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.spec import JobSpec
from eventjobs.projections.explanation import FullLimit, QueueSituation, explain_queued
from tests.support.decisions import given

NOW_US = 1_735_689_600_000_000
NOW = "2025-01-01T00:00:00.000000Z"


def explain(**around: object) -> list[str]:
    """The texts for a queued job, for whose type a worker waits."""
    job = given(JobSubmitted(JobSpec("csv", concurrency_key="k", queue="q"))).job
    assert job is not None
    situation = QueueSituation(NOW_US, last_claim_us=NOW_US, claim_waits=True, **around)  # type: ignore[arg-type]
    return [each["text"] for each in explain_queued(job, situation)]


@pytest.mark.parametrize(
    ("unmet", "text"),
    [
        ([("a", "running")], "it waits for job a, which is running"),
        ([("a", None)], "it waits for job a, which is not there"),
        ([("a", "queued"), ("b", None)], "it waits for job a, which is queued and 1 more"),
        ([("a", "queued")] * 3, "it waits for job a, which is queued and 2 more"),
    ],
)
def test_the_jobs_that_it_waits_for_are_counted(
    unmet: list[tuple[str, str | None]], text: str
) -> None:
    assert explain(unmet=unmet) == [text]


@pytest.mark.parametrize(
    ("full", "text"),
    [
        (FullLimit(1, [("a", NOW_US)]), f"key k is held by job a since {NOW}"),
        (FullLimit(1, [("a", None)]), "key k is held by job a"),
        (FullLimit(1, [], unnamed=1), "key k has 1 jobs running, of 1"),
        (FullLimit(3, [("a", 0), ("b", 0)], unnamed=1), "key k has 3 jobs running, of 3"),
    ],
)
def test_a_full_limit_names_its_holder_or_counts_them(full: FullLimit, text: str) -> None:
    assert explain(key_full=full) == [text]


def test_nothing_is_in_its_way() -> None:
    assert explain() == ["nothing: it is about to start"]
