//! Hostile sources, line by line of the security checklist (D1 to D7): what an administrator, a server or an archive
//! may send to make this machine ask where it should not, read what it should not, or fill its disk.
//!
//! A source is judged twice: when it is registered (`SourcePolicy`), and when it is used (the guard of each
//! connection, the roots of each path). Each line is tested at both, the second as if the first had been passed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/app.rs"]
mod app;
#[path = "database/mod.rs"]
mod database;
mod mock_hub;
mod model_house;

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use app::{OWNER, OWNER_PASSWORD, TestApp, bearer, read_error};
use flate2::Compression;
use flate2::write::GzEncoder;
use mock_hub::{Fault, MockHub, Served, content, sha256};
use model_house::{House, PATIENCE, house, llama};
use reqwest::Method;
use sconce::error::{Code, Failure};
use sconce::manager::{Checksum, ManagerError, ModelDefinition, ModelState, Progress, ProgressSink};
use serde_json::json;
use tokio::time::timeout;

/// A house whose models may lie below `root`, with a hub.
struct Scene {
    hub: MockHub,
    house: House,
    root: PathBuf,
    _folder: tempfile::TempDir,
}

async fn scene(more: &[(&str, &str)]) -> Scene {
    let hub = MockHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap().join("root");
    std::fs::create_dir(&root).unwrap();
    let own = format!("own={}", llama());
    let mut settings = vec![
        ("hub-endpoint", hub.url.as_str()),
        ("model", own.as_str()),
        ("model-root", root.to_str().unwrap()),
        ("stall-timeout", "300ms"),
        ("max-download", "16MiB"),
    ];
    settings.extend(more);
    let house = house(&settings);
    Scene { hub, house, root, _folder: folder }
}

impl Scene {
    /// Registers what the policy would not let through, as a row written by another hand would.
    fn define(&self, source: &str) -> ModelDefinition {
        let mut definition = ModelDefinition::new("hostile");
        definition.sources.push(source.parse().unwrap());
        self.house.follow(vec![definition.clone()]);
        definition
    }

    /// What becomes of a source that is used: why it cannot be, or the words for its being used.
    async fn used(&self, source: &str) -> ManagerError {
        self.define(source);
        self.refusal().await
    }

    async fn refusal(&self) -> ManagerError {
        match timeout(PATIENCE, self.house.load("hostile")).await.unwrap() {
            Ok(()) => panic!("it was loaded: {:?}", self.house.one("hostile")),
            Err(error) => error,
        }
    }

    fn detail(&self) -> String {
        self.house.one("hostile").unwrap().last_error.unwrap()
    }

    /// Whether registering it is refused, as it should be, and how.
    async fn refused(&self, source: &str) -> bool {
        match self.house.source_policy().check(source).await {
            Ok(_) => false,
            Err(refusal) => {
                assert_eq!((refusal.code().number(), refusal.param()), (40011, Some("sources")), "{source}");
                true
            }
        }
    }

    /// Files that a loader could be pointed at.
    fn models(&self) -> Vec<PathBuf> {
        let home = self.house.folder.path();
        let mut found = files_below(&home.join(".local/share/sconce/models"));
        found.extend(files_below(&home.join(".cache/huggingface/hub")));
        found.retain(|path| path.file_name().is_none_or(|name| name != "manifest.json"));
        found.retain(|path| !path.components().any(|part| part.as_os_str() == ".sconce-partial"));
        found
    }

    fn quarantined(&self) -> Vec<PathBuf> {
        files_below(&self.house.folder.path().join(".local/share/sconce/quarantine"))
    }

