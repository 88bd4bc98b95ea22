//! A prompt of any kind → token ids, within the model's context.
//!
//! Templates and long texts are worked on away from the async threads, a few at a time.

use sconce_models::chat_template::TemplateInput;
use sconce_models::{ChatTemplate, Error, Infill, Tokenizer};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::generate::conversation::{self, Conversation};
use crate::generate::format::Format;
use crate::generate::{GenerateError, GenerateRequest, Prompt, Tool};
use crate::manager::ModelLease;

/// Shorter texts are tokenised where they are.
const INLINE_BYTES: usize = 8 * 1024;

/// No tokenizer in use makes tokens longer than this: a text with more bytes per token of context cannot fit, and is
/// refused before it is tokenised.
const LONGEST_TOKEN_BYTES: usize = 512;

/// A prompt, ready to be run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prepared {
    /// Its tokens: not empty, all in the vocabulary.
    pub ids: Vec<u32>,
    /// The text of a conversation, as the template shows it.
    pub text: Option<String>,
    /// It ends inside of a thought: the template began one for the model.
    pub is_thinking: bool,
}

/// Prepares a request's prompt.
///
/// # Errors
/// [`GenerateError::NoChatTemplate`], [`GenerateError::Template`], [`GenerateError::ContextLength`],
/// [`GenerateError::EmptyPrompt`], [`GenerateError::NoSuchToken`], [`GenerateError::Unsupported`].
pub async fn prepare(
    request: &GenerateRequest,
    lease: &ModelLease,
    workers: &Semaphore,
) -> Result<Prepared, GenerateError> {
    let context = lease.spec.context_length;
    let tokenizer = lease.tokenizer.clone();
    let prepared = match request.prompt.clone() {
        Prompt::Tokens(ids) => {
            check_ids(&ids, lease.spec.vocab_size, None)?;
            Prepared { ids, ..Prepared::default() }
        }
        Prompt::Text(text) => {
            let ids = if text.len() <= INLINE_BYTES {
                encode(&tokenizer, &text, true, context)?
            } else {
                aside(workers, move || encode(&tokenizer, &text, true, context)).await?
            };
            Prepared { ids, ..Prepared::default() }
        }
        Prompt::Infill { before, after } => {
            let infill = infill(lease)?.clone();
            let work = move || with_gap(&tokenizer, &infill, &before, &after, context);
            Prepared { ids: aside(workers, work).await?, ..Prepared::default() }
        }
        Prompt::Chat { .. } => {
            let (Some(template), Some(format)) = (lease.chat_template.clone(), format_of(lease)) else {
                return Err(GenerateError::NoChatTemplate { model: lease.id.clone() });
            };
            let request = request.clone();
            let work = move || {
                let text = render(&template, format, request)?;
                let ids = encode(&tokenizer, &text, false, context)?;
                Ok(Prepared { ids, is_thinking: ends_thinking(&text, format), text: Some(text) })
            };
            aside(workers, work).await?
        }
    };
    if prepared.ids.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    Ok(prepared)
}

/// How the model writes; none if it has no conversations.
pub fn format_of(lease: &ModelLease) -> Option<Format> {
    let template = lease.chat_template.as_ref()?;
    Some(Format::of(template.source(), lease.defaults().tool_format.as_deref()))
}

/// Whether a prompt ends with the mark before a thought.
fn ends_thinking(text: &str, format: Format) -> bool {
    format.thought_marks().is_some_and(|marks| text.trim_end().ends_with(marks.begin.trim_end()))
}

/// How the model fills gaps.
///
/// # Errors
/// [`GenerateError::Unsupported`] if it does not.
fn infill(lease: &ModelLease) -> Result<&Infill, GenerateError> {
    let reason = "this model was not trained to fill a gap: its tokenizer has no tokens for one";
    let unsupported = || GenerateError::Unsupported { param: "suffix", reason: reason.to_owned() };
    lease.profile.features.infill.as_ref().ok_or_else(unsupported)
}

