//! From a row of logits to a token.
//!
//! Not a model's business and not a scheduler's: a pure function of the row, the parameters, the tokens so far and one
//! random number that comes from (seed, choice, position) alone. Order: repetition, presence and frequency penalties,
//! bias, end tokens masked while the answer is below its minimum, what the grammar does not allow; temperature; top-k; typical-p; top-p; min-p; draw.
//! Each filter sees the probabilities of what the one before it left, renormalised. Log-probabilities are those of the
//! row as the model gave it. Equal logits: the lower id is better.

mod philox;
mod select;
mod softmax;

use std::collections::HashMap;

use crate::engine::{Next, SamplingParams, TokenLogprob};
use sconce_models::grammar::Allowed;
use select::Candidate;
pub use softmax::NotFinite;

/// Below this a temperature is taken for 0: dividing by it would leave f32's range.
const COLDEST: f32 = 1e-5;

/// How often tokens were seen, for the penalties.
#[derive(Debug, Clone, Default)]
pub struct History {
    counts: HashMap<u32, Seen>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Times in the answer.
    answer: u32,
}

impl History {
    /// The counts that these parameters need after this prompt; none if they penalise nothing.
    pub fn for_prompt(params: &SamplingParams, prompt: &[u32]) -> Option<Self> {
        let repetition = params.repetition_penalty != 1.0;
        if !repetition && params.presence_penalty == 0.0 && params.frequency_penalty == 0.0 {
            return None;
        }
        let mut history = Self::default();
        if repetition {
            history.counts.extend(prompt.iter().map(|&id| (id, Seen::default())));
        }
        Some(history)
    }

    /// Counts a token of the answer.
    pub fn push(&mut self, id: u32) {
        self.counts.entry(id).or_default().answer += 1;
    }
}

/// What a draw depends on beside the row.
pub struct Draw<'a> {
    /// How tokens are chosen.
    pub params: &'a SamplingParams,
    /// The request's seed.
    pub seed: u64,
    /// Which answer.
    pub choice: u32,
    /// Position in the sequence of the token that is drawn.
    pub position: u32,
    /// Tokens that may not be drawn (end tokens of an answer that is too short).
    pub forbidden: &'a [u32],
    /// What was seen, if there are penalties.
    pub history: Option<&'a History>,
    /// What the grammar allows.
    pub next: Next<'a>,
}

/// The token that was drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub id: u32,
    /// If the parameters ask for it.
    pub logprob: Option<TokenLogprob>,
}

/// Draws tokens; keeps its scratch memory from draw to draw.
#[derive(Default)]
pub struct Sampler {
    weights: Vec<f32>,
    candidates: Vec<Candidate>,
    /// The row without what the grammar does not allow.
    within: Vec<f32>,
    /// (id, logit before it was changed), in the order of the changes.
    changes: Vec<(u32, f32)>,
}

impl Sampler {
    /// Draws a token from a row. The row is as it was afterwards.
    ///
    /// # Errors
    /// [`NotFinite`] if the row holds a NaN or +∞, or nothing but −∞.
    pub fn sample(&mut self, row: &mut [f32], draw: &Draw<'_>) -> Result<Sampled, NotFinite> {
        let raw_max = softmax::largest(row)?;
        if let Next::Only(id) = draw.next {
            let logprob = draw.params.logprobs.map(|top| self.logprob_of(row, raw_max, id, top));
            return Ok(Sampled { id, logprob });
        }
        self.change(row, draw);
        if let Next::Among(allowed) = draw.next {
            let id = self.choose_within(row, allowed, draw);
            self.restore(row);
            let logprob = draw.params.logprobs.map(|top| self.logprob_of(row, raw_max, id, top));
            return Ok(Sampled { id, logprob });
        }
        let max = if self.changes.is_empty() { Ok(raw_max) } else { softmax::largest(row) };
        let id = match max {
            Ok(max) => self.choose(row, max, draw),
            // Everything was masked or biased away: the model's own best token is the least wrong answer.
            Err(NotFinite) => {
                self.restore(row);
                softmax::first_of(row, raw_max)
            }
        };
        self.restore(row);
        let logprob = draw.params.logprobs.map(|top| self.logprob_of(row, raw_max, id, top));
        Ok(Sampled { id, logprob })
    }

