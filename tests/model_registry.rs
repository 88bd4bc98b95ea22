//! Registered models: what administrators define becomes true while requests run, and nothing is lost or left behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod mock_hub;
mod model_house;

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use mock_hub::{Fault, MockHub, Served};
use model_house::{House, PATIENCE, engine, golden, house, llama, several};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use sconce::engine::{SequenceRequest, TokenEvent};
use sconce::error::{Code, Failure};
use sconce::manager::{
    Checksum, FollowNotice, ManagerError, ModelDefinition, ModelLease, ModelManager, ModelState, Runner,
    SamplingDefaults,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

fn define(id: &str, source: &str) -> ModelDefinition {
    let mut definition = ModelDefinition::new(id);
    definition.sources.push(source.parse().unwrap());
    definition
}

fn with_context(id: &str, context_length: usize) -> ModelDefinition {
    ModelDefinition { context_length: Some(context_length), ..define(id, &llama()) }
}

fn is_unknown(result: Result<ModelLease, ManagerError>) -> bool {
    matches!(result, Err(ManagerError::Unknown { .. }))
}

/// Has the model say a few tokens, which shows that it is still there.
async fn speak(lease: &ModelLease) {
    let stream = engine(lease).submit(SequenceRequest::new(vec![1, 2, 3], 3)).unwrap();
    let events: Vec<_> = timeout(PATIENCE, stream.map(Result::unwrap).collect()).await.unwrap();
    assert!(matches!(events.last(), Some(TokenEvent::Finished { .. })), "{events:?}");
}

#[tokio::test]
async fn a_model_is_there_as_soon_as_it_is_registered_and_goes_when_nobody_holds_it() {
    let house = several(&["own"], &[]);
    let mut definition = define("new", &llama());
    definition.aliases.push("gpt-4o".into());
    definition.created = 7;
    assert_eq!(house.follow(vec![definition]), []);
    let status = house.status("gpt-4o").unwrap();
    assert_eq!((status.id.as_str(), status.created, status.is_registered), ("new", 7, true));
    assert_eq!((status.sources, status.aliases), (vec![llama()], vec!["gpt-4o".to_owned()]));
    assert_eq!(status.bytes, Some(std::fs::metadata(llama()).unwrap().len()));
    assert!(status.is_on_disk);

    let lease = house.lease("gpt-4o").await.unwrap();
    assert_eq!(lease.id, "new");
    assert!(house.one("new").unwrap().memory_bytes > 0);
    let mut stream = engine(&lease).submit(SequenceRequest::new(vec![1, 2, 3], 40)).unwrap();
    assert!(matches!(stream.next().await.unwrap().unwrap(), TokenEvent::Prefilled { .. }));

    assert_eq!(house.follow(Vec::new()), []);
    assert!(is_unknown(house.lease("new").await) && is_unknown(house.lease("gpt-4o").await));
    assert!(house.status("new").is_none() && house.list().iter().all(|status| status.id == "own"));
    let leaving = house.one("new").unwrap();
    assert_eq!((leaving.state, leaving.is_leaving), (ModelState::Draining, true));
    let events: Vec<_> = timeout(PATIENCE, stream.map(Result::unwrap).collect()).await.unwrap();
    assert!(matches!(events.last(), Some(TokenEvent::Finished { .. })), "what runs is finished: {events:?}");
    drop(lease);
    house.until(|all| all.iter().all(|status| status.id == "own")).await;
    assert!(house.engines().is_empty());
}

#[tokio::test]
async fn a_change_that_needs_it_loads_anew_when_those_who_use_the_model_are_done() {
    let house = house(&[("model", &format!("own={}", llama()))]);
    house.follow(vec![with_context("a", 64)]);
    let first = house.lease("a").await.unwrap();
    assert_eq!(first.spec.context_length, 64);

    house.follow(vec![with_context("a", 32)]);
    assert_eq!(house.state("a"), ModelState::Draining);
    let manager = Arc::clone(&house.manager);
    let waiting = tokio::spawn(async move { manager.lease("a").await });
    speak(&first).await;
    assert!(!waiting.is_finished(), "two of it would take twice its memory");
    drop(first);
    let second = timeout(PATIENCE, waiting).await.unwrap().unwrap().expect("it waited and is served");
    assert_eq!(second.spec.context_length, 32);

    let other = golden("gguf/qwen2/qwen2.F16.gguf");
    drop(second);
    house.follow(vec![define("a", other.to_str().unwrap())]);
    house.until(|all| all[1].state == ModelState::Absent).await;
    assert_eq!(house.one("a").unwrap().spec, None, "what was read of the other says nothing of this one");
    assert_ne!(house.lease("a").await.unwrap().spec.context_length, 32);
}

#[tokio::test]
async fn names_pins_and_sampling_change_without_a_reload() {
    let house = several(&[], &[("idle-timeout", "off")]);
    house.follow(vec![define("a", &llama())]);
    let first = house.lease("a").await.unwrap();
    assert_eq!(first.defaults().temperature, None);

    let mut definition = define("a", &llama());
    definition.sampling = SamplingDefaults { temperature: Some(0.25), ..SamplingDefaults::default() };
    definition.aliases.push("b".into());
    definition.pinned = true;
    house.follow(vec![definition.clone()]);
    let second = house.lease("b").await.unwrap();
    assert!(std::ptr::eq(&*first, &*second), "the very same");
    assert_eq!(second.defaults().temperature, Some(0.25));
    assert_eq!(second.defaults().end_token_ids, first.defaults().end_token_ids);
    assert_eq!(first.defaults().temperature, None, "a request that runs goes on as it began");
    assert!(house.status("a").unwrap().pinned);

    house.pin("a", false).unwrap();
    house.follow(vec![definition]);
    assert!(!house.status("a").unwrap().pinned, "what was defined before does not undo what was done since");
}

#[tokio::test]
async fn a_definition_stands_in_for_a_configured_model_until_it_goes() {
    let house = several(&["own", "other"], &[]);
    assert!(house.preload().await.is_empty());
    let whole = house.lease("own").await.unwrap().spec.context_length;
    house.follow(vec![with_context("own", 32)]);
    assert_eq!(house.lease("own").await.unwrap().spec.context_length, 32);
    let ids: Vec<_> = house.list().into_iter().map(|status| status.id).collect();
    assert_eq!(ids, ["own", "other"]);

    house.follow(Vec::new());
    assert!(!house.one("own").unwrap().is_registered);
    assert_eq!(house.lease("own").await.unwrap().spec.context_length, whole);

    house.follow(vec![ModelDefinition { enabled: false, ..ModelDefinition::new("own") }]);
    assert!(is_unknown(house.lease("own").await), "also a configured model can be taken out of service");
    let bare = ModelDefinition { aliases: vec!["gpt-4o".into()], ..ModelDefinition::new("own") };
    house.follow(vec![bare]);
    assert_eq!(
        house.lease("gpt-4o").await.unwrap().id,
        "own",
        "without a source it takes the configured one's"
    );
}

#[tokio::test]
async fn a_disabled_model_is_there_for_administrators_alone() {
    let house = house(&[("model", &format!("own={}", llama()))]);
    let off = ModelDefinition { enabled: false, aliases: vec!["b".into()], ..define("a", &llama()) };
    house.follow(vec![ModelDefinition { enabled: true, ..off.clone() }]);
    let lease = house.lease("b").await.unwrap();
    house.follow(vec![off.clone()]);
    assert!(is_unknown(house.lease("a").await) && is_unknown(house.lease("b").await));
    assert!(house.status("a").is_none() && house.list().len() == 1);
    let seen = house.one("a").unwrap();
    assert_eq!((seen.enabled, seen.state), (false, ModelState::Draining));
    speak(&lease).await;
    drop(lease);
    house.until(|all| all[1].state == ModelState::Absent).await;
    let refused = house.load("a").await.unwrap_err();
    assert_eq!(refused.code(), Code::StateConflict);
    house.pull("a").await.expect("its files may be looked after");
    house.follow(vec![ModelDefinition { enabled: true, ..off }]);
    assert_eq!(house.lease("b").await.unwrap().id, "a");
}

fn hub_settings<'a>(hub: &'a MockHub, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [("hub-endpoint", hub.url.as_str()), ("stall-timeout", "500ms")].iter().chain(more).copied().collect()
}

