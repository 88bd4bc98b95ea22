-- What a chat that is kept has beside its row in `responses`, with which it goes.
CREATE TABLE stored_chats (
    id TEXT NOT NULL PRIMARY KEY REFERENCES responses (id) ON DELETE CASCADE,
    -- As it was asked for.
    model TEXT NOT NULL,
    -- JSON: the owner's notes, which may be changed.
    metadata TEXT NOT NULL
);
