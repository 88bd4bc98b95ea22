//! `sconce doctor`: what this machine offers, and which sources it reaches. Changes nothing.

use std::error::Error;
use std::thread::available_parallelism;

use sconce_models::{Device, DeviceSpec, Level};
use tokio::runtime::Runtime;

use crate::cli::output;
use crate::config::{Config, RawConfig, Size};
use crate::manager::{Catalog, Fetcher, MachineMemory, free_disk};

/// Prints the findings. A source that is not reached is a finding, not a failure.
///
/// # Errors
/// For settings that cannot be, or a data folder that cannot be used.
pub fn doctor(runtime: &Runtime, settings: RawConfig) -> Result<(), Box<dyn Error>> {
    let config = Config::load(settings)?;
    say("sconce", env!("CARGO_PKG_VERSION"))?;
    say("processor", &processor())?;
    say("memory", &memory())?;
    say("devices", &devices())?;
    let disk =
        free_disk(&config.data_dir).map_or_else(|| "unknown".into(), |free| format!("{} free", Size(free)));
    say("data folder", &format!("{} ({disk})", config.data_dir.display()))?;
    say("hub cache", &config.models.hub.cache.display().to_string())?;

    let fetcher = Fetcher::open(&config.models, &config.data_dir)?;
    let catalog = Catalog::open(config.models.catalog.as_deref())?;
    output::line("\nsources")?;
    for reached in runtime.block_on(fetcher.reach(&catalog)) {
        let mark = if reached.outcome.is_ok() { "✓" } else { "✗" };
        let (Ok(words) | Err(words)) = &reached.outcome;
        output::line(format_args!("  {mark} {}: {words}", reached.source))?;
    }
    output::line("\nmodels")?;
    for entry in catalog.entries() {
        let mark = if fetcher.installed(entry).is_some() { "✓ here" } else { "  not here" };
        output::line(format_args!("  {mark}: {}", entry.id))?;
    }
    Ok(())
}

fn say(label: &str, text: &str) -> std::io::Result<()> {
    output::line(format_args!("{label:12} {text}"))
}

fn processor() -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let features = features();
    let listed =
        if features.is_empty() { "no vector instructions known here".into() } else { features.join(" ") };
    format!("{} with {cores} cores to use: {listed}", std::env::consts::ARCH)
}

/// Instructions that kernels can use.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let known = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx-vnni", is_x86_feature_detected!("avxvnni")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512-vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512-bf16", is_x86_feature_detected!("avx512bf16")),
        // There is more to ask for than the processor: the system must let programs use it.
        ("amx-bf16", Level::Amx.is_supported()),
    ];
    known.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect()
}

/// Instructions that kernels can use.
#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    let known = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
    ];
    known.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect()
}

/// Instructions that kernels can use.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

fn memory() -> String {
    let Some(memory) = MachineMemory::now() else { return "unknown".into() };
    let limit = match memory.limit {
        Some(limit) => format!(", limited to {} by the control group", Size(limit)),
        None => String::new(),
    };
    format!("{} of {} available{limit}", Size(memory.available), Size(memory.total))
}

fn devices() -> String {
    let others = [DeviceSpec::Cuda(0), DeviceSpec::Metal].map(|spec| match Device::open(spec) {
        Ok(_) => spec.to_string(),
        Err(error) => format!("no {} ({error})", spec.to_string().trim_end_matches(":0")),
    });
    format!("cpu, {}", others.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn tiles_are_named_where_kernels_use_them() {
        assert_eq!(features().contains(&"amx-bf16"), Level::Amx.is_supported());
    }
}
