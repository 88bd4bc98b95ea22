//! Logs and metrics: set up once per process, spoken to through `tracing` and `metrics` from everywhere.

pub mod metrics;
mod one_line;

use std::io::IsTerminal;

use tracing::{Dispatch, dispatcher};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat};
use crate::telemetry::one_line::OneLine;

/// Sends logs to standard error. A filter that cannot be read means `info`. Only the first call of a process has an
/// effect.
pub fn start_logging(log: &LogConfig) {
    let lines = logging(log, std::io::stderr, std::io::stderr().is_terminal());
    // A subscriber may be there already (tests, several servers in one process): then it stays.
    let _ = dispatcher::set_global_default(lines);
}

/// What makes lines of what is logged, as the settings say, and writes them.
pub fn logging<W>(log: &LogConfig, writer: W, is_coloured: bool) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let is_coloured = is_coloured && log.format == LogFormat::Text;
    let writer = OneLine::new(writer, is_coloured);
    let lines = fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    match log.format {
        LogFormat::Text => Dispatch::new(lines.with_ansi(is_coloured).finish()),
        LogFormat::Json => Dispatch::new(lines.json().flatten_event(true).finish()),
    }
}
