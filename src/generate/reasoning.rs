//! How much a model thinks before it answers, and how much it says.

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

/// How much a model says, where its template can tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Little.
    Low,
    /// The usual.
    Medium,
    /// A lot.
    High,
}

impl Verbosity {
    /// By its name in protocols and templates.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High].into_iter().find(|level| level.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}
