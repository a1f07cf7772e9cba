"""Sends what schemathesis draws from the OpenAPI document to the service, as several callers."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import aiohttp

from eventjobs.auth.principals import USER_SCOPES, Scope
from eventjobs.service import Service
from eventjobs.settings import Settings

from ..kills.server import Servers

FOLDER = Path(__file__).parent
APP = "eventjobs.tools.soak.api.handlers:HANDLERS"
#: Nothing waits, so that every request ends at once. All dialects are served.
ENVIRONMENT = {
    "EVENTJOBS_WAIT_MAX_S": "0",
    "EVENTJOBS_DRAIN_S": "0",
    "EVENTJOBS_DIALECTS": "all",
    "EVENTJOBS_QUEUE_JOB_TYPE": "echo",
    "EVENTJOBS_UPLOAD_TYPE": "echo",
    "EVENTJOBS_DOMAIN_ROUTES": '[{"path": "/cases/{case_id}/analyze", "type": "echo"}]',
}
REQUEST_S = 30
#: The number of requests, in what schemathesis prints.
_REQUESTS = re.compile(r"^ *(\d+) generated", re.MULTILINE)


class Caller(NamedTuple):
    """The sender of requests; without *scopes*, it has no credential."""

    name: str
    scopes: frozenset[str] = frozenset()
    #: Operations that it does not use, by their ids.
    without: tuple[str, ...] = ()


ADMIN = Caller("admin", frozenset({Scope.ADMIN}), ("delete_v1_keys_key_id",))  # its own key
USER = Caller("user", USER_SCOPES)
NO_KEY = Caller("no key")
#: By the mode of authentication.
CALLERS = {"off": (NO_KEY,), "optional": (USER, NO_KEY), "required": (ADMIN, USER, NO_KEY)}


class Plan(NamedTuple):
    """Requests of all callers of one mode: *examples* for each operation and phase. The phase
    `coverage` has as many as it needs.
    """

    auth: str
    seed: int
    examples: int
    phases: tuple[str, ...] = ("coverage", "fuzzing", "stateful")
    #: The rates of an address, as the setting has them.
    rates: str = ""


class Outcome(NamedTuple):
    plan: Plan
    requests: dict[str, int]
    faults: list[str]

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.requests.items())
        return f"requests with auth={self.plan.auth}: {counts}; seed {self.plan.seed}"


async def campaign(data: Path, plan: Plan) -> Outcome:
    """The requests of *plan* to a new service in *data*, which must be as healthy afterwards."""
    callers = CALLERS[plan.auth]
    keys = await _make_keys(data, {ADMIN, *callers})
    requests: dict[str, int] = {}
    faults: list[str] = []
    environment = {"EVENTJOBS_AUTH": plan.auth, "EVENTJOBS_ADDRESS_RATES": plan.rates}
    async with Servers(data, APP, environment=ENVIRONMENT | environment) as servers:
        life = await servers.fork()
        url = await life.ready()
        document = await _read(f"{url}/openapi.json", _authorization(keys[ADMIN]))
        for caller in callers:
            folder = data.with_name(caller.name.replace(" ", "-"))
            count, failures = await send(url, document, folder, plan, caller, keys.get(caller))
            requests[caller.name] = count
            faults += failures
        await _read(f"{url}/readyz", {})
        if code := await life.end(signal.SIGTERM):
            faults.append(f"the service ended with {code}")
        faults += servers.complaints()
    return Outcome(plan, requests, faults)


async def _make_keys(data: Path, callers: set[Caller]) -> dict[Caller, str]:
    keys = {}
    async with Service(handlers=[], settings=Settings(data=data)) as service:
        for each in callers:
            if each.scopes:
                _, keys[each] = await service.api_keys.create(
                    each.name, owner="ann", scopes=tuple(each.scopes), actor="soak"
                )
    return keys


def _authorization(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def _read(url: str, headers: dict[str, str]) -> bytes:
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.get(url, headers=headers) as response,
    ):
        return await response.read()


async def send(
    url: str, document: bytes, folder: Path, plan: Plan, caller: Caller, key: str | None = None
) -> tuple[int, list[str]]:
    """The number of requests that schemathesis sent to *url*, and the faults that it found."""
    command = _command(url, document, folder, plan, caller, key)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(FOLDER / "hooks.py")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    count = _REQUESTS.search(output)
    faults = [f"{caller.name}:\n{output}"] if process.returncode or count is None else []
    return int(count[1]) if count else 0, faults


def _command(
    url: str, document: bytes, folder: Path, plan: Plan, caller: Caller, key: str | None
) -> list[str]:
    """The arguments of Python for schemathesis, which works in *folder*."""
    folder.mkdir()
    (folder / "openapi.json").write_bytes(document)
    command = ["-m", "schemathesis.cli", "--config-file", str(FOLDER / "schemathesis.toml")]
    command += ["run", "openapi.json", "--url", url, "--no-color"]
    command += ["--phases", ",".join(plan.phases), "--max-examples", str(plan.examples)]
    command += ["--seed", str(plan.seed), "--request-timeout", str(REQUEST_S)]
    command += ["--generation-database", "none", "--warnings", "off", "--no-shrink"]
    for operation in caller.without:
        command += ["--exclude-operation-id", operation]
    if key is not None:
        for name, value in _authorization(key).items():
            command += ["--header", f"{name}: {value}"]
    return command
