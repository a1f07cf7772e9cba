"""The ids that the service derives, all of them: the same fact has one id, after every restart too.

They are UUIDs of version 8 (RFC 9562, 5.8) that begin with TAG. No client may choose an id of that
form, so no job of a client is ever in the place of one. Until ids were reserved they were UUIDs of
version 5, which a log may still hold; those are the `legacy` ones.

Ids that are not derived: those of new jobs and webhooks are random. That of an Idempotency-Key is
the client's own choice, and never of the reserved form.
"""

from hashlib import sha256
from uuid import UUID, uuid5

TAG = "65766a62"  # "evjb"

_FIRINGS = UUID("197ed900-755e-440b-99ed-6e67f79b0984")
_SWITCHES = UUID("0b9d4f1e-52c7-5e0a-8c7d-7f9a3f2f6f31")


def is_reserved(job_id: str) -> bool:
    """Whether only the service gives this id."""
    return job_id.startswith(TAG) and job_id[14:15] == "8"


def delivery_id(webhook_id: str, position: int, again: int = 0) -> str:
    """The job that delivers an event to a webhook; *again* counts repetitions by hand."""
    return _derived("delivery", webhook_id, str(position), str(again))


def firing_id(schedule: str, at: str, again: int = 0) -> str:
    """The job of a schedule at one of its times, an RFC 3339 text; *again* counts how often the
    time came before, on a clock that was set back.
    """
    return _derived("firing", schedule, at, *([str(again)] if again else []))


def child_id(parent: str, name: str) -> str:
    """The child of a job that its handler knows by this name."""
    return _derived("child", parent, name)


def switch_id(kind: str, name: str) -> str:
    """The stream of the pauses of a type, a queue or a schedule."""
    return _derived("switch", kind, name)


def legacy_delivery_id(webhook_id: str, position: int, again: int = 0) -> str:
    return str(uuid5(UUID(webhook_id), f"{position}/{again}" if again else str(position)))


def legacy_firing_id(schedule: str, at: str) -> str:
    return str(uuid5(_FIRINGS, f"{schedule}\0{at}"))


def legacy_child_id(parent: str, name: str) -> str:
    return str(uuid5(UUID(parent), name))


def legacy_switch_id(kind: str, name: str) -> str:
    return str(uuid5(_SWITCHES, f"{kind}\0{name}"))


def _derived(*parts: str) -> str:
    # Each part with its length: no two lists of parts are the same text.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digits = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    variant = "89ab"[int(digits[7], 16) & 3]
    return f"{TAG}-{digits[:4]}-8{digits[4:7]}-{variant}{digits[8:11]}-{digits[11:23]}"
