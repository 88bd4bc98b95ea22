//! `sconce check-config`: every setting with its value and where it comes from, secrets masked.

use std::error::Error;

use crate::cli::output;
use crate::config::{Config, Explained, RawConfig};
use crate::manager::{Catalog, resolve};

/// Prints the settings, or what is wrong with them.
///
/// # Errors
/// For settings that cannot be, and models that mean nothing.
pub fn check_config(settings: RawConfig) -> Result<(), Box<dyn Error>> {
    let config = Config::load(settings)?;
    output::show(table(config.explain()))?;
    let catalog = Catalog::open(config.models.catalog.as_deref())?;
    for argument in &config.models.models {
        resolve(argument, &catalog)?;
    }
    for name in config.unknown_variables() {
        output::line(format_args!("\n{name} is no setting, and is ignored"))?;
    }
    output::line("\nthe settings are sound")?;
    Ok(())
}

fn table(settings: &[Explained]) -> String {
    let name = settings.iter().map(|setting| setting.name.len()).max().unwrap_or(0);
    let value =
        settings.iter().map(|setting| setting.value.chars().count()).filter(|width| *width <= 40).max();
    let value = value.unwrap_or(0);
    let lines = settings.iter().map(|setting| {
        let shown = if setting.value.is_empty() { "-" } else { &setting.value };
        format!("{:name$}  {shown:value$}  {}\n", setting.name, setting.origin)
    });
    lines.collect()
}
