//! Makes prompts of a wanted length, the same at each run, out of a few words: no text of anybody's is needed, and no two
//! prompts begin alike, so that a server's cache of beginnings helps only where a scenario is about that.

use serde_json::json;

use crate::sides::Side;

const NOUNS: [&str; 32] = [
    "river", "garden", "letter", "window", "mountain", "teacher", "engine", "market", "bridge", "winter",
    "story", "island", "forest", "doctor", "machine", "village", "planet", "music", "picture", "harbor",
    "farmer", "kitchen", "journey", "castle", "student", "railway", "morning", "signal", "library",
    "weather", "captain", "lantern",
];
const VERBS: [&str; 16] = [
    "follows",
    "paints",
    "repairs",
    "watches",
    "carries",
    "remembers",
    "crosses",
    "builds",
    "studies",
    "finds",
    "guards",
    "visits",
    "opens",
    "measures",
    "describes",
    "leaves",
];
const QUALITIES: [&str; 16] = [
    "old", "quiet", "bright", "small", "heavy", "green", "distant", "warm", "broken", "famous", "simple",
    "careful", "empty", "golden", "strange", "northern",
];

/// Numbers that look like chance and are the same each time.
pub struct Draws(u64);

impl Draws {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    /// Sentences of so many words in all.
    pub fn text(&mut self, words: usize) -> String {
        let mut text = String::new();
        for number in 0..words {
            let word = match number % 8 {
                0 => "The",
                4 => "the",
                1 | 5 => self.of(&QUALITIES),
                3 => self.of(&VERBS),
                7 => "today.",
                _ => self.of(&NOUNS),
            };
            text.push_str(if number == 0 { "" } else { " " });
            text.push_str(word);
        }
        text
    }
}

/// How many tokens a server's tokenizer and chat template make of words.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Of the template alone.
    base: f64,
    per_word: f64,
}

impl Scale {
    /// Asks the server to count.
    pub async fn measure(side: &Side) -> Result<Self, String> {
        let (few, many) = (16, 160);
        let mut counts = [0.0; 2];
        for (count, words) in counts.iter_mut().zip([few, many]) {
            let text = Draws::new(words as u64 + 77).text(words);
            let messages = json!([{"role": "user", "content": text}]);
            let body = json!({"messages": messages, "max_tokens": 2});
            let answer = side.target.ask("/v1/chat/completions", body).await;
            if let Some(failure) = answer.failure {
                return Err(format!("{}: {failure}", side.name));
            }
            *count = answer.prompt_tokens as f64;
        }
        let per_word = (counts[1] - counts[0]) / (many - few) as f64;
        if per_word <= 0.0 {
            return Err(format!("{} does not count prompt tokens: {counts:?}", side.name));
        }
        Ok(Self { base: counts[0] - per_word * few as f64, per_word })
    }

    /// Words that make about so many tokens, with the template.
    pub fn words(&self, tokens: usize) -> usize {
        ((tokens as f64 - self.base) / self.per_word).round().max(4.0) as usize
    }
}

/// The lengths of `count` prompts between these, evenly spread and in mixed order.
pub fn lengths(count: usize, shortest: usize, longest: usize) -> Vec<usize> {
    let step = (longest - shortest) as f64 / (count.max(2) - 1) as f64;
    let mut lengths: Vec<usize> =
        (0..count).map(|number| shortest + (step * number as f64).round() as usize).collect();
    let mut draws = Draws::new(count as u64);
    for last in (1..count).rev() {
        lengths.swap(last, draws.below(last + 1));
    }
    lengths
}
