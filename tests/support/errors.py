"""What an error says, for assertions."""

from eventjobs.errors import InvalidInput


def error_fields(error: InvalidInput) -> set[str]:
    """The names of the fields that *error* is about."""
    return {each["field"] for each in error.errors}
