//! Drives our own release server and another OpenAI-compatible one by turns with the same requests, and prints how they
//! compare: `make bench-compare PEER=http://host:port`. Everything can be set by a flag or a variable; see `--help` and
//! docs/performance.md.
//!
//! Not a judge: it asserts nothing about times. A side that fails is shown as failing.

#[path = "../client/mod.rs"]
mod client;
mod edits;
mod prompts;
mod scenarios;
mod sides;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use client::{own_server, process};
use scenarios::{Scenario, Size};
use sides::{Side, SideArguments};
use table::{Comparison, Rows};

/// What is compared, and how.
#[derive(Debug, Parser)]
struct Arguments {
    /// The other server: http://host:port, or `own` for a second one of ours
    #[arg(long, env = "PEER")]
    peer: Option<String>,
    /// Key for the other server
    #[arg(long, env = "PEER_KEY", hide_env_values = true)]
    peer_key: Option<String>,
    /// Model that requests to the other server name [default: the first that it lists]
    #[arg(long, env = "PEER_MODEL")]
    peer_model: Option<String>,
    /// The other server's process on this machine, for its memory
    #[arg(long, env = "PEER_PID")]
    peer_pid: Option<u32>,
    /// With PEER=own: the program to start [default: the one just built]
    #[arg(long, env = "PEER_BIN")]
    peer_bin: Option<PathBuf>,
    /// With PEER=own: further arguments of `sconce serve`
    #[arg(long, env = "PEER_ARGS")]
    peer_args: Option<String>,
    /// Our server, if it runs already
    #[arg(long, env = "OURS")]
    ours: Option<String>,
    /// Key for our server, if it runs already
    #[arg(long, env = "OURS_KEY", hide_env_values = true)]
    ours_key: Option<String>,
    /// Model that requests to our server name, if it runs already [default: the first that it lists]
    #[arg(long, env = "OURS_MODEL")]
    ours_model: Option<String>,
    /// Our server's process, if it runs already
    #[arg(long, env = "OURS_PID")]
    ours_pid: Option<u32>,
    /// The program to start as ours [default: the one just built]
    #[arg(long, env = "OURS_BIN")]
    ours_bin: Option<PathBuf>,
    /// Further arguments of `sconce serve`
    #[arg(long, env = "OURS_ARGS")]
    ours_args: Option<String>,
    /// GGUF file that our server serves [default: the test model]
    #[arg(long, env = "MODEL")]
    model: Option<PathBuf>,
    /// What to run: memory, chats, shared, stall, lookup, neighbour [default: all]
    #[arg(long, env = "SCENARIOS", value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// Chats at a time, for `chats`
    #[arg(long, env = "STREAMS", value_delimiter = ',', default_value = "1,4,8,16")]
    streams: Vec<usize>,
    /// Turns that each side has
    #[arg(long, env = "ROUNDS", default_value_t = 3)]
    rounds: usize,
    /// A few requests of each kind, one turn: to see that all works
    #[arg(long, env = "QUICK")]
    quick: bool,
    /// Send no `ignore_eos`, for servers that do not know it: answers may then differ in length
    #[arg(long, env = "NO_IGNORE_EOS")]
    no_ignore_eos: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn ours(&self) -> SideArguments {
        SideArguments {
            name: "ours",
            url: self.ours.clone(),
            key: self.ours_key.clone(),
            model: self.ours_model.clone(),
            process: self.ours_pid,
            program: self.ours_bin.clone(),
            arguments: self.ours_args.clone(),
            file: self.model.clone().unwrap_or_else(own_server::test_model),
        }
    }

    fn peer(&self) -> Option<SideArguments> {
        let url = self.peer.clone().filter(|url| !url.is_empty())?;
        Some(SideArguments {
            name: "peer",
            url: (url != "own").then_some(url),
            key: self.peer_key.clone(),
            model: self.peer_model.clone(),
            process: self.peer_pid,
            program: self.peer_bin.clone(),
            arguments: self.peer_args.clone(),
            ..self.ours()
        })
    }

    /// `cargo test` starts all benches to see whether they do, and `cargo bench` this one among others.
    fn is_asked(&self) -> bool {
        self.bench && (self.peer().is_some() || !self.scenarios.is_empty())
    }

    fn scenarios(&self) -> Vec<Scenario> {
        if self.scenarios.is_empty() { Scenario::ALL.to_vec() } else { self.scenarios.clone() }
    }
}

/// Whether the command line is about this bench.
fn is_meant() -> bool {
    std::env::args().any(|argument| argument.starts_with("--peer") || argument.starts_with("--scenarios"))
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == process::BURN) {
        process::burn();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) if arguments.is_asked() => arguments,
        // Other benches' flags, where all are run at once.
        Err(error) if error.use_stderr() && !is_meant() => return ExitCode::SUCCESS,
        Err(error) => error.exit(),
        Ok(_) => {
            println!("nothing to compare: give PEER=http://host:port, or SCENARIOS=… for our server alone");
            return ExitCode::SUCCESS;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let compared =
        runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(compare(&arguments)));
    match compared {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare(arguments: &Arguments) -> Result<(), String> {
    let results = own_server::results()?;
    let begun = Instant::now();
    let ours = Side::open(arguments.ours(), &results).await?;
    let peer = match arguments.peer() {
        Some(peer) => Some(Side::open(peer, &results).await?),
        None => None,
    };
    let sides: Vec<&Side> = std::iter::once(&ours).chain(&peer).collect();
    let scale = prompts::Scale::measure(&ours).await?;
    let size = Size { quick: arguments.quick, ignore_end: !arguments.no_ignore_eos, scale };
    let rounds = if arguments.quick { 1 } else { arguments.rounds.max(1) };
    let mut comparison = Comparison::new(&sides, rounds);
    for scenario in arguments.scenarios() {
        for streams in scenario.streams(&arguments.streams) {
            let title = scenario.title(streams);
            let mut rows = Rows::new(&title, sides.len());
            for round in 0..rounds {
                // Who goes first changes with each round.
                for turn in 0..sides.len() {
                    let number = (turn + round) % sides.len();
                    eprintln!("{title}: round {}, {}", round + 1, sides[number].name);
                    let outcome = scenario.run(sides[number], streams, round, &size).await;
                    rows.add(number, outcome);
                }
            }
            print!("{}", rows.markdown(&sides));
            comparison.add(rows);
        }
    }
    let client_share = process::own_seconds().map(|used| used / begun.elapsed().as_secs_f64());
    comparison.write(&results, client_share)
}
