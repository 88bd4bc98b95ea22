//! What an answer turns out to be made of, as a reader finds it.
//!
//! White space that only parts one thing from the next (the line's end before a mark) belongs to neither and is not
//! shown; so space at the end of a text is kept back until more of it comes. Stop texts are looked for in what is text or
//! thought, each for itself, and so never in marks and calls. The tokens of text and thoughts go with them, each with its
//! first byte; those of marks and calls are dropped.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::generate::TextToken;
use crate::generate::stops::Stops;

/// One piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text for whoever asked, which may be empty, and the tokens that made it, if they are wanted.
    Text(String, Vec<TextToken>),
    /// What the model thinks, likewise.
    Reasoning(String, Vec<TextToken>),
    /// A call of this function begins; the one before it is whole.
    CallBegun(String),
    /// More of the arguments of the call that began last.
    Arguments(String),
}

/// What was found last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Nothing,
    Text,
    Reasoning,
    Call,
}

/// What was found and not yet taken. Positions are bytes since the beginning of the answer.
#[derive(Debug, Default)]
pub struct Parts {
    found: Vec<Part>,
    kind: Kind,
    /// Space after the text that was found last.
    space: String,
    /// Nothing but space was found of this kind.
    is_fresh: bool,
    /// Space at the beginning is not shown.
    strips: bool,
    calls_begun: u32,
    calls_ended: u32,
    stops: Stops,
    /// Where the machine stands.
    position: usize,
    /// Where the text or thought ends that was found last.
    said_to: usize,
    /// Tokens that have not gone with a part, and what each of them made.
    tokens: VecDeque<(Range<usize>, TextToken)>,
}

impl Parts {
    /// Takes what was found since the last time.
    pub fn take(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.found)
    }

    /// How many calls are whole.
    pub fn calls_ended(&self) -> u32 {
        self.calls_ended
    }

    /// How many calls began.
    pub fn calls_begun(&self) -> u32 {
        self.calls_begun
    }

    /// The number of the stop text that was met. What is found after it does not count.
    pub(super) fn stopped(&self) -> Option<u32> {
        self.stops.met()
    }

    /// Ends the answer before any of these texts.
    pub(super) fn look_for(&mut self, stop: Arc<[String]>) {
        self.stops = Stops::new(stop);
    }

    /// This text of the answer was made by this token.
    pub(super) fn made_by(&mut self, text: Range<usize>, token: TextToken) {
        self.tokens.push_back((text, token));
    }

    /// What is found next begins here.
    pub(super) fn stand_at(&mut self, position: usize) {
        self.position = position;
    }

    /// Text that begins where the machine stands.
    pub(super) fn text(&mut self, text: &str) {
        self.say(Kind::Text, text, self.position);
    }

    /// Text that ends where the machine stands: it was taken for something else.
    pub(super) fn text_before(&mut self, text: &str) {
        self.say(Kind::Text, text, self.position.saturating_sub(text.len()));
    }

    /// A thought that begins where the machine stands.
    pub(super) fn reasoning(&mut self, text: &str) {
        self.say(Kind::Reasoning, text, self.position);
    }

    pub(super) fn begin_call(&mut self, name: String) {
        self.settle();
        self.end_call();
        self.kind = Kind::Call;
        self.space.clear();
        self.drop_tokens(self.position);
        self.calls_begun += 1;
        self.found.push(Part::CallBegun(name));
    }

    pub(super) fn arguments(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.drop_tokens(self.position);
        match self.found.last_mut() {
            Some(Part::Arguments(last)) => last.push_str(text),
            _ => self.found.push(Part::Arguments(text.to_owned())),
        }
    }

    pub(super) fn end_call(&mut self) {
        self.calls_ended = self.calls_begun;
    }

    /// Nothing more comes: space that parted nothing is shown.
    pub(super) fn finish(&mut self) {
        self.settle();
        if self.calls_begun > 0 || self.kind == Kind::Reasoning {
            return;
        }
        let space = std::mem::take(&mut self.space);
        let end = self.said_to.saturating_sub(self.stops.held());
        self.push(Kind::Text, space, end);
    }

    fn say(&mut self, kind: Kind, text: &str, begin: usize) {
        if self.stopped().is_some() {
            return;
        }
        if self.kind != kind {
            self.settle();
            self.strips = kind == Kind::Reasoning || self.kind != Kind::Nothing;
            self.is_fresh = true;
            self.kind = kind;
            self.space.clear();
        }
        let said = if self.is_fresh && self.strips { text.trim_start() } else { text };
        if said.is_empty() {
            return;
        }
        let begin = begin + text.len() - said.len();
        if std::mem::take(&mut self.is_fresh) {
            // What came before was a mark.
            self.drop_tokens(begin);
        }
        self.said_to = begin + said.len();
        let certain = self.stops.push(said);
        self.show(&certain);
    }

    /// What was held back as the beginning of a stop text is none: the text ends here.
    fn settle(&mut self) {
        let rest = self.stops.finish();
        self.show(&rest);
    }

    fn show(&mut self, text: &str) {
        let shown = text.trim_end();
        if shown.is_empty() {
            self.space.push_str(text);
            return;
        }
        let space = std::mem::replace(&mut self.space, text[shown.len()..].to_owned());
        let end = self.said_to.saturating_sub(self.stops.held() + self.space.len());
        self.push(self.kind, space + shown, end);
    }

    /// Gives this text, and the tokens that begin before its end.
    fn push(&mut self, kind: Kind, text: String, end: usize) {
        let its = self.tokens.iter().take_while(|(made, _)| made.start < end).count();
        let tokens: Vec<TextToken> = self.tokens.drain(..its).map(|(_, token)| token).collect();
        if text.is_empty() && tokens.is_empty() {
            return;
        }
        match (kind, self.found.last_mut()) {
            (Kind::Text, Some(Part::Text(last, made_by)))
            | (Kind::Reasoning, Some(Part::Reasoning(last, made_by))) => {
                last.push_str(&text);
                made_by.extend(tokens);
            }
            (Kind::Reasoning, _) => self.found.push(Part::Reasoning(text, tokens)),
            _ => self.found.push(Part::Text(text, tokens)),
        }
    }

    /// Drops the tokens of which nothing is left from here on.
    fn drop_tokens(&mut self, position: usize) {
        let is_over = |made: &Range<usize>| made.start < position && made.end <= position;
        while self.tokens.front().is_some_and(|(made, _)| is_over(made)) {
            self.tokens.pop_front();
        }
    }
}
