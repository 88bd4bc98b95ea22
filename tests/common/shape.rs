//! What is sent, beside a public example: the same members, and no others but those that are listed as ours.

use serde_json::Value;

/// Checks a value. A text in angle brackets stands for any of its kind; `ours` are paths without numbers, such as
/// `choices.delta.reasoning_content`.
pub fn assert_like(example: &Value, found: &Value, ours: &[&str]) {
    let mut wrong = Vec::new();
    compare(example, found, "", ours, &mut wrong);
    assert!(wrong.is_empty(), "{}\n{found}\nis not like\n{example}", wrong.join("\n"));
}

fn compare(example: &Value, found: &Value, path: &str, ours: &[&str], wrong: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (example, found) {
        (Value::String(mask), found) if mask.starts_with('<') && mask.ends_with('>') => {
            let is_such = match mask.as_str() {
                "<number>" | "<time>" | "<count>" => found.is_number(),
                "<list>" => found.is_array(),
                _ => found.as_str().is_some_and(|text| !text.is_empty()),
            };
            if !is_such {
                wrong.push(format!("`{path}` is no {mask}: {found}"));
            }
        }
        (Value::Object(members), Value::Object(others)) => {
            for (name, example) in members {
                match others.get(name) {
                    Some(found) => compare(example, found, &below(name), ours, wrong),
                    None => wrong.push(format!("there is no `{}`", below(name))),
                }
            }
            let more = others.keys().filter(|name| !members.contains_key(*name)).map(|name| below(name));
            wrong.extend(
                more.filter(|path| !ours.contains(&path.as_str()))
                    .map(|path| format!("`{path}` is in no public example")),
            );
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            items.iter().zip(others).for_each(|(example, found)| compare(example, found, path, ours, wrong));
        }
        (example, found) if example == found => {}
        (example, found) => wrong.push(format!("`{path}` is {found}, not {example}")),
    }
}
