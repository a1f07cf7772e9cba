"""The ids of jobs: drawn, given, and derived. Identity is the idempotency."""

import os
from hashlib import sha256
from struct import unpack
from uuid import UUID, uuid5

from eventjobs.domain.validation import uuid_text
from eventjobs.errors import InvalidInput, ReservedId

TAG = "65766a62"  # "evjb"

_FIRINGS = UUID("197ed900-755e-440b-99ed-6e67f79b0984")
_SWITCHES = UUID("0b9d4f1e-52c7-5e0a-8c7d-7f9a3f2f6f31")


def is_reserved(job_id: str) -> bool:
    """Whether only the service gives this id."""
    return job_id.startswith(TAG) and job_id[14:15] == "8"


def delivery_id(webhook_id: str, position: int, again: int = 0) -> str:
    """The job that delivers an event to a webhook; *again* counts repetitions by hand."""
    return _derive("delivery", webhook_id, str(position), str(again))


def firing_id(schedule: str, at: str, again: int = 0) -> str:
    """The job of a schedule at one of its times, an RFC 3339 text; *again* counts how often the
    time came before, on a clock that was set back.
    """
    return _derive("firing", schedule, at, *([str(again)] if again else []))


def child_id(parent: str, name: str) -> str:
    """The child of a job that its handler knows by this name."""
    return _derive("child", parent, name)


def switch_id(kind: str, name: str) -> str:
    """The stream of the pauses of a type, a queue or a schedule."""
    return _derive("switch", kind, name)


def legacy_delivery_id(webhook_id: str, position: int, again: int = 0) -> str:
    return str(uuid5(UUID(webhook_id), f"{position}/{again}" if again else str(position)))


def legacy_firing_id(schedule: str, at: str) -> str:
    return str(uuid5(_FIRINGS, f"{schedule}\0{at}"))


def legacy_child_id(parent: str, name: str) -> str:
    return str(uuid5(UUID(parent), name))


def legacy_switch_id(kind: str, name: str) -> str:
    return str(uuid5(_SWITCHES, f"{kind}\0{name}"))


def _derive(*parts: str) -> str:
    # Each part with its length: no two lists of parts are the same text.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digits = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    variant = "89ab"[int(digits[7], 16) & 3]
    return f"{TAG}-{digits[:4]}-8{digits[4:7]}-{variant}{digits[8:11]}-{digits[11:23]}"


def new_id(now_us: int) -> str:
    """A UUIDv7 (RFC 9562, 5.7): time first, so that new jobs sit together in every index."""
    milliseconds, micros = divmod(now_us, 1000)
    # The microseconds go into rand_a (6.2, method 3), the rest is random.
    number = milliseconds << 80 | 7 << 76 | (micros << 2) << 64 | 2 << 62 | _random_bits()
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


#: Drawn ahead: asking the kernel lets go of the interpreter, and getting it back takes longer.
_RANDOM: list[int] = []


def _random_bits() -> int:
    """62 random bits."""
    if not _RANDOM:
        _RANDOM.extend(unpack("512Q", os.urandom(4096)))
    return _RANDOM.pop() & (2**62 - 1)


def parse_id(text: str) -> str:
    """A job id in its one written form. Raises InvalidInput for what is not a UUID."""
    try:
        return uuid_text(text)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def parse_chosen_id(text: str) -> str:
    """The id that somebody chose for a job of theirs. Raises InvalidInput, ReservedId."""
    job_id = parse_id(text)
    if is_reserved(job_id):
        raise ReservedId
    return job_id


#: Where the ids made from idempotency keys live.
KEYS = UUID("5d0f6f6c-6a3f-5a55-9d5b-3c1c0f1f7a10")


def id_of_key(key: str, owner: str = "") -> str:
    """The job id that an idempotency key stands for: no table of keys is needed."""
    return str(uuid5(KEYS, f"{owner}\0{key}"))
