//! The life of models with real (tiny) ones: loaded on first use, unloaded by least recent use, never while in use.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod mock_hub;
mod model_house;

use std::sync::Arc;

use futures_util::StreamExt;
use mock_hub::{Fault, MockHub, Served};
use model_house::{PATIENCE, engine, golden, house, llama, several, try_house};
use sconce::api::openai::chat::ChatRequest;
use sconce::engine::{SequenceRequest, TokenEvent};
use sconce::error::{Code, Failure};
use sconce::generate::{Account, GenerationEvent, Generator};
use sconce::manager::{ManagerError, ModelState, Runner};
use sconce_models::KvCache;
use serde_json::json;
use tokio::time::timeout;

/// MiB that one such model needs, as the refusal says.
async fn need() -> u64 {
    let house = several(&["a"], &[("memory-budget", "1")]);
    match house.lease("a").await.map(drop) {
        Err(ManagerError::OutOfMemory { needed_mib, available_mib: 0, .. }) => needed_mib,
        other => panic!("a budget of one byte gave {other:?}"),
    }
}

#[tokio::test]
async fn the_context_is_no_longer_than_the_cache_has_room_for() {
    let house = several(&["a"], &[("cache-memory", "64KiB")]);
    let lease = house.lease("a").await.unwrap();
    let tokens = engine(&lease).stats().total_blocks * KvCache::BLOCK_SIZE;
    assert!(tokens < 256, "the model itself could take 256 tokens, the cache {tokens}");
    assert_eq!(lease.spec.context_length, tokens);
    assert_eq!(house.status("a").unwrap().spec.unwrap().context_length, tokens);
}

#[tokio::test]
async fn a_model_is_loaded_once_by_all_who_ask_at_first() {
    let house = several(&["a", "b"], &[]);
    assert_eq!(house.state("a"), ModelState::Absent);
    let leases = futures_util::future::join_all((0..8).map(|_| house.lease("a"))).await;
    let leases: Vec<_> = leases.into_iter().map(Result::unwrap).collect();
    assert!(leases.iter().all(|lease| std::ptr::eq(&**lease, &*leases[0])), "one load for all");
    let status = house.status("a").unwrap();
    assert_eq!((status.state, status.leases), (ModelState::Ready, 8));
    assert!(status.spec.unwrap().layers > 0);
    assert_eq!(house.state("b"), ModelState::Absent);
    assert_eq!(house.engines().len(), 1);

    let twin = leases[0].clone();
    assert_eq!(house.status("a").unwrap().leases, 8, "clones are one lease");
    drop(leases);
    assert_eq!(house.status("a").unwrap().leases, 1);
    drop(twin);
    assert_eq!(house.status("a").unwrap().leases, 0);
}

#[tokio::test]
async fn a_model_is_not_in_use_once_the_end_of_its_answers_is_told() {
    let house = several(&["a"], &[]);
    let lease = house.lease("a").await.unwrap();
    let asked = json!({"model": "a", "max_tokens": 2, "messages": [{"role": "user", "content": "Hello"}]});
    let requests = vec![ChatRequest::read(asked).unwrap().generate; 2];
    let mut answers = Generator::new(1).start_all(lease, requests, &mut Account::default()).await.unwrap();
    assert_eq!(house.status("a").unwrap().leases, 1);
    while !matches!(answers.next().await.unwrap().unwrap(), GenerationEvent::Done { .. }) {}
    // Whoever hears of it may unload the model.
    assert!(house.let_go("a").unwrap().is_some());
}

#[tokio::test]
async fn models_are_known_by_their_names_exactly() {
    let house = house(&[("model", &llama()), ("model", golden("bert").to_str().unwrap())]);
    let ids: Vec<_> = house.list().into_iter().map(|status| status.id).collect();
    assert_eq!(ids, ["llama.Q8_0", "bert"]);
    assert!(house.lease("llama.Q8_0.gguf").await.is_ok(), "the file's whole name is understood too");
    let unknown = house.lease("LLAMA.Q8_0").await.map(drop).unwrap_err();
    assert_eq!(unknown.code(), Code::ModelNotFound);
    let lease = house.lease("bert").await.unwrap();
    assert!(matches!(lease.runner, Runner::Embedder(_)));
}

#[tokio::test]
async fn what_means_nothing_is_refused_at_the_start() {
    for (settings, word) in [
        (vec![("model", "no-such-model")], "no-such-model"),
        (vec![("pin", "absent")], "absent"),
        (vec![("private-host", "a b")], "a b"),
        (vec![("catalog", "/no/such/catalog.toml")], "/no/such/catalog.toml"),
    ] {
        let reason = try_house(&settings).map(drop).unwrap_err().to_string();
        assert!(reason.contains(word), "{reason}");
    }
}

