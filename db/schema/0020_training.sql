-- Trainings: what a job of type `train` has beside its row. Rows follow the files: a checkpoint's row is written after its
-- file is on disk and removed before it is erased, so every row names a whole file.

CREATE TABLE trainings (
    job_id           TEXT PRIMARY KEY NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    dataset          TEXT NOT NULL,
    step             INTEGER NOT NULL DEFAULT 0, -- done
    steps            INTEGER NOT NULL DEFAULT 0, -- planned; 0 = not known yet
    seconds          REAL NOT NULL DEFAULT 0,    -- spent in steps, without pauses
    seconds_per_step REAL NOT NULL DEFAULT 0,    -- smoothed
    pause_requested  INTEGER NOT NULL DEFAULT 0 CHECK (pause_requested IN (0, 1)),
    best_step        INTEGER NOT NULL DEFAULT -1,
    best_score       REAL NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX trainings_dataset ON trainings (dataset);

CREATE TABLE train_metrics (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    step   INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    data   TEXT NOT NULL, -- object of numbers
    PRIMARY KEY (job_id, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE train_checkpoints (
    job_id  TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    step    INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    bytes   INTEGER NOT NULL CHECK (bytes > 0),
    seconds REAL NOT NULL, -- trainings.seconds at that step
    score   REAL,          -- of the evaluation at this step
    PRIMARY KEY (job_id, step)
) STRICT, WITHOUT ROWID;

-- A training's history also says that it is over.
DROP TRIGGER jobs_moved;
CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state BEGIN
    INSERT INTO events VALUES (
        NEW.id, coalesce((SELECT max(seq) FROM events WHERE job_id = NEW.id), 0) + 1,
        CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER),
        'state', '{"from":"' || OLD.state || '","to":"' || NEW.state || '","attempt":' || NEW.attempt || '}');
    INSERT INTO events SELECT
        NEW.id, coalesce((SELECT max(seq) FROM events WHERE job_id = NEW.id), 0) + 1,
        CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER), 'end', '{"state":"' || NEW.state || '"}'
        WHERE NEW.type = 'train' AND NEW.state IN ('succeeded', 'failed', 'cancelled', 'expired');
END;
