"""Every route: method, path, endpoint, request and responses."""

from aiohttp import web
from pydantic import BaseModel

from eventjobs.auth.policy import Action
from eventjobs.commands.api_keys import NewKey
from eventjobs.commands.jobs import CommandReason, RetryOptions
from eventjobs.domain.validation import Redelivery, Subscription
from eventjobs.errors import (
    EventjobsError,
    IdempotencyKeyReused,
    InvalidCredential,
    JobExists,
    KeyNotFound,
    LimitReached,
    OutboundRefused,
    OwnerBytesLimit,
    StaleAttempt,
    UnknownSchedule,
    UnknownStep,
    UnknownType,
    WebhookNotFound,
    WrongState,
)
from eventjobs.http.app_context import AppContext
from eventjobs.http.dialects.registry import routes_of
from eventjobs.http.dialects.seed_003 import CASE_ROUTES
from eventjobs.http.endpoints import (
    artifacts,
    batch,
    breakers,
    callbacks,
    claims,
    dashboard,
    events,
    explanation,
    health,
    history,
    jobs,
    keys,
    queues,
    reports,
    schedules,
    sessions,
    submissions,
    webhooks,
)
from eventjobs.http.lists import ListQuery
from eventjobs.http.openapi import document
from eventjobs.http.rate_limits import RequestKind
from eventjobs.http.request_errors import (
    ArtifactMasked,
    ArtifactNotFound,
    AuthenticationOff,
    BadCursor,
    BadToken,
    NotReady,
    RangeNotSatisfiable,
)
from eventjobs.http.responses import JSON_HEADERS
from eventjobs.http.routing import Endpoint, RequestSpec, ResponseSpec, Route
from eventjobs.http.schemas.artifacts import UploadedFile
from eventjobs.http.schemas.callbacks import Callback
from eventjobs.http.schemas.claims import Claim, Claimed
from eventjobs.http.schemas.events import EventPage
from eventjobs.http.schemas.explanation import Explanation
from eventjobs.http.schemas.health import Breakers, Counts, Health, Readiness, RebuildResult
from eventjobs.http.schemas.history import History, Receipt
from eventjobs.http.schemas.jobs import Job, JobPage
from eventjobs.http.schemas.keys import CreatedKey, KeyList
from eventjobs.http.schemas.queries import AllEventsQuery, EventsQuery, JobQuery, JobsQuery
from eventjobs.http.schemas.queues import Queue, QueueList, Type, TypeList
from eventjobs.http.schemas.reports import (
    ArtifactReport,
    BreakerReport,
    CallbackResponse,
    CompletedJobs,
    Completion,
    Completions,
    Ended,
    Failure,
    HeartbeatResponse,
    LogReport,
    ProgressByWorker,
    Release,
    StepReport,
    WorkerReport,
)
from eventjobs.http.schemas.schedules import Schedule, Schedules
from eventjobs.http.schemas.sessions import Login, Session
from eventjobs.http.schemas.submission import BatchLine, BatchOutcome, Submission
from eventjobs.http.schemas.webhooks import NewWebhook, Redelivered, Webhook, WebhookList
from eventjobs.worker.wire import CHILD_HEADER

JSON = "application/json"
BYTES = "application/octet-stream"
#: A file is sent with its own type, if that is a safe one.
ANY_TYPE = "*/*"

# --- requests

