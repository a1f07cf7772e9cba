"""Signatures of outgoing requests (Standard Webhooks)."""

from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook


def signature(secret: str, message_id: str, body: bytes, at_us: int) -> dict[str, str]:
    """The headers of a message, signed with a `whsec_` *secret*.

    *message_id* is the same for every delivery of one message, and contains no dot. *body* is
    UTF-8.
    """
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_us // 1_000_000),
        "webhook-signature": Webhook(secret).sign(message_id, at, body.decode()),
    }
