"""Uploads, named by the SHA-256 of their content, and downloads of jobs' artifacts."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress

from aiohttp import web

from eventjobs.commands.access import mask_for
from eventjobs.domain.spec import Artifact
from eventjobs.errors import ArtifactDamaged
from eventjobs.http import slow_clients
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of, uploader_of
from eventjobs.http.current_job import current_snapshot
from eventjobs.http.headers import check_match, is_known
from eventjobs.http.request_body import check_encoding, check_file, check_length, chunks
from eventjobs.http.request_errors import ArtifactMasked, ArtifactNotFound, RangeNotSatisfiable
from eventjobs.http.requests import path_id
from eventjobs.http.responses import NO_CACHE, reply
from eventjobs.service import Service

#: Media types that are sent as such. All others are sent as plain bytes.
SAFE_TYPES = frozenset(
    {
        "application/json",
        "application/pdf",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/svg+xml",
        "image/webp",
        "text/csv",
        "text/plain",
    }
)
#: An SVG can carry scripts. A browser stores every file; one that is opened all the same may only
#: draw.
SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


async def upload(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Store a file; a submission names it by the sha256 in the answer. Safe to repeat."""
    check_file(request)
    check_encoding(request)
    service = context.service
    check_length(request, service.settings.artifact_bytes_max)
    owner = uploader_of(principal_of(request))
    sha256, size = await service.uploads.receive(
        owner, chunks(service, request), request.content_length or 0
    )
    return reply({"sha256": sha256, "size": size}, status=201)


async def download(context: AppContext, request: web.Request) -> web.StreamResponse:
    """A file of a job, whole or a range of it."""
    service = context.service
    job_id = await path_id(service, request)
    job = (await current_snapshot(context, job_id)).job
    artifact = next((a for a in job.artifacts if a.name == request.match_info["name"]), None)
    if artifact is None:
        raise ArtifactNotFound
    if await mask_for(service.jobs, principal_of(request), job) is not None:
        raise ArtifactMasked
    headers = _headers(artifact)
    etag = headers["ETag"]
    check_match(request, etag)
    if is_known(request, etag):
        return web.Response(status=304, headers=headers)
    begin, end = _range(request, artifact)
    response = web.StreamResponse(headers=headers)
    response.content_length = end - begin
    if (begin, end) != (0, artifact.size):
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{artifact.size}"
    blocks = service.artifacts.read_blocks(artifact.sha256, artifact.size, begin, end)
    try:
        if request.method == "HEAD":
            await asyncio.to_thread(service.artifacts.path(artifact.sha256).stat)
            await response.prepare(request)
        else:
            # Read before the headers are sent, so that damage in a small file is a proper answer.
            first = await _next(blocks)
            await response.prepare(request)
            await _send(service, request, response, first, blocks)
    except FileNotFoundError as error:
        raise ArtifactNotFound("the file was removed") from error
    finally:
        with suppress(ValueError):  # cancelled: the thread that reads closes it afterwards
            await asyncio.to_thread(blocks.close)
    await response.write_eof()
    return response


def _headers(artifact: Artifact) -> dict[str, str]:
    media_type = artifact.media_type.partition(";")[0].strip().lower()
    safe = media_type if media_type in SAFE_TYPES else "application/octet-stream"
    name = re.sub(r"[^A-Za-z0-9._ ()+-]", "_", artifact.name)
    return {
        "Content-Type": f"{safe}; charset=utf-8" if safe.startswith("text/") else safe,
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Security-Policy": SANDBOX,
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Frame-Options": "DENY",
        "Accept-Ranges": "bytes",
        "ETag": f'"{artifact.sha256}"',
        # The content of a name may change: revalidation mostly answers 304.
        **NO_CACHE,
    }


def _range(request: web.Request, artifact: Artifact) -> tuple[int, int]:
    """Begin and end of the requested bytes. Raises RangeNotSatisfiable."""
    whole = 0, artifact.size
    if request.method != "GET":
        return whole  # only GET has ranges (RFC 9110, 14.2)
    if request.headers.get("If-Range", "").strip() not in {"", f'"{artifact.sha256}"'}:
        return whole  # the range is of another version of the file (RFC 9110, 13.1.5)
    try:
        requested = request.http_range
    except ValueError:
        return whole  # several ranges, or other units, are ignored (RFC 9110, 14.2)
    if requested.start is None:
        return whole
    begin, end, _ = requested.indices(artifact.size)
    if begin >= end:
        raise RangeNotSatisfiable(headers={"Content-Range": f"bytes */{artifact.size}"})
    return begin, end


async def _send(
    service: Service,
    request: web.Request,
    response: web.StreamResponse,
    block: bytes | None,
    blocks: Iterator[bytes],
) -> None:
    """Write *block* and all *blocks*. Raises ConnectionResetError, also for a damaged file: the
    answer then stays incomplete.
    """
    try:
        while block is not None:
            await slow_clients.write(service, request, response, block)
            block = await _next(blocks)
    except ArtifactDamaged as error:
        raise ConnectionResetError("the file is damaged") from error


async def _next(blocks: Iterator[bytes]) -> bytes | None:
    """The next block that is not empty, or None."""
    block: bytes | None = b""
    while block == b"":
        block = await asyncio.to_thread(next, blocks, None)
    return block
