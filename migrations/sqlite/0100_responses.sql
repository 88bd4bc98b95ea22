-- Answers that are kept for whoever asked.
CREATE TABLE responses (
    id TEXT NOT NULL PRIMARY KEY,
    -- A user's id, or a name for all who show what belongs to no user.
    owner TEXT NOT NULL,
    -- The answer that this one goes on from.
    previous_id TEXT,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- While it is being made: when its maker last said so.
    beat_at BIGINT,
    bytes BIGINT NOT NULL,
    -- JSON: the answer as it is shown, and the items that it answers.
    body TEXT NOT NULL,
    input TEXT NOT NULL
);
CREATE INDEX responses_owner ON responses (owner, created_at, id, bytes);
CREATE INDEX responses_expires_at ON responses (expires_at);
CREATE INDEX responses_beat_at ON responses (beat_at) WHERE beat_at IS NOT NULL;
