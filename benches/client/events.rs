//! Reads server-sent events as they come, without parsing JSON but for the one event that counts tokens.

use serde_json::Value;

/// What an event said that matters here.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A piece of text, as it stands in the JSON.
    Text(&'a [u8]),
    /// What the server counted.
    Usage { prompt: u64, completion: u64 },
    /// The stream tells of an error.
    Failure(String),
}

/// A stream that is being read.
#[derive(Debug, Default)]
pub struct Events {
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    /// Whether `[DONE]` has come.
    pub done: bool,
}

impl Events {
    /// Takes what came, and tells of each event that is whole.
    pub fn read(&mut self, bytes: &[u8], mut tell: impl FnMut(Event<'_>)) {
        self.rest.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|byte| *byte == b'\n') {
            let line = &self.rest[start..start + length];
            start += length + 1;
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            let data = data.trim_ascii();
            if data == b"[DONE]" {
                self.done = true;
                continue;
            }
            read_event(data, &mut tell);
        }
        self.rest.drain(..start);
    }
}

fn read_event(data: &[u8], tell: &mut impl FnMut(Event<'_>)) {
    if let Some(text) = text_of(data, b"\"content\":").or_else(|| text_of(data, b"\"text\":"))
        && !text.is_empty()
    {
        tell(Event::Text(text));
    }
    if find(data, b"\"error\":{").is_some() {
        tell(Event::Failure(String::from_utf8_lossy(data).chars().take(300).collect()));
    }
    if find(data, b"\"usage\":{").is_some() || find(data, b"\"usage\": {").is_some() {
        let event: Value = serde_json::from_slice(data).unwrap_or_default();
        let count = |name: &str| event["usage"][name].as_u64().unwrap_or(0);
        tell(Event::Usage { prompt: count("prompt_tokens"), completion: count("completion_tokens") });
    }
}

/// The string after a name, up to the quote that ends it.
fn text_of<'a>(data: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let after = data[find(data, name)? + name.len()..].trim_ascii_start();
    let text = after.strip_prefix(b"\"")?;
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    Some(&text[..end])
}

fn find(data: &[u8], wanted: &[u8]) -> Option<usize> {
    data.windows(wanted.len()).position(|window| window == wanted)
}