    /// Bytes of everything that was written.
    fn written(&self) -> u64 {
        let files = files_below(self.house.folder.path());
        files.iter().map(|path| std::fs::symlink_metadata(path).unwrap().len()).sum()
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// A server that notices every connection, whatever is said on it.
struct Tripwire {
    listener: TcpListener,
    port: u16,
}

impl Tripwire {
    fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    fn was_touched(&self) -> bool {
        self.listener.accept().is_ok()
    }
}

#[tokio::test]
async fn d1_an_address_that_is_not_public_is_refused_and_never_asked() {
    let scene = scene(&[]).await;
    let inside = Tripwire::set();
    let port = inside.port;
    for url in [
        format!("https://127.0.0.1:{port}/x.gguf"),
        format!("https://127.1:{port}/x.gguf"),
        format!("https://0.0.0.0:{port}/x.gguf"),
        format!("https://[::1]:{port}/x.gguf"),
        format!("https://[::]:{port}/x.gguf"),
        format!("https://[::ffff:127.0.0.1]:{port}/x.gguf"),
        format!("https://2130706433:{port}/x.gguf"),
        format!("https://0x7f.1:{port}/x.gguf"),
        format!("https://0177.0.0.1:{port}/x.gguf"),
        format!("https://localhost:{port}/x.gguf"),
        format!("https://localhost.:{port}/x.gguf"),
        format!("https://LOCALHOST:{port}/x.gguf"),
        format!("https://%6cocalhost:{port}/x.gguf"),
        format!("https://\u{ff11}27.0.0.1:{port}/x.gguf"),
        format!("http://127.0.0.1:{port}/x.gguf"),
        "https://[::ffff:169.254.169.254]/x.gguf".into(),
        "https://169.254.169.254/latest/meta-data".into(),
        "https://metadata.google.internal/x.gguf".into(),
        "https://[fe80::1]/x.gguf".into(),
        "https://[fd00::1]/x.gguf".into(),
        "https://10.0.0.1/x.gguf".into(),
        "https://172.16.0.1/x.gguf".into(),
        "https://192.168.1.1/x.gguf".into(),
        "https://100.64.0.1/x.gguf".into(),
        "http://example.com/x.gguf".into(),
    ] {
        assert!(scene.refused(&url).await, "{url}");
        let refusal = scene.used(&url).await;
        assert!(
            matches!(refusal.code(), Code::SourceNotAllowed | Code::ModelFailed),
            "{url}: {refusal} {:?}",
            refusal.code()
        );
        assert!(!inside.was_touched(), "{url}");
        scene.house.follow(Vec::new());
    }
    assert_eq!(scene.used(&format!("https://127.0.0.1:{port}/x.gguf")).await.code().number(), 40011);
}

#[tokio::test]
async fn d1_texts_that_two_parsers_could_read_in_two_ways_are_refused() {
    let scene = scene(&[("private-host", "allowed.example")]).await;
    for text in [
        "https://user@example.com/x.gguf",
        "https://user:password@example.com/x.gguf",
        "http://allowed.example@evil.example/x.gguf",
        "http://evil.example\\@allowed.example/x.gguf",
        "https://evil.example\\@allowed.example/x.gguf",
        "https:\\\\example.com/x.gguf",
        "https://example.com\\x.gguf",
        "https://example.com /x.gguf",
        "https://exam\tple.com/x.gguf",
        "https://example.com/x.gguf\n",
        " https://example.com/x.gguf",
        "https://example.com\u{2044}x.gguf",
        "https://\u{ff4c}ocalhost/x.gguf",
        "https://example.com/",
        "https://",
        "ftp://example.com/x.gguf",
        "gopher://127.0.0.1/x",
        "javascript:alert(1)",
        "data:,x",
    ] {
        assert!(scene.refused(text).await, "{text:?}");
    }
    assert!(scene.refused(&format!("https://example.com/{}", "x".repeat(5000))).await);
    assert!(!scene.refused("http://allowed.example/x.gguf").await, "what the operator named is let through");
    assert!(!scene.refused("https://1.1.1.1/x.gguf").await);
}

#[tokio::test]
async fn d1_d4_what_is_refused_is_refused_to_an_administrator_over_http() {
    let (app, inside) = (TestApp::start().await, Tripwire::set());
    let token = app.sign_in(OWNER, OWNER_PASSWORD).await;
    let send = async |method: Method, path: &str, body: serde_json::Value| {
        let request = app.client.request(method, format!("{}/api/v1/admin/models{path}", app.url));
        let answer = request.headers(bearer(&token)).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<serde_json::Value>().await.unwrap()["code"].as_u64().unwrap())
    };
    let known = json!({"id": "known", "sources": ["hf:owner/name@main/model.gguf"]});
    assert_eq!(send(Method::POST, "", known).await, (201, 0));
    for source in [
        format!("https://127.0.0.1:{}/x.gguf", inside.port),
        format!("http://127.0.0.1:{}/x.gguf", inside.port),
        format!("https://localhost.:{}/x.gguf", inside.port),
        "https://[::ffff:169.254.169.254]/x.gguf".into(),
        "http://evil\\@allowed/x.gguf".into(),
        "/etc/passwd".into(),
        llama(),
        "../model.gguf".into(),
        "file:///etc/passwd".into(),
    ] {
        let hostile = json!({"id": "hostile", "sources": ["hf:owner/name@main/model.gguf", source]});
        assert_eq!(send(Method::POST, "", hostile).await, (400, 40011), "{source}");
        assert_eq!(send(Method::PUT, "/known", json!({"sources": [source]})).await, (400, 40011), "{source}");
    }
    assert!(app.manager.one("hostile").is_none());
    assert_eq!(app.manager.one("known").unwrap().sources, ["hf:owner/name@main/model.gguf"]);
    assert!(!inside.was_touched());
}

#[tokio::test]
async fn d2_each_hop_of_a_redirect_is_judged() {
    let inner = MockHub::start().await;
    let wire = Tripwire::set();
    let first = MockHub::start().await;
    let scene = scene(&[("private-host", first.host.as_str())]).await;
    inner.put("/model.gguf", Served::large(content(10)));
    for target in [
        format!("{}/model.gguf", inner.url),
        format!("https://127.0.0.1:{}/model.gguf", wire.port),
        format!("https://localhost:{}/model.gguf", wire.port),
        "https://169.254.169.254/latest".into(),
        "https://[::1]/x".into(),
        "file:///etc/passwd".into(),
        "//127.0.0.1/x".into(),
        "http://user@example.com/x".into(),
    ] {
        let hop = Served::large(content(10)).with([Fault::Redirect(target.clone())]);
        first.put("/second.gguf", hop);
        first.put("/model.gguf", Served::large(content(10)).with([Fault::Redirect("/second.gguf".into())]));
        scene.used(&format!("{}/model.gguf", first.url)).await;
        assert!(!scene.detail().contains("SHA-256"), "{target}: {}", scene.detail());
        scene.house.follow(Vec::new());
    }
    assert!(inner.asked().is_empty() && !wire.was_touched());
    assert_eq!(first.asked().len(), 16, "both of its own hops were taken each time");

    let around = std::iter::repeat_n(Fault::Redirect("/model.gguf".into()), 20);
    first.put("/model.gguf", Served::large(content(10)).with(around));
    scene.used(&format!("{}/model.gguf", first.url)).await;
    assert!(scene.detail().contains("more than 3 redirects"), "{}", scene.detail());
    assert_eq!(first.asked().len(), 16 + 4);
}

#[tokio::test]
async fn d2_credentials_stay_with_the_origin_that_they_are_for() {
    let (hub, storage) = (MockHub::start().await, MockHub::start().await);
    let bytes = std::fs::read(llama()).unwrap();
    let redirect = Fault::Redirect(format!("{}/blob", storage.url));
    hub.put_in("owner/name", "model.gguf", Served::large(bytes.clone()).with([redirect]));
    storage.put("/blob", Served { commit: None, ..Served::large(bytes) });
    let scene = scene(&[
        ("hub-endpoint", hub.url.as_str()),
        ("hub-token", "hf_s3cr3t"),
        ("private-host", storage.host.as_str()),
    ])
    .await;
    scene.define("hf:owner/name@main/model.gguf");
    scene.house.load("hostile").await.unwrap();
    assert_eq!(hub.asked()[0].header("authorization"), Some("Bearer hf_s3cr3t"));
    assert_eq!(storage.asked().len(), 1);
    assert_eq!(storage.asked()[0].header("authorization"), None);
}

#[tokio::test]
async fn d3_addresses_in_messages_are_never_asked() {
    let (app, wire) = (TestApp::start().await, Tripwire::set());
    let url = format!("http://127.0.0.1:{}/cat.png", wire.port);
    for part in [
        json!({"type": "image_url", "image_url": {"url": url}}),
        json!({"type": "image_url", "image_url": url}),
        json!({"type": "file", "file": {"file_url": url}}),
        json!({"type": "file_url", "file_url": {"url": url}}),
        json!({"type": "input_audio", "input_audio": {"data": url, "format": "wav"}}),
        json!({"type": "video_url", "video_url": {"url": url}}),
    ] {
        let messages =
            json!([{"role": "user", "content": [{"type": "text", "text": "what is this?"}, part]}]);
        let body = json!({"model": app::CHAT, "messages": messages});
        let (status, error) = app.refused("/v1/chat/completions", &body).await;
        assert_eq!(status, 400, "{part}: {error}");
    }
    assert!(!wire.was_touched());
}

#[tokio::test]
async fn d4_a_path_that_is_not_plainly_below_a_root_is_refused() {
    let scene = scene(&[]).await;
    let (root, outside) = (scene.root.clone(), scene.root.parent().unwrap().to_owned());
    let secret = outside.join("secret.gguf");
    for place in [&secret, &root.join("model.gguf")] {
        std::fs::copy(llama(), place).unwrap();
    }
    std::fs::create_dir_all(root.join("folder/deep")).unwrap();
    std::fs::create_dir_all(outside.join("root-not")).unwrap();
    std::fs::copy(llama(), outside.join("root-not/model.gguf")).unwrap();
    symlink(&secret, root.join("link.gguf")).unwrap();
    symlink(&outside, root.join("up")).unwrap();
    symlink("/etc", root.join("folder/deep/etc")).unwrap();
    symlink(root.join("nowhere"), root.join("dangling.gguf")).unwrap();
    std::fs::copy(llama(), root.join("twice.gguf")).unwrap();

    let below = |name: &str| format!("{}/{name}", root.display());
    assert!(!scene.refused(&below("model.gguf")).await, "what lies there is let through");
    for path in [
        below("../secret.gguf"),
        below("./model.gguf"),
        below("folder/../model.gguf"),
        below("link.gguf"),
        below("up/secret.gguf"),
        below("up"),
        below("folder"),
        below("dangling.gguf"),
        below("absent.gguf"),
        below("NUL"),
        below("con.gguf"),
        below("model.gguf."),
        below("model.gguf "),
        below(&format!("{}.gguf", "x".repeat(300))),
        below("folder\u{2215}model.gguf"),
        below("folder\u{ff0f}..\u{ff0f}model.gguf"),
        below("..\\secret.gguf"),
        below("model.gguf\0"),
        below(""),
        root.display().to_string(),
        secret.display().to_string(),
        outside.join("root-not/model.gguf").display().to_string(),
        "/etc/passwd".into(),
        "/".into(),
        "//etc/passwd".into(),
        "~/model.gguf".into(),
        "model.gguf".into(),
        "../model.gguf".into(),
        "\\\\server\\share\\model.gguf".into(),
        "C:\\model.gguf".into(),
        format!("file://{}", root.join("model.gguf").display()),
        format!("file:{}", root.join("model.gguf").display()),
    ] {
        assert!(scene.refused(&path).await, "{path:?}");
    }
    let there = scene.house.source_policy().check("/etc/passwd").await.unwrap_err();
    let not_there = scene.house.source_policy().check("/etc/no-such-file").await.unwrap_err();
    assert_eq!(there, not_there, "nobody learns what lies elsewhere");

    for path in [secret.clone(), root.join("link.gguf"), root.join("up/secret.gguf"), root.join("folder")] {
        let refusal = scene.used(path.to_str().unwrap()).await;
        assert_eq!(refusal.code().number(), 40011, "{path:?}: {refusal}");
        assert!(!refusal.to_string().contains("secret"), "{refusal}");
        scene.house.follow(Vec::new());
    }
}

#[tokio::test]
async fn d4_what_a_loader_reads_beside_a_file_is_held_to_the_roots_too() {
    let scene = scene(&[]).await;
    let (root, outside) = (&scene.root, scene.root.parent().unwrap());
    let model = root.join("model.gguf");
    std::fs::copy(llama(), &model).unwrap();
    std::fs::write(outside.join("tokenizer.json"), "{}").unwrap();
    symlink(outside.join("tokenizer.json"), root.join("tokenizer.json")).unwrap();
    assert!(scene.refused(model.to_str().unwrap()).await);
    assert_eq!(scene.used(model.to_str().unwrap()).await.code().number(), 40011);
}

#[tokio::test]
async fn d4_a_link_that_is_moved_after_the_registration_leads_nowhere() {
    let scene = scene(&[]).await;
    let (root, outside) = (&scene.root, scene.root.parent().unwrap());
    let (model, secret) = (root.join("model.gguf"), outside.join("secret.gguf"));
    std::fs::copy(llama(), &secret).unwrap();
    for checksum in [None, Some(sha256(&std::fs::read(llama()).unwrap()))] {
        std::fs::copy(llama(), &model).unwrap();
        assert!(!scene.refused(model.to_str().unwrap()).await);
        let mut definition = scene.define(model.to_str().unwrap());
        definition.checksum = checksum.map(|digest| Checksum::of_only_file(&digest).unwrap());
        scene.house.follow(vec![definition.clone()]);
        scene.house.load("hostile").await.unwrap();
        scene.house.unload("hostile").await.unwrap();
        std::fs::remove_file(&model).unwrap();
        symlink(&secret, &model).unwrap();
        assert!(!scene.house.one("hostile").unwrap().is_on_disk);
        let refusal = scene.refusal().await;
        assert_eq!(refusal.code().number(), 40011, "{refusal}: {}", scene.detail());
        std::fs::remove_file(&model).unwrap();
        scene.house.follow(Vec::new());
    }
}

/// Moves a file at the last moment: after its path was judged, before it is read.
struct Swap {
    model: PathBuf,
    secret: PathBuf,
}

impl ProgressSink for Swap {
    fn notice(&self, _model: &str, _text: &str) {}

