"""POST /api/upload: a form with a file becomes a job of one file."""

import asyncio
import hashlib
import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from eventjobs.demo.handlers import analyze_csv
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.http.dialects.file_types import base_name, safe_name
from eventjobs.settings import Settings
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.forms import BOUNDARY, FORM_TYPE, file_part, form_of, form_with_file, part
from tests.support.http_client import Client, Reply
from tests.support.keys import bearer, make_key
from tests.support.sessions import log_in
from tests.support.waiting import turns
from tests.support.workbooks import xlsx

CSV = b"city,people\r\nRome,3\r\n"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@handler("digest")
async def digest(context: Context, payload: Any) -> Any:
    """The SHA-256 of the job's file, and its payload."""
    content = await asyncio.to_thread(context.input(None).read_bytes)
    return {"sha256": hashlib.sha256(content).hexdigest(), "payload": payload}


async def connect(client: Connect, clock: FakeClock | None = None, **settings: Any) -> Client:
    return await client(
        digest, clock=clock, **{"dialects": "002,004", "upload_type": "digest", **settings}
    )


async def post(api: Client, body: bytes, **headers: str) -> Reply:
    headers = {"Content-Type": FORM_TYPE, **headers}
    return await api("POST", "/api/upload", data=io.BytesIO(body), headers=headers)


def stored_files(api: Client) -> list[Path]:
    directory = api.service.settings.data / "artifacts"
    return [each for each in directory.rglob("*") if each.is_file()]


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, "x" * 1000)
    return content.getvalue()


async def test_a_file_becomes_a_job_that_both_front_ends_poll(client: Connect) -> None:
    api = await connect(client)
    reply = await post(api, form_with_file("cities.csv", CSV))
    assert reply.status == 200
    job_id = reply.json["job_id"]
    prefixed = f"job_{job_id.replace('-', '')}"
    assert reply.json == {
        "jobId": prefixed,
        "job_id": job_id,
        "status": "submitted",
        "createdAt": reply.json["createdAt"],
        "poll_url": f"/api/jobs/{prefixed}",
    }
    assert reply.json["createdAt"].endswith("Z")
    await api.service.wait(job_id)
    page = (await api.get(reply.json["poll_url"])).json
    assert page["status"] == "completed"
    assert page["result"] == {"sha256": hashlib.sha256(CSV).hexdigest(), "payload": {}}
    assert page["metadata"] == {
        "fileName": "cities.csv",
        "fileSize": len(CSV),
        "fileType": "text/csv",
    }
    assert (await api.get(f"/api/job-status/{prefixed}")).json["status"] == "completed"


async def test_the_other_front_end_alone_polls_at_its_path(client: Connect) -> None:
    api = await connect(client, dialects="004")
    reply = await post(api, form_with_file("cities.csv", CSV))
    assert reply.json["poll_url"] == f"/api/job-status/{reply.json['jobId']}"


