"""The files of jobs that have an owner. They stay the owner's when the job is hidden."""

from collections.abc import Iterable, Iterator

from eventjobs.domain.events import ArtifactStored
from eventjobs.projections.change import JobChange, Statement, rows

NAME = "files"
VERSION = 1

SCHEMA = """
CREATE TABLE files (
  owner  TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  PRIMARY KEY (owner, sha256)
) STRICT, WITHOUT ROWID;
"""

ADD_FILES = "INSERT OR IGNORE INTO files SELECT value ->> 0, value ->> 1 FROM json_each(?1)"
SELECT_OWNED = """
SELECT json(iif(EXISTS (SELECT 1 FROM files WHERE owner = ?1 AND sha256 = ?2), 'true', 'false'))
"""


def apply(changes: Iterable[JobChange]) -> Iterator[Statement]:
    files = []
    for change in changes:
        owner = change.after.spec.owner
        if owner is None:
            continue
        if change.before is None:
            files += [(owner, each.sha256) for each in change.after.spec.artifacts]
        for recorded in change.events:
            if isinstance(event := recorded.event, ArtifactStored):
                files.append((owner, event.sha256))
    if files:
        yield ADD_FILES, rows(files)
