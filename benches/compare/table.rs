//! The figures of all turns: as a table of medians and spreads, and whole as JSON.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::statistics::{median, range};
use crate::scenarios::Outcome;
use crate::sides::Side;

/// The turns of one scenario.
pub struct Rows {
    title: String,
    /// By side, then by round.
    turns: Vec<Vec<Outcome>>,
}

/// Values over all rounds: none for a turn without one.
type Series = Vec<Option<f64>>;

impl Rows {
    pub fn new(title: &str, sides: usize) -> Self {
        Self { title: title.to_owned(), turns: vec![Vec::new(); sides] }
    }

    pub fn add(&mut self, side: usize, outcome: Outcome) {
        self.turns[side].push(outcome);
    }

    /// The names of all figures, in order.
    fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for figure in self.turns.iter().flatten().flat_map(|outcome| &outcome.figures) {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
        names
    }

    fn series(&self, side: usize, name: &str) -> Series {
        let of = |outcome: &Outcome| outcome.figures.iter().find(|figure| figure.name == name)?.value;
        self.turns[side].iter().map(of).collect()
    }

    /// Ours by the peer's, round by round.
    fn ratios(&self, name: &str) -> Series {
        let Some(peer) = (self.turns.len() > 1).then(|| self.series(1, name)) else { return Vec::new() };
        let pairs = self.series(0, name).into_iter().zip(peer);
        pairs.map(|(ours, peer)| Some(ours? / peer.filter(|peer| *peer != 0.0)?)).collect()
    }

    /// How many requests both sides answered with the same text, and of how many.
    fn equal_answers(&self) -> Option<(usize, usize)> {
        let [ours, peer] = self.turns.as_slice() else { return None };
        let digests = |turns: &[Outcome]| -> Vec<u64> {
            turns.iter().flat_map(|outcome| outcome.digests.iter().copied()).collect()
        };
        let (ours, peer) = (digests(ours), digests(peer));
        let equal = ours.iter().zip(&peer).filter(|(ours, peer)| ours == peer).count();
        (ours.len() == peer.len() && !ours.is_empty()).then_some((equal, ours.len()))
    }

    fn problems<'a>(&'a self, sides: &'a [&Side]) -> impl Iterator<Item = String> {
        self.turns.iter().zip(sides).flat_map(|(turns, side)| {
            turns.iter().enumerate().flat_map(move |(round, outcome)| {
                let line = move |problem: &String| format!("{}, round {}: {problem}", side.name, round + 1);
                outcome.problems.iter().map(line)
            })
        })
    }

    /// The scenario's part of the table.
    pub fn markdown(&self, sides: &[&Side]) -> String {
        let mut text = format!("\n### {}\n\n| |", self.title);
        let heads = sides.iter().map(|side| side.name).chain((sides.len() > 1).then_some("ours ÷ peer"));
        let heads: Vec<&str> = heads.collect();
        // Writing to a text cannot fail.
        let _ = writeln!(text, " {} |\n|---|{}", heads.join(" | "), "---:|".repeat(heads.len()));
        for name in self.names() {
            let _ = write!(text, "| {name} |");
            for side in 0..sides.len() {
                let _ = write!(text, " {} |", cell(&self.series(side, name)));
            }
            let ratios = (sides.len() > 1).then(|| cell(&self.ratios(name)));
            let _ =
                writeln!(text, "{}", ratios.map_or_else(String::new, |ratios| format!(" **{ratios}** |")));
        }
        text.push('\n');
        if let Some((equal, all)) = self.equal_answers() {
            let _ = writeln!(text, "{equal} of {all} answers are the same text on both sides.");
        }
        self.problems(sides).for_each(|problem| text.push_str(&format!("- {problem}\n")));
        text
    }

    fn json(&self, sides: &[&Side]) -> Value {
        let figures = self.names().into_iter().map(|name| {
            let mut figure = json!({"name": name, "ratios": self.ratios(name)});
            for (number, side) in sides.iter().enumerate() {
                figure[side.name] = json!(self.series(number, name));
            }
            figure
        });
        let figures: Vec<Value> = figures.collect();
        let problems: Vec<String> = self.problems(sides).collect();
        json!({"scenario": self.title, "figures": figures, "problems": problems})
    }
}

/// `median [least–most]`, or the one value there is.
fn cell(series: &[Option<f64>]) -> String {
    let known: Vec<f64> = series.iter().copied().flatten().collect();
    let (Some(median), Some((least, most))) = (median(&known), range(&known)) else {
        return "–".to_owned();
    };
    if known.len() == 1 {
        return short(median);
    }
    format!("{} [{}–{}]", short(median), short(least), short(most))
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// All scenarios.
pub struct Comparison<'a> {
    sides: Vec<&'a Side>,
    rounds: usize,
    scenarios: Vec<Rows>,
}

impl<'a> Comparison<'a> {
    pub fn new(sides: &[&'a Side], rounds: usize) -> Self {
        Self { sides: sides.to_vec(), rounds, scenarios: Vec::new() }
    }

    pub fn add(&mut self, rows: Rows) {
        self.scenarios.push(rows);
    }

    /// Writes `compare.json` and `compare.md`.
    pub fn write(&self, results: &Path, client_share: Option<f64>) -> Result<(), String> {
        let sides: Vec<Value> = self.sides.iter().map(|side| describe(side)).collect();
        let scenarios: Vec<Value> = self.scenarios.iter().map(|rows| rows.json(&self.sides)).collect();
        let all = json!({
            "rounds": self.rounds,
            "sides": sides,
            "client_share_of_a_core": client_share,
            "scenarios": scenarios,
        });
        let mut text = format!("Median of {} alternating turns [least–most].\n\n", self.rounds);
        for side in &self.sides {
            let start = side.start.map(|start| format!(", ready after {:.2} s", start.as_secs_f64()));
            text.push_str(&format!("- {}: {}{}\n", side.name, side.description, start.unwrap_or_default()));
        }
        if let Some(share) = client_share {
            text.push_str(&format!("- this client took {:.1} % of a core\n", share * 100.0));
        }
        self.scenarios.iter().for_each(|rows| text.push_str(&rows.markdown(&self.sides)));
        for (name, content) in [("compare.json", format!("{all:#}\n")), ("compare.md", text)] {
            let path = results.join(name);
            std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
            println!("{}", path.display());
        }
        Ok(())
    }
}

fn describe(side: &Side) -> Value {
    json!({
        "name": side.name,
        "what": side.description,
        "ready_after_seconds": side.start.map(|start| start.as_secs_f64()),
    })
}
