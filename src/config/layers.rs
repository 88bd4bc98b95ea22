//! Default < file < environment < flag: finds a setting's value and remembers where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;

use crate::config::ConfigError;
use crate::config::environment::Environment;
use crate::config::raw::RawConfig;
use crate::config::setting::find;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said.
    Default,
    /// The settings file.
    File(PathBuf),
    /// This variable.
    Environment(String),
    /// This flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// A setting as `check-config` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The setting.
    pub name: &'static str,
    /// Its value; a secret is masked.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// The layers, and the record of what was taken from which.
pub(super) struct Layers {
    flags: RawConfig,
    environment: (RawConfig, BTreeMap<&'static str, String>),
    file: Option<(PathBuf, RawConfig)>,
    explained: Vec<Explained>,
}

impl Layers {
    /// Reads the environment's settings and the file that flags or environment name.
    pub(super) fn read(flags: RawConfig, environment: &Environment) -> Result<Self, ConfigError> {
        let environment = RawConfig::from_environment(environment);
        let mut layers = Self { flags, environment, file: None, explained: Vec::new() };
        if let Some(path) = layers.optional::<PathBuf>("config")? {
            let raw = RawConfig::from_file(&path)?;
            layers.file = Some((path, raw));
        }
        Ok(layers)
    }

    /// The record, in the order of asking.
    pub(super) fn into_explained(self) -> Vec<Explained> {
        self.explained
    }

    /// Replaces the value that the record shows: where the true default is computed.
    pub(super) fn resolved(&mut self, name: &str, value: impl fmt::Display) {
        if let Some(explained) = self.explained.iter_mut().find(|explained| explained.name == name) {
            explained.value = value.to_string();
        }
    }

    /// A setting with a default.
    pub(super) fn value<T>(&mut self, name: &'static str) -> Result<T, ConfigError>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let (texts, origin) = self.texts(name);
        let text = texts.first().map_or("", String::as_str);
        parse(name, text, &origin)
    }

    /// A setting that may be absent.
    pub(super) fn optional<T>(&mut self, name: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let (texts, origin) = self.texts(name);
        texts.first().map(|text| parse(name, text, &origin)).transpose()
    }

    /// A repeatable setting.
    pub(super) fn values<T>(&mut self, name: &'static str) -> Result<Vec<T>, ConfigError>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let (texts, origin) = self.texts(name);
        texts.iter().map(|text| parse(name, text, &origin)).collect()
    }

    /// A secret, which the record masks.
    pub(super) fn secret(&mut self, name: &'static str) -> Option<SecretString> {
        let (texts, _) = self.texts(name);
        texts.into_iter().next().map(|text| SecretString::from(text.trim().to_owned()))
    }

    fn texts(&mut self, name: &'static str) -> (Vec<String>, Origin) {
        let setting = find(name).expect("settings are asked for by names of the table");
        let (texts, origin) = self.look_up(name);
        let texts = match texts {
            Some(texts) => texts,
            None if setting.default.is_empty() => Vec::new(),
            None => vec![setting.default.to_owned()],
        };
        let value =
            if setting.secret && !texts.is_empty() { "********".to_owned() } else { texts.join(", ") };
        self.explained.push(Explained { name, value, origin: origin.clone() });
        (texts, origin)
    }

    fn look_up(&self, name: &'static str) -> (Option<Vec<String>>, Origin) {
        if let Some(texts) = self.flags.get(name) {
            return (Some(texts.to_vec()), Origin::Flag(name));
        }
        if let (Some(texts), Some(variable)) = (self.environment.0.get(name), self.environment.1.get(name)) {
            return (Some(texts.to_vec()), Origin::Environment(variable.clone()));
        }
        match &self.file {
            Some((path, raw)) if raw.get(name).is_some() => {
                (raw.get(name).map(<[String]>::to_vec), Origin::File(path.clone()))
            }
            _ => (None, Origin::Default),
        }
    }
}

fn parse<T: FromStr<Err: fmt::Display>>(
    name: &'static str,
    text: &str,
    origin: &Origin,
) -> Result<T, ConfigError> {
    text.trim().parse().map_err(|reason: T::Err| ConfigError::Value {
        name,
        origin: origin.to_string(),
        reason: reason.to_string(),
    })
}
