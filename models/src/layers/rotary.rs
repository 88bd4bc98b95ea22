//! Rotary position embeddings: which angle each position turns each pair of a head's numbers by.
//!
//! The turning itself is a kernel. Here are the frequencies, with the scalings that stretch a model beyond the context it
//! was trained on. Angles are computed per pass from the positions, in f32 as the reference does, so there is no table
//! as long as the context.
//!
//! Sources: Su et al. 2021 <https://arxiv.org/abs/2104.09864>; YaRN, Peng et al. 2023 <https://arxiv.org/abs/2309.00071>.

use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::Value;

use crate::Error;

/// The settings as a configuration file holds them, in either of the two published styles.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RotarySettings {
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    partial_rotary_factor: Option<f64>,
}

/// One scaling's numbers; which are needed depends on its type.
#[derive(Debug, Clone, Default, Deserialize)]
struct ScalingSettings {
    rope_type: Option<String>,
    r#type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
}

impl ScalingSettings {
    fn kind(&self) -> &str {
        self.rope_type.as_deref().or(self.r#type.as_deref()).unwrap_or("default")
    }

    fn factor(&self) -> Result<f64, Error> {
        positive("rope scaling factor", self.factor)
    }
}

/// How far the frequencies are stretched.
#[derive(Debug, Clone, PartialEq)]
enum Scaling {
    /// As trained.
    None,
    /// Every frequency divided by one factor.
    Linear { factor: f64 },
    /// Long wavelengths divided, short ones kept, a smooth step between (Llama 3.1).
    Llama3 { factor: f64, low: f64, high: f64, trained: f64 },
    /// YaRN: by the number of turns within the trained context, and a temperature on the attention.
    Yarn { factor: f64, first: f64, last: f64, attention_factor: f64 },
}

/// Checked settings.
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryConfig {
    theta: f64,
    /// Numbers of each head that are turned, an even count.
    width: usize,
    scaling: Scaling,
}

impl RotaryConfig {
    /// Checks the settings for heads of `head_dim` numbers.
    ///
    /// # Errors
    /// [`Error::Config`] for impossible numbers, [`Error::Unsupported`] for a type of scaling that is not known.
    pub fn new(settings: &RotarySettings, head_dim: usize, context_length: usize) -> Result<Self, Error> {
        let scaling = settings.scaling()?;
        let theta = positive("rope_theta", scaling.rope_theta.or(settings.rope_theta).or(Some(10_000.0)))?;
        let part = positive(
            "partial_rotary_factor",
            scaling.partial_rotary_factor.or(settings.partial_rotary_factor).or(Some(1.0)),
        )?;
        let width = (head_dim as f64 * part) as usize;
        if part > 1.0 || width == 0 || !width.is_multiple_of(2) {
            return Err(Error::Config(format!(
                "rotary embeddings of {width} numbers per head of {head_dim}: odd, or more than there are"
            )));
        }
        let scaling = Scaling::new(&scaling, theta, width, context_length)?;
        Ok(Self { theta, width, scaling })
    }
}

impl RotarySettings {
    /// The scaling, from whichever of the two styles the file uses.
    fn scaling(&self) -> Result<ScalingSettings, Error> {
        let Some(value) = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref()) else {
            return Ok(ScalingSettings::default());
        };
        if value.is_null() {
            return Ok(ScalingSettings::default());
        }
        if let Some((name, _)) = value.as_object().into_iter().flatten().find(|(_, inner)| inner.is_object())
        {
            return Err(Error::Unsupported { what: "rope_parameters per layer type", value: name.clone() });
        }
        ScalingSettings::deserialize(value).map_err(|error| Error::Config(format!("rope scaling: {error}")))
    }
}

impl Scaling {
    fn new(
        settings: &ScalingSettings,
        theta: f64,
        width: usize,
        context_length: usize,
    ) -> Result<Self, Error> {
        let trained = settings.original_max_position_embeddings.or(Some(context_length as f64));
        match settings.kind() {
            // `dynamic` changes frequencies only beyond the trained context, which is where a sequence ends here.
            "default" | "none" | "dynamic" => Ok(Self::None),
            "linear" => Ok(Self::Linear { factor: settings.factor()? }),
            "llama3" => Self::llama3(settings, trained),
            "yarn" => {
                Self::yarn(settings, theta, width, positive("original_max_position_embeddings", trained)?)
            }
            other => Err(Error::Unsupported { what: "rope type", value: other.to_owned() }),
        }
    }