    /// Log-probability of a given token and the `top` best ones.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn logprob(&mut self, row: &[f32], id: u32, top: u32) -> Result<TokenLogprob, NotFinite> {
        let max = softmax::largest(row)?;
        Ok(self.logprob_of(row, max, id, top))
    }

    fn logprob_of(&mut self, row: &[f32], max: f32, id: u32, top: u32) -> TokenLogprob {
        let normaliser = softmax::log_sum_exp(row, max);
        let logprob = |logit: f32| (f64::from(logit) - normaliser) as f32;
        select::best_logits(row, top as usize, &mut self.candidates);
        TokenLogprob {
            logprob: logprob(row.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY)),
            top: self.candidates.iter().map(|best| (best.id, logprob(best.weight))).collect(),
        }
    }

    fn choose_within(&mut self, row: &[f32], allowed: &Allowed, draw: &Draw<'_>) -> u32 {
        let mut within = std::mem::take(&mut self.within);
        within.clear();
        for (logits, &word) in row.chunks(32).zip(allowed.words().iter().chain(std::iter::repeat(&0))) {
            let bit = |(index, &logit): (usize, &f32)| {
                if word >> index & 1 == 1 { logit } else { f32::NEG_INFINITY }
            };
            within.extend(logits.iter().enumerate().map(bit));
        }
        let id = match softmax::largest(&within) {
            Ok(max) => self.choose(&within, max, draw),
            // All that is allowed was forbidden or biased away: the grammar's word stands.
            Err(NotFinite) => allowed.first().unwrap_or_default(),
        };
        self.within = within;
        id
    }

    fn choose(&mut self, row: &[f32], max: f32, draw: &Draw<'_>) -> u32 {
        let params = draw.params;
        if params.temperature < COLDEST {
            return softmax::first_of(row, max);
        }
        let inverse_temperature = params.temperature.recip();
        let number = philox::uniform(draw.seed, draw.choice, draw.position);
        let top_k = params.top_k as usize;
        let mut mass = if top_k > 0 && top_k < row.len() {
            select::best_logits(row, top_k, &mut self.candidates);
            select::weigh(&mut self.candidates, max, inverse_temperature);
            select::mass(&self.candidates)
        } else {
            let total = softmax::exponentials(row, max, inverse_temperature, &mut self.weights);
            let Some(threshold) = threshold(params, total, row.len()) else {
                return softmax::locate(&self.weights, total * number) as u32;
            };
            select::at_least(&self.weights, threshold, &mut self.candidates);
            total
        };
        if params.typical_p < 1.0 {
            let scaled = |id: u32| (row[id as usize] - max) * inverse_temperature;
            select::typical(&mut self.candidates, f64::from(params.typical_p), scaled);
            mass = select::mass(&self.candidates);
        }
        if params.top_p < 1.0 {
            select::nucleus(&mut self.candidates, mass, f64::from(params.top_p));
        }
        if params.min_p > 0.0 {
            select::min_p(&mut self.candidates, params.min_p);
        }
        select::draw(&mut self.candidates, number).unwrap_or_else(|| softmax::first_of(row, max))
    }

    /// Applies penalties, bias and mask, and remembers what was there before.
    fn change(&mut self, row: &mut [f32], draw: &Draw<'_>) {
        self.changes.clear();
        let params = draw.params;
        for (&id, seen) in draw.history.iter().flat_map(|history| &history.counts) {
            let penalty = params.repetition_penalty;
            let present = if seen.answer > 0 { params.presence_penalty } else { 0.0 };
            let frequent = params.frequency_penalty * seen.answer as f32;
            self.change_one(row, id, |logit| {
                (if logit > 0.0 { logit / penalty } else { logit * penalty }) - present - frequent
            });
        }
        for &(id, bias) in &params.logit_bias {
            self.change_one(row, id, |logit| logit + bias);
        }
        for &id in draw.forbidden {
            self.change_one(row, id, |_| f32::NEG_INFINITY);
        }
    }

    fn change_one(&mut self, row: &mut [f32], id: u32, change: impl FnOnce(f32) -> f32) {
        if let Some(logit) = row.get_mut(id as usize) {
            self.changes.push((id, *logit));
            *logit = change(*logit);
        }
    }

    /// Undoes the changes, last one first: an id may have been changed twice.
    fn restore(&mut self, row: &mut [f32]) {
        while let Some((id, logit)) = self.changes.pop() {
            row[id as usize] = logit;
        }
    }
}

/// The weight below which no token of the whole vocabulary can pass the first filter; none if there is no filter.
fn threshold(params: &SamplingParams, total: f64, vocab: usize) -> Option<f32> {
    if params.typical_p < 1.0 {
        return Some(0.0);
    }
    if params.top_p < 1.0 {
        return Some(select::nucleus_threshold(total, f64::from(params.top_p), vocab));
    }
    // The best token weighs 1.
    (params.min_p > 0.0).then_some(params.min_p)
}

#[cfg(test)]
mod tests;
