//! What goes out, in OpenAI's shapes. Requests are read member by member (`fields.rs`), so they have no types here.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::inference;
use crate::generate::{EndReason, TextToken, ToolCall, Usage as Count};

/// Smaller than any log-probability that is sent: JSON has no infinity.
const LEAST_LOGPROB: f32 = -9999.0;

/// `usage`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = OpenAiUsage)]
pub struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokensDetails,
    completion_tokens_details: CompletionTokensDetails,
    timings: Timings,
}

/// How long it took.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = OpenAiTimings)]
struct Timings {
    /// Milliseconds from the request's arrival until its prompt had run, waiting included.
    prompt_ms: f64,
    /// Prompt tokens a second, without those that were found in the cache.
    prompt_per_second: f64,
    /// Milliseconds from then until the answer was complete.
    predicted_ms: f64,
    /// Generated tokens a second, of all choices together.
    predicted_per_second: f64,
}

impl Timings {
    fn of(count: &Count) -> Self {
        let rate = |tokens: u32, time: Duration| match time.is_zero() {
            true => 0.0,
            false => f64::from(tokens) / time.as_secs_f64(),
        };
        let (prompt, answer) = (count.timings.prompt, count.timings.answer);
        Self {
            prompt_ms: prompt.as_secs_f64() * 1e3,
            prompt_per_second: rate(count.prompt_tokens.saturating_sub(count.cached_tokens), prompt),
            predicted_ms: answer.as_secs_f64() * 1e3,
            predicted_per_second: rate(count.completion_tokens, answer),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = OpenAiPromptTokensDetails)]
struct PromptTokensDetails {
    cached_tokens: u32,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = OpenAiCompletionTokensDetails)]
struct CompletionTokensDetails {
    reasoning_tokens: u32,
    /// Tokens of `prediction` that the answer has, in their place or behind what is new.
    accepted_prediction_tokens: u32,
    /// Tokens of `prediction` that the answer has not. They are in no other count and cost nothing.
    rejected_prediction_tokens: u32,
}

impl From<Count> for Usage {
    fn from(count: Count) -> Self {
        Self {
            prompt_tokens: count.prompt_tokens,
            completion_tokens: count.completion_tokens,
            total_tokens: count.prompt_tokens.saturating_add(count.completion_tokens),
            prompt_tokens_details: PromptTokensDetails { cached_tokens: count.cached_tokens },
            completion_tokens_details: CompletionTokensDetails {
                reasoning_tokens: count.reasoning_tokens,
                accepted_prediction_tokens: count.accepted_prediction_tokens,
                rejected_prediction_tokens: count.rejected_prediction_tokens,
            },
            timings: Timings::of(&count),
        }
    }
}

/// `finish_reason`.
pub fn finish_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Stop | EndReason::StopText(_) => "stop",
        EndReason::ToolCalls => "tool_calls",
        EndReason::Length => "length",
    }
}

/// The head that all chunks and answers of one request share.
#[derive(Debug, Clone, Serialize)]
pub struct Head {
    /// `chatcmpl-…` or `cmpl-…`.
    pub id: String,
    /// What kind of object it is.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model as it was asked for.
    pub model: String,
    /// Same fingerprint, same request and seed: same answer.
    pub system_fingerprint: String,
    /// Who went first; only chats tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'static str>,
}

impl Head {
    /// That of an answer that begins now.
    pub fn new(id: String, object: &'static str, model: String, fingerprint: &str) -> Self {
        Self {
            id,
            object,
            created: inference::now(),
            model,
            system_fingerprint: fingerprint.to_owned(),
            service_tier: None,
        }
    }
}

/// An answer or a chunk: the head, choices of either kind, and the usage where it belongs.
#[derive(Debug, Serialize)]
pub struct Envelope<'a, C> {
    #[serde(flatten)]
    pub head: &'a Head,
    pub choices: Vec<C>,
    /// Left out, `null`, or a count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}

/// A choice of a whole chat answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiChatChoice)]
pub struct ChatChoice {
    /// Its number, from 0.
    pub index: usize,
    /// What the assistant says.
    pub message: Message,
    /// Null unless it was asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended: `stop`, `length`, `tool_calls`, or the older `function_call`.
    #[schema(example = "stop")]
    pub finish_reason: &'static str,
}

