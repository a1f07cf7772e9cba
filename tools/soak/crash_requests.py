"""What submitters send: made from a seed, so that the same campaign asks for the same things."""

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from .crash_history import History

JSON = "application/json"
NDJSON = "application/x-ndjson"
#: Type and its share; the rest of a payload is drawn by *payload*.
TYPES = {
    "noop": 50,
    "progress": 20,
    "flaky": 10,
    "slow": 8,
    "broken": 3,
    "thread": 6,
    "artifact": 3,
}
#: What a submitter does, and how often.
KINDS = {
    "put": 30,
    "key": 18,
    "post": 14,
    "batch": 6,
    "again": 6,
    "cancel": 12,
    "retry": 8,
    "get": 6,
}


@dataclass
class Request:
    """One thing to ask for; the answers it may have are judged by *kind*."""

    kind: str
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})
    #: a token for each job, or for the intervention, that this would bring about
    tokens: list[str] = field(default_factory=list)
    #: of the job that the answer has to be about, where that is known before
    job_id: str | None = None
    #: repeating it has no further effect, so a client whose connection broke may
    harmless: bool = True


class Targets:
    """The newest jobs that the service acknowledged: there is something to be done with them."""

    def __init__(self) -> None:
        self._newest: deque[str] = deque(maxlen=60)
        self._some = asyncio.Event()

    def add(self, job_id: str) -> None:
        self._newest.append(job_id)
        self._some.set()

    def draw(self, drawn: random.Random) -> str | None:
        return drawn.choice(self._newest) if self._newest else None

    async def some(self, drawn: random.Random) -> list[str]:
        """One to three of them, once there are any."""
        await self._some.wait()
        newest = list(dict.fromkeys(self._newest))
        return drawn.sample(newest, min(drawn.choice([1, 1, 3]), len(newest)))


class Requests:
    """An endless supply of requests for one submitter."""

    def __init__(
        self,
        name: str,
        seed: int,
        history: History,
        targets: Targets,
        types: dict[str, int] | None = None,
    ) -> None:
        self._name = name
        self._drawn = random.Random(f"{seed} {name}")
        self._history = history
        self._targets = targets
        self._types = types or TYPES
        self._count = 0
        #: submissions that were acknowledged, to be sent again
        self._done: deque[Request] = deque(maxlen=20)

    def done(self, request: Request) -> None:
        if request.kind in ("put", "key") and len(request.tokens) == 1:
            self._done.append(request)

    def next(self) -> Request:
        kind = self._choose(KINDS)
        target = self._targets.draw(self._drawn)
        if kind == "batch":
            return self._batch()
        if kind == "again" and self._done:
            return self._drawn.choice(self._done)
        if kind == "get" and target is not None:
            return Request("get", "GET", f"/v1/jobs/{target}", headers={}, job_id=target)
        if kind in ("cancel", "retry") and target is not None:
            return self._intervention(kind, target)
        return self._submission(kind if kind in ("put", "key") else "post")

    def gives_up(self) -> bool:
        """Whether a client whose request was cut off leaves it at that: some do."""
        return self._drawn.random() < 0.15

    def _submission(self, kind: str) -> Request:
        spec = self._spec()
        request = Request(kind, "POST", "/v1/jobs", orjson.dumps(spec))
        request.tokens = [spec["payload"]["token"]]
        if kind == "put":
            request.job_id = str(UUID(int=self._drawn.getrandbits(128), version=4))
            request.method, request.path = "PUT", f"/v1/jobs/{request.job_id}"
        elif kind == "key":
            request.headers["Idempotency-Key"] = f'"{self._new("key")}"'
        else:
            request.harmless = False
        return request

    def _batch(self) -> Request:
        lines = [self._spec() for _ in range(self._drawn.randint(2, 25))]
        for spec in lines:
            named = self._drawn.choice(["job_id", "idempotency_key"])
            value = str(UUID(int=self._drawn.getrandbits(128), version=4))
            spec[named] = value if named == "job_id" else self._new("key")
        body = b"\n".join(map(orjson.dumps, lines))
        tokens = [spec["payload"]["token"] for spec in lines]
        return Request("batch", "POST", "/v1/jobs/batch", body, {"Content-Type": NDJSON}, tokens)

    def _intervention(self, kind: str, job_id: str) -> Request:
        token = self._history.attempt(self._new(kind))
        body = orjson.dumps({"reason": token})
        request = Request(kind, "POST", f"/v1/jobs/{job_id}/{kind}", body, tokens=[token])
        # Cancelling what was cancelled changes nothing, but it may have been retried in between.
        request.job_id, request.harmless = job_id, False
        return request

    def _spec(self) -> dict[str, Any]:
        type = self._choose(self._types)
        payload: dict[str, Any] = {"token": self._history.attempt(self._new("job"))}
        spec: dict[str, Any] = {"type": type, "payload": payload}
        if type == "flaky":
            payload["fails"] = self._drawn.choice([1, 1, 1, 2, 9])
        elif type == "slow":
            payload["s"] = self._drawn.choice([0.05, 0.05, 0.05, 0.4])
        elif type in ("thread", "deaf", "process"):
            payload["s"] = self._drawn.uniform(0.001, 0.03)
        if self._drawn.random() < 0.1:
            spec["tags"] = [f"of {self._name}", "tägged"]
        if self._drawn.random() < 0.1:
            spec["priority"] = self._drawn.randint(-5, 5)
        return spec

    def _new(self, what: str) -> str:
        self._count += 1
        return f"{self._name} {what} {self._count}"

    def _choose(self, shares: dict[str, int]) -> str:
        return self._drawn.choices(list(shares), list(shares.values()))[0]
