//! `--model`: what to serve, and perhaps under which name. What the text means is the manager's business.

use std::fmt;
use std::str::FromStr;

/// `NAME`, `PATH` or `SOURCE`, with `ID=` before it to give it a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelArgument {
    /// The name it is to be served under.
    pub id: Option<String>,
    /// A catalogue name, a path or a source.
    pub target: String,
}

impl FromStr for ModelArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, target) = match text.split_once('=') {
            Some((id, target)) if is_model_id(id) => (Some(id.to_owned()), target),
            _ => (None, text),
        };
        if target.is_empty() {
            return Err(format!("`{text}` names no model"));
        }
        Ok(Self { id, target: target.to_owned() })
    }
}

impl fmt::Display for ModelArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{id}={}", self.target),
            None => f.write_str(&self.target),
        }
    }
}

/// Whether a model may be called this: letters, digits and `._-/`, beginning with a letter or digit, at most 128.
/// (No colon, so that a source such as `pip:a==1` is never taken for `ID=…`; a path with `=` in it begins with `./`.)
pub fn is_model_id(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_before_an_equals_sign_is_the_id() {
        for (text, id, target) in [
            ("smollm2", None, "smollm2"),
            ("chat=/models/a.gguf", Some("chat"), "/models/a.gguf"),
            ("org/chat=hf:a/b", Some("org/chat"), "hf:a/b"),
            ("pip:package==1.0!a.gguf", None, "pip:package==1.0!a.gguf"),
            ("chat=pip:package==1.0!a.gguf", Some("chat"), "pip:package==1.0!a.gguf"),
            ("https://host/a?b=c", None, "https://host/a?b=c"),
            ("./a=b.gguf", None, "./a=b.gguf"),
        ] {
            let argument: ModelArgument = text.parse().unwrap();
            assert_eq!((argument.id.as_deref(), argument.target.as_str()), (id, target), "{text}");
            assert_eq!(argument.to_string(), text);
        }
        assert!("chat=".parse::<ModelArgument>().is_err());
        assert!("".parse::<ModelArgument>().is_err());
    }
}
