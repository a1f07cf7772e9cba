"""What an export leaves out of jobs with sensitive fields, and what it still proves."""

import asyncio
import hashlib
import io
from pathlib import Path
from typing import Any

import orjson
import pytest

from eventjobs import Context, Service, Settings, handler
from eventjobs.errors import JobError
from eventjobs.log.commitment import COMMITMENT
from eventjobs.tools.audit import Export
from tests.support.log_rows import change

CARD = "4111-1111-1111-1111"


@handler("charge", sensitive=("card",), max_attempts=1)
async def charge(context: Context, payload: Any) -> Any:
    context.log(f"charging {payload['card']}", card=payload["card"])
    context.progress(1, 2, stage=f"with {payload['card']}")
    if payload["sum"] > 5:
        raise JobError("declined", f"{payload['card']} is declined")
    return payload


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """The directory of a closed service that ran two jobs with the card, and one without."""
    settings = Settings(progress_interval_s=0.0)
    async with Service(tmp_path / "data", [charge, echo], settings=settings) as service:
        jobs = [await service.submit("charge", {"card": CARD, "sum": sum}) for sum in (1, 9)]
        jobs.append(await service.submit("echo", {"card": "no secret"}))
        await asyncio.gather(*(service.wait(job.job_id) for job in jobs))
    return tmp_path / "data"


async def export(data: Path, **options: Any) -> tuple[Export, list[Any], bytes]:
    file = io.BytesIO()
    done = Export(file)
    await done.run(data, **options)
    return done, [orjson.loads(line) for line in file.getvalue().splitlines()], file.getvalue()


def proves(line: Any) -> bool:
    text = COMMITMENT + bytes.fromhex(line["salt"]) + line["body"].encode()
    return bool(hashlib.sha256(text).hexdigest() == line["commitment"])


@pytest.mark.parametrize("after", [0, 1])
async def test_an_export_hides_sensitive_values_and_says_where(data: Path, after: int) -> None:
    """Also when it begins behind the events that name the fields."""
    done, lines, text = await export(data, after=after)
    assert CARD.encode() not in text
    masked = [each for each in lines if "masked" in each]
    assert done.first_bad is None
    assert done.masked == len(masked) > 4
    assert f"every commitment holds, {len(masked)} masked, sha256" in done.summary()
    for each in masked:
        assert (each["masked"], each["body"], each["salt"]) == (True, None, None)
        assert len(each["commitment"]) == 64
    assert all(proves(each) for each in lines if "masked" not in each)
    texts = {each["data"].get("message") for each in masked}
    assert {"charging [hidden]", "[hidden] is declined"} <= texts
    assert b"no secret" in text, "of a job without sensitive fields"


async def test_an_export_of_everything_is_one_on_demand(data: Path) -> None:
    done, lines, text = await export(data, unmask=True)
    assert (done.masked, done.first_bad) == (0, None)
    assert all(proves(each) for each in lines)
    assert text.count(CARD.encode()) > 8


async def test_a_job_whose_first_event_cannot_be_read_is_hidden_as_a_whole(data: Path) -> None:
    change(data / "log.db", "UPDATE events SET facts = CAST('{' AS BLOB) WHERE version = 1")
    done, lines, text = await export(data)
    assert done.first_bad is not None
    assert CARD.encode() not in text
    assert {"position", "commitment", "masked"} <= lines[0].keys()
