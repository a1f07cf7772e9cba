"""Messages between the service and a handler process."""

import pytest

from eventjobs.execution.processes.wire import MESSAGE_BYTES_MAX, take_message


def test_a_message_that_is_too_large_is_refused_by_its_length_alone() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 it has no message
        take_message(bytearray((MESSAGE_BYTES_MAX + 1).to_bytes(4)))
