"""Pauses of types, queues and schedules, as endpoints read and show them."""

from typing import Any, get_args

from eventjobs.commands.pauses import Kind
from eventjobs.domain.timestamps import rfc3339
from eventjobs.projections.pauses import SELECT_PAUSES, Pause
from eventjobs.service import Service


async def current_pauses(service: Service) -> dict[str, dict[str, Pause]]:
    """The pauses in force: by kind, then by name."""
    pauses: dict[str, dict[str, Pause]] = {kind: {} for kind in get_args(Kind)}
    for row in await service.views.query(SELECT_PAUSES):
        pause = Pause(*row)
        pauses[pause.kind][pause.name] = pause
    return pauses


def render_pause(pause: Pause | None) -> dict[str, Any] | None:
    """*pause* as JSON; None where there is none."""
    if pause is None:
        return None
    return {"since": rfc3339(pause.since_us), "by": pause.actor, "reason": pause.reason}