/// The tokens of what the answer is thought to be, at most as many as the model can hold.
///
/// # Errors
/// [`GenerateError::Prediction`] for more of them.
pub async fn predicted(
    request: &GenerateRequest,
    lease: &ModelLease,
    workers: &Semaphore,
) -> Result<Vec<u32>, GenerateError> {
    let Some(text) = request.prediction.clone() else { return Ok(Vec::new()) };
    let (tokenizer, context) = (lease.tokenizer.clone(), lease.spec.context_length);
    let tokens = aside(workers, move || encode(&tokenizer, &text, false, context)).await;
    match tokens {
        Ok(tokens) if tokens.len() <= context => Ok(tokens),
        Ok(_) | Err(GenerateError::ContextLength { .. }) => Err(GenerateError::Prediction { context }),
        Err(error) => Err(error),
    }
}

/// The prompt of a text with a gap.
fn with_gap(
    tokenizer: &Tokenizer,
    infill: &Infill,
    before: &str,
    after: &str,
    context: usize,
) -> Result<Vec<u32>, GenerateError> {
    let mut ids = tokenizer.encode("", true).map_err(GenerateError::Tokenizer)?;
    ids.push(infill.before);
    ids.extend(encode(tokenizer, before, false, context)?);
    ids.push(infill.after);
    if after.len() / LONGEST_TOKEN_BYTES > context {
        let prompt = after.len() / LONGEST_TOKEN_BYTES;
        return Err(GenerateError::ContextLength { prompt, context, at_least: true });
    }
    ids.extend(tokenizer.encode_continuation(after).map_err(GenerateError::Tokenizer)?);
    ids.push(infill.middle);
    Ok(ids)
}

/// Checks ids that a client sent.
///
/// # Errors
/// [`GenerateError::NoSuchToken`].
pub fn check_ids(ids: &[u32], vocabulary: usize, field: Option<&'static str>) -> Result<(), GenerateError> {
    match ids.iter().find(|&&id| id as usize >= vocabulary) {
        Some(&id) => Err(GenerateError::NoSuchToken { id, vocabulary, field }),
        None => Ok(()),
    }
}

/// Texts with more bytes per token of context than this are looked at from their beginning first.
const USUAL_TOKEN_BYTES: usize = 16;

/// Tokenises a text unless it is surely too long.
///
/// # Errors
/// [`GenerateError::ContextLength`], [`GenerateError::Tokenizer`].
pub fn encode(
    tokenizer: &Tokenizer,
    text: &str,
    add_special_tokens: bool,
    context: usize,
) -> Result<Vec<u32>, GenerateError> {
    let prompt = text.len() / LONGEST_TOKEN_BYTES;
    if prompt > context {
        return Err(GenerateError::ContextLength { prompt, context, at_least: true });
    }
    let tokens_of = |text| tokenizer.encode(text, add_special_tokens).map_err(GenerateError::Tokenizer);
    // Megabytes take seconds and gigabytes to tokenise, so longer and longer beginnings are tried first. Where a
    // beginning is cut its last word may take other tokens than in the whole; half of what was found is sure to stay.
    let mut length = USUAL_TOKEN_BYTES * context;
    while length < text.len() {
        let prompt = tokens_of(&text[..text.floor_char_boundary(length)])?.len() / 2;
        if prompt > context {
            return Err(GenerateError::ContextLength { prompt, context, at_least: true });
        }
        length *= 4;
    }
    tokens_of(text)
}

/// Tokenises as much of a text as fits, from its beginning, between the tokens that stand at the ends of all texts.
///
/// # Errors
/// [`GenerateError::Tokenizer`].
pub fn encode_cut(tokenizer: &Tokenizer, text: &str, context: usize) -> Result<Vec<u32>, GenerateError> {
    let tokens_of = |text| tokenizer.encode(text, true).map_err(GenerateError::Tokenizer);
    // What is behind that cannot come into it, and megabytes take seconds.
    let beginning = &text[..text.floor_char_boundary(context.saturating_mul(LONGEST_TOKEN_BYTES))];
    let (mut length, mut ids) = (USUAL_TOKEN_BYTES * context, Vec::new());
    loop {
        let part = &beginning[..beginning.floor_char_boundary(length)];
        ids = if part.is_empty() { ids } else { tokens_of(part)? };
        if ids.len() / 2 > context || part.len() == beginning.len() {
            break;
        }
        length *= 4;
    }
    if ids.len() > context {
        let around = tokens_of("")?;
        let behind =
            around.iter().rev().zip(ids.iter().rev()).take_while(|(a, b)| a == b).count().min(context);
        let end = ids.split_off(ids.len() - behind);
        ids.truncate(context - behind);
        ids.extend(end);
    }
    Ok(ids)
}

