//! Logs and metrics: set up once per process, spoken to through `tracing` and `metrics` from everywhere.

pub mod metrics;
mod one_line;

use tracing::{Dispatch, dispatcher};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat};
use crate::telemetry::one_line::OneLine;

/// Sends logs to standard error. A filter that cannot be read means `info`. Only the first call of a process has an
/// effect.
pub fn start_logging(log: &LogConfig) {
    // A subscriber may be there already (tests, several servers in one process): then it stays.
    let _ = dispatcher::set_global_default(logging(log, std::io::stderr));
}

/// What makes lines of what is logged, as the settings say, and writes them. Without colours: whatever steers a terminal
/// came from a stranger, and is escaped.
pub fn logging<W>(log: &LogConfig, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines =
        fmt().with_env_filter(filter).with_writer(OneLine(writer)).with_target(false).with_ansi(false);
    // Otherwise a log that nobody reads any more would be complained of with `eprintln!`, which panics then.
    let lines = lines.log_internal_errors(false);
    match log.format {
        LogFormat::Text => Dispatch::new(lines.finish()),
        LogFormat::Json => Dispatch::new(lines.json().flatten_event(true).finish()),
    }
}
