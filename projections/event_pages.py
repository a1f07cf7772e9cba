"""The pages of the log that have events of jobs of a type, or of an owner.

A reader of one type reads these pages, and not the whole log.
"""

from collections.abc import Iterable, Iterator

from eventjobs.projections.change import JobChange, Statement, rows

NAME = "event_pages"
VERSION = 1

#: The positions of a page: those of page 0 are 1 to 512.
PAGE_EVENTS = 512

SCHEMA = """
CREATE TABLE event_pages (
  field TEXT    NOT NULL,  -- 'type' or 'owner'
  value TEXT    NOT NULL,
  page  INTEGER NOT NULL,
  PRIMARY KEY (field, value, page)
) STRICT, WITHOUT ROWID;
"""

ADD_PAGES = """
INSERT OR IGNORE INTO event_pages SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)
"""
# The first page from :page on, with the position of the views. A parked event may be of a job that
# the views do not have, so while there is one no page is left out.
_SELECT = """
SELECT json_array((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'position'),
  iif(EXISTS (SELECT 1 FROM parked), :page, ({page})))
"""
SELECT_PAGE_OF_TYPES = _SELECT.format(
    page="""
  SELECT min((SELECT page FROM event_pages
    WHERE field = 'type' AND value = wanted.value AND page >= :page ORDER BY page LIMIT 1))
  FROM json_each(:types) AS wanted"""
)
#: Of any type where :types is NULL.
SELECT_PAGE_OF_OWNER = _SELECT.format(
    page="""
  SELECT page FROM event_pages AS owned
  WHERE field = 'owner' AND value = :owner AND page >= :page AND (:types IS NULL OR EXISTS (
    SELECT 1 FROM event_pages WHERE field = 'type' AND page = owned.page
      AND value IN (SELECT value FROM json_each(:types))))
  ORDER BY page LIMIT 1"""
)


def page_of(position: int) -> int:
    return (position - 1) // PAGE_EVENTS


def apply(changes: Iterable[JobChange]) -> Iterator[Statement]:
    pages: set[tuple[str, str, int]] = set()
    for change in changes:
        spec, events = change.after.spec, change.events
        first, last = page_of(events[0].position), page_of(events[-1].position)
        for page in {first} if first == last else {page_of(each.position) for each in events}:
            pages.add(("type", spec.type, page))
            if spec.owner is not None:
                pages.add(("owner", spec.owner, page))
    if pages:
        yield ADD_PAGES, rows(sorted(pages))
