-- What a version of a model is beyond its bytes: where it came from, what judged it, and which one is the default. A
-- version's verdict is NULL until a gate has looked at it; `path` is the weights' file of a configured version (those of
-- the other origins lie in the data folder, under names made from name and version).

ALTER TABLE models ADD COLUMN origin TEXT NOT NULL DEFAULT 'configured'
    CHECK (origin IN ('configured', 'trained', 'imported'));
ALTER TABLE models ADD COLUMN verdict TEXT CHECK (verdict IN ('accepted', 'rejected'));
ALTER TABLE models ADD COLUMN parent INTEGER NOT NULL DEFAULT 0 CHECK (parent >= 0); -- version of the same name, 0 = none
ALTER TABLE models ADD COLUMN dataset TEXT NOT NULL DEFAULT '';
ALTER TABLE models ADD COLUMN job TEXT NOT NULL DEFAULT '';
ALTER TABLE models ADD COLUMN measures TEXT;
ALTER TABLE models ADD COLUMN gate TEXT;
ALTER TABLE models ADD COLUMN configured INTEGER NOT NULL DEFAULT 0 CHECK (configured IN (0, 1)); -- by the last start
ALTER TABLE models ADD COLUMN about TEXT NOT NULL DEFAULT '{}'; -- dtype, params, metadata of the file
ALTER TABLE models ADD COLUMN path TEXT NOT NULL DEFAULT '';

-- One row a name: `revision` counts the changes of what the name stands for (its ETag).
CREATE TABLE model_names (
    name     TEXT PRIMARY KEY NOT NULL,
    revision INTEGER NOT NULL DEFAULT 1
) STRICT, WITHOUT ROWID;

-- A stack a name, 100 high: the top is the default; a roll-back takes it off.
CREATE TABLE model_defaults (
    name    TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    version INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (name, seq),
    FOREIGN KEY (name, version) REFERENCES models (name, version) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

INSERT INTO model_names (name) SELECT DISTINCT name FROM models;
INSERT INTO model_defaults (name, seq, version, at) SELECT name, 1, version, created_at FROM models WHERE is_default = 1;
