-- The version of the model that a training has made; 0 = none yet.
ALTER TABLE trainings ADD COLUMN version INTEGER NOT NULL DEFAULT 0 CHECK (version >= 0);
