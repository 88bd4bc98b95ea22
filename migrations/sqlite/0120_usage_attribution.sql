-- Whom a request was for, and what else its caller noted of it, in the caller's own words.
ALTER TABLE usage_records ADD COLUMN end_user TEXT;
ALTER TABLE usage_records ADD COLUMN metadata TEXT;
