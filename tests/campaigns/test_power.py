"""An acknowledged event survives a power cut: the campaign, its model, and a real server."""

import random
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp
import pytest

from eventjobs.tools.soak.power.campaign import campaign
from eventjobs.tools.soak.power.disk import RULES, Disk, Image, Left, Rules
from eventjobs.tools.soak.power.scenarios import CONTROLS, SCENARIOS
from eventjobs.tools.soak.power.trace import (
    CALLS,
    Create,
    MakeFolder,
    NotModelled,
    Operation,
    Remove,
    Rename,
    Sync,
    Truncate,
    Write,
    read,
)
from tests.conftest import CAMPAIGN_RESULT
from tests.support.servers import Server, start
from tests.support.strace import attach, failing

STATES = 200
#: `make soak` plays the others, too.
PLAYED = ("start", "load", "swap", "upload", "repeat", "killed")
NOTICED = ("commits", "folders", "files")


@pytest.mark.timeout(300)
def test_what_a_power_cut_leaves_has_all_that_was_acknowledged(
    strace: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    outcome = campaign(
        tmp_path,
        1,
        STATES,
        scenarios={name: SCENARIOS[name] for name in PLAYED},
        controls={name: CONTROLS[name] for name in NOTICED},
    )
    record_property(CAMPAIGN_RESULT, str(outcome))
    assert not outcome.faults
    assert outcome.states > 0.9 * STATES * len(PLAYED)


async def test_a_retry_is_answered_from_what_is_on_the_disk(strace: str, tmp_path: Path) -> None:
    """Killed between the write and the sync of a commit: the next process found the job in the page
    cache, answered 200, and had synced nothing."""
    data, trace = tmp_path / "data", tmp_path / "trace"
    job = "/v1/jobs/0f1d9a52-6a3b-4f0e-9d52-1f7f0c2b7a11"
    elsewhere = {"type": "elsewhere"}
    server = serve_elsewhere(data)
    async with aiohttp.ClientSession() as client:
        (await client.post(f"{server.url}/v1/jobs", json=elsewhere)).raise_for_status()
        killing = failing(strace, data / "log.db", "fdatasync:signal=SIGKILL:when=1")
        with attach(killing, server.process.pid), pytest.raises(aiohttp.ClientError):
            await client.put(server.url + job, json=elsewhere)
        assert wait(server) == -signal.SIGKILL
        calls = ["--trace=fsync,fdatasync,write,sendto", f"--output={trace}"]
        watching = [strace, "--daemonize", "--follow-forks", "--decode-fds=path", *calls]
        server = serve_elsewhere(data, *watching)
        async with client.put(server.url + job, json=elsewhere) as answer:
            assert answer.status == 200
        server.process.kill()
        wait(server)
    before, _, _ = trace.read_text().partition("HTTP/1.1 200")
    synced = set(re.findall(r"sync\(\d+<(.*?)>", before))
    assert {str(data), f"{data}/log.db", f"{data}/log.db-wal"} <= synced


def serve_elsewhere(data: Path, *under: str) -> Server:
    return start(data, under=under, EVENTJOBS_WORKER_TYPES="elsewhere")


def wait(server: Server) -> int:
    assert server.process.stdout is not None
    server.process.stdout.close()
    return server.process.wait(30)


# --- the model


def left(rules: Rules, done: Sequence[Operation], left: Left = "something") -> list[Image]:
    """Everything that a cut can leave."""
    disk = Disk(rules)
    for each in done:
        disk.do(each)
    drawn = (disk.image(left, random.Random(seed)) for seed in range(200))
    return [*{tuple(sorted(each.items())): each for each in drawn}.values()]


SYNCED: list[Operation] = [
    Create("a", emptied=False),
    Write("a", 0, b"x" * 1024),
    Sync("a", 2),
    Sync("", 3),
]


@pytest.mark.parametrize("rules", RULES)
def test_what_is_synced_stays(rules: Rules) -> None:
    assert left(rules, SYNCED) == [{"a": b"x" * 1024}]
    assert left(rules, [*SYNCED, Write("a", 0, b"y")], "nothing") == [{"a": b"x" * 1024}]


@pytest.mark.parametrize("rules", RULES)
def test_a_write_that_is_not_synced_may_be_torn_between_sectors(rules: Rules) -> None:
    contents = {each["a"] for each in left(rules, [*SYNCED, Write("a", 0, b"y" * 1024)])}
    one, other = b"x" * 512, b"y" * 512
    assert contents == {one + one, one + other, other + one, other + other}


@pytest.mark.parametrize("rules", RULES)
def test_a_write_during_a_sync_is_not_synced_by_it(rules: Rules) -> None:
    done: list[Operation] = [*SYNCED, Write("a", 0, b"y"), Sync("a", len(SYNCED))]
    assert {each["a"][:1] for each in left(rules, done)} == {b"x", b"y"}


@pytest.mark.parametrize("rules", RULES)
def test_a_file_may_lose_what_it_was_truncated_and_extended_to(rules: Rules) -> None:
    done: list[Operation] = [*SYNCED, Truncate("a", 0), Write("a", 0, b"y")]
    assert {b"x" * 1024, b"", b"y"} <= {each["a"] for each in left(rules, done)}


def names(rules: Rules, *done: Operation) -> set[tuple[str, ...]]:
    return {tuple(sorted(each)) for each in left(rules, done)}


NEW: list[Operation] = [Create("a", emptied=False), Create("b", emptied=False)]


def test_names_are_kept_as_the_file_system_has_it() -> None:
    in_order = {(), ("a",), ("a", "b")}
    assert names("ordered", *NEW) == in_order
    assert names("strict", *NEW) == {*in_order, ("b",)}
    assert names("ordered", *NEW, Sync("b", 2)) == {("a", "b")}
    assert names("ext4", *NEW, Sync("b", 2)) == {("a", "b")}
    assert names("strict", *NEW, Sync("b", 2)) == {*in_order, ("b",)}
    assert names("strict", *NEW, Sync("", 2)) == {("a", "b")}


def test_a_sync_of_a_file_that_was_overwritten_in_place_commits_no_names_on_ext4() -> None:
    done: list[Operation] = [*SYNCED, Create("b", emptied=False), Write("a", 0, b"y"), Sync("a", 6)]
    assert names("ordered", *done) == {("a", "b")}
    assert names("ext4", *done) == {("a",), ("a", "b")}


def test_a_rename_may_be_lost_and_never_halved_but_where_posix_leaves_it_open() -> None:
    done: list[Operation] = [*SYNCED, Rename("a", "b")]
    assert names("ordered", *done) == {("a",), ("b",)}
    assert names("strict", *done) == {("a",), ("b",), ("a", "b")}


def test_a_folder_that_is_lost_takes_what_is_synced_in_it() -> None:
    done: list[Operation] = [
        MakeFolder("new"),
        Create("new/a", emptied=False),
        Sync("new/a", 2),
        Sync("new", 3),
    ]
    assert names("strict", *done) == {(), ("new/", "new/a")}
    assert names("ordered", *done) == {("new/", "new/a")}


def test_a_removed_file_may_come_back_beside_the_one_that_took_its_name() -> None:
    done: list[Operation] = [
        *SYNCED,
        Remove("a"),
        Create("a", emptied=False),
        Write("a", 0, b"new"),
        Sync("a", 7),
    ]
    assert {each.get("a") for each in left("strict", done)} == {None, b"x" * 1024, b"new"}


# --- the trace


def parse(tmp_path: Path, *lines: str) -> list[Operation]:
    def in_hex(text: str) -> str:
        return "".join(f"\\x{byte:02x}" for byte in text.encode())

    with (tmp_path / "trace").open("w") as file:
        for line in lines:
            named = re.sub(r"@(\w+)", lambda name: in_hex(f"{tmp_path}/{name[1]}"), line)
            file.write(named.replace("#hello", in_hex("hello")) + "\n")
    return read(tmp_path)


def test_calls_become_operations_once_they_have_returned(tmp_path: Path) -> None:
    assert parse(
        tmp_path,
        '7  openat(AT_FDCWD<@other>, "@log", O_RDWR|O_CREAT, 0600) = 3<@log>',
        '7  write(3<@log>, "#hello", 5) = 5',
        '8  pwrite64(3<@log>, "#hello", 5, 100 <unfinished ...>',
        "7  fsync(3<@log> <unfinished ...>",
        '7  write(3<@log>, "#hello", 5) = 2',
        "8  <... pwrite64 resumed>) = 5",
        "7  <... fsync resumed>) = 0 (DELAYED)",
        '7  unlink("@other") = -1 ENOENT (No such file or directory)',
        '7  rename("@log", "@other") = 0',
    ) == [
        Create("log", emptied=False),
        Write("log", 0, b"hello"),
        Write("log", 5, b"he"),
        Write("log", 100, b"hello"),
        Sync("log", 2),
        Rename("log", "other"),
    ]


@pytest.mark.parametrize(
    "call",
    [
        'link("@log", "@other") = 0',
        'writev(3<@log>, [{iov_base="#hello", iov_len=5}], 1) = 5',
        "syncfs(3<@log>) = 0",
        'pwrite64(3<@log>, "#hello"..., 500, 0) = 500',
    ],
)
def test_a_call_that_is_not_modelled_is_refused(tmp_path: Path, call: str) -> None:
    assert call.partition("(")[0] in CALLS.split(",")
    with pytest.raises(NotModelled):
        parse(tmp_path, f"7  {call}")
