"""Every route: method, path, endpoint, what it takes and what it answers."""

from aiohttp import web
from pydantic import BaseModel

from eventjobs.commands.jobs import CommandReason, RetryOptions
from eventjobs.domain.validation import Redelivery, Subscription
from eventjobs.errors import (
    EventjobsError,
    IdempotencyKeyReused,
    JobExists,
    OutboundRefused,
    StaleAttempt,
    UnknownSchedule,
    UnknownStep,
    UnknownType,
    WebhookNotFound,
    WrongState,
)
from eventjobs.http import responses
from eventjobs.http.app_context import AppContext
from eventjobs.http.endpoints import artifacts as files
from eventjobs.http.endpoints import batch, breakers, events, health, history, jobs, webhooks
from eventjobs.http.endpoints import dashboard as pages
from eventjobs.http.endpoints import explanation as why
from eventjobs.http.endpoints import queues as flow
from eventjobs.http.endpoints import schedules as recurring
from eventjobs.http.endpoints import workers as work
from eventjobs.http.endpoints.callbacks import report
from eventjobs.http.lists import ListQuery
from eventjobs.http.openapi import document
from eventjobs.http.problem import (
    ArtifactNotFound,
    BadCursor,
    BadToken,
    NotReady,
    RangeNotSatisfiable,
)
from eventjobs.http.routing import Endpoint, RequestSpec, ResponseSpec, Route
from eventjobs.http.schemas import artifacts, callbacks, submission, workers
from eventjobs.http.schemas import events as event_schemas
from eventjobs.http.schemas import health as health_schemas
from eventjobs.http.schemas import history as past
from eventjobs.http.schemas import jobs as job_schemas
from eventjobs.http.schemas import queues as flow_shapes
from eventjobs.http.schemas import webhooks as webhook_schemas
from eventjobs.http.schemas import workers as reported
from eventjobs.http.schemas.queries import AllEventsQuery, EventsQuery, JobQuery, JobsQuery
from eventjobs.http.schemas.submission import BatchLine, Submission

JSON = "application/json"
BYTES = "application/octet-stream"

# --- what routes take

NOTHING = RequestSpec()
CONDITIONS = ("If-Match", "If-None-Match")
GONE = RequestSpec(headers=CONDITIONS)
SUBMISSION = RequestSpec(Submission, JSON, headers=("Idempotency-Key",))
NAMED = RequestSpec(Submission, JSON, headers=CONDITIONS)
LINES = RequestSpec(BatchLine, batch.NDJSON)
REASON = RequestSpec(CommandReason, JSON, optional=True)
STOP = RequestSpec(CommandReason, JSON, optional=True, headers=CONDITIONS)
REPORT = RequestSpec(callbacks.Callback, JSON, headers=("Authorization",))
AGAIN = RequestSpec(RetryOptions, JSON, optional=True, headers=CONDITIONS)
FILE = RequestSpec(None, BYTES)
SUBSCRIPTION = RequestSpec(Subscription, JSON)
REDELIVERY = RequestSpec(Redelivery, JSON)
PAGE = RequestSpec(query=JobsQuery)
A_PAGE = RequestSpec(query=ListQuery)
NEWER = RequestSpec(query=JobQuery, headers=(*CONDITIONS, "Prefer"))
AFTER = RequestSpec(query=EventsQuery)
AFTER_OF_ALL = RequestSpec(query=AllEventsQuery)
CLAIM = RequestSpec(reported.Claim, JSON)
COMPLETIONS = RequestSpec(reported.Completions, JSON)
PART = RequestSpec(headers=("Range", *CONDITIONS))

# --- what routes give

