//! Names of files inside a model, as strangers give them: relative, plain, the same on every system, or refused.
//!
//! A name that passes can be joined to a folder and stays below it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A relative path with forward slashes, every part an ordinary name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// As a path to be joined to a folder.
    pub fn to_path(&self) -> PathBuf {
        self.0.split('/').collect()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last slash.
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// All parts but the last; empty at the top.
    pub fn parent(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// What remains after taking `folder` off the front.
    pub fn below(&self, folder: &str) -> Option<Self> {
        if folder.is_empty() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(folder.trim_end_matches('/'))?.strip_prefix('/')?;
        (!rest.is_empty()).then(|| Self(rest.to_owned()))
    }

    /// All shards if this is one of `…-00001-of-0000N.gguf`, else this alone. At most 512.
    pub fn shards(&self) -> Vec<Self> {
        let Some((start, total)) = self.0.strip_suffix(".gguf").and_then(split_shard) else {
            return vec![self.clone()];
        };
        (1..=total).map(|number| Self(format!("{start}-{number:05}-of-{total:05}.gguf"))).collect()
    }
}

/// The name to serve a file or folder under: without `.gguf` and without the number of a shard.
pub fn stem(name: &str) -> &str {
    let Some(stem) = name.strip_suffix(".gguf") else { return name };
    split_shard(stem).map_or(stem, |(start, _)| start)
}

/// `a-00001-of-00003` → (`a`, 3).
fn split_shard(stem: &str) -> Option<(&str, usize)> {
    let (front, total) = stem.rsplit_once("-of-")?;
    let (start, number) = front.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(total) || !digits(number) {
        return None;
    }
    let total = total.parse().ok().filter(|total| (1..=512).contains(total))?;
    Some((start, total))
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FileName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = |why: &str| {
            let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
            Err(format!("file name `{shown}` is refused: {why}"))
        };
        if text.len() > 1024 || text.split('/').count() > 16 {
            return refused("it is too long or too deep");
        }
        if text.chars().any(|c| c.is_control() || "\\:*?\"<>|".contains(c) || is_slash_in_disguise(c)) {
            return refused("it holds a character that no model file needs");
        }
        for part in text.split('/') {
            if part.is_empty() || part == "." || part == ".." {
                return refused("it leaves its folder or has an empty part");
            }
            if part.len() > 255 || part.ends_with(['.', ' ']) || part.starts_with(' ') {
                return refused("a part of it is too long, or begins or ends in a space or dot");
            }
            if is_reserved(part) {
                return refused("a part of it is the name of a device");
            }
        }
        Ok(Self(text.to_owned()))
    }
}

/// Fraction slash, division slash, big solidus, fullwidth solidus and reverse solidus.
fn is_slash_in_disguise(c: char) -> bool {
    matches!(c, '\u{2044}' | '\u{2215}' | '\u{29F8}' | '\u{FF0F}' | '\u{FF3C}' | '\u{29F5}' | '\u{FE68}')
}

/// Names that Windows takes for devices, with or without an extension.
fn is_reserved(part: &str) -> bool {
    let base = part.split('.').next().unwrap_or(part).to_ascii_uppercase();
    match base.as_str() {
        "CON" | "PRN" | "AUX" | "NUL" => true,
        _ => {
            base.len() == 4
                && (base.starts_with("COM") || base.starts_with("LPT"))
                && base.ends_with(|c: char| c.is_ascii_digit())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_or_trick_a_system_are_refused() {
        let long = "x".repeat(300);
        let deep = vec!["a"; 17].join("/");
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/../../x",
            "/etc/passwd",
            "a//b",
            "a/",
            "C:\\x",
            "c:x",
            "a\\b",
            "file://x",
            "a\0b",
            "a\nb",
            "NUL",
            "nul.gguf",
            "con",
            "COM1.json",
            "x.",
            "x ",
            " x",
            "a\u{2215}b",
            "a\u{FF0F}b",
            long.as_str(),
            deep.as_str(),
        ] {
            assert!(name.parse::<FileName>().is_err(), "{name:?}");
        }
        for name in [
            "a.gguf",
            "1_Pooling/config.json",
            "model-00001-of-00002.safetensors",
            "模型.gguf",
            ".gitattributes",
        ] {
            assert_eq!(name.parse::<FileName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn shards_are_counted_out() {
        let name: FileName = "q/a-00002-of-00003.gguf".parse().unwrap();
        let shards: Vec<_> = name.shards().iter().map(ToString::to_string).collect();
        assert_eq!(shards, ["q/a-00001-of-00003.gguf", "q/a-00002-of-00003.gguf", "q/a-00003-of-00003.gguf"]);
        for single in ["a.gguf", "a-00001-of-99999.gguf", "a-1-of-2.gguf", "a-00001-of-00002.safetensors"] {
            assert_eq!(single.parse::<FileName>().unwrap().shards().len(), 1, "{single}");
        }
        assert_eq!(stem("a-00001-of-00003.gguf"), "a");
        assert_eq!(stem("SmolLM2.Q4_1.gguf"), "SmolLM2.Q4_1");
        assert_eq!(stem("all-MiniLM-L6-v2"), "all-MiniLM-L6-v2");
    }
}