    fn llama3(settings: &ScalingSettings, trained: Option<f64>) -> Result<Self, Error> {
        let low = positive("low_freq_factor", settings.low_freq_factor)?;
        let high = positive("high_freq_factor", settings.high_freq_factor)?;
        if high <= low {
            return Err(Error::Config(format!("high_freq_factor {high} is not above low_freq_factor {low}")));
        }
        let trained = positive("original_max_position_embeddings", trained)?;
        Ok(Self::Llama3 { factor: settings.factor()?, low, high, trained })
    }

    fn yarn(settings: &ScalingSettings, theta: f64, width: usize, trained: f64) -> Result<Self, Error> {
        let factor = settings.factor()?;
        let fast = positive("beta_fast", settings.beta_fast.or(Some(32.0)))?;
        let slow = positive("beta_slow", settings.beta_slow.or(Some(1.0)))?;
        if theta <= 1.0 {
            return Err(Error::Config(format!("rope_theta {theta} is too small for yarn")));
        }
        // The pair of numbers that makes this many turns within the trained context.
        let pair = |turns: f64| {
            width as f64 * (trained / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
        };
        let (first, last) = match settings.truncate.unwrap_or(true) {
            true => (pair(fast).floor(), pair(slow).ceil()),
            false => (pair(fast), pair(slow)),
        };
        let attention_factor = match settings.attention_factor {
            Some(stated) => positive("attention_factor", Some(stated))?,
            None => yarn_temperature(settings, factor),
        };
        Ok(Self::Yarn { factor, first: first.max(0.0), last: last.min(width as f64 - 1.0), attention_factor })
    }
}

/// What YaRN multiplies queries and keys by, where the file does not state it.
fn yarn_temperature(settings: &ScalingSettings, factor: f64) -> f64 {
    let temperature = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
    match (settings.mscale, settings.mscale_all_dim) {
        (Some(some), Some(all)) if some != 0.0 && all != 0.0 => temperature(some) / temperature(all),
        _ => temperature(1.0),
    }
}

fn positive(name: &str, value: Option<f64>) -> Result<f64, Error> {
    match value {
        Some(number) if number.is_finite() && number > 0.0 => Ok(number),
        Some(number) => Err(Error::Config(format!("{name} is {number}; it must be a positive number"))),
        None => Err(Error::Config(format!("{name} is missing"))),
    }
}

/// The frequencies of one model.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// `[r]` radians per position, one for each pair of numbers.
    frequencies: Vec<f32>,
    /// What cosines and sines are multiplied by: 1, but for YaRN.
    attention_factor: f32,
}

impl Rotary {
    /// Computes the frequencies. `factors` (`[r]`, from a GGUF file's `rope_freqs`) divide them.
    ///
    /// # Errors
    /// [`Error::Config`] if `factors` has another length or holds what is not a positive number.
    pub fn new(config: &RotaryConfig, factors: Option<&[f32]>) -> Result<Self, Error> {
        let mut frequencies: Vec<f32> = (0..config.width / 2)
            .map(|pair| {
                let plain = config.theta.powf(-2.0 * pair as f64 / config.width as f64);
                scaled(plain, pair as f64, &config.scaling) as f32
            })
            .collect();
        if let Some(factors) = factors {
            if factors.len() != frequencies.len()
                || factors.iter().any(|factor| !(factor.is_finite() && *factor > 0.0))
            {
                return Err(Error::Config(format!(
                    "rope factors: {} positive numbers are needed",
                    frequencies.len()
                )));
            }
            for (frequency, factor) in frequencies.iter_mut().zip(factors) {
                *frequency /= factor;
            }
        }
        let attention_factor = match config.scaling {
            Scaling::Yarn { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        };
        Ok(Self { frequencies, attention_factor })
    }

    /// Cosines and sines of every position's angles, two tensors `[t, r]`, f32.
    ///
    /// # Errors
    /// [`Error::Compute`] if the device fails.
    pub fn angles(&self, positions: &[u32], device: &Device) -> Result<(Tensor, Tensor), Error> {
        let shape = (positions.len(), self.frequencies.len());
        let mut cosines = Vec::with_capacity(shape.0 * shape.1);
        let mut sines = Vec::with_capacity(shape.0 * shape.1);
        for &position in positions {
            for &frequency in &self.frequencies {
                let (sine, cosine) = (position as f32 * frequency).sin_cos();
                cosines.push(cosine * self.attention_factor);
                sines.push(sine * self.attention_factor);
            }
        }
        Ok((Tensor::from_vec(cosines, shape, device)?, Tensor::from_vec(sines, shape, device)?))
    }
}

/// One pair's frequency after scaling.
fn scaled(plain: f64, pair: f64, scaling: &Scaling) -> f64 {
    match *scaling {
        Scaling::None => plain,
        Scaling::Linear { factor } => plain / factor,
        Scaling::Llama3 { factor, low, high, trained } => {
            let turns = trained * plain / (2.0 * std::f64::consts::PI);
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 - kept) * plain / factor + kept * plain
        }
        Scaling::Yarn { factor, first, last, .. } => {
            let width = if first == last { 0.001 } else { last - first };
            let stretched = ((pair - first) / width).clamp(0.0, 1.0);
            stretched * plain / factor + (1.0 - stretched) * plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Rotary, RotaryConfig, RotarySettings};
    use candle_core::Device;
    use serde_json::{Value, json};

    fn rotary(settings: Value) -> Result<Rotary, crate::Error> {
        let settings: RotarySettings = serde_json::from_value(settings).unwrap();
        Rotary::new(&RotaryConfig::new(&settings, 8, 256)?, None)
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{found} is not {expected}");
        }
    }

