-- What a picture's rain score is (docs/rain-score.md); NULL where it has none. Older facts have another edition and are
-- made anew.

ALTER TABLE blob_facts ADD COLUMN rain REAL CHECK (rain BETWEEN 0 AND 100);
