"""The ids of jobs and of everything else that has a stream in the log. Each is a UUID.

An id makes a command safe to repeat: the same specification under the same id is submitted once. So
the id of everything that must happen once is computed from what it is about, and no table of keys
is needed.

| id | computed from | function |
|---|---|---|
| of a new job, webhook or API key | the time and random bits (UUIDv7) | new_id |
| chosen by a client | its own UUID, not of the reserved form | parse_chosen_id |
| from an Idempotency-Key | the owner and the key | id_of_key |
| of a schedule's job | the schedule and the time | firing_id |
| of a child job | the parent and the name that its handler gives it | child_id |
| of a webhook delivery | the webhook and the event's position | delivery_id |
| of a completion hook's job | the completed job and the hook's name | hook_id |
| of the pauses of a type, queue or schedule | its kind and name | switch_id |

The last six are *reserved*: UUIDv8 (RFC 9562, 5.8) that begin with a tag and hold a SHA-256 of
what they are computed from. A client cannot name a reserved id for its job, so it cannot prevent a
firing, a delivery or the job of another owner's key by taking its id first, nor find out whether
that exists. The message of a delivery is not a stream: its id,
message_id, is for the receiver.

Earlier versions computed these ids as UUIDv5, and clients could choose them. The `legacy_`
functions compute them for logs that such a version began (EventLog.reserved_after): a child, a
delivery, a pause or the job of a key of that time is found under its old id, not made again.
"""

import os
import re
from hashlib import sha256
from struct import unpack
from uuid import UUID, uuid5

from eventjobs.domain.validation import uuid_text
from eventjobs.errors import InvalidInput, ReservedId

# --- ids of clients


def new_id(now_us: int) -> str:
    """A UUIDv7 (RFC 9562, 5.7). It begins with the time, so new ids are adjacent in every index."""
    milliseconds, micros = divmod(now_us, 1000)
    # The microseconds are rand_a (6.2, method 3); the rest is random.
    number = milliseconds << 80 | 7 << 76 | (micros << 2) << 64 | 2 << 62 | _random_bits()
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


#: Read ahead: os.urandom releases the GIL, and taking it again costs more than the random bytes.
_RANDOM: list[int] = []


def _random_bits() -> int:
    """62 random bits."""
    if not _RANDOM:
        _RANDOM.extend(unpack("512Q", os.urandom(4096)))
    return _RANDOM.pop() & (2**62 - 1)


def parse_id(text: str) -> str:
    """*text* as a UUID in lower case with hyphens. Raises InvalidInput."""
    try:
        return uuid_text(text)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


#: A UUID without hyphens after `job_`, as some front ends name jobs.
_PREFIXED = re.compile(r"job_([0-9a-f]{32})")


def parse_prefixed_id(text: str) -> str | None:
    """The UUID in *text*, which is `job_` and its 32 digits; None for another form."""
    digits = _PREFIXED.fullmatch(text)
    return None if digits is None else str(UUID(hex=digits[1]))


def parse_chosen_id(text: str) -> str:
    """The id that a client chose for its job. Raises InvalidInput, ReservedId."""
    job_id = parse_id(text)
    if is_reserved(job_id):
        raise ReservedId
    return job_id


# --- ids that only the service makes

TAG = "65766a62"  # "evjb"
KEY_TAG = "65766a6b"  # "evjk"


def is_reserved(job_id: str) -> bool:
    """Whether *job_id* has the form of ids that only the service makes."""
    return job_id.startswith((TAG, KEY_TAG)) and job_id[14:15] == "8"


def is_of_service(job_id: str) -> bool:
    """Whether *job_id* is reserved, and of nothing that a client submitted."""
    return is_reserved(job_id) and not job_id.startswith(KEY_TAG)


def id_of_key(key: str, owner: str = "") -> str:
    """The job of an idempotency key of *owner*."""
    return _derive("key", owner, key, tag=KEY_TAG)


def firing_id(schedule: str, at: str, again: int = 0) -> str:
    """The job of *schedule* for the time *at*, an RFC 3339 text. *again* is the number of earlier
    jobs for that time, which comes more than once when the clock is set back.
    """
    return _derive("firing", schedule, at, *([str(again)] if again else []))


def child_id(parent: str, name: str) -> str:
    """The child job that the handler of *parent* calls *name*."""
    return _derive("child", parent, name)


def delivery_id(webhook_id: str, position: int, again: int = 0) -> str:
    """The job that delivers the event at *position* to a webhook. *again* counts redeliveries."""
    return _derive("delivery", webhook_id, str(position), str(again))


def message_id(webhook_id: str, position: int) -> str:
    """The id of a webhook's message about the event at *position*, the same in each delivery.
    Receivers recognize repeated messages by it.
    """
    return f"msg_{webhook_id}_{position}"


def hook_id(job_id: str, name: str) -> str:
    """The job that runs the completion hook *name* of a job."""
    return _derive("hook", job_id, name)


def switch_id(kind: str, name: str) -> str:
    """The stream of the pauses of a type, a queue or a schedule."""
    return _derive("switch", kind, name)


def _derive(*parts: str, tag: str = TAG) -> str:
    # Each part has its length in front, so different parts never make the same text.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digits = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    variant = "89ab"[int(digits[7], 16) & 3]
    return f"{tag}-{digits[:4]}-8{digits[4:7]}-{variant}{digits[8:11]}-{digits[11:23]}"


# --- ids of earlier versions

_FIRINGS = UUID("197ed900-755e-440b-99ed-6e67f79b0984")
_SWITCHES = UUID("0b9d4f1e-52c7-5e0a-8c7d-7f9a3f2f6f31")
_KEYS = UUID("5d0f6f6c-6a3f-5a55-9d5b-3c1c0f1f7a10")


def legacy_firing_id(schedule: str, at: str) -> str:
    return str(uuid5(_FIRINGS, f"{schedule}\0{at}"))


def legacy_child_id(parent: str, name: str) -> str:
    return str(uuid5(UUID(parent), name))


def legacy_delivery_id(webhook_id: str, position: int, again: int = 0) -> str:
    return str(uuid5(UUID(webhook_id), f"{position}/{again}" if again else str(position)))


def legacy_switch_id(kind: str, name: str) -> str:
    return str(uuid5(_SWITCHES, f"{kind}\0{name}"))


def legacy_id_of_key(key: str, owner: str = "") -> str:
    return str(uuid5(_KEYS, f"{owner}\0{key}"))
