//! The encoder's thread: order, sharing, giving up, refusals and faults.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod engine_fake;

use std::sync::{Arc, Condvar, Mutex};

use futures_util::future::join_all;
use sconce::engine::{EmbedderHandle, EngineError};
use sconce_models::{CrossEncoder, Embedder, Error, ModelSpec};

const VOCAB: usize = 64;

/// Embeds a sequence as (its length, its sum). Ids at the end of the vocabulary are poison.
struct FakeEncoder {
    spec: ModelSpec,
    passes: Passes,
}

/// What the encoder was given, pass by pass; a pass waits while the gate is shut.
#[derive(Clone, Default)]
struct Passes(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    seen: Vec<Vec<Vec<u32>>>,
    shut: bool,
}

impl Passes {
    fn shut(&self, shut: bool) {
        self.0.0.lock().unwrap().shut = shut;
        self.0.1.notify_all();
    }

    fn wait_for(&self, passes: usize) {
        let guard = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(guard, |state| state.seen.len() < passes).unwrap());
    }

    fn seen(&self) -> Vec<Vec<Vec<u32>>> {
        self.0.0.lock().unwrap().seen.clone()
    }

    fn enter(&self, sequences: &[Vec<u32>]) {
        let mut state = self.0.0.lock().unwrap();
        state.seen.push(sequences.to_vec());
        self.0.1.notify_all();
        drop(self.0.1.wait_while(state, |state| state.shut).unwrap());
    }
}

impl FakeEncoder {
    fn boxed(passes: &Passes) -> Box<Self> {
        Box::new(Self { spec: engine_fake::spec(16, VOCAB), passes: passes.clone() })
    }
}

impl Embedder for FakeEncoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn embed(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Error> {
        self.passes.enter(sequences);
        let holds = |id| sequences.iter().any(|ids| ids.contains(&id));
        assert!(!holds(engine_fake::PANIC), "poisoned");
        if holds(engine_fake::ERROR) {
            return Err(Error::Compute("poisoned".into()));
        }
        let embed = |ids: &Vec<u32>| {
            let sum = if ids.contains(&engine_fake::NAN) { f32::NAN } else { ids.iter().sum::<u32>() as f32 };
            vec![ids.len() as f32, sum]
        };
        Ok(sequences.iter().map(embed).collect())
    }
}

impl CrossEncoder for FakeEncoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn score(&self, sequences: &[Vec<u32>], type_ids: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Error> {
        let score = |(ids, types): (&Vec<u32>, &Vec<u32>)| {
            vec![ids.iter().zip(types).map(|(id, kind)| id * kind).sum::<u32>() as f32]
        };
        Ok(sequences.iter().zip(type_ids).map(score).collect())
    }
}

