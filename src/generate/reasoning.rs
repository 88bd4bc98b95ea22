//! How much a model thinks before it answers.

/// How much, in the words of the protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Not at all.
    None,
    /// As little as it can.
    Minimal,
    /// A little.
    Low,
    /// The usual.
    Medium,
    /// A lot.
    High,
    /// As much as it likes.
    Maximal,
}

/// What a request says about thinking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// How much; none: as the model does.
    pub effort: Option<Effort>,
    /// Most tokens of it; the thought is ended for the model when they are used up.
    pub budget: Option<u32>,
}