    fn progress(&self, _model: &str, _progress: &Progress) {}

    fn end(&self, _model: &str) {
        std::fs::remove_file(&self.model).unwrap();
        symlink(&self.secret, &self.model).unwrap();
    }
}

#[tokio::test]
async fn d4_a_link_that_is_moved_between_the_check_and_the_reading_is_noticed() {
    let scene = scene(&[]).await;
    let (model, secret) = (scene.root.join("model.gguf"), scene.root.parent().unwrap().join("secret.gguf"));
    for place in [&model, &secret] {
        std::fs::copy(llama(), place).unwrap();
    }
    scene.house.report_to(Arc::new(Swap { model: model.clone(), secret }));
    let mut definition = ModelDefinition::new("hostile");
    definition.sources.push(model.to_str().unwrap().parse().unwrap());
    let digest = sha256(&std::fs::read(llama()).unwrap());
    // With a checksum the file is read before it is loaded, and the swap is told when.
    definition.checksum = Some(Checksum::of_only_file(&digest).unwrap());
    scene.house.follow(vec![definition]);
    let refusal = scene.refusal().await;
    assert_eq!(refusal.code().number(), 40011, "{refusal}");
    assert!(scene.detail().contains("leads elsewhere"), "{}", scene.detail());
    assert!(scene.house.engines().is_empty() && scene.house.one("hostile").unwrap().memory_bytes == 0);
}

#[tokio::test]
async fn d4_names_that_a_server_gives_stay_inside_the_models_folder() {
    let scene = scene(&[]).await;
    let names = [
        "../escape.safetensors",
        "/etc/escape.safetensors",
        "a/../../escape.safetensors",
        "C:\\escape.safetensors",
        "NUL.safetensors",
        "escape.safetensors.",
        "\u{2215}escape.safetensors",
        "file://escape.safetensors",
    ];
    let listed: Vec<_> = names.iter().map(|name| json!({"rfilename": name, "size": 4})).collect();
    let listing = json!({"sha": "x", "siblings": listed}).to_string();
    scene.hub.put_json("/api/models/owner/name/revision/main?blobs=true", &listing);
    scene.used("hf:owner/name").await;
    assert!(scene.detail().contains("neither safetensors nor GGUF"), "{}", scene.detail());
    assert_eq!(scene.hub.asked().len(), 1, "not one of them was asked for");
    for text in ["hf:owner/name@main/../x.gguf", "hf:../name", "modelscope:owner/..", "pip:x==1!../x.gguf"] {
        assert!(scene.refused(text).await, "{text}");
    }
}

/// A wheel with hostile members, made by Python's own archiver, and a pip that brings it.
fn hostile_wheel(folder: &Path, script: &str) -> String {
    let wheel = folder.join("hostile-1.0-py3-none-any.whl");
    let python = format!(
        "import sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as z:\n{script}\n"
    );
    let made = std::process::Command::new("python3").args(["-c", &python]).arg(&wheel).status().unwrap();
    assert!(made.success());
    let pip = folder.join("pip.sh");
    // The folder to save to is the argument after `--dest`.
    let text = format!("while [ \"$1\" != --dest ]; do shift; done; cp '{}' \"$2/\"\n", wheel.display());
    std::fs::write(&pip, text).unwrap();
    format!("sh {}", pip.display())
}

#[tokio::test]
async fn d5_an_archive_cannot_write_outside_make_links_or_swell() {
    let folder = tempfile::tempdir().unwrap();
    let pip = hostile_wheel(
        folder.path(),
        "
    z.writestr('p/model/../../../escape.json', 'x')
    z.writestr('../escape.safetensors', 'x')
    z.writestr('/p/model/absolute.safetensors', 'x')
    z.writestr('p/model/config.json', '{}')
    z.writestr('p/model/model.safetensors', 'none')
    link = zipfile.ZipInfo('p/link.gguf')
    link.create_system = 3
    link.external_attr = 0o120777 << 16
    z.writestr(link, '/etc/passwd')
    with z.open('p/bomb.gguf', 'w') as bomb:
        for _ in range(64):
            bomb.write(bytes(1 << 20))
    with z.open('p/bomb/model.safetensors', 'w') as bomb:
        for _ in range(64):
            bomb.write(bytes(1 << 20))",
    );
    let scene = scene(&[("pip", pip.as_str()), ("stall-timeout", "60s")]).await;

    for bomb in ["pip:hostile==1.0!p/bomb.gguf", "pip:hostile==1.0!p/bomb/"] {
        scene.used(bomb).await;
        assert!(scene.detail().contains("larger than `max-download`"), "{}", scene.detail());
        assert!(scene.written() < 1 << 20, "{} bytes of a 64 MiB bomb were written", scene.written());
        scene.house.follow(Vec::new());
    }

    let refusal = scene.used("pip:hostile==1.0!p/link.gguf").await;
    assert_eq!(refusal.code().number(), 40012, "a link is bytes, and no model: {refusal}");
    scene.house.follow(Vec::new());
    scene.used("pip:hostile==1.0!p/model/").await;
    let home = scene.house.folder.path().canonicalize().unwrap();
    for path in files_below(&home) {
        assert!(!path.is_symlink(), "{path:?}");
        assert!(!path.to_str().unwrap().contains("escape"), "{path:?}");
    }
    let names: Vec<_> = scene.models().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 3, "the link's bytes, and the two files that a loader reads: {names:?}");
    assert!(!names.iter().any(|name| name == "absolute.safetensors"), "{names:?}");
}

