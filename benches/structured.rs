//! What a constraint costs: the time of a token of the real model's, free, as any JSON object, and within a deep schema, with
//! one stream and with sixteen.

#[path = "../tests/real_models/mod.rs"]
mod real_models;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::StreamExt;
use sconce::engine::{Engine, EngineHandle, EngineLimits, Guide, SequenceRequest, Speculation, TokenEvent};
use sconce_models::grammar::{Grammars, Language};
use sconce_models::{Device, DeviceSpec, LoadOptions, LoadedModel, ModelFiles, Tokenizer, load};
use serde_json::{Value, json};

/// Tokens of each answer.
const ANSWER: u32 = 160;
const QUESTION: &str =
    "<|im_start|>user\nTell me about the harbour, in JSON.<|im_end|>\n<|im_start|>assistant\n";

struct Rig {
    engine: EngineHandle,
    tokenizer: Tokenizer,
    grammars: Grammars,
    /// A bias against tokens with a closing bracket, so that no answer ends early; all requests have it.
    closing: Vec<(u32, f32)>,
}

impl Rig {
    fn start() -> Self {
        let files = ModelFiles::find(&real_models::smollm2()).expect("the model is there");
        let options = LoadOptions { device: DeviceSpec::Cpu, ..LoadOptions::default() };
        let loaded = load(&files, &options).expect("it can be loaded");
        let LoadedModel::Causal(model) = loaded.model else { panic!("SmolLM2 is a causal model") };
        let rows = loaded.spec.vocab_size as u32;
        let has_bracket =
            |id: &u32| loaded.tokenizer.token_bytes(*id).is_some_and(|bytes| bytes.contains(&b'}'));
        let closing = (0..rows).filter(has_bracket).map(|id| (id, -100.0)).collect();
        let grammars = Grammars::new(loaded.tokenizer.clone(), loaded.defaults.end_token_ids);
        // How many guesses are right depends on what is said, and that on the constraint.
        let limits = EngineLimits { speculation: Speculation::Off, ..EngineLimits::default() };
        let engine = Engine::spawn(model, &Device::cpu(), limits).expect("an engine");
        Self { engine, tokenizer: loaded.tokenizer, grammars, closing }
    }

    /// How long a token takes where so many streams run.
    fn time_of_a_token(&self, streams: u64, language: Option<&Language>) -> Duration {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let prompt = self.tokenizer.encode(QUESTION, false).expect("it is text");
        let running = (0..streams).map(|seed| {
            let mut request = SequenceRequest::new(prompt.clone(), ANSWER);
            request.sampling.seed = Some(seed);
            request.sampling.logit_bias = self.closing.clone();
            request.guide = language.map(|language| {
                let matcher = self.grammars.compile(language, None).expect("it can be compiled");
                Box::new(Guide::new(matcher))
            });
            self.engine.submit(request).expect("a place in the queue")
        });
        let running: Vec<_> = running.collect();
        let started = Instant::now();
        let tokens: usize = runtime.block_on(async {
            let counts = running.into_iter().map(|stream| {
                stream
                    .filter(|event| std::future::ready(matches!(event, Ok(TokenEvent::Token { .. }))))
                    .count()
            });
            futures_util::future::join_all(counts).await.into_iter().sum()
        });
        started.elapsed() * streams as u32 / tokens as u32
    }
}

/// Objects in objects, with all that schemas have in them.
fn deep_schema() -> Value {
    let leaf = json!({"type": "object", "additionalProperties": false, "required": ["name", "kind", "tags", "size"],
        "properties": {"name": {"type": "string", "pattern": "^[A-Z][a-z ]{3,30}$"},
            "kind": {"enum": ["ship", "crane", "quay", "shed", "light"]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
            "size": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 500}, {"type": "null"}]}}});
    let schema = (0..8).fold(leaf, |inner, level| {
        json!({"type": "object", "additionalProperties": false, "required": [format!("part_{level}"), "note"],
            "properties": {format!("part_{level}"): inner, "note": {"type": "string"}}})
    });
    json!({"type": "array", "items": schema, "minItems": 50})
}

fn tokens(criterion: &mut Criterion) {
    let rig = Rig::start();
    let languages = [
        ("free", None),
        ("json_object", Some(Language::JsonObject)),
        ("deep schema", Some(Language::JsonSchema(deep_schema()))),
    ];
    for streams in [1, 16] {
        for (name, language) in &languages {
            criterion.bench_function(&format!("structured/a token, {name}, {streams} streams"), |bencher| {
                bencher.iter_custom(|times| {
                    (0..times).map(|_| rig.time_of_a_token(streams, language.as_ref())).sum::<Duration>()
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5)).warm_up_time(Duration::from_millis(500));
    targets = tokens
}
criterion_main!(benches);