NOTHING = RequestSpec()
CONDITIONS = ("If-Match", "If-None-Match")
DELETE = RequestSpec(headers=CONDITIONS)
SUBMISSION = RequestSpec(Submission, JSON, headers=("Idempotency-Key",))
SUBMISSION_WITH_ID = RequestSpec(Submission, JSON, headers=(*CONDITIONS, CHILD_HEADER))
LINES = RequestSpec(BatchLine, batch.NDJSON)
REASON = RequestSpec(CommandReason, JSON, optional=True)
CANCEL = RequestSpec(CommandReason, JSON, optional=True, headers=CONDITIONS)
REPORT = RequestSpec(Callback, JSON, headers=("Authorization",))
RETRY = RequestSpec(RetryOptions, JSON, optional=True, headers=CONDITIONS)
FILE = RequestSpec(None, BYTES, optional=True)
SUBSCRIPTION = RequestSpec(Subscription, JSON)
REDELIVERY = RequestSpec(Redelivery, JSON)
NEW_KEY = RequestSpec(NewKey, JSON)
JOBS_PAGE = RequestSpec(query=JobsQuery)
LIST_PAGE = RequestSpec(query=ListQuery)
JOB_VERSION = RequestSpec(query=JobQuery, headers=(*CONDITIONS, "Prefer"))
EVENTS_PAGE = RequestSpec(query=EventsQuery)
ALL_EVENTS_PAGE = RequestSpec(query=AllEventsQuery)
LOGIN = RequestSpec(Login, JSON)
CLAIM = RequestSpec(Claim, JSON)
COMPLETIONS = RequestSpec(Completions, JSON)
FILE_RANGE = RequestSpec(headers=("Range", *CONDITIONS))

# --- responses

JOB = ResponseSpec(200, "the job", Job, JSON, ("ETag",))
CURRENT_JOB = ResponseSpec(200, "the job", Job, JSON, ("ETag", "Preference-Applied"), streams=True)
NOT_MODIFIED = ResponseSpec(304, "the client has this version", headers=("ETag",))
SUBMITTED = ResponseSpec(
    202, "the job is in the log", Job, JSON, ("Location", "Retry-After", "ETag")
)
ALREADY_SUBMITTED = ResponseSpec(
    200, "the job was submitted before", Job, JSON, ("Location", "ETag")
)
OUTCOMES = ResponseSpec(200, "an outcome for each line", BatchOutcome, batch.NDJSON)
JOBS = ResponseSpec(200, "a page of jobs", JobPage, JSON, ("Link",), streams=True)
COUNTS = ResponseSpec(200, "jobs by type and status", Counts, JSON)
BREAKERS = ResponseSpec(200, "circuit breakers, by name", Breakers, JSON, ("Link",))
STOPPING = ResponseSpec(
    202, "the job runs, and its cancellation was requested", Job, JSON, ("ETag",)
)
REPORTED = ResponseSpec(
    200, "the report is in the log, perhaps since an earlier request", CallbackResponse, JSON
)
HIDDEN = ResponseSpec(204, "the job is hidden")
EVENTS = ResponseSpec(200, "events, oldest first", EventPage, JSON, streams=True)
SCHEDULES = ResponseSpec(200, "the recurring jobs", Schedules, JSON, ("Link",))
SCHEDULE = ResponseSpec(200, "the schedule", Schedule, JSON)
LOG_LINES = ResponseSpec(200, "log lines, oldest first", EventPage, JSON, streams=True)
RECEIPT = ResponseSpec(200, "the job's attempts, a line each", Receipt, JSON)
HISTORY = ResponseSpec(200, "the job's history", History, JSON)
CLAIMED = ResponseSpec(200, "the claimed jobs", Claimed, JSON)
RECORDED = ResponseSpec(200, "the report is in the log", HeartbeatResponse, JSON)
ENDED = ResponseSpec(200, "the attempt has ended", Ended, JSON)
COMPLETED = ResponseSpec(200, "an outcome for each report", CompletedJobs, JSON)
WHY = ResponseSpec(200, "the reasons", Explanation, JSON)
STORED = ResponseSpec(201, "the file is stored", UploadedFile, JSON)
WHOLE_FILE = ResponseSpec(200, "the file", None, ANY_TYPE, ("ETag",))
PARTIAL_FILE = ResponseSpec(206, "a range of the file", None, ANY_TYPE, ("ETag", "Content-Range"))
FILE_RESPONSES = (WHOLE_FILE, PARTIAL_FILE, NOT_MODIFIED)
SUBSCRIBED = ResponseSpec(201, "events are sent to it from now on", NewWebhook, JSON, ("Location",))
WEBHOOKS = ResponseSpec(200, "a page of webhooks", WebhookList, JSON, ("Link",))
WEBHOOK = ResponseSpec(200, "the webhook", Webhook, JSON)
UNSUBSCRIBED = ResponseSpec(204, "nothing more is sent to it")
REDELIVERED = ResponseSpec(202, "the deliveries are queued", Redelivered, JSON)
KEY_CREATED = ResponseSpec(201, "the key, this once", CreatedKey, JSON)
KEYS = ResponseSpec(200, "a page of API keys", KeyList, JSON, ("Link",))
REVOKED = ResponseSpec(204, "the key is refused from now on")
TYPES = ResponseSpec(200, "a page of types", TypeList, JSON, ("Link",))
TYPE = ResponseSpec(200, "the type", Type, JSON)
QUEUES = ResponseSpec(200, "a page of queues", QueueList, JSON, ("Link",))
QUEUE = ResponseSpec(200, "the queue", Queue, JSON)
LOGGED_IN = ResponseSpec(201, "the session has begun", Session, JSON, ("Set-Cookie",))
SESSION = ResponseSpec(200, "the principal", Session, JSON)
LOGGED_OUT = ResponseSpec(204, "the session has ended", headers=("Set-Cookie",))
REBUILT = ResponseSpec(200, "the new views are in place", RebuildResult, JSON)
ALIVE = ResponseSpec(200, "the process lives", Health, JSON)
READY = ResponseSpec(200, "the service serves", Readiness, JSON)
DOCUMENT = ResponseSpec(200, "OpenAPI 3.1", None, JSON)
HTML = ResponseSpec(200, "the page", None, "text/html")
SCRIPT = ResponseSpec(200, "the script of the page", None, "text/javascript")
STYLE = ResponseSpec(200, "the style of the pages", None, "text/css")


