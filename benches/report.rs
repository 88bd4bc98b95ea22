//! Puts what the benches measured into one table, beside what the machine can do at most: the last step of `make bench`.
//! Reads what Criterion and the benches themselves wrote in the build folder; measures nothing.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::{Value, json};

/// One result of Criterion.
struct Bench {
    group: String,
    /// Function and value.
    case: String,
    /// Nanoseconds of one iteration: median, and the ends of its confidence interval.
    time: [f64; 3],
    elements: Option<f64>,
    bytes: Option<f64>,
}

/// What the machine can do, per second.
struct Peaks {
    reading: Option<f64>,
    floats: Option<f64>,
    int8: Option<f64>,
}

/// A line of the table.
struct Line {
    name: String,
    time: String,
    rate: String,
    share: String,
    json: Value,
}

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--write") {
        println!("`make bench` runs this after the other benches");
        return ExitCode::SUCCESS;
    }
    match report() {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report() -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let build = program.ancestors().nth(3).ok_or("this program lies in no build folder")?;
    let (criterion, results) = (build.join("criterion"), build.join("bench"));
    // Made by `make bench` before the first one: what is older belongs to another run.
    let begun = fs::metadata(results.join("started")).and_then(|file| file.modified()).ok();
    let mut found = Vec::new();
    collect(&criterion, begun, &mut found);
    if found.is_empty() {
        return Err(format!("there are no results in {}", criterion.display()));
    }
    found.sort_by_key(|bench| order(&bench.group));
    let peaks = Peaks::of(&found);
    let model = read_json(&results.join("model.json")).unwrap_or_default();
    let lines: Vec<Line> = found.iter().map(|bench| line(bench, &peaks, &model)).collect();
    let server = newer(&results.join("server.json"), begun).then(|| read_json(&results.join("server.json")));
    let server = server.flatten().unwrap_or_default();
    let mut text = table(&lines, &server);
    let machine = machine();
    let _ = writeln!(text, "\n{machine}; model: {}", model["model"].as_str().unwrap_or("not run"));
    let rows: Vec<&Value> = lines.iter().map(|line| &line.json).collect();
    let all = json!({"machine": machine, "model": model, "benches": rows, "server": server});
    for (name, content) in [("report.json", format!("{all:#}\n")), ("report.md", text.clone())] {
        let path = results.join(name);
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        let _ = writeln!(text, "{}", path.display());
    }
    Ok(text)
}

