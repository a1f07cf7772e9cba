"""The requests of submitters, drawn from a seed."""

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from .history import History

JSON = "application/json"
NDJSON = "application/x-ndjson"
#: Types of jobs, with their shares.
TYPES = {
    "noop": 50,
    "progress": 20,
    "flaky": 10,
    "slow": 8,
    "broken": 3,
    "thread": 6,
    "artifact": 3,
}
#: Kinds of requests, with their shares.
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
    """One HTTP request; *kind* decides which responses are right."""

    kind: str
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})
    #: a token for each job, or for the cancel or retry
    tokens: list[str] = field(default_factory=list)
    #: of the job that the response must be about, if it is decided before
    job_id: str | None = None
    #: repeating it has no further effect
    idempotent: bool = True


class Targets:
    """The newest jobs that the service acknowledged: targets of cancels, retries and reads."""

    def __init__(self) -> None:
        self._newest: deque[str] = deque(maxlen=60)
        self._some = asyncio.Event()

    def add(self, job_id: str) -> None:
        self._newest.append(job_id)
        self._some.set()

    def draw(self, drawn: random.Random) -> str | None:
        return drawn.choice(self._newest) if self._newest else None

    async def some(self, drawn: random.Random) -> list[str]:
        """One to three of them; waits for the first."""
        await self._some.wait()
        newest = list(dict.fromkeys(self._newest))
        return drawn.sample(newest, min(drawn.choice([1, 1, 3]), len(newest)))


class Requests:
    """An endless sequence of requests for one submitter."""

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
        #: submissions that were acknowledged, to be repeated
        self._acknowledged: deque[Request] = deque(maxlen=20)

    def acknowledge(self, request: Request) -> None:
        if request.kind in ("put", "key") and len(request.tokens) == 1:
            self._acknowledged.append(request)

    def next(self) -> Request:
        kind = self._choose(KINDS)
        target = self._targets.draw(self._drawn)
        if kind == "batch":
            return self._batch()
        if kind == "again" and self._acknowledged:
            return self._drawn.choice(self._acknowledged)
        if kind == "get" and target is not None:
            return Request("get", "GET", f"/v1/jobs/{target}", headers={}, job_id=target)
        if kind in ("cancel", "retry") and target is not None:
            return self._intervention(kind, target)
        return self._submission(kind if kind in ("put", "key") else "post")

    def gives_up(self) -> bool:
        """Whether a client does not repeat a request without a response: some do not."""
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
            request.idempotent = False
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
        # A second cancel is no repetition when the job was retried in between.
        request.job_id, request.idempotent = job_id, False
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
