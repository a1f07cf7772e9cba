-- The event log. One row an event; nothing is ever changed but an erased body.
-- Every connection sets recursive_triggers=ON: without it INSERT OR REPLACE deletes rows
-- without firing the delete trigger.

PRAGMA application_id = 0x656A6F62;        -- "ejob"
PRAGMA user_version = 1;

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('log_id', lower(hex(randomblob(16))));

CREATE TABLE events (
  position   INTEGER PRIMARY KEY,          -- dense from 1
  job_id     TEXT    NOT NULL,
  version    INTEGER NOT NULL,             -- dense from 1 within the job
  type       TEXT    NOT NULL,
  at_us      INTEGER NOT NULL,             -- microseconds since 1970 UTC
  actor      TEXT    NOT NULL,             -- a pseudonymous id
  facts      BLOB    NOT NULL,             -- JSON as it was encoded
  body       BLOB,                         -- JSON as it was encoded; NULL once erased
  salt       BLOB,                         -- 16 random bytes; NULL once erased
  commitment BLOB    NOT NULL CHECK (length(commitment) = 32),
  UNIQUE (job_id, version),
  CHECK ((salt IS NULL) = (body IS NULL))
) STRICT;

-- With UNIQUE and the primary key, "the one before is there" means "this is the next".
CREATE TRIGGER events_insert BEFORE INSERT ON events
WHEN NEW.body IS NULL OR NEW.position < 1 OR NEW.version < 1
  OR (NEW.position > 1 AND NOT EXISTS
        (SELECT 1 FROM events WHERE position = NEW.position - 1))
  OR (NEW.version > 1 AND NOT EXISTS
        (SELECT 1 FROM events WHERE job_id = NEW.job_id AND version = NEW.version - 1))
BEGIN
  SELECT RAISE(ABORT, 'events: position and version must be the next');
END;

CREATE TRIGGER events_delete BEFORE DELETE ON events
BEGIN
  SELECT RAISE(ABORT, 'events: append-only');
END;

CREATE TRIGGER events_update BEFORE UPDATE ON events
WHEN NOT (NEW.body IS NULL AND NEW.salt IS NULL AND OLD.body IS NOT NULL
  AND NEW.position IS OLD.position AND NEW.job_id IS OLD.job_id AND NEW.version IS OLD.version
  AND NEW.type IS OLD.type AND NEW.at_us IS OLD.at_us AND NEW.actor IS OLD.actor
  AND NEW.facts IS OLD.facts AND NEW.commitment IS OLD.commitment)
BEGIN
  SELECT RAISE(ABORT, 'events: only an erasure may update');
END;
