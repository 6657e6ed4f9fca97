-- Data sets: pictures by content (blobs), what was found out about them (blob_facts), and the sets that name them.

CREATE TABLE blobs (
    sha256     TEXT PRIMARY KEY NOT NULL CHECK (length(sha256) = 64),
    bytes      INTEGER NOT NULL CHECK (bytes > 0),
    created_at INTEGER NOT NULL,
    free_since INTEGER NOT NULL -- since when no set names it; 0 = a set does
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_free ON blobs (free_since) WHERE free_since > 0;

-- What decoding showed. It follows from the bytes alone, so a validation that was broken off begins where it was.
CREATE TABLE blob_facts (
    sha256    TEXT PRIMARY KEY NOT NULL REFERENCES blobs (sha256) ON DELETE CASCADE,
    edition   INTEGER NOT NULL, -- of the program's rules: facts of another one are made anew
    code      TEXT,             -- why it is no good, else NULL
    detail    TEXT,
    format    TEXT NOT NULL,
    width     INTEGER NOT NULL,
    height    INTEGER NOT NULL,
    bit_depth INTEGER NOT NULL,
    channels  INTEGER NOT NULL,
    grey      INTEGER NOT NULL CHECK (grey IN (0, 1)),
    pixels    TEXT NOT NULL,    -- digest of the samples
    look      TEXT              -- fingerprint, NULL = too flat for one
) STRICT, WITHOUT ROWID;

CREATE TABLE datasets (
    id           TEXT PRIMARY KEY NOT NULL CHECK (length(id) = 29 AND id GLOB 'ds_*'),
    name         TEXT CHECK (length(name) BETWEEN 1 AND 128),
    state        TEXT NOT NULL CHECK (state IN ('open', 'validating', 'ready', 'rejected')),
    set_aside    INTEGER NOT NULL DEFAULT 0 CHECK (set_aside IN (0, 1)), -- go on without bad pictures
    created_at   INTEGER NOT NULL,
    sealed_at    INTEGER NOT NULL DEFAULT 0,
    validated_at INTEGER NOT NULL DEFAULT 0,
    revision     INTEGER NOT NULL DEFAULT 1,
    n_rainy      INTEGER NOT NULL DEFAULT 0,
    n_clean      INTEGER NOT NULL DEFAULT 0,
    n_paired_rainy INTEGER NOT NULL DEFAULT 0,
    n_paired_clean INTEGER NOT NULL DEFAULT 0,
    bytes        INTEGER NOT NULL DEFAULT 0,
    labels       TEXT NOT NULL,
    reasons      TEXT NOT NULL DEFAULT '[]',
    CHECK ((state = 'open') = (sealed_at = 0)),
    CHECK ((state IN ('ready', 'rejected')) = (validated_at > 0))
) STRICT, WITHOUT ROWID;
CREATE INDEX datasets_validating ON datasets (sealed_at, id) WHERE state = 'validating';

CREATE TABLE dataset_entries (
    dataset_id TEXT NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
    part       INTEGER NOT NULL CHECK (part BETWEEN 0 AND 3), -- rainy, clean, paired/rainy, paired/clean
    name       TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    sha256     TEXT NOT NULL REFERENCES blobs (sha256),
    aside      TEXT, -- why training leaves it out, NULL = it does not
    PRIMARY KEY (dataset_id, part, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX dataset_entries_blob ON dataset_entries (sha256);
CREATE INDEX dataset_entries_aside ON dataset_entries (dataset_id, part) WHERE aside IS NOT NULL;

-- The counts of a set and the freedom of a blob follow its entries, whoever changes them.
CREATE TRIGGER dataset_entries_made AFTER INSERT ON dataset_entries BEGIN
    UPDATE datasets SET revision = revision + 1, n_rainy = n_rainy + (NEW.part = 0), n_clean = n_clean + (NEW.part = 1),
        n_paired_rainy = n_paired_rainy + (NEW.part = 2), n_paired_clean = n_paired_clean + (NEW.part = 3),
        bytes = bytes + (SELECT bytes FROM blobs WHERE sha256 = NEW.sha256)
    WHERE id = NEW.dataset_id;
    UPDATE blobs SET free_since = 0 WHERE sha256 = NEW.sha256 AND free_since > 0;
END;
CREATE TRIGGER dataset_entries_gone AFTER DELETE ON dataset_entries BEGIN
    UPDATE datasets SET revision = revision + 1, n_rainy = n_rainy - (OLD.part = 0), n_clean = n_clean - (OLD.part = 1),
        n_paired_rainy = n_paired_rainy - (OLD.part = 2), n_paired_clean = n_paired_clean - (OLD.part = 3),
        bytes = bytes - (SELECT bytes FROM blobs WHERE sha256 = OLD.sha256)
    WHERE id = OLD.dataset_id;
    UPDATE blobs SET free_since = CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)
    WHERE sha256 = OLD.sha256 AND NOT EXISTS (SELECT 1 FROM dataset_entries WHERE sha256 = OLD.sha256);
END;
-- A sealed set stays as it was sealed.
CREATE TRIGGER dataset_entries_sealed_in BEFORE INSERT ON dataset_entries
WHEN (SELECT state FROM datasets WHERE id = NEW.dataset_id) <> 'open' BEGIN
    SELECT raise(ABORT, 'a sealed data set takes no more');
END;
CREATE TRIGGER datasets_final BEFORE UPDATE OF state ON datasets
WHEN OLD.state IN ('ready', 'rejected') AND OLD.state <> NEW.state BEGIN
    SELECT raise(ABORT, 'a validated data set stays as it is');
END;
