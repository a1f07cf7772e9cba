"""What the requests and the responses of the routes contain."""

from eventjobs.commands.api_keys import NewKey
from eventjobs.commands.jobs import CommandReason, RetryOptions
from eventjobs.domain.validation import Redelivery, Subscription
from eventjobs.http.endpoints import batch
from eventjobs.http.lists import ListQuery
from eventjobs.http.routing import RequestSpec, ResponseSpec
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
    CallbackResponse,
    CompletedJobs,
    Completions,
    Ended,
    HeartbeatResponse,
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
