//! What the system says of a process, where it says anything (Linux), and processes that take a core.

use std::process::{Child, Command, Stdio};

/// Resident memory in MiB.
pub fn resident_mebibytes(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// Processor time that this process has used, in seconds.
pub fn own_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: state is the third field, user and system time are the 14th and 15th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// Processes that do nothing but take their core, one for every second core. They end with this value.
pub struct Neighbours(Vec<Child>);

/// The argument that makes this program such a process.
pub const BURN: &str = "--take-a-core";

impl Neighbours {
    pub fn start() -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let start = |_| Command::new(&program).arg(BURN).stdin(Stdio::piped()).spawn();
        let started: Result<Vec<_>, _> = (0..cores.div_ceil(2)).map(start).collect();
        started.map(Self).map_err(|error| error.to_string())
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What such a process does, until its parent is gone.
pub fn burn() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::abort();
    });
    let mut number = 1u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}
