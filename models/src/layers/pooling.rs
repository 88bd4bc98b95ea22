//! From one hidden state per token to one vector per text.

use crate::Error;

/// How a text's hidden states become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// The first token's.
    First,
    /// The last token's.
    Last,
}

impl Pooling {
    /// Its name, for those who look at a model.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::First => "first",
            Self::Last => "last",
        }
    }
}

/// What a sentence-embedding model does after its last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentenceConfig {
    /// How hidden states become one vector.
    pub pooling: Pooling,
    /// Whether the vector is scaled to length 1.
    pub normalise: bool,
    /// Most tokens the model was made to read, if below its positions.
    pub max_length: Option<usize>,
}

impl Default for SentenceConfig {
    /// What an encoder does whose files say nothing: the mean, as it is.
    fn default() -> Self {
        Self { pooling: Pooling::Mean, normalise: false, max_length: None }
    }
}

impl SentenceConfig {
    /// `hidden [t, width]` of one text, row after row → `[width]`. Sums in f64, in the order of the tokens.
    ///
    /// # Errors
    /// [`Error::Batch`] if there is no token.
    pub fn pool(&self, hidden: &[f32], width: usize) -> Result<Vec<f32>, Error> {
        let mut rows = hidden.chunks_exact(width);
        let (Some(first), Some(last)) = (hidden.get(..width), rows.clone().next_back()) else {
            return Err(Error::Batch("a text without tokens has no embedding".into()));
        };
        let pooled: Vec<f32> = match self.pooling {
            Pooling::First => first.to_vec(),
            Pooling::Last => last.to_vec(),
            Pooling::Mean => {
                let count = rows.len() as f64;
                let mut sum = vec![0.0; width];
                rows.by_ref()
                    .for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x)));
                sum.into_iter().map(|sum| (sum / count) as f32).collect()
            }
        };
        Ok(if self.normalise { unit(pooled) } else { pooled })
    }
}

/// Scales to length 1; a vector of zeros stays one.
fn unit(vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt().max(1e-12);
    vector.into_iter().map(|x| (f64::from(x) / length) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::{Pooling, SentenceConfig};

    #[test]
    fn each_pooling_takes_its_rows() {
        let hidden = [3.0, 0.0, 0.0, 1.0, 0.0, 5.0];
        let pool = |pooling, normalise| {
            SentenceConfig { pooling, normalise, max_length: None }.pool(&hidden, 2).unwrap()
        };
        assert_eq!(pool(Pooling::First, false), [3.0, 0.0]);
        assert_eq!(pool(Pooling::Last, false), [0.0, 5.0]);
        assert_eq!(pool(Pooling::Mean, false), [1.0, 2.0]);
        assert_eq!(pool(Pooling::Last, true), [0.0, 1.0]);
    }

    #[test]
    fn no_token_is_an_error_and_zeros_stay_finite() {
        let config = SentenceConfig { pooling: Pooling::Mean, normalise: true, max_length: None };
        assert!(config.pool(&[], 2).is_err());
        assert_eq!(config.pool(&[0.0, 0.0], 2).unwrap(), [0.0, 0.0]);
    }
}
