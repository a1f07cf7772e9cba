"""A paused type or queue starts no job until it is resumed, and lists show that it is paused."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.commands.pauses import Pauses, PauseState, pause, resume
from eventjobs.domain.codec import encode
from eventjobs.domain.events import AttemptStarted, Event, Paused, Resumed
from eventjobs.domain.ids import switch_id
from eventjobs.domain.recorded import Recorded
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.projections import pauses
from eventjobs.projections.store import Store
from eventjobs.tools import audit, replay
from tests.conftest import Connect, Serve
from tests.support.view_rows import HEAD, LOG_ID, apply, cut, dump
from tests.support.views import quick_folder
from tests.support.waiting import kinds, recorded_of


@handler("mail", queue="post")
async def mail(context: Context, payload: Any) -> Any:
    return payload


@handler("noop")
async def noop(context: Context, payload: Any) -> Any:
    return payload


@pytest.mark.parametrize("address", ["/v1/types/mail", "/v1/queues/post"])
async def test_nothing_is_started_while_it_is_paused_also_after_a_restart(
    client: Connect, address: str
) -> None:
    api = await client(mail, noop)
    reply = await api("POST", f"{address}/pause", {"reason": "the relay is down"})
    assert reply.status == 200
    pause_shown = reply.json["paused"]
    assert (pause_shown["by"], pause_shown["reason"]) == ("http", "the relay is down")
    job = await api.submit("mail", 1)
    other = await api.submit("noop", 2)
    await api.service.wait(other["job_id"])
    assert await kinds(api.service, job["job_id"]) == "JobSubmitted"
    await api.service.close()

    api = await client(mail, noop)
    other = await api.submit("noop", 2)
    await api.service.wait(other["job_id"])
    assert await kinds(api.service, job["job_id"]) == "JobSubmitted"
    [reply] = [each for each in await entries_of(api, address) if each["paused"]]
    assert (reply["waiting"], reply["running"], reply["paused"]) == (1, 0, pause_shown)
    assert (await api("POST", f"{address}/resume")).json["paused"] is None
    assert (await api.service.wait(job["job_id"])).result == 1


async def test_no_job_can_be_given_the_id_of_a_switch(client: Connect) -> None:
    api = await client(mail)
    path = f"/v1/jobs/{switch_id('type', 'mail')}"
    reply = await api("PUT", path, {"type": "mail", "payload": 1})
    assert (reply.status, reply.code) == (422, "reserved_id")
    assert (await api("POST", "/v1/types/mail/pause")).status == 200


async def entries_of(api: Any, address: str) -> list[Any]:
    kind = address.split("/")[2]
    entries: list[Any] = (await api.get(f"/v1/{kind}")).json[kind]
    return entries


async def test_what_runs_is_left_alone(client: Connect) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    @handler("slow")
    async def slow(context: Context, payload: Any) -> str:
        begun.set()
        await go.wait()
        return "done"

    api = await client(slow)
    job = await api.submit("slow")
    await begun.wait()
    assert (await api("POST", "/v1/types/slow/pause")).json["running"] == 1
    go.set()
    assert (await api.service.wait(job["job_id"])).result == "done"


async def test_pausing_and_resuming_can_be_repeated(client: Connect) -> None:
    """A pause stays the one that it is: since when, and why."""
    api = await client(noop)
    replies = [
        await api("POST", "/v1/types/noop/pause", {"reason": reason}) for reason in ("one", "two")
    ]
    assert replies[0].json["paused"] == replies[1].json["paused"]
    head = api.service.log.head
    for _ in range(2):
        assert (await api("POST", "/v1/types/noop/resume", {})).status == 200
    assert api.service.log.head == head + 1


async def test_everybody_at_once_makes_one_pause(serve: Serve) -> None:
    service = await serve(noop)
    switches = service.pauses
    await asyncio.gather(*(switches.pause("type", "noop", actor=f"a{n}") for n in range(20)))
    events = await service.log.read_job(switch_id("type", "noop"))
    assert [type(each.event) for each in events] == [Paused]


async def test_a_pause_made_by_another_writer_is_seen(serve: Serve) -> None:
    """What a switch stands at is in the log, and nowhere else."""
    service = await serve(noop)
    await Pauses(service.log, service.views, 10).pause("queue", "q", actor="ann")
    head = service.log.head
    await service.pauses.pause("queue", "q", actor="bob")
    assert service.log.head == head
    await service.pauses.resume("queue", "q", actor="bob")
    assert service.log.head == head + 1


def test_decisions() -> None:
    assert pause(PauseState(), "type", "x", "why") == Paused("type", "x", "why")
    assert pause(PauseState(1, True), "type", "x", "why") is None
    assert resume(PauseState(), "type", "x") is None
    assert resume(PauseState(1, True), "type", "x") == Resumed("type", "x")


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_a_name_that_nobody_has_is_refused(client: Connect, verb: str) -> None:
    """A slip would pause nothing, and say that all is well."""
    api = await client(noop)
    reply = await api("POST", f"/v1/types/nop/{verb}")
    assert (reply.status, reply.code) == (422, "unknown_type")
    assert "noop" in reply.json["detail"]
    reply = await api("POST", f"/v1/queues/a%20b/{verb}")
    assert (reply.status, reply.code, reply.fields) == (422, "invalid_input", ["queue"])
    reply = await api("POST", f"/v1/types/noop/{verb}", {"because": 1})
    assert (reply.status, reply.fields) == (422, ["because"])
    assert api.service.log.head == 0


async def test_a_type_that_nobody_has_any_longer_can_be_resumed(client: Connect) -> None:
    api = await client(mail)
    await api("POST", "/v1/types/mail/pause")
    await api.service.close()
    api = await client(noop)
    assert (await api("POST", "/v1/types/mail/resume")).json["paused"] is None


async def test_types_and_queues_are_listed_with_their_limits(client: Connect) -> None:
    @handler("api", queue="out", concurrency=2, key_concurrency=3, rate="10/m")
    async def call(context: Context, payload: Any) -> None:
        pass

    api = await client(call, noop, concurrency=0, queue_limits="out=4,idle=1")
    await api.submit("api")
    await api.submit("api", queue="slow")
    types = {each.pop("type"): each for each in await entries_of(api, "/v1/types")}
    assert types["api"] == {
        "queue": "out",
        "waiting": 2,
        "running": 0,
        "concurrency": 2,
        "key_concurrency": 3,
        "rate": "10/m",
        "paused": None,
    }
    assert types["noop"]["concurrency"] is types["noop"]["rate"] is None
    queues = {each["queue"]: each for each in await entries_of(api, "/v1/queues")}
    assert {name: each["waiting"] for name, each in queues.items()} == {
        "default": 0,
        "idle": 0,
        "out": 1,
        "slow": 1,
    }
    assert {name: each["concurrency"] for name, each in queues.items()} == {
        "default": None,
        "idle": 1,
        "out": 4,
        "slow": None,
    }


# --- jobs in queues


async def test_a_job_says_its_queue_and_key_and_is_found_by_its_queue(client: Connect) -> None:
    api = await client(mail, noop, concurrency=0)
    keyed = await api.submit("noop", concurrency_key="customer 7")
    assert (keyed["queue"], keyed["concurrency_key"]) == ("default", "customer 7")
    posted = await api.submit("mail")
    assert (posted["queue"], posted["concurrency_key"]) == ("post", None)
    moved = await api.submit("mail", queue="default")
    assert moved["queue"] == "default"
    for queue, expected in (("post", [posted]), ("default", [moved, keyed]), ("none", [])):
        page = (await api.get(f"/v1/jobs?queue={queue}")).json["jobs"]
        assert [each["job_id"] for each in page] == [each["job_id"] for each in expected]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"queue": ""}, "queue"),
        ({"queue": "a b"}, "queue"),
        ({"queue": "-a"}, "queue"),
        ({"queue": "q" * 101}, "queue"),
        ({"concurrency_key": ""}, "concurrency_key"),
        ({"concurrency_key": "a\nb"}, "concurrency_key"),
        ({"concurrency_key": "k" * 201}, "concurrency_key"),
    ],
)
async def test_names_that_cannot_be_are_refused(
    client: Connect, given: dict[str, str], field: str
) -> None:
    api = await client(noop)
    reply = await api("POST", "/v1/jobs", {"type": "noop", **given})
    assert (reply.status, reply.fields) == (422, [field])


# --- who reads the log


async def test_a_pause_is_a_fact_among_facts_and_no_job(client: Connect) -> None:
    api = await client(noop)
    await api("POST", "/v1/types/noop/pause", {"reason": "why not"})
    job = await api.submit("noop")
    page = (await api.get("/v1/events")).json
    assert [each["type"] for each in page["events"]] == ["Paused", "JobSubmitted"]
    paused = page["events"][0]
    assert paused["data"] == {"kind": "type", "name": "noop", "reason": "why not"}
    assert paused["job_id"] == switch_id("type", "noop")
    for address in ("", "/events", "/history"):
        assert (await api.get(f"/v1/jobs/{paused['job_id']}{address}")).code == "job_not_found"
    assert (await api("POST", f"/v1/jobs/{paused['job_id']}/cancel")).code == "job_not_found"
    reply = await api("PUT", f"/v1/jobs/{paused['job_id']}", {"type": "noop"})
    assert (reply.status, reply.code) == (422, "reserved_id")
    page = (await api.get("/v1/events?type=noop")).json
    assert [each["job_id"] for each in page["events"]] == [job["job_id"]]
    assert [each["job_id"] for each in (await api.get("/v1/jobs")).json["jobs"]] == [job["job_id"]]


async def test_a_switch_id_all_facts_has_it_and_a_filtered_one_goes_on(client: Connect) -> None:
    api = await client(noop)
    stream = {"Accept": "text/event-stream"}
    async with (
        api.session.get("/v1/events?after=0", headers=stream) as everything,
        api.session.get("/v1/events?type=noop&after=0", headers=stream) as filtered,
    ):
        await api("POST", "/v1/queues/default/pause")
        await api("POST", "/v1/queues/default/resume")
        await api.submit("noop")
        text = await until(everything.content, b"JobCompleted")
        assert text.index(b'"Paused"') < text.index(b'"Resumed"') < text.index(b'"JobSubmitted"')
        text = await until(filtered.content, b"JobCompleted")
        assert b"Paused" not in text
        assert b"Resumed" not in text


async def until(content: Any, wanted: bytes) -> bytes:
    text = b""
    while wanted not in text:
        text += await content.readline()
    return text


async def test_replay_and_audit_cope(client: Connect, tmp_path: Path) -> None:
    api = await client(noop)
    await api("POST", "/v1/types/noop/pause", {"reason": "x"})
    await api("POST", "/v1/queues/q/pause", {})
    await api("POST", "/v1/queues/q/resume", {})
    await api.submit("noop")
    await api.service.close()
    data = api.service.settings.data
    assert await asyncio.to_thread(replay.main, [str(data), "--check"]) == 0
    exported = tmp_path / "export"
    assert await asyncio.to_thread(audit.main, [str(data), "-o", str(exported)]) == 0
    assert exported.read_text().count('"Paused"') == 2


pause_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Paused, st.sampled_from(["type", "queue"]), st.sampled_from("ab"), st.just("why")),
    st.builds(Resumed, st.sampled_from(["type", "queue"]), st.sampled_from("ab")),
)


@settings(max_examples=30)
@given(st.lists(pause_events, max_size=20), st.lists(st.integers(1, 5), max_size=6))
async def test_the_view_of_pauses_is_the_same_however_the_log_was_cut(
    events: list[Event], sizes: list[int]
) -> None:
    history = [
        Recorded(n, switch_id(each.kind, each.name), n, n, "ann", each, *encode(each))  # type: ignore[union-attr]
        for n, each in enumerate(events, start=1)
    ]
    with quick_folder() as folder:
        if history:
            await apply(folder / "whole", [history])
            await apply(folder / "cut", cut(history, sizes))
            assert dump(folder / "cut") == dump(folder / "whole")
            store = await Store.open(folder / "whole", LOG_ID, HEAD)
            rows = await store.read(pauses.SELECT_PAUSES)
            await store.close()
            newest = {(each.kind, each.name): each for each in events}  # type: ignore[union-attr]
            paused = {key for key, each in newest.items() if isinstance(each, Paused)}
            assert {(kind, name) for kind, name, *_ in rows} == paused


async def test_no_attempt_is_started_between_pause_and_resume(serve: Serve) -> None:
    """Under load: jobs being claimed at that moment may start, later ones do not."""
    service = await serve(noop, concurrency=8)
    jobs = [await service.submit("noop") for _ in range(100)]
    position = await service.pauses.pause("type", "noop", actor="ann")
    await service.views.wait_for_position(position)
    before = service.log.head
    for _ in range(5):
        jobs.append(await service.submit("noop"))
        await asyncio.to_thread(str)
    later = await service.log.read(before, 5000)
    assert len([each for each in later if isinstance(each.event, AttemptStarted)]) <= 8
    await service.pauses.resume("type", "noop", actor="ann")
    for job in jobs:
        await service.wait(job.job_id)
        assert len(await recorded_of(service, job.job_id, AttemptStarted)) == 1
