"""eventjobs: an event-sourced job service on asyncio.

The names of floors 0 and 1 are here at once; what handler authors and embedding scripts need is
imported when first asked for, because `projections` interleaves with the floors between.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eventjobs.errors import EventjobsError, JobError
from eventjobs.events import JobSpec, Recorded

if TYPE_CHECKING:
    from eventjobs.breakers import BreakerOpen
    from eventjobs.handlers import (
        Context,
        Handlers,
        ThreadContext,
        external,
        handler,
        outside,
        schedule,
    )
    from eventjobs.service import Service
    from eventjobs.settings import Settings

__version__ = "0.1.0"
__all__ = [
    "BreakerOpen",
    "Context",
    "EventjobsError",
    "Handlers",
    "JobError",
    "JobSpec",
    "Recorded",
    "Service",
    "Settings",
    "ThreadContext",
    "external",
    "handler",
    "outside",
    "schedule",
]

_LATER = {
    "BreakerOpen": "eventjobs.breakers",
    "Context": "eventjobs.handlers",
    "Handlers": "eventjobs.handlers",
    "ThreadContext": "eventjobs.handlers",
    "external": "eventjobs.handlers",
    "handler": "eventjobs.handlers",
    "outside": "eventjobs.handlers",
    "schedule": "eventjobs.handlers",
    "Service": "eventjobs.service",
    "Settings": "eventjobs.settings",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'eventjobs' has no attribute {name!r}")
