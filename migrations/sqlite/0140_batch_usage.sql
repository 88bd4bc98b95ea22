-- The model that all requests of a batch ask for, and what they used; null of batches that were made before this was counted.
ALTER TABLE batches ADD COLUMN model TEXT;
ALTER TABLE batches ADD COLUMN input_tokens BIGINT;
ALTER TABLE batches ADD COLUMN cached_tokens BIGINT;
ALTER TABLE batches ADD COLUMN output_tokens BIGINT;
ALTER TABLE batches ADD COLUMN reasoning_tokens BIGINT;
