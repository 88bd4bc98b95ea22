-- What users upload, and what batches write, in pieces. A file is seen once it is whole.
CREATE TABLE files (
    id TEXT NOT NULL PRIMARY KEY,
    -- A user's id, or who it was without one.
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    -- arriving, there, deleted.
    status TEXT NOT NULL,
    -- The batch that writes it.
    batch_id TEXT,
    created_at BIGINT NOT NULL,
    -- When the last piece came.
    touched_at BIGINT NOT NULL,
    expires_at BIGINT
);
CREATE INDEX files_owner ON files (owner, created_at, id);
CREATE INDEX files_status ON files (status, touched_at);
CREATE INDEX files_expires_at ON files (expires_at);
CREATE INDEX files_batch ON files (batch_id);

-- Pieces of one length, but for the last of a file.
CREATE TABLE file_chunks (
    file_id TEXT NOT NULL REFERENCES files (id),
    number BIGINT NOT NULL,
    content BYTEA NOT NULL,
    PRIMARY KEY (file_id, number)
);

CREATE TABLE batches (
    id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    -- JSON: the credential that it goes on by.
    credential TEXT NOT NULL,
    input_file_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    completion_window TEXT NOT NULL,
    -- JSON.
    metadata TEXT,
    -- How long what it writes is kept, in seconds.
    output_seconds BIGINT,
    status TEXT NOT NULL,
    -- What it will be once its files are written.
    ending TEXT,
    -- JSON: an array.
    errors TEXT,
    output_file_id TEXT,
    error_file_id TEXT,
    created_at BIGINT NOT NULL,
    in_progress_at BIGINT,
    finalizing_at BIGINT,
    completed_at BIGINT,
    failed_at BIGINT,
    expired_at BIGINT,
    cancelling_at BIGINT,
    cancelled_at BIGINT,
    expires_at BIGINT NOT NULL,
    total BIGINT NOT NULL,
    completed BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    -- The replica that runs it, until then unless it says so again.
    holder TEXT,
    held_until BIGINT,
    -- Its lines are gone.
    is_swept BOOLEAN NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX batches_owner ON batches (owner, created_at, id);
CREATE INDEX batches_status ON batches (status, created_at);
CREATE INDEX batches_input ON batches (input_file_id);
CREATE INDEX batches_is_swept ON batches (is_swept);

-- The requests of a batch that is not over, each with its result once it has one.
CREATE TABLE batch_lines (
    batch_id TEXT NOT NULL REFERENCES batches (id),
    -- Of the line in the file, from 1.
    number BIGINT NOT NULL,
    custom_id TEXT NOT NULL,
    -- Where it stands in the file, in bytes.
    place BIGINT NOT NULL,
    length BIGINT NOT NULL,
    -- Of the answer, as HTTP has it; null until there is one.
    status BIGINT,
    -- The line of the output.
    output TEXT,
    PRIMARY KEY (batch_id, number)
);
