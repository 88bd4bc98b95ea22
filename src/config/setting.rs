//! The table of everything that can be set: one name, spelled as a flag, an environment variable and a file key.
//!
//! Not the checked values (that is `mod.rs`). To add a setting: a row here, a field and a line in `mod.rs`.

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// `listen` is the flag `--listen`, the variable `SCONCE_LISTEN` and the key `listen` of the file.
    pub name: &'static str,
    /// How its value is written, for the help text.
    pub value: &'static str,
    /// What it is when nobody says; empty if it is then absent.
    pub default: &'static str,
    /// For the help text.
    pub help: &'static str,
    /// Variables of other programs that mean the same, asked after our own.
    pub also: &'static [&'static str],
    /// May be given more than once; in a variable, separated by commas or line breaks.
    pub many: bool,
    /// Never shown, and no flag: other users of the machine can read command lines.
    pub secret: bool,
}

impl Setting {
    /// `SCONCE_LISTEN` for `listen`.
    pub fn variable(&self) -> String {
        format!("SCONCE_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

const fn one(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, value, default, help, also: &[], many: false, secret: false }
}

const fn many(name: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { name, value, default: "", help, also: &[], many: true, secret: false }
}

/// Everything that can be set, in the order in which it is shown.
pub const SETTINGS: &[Setting] = &[
    one("config", "FILE", "", "Settings file (TOML); its keys are the names of these flags"),
    one(
        "data-dir",
        "DIR",
        "",
        "Where models and state are kept [default: $XDG_DATA_HOME/sconce or ~/.local/share/sconce]",
    ),
    one(
        "database-url",
        "URL",
        "",
        "Where users, keys and records are kept: sqlite://PATH or postgres://… [default: sconce.db in the data folder]",
    ),
    one(
        "database-max-size",
        "SIZE|off",
        "off",
        "Largest size of the SQLite file; what needs more is refused with 507",
    ),
    // server
    one("listen", "ADDRESS", "127.0.0.1:8080", "Address and port to serve on"),
    Setting {
        secret: true,
        ..one("api-key", "KEY", "", "A key that may use models, besides those in the database")
    },
    one(
        "api-key-file",
        "FILE",
        "",
        "File that holds a key that may use models, besides those in the database",
    ),
    one("auth", "BOOL", "on", "off: /v1 and chat ask for no key, on a loopback address only"),
    Setting {
        secret: true,
        ..one(
            "jwt-secret",
            "SECRET",
            "",
            "Secret that signs access tokens, 32 bytes or more [default: made and kept in the database]",
        )
    },
    one("admin-username", "NAME", "admin", "Name of the first user, made when there is none"),
    Setting {
        secret: true,
        ..one(
            "admin-password",
            "PASSWORD",
            "",
            "Password of the first user [default: made, and printed once]",
        )
    },
    many("trusted-proxy", "NETWORK", "Proxy whose X-Forwarded-For is believed; repeatable"),
    many("allowed-origin", "ORIGIN", "Web origin whose pages may call this server; repeatable"),
    one("ollama", "auto|on|off", "auto", "Speak Ollama's protocol, too; auto: on a loopback address only"),
    one("max-body-size", "SIZE", "32MiB", "Largest request body"),
    one("request-timeout", "TIME", "10m", "Longest time one request may take"),
    one("drain-timeout", "TIME", "30s", "How long running requests may go on after a stop signal"),
    one("keep-alive", "TIME", "15s", "How often a silent stream sends a comment, and a WebSocket a ping"),
    one("socket-idle-timeout", "TIME", "10m", "A WebSocket on which nothing is said for this long is closed"),
    one("slow-client-timeout", "TIME", "30s", "A stream whose client reads nothing for this long is cut"),
    // files and batches
    one("max-file-size", "SIZE", "200MiB", "Largest file that may be uploaded"),
    one("max-user-files", "SIZE", "2GiB", "What one user's files may take together"),
    one("batch-running", "NUMBER", "8", "Requests of batches that run at the same time on one server"),
    one(
        "response-retention",
        "TIME",
        "30d",
        "How long answers of /v1/responses and stored chats are kept; off: not at all",
    ),
    // models
    many(
        "model",
        "NAME|PATH|SOURCE",
        "Model to serve: catalogue name, file or folder, or source; ID=… names it; repeatable [default: the catalogue's chat and embedding models]",
    ),
    one("device", "DEVICE", "auto", "Where models run: auto, cpu, cuda:N or metal"),
    one(
        "cache-type",
        "TYPE",
        "auto",
        "How keys and values are stored: auto (bf16 for quantised weights where the processor has tiles for it, unless other arithmetic is asked for; else f16), f16, bf16 (only there), q8_0 (half the memory, CPU only) or f32",
    ),
    one(
        "arithmetic",
        "KIND",
        "auto",
        "Products with quantised weights on the CPU: auto (bf16 where the processor has tiles for it, but for weights of 8 bits; else integer), integer (the same bits on every processor of an architecture; with tiles faster for a few streams of a small model, slower for prompts), or float (slow, to compare with a reference)",
    ),
    one("context-length", "TOKENS", "", "Longest context, where below the model's own"),
    one(
        "memory-budget",
        "SIZE|PERCENT",
        "80%",
        "Memory that models may take; a percentage is of what is free at start",
    ),
    one("idle-timeout", "TIME", "off", "Unload models that nobody used for this long"),
    many("pin", "ID", "Model that is never unloaded to make room; repeatable"),
    one("load-wait", "TIME", "60s", "How long a request waits for its model to load"),
    one(
        "catalog",
        "FILE",
        "",
        "Catalogue (TOML) whose entries are added to the built-in ones and go before them",
    ),
    many(
        "model-root",
        "DIR",
        "Folder below which administrators may register files by their path; repeatable [default: models in the data folder]",
    ),
    // where models come from
    one("offline", "BOOL", "false", "Fetch nothing from any network"),
    Setting {
        also: &["HF_ENDPOINT"],
        ..one("hub-endpoint", "URL", "https://huggingface.co", "The hub, or a mirror of it")
    },
    Setting {
        also: &["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"],
        secret: true,
        ..one("hub-token", "TOKEN", "", "Token for the hub")
    },
    Setting {
        also: &["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"],
        ..one(
            "hub-cache",
            "DIR",
            "",
            "The hub's cache, shared with other programs [default: $HF_HOME/hub or ~/.cache/huggingface/hub]",
        )
    },
    Setting {
        also: &["HF_HUB_OFFLINE"],
        ..one("hub-offline", "BOOL", "false", "Use only what the hub's cache holds")
    },
    Setting {
        also: &["MODELSCOPE_ENDPOINT"],
        ..one("modelscope-endpoint", "URL", "https://www.modelscope.cn", "ModelScope, or a mirror of it")
    },
    one("pip", "COMMAND", "python3 -m pip", "How pip is called for pip: sources"),
    many(
        "private-host",
        "HOST[:PORT]",
        "Host that model files may come from though its address is private or its connection plain; repeatable",
    ),
    one("max-download", "SIZE", "200GiB", "Largest model that is fetched"),
    one(
        "stall-timeout",
        "TIME",
        "60s",
        "A download that brings nothing for this long is broken off and resumed",
    ),
    // engine
    one(
        "cache-memory",
        "SIZE",
        "auto",
        "Memory of one model's keys and values; auto: room for four long conversations",
    ),
    one("max-batch-tokens", "TOKENS", "512", "Most tokens in one step"),
    one("prefill-chunk", "TOKENS", "64", "Most prompt tokens in a step that others are waiting for"),
    one("max-running", "NUMBER", "64", "Most sequences in one step"),
    one("max-waiting", "NUMBER", "256", "Most requests waiting for one model; one more is refused"),
    one("queue-timeout", "TIME", "2m", "How long a request may wait before its first step"),
    one("prefix-cache", "BOOL", "true", "Keep and reuse the keys and values of common beginnings"),
    one(
        "speculation",
        "auto|off",
        "auto",
        "Guess tokens where an answer repeats its prompt or itself, or what `prediction` said, where that is quicker; answers stay the same",
    ),
    one("embedding-batch-tokens", "TOKENS", "2048", "Most tokens in one pass of an embedding model"),
    // log
    Setting {
        also: &["RUST_LOG"],
        ..one("log", "FILTER", "info", "What is logged: error, warn, info, debug, trace, or by module")
    },
    one("log-format", "FORMAT", "text", "text or json"),
];

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}