#[tokio::test]
async fn d5_other_archives_are_not_opened() {
    let scene = scene(&[]).await;
    let tar = {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&vec![0; 1 << 20]).unwrap();
        packed.finish().unwrap()
    };
    for name in ["model.tar.gz", "model.zip"] {
        let path = scene.root.join(name);
        std::fs::write(&path, &tar).unwrap();
        let refusal = scene.used(path.to_str().unwrap()).await;
        assert_eq!(refusal.code().number(), 40012, "{refusal}");
        scene.house.follow(Vec::new());
    }
    assert!(scene.written() < 1 << 20, "nothing was unpacked");
}

/// So many mebibytes of zeros, packed a thousand to one.
fn gzip_bomb(mebibytes: usize) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..mebibytes {
        packed.write_all(&vec![0; 1 << 20]).unwrap();
    }
    packed.finish().unwrap()
}

#[tokio::test]
async fn d6_a_download_is_never_unpacked() {
    let scene = scene(&[]).await;
    let bomb = gzip_bomb(64);
    let packed = Served::large(bomb.clone()).with([Fault::Compressed]);
    scene.hub.put_in("owner/name", "model.gguf", packed.clone());
    scene.used("hf:owner/name@main/model.gguf").await;
    assert!(scene.detail().contains("compressed content"), "{}", scene.detail());
    assert_eq!(scene.hub.asked()[0].header("accept-encoding"), Some("identity"));
    assert_eq!(scene.models(), Vec::<PathBuf>::new());

    scene.hub.put("/api/models/owner/name/revision/main?blobs=true", packed);
    scene.used("hf:owner/name").await;
    assert!(scene.detail().contains("list of files is damaged"), "taken as it is: {}", scene.detail());
    let endless = Served::large(Vec::new()).with([Fault::Endless]);
    scene.hub.put("/api/models/owner/long/revision/main?blobs=true", endless);
    scene.used("hf:owner/long").await;
    assert!(scene.detail().contains("list of files is too long"), "{}", scene.detail());
    assert!(scene.written() < 1 << 20);
}

