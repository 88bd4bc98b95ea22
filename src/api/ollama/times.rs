//! How long each part of a request took, in Ollama's words. Measured here, as a client would: waiting is a part of it.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::generate::{GenerationEvent, Usage};

/// The moments of a request.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    begun: Instant,
    loaded: Instant,
    /// When the prompt had been run.
    prompted: Option<Instant>,
}

impl Times {
    /// Of a request that began then and has its model now.
    pub fn loaded_since(begun: Instant) -> Self {
        Self { begun, loaded: Instant::now(), prompted: None }
    }

    /// Notes what happens.
    pub fn note(&mut self, event: &GenerationEvent) {
        if matches!(event, GenerationEvent::Started { .. }) {
            self.prompted.get_or_insert_with(Instant::now);
        }
    }

    /// How long loading took.
    pub fn load(&self) -> u64 {
        nanoseconds(self.loaded - self.begun)
    }

    /// How long it all took until now.
    pub fn total(&self) -> u64 {
        nanoseconds(self.begun.elapsed())
    }

    /// The members of a last line: durations in nanoseconds, numbers of tokens.
    pub fn members(&self, usage: Usage) -> Map<String, Value> {
        let (now, prompted) = (Instant::now(), self.prompted);
        let prompted = prompted.unwrap_or(now);
        let mut members = Map::new();
        for (name, value) in [
            ("total_duration", nanoseconds(now - self.begun)),
            ("load_duration", self.load()),
            ("prompt_eval_count", u64::from(usage.prompt_tokens)),
            ("prompt_eval_duration", nanoseconds(prompted - self.loaded)),
            ("eval_count", u64::from(usage.completion_tokens)),
            ("eval_duration", nanoseconds(now - prompted)),
        ] {
            members.insert(name.to_owned(), json!(value));
        }
        members
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