const FAR: &str = "hf:owner/name@main/model.gguf";

fn far_file() -> Served {
    Served::large(std::fs::read(llama()).unwrap())
}

#[tokio::test]
async fn a_pull_fetches_the_files_and_loads_nothing() {
    let hub = MockHub::start().await;
    hub.put_in("owner/name", "model.gguf", far_file());
    let house = house(&hub_settings(&hub, &[]));
    house.follow(vec![ModelDefinition { enabled: false, ..define("far", FAR) }]);
    assert!(!house.one("far").unwrap().is_on_disk);
    timeout(PATIENCE, house.pull("far")).await.unwrap().unwrap();
    let status = house.one("far").unwrap();
    assert_eq!((status.state, status.is_on_disk), (ModelState::Absent, true));
    assert_eq!(status.bytes, Some(std::fs::metadata(llama()).unwrap().len()));
    assert!(house.engines().is_empty());
    house.follow(vec![define("far", FAR)]);
    house.lease("far").await.unwrap();
    house.pull("far").await.expect("what is loaded is here");
    assert_eq!(hub.asked().len(), 1);
    assert!(matches!(house.pull("nobody").await, Err(ManagerError::Unknown { .. })));
}

#[tokio::test]
async fn a_pull_and_a_request_share_one_download() {
    let hub = MockHub::start().await;
    hub.put_in("owner/name", "model.gguf", far_file().with([Fault::StallAfter(1000)]));
    let house = house(&hub_settings(&hub, &[]));
    house.follow(vec![define("far", FAR)]);
    let manager = Arc::clone(&house.manager);
    let pull = tokio::spawn(async move { manager.pull("far").await });
    house.wait_for("far", |state| matches!(state, ModelState::Downloading(now) if now.bytes > 0)).await;
    let lease = timeout(PATIENCE, house.lease("far")).await.unwrap().unwrap();
    timeout(PATIENCE, pull).await.unwrap().unwrap().unwrap();
    speak(&lease).await;
    assert_eq!(hub.asked().len(), 2, "cut once, resumed once");
}