JOB = ResponseSpec(200, "the job", job_schemas.Job, JSON, ("ETag",))
NOW = ResponseSpec(
    200, "the job", job_schemas.Job, JSON, ("ETag", "Preference-Applied"), streams=True
)
KNOWN = ResponseSpec(304, "it is as you know it", headers=("ETag",))
NEW = ResponseSpec(
    202, "it is in the log", job_schemas.Job, JSON, ("Location", "Retry-After", "ETag")
)
BEFORE = ResponseSpec(200, "it was submitted before", job_schemas.Job, JSON, ("Location", "ETag"))
OUTCOMES = ResponseSpec(200, "an outcome for each line", submission.BatchOutcome, batch.NDJSON)
JOBS = ResponseSpec(200, "a page of jobs", job_schemas.JobPage, JSON, ("Link",), streams=True)
COUNTS = ResponseSpec(200, "jobs by type and status", health_schemas.Counts, JSON)
BREAKERS = ResponseSpec(200, "circuit breakers, by name", health_schemas.Breakers, JSON, ("Link",))
STOPPING = ResponseSpec(202, "it runs, and was asked to stop", job_schemas.Job, JSON, ("ETag",))
TAKEN = ResponseSpec(200, "it is in the log, perhaps since before", workers.CallbackResponse, JSON)
HIDDEN = ResponseSpec(204, "it is hidden")
FACTS = ResponseSpec(200, "facts, oldest first", event_schemas.EventPage, JSON, streams=True)
SCHEDULES = ResponseSpec(200, "the recurring jobs", flow_shapes.Schedules, JSON, ("Link",))
SCHEDULE = ResponseSpec(200, "the schedule", flow_shapes.Schedule, JSON)
LINES_OF_LOG = ResponseSpec(200, "lines, oldest first", event_schemas.EventPage, JSON, streams=True)
RECEIPT = ResponseSpec(200, "its attempts, a line each", past.Receipt, JSON)
HISTORY = ResponseSpec(200, "its history", past.History, JSON)
CLAIMED = ResponseSpec(200, "jobs, which now are the worker's", workers.Claimed, JSON)
HEARD = ResponseSpec(200, "it is in the log", workers.HeartbeatResponse, JSON)
ENDED = ResponseSpec(200, "the attempt is over", workers.Ended, JSON)
COMPLETED = ResponseSpec(200, "an outcome for each", workers.CompletedJobs, JSON)
WHY = ResponseSpec(200, "the reasons", flow_shapes.Explanation, JSON)
STORED = ResponseSpec(201, "it is here", artifacts.UploadedFile, JSON)
WHOLE = ResponseSpec(200, "the file", None, BYTES, ("ETag",))
SOME = ResponseSpec(206, "a part of the file", None, BYTES, ("ETag", "Content-Range"))
SUBSCRIBED = ResponseSpec(
    201, "it is told from now on", webhook_schemas.NewWebhook, JSON, ("Location",)
)
WEBHOOKS = ResponseSpec(200, "all of them", webhook_schemas.WebhookList, JSON, ("Link",))
WEBHOOK = ResponseSpec(200, "the webhook", webhook_schemas.Webhook, JSON)
UNSUBSCRIBED = ResponseSpec(204, "it is told nothing more")
SENT_AGAIN = ResponseSpec(202, "they are on their way", webhook_schemas.Redelivered, JSON)
TYPES = ResponseSpec(200, "all of them", flow_shapes.TypeList, JSON, ("Link",))
TYPE = ResponseSpec(200, "the type", flow_shapes.Type, JSON)
QUEUES = ResponseSpec(200, "all of them", flow_shapes.QueueList, JSON, ("Link",))
QUEUE = ResponseSpec(200, "the queue", flow_shapes.Queue, JSON)
REBUILT = ResponseSpec(200, "the new views are in place", health_schemas.RebuildResult, JSON)
ALIVE = ResponseSpec(200, "it lives", health_schemas.Health, JSON)
READY = ResponseSpec(200, "it serves", health_schemas.Readiness, JSON)
DOCUMENT = ResponseSpec(200, "OpenAPI 3.1", None, JSON)
PAGE_OF_HTML = ResponseSpec(200, "the dashboard", None, "text/html")
SCRIPT = ResponseSpec(200, "its script", None, "text/javascript")
STYLE = ResponseSpec(200, "its style", None, "text/css")


async def openapi(site: AppContext, request: web.Request) -> web.StreamResponse:
    """This document."""
    return web.Response(body=document(ROUTES, site.service.handlers), headers=responses.JSON)


def _told(
    name: str,
    handler: Endpoint,
    body: type[BaseModel],
    answer: ResponseSpec = HEARD,
    *errors: type[EventjobsError],
) -> Route:
    """What an attempt elsewhere tells."""
    path = f"/v1/work/{{id}}/{{attempt}}/{name}"
    return Route("POST", path, handler, RequestSpec(body, JSON), (answer, StaleAttempt, *errors))


