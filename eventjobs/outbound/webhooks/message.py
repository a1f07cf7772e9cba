"""The message of a webhook delivery."""

import orjson

from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339

#: Of a message. Above it the event's own data is left out, and the address to read it from is in.
MESSAGE_BYTES_MAX = 20_000


def message_body(recorded: Recorded, job: Job) -> bytes:
    """What is sent: the event, and what its job is; the same bytes each time."""
    about = {
        "position": recorded.position,
        "version": recorded.version,
        "job_id": job.job_id,
        "job_type": job.spec.type,
        "owner": job.spec.owner,
        "tags": job.spec.tags,
        "actor": recorded.actor,
        "url": f"/v1/jobs/{job.job_id}",
    }
    whole = {
        "type": recorded.type,
        "timestamp": rfc3339(recorded.at_us),
        "data": {**about, "event": orjson.Fragment(recorded.data)},
    }
    body = orjson.dumps(whole)
    if len(body) <= MESSAGE_BYTES_MAX:
        return body
    return orjson.dumps({**whole, "data": {**about, "event": None}})
