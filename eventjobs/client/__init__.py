"""The Python client of the HTTP API."""

from eventjobs.client.client import Client, poll
from eventjobs.client.errors import (
    ApiError,
    ConnectionLost,
    LogChanged,
    Unreachable,
    WrongAddress,
)

__all__ = [
    "ApiError",
    "Client",
    "ConnectionLost",
    "LogChanged",
    "Unreachable",
    "WrongAddress",
    "poll",
]