#: Everything there is. What any route may answer besides is in openapi.py.
ROUTES = (
    Route("GET", "/v1/jobs/{id}", jobs.get, NEWER, (NOW, KNOWN), jobs.get_at_once),
    Route("GET", "/v1/jobs", jobs.jobs, PAGE, (JOBS, BadCursor)),
    Route("POST", "/v1/jobs", jobs.submit, SUBMISSION, (NEW, BEFORE, IdempotencyKeyReused)),
    Route("PUT", "/v1/jobs/{id}", jobs.put, NAMED, (NEW, BEFORE, JobExists)),
    Route("POST", "/v1/jobs/batch", batch.submit_batch, LINES, (OUTCOMES,)),
    Route("POST", "/v1/jobs/{id}/cancel", jobs.cancel, STOP, (JOB, WrongState)),
    Route("POST", "/v1/jobs/{id}/retry", jobs.retry, AGAIN, (JOB, WrongState, UnknownStep)),
    Route("POST", "/v1/jobs/{id}/callback", report, REPORT, (TAKEN, BadToken, StaleAttempt)),
    Route("DELETE", "/v1/jobs/{id}", jobs.delete, GONE, (HIDDEN, STOPPING)),
    Route("GET", "/v1/jobs/{id}/events", events.job_events, AFTER, (FACTS, BadCursor)),
    Route("GET", "/v1/jobs/{id}/history", history.history, NOTHING, (HISTORY,)),
    Route("GET", "/v1/jobs/{id}/why", why.get, NOTHING, (WHY,)),
    Route("GET", "/v1/jobs/{id}/logs", events.logs, AFTER, (LINES_OF_LOG, BadCursor)),
    Route("GET", "/v1/jobs/{id}/receipt", history.receipt, NOTHING, (RECEIPT,)),
    Route("GET", "/v1/events", events.events, AFTER_OF_ALL, (FACTS, BadCursor)),
    Route("GET", "/v1/schedules", recurring.schedules, A_PAGE, (SCHEDULES, BadCursor)),
    Route(
        "POST", "/v1/schedules/{name}/pause", recurring.pause, REASON, (SCHEDULE, UnknownSchedule)
    ),
    Route(
        "POST", "/v1/schedules/{name}/resume", recurring.resume, REASON, (SCHEDULE, UnknownSchedule)
    ),
    Route("GET", "/v1/counts", health.counts, NOTHING, (COUNTS,)),
    Route("GET", "/v1/breakers", breakers.breakers, A_PAGE, (BREAKERS, BadCursor)),
    Route("POST", "/v1/artifacts", files.upload, FILE, (STORED,)),
    Route(
        "GET",
        "/v1/jobs/{id}/artifacts/{name}",
        files.download,
        PART,
        (WHOLE, SOME, KNOWN, ArtifactNotFound, RangeNotSatisfiable),
    ),
    Route("POST", "/v1/webhooks", webhooks.add, SUBSCRIPTION, (SUBSCRIBED, OutboundRefused)),
    Route("GET", "/v1/webhooks", webhooks.webhooks, A_PAGE, (WEBHOOKS, BadCursor)),
    Route(
        "GET", "/v1/webhooks/{webhook_id}", webhooks.webhook, NOTHING, (WEBHOOK, WebhookNotFound)
    ),
    Route(
        "DELETE",
        "/v1/webhooks/{webhook_id}",
        webhooks.remove,
        NOTHING,
        (UNSUBSCRIBED, WebhookNotFound),
    ),
    Route(
        "POST",
        "/v1/webhooks/{webhook_id}/redeliver",
        webhooks.redeliver,
        REDELIVERY,
        (SENT_AGAIN, WebhookNotFound),
    ),
    Route("POST", "/v1/work/claim", work.claim, CLAIM, (CLAIMED,)),
    Route("POST", "/v1/work/complete", work.complete_several, COMPLETIONS, (COMPLETED,)),
    _told("heartbeat", work.heartbeat, reported.WorkerReport),
    _told("progress", work.progress, reported.Progress),
    _told("log", work.log, reported.LogReport),
    _told("step", work.step, reported.StepReport),
    _told("artifact", work.artifact, reported.ArtifactReport),
    _told("breaker", work.breaker, reported.BreakerReport),
    _told("complete", work.complete, reported.Completion, ENDED),
    _told("fail", work.fail, reported.Failure, ENDED),
    _told("cancelled", work.cancelled, reported.WorkerReport, ENDED, WrongState),
    _told("release", work.release, reported.Release, ENDED),
    Route("GET", "/v1/types", flow.types, A_PAGE, (TYPES, BadCursor)),
    Route("POST", "/v1/types/{type}/pause", flow.pause_type, REASON, (TYPE, UnknownType)),
    Route("POST", "/v1/types/{type}/resume", flow.resume_type, REASON, (TYPE, UnknownType)),
    Route("GET", "/v1/queues", flow.queues, A_PAGE, (QUEUES, BadCursor)),
    Route("POST", "/v1/queues/{queue}/pause", flow.pause_queue, REASON, (QUEUE,)),
    Route("POST", "/v1/queues/{queue}/resume", flow.resume_queue, REASON, (QUEUE,)),
    Route("POST", "/v1/views/rebuild", health.rebuild, NOTHING, (REBUILT,)),
    Route("GET", "/healthz", health.healthz, NOTHING, (ALIVE,)),
    Route("GET", "/readyz", health.readyz, NOTHING, (READY, NotReady)),
    Route("GET", "/openapi.json", openapi, NOTHING, (DOCUMENT,)),
    Route("GET", "/", pages.page, NOTHING, (PAGE_OF_HTML,)),
    Route("GET", "/dashboard.js", pages.page, NOTHING, (SCRIPT,)),
    Route("GET", "/dashboard.css", pages.page, NOTHING, (STYLE,)),
)
