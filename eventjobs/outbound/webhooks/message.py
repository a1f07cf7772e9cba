"""The message of a webhook delivery."""

import orjson

from eventjobs.domain.job import Job
from eventjobs.domain.mask import Mask, MaskedEvent
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339

#: Of a message. A larger one has no `event`: its `url` leads to it.
MESSAGE_BYTES_MAX = 20_000


def message_body(recorded: Recorded, job: Job) -> bytes:
    """The event and its job as JSON: the same bytes for each delivery.

    Sensitive fields are hidden in every message, because it leaves the service. A reader who may
    have their values gets them at its `url`.
    """
    tags: object = job.spec.tags
    if (mask := Mask.of(job.spec)) is not None:
        recorded = mask.event(recorded)
        tags = [mask.text(each) for each in job.spec.tags]
    job_fields = {
        "position": recorded.position,
        "version": recorded.version,
        "job_id": job.job_id,
        "job_type": job.spec.type,
        "owner": job.spec.owner,
        "tags": tags,
        "actor": recorded.actor,
        "url": f"/v1/jobs/{job.job_id}",
    }
    if isinstance(recorded, MaskedEvent):
        job_fields["masked"] = True
    message = {
        "type": recorded.type,
        "timestamp": rfc3339(recorded.at_us),
        "data": {**job_fields, "event": orjson.Fragment(recorded.data)},
    }
    body = orjson.dumps(message)
    if len(body) <= MESSAGE_BYTES_MAX:
        return body
    return orjson.dumps({**message, "data": {**job_fields, "event": None}})
