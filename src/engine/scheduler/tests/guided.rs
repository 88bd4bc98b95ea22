//! Answers with a grammar: what they are, that nothing else changes them, and that what must come takes no steps.

use std::sync::LazyLock;

use sconce_models::Tokenizer;
use sconce_models::grammar::{Grammars, Language};
use serde_json::json;

use super::*;
use crate::engine::{Guide, ThoughtLimit};

/// What the fake model's ordinary ids stand for, the last one apart.
const CHARACTERS: &str = "\"{}[]:, -._abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLM";
/// The last of them ends an answer.
const END: u32 = fake::ORDINARY - 1;
const CONTEXT: usize = 1_024;

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let names = CHARACTERS.chars().map(|character| if character == ' ' { 'Ġ' } else { character });
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        names.zip(0_u32..).map(|(name, id)| (name.to_string(), id.into())).collect();
    assert_eq!(vocabulary.len() as u32, END);
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let end = json!({"id": END, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [end],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []}});
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    Grammars::new(Tokenizer::from_file(&path, fake::VOCAB as usize).unwrap(), vec![END])
});

fn language(regex: &str) -> Language {
    Language::Regex(regex.to_owned())
}

fn guide(language: &Language) -> Option<Box<Guide>> {
    Some(Box::new(Guide::new(GRAMMARS.compile(language, None).unwrap())))
}

fn guided(seed: u64, language: &Language) -> SequenceRequest {
    let mut request = SequenceRequest::new(prompt(0, 0, seed as u32, 20), 200);
    request.sampling.seed = Some(seed);
    request.stop_token_ids = vec![END];
    request.guide = guide(language);
    request
}

/// One of some languages, for requests of any kind.
pub(super) fn any_guide() -> impl Strategy<Value = Option<Box<Guide>>> {
    let languages = [
        language("[a-f]{2,9}-(keep|kept)[0-9]*"),
        language(".*"),
        Language::Choice(vec!["abcdefgh".to_owned(), "abcd".to_owned(), "0000000000000000000000".to_owned()]),
        Language::JsonSchema(
            json!({"type": "object", "required": ["name", "list"], "additionalProperties": false,
            "properties": {"name": {"enum": ["ada", "bo"]}, "list": {"type": "array", "items": {"type": "boolean"}}}}),
        ),
    ];
    let one = proptest::sample::select(languages.to_vec()).prop_map(|language| guide(&language));
    prop_oneof![2 => Just(None), 1 => one]
}

fn text(choice: &Choice) -> String {
    choice.tokens.iter().map(|token| CHARACTERS.chars().nth(token.0 as usize).unwrap()).collect()
}

/// What an engine of these limits answers.
fn ask(limits: EngineLimits, request: &SequenceRequest) -> (EngineStats, Answer) {
    let mut simulation = Simulation::with(FakeModel::repetitive(CONTEXT, 1), limits);
    let client = simulation.submit(request.clone());
    simulation.run();
    simulation.assert_all_free();
    (simulation.scheduler.figures, simulation.clients[client].answer())
}

/// What is said in place of an answer.
fn ask_for_error(request: &SequenceRequest) -> (EngineStats, String) {
    let mut simulation = Simulation::with(FakeModel::repetitive(CONTEXT, 1), limits(64));
    let client = simulation.submit(request.clone());
    simulation.run();
    simulation.assert_all_free();
    match simulation.clients[client].received.last() {
        Some(Err(EngineError::Grammar { reason })) => (simulation.scheduler.figures, reason.clone()),
        other => panic!("{other:?}"),
    }
}

fn speculating(speculation: Speculation) -> EngineLimits {
    EngineLimits { speculation, ..limits(64) }
}

#[test]
fn an_answer_belongs_to_its_language_and_ends_with_it() {
    let form = language("[a-c]{3}[0-9]{2,4}");
    let mut ends = [0, 0];
    for seed in 0..40 {
        let (_, answer) = ask(speculating(Speculation::Auto), &guided(seed, &form));
        let choice = &answer.choices[0];
        let text = text(choice);
        assert!(text[..3].bytes().all(|byte| (b'a'..=b'c').contains(&byte)), "{text}");
        assert!(
            text[3..].bytes().all(|byte| byte.is_ascii_digit()) && (5..=7).contains(&text.len()),
            "{text}"
        );
        match choice.ends[..] {
            [(FinishReason::Complete, generated)] => {
                assert_eq!((generated, text.len()), (7, 7));
                ends[0] += 1;
            }
            [(FinishReason::Stop(END), generated)] => {
                assert_eq!(generated as usize, text.len() + 1);
                ends[1] += 1;
            }
            ref other => panic!("{other:?}"),
        }
    }
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
}

