//! What an answer turns out to be made of, as a reader finds it.
//!
//! White space that only parts one thing from the next (the line's end before a mark) belongs to neither and is not
//! shown; so space at the end of a text is kept back until more of it comes.

/// One piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text for whoever asked.
    Text(String),
    /// What the model thinks.
    Reasoning(String),
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

/// What was found and not yet taken.
#[derive(Debug, Default)]
pub struct Parts {
    found: Vec<Part>,
    kind: Kind,
    /// Space after the text that was found last.
    space: String,
    /// Space at the beginning is not shown.
    strips: bool,
    calls_begun: u32,
    calls_ended: u32,
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

    pub(super) fn text(&mut self, text: &str) {
        self.say(Kind::Text, text);
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        self.say(Kind::Reasoning, text);
    }

    pub(super) fn begin_call(&mut self, name: String) {
        self.end_call();
        self.kind = Kind::Call;
        self.space.clear();
        self.calls_begun += 1;
        self.found.push(Part::CallBegun(name));
    }

    pub(super) fn arguments(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
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
        if self.kind == Kind::Text && self.calls_begun == 0 && !self.space.is_empty() {
            let space = std::mem::take(&mut self.space);
            self.push(Kind::Text, space);
        }
    }

    fn say(&mut self, kind: Kind, text: &str) {
        if self.kind != kind {
            self.strips = kind == Kind::Reasoning || self.kind != Kind::Nothing;
            self.kind = kind;
            self.space.clear();
        }
        let text = if self.strips { text.trim_start() } else { text };
        if text.is_empty() {
            return;
        }
        self.strips = false;
        let shown = text.trim_end();
        if !shown.is_empty() {
            let text = std::mem::take(&mut self.space) + shown;
            self.push(kind, text);
        }
        self.space.push_str(&text[shown.len()..]);
    }

    fn push(&mut self, kind: Kind, text: String) {
        match (kind, self.found.last_mut()) {
            (Kind::Text, Some(Part::Text(last))) | (Kind::Reasoning, Some(Part::Reasoning(last))) => {
                last.push_str(&text);
            }
            (Kind::Reasoning, _) => self.found.push(Part::Reasoning(text)),
            _ => self.found.push(Part::Text(text)),
        }
    }
}