#[tokio::test]
async fn an_administrator_may_fetch_what_a_request_may_not() {
    let hub = MockHub::start().await;
    hub.put_in("owner/name", "model.gguf", far_file());
    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("catalog.toml");
    std::fs::write(&catalog, format!("[[model]]\nid = 'far'\nsources = ['{FAR}']\n")).unwrap();
    let house = house(&hub_settings(&hub, &[("catalog", catalog.to_str().unwrap())]));
    let refusal = house.lease("far").await.map(drop).unwrap_err();
    assert!(refusal.to_string().contains("administrator"), "{refusal}");
    assert!(house.status("far").is_none() && house.one("far").is_some());
    timeout(PATIENCE, house.load("far")).await.unwrap().expect("the refusal before stands in nobody's way");
    assert_eq!(house.state("far"), ModelState::Ready);
    assert_eq!(house.status("far").unwrap().last_error, None);
}

#[tokio::test]
async fn a_model_of_the_catalogue_is_registered_by_its_name_alone() {
    let hub = MockHub::start().await;
    hub.put_in("owner/name", "model.gguf", far_file());
    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("catalog.toml");
    std::fs::write(&catalog, format!("[[model]]\nid = 'far'\nsources = ['{FAR}']\n")).unwrap();
    let house = house(&hub_settings(&hub, &[("catalog", catalog.to_str().unwrap())]));
    let notices = house.follow(vec![ModelDefinition::new("far"), ModelDefinition::new("nobody")]);
    assert_eq!(notices, [FollowNotice::NoSource { model: "nobody".into() }]);
    house.lease("far").await.expect("what an administrator registered, a request may have fetched");
    let refusal = house.lease("nobody").await.map(drop).unwrap_err();
    assert!(refusal.to_string().contains("no source"), "{refusal}");
}

#[tokio::test]
async fn what_does_not_match_its_checksum_is_no_model() {
    let hub = MockHub::start().await;
    let right = far_file();
    hub.put_in("owner/name", "model.gguf", right.clone());
    let house = house(&hub_settings(&hub, &[]));
    let mut definition = define("far", FAR);
    definition.checksum = Some(Checksum::of_only_file(&"0".repeat(64)).unwrap());
    house.follow(vec![definition.clone()]);
    let refusal = house.lease("far").await.map(drop).unwrap_err();
    assert!(house.one("far").unwrap().last_error.unwrap().contains("SHA-256"), "{refusal}");

    definition.checksum = Some(Checksum::of_only_file(&mock_hub::sha256(&right.content)).unwrap());
    house.follow(vec![definition]);
    assert_eq!(house.state("far"), ModelState::Absent, "the failure was the other's");
    assert_eq!(house.one("far").unwrap().last_error, None);
    house.lease("far").await.unwrap();
}