@pytest.mark.parametrize("size", [1, 8, 65_536, 3_000_001])
async def test_a_file_of_any_size_arrives_whole(client: Connect, size: int) -> None:
    api = await connect(client)
    pattern = f"\r\n--{BOUNDARY[:-1]}X\r\r\n--form".encode()  # nearly the end of a part
    content = (pattern * (size // len(pattern) + 1))[:size]
    reply = await post(api, form_with_file("a.txt", content))
    job = await api.service.wait(reply.json["job_id"])
    assert job.result["sha256"] == hashlib.sha256(content).hexdigest()
    assert job.artifacts[0].size == size


async def test_a_form_in_small_pieces_is_the_same(client: Connect) -> None:
    api = await connect(client)
    body = form_of(part('name="note"', b"x"), file_part("a.csv", CSV))

    async def pieces() -> Any:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    reply = await api("POST", "/api/upload", data=pieces(), headers={"Content-Type": FORM_TYPE})
    job = await api.service.wait(reply.json["job_id"])
    assert job.result == {"sha256": hashlib.sha256(CSV).hexdigest(), "payload": {"note": "x"}}


@pytest.mark.parametrize(
    ("sent", "artifact", "shown"),
    [
        ("../../etc/passwd.csv", "passwd.csv", "passwd.csv"),
        (r"C:\\Users\\ann\\Sales 2025.csv", "Sales 2025.csv", "Sales 2025.csv"),
        ("Umsätze & Mai.csv", "Umsatze _ Mai.csv", "Umsätze & Mai.csv"),
        ("売上.xlsx", "file.xlsx", "売上.xlsx"),
        (".csv", "csv", None),
        ("a\x01\x7f\u202eb.csv", "ab.csv", "ab.csv"),
    ],
)
async def test_the_name_of_a_file_is_safe_and_kept(
    client: Connect, sent: str, artifact: str, shown: str | None
) -> None:
    api = await connect(client)
    content = archive("xl/workbook.xml") if sent.endswith("xlsx") else CSV
    reply = await post(api, form_with_file(sent, content))
    if shown is None:
        assert reply.status == 415
        return
    job = await api.service.jobs.load(reply.json["job_id"])
    assert job is not None
    assert job.spec.artifacts[0].name == artifact
    page = (await api.get(reply.json["poll_url"])).json
    assert page["metadata"]["fileName"] == shown


def test_a_safe_name_is_a_name_of_an_artifact() -> None:
    for name in ("", ".", "...", "-rf", "a" * 300 + ".csv", "." + "b" * 300, "x." + "y" * 300):
        safe = safe_name(base_name(name))
        assert 0 < len(safe) <= 128
        assert safe[0].isalnum()
    assert safe_name("a" * 300 + ".csv").endswith("a.csv")


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "no field": (form_of(part('name="note"', b"x")), 400, "file_missing"),
    "nothing": (form_of(), 400, "file_missing"),
    "no file name": (form_of(part('name="file"', CSV)), 400, "file_missing"),
    "an empty file name": (form_with_file("", CSV), 400, "file_missing"),
    "an empty file": (form_with_file("a.csv", b""), 400, "file_empty"),
    "two files": (form_of(file_part("a.csv", CSV), file_part("b.csv", CSV)), 400, "bad_form"),
    "another field": (form_of(file_part("a.csv", CSV, "upload")), 400, "bad_form"),
    "a field twice": (
        form_of(file_part("a.csv", CSV), part('name="a"', b"1"), part('name="a"', b"2")),
        400,
        "bad_form",
    ),
    "a field that is no text": (
        form_of(file_part("a.csv", CSV), part('name="a"', b"\xff")),
        400,
        "bad_form",
    ),
    "a form that is cut off": (form_with_file("a.csv", CSV)[:-20], 400, "bad_form"),
    "no form": (CSV, 400, "bad_form"),
    "a header that is none": (
        f"--{BOUNDARY}\r\nnonsense\r\n\r\n\r\n--{BOUNDARY}--".encode(),
        400,
        "bad_form",
    ),
    "many fields": (form_of(*[part(f'name="f{n}"', b"") for n in range(40)]), 413, "too_large"),
    "a large field": (form_of(part('name="a"', b"x" * 70_000)), 413, "too_large"),
    "a large header": (
        form_of(part('name="a"', b"", "X-Long: " + "x" * 9000)),
        413,
        "too_large",
    ),
    "a long preamble": (b"\r\n" * 40_000 + form_with_file("a.csv", CSV), 413, "too_large"),
    "another type": (form_with_file("a.pdf", b"%PDF-1.7"), 415, "unsupported_media_type"),
    "no type": (form_with_file("README", CSV), 415, "unsupported_media_type"),
    "a binary file": (form_with_file("a.csv", b"\0\1\2"), 415, "unsupported_media_type"),
    "a workbook as text": (
        form_with_file("a.csv", archive("a")),
        415,
        "unsupported_media_type",
    ),
    "a text as workbook": (form_with_file("a.xlsx", CSV), 415, "unsupported_media_type"),
    "half a workbook": (form_with_file("a.xlsx", archive("a")[:-30]), 400, "file_damaged"),
    "a workbook with a password": (
        form_with_file("a.xlsx", OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le")),
        400,
        "file_protected",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_form_that_is_refused_leaves_nothing_behind(client: Connect, name: str) -> None:
    body, status, code = REFUSED[name]
    api = await connect(client)
    reply = await post(api, body)
    assert (reply.status, reply.json["code"]) == (status, code), reply.body
    assert reply.json["error"] == reply.json["detail"]
    assert reply.json["path"] == "/api/upload"
    assert stored_files(api) == []
    assert (await api.get("/v1/jobs")).json["jobs"] == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("text/csv", 415),
        ("multipart/mixed; boundary=x", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        (f"multipart/form-data; boundary={'x' * 71}", 400),
    ],
)
async def test_a_body_of_another_type_is_refused(client: Connect, kind: str, status: int) -> None:
    api = await connect(client)
    reply = await post(api, CSV, **{"Content-Type": kind})
    assert (reply.status, bool(reply.json["error"])) == (status, True)


async def test_a_file_that_is_too_large_is_refused_while_it_arrives(client: Connect) -> None:
    api = await connect(client, upload_bytes_max=1000)
    reply = await post(api, form_with_file("a.csv", b"x" * 1000))
    assert reply.status == 200
    for size in (1001, 70_000):
        body = form_with_file("a.csv", b"x" * size)

        async def pieces(body: bytes = body) -> Any:
            for start in range(0, len(body), 900):  # each piece is within the limit
                yield body[start : start + 900]
                await turns()

        for data in (body, pieces()):  # with and without Content-Length
            reply = await api("POST", "/api/upload", data=data, headers={"Content-Type": FORM_TYPE})
            assert (reply.status, reply.json["code"]) == (413, "too_large")
    assert len(stored_files(api)) == 1


async def test_a_slow_form_ends_as_any_slow_body(client: Connect) -> None:
    clock = FakeClock()
    api = await connect(client, clock, body_timeout_s=5)
    body = form_with_file("a.csv", CSV)
    head = f"POST /api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM_TYPE}\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    answer = asyncio.create_task(api.raw(head.encode() + body[:50]))
    while not answer.done():
        await clock.advance(1.0)
        await asyncio.sleep(0)
    assert b"408" in (await answer).splitlines()[0]
    assert b"body_timeout" in await answer


async def test_an_unknown_type_of_job_is_refused_before_the_file_arrives(client: Connect) -> None:
    api = await connect(client, upload_type="elsewhere")
    reply = await post(api, form_with_file("a.csv", CSV))
    assert (reply.status, reply.json["code"]) == (422, "unknown_type")
    assert stored_files(api) == []


async def test_files_are_of_their_owner_and_count_for_the_owner(client: Connect) -> None:
    api = await connect(client, auth="required", owner_bytes_max=2 * len(CSV))
    ann, bob = [bearer(await make_key(api.service, owner=name)) for name in ("ann", "bob")]
    assert (await post(api, form_with_file("a.csv", CSV))).status == 401
    reply = await post(api, form_with_file("a.csv", CSV), **ann)
    assert reply.status == 200
    assert (await api("GET", reply.json["poll_url"], headers=bob)).status == 404
    sha256 = hashlib.sha256(CSV).hexdigest()
    stolen = {"type": "digest", "artifacts": {"a": sha256}}
    assert (await api("POST", "/v1/jobs", stolen, headers=bob)).code == "unknown_artifact"
    assert (await api("POST", "/v1/jobs", stolen, headers=ann)).status == 202
    large = await post(api, form_with_file("b.csv", b"x" * 2 * len(CSV)), **ann)
    assert (large.status, large.json["code"]) == (413, "owner_bytes_limit")
    assert (await post(api, form_with_file("b.csv", b"x" * 2 * len(CSV)), **bob)).status == 200


async def test_a_page_of_the_service_uploads_with_its_session(client: Connect) -> None:
    api = await connect(client, auth="required")
    key = await make_key(api.service, owner="ann")
    cookie = await log_in(api, key)
    for headers, status in (
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": api.listening.url}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({}, 415),
    ):
        reply = await post(api, form_with_file("a.csv", CSV), **cookie, **headers)
        assert reply.status == status, headers


async def test_a_workbook_is_analyzed_or_fails_in_the_first_stage(client: Connect) -> None:
    api = await client(analyze_csv, dialects="002")
    book = xlsx({"Cities": [["city", "people"], ["Rome", 3]], "Other": [["a"], ["b"], ["c"]]})
    other = form_of(file_part("a.xlsx", book), part('name="sheet"', b"Other"))
    for form, rows in ((form_with_file("a.xlsx", book), 1), (other, 2)):
        uploaded = (await post(api, form)).json
        await api.service.wait(uploaded["job_id"])
        page = (await api.get(uploaded["poll_url"])).json
        assert (page["status"], page["result"]["rows"]) == ("completed", rows)
        assert {each["status"] for each in page["stages"]} == {"done"}
    uploaded = (await post(api, form_with_file("a.xlsx", archive("a")))).json
    await api.service.wait(uploaded["job_id"])
    page = (await api.get(uploaded["poll_url"])).json
    assert page["errorDetails"]["code"] == "PREPROCESSING_ERROR"
    assert page["error"] == "This is no whole workbook: the archive has no workbook"
    assert page["stages"][0]["status"] == "failed"


async def test_the_types_of_files_are_a_setting(client: Connect) -> None:
    api = await connect(client, upload_suffixes=".pdf, .csv")
    assert (await post(api, form_with_file("a.PDF", b"%PDF-1.7"))).status == 200
    refused = await post(api, form_with_file("a.xlsx", archive("a")))
    assert refused.json["error"] == "the name of a file ends with one of: .pdf, .csv"
    with pytest.raises(ValueError, match="upload_suffixes"):
        Settings(upload_suffixes="pdf")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
async def test_curl_uploads_a_file(client: Connect, tmp_path: Path) -> None:
    api = await connect(client)
    (tmp_path / "x.csv").write_bytes(CSV)
    url = f"http://127.0.0.1:{api.listening.port}/api/upload"
    curl = await asyncio.create_subprocess_exec(
        "curl", "-s", "-X", "POST", url, "-F", "file=@x.csv", cwd=tmp_path, stdout=-1
    )
    output, _ = await curl.communicate()
    assert b'"jobId":"job_' in output, output
