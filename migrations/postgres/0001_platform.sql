-- Names sort by their bytes, as in SQLite: the same list on both.
CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT COLLATE "C" NOT NULL,
    display_name TEXT NOT NULL,
    email TEXT,
    role TEXT NOT NULL,
    status TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    must_change_password BOOLEAN NOT NULL,
    -- Counts what ends all access tokens given out before: a new password, another role, a sign-out everywhere.
    token_version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_login_at BIGINT,
    deleted_at BIGINT
);
-- A deleted user's name is free again; the row stays, for what it did.
CREATE UNIQUE INDEX users_username ON users (username) WHERE deleted_at IS NULL;
-- Lists follow them.
CREATE INDEX users_created_at ON users (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX users_updated_at ON users (updated_at, id) WHERE deleted_at IS NULL;

CREATE TABLE teams (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX teams_name ON teams (name) WHERE deleted_at IS NULL;

CREATE TABLE team_members (
    team_id TEXT NOT NULL REFERENCES teams (id),
    user_id TEXT NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (team_id, user_id)
);
CREATE INDEX team_members_user ON team_members (user_id);

CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    team_id TEXT REFERENCES teams (id),
    name TEXT COLLATE "C" NOT NULL,
    -- The first characters, by which people know it again.
    prefix TEXT NOT NULL,
    hash TEXT NOT NULL,
    -- After a rotation the old secret goes on for a while.
    previous_hash TEXT,
    previous_expires_at BIGINT,
    -- JSON arrays; models and cidrs may be null: no restriction.
    scopes TEXT NOT NULL,
    models TEXT,
    cidrs TEXT,
    status TEXT NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_used_at BIGINT,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);
CREATE INDEX api_keys_previous_hash ON api_keys (previous_hash);
CREATE INDEX api_keys_user ON api_keys (user_id);
-- Lists follow them.
CREATE INDEX api_keys_created_at ON api_keys (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX api_keys_updated_at ON api_keys (updated_at, id) WHERE deleted_at IS NULL;
CREATE INDEX api_keys_name ON api_keys (name, id) WHERE deleted_at IS NULL;

-- A session is a family of refresh tokens: one sign-in on one device.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    address TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_because TEXT
);
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE refresh_tokens (
    hash TEXT NOT NULL PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id),
    -- With it the successor is computed from the token, which is not here.
    seed TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

-- Single-use tickets that open a WebSocket from a browser.
CREATE TABLE tickets (
    hash TEXT NOT NULL PRIMARY KEY,
    -- JSON: the credential it stands for.
    grant_for TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE signing_keys (
    id TEXT NOT NULL PRIMARY KEY,
    secret TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Signs no more; what it signed is accepted until then.
    retires_at BIGINT
);

-- Failed sign-ins, by account, by address, and by account at an address it is known from.
CREATE TABLE sign_in_failures (
    subject TEXT NOT NULL PRIMARY KEY,
    failures BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    blocked_until BIGINT NOT NULL
);
CREATE INDEX sign_in_failures_last_at ON sign_in_failures (last_at);

CREATE TABLE models (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    -- JSON array of sources; empty: the catalogue's.
    sources TEXT NOT NULL,
    aliases TEXT NOT NULL,
    description TEXT NOT NULL,
    sha256 TEXT,
    context_length BIGINT,
    -- JSON objects.
    defaults TEXT NOT NULL,
    limits TEXT NOT NULL,
    visibility TEXT NOT NULL,
    pinned BOOLEAN NOT NULL,
    enabled BOOLEAN NOT NULL,
    preload BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE model_teams (
    model_id TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    team_id TEXT NOT NULL REFERENCES teams (id),
    PRIMARY KEY (model_id, team_id)
);

CREATE TABLE audit (
    seq BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    actor_kind TEXT NOT NULL,
    actor_id TEXT,
    actor_name TEXT NOT NULL,
    action TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_id TEXT,
    outcome TEXT NOT NULL,
    -- JSON, secrets masked.
    before TEXT,
    after TEXT,
    address TEXT NOT NULL,
    request_id TEXT NOT NULL,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX audit_action ON audit (action);
CREATE INDEX audit_actor ON audit (actor_id);
CREATE INDEX audit_target ON audit (target_id);

-- The end of the chain: one row. Locked by every administrative write, which are thereby one after the other.
CREATE TABLE audit_head (
    id BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '');

-- One row a request that reached an engine.
CREATE TABLE usage_records (
    id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    request_id TEXT NOT NULL,
    user_id TEXT,
    key_id TEXT,
    team_id TEXT,
    model TEXT NOT NULL,
    asked_for TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    cached_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    duration_ms BIGINT NOT NULL
);
CREATE INDEX usage_records_at ON usage_records (at);
CREATE INDEX usage_records_user ON usage_records (user_id, at);
CREATE INDEX usage_records_key ON usage_records (key_id, at);

-- Counters that replicas watch to learn of changes made elsewhere.
CREATE TABLE revisions (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO revisions (name, value) VALUES ('authority', 1), ('models', 1);
