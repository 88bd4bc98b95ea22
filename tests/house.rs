//! The rules of the house, checked by reading the source: who may import whom, where a word may be said, what each file
//! begins with. A rule that breaks names the file; to change a rule, change the table here and say why in
//! `docs/decisions/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floor plan of `src/`: `room: the rooms it may import`. A room that is not listed does not exist.
const FLOOR_PLAN: &str = "
language:
clock:
shutdown:
error: language
config: error
telemetry: error config
engine: error config telemetry
manager: error config telemetry shutdown engine
generate: error config telemetry manager engine
store: error clock config telemetry
auth: error language clock config telemetry store
usage: error clock config telemetry store auth shutdown
http: error language clock config telemetry shutdown engine generate manager auth usage store
api: error language clock config telemetry http engine generate manager auth usage
admin: error clock config telemetry http manager auth usage store
console: config http
batch: error language clock telemetry http api auth usage store
app: error clock config telemetry shutdown engine manager generate store auth usage http api admin console batch
cli: error language clock config telemetry shutdown engine store auth manager generate app
";

/// The wing that knows no users, and the wing that knows no tensors.
const INFERENCE: [&str; 3] = ["engine", "manager", "generate"];
const PLATFORM: [&str; 3] = ["store", "auth", "usage"];

/// (what may be said only there, the paths where it may be said).
const WORDS: [(&str, &[&str]); 11] = [
    ("candle", &["models/", "kernels/"]),
    ("sqlx", &["src/store/"]),
    ("axum", &["src/http/", "src/api/", "src/admin/", "src/console", "src/app.rs"]),
    (
        "StatusCode",
        &["src/http/", "src/api/", "src/admin/", "src/console", "src/app.rs", "src/manager/sources/"],
    ),
    ("env::var", &["src/config/"]),
    ("feature = \"cuda\"", &["kernels/", "models/src/device.rs"]),
    ("feature = \"metal\"", &["kernels/", "models/src/device.rs"]),
    ("unsafe {", &["kernels/", "models/src/weights/"]),
    // Every other URL is added by `routes!`, and so stands in the description, of which the tests of permissions read.
    (".route(", &["src/http/openapi/page.rs"]),
    // Whatever a caller does begins with `Permit::write`, which looks them up again; these write of themselves, or for
    // somebody who is only about to show who they are.
    (
        "store().write()",
        &[
            "src/auth/capability.rs",
            "src/auth/first_run.rs",
            "src/auth/offline.rs",
            "src/auth/proof.rs",
            "src/auth/refusals.rs",
            "src/auth/session.rs",
            "src/auth/signing_keys.rs",
        ],
    ),
    ("todo!", &[]),
];

/// One source file, with comments and `#[cfg(test)]` items taken out of `product`.
struct Source {
    path: String,
    text: String,
    product: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                rust_files(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders {
        rust_files(&root().join(folder), &mut paths);
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let relative = path.strip_prefix(root()).expect("below the root");
            let path = relative.to_string_lossy().replace('\\', "/");
            let product = product(&text);
            Source { path, text, product }
        })
        .collect()
}

/// The text without comment lines and without items under `#[cfg(test)]` (rustfmt's indentation ends an item).
fn product(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("#[cfg(test)]") {
            while lines.peek().is_some_and(|next| next.trim_start().starts_with("#[")) {
                lines.next();
            }
            let Some(head) = lines.next() else { break };
            if head.trim_end().ends_with('{') {
                let end = format!("{}}}", " ".repeat(indent));
                for inner in lines.by_ref() {
                    if inner == end {
                        break;
                    }
                }
            }
        } else if !line.trim_start().starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The room a file of `src/` belongs to; none for `lib.rs` and `main.rs`.
fn room(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("src/")?;
    let first = inner.split('/').next()?.trim_end_matches(".rs");
    (!matches!(first, "lib" | "main")).then_some(first)
}

/// The first segments after each `crate::`, braces opened.
fn imports(product: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in product.match_indices("crate::") {
        let rest = &product[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut start = 0;
            for (index, character) in group.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 || (character == ',' && depth == 1) {
                    found.insert(first_word(&group[start..]));
                    start = index + 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            found.insert(first_word(rest));
        }
    }
    found
}

fn first_word(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

/// room → the rooms it imports.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources(&["src"]);
    let rooms: BTreeSet<_> =
        sources.iter().filter_map(|source| room(&source.path)).map(str::to_owned).collect();
    let mut edges: BTreeMap<String, BTreeSet<String>> =
        rooms.iter().map(|room| (room.clone(), BTreeSet::new())).collect();
    for source in &sources {
        let Some(from) = room(&source.path) else { continue };
        let to = imports(&source.product).into_iter().filter(|to| rooms.contains(to) && to != from);
        edges.get_mut(from).expect("every room is a key").extend(to);
    }
    edges
}

fn plan() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    FLOOR_PLAN
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(room, allowed)| (room.trim(), allowed.split_whitespace().collect()))
        .collect()
}

