"""Bodies of webhook routes."""

from pydantic import Field

from eventjobs.http.schemas.response_model import ResponseModel, Time


class WebhookLinks(ResponseModel):
    self: str
    deliveries: str
    redeliver: str


class Webhook(ResponseModel):
    """A webhook. Its deliveries are jobs, listed at `links.deliveries`."""

    webhook_id: str
    url: str | None
    events: list[str] = Field(description="types of events; empty: those that end a job")
    types: list[str] = Field(description="types of jobs; empty: all")
    owner: str | None
    added_at: str = Time
    actor: str
    position: int = Field(description="events after this position are sent")
    delivered_position: int = Field(
        alias="told", description="position of the newest event with a delivery"
    )
    links: WebhookLinks


class NewWebhook(Webhook):
    """A new webhook. Only this answer has the *secret*, which verifies signatures."""

    secret: str


class WebhookList(ResponseModel):
    webhooks: list[Webhook]
    next: str | None = Field(description="the cursor of the next page")


class Redelivered(ResponseModel):
    deliveries: list[str] = Field(description="the ids of the deliveries' jobs")
