"""Times as dialects write them."""

from eventjobs.domain.timestamps import rfc3339


def seconds(at_us: int | None) -> str | None:
    """UTC in whole seconds with `Z`; None for None."""
    return None if at_us is None else f"{rfc3339(at_us)[:19]}Z"