#[test]
fn rooms_import_only_what_the_floor_plan_allows() {
    let plan = plan();
    for (from, imported) in edges() {
        let allowed = plan.get(from.as_str()).unwrap_or_else(|| panic!("`{from}` is not on the floor plan"));
        for to in imported {
            assert!(
                allowed.contains(to.as_str()),
                "`{from}` imports `{to}`, which the floor plan does not allow"
            );
        }
    }
}

#[test]
fn the_floor_plan_has_no_knots() {
    fn reaches<'a>(
        graph: &'a BTreeMap<String, BTreeSet<String>>,
        from: &'a str,
        seen: &mut BTreeSet<&'a str>,
    ) {
        for to in graph.get(from).into_iter().flatten() {
            if seen.insert(to) {
                reaches(graph, to, seen);
            }
        }
    }
    let edges = edges();
    let planned: BTreeMap<String, BTreeSet<String>> = plan()
        .into_iter()
        .map(|(room, allowed)| (room.to_owned(), allowed.into_iter().map(str::to_owned).collect()))
        .collect();
    for graph in [&edges, &planned] {
        for room in graph.keys() {
            let mut seen = BTreeSet::new();
            reaches(graph, room, &mut seen);
            assert!(!seen.contains(room.as_str()), "`{room}` imports itself by way of {seen:?}");
        }
    }
}

#[test]
fn the_wings_do_not_know_each_other() {
    let plan = plan();
    for (here, there) in [(INFERENCE, PLATFORM), (PLATFORM, INFERENCE)] {
        for room in here {
            let allowed = &plan[room];
            assert!(there.iter().all(|other| !allowed.contains(other)), "`{room}` may import the other wing");
        }
    }
}

#[test]
fn words_are_said_only_where_they_belong() {
    for source in sources(&["src", "models/src", "kernels/src"]) {
        for (word, places) in WORDS {
            let may = places.iter().any(|place| source.path.starts_with(place));
            assert!(may || !source.product.contains(word), "{} says `{word}`", source.path);
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for source in sources(&["src", "models", "kernels", "tests", "benches"]) {
        assert!(source.text.starts_with("//!"), "{} does not open with `//!`", source.path);
    }
}

#[test]
fn no_room_is_a_bag() {
    for source in sources(&["src", "models/src", "kernels/src"]) {
        let name =
            Path::new(&source.path).file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let bag = ["util", "utils", "helper", "helpers", "common", "misc", "prelude", "shared"]
            .contains(&name.as_str());
        assert!(!bag, "{} is a bag, not a subject", source.path);
    }
}

#[test]
fn the_architecture_page_names_only_what_exists() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md exists");
    let words: Vec<_> = page.split('`').skip(1).step_by(2).collect();
    let paths: Vec<_> = words
        .into_iter()
        .filter(|word| {
            word.contains('/') && !word.contains(char::is_whitespace) && !word.starts_with(['/', '<', '-'])
        })
        .filter(|word| word.ends_with('/') || word.rsplit('/').next().is_some_and(|name| name.contains('.')))
        .filter(|word| !word.contains("://"))
        .collect();
    assert!(paths.len() > 10, "the page names its files: {paths:?}");
    for path in paths {
        assert!(root().join(path).exists(), "docs/architecture.md names `{path}`, which does not exist");
    }
    assert!(page.lines().count() < 150, "docs/architecture.md is longer than three pages");
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |database: &str| -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(root().join("migrations").join(database)) else {
            return BTreeSet::new();
        };
        entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect()
    };
    let (sqlite, postgres) = (names("sqlite"), names("postgres"));
    assert_eq!(sqlite, postgres);
    // A second one of the same number would keep the server from starting.
    let numbers: BTreeSet<_> =
        sqlite.iter().filter_map(|name| name.split_once('_')).map(|(number, _)| number).collect();
    assert_eq!(numbers.len(), sqlite.len(), "two migrations have one number: {sqlite:?}");
}

#[test]
fn the_reader_of_these_rules_can_see() {
    let text = "use crate::{engine::Engine, http::{sse, error}};\n#[cfg(test)]\nmod tests {\n    use crate::store;\n}\nfn x() { crate::auth::y() }\n// crate::usage\n";
    let found = imports(&product(text));
    assert_eq!(found, BTreeSet::from(["engine".into(), "http".into(), "auth".into()]));
}