#: The routes of an application, which its document describes.
APP_ROUTES = web.AppKey("routes", tuple)


async def openapi(context: AppContext, request: web.Request) -> web.StreamResponse:
    """This document."""
    service = context.service
    body = document(request.app[APP_ROUTES], service.handlers, service.settings.auth)
    return web.Response(body=body, headers=JSON_HEADERS)


def all_routes(context: AppContext) -> tuple[Route, ...]:
    """The routes of the service, and those of the dialects that it serves."""
    return (
        *ROUTES,
        *routes_of(context.dialects, context.service.settings.domain_routes or CASE_ROUTES),
    )


def _report_route(
    name: str,
    endpoint: Endpoint,
    body: type[BaseModel],
    response: ResponseSpec = RECORDED,
    *errors: type[EventjobsError],
) -> Route:
    """The route of a report by a remote worker."""
    path = f"/v1/work/{{id}}/{{attempt}}/{name}"
    return Route(
        "POST",
        path,
        Action.WORK,
        endpoint,
        RequestSpec(body, JSON),
        (response, StaleAttempt, *errors),
    )


def _pause_route(
    path: str, endpoint: Endpoint, response: ResponseSpec, *errors: type[EventjobsError]
) -> Route:
    """The route that pauses or resumes jobs."""
    return Route("POST", path, Action.OPERATE, endpoint, REASON, (response, *errors))