#[tokio::test]
async fn a_download_that_is_no_longer_wanted_is_broken_off() {
    let hub = MockHub::start().await;
    for name in ["model.gguf", "other.gguf"] {
        hub.put_in("owner/name", name, far_file().with([Fault::StallAfter(1000)]));
    }
    let settings = [("hub-endpoint", hub.url.as_str()), ("stall-timeout", "1h")];
    let house = house(&settings);
    house.follow(vec![define("far", FAR)]);
    let manager = Arc::clone(&house.manager);
    let waiting = tokio::spawn(async move { manager.lease("far").await });
    let is_coming = |state: &ModelState| matches!(state, ModelState::Downloading(now) if now.bytes > 0);
    house.wait_for("far", is_coming).await;

    house.follow(vec![define("far", &llama())]);
    let lease = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    speak(&lease.expect("it is served by what the model is now")).await;

    house.follow(vec![define("far", "hf:owner/name@main/other.gguf")]);
    let manager = Arc::clone(&house.manager);
    let waiting = tokio::spawn(async move { manager.lease("far").await });
    house.wait_for("far", is_coming).await;
    house.follow(Vec::new());
    assert!(is_unknown(timeout(PATIENCE, waiting).await.unwrap().unwrap()));
    assert!(house.one("far").is_none(), "nothing is left of it");
}

#[tokio::test]
async fn what_is_to_be_preloaded_comes_by_itself_and_stays_unloaded_when_told_so() {
    let house = house(&[("model", &format!("own={}", llama()))]);
    let definition = ModelDefinition { preload: true, ..define("a", &llama()) };
    house.follow(vec![definition.clone()]);
    house.wait_for("a", |state| *state == ModelState::Ready).await;
    house.unload("a").await.unwrap();
    house.follow(vec![definition.clone()]);
    assert_eq!(house.state("a"), ModelState::Absent, "nothing new was said");

    house.follow(vec![ModelDefinition { context_length: Some(32), ..definition }]);
    house.wait_for("a", |state| *state == ModelState::Ready).await;
    house.follow(vec![ModelDefinition { preload: true, ..with_context("a", 16) }]);
    house.until(|all| all[1].spec.as_ref().is_some_and(|spec| spec.context_length == 16)).await;
}

#[tokio::test]
async fn ones_status_can_be_watched_to_its_end() {
    let hub = MockHub::start().await;
    hub.put_in("owner/name", "model.gguf", far_file());
    let house = house(&hub_settings(&hub, &[]));
    assert_eq!(house.manager.watch_one("far").count().await, 0, "of what is not there nothing is seen");
    house.follow(vec![define("far", FAR)]);
    let mut seen = Box::pin(house.manager.watch_one("far"));
    assert_eq!(seen.next().await.unwrap().state, ModelState::Absent);
    let watching = tokio::spawn(seen.collect::<Vec<_>>());
    house.load("far").await.unwrap();
    house.follow(Vec::new());
    let seen = timeout(PATIENCE, watching).await.unwrap().unwrap();
    let has = |wanted: fn(&ModelState) -> bool| seen.iter().any(|status| wanted(&status.state));
    assert!(has(|state| matches!(state, ModelState::Downloading(_))), "{seen:?}");
    assert!(has(|state| *state == ModelState::Ready), "{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "only changes are told");
    assert!(house.one("far").is_none());
}

#[tokio::test]
async fn a_status_shows_no_secret_of_an_address() {
    let hub = MockHub::start().await;
    hub.put("/model.gguf?signature=s3cr3t", Served { commit: None, etag: "v1".into(), ..far_file() });
    let house = house(&hub_settings(&hub, &[("private-host", hub.host.as_str())]));
    let signed = format!("{}/model.gguf?signature=s3cr3t", hub.url);
    let bad = format!("{}/absent.gguf?signature=s3cr3t", hub.url);
    house.follow(vec![define("a", &signed), define("b", &bad)]);
    let mut seen = Box::pin(house.manager.watch_one("a"));
    let watching = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(status) = seen.next().await {
            let is_ready = status.state == ModelState::Ready;
            all.push(serde_json::to_string(&status).unwrap());
            if is_ready {
                break;
            }
        }
        all
    });
    house.lease("a").await.unwrap();
    house.lease("b").await.map(drop).unwrap_err();
    let mut all = timeout(PATIENCE, watching).await.unwrap().unwrap();
    all.push(serde_json::to_string(&house.all()).unwrap());
    assert!(all.len() > 2 && all.concat().contains("model.gguf?…"), "{all:?}");
    assert!(!all.concat().contains("s3cr3t"), "{all:?}");
    assert!(house.one("b").unwrap().last_error.unwrap().contains("404"));
}

