"""Reports of external services on the attempts that were dispatched to them."""

from aiohttp import web

from eventjobs.http.app_context import AppContext
from eventjobs.http.callback_reports import holder_of, record
from eventjobs.http.json_body import read_json
from eventjobs.http.requests import parse_job_id
from eventjobs.http.responses import reply
from eventjobs.http.schemas.callbacks import Callback


async def report(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Report on an attempt that was dispatched to you, with its token. Safe to repeat."""
    service = context.service
    holder = holder_of(service, request, parse_job_id(request.match_info["id"]))
    callback = await read_json(service, request, Callback)
    result = await record(service, holder, callback)
    body = {
        "job_id": holder.job_id,
        "attempt": holder.attempt,
        "status": result.job.status,
        "repeated": result.is_repeat,
        "cancel_requested": result.job.cancel_requested_us is not None,
    }
    return reply(body)
