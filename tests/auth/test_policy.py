"""Which principal may do what, and with which job."""

from itertools import combinations, product

import pytest

from eventjobs.auth.policy import Action, JobFacts, may_claim, may_unmask, permits, sees_all
from eventjobs.auth.principals import (
    ANONYMOUS,
    ANONYMOUS_OWNER,
    LOCAL,
    USER_SCOPES,
    Principal,
    Scope,
)

ALICE = Principal("user:alice", "alice", USER_SCOPES)
WORKER = Principal("key:w", "build", frozenset({"worker:resize", "worker:mail"}))
AUDITOR = Principal("key:a", "audit", frozenset({Scope.AUDIT}))
ADMIN = Principal("key:o", "ops", frozenset({Scope.ADMIN}))

#: By action: who may do it at all.
PERMITTED = {
    Action.IDENTIFY: {ALICE, ANONYMOUS, WORKER, AUDITOR, ADMIN, LOCAL},
    Action.SUBMIT: {ALICE, ANONYMOUS, ADMIN, LOCAL},
    Action.SUPPLY: {ALICE, ANONYMOUS, WORKER, ADMIN, LOCAL},
    Action.READ: {ALICE, ANONYMOUS, WORKER, AUDITOR, ADMIN, LOCAL},
    Action.LIST: {ALICE, AUDITOR, ADMIN, LOCAL},
    Action.CONTROL: {ALICE, ANONYMOUS, WORKER, ADMIN, LOCAL},
    Action.SUBSCRIBE: {ALICE, ADMIN, LOCAL},
    Action.WORK: {WORKER, ADMIN, LOCAL},
    Action.INSPECT: {AUDITOR, ADMIN, LOCAL},
    Action.OPERATE: {ADMIN, LOCAL},
}


@pytest.mark.parametrize("action", Action)
def test_an_action_is_permitted_by_scopes(action: Action) -> None:
    everybody = {ALICE, ANONYMOUS, WORKER, AUDITOR, ADMIN, LOCAL}
    assert {each for each in everybody if permits(each, action)} == PERMITTED[action]


@pytest.mark.parametrize("action", [Action.READ, Action.CONTROL])
def test_users_have_their_own_jobs_and_anonymous_ones(action: Action) -> None:
    assert permits(ALICE, action, JobFacts("alice"))
    assert permits(ALICE, action, JobFacts(ANONYMOUS_OWNER))
    assert permits(ANONYMOUS, action, JobFacts(ANONYMOUS_OWNER))
    for job in (JobFacts("bob"), JobFacts(None)):
        assert not permits(ALICE, action, job)
        assert not permits(ANONYMOUS, action, job)


def test_several_scopes_permit_what_each_of_them_permits() -> None:
    """And no more: an auditor who is a user as well changes no jobs of others."""
    scopes = [Scope.SUBMIT, Scope.READ, Scope.CONTROL, Scope.AUDIT, "worker:mail"]
    owners = ("alice", "bob", ANONYMOUS_OWNER, None)
    jobs = [None, *(JobFacts(owner, worker) for owner in owners for worker in (None, "key:a/w"))]
    for one, another in combinations(scopes, 2):
        both = Principal("key:a", "alice", frozenset({one, another}))
        each = [Principal("key:a", "alice", frozenset({scope})) for scope in (one, another)]
        for action, job in product(Action, jobs):
            alone = any(permits(principal, action, job) for principal in each)
            assert permits(both, action, job) == alone, (one, another, action, job)


def test_auditors_read_all_jobs_and_change_none() -> None:
    assert permits(AUDITOR, Action.READ, JobFacts("alice"))
    assert not permits(AUDITOR, Action.CONTROL, JobFacts("alice"))


def test_a_worker_has_the_jobs_that_it_holds_and_their_children() -> None:
    mine, anothers = WORKER.worker_name("worker-1"), ADMIN.worker_name("worker-1")
    assert permits(WORKER, Action.READ, JobFacts("alice", worker=mine))
    assert not permits(WORKER, Action.CONTROL, JobFacts("alice", worker=mine))
    for action in (Action.READ, Action.CONTROL):
        assert permits(WORKER, action, JobFacts("alice", parent_worker=mine))
        assert not permits(WORKER, action, JobFacts("alice", worker=anothers))
        assert not permits(WORKER, action, JobFacts("alice", worker="worker-1"))
        assert not permits(WORKER, action, JobFacts("alice"))


def test_a_worker_claims_the_types_of_its_scopes() -> None:
    assert may_claim(WORKER, "resize")
    assert not may_claim(WORKER, "train")
    assert may_claim(Principal("key:x", "x", frozenset({"worker:*"})), "train")
    assert may_claim(LOCAL, "train")
    assert not may_claim(ALICE, "resize")


def test_sensitive_fields_are_for_the_owner_and_its_workers() -> None:
    job = JobFacts("alice")
    assert may_unmask(ALICE, job)
    assert may_unmask(LOCAL, job)  # without authentication, all are one
    for reader in (ADMIN, AUDITOR, WORKER, ANONYMOUS):
        assert not may_unmask(reader, job)
        assert not may_unmask(reader, JobFacts(None))
    mine = WORKER.worker_name("worker-1")
    assert may_unmask(WORKER, JobFacts("alice", worker=mine))
    assert may_unmask(WORKER, JobFacts("alice", parent_worker=mine))
    assert not may_unmask(WORKER, JobFacts("alice", worker="worker-1"))
    assert not may_unmask(AUDITOR, JobFacts("alice", worker=AUDITOR.worker_name("worker-1")))
    assert [each for each in (ALICE, AUDITOR, ADMIN, WORKER) if sees_all(each)] == [AUDITOR, ADMIN]
