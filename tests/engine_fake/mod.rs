//! A model without weights: its logits are a hash of the sequence's own tokens, which it reads back from the cache.
//!
//! It writes each token's id at its slot and, for each sampled row, reads the whole history through the block table; a
//! block that is shared, copied, evicted or reused wrongly therefore changes the answer. One with a short memory says
//! nearly what its last tokens make it say, and so repeats itself, but the whole history is in every bit. The last ids of the vocabulary
//! are poison: they are never generated, and in a prompt they make the pass fail in the way they are named for.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::{Arc, Condvar, Mutex};

use sconce_models::{Batch, Error, KvCache, Logits, Model, ModelKind, ModelSpec};

/// Ids that the model knows, the poisons included.
pub const VOCAB: u32 = 64;
/// The pass panics.
pub const PANIC: u32 = VOCAB - 1;
/// The pass returns an error.
pub const ERROR: u32 = VOCAB - 2;
/// The rows of sequences that hold it are NaN.
pub const NAN: u32 = VOCAB - 3;
/// Ids below this are ordinary.
pub const ORDINARY: u32 = VOCAB - 3;

/// Lets passes through one by one, or all.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    allowed: u64,
    open: bool,
    /// Passes that have come to the gate.
    arrived: u64,
}

impl Gate {
    /// Lets this many more passes through.
    pub fn allow(&self, passes: u64) {
        self.0.0.lock().unwrap().allowed += passes;
        self.0.1.notify_all();
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }

    /// Waits until this many passes have come to the gate in all.
    pub fn wait_for_arrivals(&self, passes: u64) {
        let guard = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(guard, |state| state.arrived < passes).unwrap());
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.arrived += 1;
        self.0.1.notify_all();
        let mut state = self.0.1.wait_while(state, |state| state.allowed == 0 && !state.open).unwrap();
        state.allowed = state.allowed.saturating_sub(1);
    }
}

/// The stand-in.
pub struct FakeModel {
    pub spec: ModelSpec,
    /// How many tokens nearly decide the next one; none: all do alike.
    pub memory: Option<usize>,
    /// If there is one, each pass waits at it.
    pub gate: Option<Gate>,
    /// Every batch that was run.
    pub log: Option<Arc<Mutex<Vec<Batch>>>>,
}

impl FakeModel {
    /// A model of [`VOCAB`] tokens.
    pub fn new(context_length: usize) -> Self {
        Self { spec: spec(context_length, VOCAB as usize), memory: None, gate: None, log: None }
    }

    /// One that repeats itself: after the same so many tokens it nearly always says the same.
    pub fn repetitive(context_length: usize, memory: usize) -> Self {
        Self { memory: Some(memory), ..Self::new(context_length) }
    }

    /// One whose passes wait at the gate.
    pub fn gated(context_length: usize, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..Self::new(context_length) }
    }
}

/// The shape of a model without layers.
pub fn spec(context_length: usize, vocab_size: usize) -> ModelSpec {
    ModelSpec {
        architecture: "fake".into(),
        kind: ModelKind::Causal,
        layers: 0,
        hidden_size: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 1,
        vocab_size,
        context_length,
        embedding_size: 0,
        weights_bytes: 0,
        scratch_bytes_per_token: 0,
        fingerprint: "fake".into(),
    }
}

impl Model for FakeModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&self, batch: &Batch, cache: &mut KvCache) -> Result<Logits, Error> {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        if let Some(log) = &self.log {
            log.lock().unwrap().push(batch.clone());
        }
        for (&id, &slot) in batch.token_ids.iter().zip(&batch.slots) {
            cache.set_mark(slot, id + 1);
        }
        assert!(!batch.token_ids.contains(&PANIC), "poisoned");
        if batch.token_ids.contains(&ERROR) {
            return Err(Error::Compute("poisoned".into()));
        }
        let mut data = Vec::with_capacity(batch.sample_rows.len() * VOCAB as usize);
        for &row in &batch.sample_rows {
            let sequence = batch.starts.partition_point(|&start| start <= row) - 1;
            let history = (0..=batch.positions[row as usize] as usize).map(|position| {
                let block = batch.block_tables[sequence][position / KvCache::BLOCK_SIZE];
                let slot = block * KvCache::BLOCK_SIZE as u32 + (position % KvCache::BLOCK_SIZE) as u32;
                cache.mark(slot).expect("a slot of the cache")
            });
            data.extend(logits(&history.collect::<Vec<u32>>(), self.memory));
        }
        Ok(Logits::from_host(VOCAB as usize, data))
    }
}

fn logits(history: &[u32], memory: Option<usize>) -> Vec<f32> {
    assert!(!history.contains(&0), "a position that was never written is read");
    let poisoned = history.contains(&(NAN + 1));
    let whole = hash(history);
    let remembered = memory.map(|tokens| hash(&history[history.len().saturating_sub(tokens)..]));
    let logit = |id: u32| match id {
        _ if poisoned => f32::NAN,
        ORDINARY.. => f32::NEG_INFINITY,
        _ => match remembered {
            Some(remembered) => 4.0 * logit_of(remembered, id) + logit_of(whole, id) / 64.0,
            None => logit_of(whole, id),
        },
    };
    (0..VOCAB).map(logit).collect()
}

fn hash(marks: &[u32]) -> u64 {
    let mix =
        |hash: u64, &mark: &u32| (hash ^ u64::from(mark)).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
    marks.iter().fold(0xCBF2_9CE4_8422_2325, mix)
}

/// From 0 to 8.
fn logit_of(hash: u64, id: u32) -> f32 {
    let mixed = (hash ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f32 / (1 << 21) as f32
}
