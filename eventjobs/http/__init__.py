"""The service over HTTP: every route there is, and the application made of them."""

from aiohttp import web
from pydantic import BaseModel

from eventjobs.errors import (
    EventjobsError,
    JobExists,
    KeyReused,
    OutboundRefused,
    StaleAttempt,
    UnknownSchedule,
    UnknownStep,
    UnknownType,
    WebhookNotFound,
    WrongState,
)
from eventjobs.http import (
    api,
    batch,
    breakers,
    callback,
    facts,
    files,
    flow,
    flow_shapes,
    pages,
    past,
    problem,
    reported,
    shapes,
    webhooks,
    why,
    work,
)
from eventjobs.http import schedules as recurring
from eventjobs.http.listening import Listening, check_loopback, listen
from eventjobs.http.lists import ListQuery
from eventjobs.http.openapi import document
from eventjobs.http.polls import Polls
from eventjobs.http.problem import (
    ArtifactNotFound,
    BadCursor,
    BadToken,
    NotReady,
    RangeNotSatisfiable,
)
from eventjobs.http.query import AllEventsQuery, EventsQuery, JobQuery, JobsQuery
from eventjobs.http.route import (
    SITE,
    Answer,
    Handler,
    RequestIds,
    Route,
    Site,
    Takes,
    sign,
    surrounded,
)
from eventjobs.http.snapshot import Snapshots
from eventjobs.http.stream import Streams
from eventjobs.http.submission import Line, Submission
from eventjobs.http.takers import Takers
from eventjobs.jobs import Again, Why
from eventjobs.service import Service
from eventjobs.values import Redelivery, Subscription

__all__ = ["ROUTES", "Listening", "check_loopback", "create_app", "serve"]

JSON = "application/json"
BYTES = "application/octet-stream"

# --- what routes take

NOTHING = Takes()
CONDITIONS = ("If-Match", "If-None-Match")
GONE = Takes(headers=CONDITIONS)
SUBMISSION = Takes(Submission, JSON, headers=("Idempotency-Key",))
NAMED = Takes(Submission, JSON, headers=CONDITIONS)
LINES = Takes(Line, batch.NDJSON)
REASON = Takes(Why, JSON, optional=True)
STOP = Takes(Why, JSON, optional=True, headers=CONDITIONS)
REPORT = Takes(callback.Callback, JSON, headers=("Authorization",))
AGAIN = Takes(Again, JSON, optional=True, headers=CONDITIONS)
FILE = Takes(None, BYTES)
SUBSCRIPTION = Takes(Subscription, JSON)
REDELIVERY = Takes(Redelivery, JSON)
PAGE = Takes(query=JobsQuery)
A_PAGE = Takes(query=ListQuery)
NEWER = Takes(query=JobQuery, headers=(*CONDITIONS, "Prefer"))
AFTER = Takes(query=EventsQuery)
AFTER_OF_ALL = Takes(query=AllEventsQuery)
CLAIM = Takes(reported.Claim, JSON)
COMPLETIONS = Takes(reported.Completions, JSON)
PART = Takes(headers=("Range", *CONDITIONS))

# --- what routes give

