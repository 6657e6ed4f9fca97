-- Jobs and what hangs on them. Times are ms since 1970, 0 = none. `state` is the cache of the last `state` event; the
-- triggers below write those events, so no change of state can be made without one. Connections run with
-- trusted_schema=OFF, under which this SQLite allows no JSON functions in here: JSON texts are checked by the writes.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('probe', 0);

-- The hot row stays small: texts and numbers that only a reader of one job wants are in job_details.
CREATE TABLE jobs (
    id               TEXT PRIMARY KEY NOT NULL CHECK (length(id) = 30 AND id GLOB 'job_*'),
    type             TEXT NOT NULL CHECK (type IN ('derain', 'eval', 'compare', 'train', 'export')),
    state            TEXT NOT NULL CHECK (
        state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')
        OR (type = 'train' AND state IN ('validating', 'yielding', 'paused', 'evaluating', 'gated'))),
    class            INTEGER NOT NULL CHECK (class BETWEEN 0 AND 3),
    priority         INTEGER NOT NULL CHECK (priority BETWEEN -100 AND 100),
    rank             INTEGER NOT NULL, -- order of the queue: creation time, moved by class and priority
    not_before       INTEGER NOT NULL DEFAULT 0,
    deadline         INTEGER NOT NULL DEFAULT 0 CHECK (deadline >= 0),
    created_at       INTEGER NOT NULL,
    started_at       INTEGER NOT NULL DEFAULT 0,
    finished_at      INTEGER NOT NULL DEFAULT 0,
    attempt          INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    epoch            INTEGER NOT NULL DEFAULT 0,
    boot             TEXT,
    lease_until      INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    revision         INTEGER NOT NULL DEFAULT 1,
    progress         REAL NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 1),
    model_name       TEXT NOT NULL,
    model_version    INTEGER NOT NULL,
    bytes            INTEGER NOT NULL DEFAULT 0, -- input and result together, for the spool's limit
    CHECK ((finished_at > 0) = (state IN ('succeeded', 'failed', 'cancelled', 'expired'))),
    CHECK (state <> 'running' OR (boot IS NOT NULL AND epoch > 0))
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_ready ON jobs (rank, id) WHERE state = 'queued';
CREATE INDEX jobs_deadline ON jobs (deadline) WHERE state = 'queued' AND deadline > 0;
CREATE INDEX jobs_state ON jobs (state, id);
CREATE INDEX jobs_finished ON jobs (finished_at, id) WHERE finished_at > 0;

CREATE TABLE job_details (
    job_id        TEXT PRIMARY KEY NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    request_id    TEXT NOT NULL,
    traceparent   TEXT NOT NULL,
    model_sha256  TEXT NOT NULL,
    in_format     TEXT NOT NULL,
    in_width      INTEGER NOT NULL,
    in_height     INTEGER NOT NULL,
    in_bit_depth  INTEGER NOT NULL,
    in_channels   INTEGER NOT NULL,
    in_bytes      INTEGER NOT NULL CHECK (in_bytes >= 0),
    in_sha256     TEXT NOT NULL,
    out_format    TEXT,
    out_width     INTEGER,
    out_height    INTEGER,
    out_bytes     INTEGER CHECK (out_bytes >= 0),
    out_sha256    TEXT,
    ms_queue      REAL,
    ms_decode     REAL,
    ms_infer      REAL,
    ms_encode     REAL,
    params        TEXT NOT NULL,
    labels        TEXT NOT NULL,
    problem       TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE job_labels (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    key    TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 64),
    value  TEXT NOT NULL CHECK (length(value) <= 256),
    PRIMARY KEY (job_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    type   TEXT NOT NULL CHECK (
        type IN ('state', 'progress', 'metric', 'sample', 'checkpoint', 'log', 'gate', 'end')),
    data   TEXT NOT NULL,
    PRIMARY KEY (job_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    key        TEXT PRIMARY KEY NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    hash       TEXT NOT NULL,
    job_id     TEXT NOT NULL, -- no foreign key: it outlives the job and then answers "gone"
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires_at);

CREATE TABLE tombstones (
    job_id     TEXT PRIMARY KEY NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_expires ON tombstones (expires_at);

CREATE TABLE models (
    name       TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 63),
    version    INTEGER NOT NULL CHECK (version > 0),
    sha256     TEXT NOT NULL CHECK (length(sha256) = 64),
    bytes      INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
    arch       TEXT NOT NULL,
    card       TEXT,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX models_default ON models (name) WHERE is_default = 1;

CREATE TRIGGER jobs_made AFTER INSERT ON jobs BEGIN
    INSERT INTO events VALUES (NEW.id, 1, NEW.created_at, 'state', '{"from":null,"to":"' || NEW.state || '"}');
END;
CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state BEGIN
    INSERT INTO events VALUES (
        NEW.id, coalesce((SELECT max(seq) FROM events WHERE job_id = NEW.id), 0) + 1,
        CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER),
        'state', '{"from":"' || OLD.state || '","to":"' || NEW.state || '","attempt":' || NEW.attempt || '}');
END;
CREATE TRIGGER jobs_final BEFORE UPDATE OF state ON jobs
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled', 'expired') AND OLD.state <> NEW.state BEGIN
    SELECT raise(ABORT, 'a job that has ended stays as it ended');
END;