#[tokio::test]
async fn the_least_recently_used_idle_model_makes_room() {
    let two = format!("{}MiB", 2 * need().await);
    let house = several(&["a", "b", "c"], &[("memory-budget", &two)]);
    for id in ["a", "b", "a", "c"] {
        house.lease(id).await.unwrap();
    }
    assert_eq!(house.state("a"), ModelState::Ready);
    assert_eq!(house.state("b"), ModelState::Absent);
    assert_eq!(house.state("c"), ModelState::Ready);
    house.lease("b").await.unwrap();
    assert_eq!(house.state("a"), ModelState::Absent);
}

#[tokio::test]
async fn a_busy_or_pinned_model_is_never_unloaded_to_make_room() {
    let need = need().await;
    let two = format!("{}MiB", 2 * need);
    let house = several(&["a", "b", "c"], &[("memory-budget", &two), ("pin", "b")]);
    let busy = house.lease("a").await.unwrap();
    house.lease("b").await.unwrap();
    let refusal = house.lease("c").await.map(drop).unwrap_err();
    assert_eq!(refusal.code(), Code::ModelOutOfMemory);
    match refusal {
        ManagerError::OutOfMemory { needed_mib, available_mib, .. } => {
            assert_eq!(needed_mib, need);
            assert!(available_mib < need);
        }
        other => panic!("{other}"),
    }
    assert!(matches!(house.state("c"), ModelState::Failed { .. }), "{:?}", house.state("c"));
    let plan = house.status("c").unwrap().last_error.unwrap();
    assert!(
        plan.contains("KV 16 MiB") && plan.contains("weights"),
        "the administrator sees the plan: {plan}"
    );
    assert_eq!((house.state("a"), house.state("b")), (ModelState::Ready, ModelState::Ready));

    drop(busy);
    house.lease("c").await.expect("as soon as there is room it comes, without waiting");
    assert_eq!((house.state("a"), house.state("b")), (ModelState::Absent, ModelState::Ready));
    house.pin("b", false).unwrap();
    house.lease("a").await.unwrap();
    assert_eq!(house.state("b"), ModelState::Absent);
}

#[tokio::test]
async fn an_idle_model_is_unloaded_and_one_in_use_is_not() {
    let house = several(&["a", "b", "c"], &[("idle-timeout", "50ms"), ("pin", "c")]);
    let used = house.lease("a").await.unwrap();
    house.lease("c").await.unwrap();
    house.lease("b").await.unwrap();
    house.wait_for("b", |state| *state == ModelState::Absent).await;
    let status = house.status("b").unwrap();
    assert!(status.kind.is_some() && status.spec.is_some(), "what was read of it stays known");
    assert_eq!(house.state("a"), ModelState::Ready);
    assert_eq!(house.state("c"), ModelState::Ready, "a pinned model stays");
    drop(used);
    house.wait_for("a", |state| *state == ModelState::Absent).await;
    assert!(house.lease("a").await.is_ok(), "and comes back when it is asked for");
}

#[tokio::test]
async fn a_request_that_meets_an_idle_unload_waits_for_it_and_is_served() {
    let house = several(&["a"], &[("idle-timeout", "1ms")]);
    let mut met = 0;
    for _ in 0..5 {
        drop(house.lease("a").await.unwrap());
        house.wait_for("a", |state| *state != ModelState::Ready).await;
        met += usize::from(house.state("a") == ModelState::Draining);
        house.lease("a").await.expect("it is worth a moment's wait");
    }
    assert!(met > 0, "an unload was met in its midst");
}

#[tokio::test]
async fn an_unload_lets_running_streams_finish() {
    let house = several(&["a"], &[]);
    let lease = house.lease("a").await.unwrap();
    let mut stream = engine(&lease).submit(SequenceRequest::new(vec![1, 2, 3], 40)).unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert!(matches!(first, TokenEvent::Prefilled { .. }));

    let manager = Arc::clone(&house.manager);
    let unload = tokio::spawn(async move { manager.unload("a").await });
    house.wait_for("a", |state| *state == ModelState::Draining).await;
    let refusal = house.lease("a").await.map(drop).unwrap_err();
    assert_eq!(refusal.code(), Code::ModelLoading);

    let events: Vec<_> = timeout(PATIENCE, stream.by_ref().map(Result::unwrap).collect()).await.unwrap();
    let tokens = events.iter().filter(|event| matches!(event, TokenEvent::Token { .. })).count();
    assert!(tokens > 0 && matches!(events.last(), Some(TokenEvent::Finished { .. })), "{events:?}");
    assert!(!unload.is_finished(), "the lease still holds the model");
    let figures = engine(&lease).watch();
    drop((stream, lease));
    timeout(PATIENCE, unload).await.unwrap().unwrap().unwrap();
    assert_eq!(house.state("a"), ModelState::Absent);
    assert!(figures.has_changed().is_err(), "its thread has ended, its memory is free");
    assert!(house.lease("a").await.is_ok());
}