JOB = Answer(200, "the job", shapes.Job, JSON, ("ETag",))
NOW = Answer(200, "the job", shapes.Job, JSON, ("ETag", "Preference-Applied"), streams=True)
KNOWN = Answer(304, "it is as you know it", headers=("ETag",))
NEW = Answer(202, "it is in the log", shapes.Job, JSON, ("Location", "Retry-After", "ETag"))
BEFORE = Answer(200, "it was submitted before", shapes.Job, JSON, ("Location", "ETag"))
OUTCOMES = Answer(200, "an outcome for each line", shapes.BatchOutcome, batch.NDJSON)
JOBS = Answer(200, "a page of jobs", shapes.JobPage, JSON, ("Link",), streams=True)
COUNTS = Answer(200, "jobs by type and status", shapes.Counts, JSON)
BREAKERS = Answer(200, "circuit breakers, by name", shapes.Breakers, JSON, ("Link",))
STOPPING = Answer(202, "it runs, and was asked to stop", shapes.Job, JSON, ("ETag",))
TAKEN = Answer(200, "it is in the log, perhaps since before", shapes.Taken, JSON)
HIDDEN = Answer(204, "it is hidden")
FACTS = Answer(200, "facts, oldest first", shapes.EventPage, JSON, streams=True)
SCHEDULES = Answer(200, "the recurring jobs", flow_shapes.Schedules, JSON, ("Link",))
SCHEDULE = Answer(200, "the schedule", flow_shapes.Schedule, JSON)
LINES_OF_LOG = Answer(200, "lines, oldest first", shapes.EventPage, JSON, streams=True)
RECEIPT = Answer(200, "its attempts, a line each", past.Receipt, JSON)
HISTORY = Answer(200, "its history", past.History, JSON)
CLAIMED = Answer(200, "jobs, which now are the worker's", shapes.Claimed, JSON)
HEARD = Answer(200, "it is in the log", shapes.Heard, JSON)
ENDED = Answer(200, "the attempt is over", shapes.Ended, JSON)
COMPLETED = Answer(200, "an outcome for each", shapes.CompletedJobs, JSON)
WHY = Answer(200, "the reasons", flow_shapes.Explanation, JSON)
STORED = Answer(201, "it is here", shapes.Stored, JSON)
WHOLE = Answer(200, "the file", None, BYTES, ("ETag",))
SOME = Answer(206, "a part of the file", None, BYTES, ("ETag", "Content-Range"))
SUBSCRIBED = Answer(201, "it is told from now on", shapes.NewWebhook, JSON, ("Location",))
WEBHOOKS = Answer(200, "all of them", shapes.WebhookList, JSON, ("Link",))
WEBHOOK = Answer(200, "the webhook", shapes.Webhook, JSON)
UNSUBSCRIBED = Answer(204, "it is told nothing more")
SENT_AGAIN = Answer(202, "they are on their way", shapes.Redelivered, JSON)
TYPES = Answer(200, "all of them", flow_shapes.TypeList, JSON, ("Link",))
TYPE = Answer(200, "the type", flow_shapes.Type, JSON)
QUEUES = Answer(200, "all of them", flow_shapes.QueueList, JSON, ("Link",))
QUEUE = Answer(200, "the queue", flow_shapes.Queue, JSON)
REBUILT = Answer(200, "the new views are in place", shapes.Rebuilt, JSON)
ALIVE = Answer(200, "it lives", shapes.Health, JSON)
READY = Answer(200, "it serves", shapes.Readiness, JSON)
DOCUMENT = Answer(200, "OpenAPI 3.1", None, JSON)
PAGE_OF_HTML = Answer(200, "the dashboard", None, "text/html")
SCRIPT = Answer(200, "its script", None, "text/javascript")
STYLE = Answer(200, "its style", None, "text/css")


async def openapi(site: Site, request: web.Request) -> web.StreamResponse:
    """This document."""
    return web.Response(body=document(ROUTES, site.service.handlers), headers=api.JSON)


def _told(
    name: str,
    handler: Handler,
    body: type[BaseModel],
    answer: Answer = HEARD,
    *errors: type[EventjobsError],
) -> Route:
    """What an attempt elsewhere tells."""
    path = f"/v1/work/{{id}}/{{attempt}}/{name}"
    return Route("POST", path, handler, Takes(body, JSON), (answer, StaleAttempt, *errors))


