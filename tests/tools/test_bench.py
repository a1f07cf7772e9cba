"""Every section of the benchmark measures something, and leaves nothing behind."""

from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import orjson
import pytest

from eventjobs.tools.bench import __main__ as bench
from eventjobs.tools.bench import handlers
from eventjobs.tools.bench import http as bench_http
from eventjobs.tools.bench import report as bench_report
from eventjobs.tools.bench.processes import Answer, Bench, Child, Died, Sample, Size
from eventjobs.tools.bench.report import MILLISECONDS, REQUESTS, Floor, Row, table
from tests.conftest import CI

TINY = Size(
    runs=1,
    seconds=0.05,
    in_flight=8,
    writers=(4,),
    plain=40,
    rebuilt=200,
    wrk_s=1,
    connections=2,
    checks=20,
    lines=20,
    watchers=3,
    paced=3,
    bursts=3,
    idle=3,
    broadcasts=1,
    started=400,
    workers=(1,),
    worked=20,
    claims=5,
    beside=(20,),
    waiters=3,
)


@pytest.fixture(scope="module")
def tiny() -> Iterator[Bench]:
    """What can be measured in this process is, and servers are shared: processes start slowly."""
    with Bench(TINY, bench.CHILDREN, alone=False) as bench_run:
        yield bench_run


@pytest.fixture
def light_wrk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one takes a whole second each time, where it is installed at all."""

    def few(
        bench: Bench,
        server: tuple[Child, Answer],
        path: str,
        script: Path | None = None,
        headers: dict[str, str] | None = None,
    ) -> Sample:
        connection = HTTPConnection("127.0.0.1", server[1]["port"], timeout=10)
        method, body, sent = "GET", b"", dict(headers or {})
        if script is not None:
            method, body = "POST", orjson.dumps(bench_http.JOB)
            sent["Content-Type"] = "application/json"
        with closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            assert answer.status in {200, 202}, answer.read()
        return Sample(1.0, 1.0)

    monkeypatch.setattr(bench_http, "has_wrk", lambda: True)
    monkeypatch.setattr(bench_http, "wrk", few)


@pytest.mark.usefixtures("light_wrk")
@pytest.mark.parametrize("name", bench.SECTIONS)
def test_a_section_measures_both_sides(tiny: Bench, name: str) -> None:
    rows = bench.SECTIONS[name](tiny)
    assert rows
    for row in rows:
        assert row.ours
        assert len(row.raw) == len(row.ours)
        assert all(figure >= 0 for figure in row.raw)


def test_wrk_is_understood(tiny: Bench) -> None:
    if not bench_http.has_wrk():
        (pytest.fail if CI else pytest.skip)("wrk is missing")
    script = tiny.directory / "post.lua"
    script.write_text(bench_http.POST)
    assert bench_http.wrk(tiny, tiny.server("bare"), "/post", script).rate > 0


def test_without_wrk_the_others_are_measured(tiny: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_http, "has_wrk", lambda: False)
    [row] = bench_http.gets(tiny)
    assert row.ours == []
    assert "wrk is missing" in table([row], markdown=False)


def test_the_command_prints_every_figure(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "QUICK", TINY)
    assert bench.main(["latency", "--quick", "--json", "--runs", "1"]) == 0
    figures = orjson.loads(capfd.readouterr().out)
    assert set(figures["machine"]) >= {"cpu", "fsync", "python loop", "others took"}
    assert [len(row["eventjobs"]) for row in figures["rows"]] == [1, 1]


def test_a_process_that_ends_is_told_of() -> None:
    nobody = {"port": 1, "path": "/", "clients": 1, "acks": 1}
    with (
        Child("readers", nobody, "eventjobs.tools.bench.sse_readers") as child,
        pytest.raises(Died, match="readers"),
    ):
        child.answer()


def test_a_floor_is_met_by_the_median_and_the_paired_share() -> None:
    row = Row("x", REQUESTS, "y", Floor(100, 0.5), [90, 110, 120], [200, 210, 230])
    assert row.share == 120 / 230
    assert row.met
    assert not Row("x", REQUESTS, "y", Floor(share=0.53), row.ours, row.raw).met
    assert not Row("x", MILLISECONDS, "y", Floor(100), [90, 110, 120]).met


def test_a_floor_of_cpu_time_is_met_by_the_paired_share() -> None:
    row = Row("x", REQUESTS, "y", Floor(cpu_share=0.9))
    for ours, raw in ((100.0, 80.0), (100.0, 95.0), (200.0, 190.0)):
        row.add(Sample(1.0, ours), Sample(2.0, raw))
    assert row.cpu_share == 0.95
    assert row.met
    row.floor = Floor(cpu_share=0.96)
    assert not row.met
    assert "at least 96% by CPU time" in row.cells()


def test_less_is_better_for_times() -> None:
    row = Row("x", MILLISECONDS, "y", Floor(3), [2.0], [1.0])
    assert row.share == 0.5
    assert row.met


def test_the_table_can_be_pasted() -> None:
    row = Row("x", REQUESTS, "y", Floor(1000, 0.5), [1500, 2500, 2000], [4000, 4000, 4000])
    assert table([row], markdown=True).splitlines()[2] == (
        "| x | 2,000 requests/s (1,500..2,500) | 4,000 requests/s (4,000..4,000) "
        "| 50% | at least 1,000 requests/s, at least 50% | yes |  | y |"
    )


def test_the_machine_is_described(tmp_path: Path) -> None:
    assert all(bench_report.machine(tmp_path).values())


def test_a_process_can_import_the_handlers_by_name() -> None:
    """In a program that is run with -m, `__main__` has another name in each process."""
    for each in (handlers.noop, handlers.noop_in_a_process):
        assert each.function.__module__ == handlers.__name__
        assert not handlers.__name__.endswith("__main__")
