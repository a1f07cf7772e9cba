"""Frames of streams as bytes."""

import pytest

from eventjobs.http.streams import frames
from eventjobs.http.streams.frames import (
    Frames,
    end_frame,
    prefix_that_fits,
    reset_frame,
    retry_later_frame,
)
from tests.support.stream_reader import Chunks, Wire


@pytest.mark.parametrize(
    ("sizes", "count"),
    [([], 0), ([3, 3, 4], 3), ([3, 3, 5], 2), ([11], 1), ([11, 1], 1), ([10, 0, 1], 2)],
)
def test_a_write_has_as_many_frames_as_fit_and_at_least_one(
    sizes: list[int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "WRITE_BYTES", 10)
    assert prefix_that_fits(sizes, lambda size: size) == sizes[:count]


def test_what_ends_or_resets_a_stream_is_read_as_such() -> None:
    wire = Wire()
    [end] = wire.feed(end_frame(7))
    assert (end.event, end.json, wire.last_id) == ("end", {"reason": "finished"}, "7")
    [reset] = wire.feed(reset_frame(3))
    assert (reset.event, reset.json) == ("reset", {"head": 3})
    assert wire.feed(retry_later_frame(7.5)) == []
    assert 8_500 <= wire.retries[0] <= 17_500


def test_a_chunk_is_one_of_http() -> None:
    assert Chunks().feed(Frames(b"x" * 300).chunk + Frames(b"y").chunk) == b"x" * 300 + b"y"
    assert (Frames(b"x" * 300).data, len(Frames(b"xy"))) == (b"x" * 300, 2)
