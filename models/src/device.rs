//! Where a model's tensors live.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A device as it is asked for: `auto`, `cpu`, `cuda:N` or `metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceSpec {
    /// CUDA if there is one, else Metal, else the CPU.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => match text {
                "auto" => Ok(Self::Auto),
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda(0)),
                "metal" => Ok(Self::Metal),
                _ => Err(format!("device `{text}` is not known; use auto, cpu, cuda:N or metal")),
            },
            Some(("cuda", number)) => number
                .parse()
                .map(Self::Cuda)
                .map_err(|_| format!("`{number}` is not the number of a CUDA device")),
            Some(_) => Err(format!("device `{text}` is not known; use auto, cpu, cuda:N or metal")),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// An opened device.
#[derive(Debug, Clone)]
pub struct Device(candle_core::Device);

impl Device {
    /// The processor.
    pub fn cpu() -> Self {
        Self(candle_core::Device::Cpu)
    }

    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::Device`] if it is not there or this build has no code for it.
    pub fn open(spec: DeviceSpec) -> Result<Self, Error> {
        let refused = |reason: String| Error::Device { device: spec.to_string(), reason };
        match spec {
            DeviceSpec::Cpu => Ok(Self::cpu()),
            DeviceSpec::Auto => {
                for candidate in [DeviceSpec::Cuda(0), DeviceSpec::Metal] {
                    if let Ok(device) = Self::open(candidate) {
                        return Ok(device);
                    }
                }
                Ok(Self::cpu())
            }
            DeviceSpec::Cuda(number) if cfg!(feature = "cuda") => {
                candle_core::Device::new_cuda(number).map(Self).map_err(|e| refused(e.to_string()))
            }
            DeviceSpec::Metal if cfg!(feature = "metal") => {
                candle_core::Device::new_metal(0).map(Self).map_err(|e| refused(e.to_string()))
            }
            DeviceSpec::Cuda(_) => Err(refused("this build has no CUDA; build with --features cuda".into())),
            DeviceSpec::Metal => Err(refused("this build has no Metal; build with --features metal".into())),
        }
    }

    /// What it is, in a word.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            candle_core::Device::Cpu => "cpu",
            candle_core::Device::Cuda(_) => "cuda",
            candle_core::Device::Metal(_) => "metal",
        }
    }

    /// Whether tensors lie in the machine's main memory.
    pub fn is_cpu(&self) -> bool {
        self.0.is_cpu()
    }

    pub(crate) fn candle(&self) -> &candle_core::Device {
        &self.0
    }
}
