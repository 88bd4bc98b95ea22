//! `sconce models`: what the catalogue has, and what is on this machine.

use std::error::Error;
use std::fmt::Write;

use crate::cli::output;
use crate::config::{Config, RawConfig, Size};
use crate::manager::{Catalog, CatalogEntry, Fetcher, resolve};

/// Prints the catalogue and the models that settings name.
///
/// # Errors
/// For settings that cannot be, a damaged catalogue, or a data folder that cannot be used.
pub fn models(settings: RawConfig) -> Result<(), Box<dyn Error>> {
    let config = Config::load(settings)?;
    let catalog = Catalog::open(config.models.catalog.as_deref())?;
    let fetcher = Fetcher::open(&config.models, &config.data_dir)?;
    let mut entries = Vec::new();
    for argument in &config.models.models {
        entries.push(resolve(argument, &catalog)?);
    }
    for entry in catalog.entries() {
        if !entries.iter().any(|named: &CatalogEntry| named.id == entry.id) {
            entries.push(entry.clone());
        }
    }
    let shown: Vec<_> = entries.iter().map(|entry| (entry, fetcher.installed(entry).is_some())).collect();
    output::show(table(&shown))?;
    output::line(
        "\n✓ on this machine; fetch others with `sconce pull NAME`, or name them with `sconce serve --model NAME`",
    )?;
    Ok(())
}

fn table(entries: &[(&CatalogEntry, bool)]) -> String {
    let width = entries.iter().map(|(entry, _)| entry.id.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (entry, is_here) in entries {
        let mark = if *is_here { "✓" } else { " " };
        let size = entry.bytes().map_or_else(String::new, |bytes| Size(bytes).to_string());
        let what = match (entry.description.is_empty(), entry.sources.first()) {
            (true, Some(source)) => source.to_string(),
            _ => entry.description.clone(),
        };
        let license = if entry.license.is_empty() { String::new() } else { format!(" [{}]", entry.license) };
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{mark} {:width$}  {size:>8}  {what}{license}", entry.id);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_here() {
        let catalog = Catalog::open(None).unwrap();
        let chat = catalog.find("smollm2-135m-instruct").unwrap();
        let text = table(&[(chat, true), (chat, false)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("✓ smollm2-135m-instruct") && lines[0].contains("94 MiB"), "{text}");
        assert!(lines[1].starts_with("  smollm2-135m-instruct"), "{text}");
    }
}