#[tokio::test]
async fn an_encoder_is_drained_like_an_engine() {
    let bert = golden("bert");
    let house = house(&[("model", &format!("own={}", llama()))]);
    house.follow(vec![define("e", bert.to_str().unwrap())]);
    let lease = house.lease("e").await.unwrap();
    let Runner::Embedder(embedder) = &lease.runner else { panic!("an encoder has no engine") };
    let alive = embedder.watch();
    house.follow(Vec::new());
    drop(lease);
    house.until(|all| all.len() == 1).await;
    assert!(alive.has_changed().is_err(), "its thread has ended, its memory is free");
}

/// Something that may happen to a registry.
#[derive(Debug, Clone)]
enum Act {
    Follow(Vec<Kind>),
    Lease(&'static str),
    /// A model is used and given back before anything else happens; others are done with theirs as well.
    Use(&'static str),
    /// Those who hold models are done with them.
    Release,
    Unload(&'static str),
    Pull(&'static str),
    Load(&'static str),
    /// The tasks get on with it, for so many turns.
    Wait(u8),
}

/// A definition in short.
#[derive(Debug, Clone)]
struct Kind {
    id: &'static str,
    alias: &'static str,
    context_length: usize,
    is_far: bool,
    enabled: bool,
    preload: bool,
}

impl Kind {
    fn definition(&self) -> ModelDefinition {
        let local = llama();
        let mut definition = define(self.id, if self.is_far { FAR } else { &local });
        definition.aliases.push(self.alias.to_owned());
        definition.context_length = Some(self.context_length);
        definition.enabled = self.enabled;
        definition.preload = self.preload;
        definition
    }
}

const NAMES: [&str; 6] = ["own", "a", "b", "c", "x", "y"];

fn kind() -> impl Strategy<Value = Kind> {
    let name = |names: &'static [&'static str]| (0..names.len()).prop_map(move |index| names[index]);
    let names = (name(&NAMES[..4]), name(&NAMES[4..]), prop_oneof![Just(16_usize), Just(32)]);
    (names, any::<[bool; 2]>(), 0..4_u8).prop_map(|((id, alias, context_length), [is_far, preload], odd)| {
        Kind { id, alias, context_length, is_far, enabled: odd != 0, preload }
    })
}

fn act() -> impl Strategy<Value = Act> {
    let name = || (0..NAMES.len()).prop_map(|index| NAMES[index]);
    prop_oneof![
        3 => proptest::collection::vec(kind(), 0..4).prop_map(Act::Follow),
        4 => name().prop_map(Act::Lease),
        4 => name().prop_map(Act::Use),
        2 => Just(Act::Release),
        1 => name().prop_map(Act::Unload),
        1 => name().prop_map(Act::Pull),
        1 => name().prop_map(Act::Load),
        3 => any::<u8>().prop_map(Act::Wait),
    ]
}

/// Refusals that somebody asked for; anything else is a request lost.
fn is_fair(error: &ManagerError) -> bool {
    matches!(
        error,
        ManagerError::Unknown { .. } | ManagerError::Draining { .. } | ManagerError::Disabled { .. }
    )
}

/// Uses a model once it is there, and holds it until the next release.
async fn use_model(manager: Arc<ModelManager>, name: &'static str, mut releases: watch::Receiver<u32>) {
    match manager.lease(name).await {
        Ok(lease) => {
            speak(&lease).await;
            // The sender outlives all who hold models.
            releases.changed().await.unwrap();
            speak(&lease).await;
        }
        Err(error) => assert!(is_fair(&error), "{name}: {error}"),
    }
}

async fn administer<F>(outcome: F)
where
    F: Future<Output = Result<(), ManagerError>>,
{
    if let Err(error) = outcome.await {
        assert!(is_fair(&error), "{error}");
    }
}

fn begin(act: &Act, manager: &Arc<ModelManager>, releases: &watch::Sender<u32>) -> Option<JoinHandle<()>> {
    let manager = Arc::clone(manager);
    match *act {
        Act::Follow(ref kinds) => {
            manager.follow(kinds.iter().map(Kind::definition).collect());
            None
        }
        Act::Release => {
            releases.send_modify(|count| *count += 1);
            None
        }
        Act::Wait(_) | Act::Use(_) => None,
        Act::Lease(name) => Some(tokio::spawn(use_model(manager, name, releases.subscribe()))),
        Act::Unload(name) => Some(tokio::spawn(async move { administer(manager.unload(name)).await })),
        Act::Pull(name) => Some(tokio::spawn(async move { administer(manager.pull(name)).await })),
        Act::Load(name) => Some(tokio::spawn(async move { administer(manager.load(name)).await })),
    }
}

/// Waits for tasks while nobody holds a model for longer than a turn.
async fn releasing(
    house: &House,
    releases: &watch::Sender<u32>,
    tasks: impl IntoIterator<Item = JoinHandle<()>>,
) {
    let release = async {
        loop {
            releases.send_modify(|count| *count += 1);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = release => {}
        done = timeout(PATIENCE, join_all(tasks)) => {
            let done = done.unwrap_or_else(|_| panic!("somebody waits for ever: {:#?}", house.all()));
            done.into_iter().for_each(|outcome| outcome.unwrap());
        }
    }
}

async fn run(acts: Vec<Act>, last: Vec<Kind>) {
    let hub = MockHub::start().await;
    hub.put_in("owner/name", "model.gguf", far_file());
    let own = format!("own={}", llama());
    let house = house(&hub_settings(&hub, &[("model", &own), ("load-wait", "10m")]));
    let releases = watch::Sender::new(0);
    let mut tasks = Vec::new();
    for act in &acts {
        tasks.extend(begin(act, &house.manager, &releases));
        match act {
            Act::Use(name) => {
                let used = tokio::spawn(use_model(Arc::clone(&house.manager), name, releases.subscribe()));
                releasing(&house, &releases, [used]).await;
            }
            Act::Wait(turns) => {
                for _ in 0..*turns {
                    tokio::task::yield_now().await;
                }
            }
            _ => {}
        }
    }
    house.follow(last.iter().map(Kind::definition).collect());
    releasing(&house, &releases, tasks).await;

    let mut expected: Vec<Kind> = Vec::new();
    for kind in last {
        if !expected.iter().any(|other| other.id == kind.id) {
            expected.push(kind);
        }
    }
    let is_settled = |state: &ModelState| matches!(state, ModelState::Absent | ModelState::Ready);
    house.until(|all| all.iter().all(|status| is_settled(&status.state) && !status.is_leaving)).await;
    for kind in &expected {
        let outcome = house.lease(kind.id).await;
        match outcome {
            Ok(lease) if kind.enabled => assert_eq!(lease.spec.context_length, kind.context_length),
            other => assert!(!kind.enabled && is_unknown(other), "{kind:?}"),
        }
    }
    let mut ids: Vec<_> = house.all().into_iter().map(|status| status.id).collect();
    let mut wanted: Vec<_> = expected.iter().map(|kind| kind.id).chain(["own"]).collect();
    ids.sort();
    wanted.sort_unstable();
    wanted.dedup();
    assert_eq!(ids, wanted);
    for status in house.all() {
        assert_eq!(status.leases, 0, "{status:?}");
        assert_eq!(status.state == ModelState::Ready, status.memory_bytes > 0, "{status:?}");
    }
    house.follow(Vec::new());
    house.until(|all| matches!(all, [own] if is_settled(&own.state))).await;
    timeout(PATIENCE, house.shutdown()).await.unwrap();
    assert!(house.engines().is_empty());
    assert_eq!(house.one("own").unwrap().memory_bytes, 0);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_the_last_word_holds_and_no_request_is_lost(
        acts in proptest::collection::vec(act(), 0..30),
        last in proptest::collection::vec(kind(), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(run(acts, last));
    }
}
