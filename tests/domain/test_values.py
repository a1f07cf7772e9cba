"""Events and specifications are values: equal and hashed by their fields, and never changed."""

from dataclasses import replace
from typing import Any

import pytest

from eventjobs.domain.events import AttemptStarted, CancelRequested, JobCancelled, JobSubmitted
from eventjobs.domain.spec import Artifact, JobSpec


def change(started: AttemptStarted, spec: JobSpec, file: Artifact) -> None:
    """What mypy refuses. It would report a comment here that is not needed."""
    started.attempt = 2  # type: ignore[misc]
    spec.priority = 2  # type: ignore[misc]
    file.size = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (AttemptStarted(1, "ann"), {"worker": "bob"}),
        (Artifact("a.csv", "ab", 1), {"size": 2}),
        (JobSpec("csv", tags=("a",)), {"tags": ()}),
        (JobSubmitted(JobSpec("csv")), {"spec": JobSpec("zip")}),
    ],
)
def test_values_are_equal_and_hashed_by_their_fields(value: Any, changes: dict[str, Any]) -> None:
    same, other = replace(value), replace(value, **changes)
    assert {value, same, other} == {value, other}
    assert (same == value, other == value) == (True, False)
    assert hash(same) == hash(value)


def test_values_of_two_classes_are_never_equal() -> None:
    requested: object = CancelRequested("no")
    assert requested != JobCancelled(None, "no")
    assert len({CancelRequested(), JobCancelled()}) == 2


def test_what_has_json_in_it_is_compared_by_it_and_has_no_hash() -> None:
    assert JobSpec("csv", {"n": [1]}) == JobSpec("csv", {"n": [1]}) != JobSpec("csv", {"n": [2]})
    with pytest.raises(TypeError, match="unhashable"):
        hash(JobSpec("csv", {"n": [1]}))
