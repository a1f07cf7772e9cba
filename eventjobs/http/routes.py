"""Every route: method, path, action, endpoint, request and responses."""

from aiohttp import web
from pydantic import BaseModel

from eventjobs.auth.policy import Action
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
from eventjobs.http.route_specs import (
    ALIVE,
    ALL_EVENTS_PAGE,
    ALREADY_SUBMITTED,
    BREAKERS,
    CANCEL,
    CLAIM,
    CLAIMED,
    COMPLETED,
    COMPLETIONS,
    COUNTS,
    CURRENT_JOB,
    DELETE,
    DOCUMENT,
    ENDED,
    EVENTS,
    EVENTS_PAGE,
    FILE,
    FILE_RANGE,
    FILE_RESPONSES,
    HIDDEN,
    HISTORY,
    HTML,
    JOB,
    JOB_VERSION,
    JOBS,
    JOBS_PAGE,
    JSON,
    KEY_CREATED,
    KEYS,
    LINES,
    LIST_PAGE,
    LOG_LINES,
    LOGGED_IN,
    LOGGED_OUT,
    LOGIN,
    NEW_KEY,
    NOT_MODIFIED,
    NOTHING,
    OUTCOMES,
    QUEUE,
    QUEUES,
    READY,
    REASON,
    REBUILT,
    RECEIPT,
    RECORDED,
    REDELIVERED,
    REDELIVERY,
    REPORT,
    REPORTED,
    RETRY,
    REVOKED,
    SCHEDULE,
    SCHEDULES,
    SCRIPT,
    SESSION,
    STOPPING,
    STORED,
    STYLE,
    SUBMISSION,
    SUBMISSION_WITH_ID,
    SUBMITTED,
    SUBSCRIBED,
    SUBSCRIPTION,
    TYPE,
    TYPES,
    UNSUBSCRIBED,
    WEBHOOK,
    WEBHOOKS,
    WHY,
)
from eventjobs.http.routing import Endpoint, RequestSpec, ResponseSpec, Route
from eventjobs.http.schemas.reports import (
    ArtifactReport,
    BreakerReport,
    Completion,
    Failure,
    LogReport,
    ProgressByWorker,
    Release,
    StepReport,
    WorkerReport,
)

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
    Route("GET", "/poll.js", None, dashboard.page, NOTHING, (SCRIPT,)),
)