/// The assistant's message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiChatMessage)]
pub struct Message {
    /// Always `assistant`.
    #[schema(example = "assistant")]
    pub role: &'static str,
    /// The text; null where there are only calls.
    #[schema(example = "Hello there! How can I help you today?")]
    pub content: Option<String>,
    /// Always null: nothing here refuses in the model's place.
    pub refusal: Option<String>,
    /// What the model thought before; left out if it thought nothing.
    #[schema(example = "The user greets me.")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The functions it calls; left out if it calls none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Call>,
    /// The function it calls, where the request came in the older words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionCall>,
}

/// A call of a function.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiToolCall)]
pub struct Call {
    /// What its result refers to.
    #[schema(example = "call_4f1c5fd0a3c14c5c8d9f6f8c2b7e9a10")]
    pub id: String,
    /// Always `function`.
    #[schema(example = "function")]
    pub r#type: &'static str,
    pub function: FunctionCall,
}

/// Which function is called, and with what.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiFunctionCall)]
pub struct FunctionCall {
    /// The function.
    #[schema(example = "weather")]
    pub name: String,
    /// The text of a JSON object, as the model wrote it: not sure to be one, unless the function is strict or the call was
    /// required.
    #[schema(example = "{\"city\": \"Oslo\"}")]
    pub arguments: String,
}

/// A choice of a chunk.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiChatChunkChoice)]
pub struct ChunkChoice {
    /// Its number, from 0.
    pub index: u32,
    /// What is new.
    pub delta: Delta,
    /// Null unless it was asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended: `stop`, `length`, `tool_calls`, or the older `function_call`; null before that.
    pub finish_reason: Option<&'static str>,
}

/// What is new. The first has the role, the last has nothing.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiChatDelta)]
pub struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Option<String>>,
    /// More of what the model thinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// A call that begins, or more of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<CallDelta>>,
    /// The same, where the request came in the older words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionDelta>,
}

/// What is new of a call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiToolCallDelta)]
pub struct CallDelta {
    /// Which call of the choice, from 0.
    pub index: u32,
    /// What its result refers to; only at its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Always `function`; only at its beginning.
    #[schema(example = "function")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<&'static str>,
    pub function: FunctionDelta,
}

