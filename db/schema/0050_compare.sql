-- Comparisons: the pictures that a job of type `compare` runs through several versions of models, and the report it makes.
-- The job holds its pictures itself, as the entries of a data set do, so that the set they were taken from may go.

CREATE TABLE compare_pictures (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    place  INTEGER NOT NULL CHECK (place >= 0), -- order of the report
    name   TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    sha256 TEXT NOT NULL REFERENCES blobs (sha256),
    clean  TEXT REFERENCES blobs (sha256),      -- its truth, NULL = none
    PRIMARY KEY (job_id, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX compare_pictures_blob ON compare_pictures (sha256);
CREATE INDEX compare_pictures_clean ON compare_pictures (clean) WHERE clean IS NOT NULL;

-- What a job made beside its result. The row follows the file, as with results.
CREATE TABLE job_reports (
    job_id TEXT PRIMARY KEY NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    bytes  INTEGER NOT NULL CHECK (bytes > 0),
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64)
) STRICT, WITHOUT ROWID;

-- The freedom of a blob follows both kinds of holders, whoever changes them.
CREATE TRIGGER compare_pictures_made AFTER INSERT ON compare_pictures BEGIN
    UPDATE blobs SET free_since = 0 WHERE sha256 IN (NEW.sha256, NEW.clean) AND free_since > 0;
END;
CREATE TRIGGER compare_pictures_fixed BEFORE UPDATE ON compare_pictures BEGIN
    SELECT raise(ABORT, 'the pictures of a comparison stay as they were named');
END;
CREATE TRIGGER compare_pictures_gone AFTER DELETE ON compare_pictures BEGIN
    UPDATE blobs SET free_since = CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)
    WHERE sha256 IN (OLD.sha256, OLD.clean)
        AND NOT EXISTS (SELECT 1 FROM dataset_entries e WHERE e.sha256 = blobs.sha256)
        AND NOT EXISTS (SELECT 1 FROM compare_pictures p WHERE p.sha256 = blobs.sha256)
        AND NOT EXISTS (SELECT 1 FROM compare_pictures p WHERE p.clean = blobs.sha256);
END;
DROP TRIGGER dataset_entries_gone;
CREATE TRIGGER dataset_entries_gone AFTER DELETE ON dataset_entries BEGIN
    UPDATE datasets SET revision = revision + 1, n_rainy = n_rainy - (OLD.part = 0), n_clean = n_clean - (OLD.part = 1),
        n_paired_rainy = n_paired_rainy - (OLD.part = 2), n_paired_clean = n_paired_clean - (OLD.part = 3),
        bytes = bytes - (SELECT bytes FROM blobs WHERE sha256 = OLD.sha256)
    WHERE id = OLD.dataset_id;
    UPDATE blobs SET free_since = CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)
    WHERE sha256 = OLD.sha256 AND NOT EXISTS (SELECT 1 FROM dataset_entries WHERE sha256 = OLD.sha256)
        AND NOT EXISTS (SELECT 1 FROM compare_pictures WHERE sha256 = OLD.sha256)
        AND NOT EXISTS (SELECT 1 FROM compare_pictures WHERE clean = OLD.sha256);
END;