/// Where a group stands in the table.
fn order(group: &str) -> usize {
    let first = group.split([' ', '/']).next().unwrap_or(group);
    let groups = ["peak", "linear", "attention", "elements", "model", "engine", "sampler"];
    groups.iter().position(|known| *known == first).unwrap_or(groups.len())
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn newer(path: &Path, than: Option<SystemTime>) -> bool {
    let written = fs::metadata(path).and_then(|file| file.modified()).ok();
    written.is_some_and(|written| than.is_none_or(|than| written >= than))
}

/// Criterion keeps each bench's last run in a folder `new`, at any depth.
fn collect(folder: &Path, begun: Option<SystemTime>, found: &mut Vec<Bench>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut folders: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    folders.sort_by_key(|folder| {
        (fs::metadata(folder).and_then(|folder| folder.modified()).ok(), folder.clone())
    });
    for inner in folders {
        if !inner.ends_with("new") {
            collect(&inner, begun, found);
        } else if newer(&inner.join("estimates.json"), begun) {
            found.extend(read_bench(&inner));
        }
    }
}

fn read_bench(folder: &Path) -> Option<Bench> {
    let about = read_json(&folder.join("benchmark.json"))?;
    let median = &read_json(&folder.join("estimates.json"))?["median"];
    let interval = &median["confidence_interval"];
    let throughput = &about["throughput"];
    let both = &throughput["ElementsAndBytes"];
    let parts = [&about["function_id"], &about["value_str"]];
    let case: Vec<&str> = parts.into_iter().filter_map(Value::as_str).collect();
    Some(Bench {
        group: about["group_id"].as_str()?.to_owned(),
        case: case.join("/"),
        time: [
            median["point_estimate"].as_f64()?,
            interval["lower_bound"].as_f64()?,
            interval["upper_bound"].as_f64()?,
        ],
        elements: throughput["Elements"].as_f64().or(both["elements"].as_f64()),
        bytes: throughput["Bytes"].as_f64().or(both["bytes"].as_f64()),
    })
}

impl Bench {
    fn per_second(&self, amount: Option<f64>) -> Option<f64> {
        Some(amount? / self.time[0] * 1e9)
    }
}

impl Peaks {
    fn of(benches: &[Bench]) -> Self {
        let peaks = || benches.iter().filter(|bench| bench.group == "peak");
        let most = |beginning: &str| {
            let those = peaks().filter(|bench| bench.case.starts_with(beginning));
            those.filter_map(|bench| bench.per_second(bench.elements)).reduce(f64::max)
        };
        let reading = peaks().find(|bench| bench.case == "read 100 MB");
        Self {
            reading: reading.and_then(|bench| bench.per_second(bench.bytes)),
            floats: most("f32"),
            int8: most("int8"),
        }
    }
}

fn line(bench: &Bench, peaks: &Peaks, model: &Value) -> Line {
    let (mut rate, mut share, mut json) = (Vec::new(), Vec::new(), json!({}));
    let name = format!("{}/{}", bench.group, bench.case).trim_end_matches('/').to_owned();
    json["name"] = json!(name);
    json["median_ns"] = json!(bench.time[0]);
    json["median_ns_range"] = json!(&bench.time[1..]);
    let mut add = |unit: &str, value: Option<f64>, scale: f64, peak: Option<f64>, peak_name: &str| {
        let Some(value) = value else { return };
        rate.push(format!("{} {unit}", short(value / scale)));
        json[unit] = json!(value / scale);
        if let Some(peak) = peak.filter(|_| bench.group != "peak") {
            share.push(format!("{:.0} % of {peak_name}", value / peak * 100.0));
            json[format!("share of {peak_name}")] = json!(value / peak);
        }
    };
    let (elements, bytes) = (bench.per_second(bench.elements), bench.per_second(bench.bytes));
    if bench.group == "model" {
        let floor = floor(bench, peaks, model).map(|seconds| bench.elements.unwrap_or(1.0) / seconds);
        add("tokens/s", elements, 1.0, floor, "the floor");
    } else {
        let is_float =
            bench.group == "attention" || bench.case.starts_with('F') || bench.case.starts_with("f32");
        add("GB/s", bytes, 1e9, peaks.reading, "reading");
        match is_float {
            true => add("GFLOP/s", elements, 1e9, peaks.floats, "f32"),
            false => add("GOP/s", elements, 1e9, peaks.int8, "int8"),
        }
    }
    let [median, low, high] = bench.time;
    let unit = unit(median);
    let time =
        format!("{} {} [{}–{}]", short(median / unit.0), unit.1, short(low / unit.0), short(high / unit.0));
    Line { name, time, rate: rate.join(", "), share: share.join(", "), json }
}

/// The least seconds that a pass can take here: everything is read once, and computed at the peak meanwhile.
fn floor(bench: &Bench, peaks: &Peaks, model: &Value) -> Option<f64> {
    let of = |name: &str| model[name].as_f64();
    let (what, count) = bench.case.split_once('/')?;
    let count: f64 = count.parse().ok()?;
    // Positions that are read, those that all rows look at together, and rows that need the output matrix.
    let (read, seen, rows, sampled) = match what.strip_prefix("decode at ") {
        Some(depth) => {
            let depth: f64 = depth.parse().ok()?;
            (count * depth, count * depth, count, count)
        }
        None => (count, count * (count + 1.0) / 2.0, count, 1.0),
    };
    let bytes = of("weight_bytes")? + read * of("cache_bytes_per_position")?;
    let products = rows * of("layer_operations")? + sampled * of("head_operations")?;
    let product_peak = if model["is_float"] == true { peaks.floats? } else { peaks.int8? };
    let attention = seen * of("attention_operations_per_position")?;
    Some((bytes / peaks.reading?).max(products / product_peak + attention / peaks.floats?))
}

fn table(lines: &[Line], server: &Value) -> String {
    let mut text =
        "\n| bench | time | rate | of what the machine can do |\n|---|---:|---:|---:|\n".to_owned();
    for Line { name, time, rate, share, .. } in lines {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "| {name} | {time} | {rate} | {share} |");
    }
    for line in server["lines"].as_array().into_iter().flatten() {
        let of = |name: &str| line[name].as_f64().map_or_else(|| "–".to_owned(), short);
        let share = line["overhead_share"].as_f64().unwrap_or(0.0) * 100.0;
        let (name, time, alone) =
            (line["name"].as_str().unwrap_or(""), of("server_ms"), of("model_alone_ms"));
        let over = of("overhead_ms");
        let _ = writeln!(
            text,
            "| server/{name} | {time} ms | the model alone {alone} ms | {over} ms more, {share:.1} % |"
        );
    }
    if let Some(start) = server["ready_after_seconds"].as_f64() {
        let _ = writeln!(text, "| server/start until ready | {} ms | | |", short(start * 1e3));
    }
    text
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        about.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let name = name.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    format!("{name}, {cores} threads, {}", std::env::consts::OS)
}

/// A unit that suits a number of nanoseconds.
fn unit(nanoseconds: f64) -> (f64, &'static str) {
    match nanoseconds {
        long if long >= 1e6 => (1e6, "ms"),
        long if long >= 1e3 => (1e3, "µs"),
        _ => (1.0, "ns"),
    }
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