/// Runs work that would hold up the async threads.
///
/// # Errors
/// The work's own, and [`GenerateError::Preparation`] if it panicked.
pub async fn aside<T: Send + 'static>(
    workers: &Semaphore,
    work: impl FnOnce() -> Result<T, GenerateError> + Send + 'static,
) -> Result<T, GenerateError> {
    let _permit = workers.acquire().await.map_err(|_| GenerateError::Preparation)?;
    tokio::task::spawn_blocking(work).await.map_err(|_| GenerateError::Preparation)?
}

fn render(
    template: &ChatTemplate,
    format: Format,
    request: GenerateRequest,
) -> Result<String, GenerateError> {
    let Prompt::Chat { messages, mut variables, add_generation_prompt, continue_final_message } =
        request.prompt
    else {
        return Err(GenerateError::Preparation);
    };
    let names = &request.names;
    conversation::set_effort(&mut variables, template.source(), format, request.reasoning, names)?;
    conversation::set_verbosity(&mut variables, template.source(), request.verbosity, names)?;
    let to_continue = if continue_final_message { last_text(&messages) } else { None };
    let add_generation_prompt = add_generation_prompt && !continue_final_message;
    let tools: Vec<Tool> = conversation::offered(&request.tools);
    let Conversation { messages, tools } =
        Conversation::new(template, format, messages, &tools, &request.tools);
    let input = TemplateInput { messages, tools, variables, add_generation_prompt };
    let mut text = template.render(&input).map_err(template_error)?;
    if continue_final_message {
        let last = to_continue.ok_or(GenerateError::CannotContinue)?;
        text.truncate(end_of_last(&text, &last).ok_or(GenerateError::CannotContinue)?);
    }
    Ok(text)
}

fn template_error(error: Error) -> GenerateError {
    match error {
        Error::Template(reason) => {
            GenerateError::Template(format!("the chat template refused the messages: {reason}"))
        }
        other => GenerateError::Tokenizer(other),
    }
}

fn last_text(messages: &[Value]) -> Option<String> {
    messages.last()?.get("content")?.as_str().map(str::to_owned)
}

/// Where the text of the last message ends: with its spaces if the template kept them, else without.
fn end_of_last(rendered: &str, last: &str) -> Option<usize> {
    let trimmed = last.trim();
    if trimmed.is_empty() {
        return None;
    }
    let begin = rendered.rfind(trimmed)?;
    let kept = &last[last.find(trimmed)? + trimmed.len()..];
    let end = begin + trimmed.len();
    Some(if rendered[end..].starts_with(kept) { end + kept.len() } else { end })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sconce_models::Tokenizer;

    use super::{encode, end_of_last};
    use crate::generate::GenerateError;

    #[test]
    fn a_text_far_too_long_is_refused_from_its_beginning() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/golden");
        let tokenizer = Tokenizer::from_file(&golden.join("llama/tokenizer.json"), 512).expect("it is sound");
        let tokens = |text: &str, context| encode(&tokenizer, text, false, context);
        for unit in ["a", "a b ", "雪", "\u{301}"] {
            let refused = tokens(&unit.repeat(40_000), 100);
            let from_beginning = matches!(refused, Err(GenerateError::ContextLength { at_least: true, .. }));
            assert!(from_beginning, "{unit}: {refused:?}");
        }
        let whole = tokenizer.encode("a text of few words", false).expect("it is text");
        assert_eq!(tokens("a text of few words", 2).expect("it is for the caller to count"), whole);
    }

    #[test]
    fn the_last_message_ends_where_its_own_text_ends() {
        let rendered = "<user>Yes?<end><assistant>Yes? and <end>";
        let end = end_of_last(rendered, "Yes? and ").expect("it is there");
        assert_eq!(&rendered[..end], "<user>Yes?<end><assistant>Yes? and ");
    }

    #[test]
    fn a_template_that_trims_is_followed() {
        let rendered = "<assistant>Yes<end>";
        let end = end_of_last(rendered, "  Yes \n").expect("it is there");
        assert_eq!(&rendered[..end], "<assistant>Yes");
    }

    #[test]
    fn what_is_not_shown_cannot_be_continued() {
        assert_eq!(end_of_last("<assistant>yes<end>", "YES"), None);
        assert_eq!(end_of_last("<assistant><end>", " "), None);
    }
}