#[tokio::test]
async fn d6_a_packed_request_is_refused_before_it_is_unpacked() {
    let app = TestApp::start().await;
    let bomb = gzip_bomb(64);
    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip"] {
        let request = app.client.post(format!("{}/v1/chat/completions", app.url));
        let request = request.header("content-type", "application/json").header("content-encoding", encoding);
        let (status, error) = read_error(request.body(bomb.clone()).send().await.unwrap()).await;
        assert_eq!(status, 415, "{encoding}: {error}");
    }
    let plain = app.client.post(format!("{}/v1/chat/completions", app.url));
    let plain = plain.header("content-type", "application/json").body(bomb);
    assert_eq!(read_error(plain.send().await.unwrap()).await.0, 400, "packed bytes are no JSON");
}

#[tokio::test]
async fn d7_a_length_that_is_a_lie_fills_no_disk() {
    let scene = scene(&[("max-download", "2GiB")]).await;
    let lies = [Fault::SayLengthAndCut(1 << 30, 20_000), Fault::SayLength(100 << 30)];
    scene.hub.put_in("owner/name", "model.gguf", Served::large(content(40_000)).with(lies));
    scene.used("hf:owner/name@main/model.gguf").await;
    assert!(scene.detail().contains("are more than `max-download`"), "{}", scene.detail());
    assert_eq!(scene.hub.asked().len(), 2, "it was cut, resumed, and then said to be larger still");
    assert_eq!(scene.models(), Vec::<PathBuf>::new());
    assert!(scene.written() < 1 << 20);
}

