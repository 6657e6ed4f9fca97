-- Steps of a training that were left out since a loss or a gradient was not finite.
ALTER TABLE trainings ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0 CHECK (skipped >= 0);
