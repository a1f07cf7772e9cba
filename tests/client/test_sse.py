"""The parser reads streams as the web platform tests (eventsource/format-*) say browsers do."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventjobs.client.sse import Message, Parser


def read(*chunks: str | bytes) -> list[Message]:
    parser = Parser()
    return [
        message
        for chunk in chunks
        for message in parser.feed(chunk.encode() if isinstance(chunk, str) else chunk)
    ]


def data(*chunks: str | bytes) -> list[str]:
    return [message.data for message in read(*chunks)]


def test_lines_of_data_are_joined_by_a_line_feed() -> None:
    assert data("data: one\ndata: two\n\n") == ["one\ntwo"]


def test_only_the_first_space_after_the_colon_is_dropped() -> None:
    assert data("data:  x\n\n", "data:y\n\n", "data:\tz\n\n") == [" x", "y", "\tz"]


def test_empty_data_is_data() -> None:
    assert data("data\n\n", "data:\n\n", "data\ndata\n\n") == ["", "", "\n"]


def test_a_field_without_a_colon_has_an_empty_value() -> None:
    assert read("event: job\nevent\ndata: x\n\n") == [Message("message", "x", "")]


def test_names_are_case_sensitive_and_unknown_fields_are_ignored() -> None:
    assert data("DATA: x\n data: y\nfoo: z\ndata: real\n\n") == ["real"]


def test_comments_say_nothing() -> None:
    assert data(":\n: data: x\ndata: real\n:\n\n:\n\n") == ["real"]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_every_line_end_is_one(end: str) -> None:
    text = end.join(["id: 7", "event: job", "data: a", "data: b", "", ""])
    assert read(text) == [Message("job", "a\nb", "7")]


def test_mixed_line_ends_count_each_line_once() -> None:
    assert data("data: a\r\ndata: b\rdata: c\n\r\n") == ["a\nb\nc"]


def test_a_carriage_return_ends_the_line_before_the_next_byte_comes() -> None:
    assert data("data: now\r\r") == ["now"]


def test_a_line_feed_that_comes_in_the_next_chunk_belongs_to_its_carriage_return() -> None:
    assert data("data: a\r", "\ndata: b\r", "", "\n\r", "\n") == ["a\nb"]


def test_one_byte_order_mark_at_the_start_is_dropped() -> None:
    bom = "\ufeff"
    assert data(f"{bom}data: x\n\n") == ["x"]
    assert data(f"{bom}{bom}data: x\n\n") == []
    assert data(f"\n{bom}data: x\n\n") == []


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert data(b"data: a\xffb\xe2\x82\n\n") == ["a\ufffdb\ufffd"]


def test_an_event_has_the_id_it_gives_or_the_last_one_given() -> None:
    messages = read("id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\nid\ndata: d\n\n")
    assert [message.id for message in messages] == ["1", "1", "2", ""]


def test_an_id_with_a_null_character_is_ignored() -> None:
    assert read("id: 1\nid: 2\0\ndata: a\n\n") == [Message("message", "a", "1")]


def test_an_event_without_data_is_not_told_but_moves_the_cursor() -> None:
    parser = Parser("3")
    assert list(parser.feed(b"id: 9\nevent: job\n\n")) == []
    assert parser.last_id == "9"
    assert list(parser.feed(b"data: x\n\n")) == [Message("message", "x", "9")]


def test_an_unfinished_event_is_dropped_with_its_id() -> None:
    parser = Parser("3")
    assert list(parser.feed(b"id: 9\ndata: x\n")) == []
    assert parser.last_id == "3"


def test_the_cursor_outlives_a_connection() -> None:
    assert list(Parser("3").feed(b"data: x\n\n")) == [Message("message", "x", "3")]


@pytest.mark.parametrize("bogus", ["3000x", "-5", "1.5", "", " 10", "٣", "9" * 5000])
def test_a_retry_that_is_not_all_digits_is_ignored(bogus: str) -> None:
    parser = Parser()
    assert list(parser.feed(f"retry: 250\nretry: {bogus}\n\n".encode())) == []
    assert parser.retry_ms == 250


LINES = st.lists(
    st.sampled_from(
        ["", ":", "data: ä", "data", "data:€x", "id: 1", "id", "id: 2\0", "event: job", "retry: 5"]
    ),
    max_size=20,
)
ENDS = st.sampled_from(["\n", "\r", "\r\n"])


@given(st.data(), LINES)
def test_it_does_not_matter_how_the_stream_is_cut(draw: st.DataObject, lines: list[str]) -> None:
    stream = "".join(line + draw.draw(ENDS) for line in lines).encode()
    cuts = draw.draw(st.lists(st.integers(0, len(stream))))
    edges = [0, *sorted(cuts), len(stream)]
    whole, cut = Parser(), Parser()
    expected = list(whole.feed(stream))
    messages = [each for start, end in pairwise(edges) for each in cut.feed(stream[start:end])]
    assert messages == expected
    assert (cut.last_id, cut.retry_ms) == (whole.last_id, whole.retry_ms)


@given(st.text(), st.text().filter(lambda text: not set(text) & set("\0\r\n")))
def test_what_was_framed_is_what_is_read(text: str, id: str) -> None:
    """Each line of the data is a field of its own. The kind of its line end is lost."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    frame = f"id: {id}\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
    assert read(frame) == [Message("message", "\n".join(lines), id)]