/// Remembers the most that was there of a download.
#[derive(Default)]
struct HighWater(AtomicU64);

impl ProgressSink for HighWater {
    fn notice(&self, _model: &str, _text: &str) {}

    fn progress(&self, _model: &str, progress: &Progress) {
        self.0.fetch_max(progress.bytes, Ordering::Relaxed);
    }

    fn end(&self, _model: &str) {}
}

#[tokio::test]
async fn d7_more_than_was_said_and_more_than_is_allowed_is_cut_off() {
    let scene = scene(&[("max-download", "1MiB")]).await;
    let most = Arc::new(HighWater::default());
    scene.house.report_to(most.clone());
    scene.hub.put_in("owner/name", "model.gguf", Served::large(content(10)).with([Fault::Endless]));
    scene.used("hf:owner/name@main/model.gguf").await;
    assert!(scene.detail().contains("more than the 1048576 bytes"), "{}", scene.detail());
    let most = most.0.load(Ordering::Relaxed);
    assert!(most > 0 && most <= 1 << 20, "{most} bytes were taken");
    assert!(scene.written() < 1 << 20, "what came is of no use, and gone");
}

#[tokio::test]
async fn d7_a_server_that_drips_is_given_up() {
    let scene = scene(&[("stall-timeout", "100ms")]).await;
    let drips = std::iter::repeat_n(Fault::Drip(Duration::from_millis(5)), 1000);
    scene.hub.put_in("owner/name", "model.gguf", Served::large(content(100_000)).with(drips));
    let refusal = scene.used("hf:owner/name@main/model.gguf").await;
    assert_eq!(refusal.code(), Code::ModelFailed);
    assert!(scene.detail().contains("cut too often"), "{}", scene.detail());
    assert!(scene.hub.asked().len() <= 6, "{} tries for a few bytes each", scene.hub.asked().len());
    assert_eq!(scene.models(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn d7_a_wrong_digest_is_quarantined_and_never_loadable() {
    let scene = scene(&[]).await;
    let (right, wrong) = (std::fs::read(llama()).unwrap(), content(1000));
    scene.hub.put_in("owner/name", "model.gguf", Served::large(wrong.clone()));
    let mut definition = ModelDefinition::new("hostile");
    definition.sources.push("hf:owner/name@main/model.gguf".parse().unwrap());
    definition.checksum = Some(Checksum::of_only_file(&sha256(&right)).unwrap());
    scene.house.follow(vec![definition.clone()]);
    let refusal = scene.refusal().await;
    assert_eq!(refusal.code().number(), 40012, "{refusal}");
    assert_eq!(scene.models(), Vec::<PathBuf>::new());
    let quarantined = scene.quarantined();
    assert_eq!(quarantined.len(), 1);
    assert_eq!(std::fs::read(&quarantined[0]).unwrap(), wrong);
    assert!(!scene.house.one("hostile").unwrap().is_on_disk);
    let quarantine = quarantined[0].display().to_string();
    assert!(scene.refused(&quarantine).await, "it cannot be registered by its path either");

    scene.hub.put_in("owner/name", "model.gguf", Served::large(right));
    scene.house.load("hostile").await.expect("the right file is taken as soon as it is served");
}

#[tokio::test]
async fn d7_a_file_that_changes_while_it_is_resumed_is_not_glued_together() {
    let (old, new) = (content(200_000), std::fs::read(llama()).unwrap());
    for ignores in [false, true] {
        let scene = scene(&[]).await;
        let etag = sha256(&new);
        let change = match ignores {
            false => Fault::Change(new.clone(), etag),
            true => Fault::ChangeButIgnoreIfRange(new.clone(), etag),
        };
        let file = Served::large(old.clone()).with([Fault::CutAfter(100_000), change]);
        scene.hub.put_in("owner/name", "model.gguf", file);
        scene.define("hf:owner/name@main/model.gguf");
        scene.house.load("hostile").await.expect("it is the new file, whole");
        assert_eq!(scene.house.state("hostile"), ModelState::Ready);
        assert_eq!(scene.house.one("hostile").unwrap().bytes, Some(new.len() as u64));
    }
}

#[tokio::test]
async fn d7_a_server_that_falls_silent_is_left() {
    let scene = scene(&[("stall-timeout", "50ms")]).await;
    let silences = std::iter::repeat_n(Fault::StallAfter(10), 20);
    scene.hub.put_in("owner/name", "model.gguf", Served::large(content(100_000)).with(silences));
    let refusal = scene.used("hf:owner/name@main/model.gguf").await;
    assert_eq!(refusal.code(), Code::ModelFailed);
    assert!(scene.detail().contains("cut too often"), "{}", scene.detail());
}