#: All routes. The errors that follow from method, path and request are added in openapi.py.
ROUTES = (
    Route(
        "GET",
        "/v1/jobs/{id}",
        Action.READ,
        jobs.get,
        JOB_VERSION,
        (CURRENT_JOB, NOT_MODIFIED),
        jobs.get_cached,
    ),
    Route("GET", "/v1/jobs", Action.READ, jobs.jobs, JOBS_PAGE, (JOBS, BadCursor)),
    Route(
        "POST",
        "/v1/jobs",
        Action.SUBMIT,
        submissions.submit,
        SUBMISSION,
        (SUBMITTED, ALREADY_SUBMITTED, IdempotencyKeyReused),
    ),
    Route(
        "PUT",
        "/v1/jobs/{id}",
        Action.SUPPLY,
        submissions.put,
        SUBMISSION_WITH_ID,
        (SUBMITTED, ALREADY_SUBMITTED, JobExists, StaleAttempt),
    ),
    Route("POST", "/v1/jobs/batch", Action.SUBMIT, batch.submit_batch, LINES, (OUTCOMES,)),
    Route("POST", "/v1/jobs/{id}/cancel", Action.CONTROL, jobs.cancel, CANCEL, (JOB, WrongState)),
    Route(
        "POST",
        "/v1/jobs/{id}/retry",
        Action.CONTROL,
        jobs.retry,
        RETRY,
        (JOB, WrongState, UnknownStep),
    ),
    Route(
        "POST",
        "/v1/jobs/{id}/callback",
        None,
        callbacks.report,
        REPORT,
        (REPORTED, BadToken, StaleAttempt),
        kind=RequestKind.WORK,
    ),
    Route("DELETE", "/v1/jobs/{id}", Action.CONTROL, jobs.delete, DELETE, (HIDDEN, STOPPING)),
    Route(
        "GET",
        "/v1/jobs/{id}/events",
        Action.READ,
        events.job_events,
        EVENTS_PAGE,
        (EVENTS, BadCursor),
    ),
    Route("GET", "/v1/jobs/{id}/history", Action.READ, history.history, NOTHING, (HISTORY,)),
    Route("GET", "/v1/jobs/{id}/why", Action.READ, explanation.get, NOTHING, (WHY,)),
    Route(
        "GET", "/v1/jobs/{id}/logs", Action.READ, events.logs, EVENTS_PAGE, (LOG_LINES, BadCursor)
    ),
    Route("GET", "/v1/jobs/{id}/receipt", Action.READ, history.receipt, NOTHING, (RECEIPT,)),
    Route("GET", "/v1/events", Action.READ, events.events, ALL_EVENTS_PAGE, (EVENTS, BadCursor)),
    Route(
        "GET",
        "/v1/schedules",
        Action.INSPECT,
        schedules.schedules,
        LIST_PAGE,
        (SCHEDULES, BadCursor),
    ),
    _pause_route("/v1/schedules/{name}/pause", schedules.pause, SCHEDULE, UnknownSchedule),
    _pause_route("/v1/schedules/{name}/resume", schedules.resume, SCHEDULE, UnknownSchedule),
    Route("GET", "/v1/counts", Action.LIST, health.counts, NOTHING, (COUNTS,)),
    Route(
        "GET", "/v1/breakers", Action.INSPECT, breakers.breakers, LIST_PAGE, (BREAKERS, BadCursor)
    ),
    Route(
        "POST", "/v1/artifacts", Action.SUPPLY, artifacts.upload, FILE, (STORED, OwnerBytesLimit)
    ),
    Route(
        "GET",
        "/v1/jobs/{id}/artifacts/{name}",
        Action.READ,
        artifacts.download,
        FILE_RANGE,
        (*FILE_RESPONSES, ArtifactMasked, ArtifactNotFound, RangeNotSatisfiable),
    ),
    Route(
        "POST",
        "/v1/webhooks",
        Action.SUBSCRIBE,
        webhooks.add,
        SUBSCRIPTION,
        (SUBSCRIBED, OutboundRefused),
    ),
    Route("GET", "/v1/webhooks", Action.LIST, webhooks.webhooks, LIST_PAGE, (WEBHOOKS, BadCursor)),
    Route(
        "GET",
        "/v1/webhooks/{webhook_id}",
        Action.LIST,
        webhooks.webhook,
        NOTHING,
        (WEBHOOK, WebhookNotFound),
    ),
    Route(
        "DELETE",
        "/v1/webhooks/{webhook_id}",
        Action.SUBSCRIBE,
        webhooks.remove,
        NOTHING,
        (UNSUBSCRIBED, WebhookNotFound),
    ),
    Route(
        "POST",
        "/v1/webhooks/{webhook_id}/redeliver",
        Action.SUBSCRIBE,
        webhooks.redeliver,
        REDELIVERY,
        (REDELIVERED, WebhookNotFound),
    ),
    Route("POST", "/v1/work/claim", Action.WORK, claims.claim, CLAIM, (CLAIMED,)),
    Route(
        "POST",
        "/v1/work/complete",
        Action.WORK,
        reports.complete_several,
        COMPLETIONS,
        (COMPLETED,),
    ),
    _report_route("heartbeat", reports.heartbeat, WorkerReport),
    _report_route("progress", reports.progress, ProgressByWorker),
    _report_route("log", reports.log, LogReport),
    _report_route("step", reports.step, StepReport),
    _report_route("artifact", reports.artifact, ArtifactReport),
    _report_route("breaker", reports.breaker, BreakerReport),
    _report_route("complete", reports.complete, Completion, ENDED),
    _report_route("fail", reports.fail, Failure, ENDED),
    _report_route("cancelled", reports.confirm_stop, WorkerReport, ENDED, WrongState),
    _report_route("release", reports.release, Release, ENDED),
    Route("POST", "/v1/keys", Action.OPERATE, keys.create, NEW_KEY, (KEY_CREATED, LimitReached)),
    Route("GET", "/v1/keys", Action.INSPECT, keys.keys, LIST_PAGE, (KEYS, BadCursor)),
    Route(
        "DELETE",
        "/v1/keys/{key_id}",
        Action.OPERATE,
        keys.revoke,
        NOTHING,
        (REVOKED, KeyNotFound),
    ),
    Route("GET", "/v1/types", Action.INSPECT, queues.types, LIST_PAGE, (TYPES, BadCursor)),
    _pause_route("/v1/types/{type}/pause", queues.pause_type, TYPE, UnknownType),
    _pause_route("/v1/types/{type}/resume", queues.resume_type, TYPE, UnknownType),
    Route("GET", "/v1/queues", Action.INSPECT, queues.queues, LIST_PAGE, (QUEUES, BadCursor)),
    _pause_route("/v1/queues/{queue}/pause", queues.pause_queue, QUEUE),
    _pause_route("/v1/queues/{queue}/resume", queues.resume_queue, QUEUE),
    Route("POST", "/v1/views/rebuild", Action.OPERATE, health.rebuild, NOTHING, (REBUILT,)),
    Route(
        "POST",
        "/v1/session",
        None,
        sessions.begin,
        LOGIN,
        (LOGGED_IN, AuthenticationOff, InvalidCredential),
    ),
    Route("GET", "/v1/session", Action.IDENTIFY, sessions.current, NOTHING, (SESSION,)),
    Route("DELETE", "/v1/session", None, sessions.end, NOTHING, (LOGGED_OUT,)),
    Route("GET", "/healthz", None, health.healthz, NOTHING, (ALIVE,), kind=None),
    Route("GET", "/readyz", None, health.readyz, NOTHING, (READY, NotReady), kind=None),
    Route("GET", "/openapi.json", Action.READ, openapi, NOTHING, (DOCUMENT,)),
    Route("GET", "/", None, dashboard.page, NOTHING, (HTML,)),
    Route("GET", "/login", None, dashboard.page, NOTHING, (HTML,)),
    Route("GET", "/login.js", None, dashboard.page, NOTHING, (SCRIPT,)),
    Route("GET", "/dashboard.js", None, dashboard.page, NOTHING, (SCRIPT,)),
    Route("GET", "/dashboard.css", None, dashboard.page, NOTHING, (STYLE,)),
)