    #[test]
    fn both_styles_of_configuration_mean_the_same() {
        let old =
            rotary(json!({"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 4.0}})).unwrap();
        let new = json!({"rope_parameters": {"rope_theta": 100.0, "rope_type": "linear", "factor": 4.0}});
        assert_eq!(old.frequencies, rotary(new).unwrap().frequencies);
        assert_close(&old.frequencies, &[0.25, 0.25 * 0.316_227_77, 0.025, 0.025 * 0.316_227_77]);
    }

    #[test]
    fn llama3_keeps_short_waves_and_stretches_long_ones() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32});
        let found = rotary(json!({"rope_theta": 10_000.0, "rope_scaling": scaling})).unwrap().frequencies;
        // 32 positions make 5.09 turns, 0.509, 0.0509, 0.00509 of them.
        assert_close(&found, &[1.0, 0.1 / 8.0, 0.01 / 8.0, 0.001 / 8.0]);
    }

    #[test]
    fn yarn_raises_the_attention() {
        let scaling = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
        let found = rotary(json!({"rope_theta": 10_000.0, "rope_scaling": scaling})).unwrap();
        assert!((f64::from(found.attention_factor) - (1.0 + 0.1 * 4f64.ln())).abs() < 1e-6);
        let (cosines, _) = found.angles(&[0], &Device::Cpu).unwrap();
        assert_eq!(cosines.to_vec2::<f32>().unwrap()[0], vec![found.attention_factor; 4]);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (settings, named) in [
            (json!({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}), "longrope"),
            (json!({"rope_scaling": {"type": "linear"}}), "factor is missing"),
            (json!({"rope_scaling": {"type": "linear", "factor": 0.0}}), "factor is 0"),
            (json!({"rope_scaling": {"type": "linear", "factor": -2.0}}), "factor is -2"),
            (json!({"rope_scaling": "linear"}), "rope scaling"),
            (json!({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}), "full_attention"),
            (json!({"partial_rotary_factor": 2.0}), "more than there are"),
        ] {
            let message = rotary(settings.clone()).unwrap_err().to_string();
            assert!(message.contains(named), "{settings}: {message}");
        }
    }

    #[test]
    fn factors_divide_and_are_checked() {
        let config = RotaryConfig::new(&RotarySettings::default(), 8, 256).unwrap();
        let plain = Rotary::new(&config, None).unwrap().frequencies;
        let halved = Rotary::new(&config, Some(&[2.0; 4])).unwrap().frequencies;
        assert_close(&halved, &plain.iter().map(|frequency| frequency / 2.0).collect::<Vec<_>>());
        for wrong in [&[2.0; 3][..], &[0.0; 4], &[f32::NAN; 4], &[-1.0; 4]] {
            assert!(Rotary::new(&config, Some(wrong)).is_err());
        }
    }
}