#[test]
fn what_must_come_takes_no_steps_of_its_own() {
    let text_of = "abcdefghijklmnopqrstuvwxyz0123456789".repeat(3);
    let request = guided(1, &Language::Choice(vec![format!("0{text_of}"), format!("1{text_of}")]));
    let (figures, answer) = ask(speculating(Speculation::Auto), &request);
    assert_eq!(text(&answer.choices[0])[1..], text_of);
    assert_eq!(figures.forced_tokens, 108);
    assert_eq!((figures.generated_tokens, figures.steps), (109, 1), "nothing is drawn after the first token");
    // Where more is drawn afterwards, what was forced is run with it.
    let open = guided(1, &language(&format!("[01]{text_of}[0-9]{{4}}")));
    let narrow = EngineLimits { prefill_chunk: 40, ..speculating(Speculation::Off) };
    let (figures, answer) = ask(narrow, &open);
    assert_eq!(text(&answer.choices[0]).len(), 113);
    assert_eq!(figures.steps, 1 + 3 + 3, "40 tokens a step beside the one that is drawn");
}

#[test]
fn an_answer_is_the_same_with_guesses_log_probabilities_and_siblings() {
    let mut accepted = 0;
    for form in ["[a-c]*-keep[0-9]{3,40}", "(ab|ac|ad)*", "[a-m]{0,80}"] {
        for seed in 0..6 {
            let mut request = guided(seed, &language(form));
            request.choices = 1 + seed as u32 % 3;
            request.sampling.temperature = 0.6;
            request.sampling.frequency_penalty = 0.01;
            let expected = ask(speculating(Speculation::Off), &request).1;
            for speculation in [Speculation::Auto, Speculation::Always] {
                let (figures, answer) = ask(speculating(speculation), &request);
                assert_eq!(answer, expected, "{form} {seed}");
                accepted += figures.accepted_tokens;
            }
            request.sampling.logprobs = Some(1);
            let (_, told) = ask(speculating(Speculation::Always), &request);
            for (told, plain) in told.choices.iter().zip(&expected.choices) {
                assert_eq!(text(told), text(plain));
                assert_eq!(told.ends, plain.ends);
                assert!(told.tokens.iter().all(|token| token.1.is_some()), "{form} {seed}");
            }
        }
    }
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn an_end_comes_only_where_the_answer_is_whole_and_long_enough() {
    let letters = language("(ab)*");
    for seed in 0..20 {
        let mut request = guided(seed, &letters);
        request.min_new_tokens = 7;
        let (_, answer) = ask(speculating(Speculation::Always), &request);
        let length = answer.choices[0].tokens.len();
        assert!(length >= 8 && length % 2 == 0, "{length}");
        // Without any end it goes on as long as it may.
        request.stop_token_ids.clear();
        let (_, endless) = ask(speculating(Speculation::Auto), &request);
        assert_eq!(endless.choices[0].ends, [(FinishReason::Length, 200)]);
    }
    // A stop token that is text of the grammar ends the answer only where the grammar could end.
    let letter = |letter: char| CHARACTERS.chars().position(|other| other == letter).unwrap() as u32;
    let mut request = guided(3, &language("[ab]{4}[a-z]{0,20}"));
    request.stop_token_ids = vec![letter('b')];
    let (_, answer) = ask(speculating(Speculation::Auto), &request);
    assert!(text(&answer.choices[0]).starts_with("aaaa"), "{answer:?}");
}

#[test]
fn a_grammar_that_begins_later_leaves_what_comes_before_alone() {
    let dash = CHARACTERS.chars().position(|character| character == '-').unwrap() as u32;
    let mut begun = 0;
    for seed in 0..10 {
        let mut request = guided(seed, &language("[0-9]{3}"));
        let matcher = GRAMMARS.compile(&language("[0-9]{3}"), None).unwrap();
        request.guide = Some(Box::new(Guide::after(matcher, vec![dash])));
        let (_, answer) = ask(speculating(Speculation::Always), &request);
        let text = text(&answer.choices[0]);
        if let Some((_, after)) = text.split_once('-') {
            begun += 1;
            assert!(after.len() == 3 && after.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
        }
    }
    assert!(begun > 5, "{begun}");
    // The same where the text before is a part of the grammar.
    let mut request = guided(2, &language("[0-9]{3}"));
    request.guide = Some(Box::new(Guide::new(GRAMMARS.compile(&language("[0-9]{3}"), Some("-.")).unwrap())));
    let (_, answer) = ask(speculating(Speculation::Auto), &request);
    let text = text(&answer.choices[0]);
    let after = text.split_once("-.").map_or("", |(_, after)| after);
    assert!(text.len() == 200 || after.len() == 3, "{text}");
}

#[test]
fn a_grammar_that_fails_ends_its_own_request_alone() {
    let mut simulation = Simulation::new(limits(64), CONTEXT);
    let other = simulation.submit(greedy(prompt(0, 0, 1, 20), 30));
    let mut request = guided(1, &language("[a-z]*"));
    request.stop_token_ids.clear();
    let client = simulation.submit(request);
    (0..5).for_each(|_| simulation.step());
    simulation
        .scheduler
        .running
        .iter_mut()
        .filter_map(|sequence| sequence.guide.as_mut())
        .for_each(|g| g.break_it());
    simulation.run();
    simulation.assert_all_free();
    assert!(matches!(simulation.clients[client].received.last(), Some(Err(EngineError::Grammar { .. }))));
    assert_eq!(simulation.clients[other].answer(), alone(&greedy(prompt(0, 0, 1, 20), 30), CONTEXT));
}

#[test]
fn a_grammar_that_is_late_holds_up_nobody_else() {
    let mut simulation = Simulation::new(limits(64), CONTEXT);
    let free = greedy(prompt(0, 0, 1, 20), 30);
    let slow = guided(1, &language("[a-z]{30}"));
    let (other, client) = (simulation.submit(free.clone()), simulation.submit(slow.clone()));
    simulation.is_never_back = true;
    for _ in 0..32 {
        simulation.step();
    }
    assert_eq!(simulation.clients[other].answer(), alone(&free, CONTEXT));
    assert_eq!((simulation.late.len(), simulation.clients[client].first_token_seen()), (1, false));
    assert!(simulation.last_step.is_none(), "nothing runs for who cannot go on");
    simulation.is_never_back = false;
    simulation.run();
    simulation.assert_all_free();
    assert_eq!(simulation.clients[client].answer(), alone(&slow, CONTEXT));
}

#[test]
fn whose_grammar_is_lost_gets_an_error_and_others_go_on() {
    let mut simulation = Simulation::new(limits(64), CONTEXT);
    let free = greedy(prompt(0, 0, 1, 20), 30);
    let (other, client) =
        (simulation.submit(free.clone()), simulation.submit(guided(1, &language("[a-z]{30}"))));
    simulation.is_never_back = true;
    simulation.step();
    simulation.late.clear();
    simulation.scheduler.lose_guides();
    simulation.run();
    simulation.assert_all_free();
    assert!(matches!(simulation.clients[client].received.last(), Some(Err(EngineError::Grammar { .. }))));
    assert_eq!(simulation.clients[other].answer(), alone(&free, CONTEXT));
}

#[test]
fn a_dead_end_is_no_answer() {
    let form = Language::Lark("start: \"ab\" /[a-c]/ (\"0\" | \"1\") \"é\"".to_owned());
    let (_, reason) = ask_for_error(&guided(1, &form));
    assert!(reason.contains("cannot") || reason.contains("no answer"), "{reason}");
}

#[test]
fn grammars_survive_that_blocks_run_out() {
    let limits = EngineLimits { cache_blocks: 10, ..speculating(Speculation::Always) };
    let mut simulation = Simulation::with(FakeModel::repetitive(320, 1), limits);
    let requests: Vec<_> =
        (0..4).map(|seed| guided(seed, &language("([a-c]{4}-abcdefghijklmnopqrstuvwxyz){5,9}"))).collect();
    let clients: Vec<_> = requests.iter().map(|request| simulation.submit(request.clone())).collect();
    simulation.run();
    simulation.assert_all_free();
    assert!(simulation.scheduler.figures.preemptions > 0 && simulation.scheduler.figures.forced_tokens > 100);
    for (client, request) in clients.iter().zip(&requests) {
        let expected = alone_with(FakeModel::repetitive(320, 1), request);
        assert_eq!(simulation.clients[*client].answer(), expected);
    }
}

#[test]
fn a_thought_that_is_used_up_is_ended() {
    let end = 7;
    let limit = |begin, is_open, budget| Some(ThoughtLimit { begin, end, is_open, budget });
    for speculation in [Speculation::Off, Speculation::Always] {
        let mut request = SequenceRequest::new(prompt(0, 0, 3, 20), 60);
        request.choices = 3;
        request.sampling.seed = Some(3);
        request.sampling.logit_bias = vec![(end, -100.0)];
        let (_, free) = ask(speculating(speculation), &request);
        request.thought = limit(None, true, 5);
        let (_, bounded) = ask(speculating(speculation), &request);
        for (free, bounded) in free.choices.iter().zip(&bounded.choices) {
            assert_eq!(free.tokens[..5], bounded.tokens[..5]);
            let ends: Vec<usize> = (0..60).filter(|&place| bounded.tokens[place].0 == end).collect();
            assert_eq!(ends, [5], "once, when the budget is used up");
        }
        // One that the model begins itself, and one that it never begins.
        let first = free.choices[0].tokens[0].0;
        request.choices = 1;
        request.thought = limit(Some(first), false, 2);
        let (_, own) = ask(speculating(speculation), &request);
        assert_eq!(own.choices[0].tokens[3].0, end);
        request.thought = limit(None, false, 0);
        let (_, none) = ask(speculating(speculation), &request);
        assert_eq!(none.choices[0].tokens[..], free.choices[0].tokens[..]);
    }
}
