-- A version that was made from a checkpoint of its job names the step; 0 = from the end of a job, or from no job. One
-- version a checkpoint: publishing it again finds the row.

ALTER TABLE models ADD COLUMN step INTEGER NOT NULL DEFAULT 0 CHECK (step >= 0);
CREATE UNIQUE INDEX models_published ON models (name, job, step) WHERE step > 0;
