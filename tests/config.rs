//! Settings: which layer wins, what is refused and how, and that no secret is shown.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use sconce::config::{Config, Environment, MemoryBudget, Origin, RawConfig};
use secrecy::ExposeSecret;

fn environment(variables: &[(&str, &str)]) -> Environment {
    let home = [("HOME".to_owned(), "/home/someone".to_owned())];
    home.into_iter()
        .chain(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
        .collect()
}

fn load(flags: RawConfig, variables: &[(&str, &str)]) -> Config {
    Config::load_from(flags, &environment(variables)).unwrap()
}

fn refusal(flags: RawConfig, variables: &[(&str, &str)]) -> String {
    Config::load_from(flags, &environment(variables)).unwrap_err().to_string()
}

fn origin(config: &Config, name: &str) -> Origin {
    config.explain().iter().find(|explained| explained.name == name).unwrap().origin.clone()
}

fn shown(config: &Config, name: &str) -> String {
    config.explain().iter().find(|explained| explained.name == name).unwrap().value.clone()
}

#[test]
fn without_a_word_said_the_defaults_hold() {
    let config = load(RawConfig::default(), &[]);
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.data_dir, PathBuf::from("/home/someone/.local/share/sconce"));
    assert_eq!(config.models.hub.cache, PathBuf::from("/home/someone/.cache/huggingface/hub"));
    assert_eq!(config.models.memory_budget, MemoryBudget::Percent(80));
    assert_eq!(config.models.idle_timeout, None);
    assert!(config.models.models.is_empty());
    assert!(config.explain().iter().all(|explained| explained.origin == Origin::Default));
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sconce.toml");
    std::fs::write(
        &file,
        "listen = '127.0.0.1:1'\nload_wait = '1s'\nqueue-timeout = 7\nmodel = ['a', 'b']\n",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let flags = RawConfig::default().with("listen", "127.0.0.1:3");
    let config =
        load(flags, &[("SCONCE_CONFIG", path), ("SCONCE_LISTEN", "127.0.0.1:2"), ("SCONCE_LOAD_WAIT", "2s")]);

    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(origin(&config, "listen"), Origin::Flag("listen"));
    assert_eq!(config.models.load_wait, Duration::from_secs(2));
    assert_eq!(origin(&config, "load-wait"), Origin::Environment("SCONCE_LOAD_WAIT".into()));
    assert_eq!(config.engine.queue_timeout, Duration::from_secs(7));
    assert_eq!(origin(&config, "queue-timeout"), Origin::File(file));
    assert_eq!(config.models.models.len(), 2);
    assert_eq!(origin(&config, "prefill-chunk"), Origin::Default);
}

#[test]
fn models_come_repeated_as_flags_and_separated_in_the_variable() {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: RawConfig,
    }
    let line =
        Line::parse_from(["sconce", "--model", "x=/models/a,b.gguf", "--model", "c", "--data-dir", "/data"]);
    let config = load(line.config, &[("SCONCE_MODEL", "d")]);
    let texts: Vec<_> = config.models.models.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["x=/models/a,b.gguf", "c"]);
    assert_eq!(config.data_dir, PathBuf::from("/data"));

    let config = load(RawConfig::default(), &[("SCONCE_MODEL", "a, b=/c\n hf:d/e,")]);
    let texts: Vec<_> = config.models.models.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["a", "b=/c", "hf:d/e"]);
}

#[test]
fn the_hubs_own_variables_are_respected() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "hf_from_file\n").unwrap();
    let home = folder.path().to_str().unwrap();

    let config = load(RawConfig::default(), &[("HF_HOME", home), ("HF_ENDPOINT", "https://mirror.example/")]);
    assert_eq!(config.models.hub.endpoint, "https://mirror.example");
    assert_eq!(config.models.hub.cache, folder.path().join("hub"));
    assert_eq!(config.models.hub.token.as_ref().unwrap().expose_secret(), "hf_from_file");

    let variables =
        [("HF_HOME", home), ("HF_HUB_CACHE", "/c"), ("HF_TOKEN", "hf_said"), ("HF_HUB_OFFLINE", "1")];
    let config = load(RawConfig::default(), &variables);
    assert_eq!(config.models.hub.cache, PathBuf::from("/c"));
    assert_eq!(config.models.hub.token.as_ref().unwrap().expose_secret(), "hf_said");
    assert!(config.models.hub.offline);
    assert_eq!(origin(&config, "hub-token"), Origin::Environment("HF_TOKEN".into()));
}