#: Everything there is. What any route may answer besides is in openapi.py.
ROUTES = (
    Route("GET", "/v1/jobs/{id}", api.get, NEWER, (NOW, KNOWN), api.get_at_once),
    Route("GET", "/v1/jobs", api.jobs, PAGE, (JOBS, BadCursor)),
    Route("POST", "/v1/jobs", api.submit, SUBMISSION, (NEW, BEFORE, KeyReused)),
    Route("PUT", "/v1/jobs/{id}", api.put, NAMED, (NEW, BEFORE, JobExists)),
    Route("POST", "/v1/jobs/batch", batch.submit_batch, LINES, (OUTCOMES,)),
    Route("POST", "/v1/jobs/{id}/cancel", api.cancel, STOP, (JOB, WrongState)),
    Route("POST", "/v1/jobs/{id}/retry", api.retry, AGAIN, (JOB, WrongState, UnknownStep)),
    Route(
        "POST", "/v1/jobs/{id}/callback", callback.report, REPORT, (TAKEN, BadToken, StaleAttempt)
    ),
    Route("DELETE", "/v1/jobs/{id}", api.delete, GONE, (HIDDEN, STOPPING)),
    Route("GET", "/v1/jobs/{id}/events", facts.job_events, AFTER, (FACTS, BadCursor)),
    Route("GET", "/v1/jobs/{id}/history", facts.history, NOTHING, (HISTORY,)),
    Route("GET", "/v1/jobs/{id}/why", why.get, NOTHING, (WHY,)),
    Route("GET", "/v1/jobs/{id}/logs", facts.logs, AFTER, (LINES_OF_LOG, BadCursor)),
    Route("GET", "/v1/jobs/{id}/receipt", facts.receipt, NOTHING, (RECEIPT,)),
    Route("GET", "/v1/events", facts.events, AFTER_OF_ALL, (FACTS, BadCursor)),
    Route("GET", "/v1/schedules", recurring.schedules, A_PAGE, (SCHEDULES, BadCursor)),
    Route(
        "POST", "/v1/schedules/{name}/pause", recurring.pause, REASON, (SCHEDULE, UnknownSchedule)
    ),
    Route(
        "POST", "/v1/schedules/{name}/resume", recurring.resume, REASON, (SCHEDULE, UnknownSchedule)
    ),
    Route("GET", "/v1/counts", api.counts, NOTHING, (COUNTS,)),
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
    _told("heartbeat", work.heartbeat, reported.ByWorker),
    _told("progress", work.progress, reported.Progress),
    _told("log", work.log, reported.LogReport),
    _told("step", work.step, reported.StepReport),
    _told("artifact", work.artifact, reported.ArtifactReport),
    _told("breaker", work.breaker, reported.BreakerReport),
    _told("complete", work.complete, reported.Completion, ENDED),
    _told("fail", work.fail, reported.Failure, ENDED),
    _told("cancelled", work.cancelled, reported.ByWorker, ENDED, WrongState),
    _told("release", work.release, reported.Release, ENDED),
    Route("GET", "/v1/types", flow.types, A_PAGE, (TYPES, BadCursor)),
    Route("POST", "/v1/types/{type}/pause", flow.pause_type, REASON, (TYPE, UnknownType)),
    Route("POST", "/v1/types/{type}/resume", flow.resume_type, REASON, (TYPE, UnknownType)),
    Route("GET", "/v1/queues", flow.queues, A_PAGE, (QUEUES, BadCursor)),
    Route("POST", "/v1/queues/{queue}/pause", flow.pause_queue, REASON, (QUEUE,)),
    Route("POST", "/v1/queues/{queue}/resume", flow.resume_queue, REASON, (QUEUE,)),
    Route("POST", "/v1/views/rebuild", api.rebuild, NOTHING, (REBUILT,)),
    Route("GET", "/healthz", api.healthz, NOTHING, (ALIVE,)),
    Route("GET", "/readyz", api.readyz, NOTHING, (READY, NotReady)),
    Route("GET", "/openapi.json", openapi, NOTHING, (DOCUMENT,)),
    Route("GET", "/", pages.page, NOTHING, (PAGE_OF_HTML,)),
    Route("GET", "/dashboard.js", pages.page, NOTHING, (SCRIPT,)),
    Route("GET", "/dashboard.css", pages.page, NOTHING, (STYLE,)),
)


def create_app(service: Service) -> web.Application:
    """The application for a *service* that was started; whoever started it also closes it."""
    snapshots = Snapshots(service.views, service.settings.ttl_s)
    polls = Polls(service.log, service.clock, service.settings.wait_max_s)
    site = Site(
        service, snapshots, Streams(service, snapshots), polls, RequestIds(), Takers(service, polls)
    )
    app = web.Application(client_max_size=service.settings.body_bytes_max)
    app[SITE] = site
    for path in dict.fromkeys(each.path for each in ROUTES):
        resource = app.router.add_resource(path)
        for each in ROUTES:
            if each.path == path:
                handler = surrounded(
                    each.handler,
                    site,
                    each.quick,
                    varies=each.varies,
                    unconditional=each.unconditional,
                )
                resource.add_route(each.method, handler)
                if each.method == "GET":
                    resource.add_route("HEAD", handler)
        varies = any(each.varies for each in ROUTES if each.path == path)
        resource.add_route("*", surrounded(_unknown_method, site, varies=varies))
    app.router.add_route("*", "/{path:.*}", surrounded(_unknown_address, site))
    app.on_response_prepare.append(sign)

    async def end_waiting(_: web.Application) -> None:
        service.leases.close()
        site.polls.close()
        await site.streams.close()

    app.on_shutdown.append(end_waiting)
    return app


async def _unknown_method(site: Site, request: web.Request) -> web.StreamResponse:
    """Raises MethodNotAllowed."""
    allowed = {each.method for each in request.match_info.route.resource or ()}
    raise problem.method_not_allowed(allowed - {"*"})


async def _unknown_address(site: Site, request: web.Request) -> web.StreamResponse:
    """Raises RouteNotFound."""
    raise problem.RouteNotFound


async def serve(service: Service, host: str, port: int) -> Listening:
    """Serve a started *service*; port 0 picks one. Raises InvalidInput, OSError."""
    listening = await listen(create_app(service), host, port)
    service.external.address.listening(listening.url)
    return listening