#[tokio::test]
async fn a_damaged_model_fails_alone_and_is_tried_again_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    std::fs::write(&file, b"GGUF, but not really").unwrap();
    let (bad, good) = (format!("bad={}", file.display()), format!("good={}", llama()));
    let house = house(&[("model", &bad), ("model", &good)]);
    let failures = house.preload().await;
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].0, "bad");
    assert_eq!(house.state("good"), ModelState::Ready);

    let ManagerError::Failed { reason, .. } = &failures[0].1 else { panic!("{:?}", failures[0].1) };
    assert!(!reason.contains(folder.path().to_str().unwrap()), "clients are told no paths: {reason}");
    let ModelState::Failed { reason } = house.state("bad") else { panic!("{:?}", house.state("bad")) };
    assert!(!reason.contains(folder.path().to_str().unwrap()), "nor are they in lists: {reason}");
    let detail = house.status("bad").unwrap().last_error.unwrap();
    assert!(detail.contains("model.gguf"), "the administrator is: {detail}");

    std::fs::copy(llama(), &file).unwrap();
    let refusal = house.lease("bad").await.map(drop).unwrap_err();
    assert_eq!(refusal.code(), Code::ModelFileInvalid, "not tried again at once");
    house.unload("bad").await.unwrap();
    house.lease("bad").await.expect("the failure was forgotten, the file is whole");
}

#[tokio::test]
async fn a_model_on_its_way_is_waited_for_within_bounds() {
    let hub = MockHub::start().await;
    let bytes = std::fs::read(llama()).unwrap();
    let half = bytes.len() / 2;
    hub.put_in("owner/name", "model.gguf", Served::large(bytes).with([Fault::StallAfter(half)]));
    let settings = [
        ("hub-endpoint", hub.url.as_str()),
        ("stall-timeout", "500ms"),
        ("load-wait", "1ms"),
        ("model", "far=hf:owner/name@main/model.gguf"),
    ];
    let house = house(&settings);
    let refusal = house.lease("far").await.map(drop).unwrap_err();
    assert_eq!(refusal.code(), Code::ModelLoading);
    assert!(refusal.retry_after().is_some());
    house
        .wait_for("far", |state| matches!(state, ModelState::Downloading(progress) if progress.bytes > 0))
        .await;
    let second = house.lease("far").await.map(drop).unwrap_err();
    assert_eq!(second.code(), Code::ModelLoading);
    house.load("far").await.expect("loading waits as long as it takes");
    assert_eq!(hub.asked().len(), 2, "one download, resumed once, for all who asked");
    assert_eq!(house.state("far"), ModelState::Ready);
}

#[tokio::test]
async fn a_download_can_be_called_off() {
    let hub = MockHub::start().await;
    let bytes = std::fs::read(llama()).unwrap();
    hub.put_in("owner/name", "model.gguf", Served::large(bytes).with([Fault::StallAfter(1000)]));
    let settings = [("hub-endpoint", hub.url.as_str()), ("model", "far=hf:owner/name@main/model.gguf")];
    let house = house(&settings);
    let manager = Arc::clone(&house.manager);
    let waiting = tokio::spawn(async move { manager.lease("far").await.map(drop) });
    house
        .wait_for("far", |state| matches!(state, ModelState::Downloading(progress) if progress.bytes > 0))
        .await;
    house.unload("far").await.unwrap();
    assert_eq!(house.state("far"), ModelState::Absent);
    let refusal = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap_err();
    assert_eq!(refusal.code(), Code::ModelLoading);
    house.lease("far").await.expect("and goes on from where it was");
    assert!(hub.asked().last().unwrap().header("range").is_some());
}

#[tokio::test]
async fn a_client_cannot_fill_the_disk_by_naming_models() {
    let hub = MockHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("catalog.toml");
    let text = "[[model]]\nid = 'far'\nsources = ['hf:owner/name@main/model.gguf']\n";
    std::fs::write(&catalog, text).unwrap();
    let settings = [("hub-endpoint", hub.url.as_str()), ("catalog", catalog.to_str().unwrap())];
    let house = house(&settings);
    assert!(house.list().iter().all(|status| status.id != "far"), "what cannot be used is not listed");
    let refusal = house.lease("far").await.map(drop).unwrap_err();
    assert!(refusal.to_string().contains("administrator"), "{refusal}");
    assert!(hub.asked().is_empty());
}

#[tokio::test]
async fn after_the_end_nothing_is_loaded() {
    let house = several(&["a", "b"], &[]);
    assert!(house.preload().await.is_empty());
    assert_eq!(house.engines().len(), 2);
    timeout(PATIENCE, house.shutdown()).await.unwrap();
    assert!(house.engines().is_empty());
    assert!(matches!(house.lease("a").await.map(drop), Err(ManagerError::Draining { .. })));
    assert!(house.folder.path().exists());
}