#[test]
fn secrets_are_masked_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "key-in-file\n").unwrap();
    let config = load(RawConfig::default(), &[("SCONCE_API_KEY", "key-one"), ("HF_TOKEN", "hf_two")]);
    assert_eq!(config.auth.api_key.as_ref().unwrap().expose_secret(), "key-one");
    assert_eq!(shown(&config, "api-key"), "********");
    let everything = format!("{config:?}");
    assert!(!everything.contains("key-one") && !everything.contains("hf_two"));

    let config = load(RawConfig::default().with("api-key-file", file.to_str().unwrap()), &[]);
    assert_eq!(config.auth.api_key.as_ref().unwrap().expose_secret(), "key-in-file");
}

#[test]
fn what_is_wrong_is_named_with_its_origin() {
    let typed = refusal(RawConfig::default().with("listen", "nowhere"), &[]);
    assert!(typed.contains("`listen`") && typed.contains("--listen"), "{typed}");
    let variable = refusal(RawConfig::default(), &[("SCONCE_DEVICE", "abacus")]);
    assert!(variable.contains("SCONCE_DEVICE") && variable.contains("abacus"), "{variable}");
    for (name, value) in [("max-running", "0"), ("keep-alive", "0s"), ("socket-idle-timeout", "0")] {
        let zero = refusal(RawConfig::default().with(name, value), &[]);
        assert!(zero.contains(name), "{zero}");
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sconce.toml");
    std::fs::write(&file, "lissten = 'x'").unwrap();
    let unknown = refusal(RawConfig::default().with("config", file.to_str().unwrap()), &[]);
    assert!(unknown.contains("`lissten` is not a setting"), "{unknown}");
    std::fs::write(&file, "listen = [").unwrap();
    let damaged = refusal(RawConfig::default().with("config", file.to_str().unwrap()), &[]);
    assert!(damaged.contains("sconce.toml"), "{damaged}");
    let missing = refusal(RawConfig::default().with("config", "/no/such/file.toml"), &[]);
    assert!(missing.contains("/no/such/file.toml"), "{missing}");
}

#[test]
fn without_authentication_only_this_machine_may_be_listened_to() {
    let open = refusal(RawConfig::default().with("listen", "0.0.0.0:8080").with("auth", "off"), &[]);
    assert!(open.contains("`auth` is off"), "{open}");
    load(RawConfig::default().with("listen", "0.0.0.0:8080"), &[]);
    load(RawConfig::default().with("listen", "[::1]:8080").with("auth", "off"), &[]);
}

#[test]
fn the_databases_address_is_shown_without_its_password() {
    let url = "postgres://sconce:hunter2@db.example/sconce";
    let config = load(RawConfig::default(), &[("SCONCE_DATABASE_URL", url)]);
    assert_eq!(config.database_url.expose_secret(), url);
    assert_eq!(shown(&config, "database-url"), "postgres://********@db.example/sconce");
    assert!(!format!("{config:?}").contains("hunter2"));
    let config = load(RawConfig::default(), &[("SCONCE_DATA_DIR", "/data")]);
    assert_eq!(config.database_url.expose_secret(), "sqlite:///data/sconce.db");
}

#[test]
fn only_a_file_of_ours_is_bounded() {
    let bounded = || RawConfig::default().with("database-max-size", "1GiB");
    assert_eq!(load(RawConfig::default(), &[]).database_max_bytes, None);
    assert_eq!(load(bounded(), &[]).database_max_bytes, Some(1 << 30));
    let elsewhere = bounded().with("database-url", "postgres://db.example/sconce");
    let error = refusal(elsewhere, &[]);
    assert!(error.contains("`database-max-size` is for SQLite"), "{error}");
}

#[test]
fn the_handbook_has_every_setting_with_its_default_and_a_file_that_is_good() {
    let handbook = include_str!("../docs/operations.md");
    let row = |spelled: &str| handbook.lines().find(|line| line.starts_with(&format!("| `{spelled}`")));
    for setting in load(RawConfig::default(), &[]).explain() {
        let variable = format!("SCONCE_{}", setting.name.to_uppercase().replace('-', "_"));
        let row = row(&format!("--{}", setting.name)).or_else(|| row(&variable));
        let row = row.unwrap_or_else(|| panic!("`{}` is not in docs/operations.md", setting.name));
        // Those that are computed are told in words.
        let is_told =
            row.contains(&format!("`{}`", setting.value)) || row.contains(" in the ") || row.contains("| $");
        assert!(setting.value.is_empty() || is_told, "{row}: it is {}", setting.value);
    }
    let (_, rest) = handbook.split_once("```toml\n").expect("a sample");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sconce.toml");
    std::fs::write(&file, rest.split_once("```").expect("its end").0).unwrap();
    let config = load(RawConfig::default().with("config", file.to_str().unwrap()), &[]);
    assert_eq!(config.models.models.len(), 2);
}
