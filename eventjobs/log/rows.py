"""Decodes rows of the log. A row that this version cannot decode is an Unreadable event."""

from eventjobs.domain.codec import decode_or_unreadable
from eventjobs.domain.events import Unreadable
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import MAX_US

# A page is one row: each row stepped in Python acquires the interpreter lock once, and while the
# loop is busy each acquisition can take the 5 ms switch interval.
READ = """
SELECT CAST(json_group_array(json_array(position, job_id, version, type, at_us, actor,
  CAST(facts AS TEXT), CAST(body AS TEXT))) AS BLOB)
FROM (SELECT * FROM events WHERE position > ?1 ORDER BY position LIMIT ?2)
"""
READ_JOB = """
SELECT CAST(json_group_array(json_array(position, job_id, version, type, at_us, actor,
  CAST(facts AS TEXT), CAST(body AS TEXT))) AS BLOB)
FROM (SELECT * FROM events WHERE job_id = ?1 AND position > ?2 ORDER BY version LIMIT ?3)
"""
#: The same row by row, for a page with bytes that are no UTF-8, which JSON cannot hold.
ROWS = {
    READ: """
SELECT position, CAST(job_id AS BLOB), version, CAST(type AS BLOB), at_us, CAST(actor AS BLOB),
  facts, body
FROM events WHERE position > ?1 ORDER BY position LIMIT ?2
""",
    READ_JOB: """
SELECT position, CAST(job_id AS BLOB), version, CAST(type AS BLOB), at_us, CAST(actor AS BLOB),
  facts, body
FROM events WHERE job_id = ?1 AND position > ?2 ORDER BY version LIMIT ?3
""",
}
VERSIONS = """
SELECT json_group_object(job_id, version)
FROM (SELECT job_id, max(version) AS version FROM events
  WHERE job_id IN (SELECT value FROM json_each(?1)) GROUP BY job_id)
"""
#: Positions of the rows with these salts. A salt is random, so it identifies the append.
FIND_BY_SALT = """
SELECT json_group_array(position) FROM (
  SELECT position FROM events JOIN json_each(?1)
  ON job_id = value ->> 0 AND version = value ->> 1 AND hex(salt) = value ->> 2)
"""


def recorded_from_text(
    position: int,
    job_id: str,
    version: int,
    type: str,
    at_us: int,
    actor: str,
    facts: str,
    body: str | None,
) -> Recorded:
    """The event of one row of READ or READ_JOB."""
    stored = facts.encode(), None if body is None else body.encode()
    event = decode_or_unreadable(type, *stored)
    if not 0 <= at_us <= MAX_US:
        event = Unreadable(f"its time is {at_us} microseconds")
    return Recorded(position, job_id, version, at_us, actor, event, type, *stored)


def recorded_from_bytes(
    position: int,
    job_id: bytes,
    version: int,
    type: bytes,
    at_us: int,
    actor: bytes,
    facts: bytes,
    body: bytes | None,
) -> Recorded:
    """The event of one row of ROWS. Bytes that are no UTF-8 are escaped."""
    texts = [text.decode("utf-8", "backslashreplace") for text in (job_id, type, actor)]
    event = decode_or_unreadable(texts[1], facts, body)
    if not 0 <= at_us <= MAX_US:
        event = Unreadable(f"its time is {at_us} microseconds")
    elif [text.encode() for text in texts] != [job_id, type, actor]:
        event = Unreadable("its texts are no UTF-8")
    return Recorded(position, texts[0], version, at_us, texts[2], event, texts[1], facts, body)