impl From<ToolCall> for Call {
    fn from(call: ToolCall) -> Self {
        let function = FunctionCall { name: call.name, arguments: call.arguments };
        Self { id: call.id, r#type: "function", function }
    }
}

impl CallDelta {
    /// A call begins.
    pub fn begun(index: u32, id: String, name: String) -> Self {
        let function = FunctionDelta { name: Some(name), arguments: String::new() };
        Self { index, id: Some(id), r#type: Some("function"), function }
    }

    /// More of a call's arguments.
    pub fn more(index: u32, arguments: String) -> Self {
        Self { index, id: None, r#type: None, function: FunctionDelta { name: None, arguments } }
    }
}

/// What is new of a function's call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiFunctionCallDelta)]
pub struct FunctionDelta {
    /// The function; only at its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of the text of a JSON object.
    pub arguments: String,
}

/// `logprobs` of chat.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatLogprobs {
    content: Vec<TokenLogprob>,
    refusal: Option<Vec<TokenLogprob>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TokenLogprob {
    #[serde(flatten)]
    token: TokenProbability,
    top_logprobs: Vec<TokenProbability>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TokenProbability {
    token: String,
    #[serde(serialize_with = "finite")]
    logprob: f32,
    bytes: Vec<u8>,
}

impl From<Vec<TextToken>> for ChatLogprobs {
    fn from(tokens: Vec<TextToken>) -> Self {
        Self { content: tokens.into_iter().map(TokenLogprob::from).collect(), refusal: None }
    }
}

impl From<TextToken> for TokenLogprob {
    fn from(token: TextToken) -> Self {
        let (logprob, top) =
            token.logprob.map_or((LEAST_LOGPROB, Vec::new()), |found| (found.logprob, found.top));
        let alternatives = token.alternatives.into_iter().zip(top);
        Self {
            token: TokenProbability { token: token.text, logprob, bytes: token.bytes },
            top_logprobs: alternatives
                .map(|((token, bytes), (_, logprob))| TokenProbability { token, logprob, bytes })
                .collect(),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn finite<S: Serializer>(logprob: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f32(finite_logprob(*logprob))
}

/// The log-probability, or a very small number where it is none that JSON can hold.
pub fn finite_logprob(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { LEAST_LOGPROB }
}

/// A choice of a plain completion, whole or in part.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiCompletionChoice)]
pub struct TextChoice {
    /// Its number, from 0, over all prompts.
    pub index: usize,
    /// What goes on, or in a stream what is new of it.
    #[schema(example = ", in a land far away")]
    pub text: String,
    /// Null unless it was asked for.
    pub logprobs: Option<TextLogprobs>,
    /// Why it ended: `stop`, `length`, `tool_calls`, or the older `function_call`; null before that.
    pub finish_reason: Option<&'static str>,
    /// Only if it was asked for: for each token of the prompt (but the first) its own log-probability and the likeliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Option<Object>>>, nullable = false)]
    pub prompt_logprobs: Option<Vec<Value>>,
}

/// `logprobs` of plain completions.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = CompletionLogprobs)]
pub struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Option<Vec<Option<serde_json::Map<String, Value>>>>,
    text_offset: Vec<usize>,
}

impl TextLogprobs {
    /// Of tokens whose text begins `offset` characters into the answer; also where the next will begin. `top` is
    /// how many alternatives were asked for.
    pub fn new(tokens: Vec<TextToken>, mut offset: usize, top: usize) -> (Self, usize) {
        let mut logprobs = Self { top_logprobs: (top > 0).then(Vec::new), ..Self::default() };
        // Of a character that several tokens make.
        let mut begun: Vec<u8> = Vec::new();
        for token in tokens {
            logprobs.text_offset.push(offset);
            offset += characters(&mut begun, &token.bytes);
            logprobs.token_logprobs.push(token.logprob.as_ref().map(|found| finite_logprob(found.logprob)));
            if let Some(all) = &mut logprobs.top_logprobs {
                let found = token.logprob.map(|found| {
                    let alternatives = token.alternatives.into_iter().zip(found.top).take(top);
                    let entry = |((text, bytes), (_, logprob)): ((String, Vec<u8>), (u32, f32))| {
                        (token_name(text, &bytes), finite_logprob(logprob).into())
                    };
                    alternatives.map(entry).collect()
                });
                all.push(found);
            }
            logprobs.tokens.push(token_name(token.text, &token.bytes));
        }
        (logprobs, offset)
    }
}

/// What a token is called: its text, or its bytes where they are a part of a character, so that no two have one name.
fn token_name(text: String, bytes: &[u8]) -> String {
    if std::str::from_utf8(bytes).is_ok() {
        return text;
    }
    bytes.iter().fold("bytes:".to_owned(), |name, byte| format!("{name}\\x{byte:02x}"))
}

/// How many characters are shown once these bytes have come after those that have `begun` one.
fn characters(begun: &mut Vec<u8>, bytes: &[u8]) -> usize {
    begun.extend(bytes);
    let whole = match std::str::from_utf8(begun) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => begun.len(),
    };
    let shown: Vec<u8> = begun.drain(..whole).collect();
    String::from_utf8_lossy(&shown).chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_character_have_names_of_their_own_and_count_once_they_are_one() {
        let token = |bytes: &[u8]| TextToken {
            id: 0,
            text: String::from_utf8_lossy(bytes).into_owned(),
            bytes: bytes.to_vec(),
            logprob: None,
            alternatives: Vec::new(),
        };
        let tokens = vec![token(b"ab"), token(b"\xe6\x97"), token(b"\xa5"), token(b"c")];
        let (logprobs, end) = TextLogprobs::new(tokens, 0, 0);
        assert_eq!(logprobs.tokens, ["ab", "bytes:\\xe6\\x97", "bytes:\\xa5", "c"]);
        assert_eq!((logprobs.text_offset, end), (vec![0, 2, 2, 3], 4));
    }
}