#[tokio::test]
async fn outputs_come_in_the_order_of_the_inputs() {
    let passes = Passes::default();
    let handle = EmbedderHandle::spawn(FakeEncoder::boxed(&passes), 8, 100).unwrap();
    let inputs: Vec<Vec<u32>> = (1..12).map(|length| vec![length; length as usize]).collect();
    let outputs = handle.embed(inputs).await.unwrap();
    let expected: Vec<Vec<f32>> =
        (1..12).map(|length| vec![length as f32, (length * length) as f32]).collect();
    assert_eq!(outputs, expected);
    let fits = |pass: &Vec<Vec<u32>>| pass.len() == 1 || pass.iter().map(Vec::len).sum::<usize>() <= 8;
    assert!(passes.seen().iter().all(fits), "a pass holds 8 tokens, or one sequence");
    assert_eq!(handle.embed(Vec::new()).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_large_request_does_not_hold_up_a_small_one() {
    let passes = Passes::default();
    let handle = EmbedderHandle::spawn(FakeEncoder::boxed(&passes), 8, 1_000).unwrap();
    passes.shut(true);
    let large = tokio::spawn({
        let handle = handle.clone();
        async move { handle.embed(vec![vec![1; 4]; 200]).await }
    });
    tokio::task::spawn_blocking({
        let passes = passes.clone();
        move || passes.wait_for(1)
    })
    .await
    .unwrap();
    let small: Vec<_> = (0..3).map(|_| Box::pin(handle.embed(vec![vec![2; 4]]))).collect();
    let mut small = Box::pin(join_all(small));
    // One poll submits all three; the gate is still shut.
    assert!(futures_util::poll!(&mut small).is_pending());
    passes.shut(false);
    assert!(small.await.iter().all(|output| *output == Ok(vec![vec![4.0, 8.0]])));
    assert_eq!(large.await.unwrap().unwrap().len(), 200);
    let seen = passes.seen();
    let last_small = seen.iter().rposition(|pass| pass.contains(&vec![2; 4])).unwrap();
    assert!(last_small <= 3, "three small requests took part in the next passes, not after {last_small}");
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_run() {
    let passes = Passes::default();
    let handle = EmbedderHandle::spawn(FakeEncoder::boxed(&passes), 4, 1_000).unwrap();
    passes.shut(true);
    let mut given_up = Box::pin(handle.embed(vec![vec![1; 4]; 100]));
    assert!(futures_util::poll!(&mut given_up).is_pending());
    passes.wait_for(1);
    drop(given_up);
    passes.shut(false);
    handle.embed(vec![vec![2; 4]]).await.unwrap();
    assert_eq!(passes.seen().len(), 2);
}

#[tokio::test]
async fn the_queue_is_counted_in_sequences() {
    let passes = Passes::default();
    let handle = EmbedderHandle::spawn(FakeEncoder::boxed(&passes), 4, 10).unwrap();
    passes.shut(true);
    // More than the bound, but nobody else waits.
    let mut first = Box::pin(handle.embed(vec![vec![1; 4]; 25]));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(matches!(handle.embed(vec![vec![1]]).await, Err(EngineError::QueueFull { waiting: 10, .. })));
    passes.shut(false);
    assert_eq!(first.await.unwrap().len(), 25);
    assert_eq!(handle.embed(vec![vec![1]]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn wrong_inputs_are_refused_and_faults_stay_with_their_pass() {
    let handle = EmbedderHandle::spawn(FakeEncoder::boxed(&Passes::default()), 64, 100).unwrap();
    assert!(matches!(handle.embed(vec![vec![]]).await, Err(EngineError::Invalid { .. })));
    assert!(matches!(handle.embed(vec![vec![64]]).await, Err(EngineError::Invalid { .. })));
    let too_long = EngineError::TooLong { needed: 17, available: 16 };
    assert_eq!(handle.embed(vec![vec![1; 17]]).await, Err(too_long));
    assert!(matches!(handle.score(vec![(vec![1], vec![0])]).await, Err(EngineError::Invalid { .. })));
    for poison in [engine_fake::PANIC, engine_fake::ERROR, engine_fake::NAN] {
        assert!(matches!(handle.embed(vec![vec![poison]]).await, Err(EngineError::Failed { .. })));
        assert_eq!(handle.embed(vec![vec![5]]).await, Ok(vec![vec![1.0, 5.0]]));
    }
}

#[tokio::test]
async fn pairs_are_scored_with_their_types() {
    let handle = EmbedderHandle::spawn_cross_encoder(FakeEncoder::boxed(&Passes::default()), 8, 100).unwrap();
    let scores = handle.score(vec![(vec![1, 2], vec![0, 1]), (vec![3, 4], vec![1, 1])]).await;
    assert_eq!(scores, Ok(vec![vec![2.0], vec![7.0]]));
    assert!(matches!(handle.score(vec![(vec![1], vec![])]).await, Err(EngineError::Invalid { .. })));
    assert!(matches!(handle.embed(vec![vec![1]]).await, Err(EngineError::Invalid { .. })));
}
