"""Bodies of webhook routes."""

from pydantic import Field

from eventjobs.http.schemas.response_model import ResponseModel, Time


class WebhookLinks(ResponseModel):
    self: str
    deliveries: str
    redeliver: str


class Webhook(ResponseModel):
    """Who is told of what. Its deliveries are jobs, found under `links.deliveries`."""

    webhook_id: str
    url: str | None
    events: list[str] = Field(description="none: those that end a job")
    types: list[str] = Field(description="of jobs; none: all")
    owner: str | None
    added_at: str = Time
    actor: str
    position: int = Field(description="it is told of events after this one")
    told: int = Field(description="the newest event there is a delivery of")
    links: WebhookLinks


class NewWebhook(Webhook):
    """The *secret* is told this once: the receiver checks signatures with it."""

    secret: str


class WebhookList(ResponseModel):
    webhooks: list[Webhook]
    next: str | None = Field(description="the cursor of the next page")


class Redelivered(ResponseModel):
    deliveries: list[str] = Field(description="the jobs that they are")
