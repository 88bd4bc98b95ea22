//! What was typed: the settings of one layer (flags, environment or file), unchecked and all optional.
//!
//! It derives nothing from clap: flags come from the table in `setting.rs`, so that a setting is written once.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::ConfigError;
use crate::config::environment::Environment;
use crate::config::setting::{SETTINGS, Setting, find};

/// The settings of one layer by name. `#[command(flatten)]` puts the flags into a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawConfig {
    values: BTreeMap<&'static str, Vec<String>>,
}

impl RawConfig {
    /// Adds a value, as the flag `--name value` would.
    ///
    /// # Panics
    /// If there is no such setting: names are written in code, not typed.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        let setting = find(name).expect("names of settings are written in code");
        self.push(setting, value.into());
        self
    }

    /// The values of a setting in this layer.
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.values.get(name).map(Vec::as_slice)
    }

    /// What the environment says, with the variable that said it.
    pub(super) fn from_environment(environment: &Environment) -> (Self, BTreeMap<&'static str, String>) {
        let mut raw = Self::default();
        let mut variables = BTreeMap::new();
        for setting in SETTINGS {
            let own = setting.variable();
            let names = std::iter::once(own.as_str()).chain(setting.also.iter().copied());
            let Some((name, text)) = names.filter_map(|name| Some((name, environment.get(name)?))).next()
            else {
                continue;
            };
            variables.insert(setting.name, name.to_owned());
            for value in split(setting, text) {
                raw.push(setting, value);
            }
        }
        (raw, variables)
    }

    /// Variables that look like settings of ours and are none, as after a slip of the pen.
    pub(super) fn unknown_variables(environment: &Environment) -> Vec<String> {
        let known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
        environment
            .names_beginning("SCONCE_")
            // Those that Kubernetes sets for a service called `sconce`, and those of our own tests.
            .filter(|name| {
                !["SCONCE_SERVICE_", "SCONCE_PORT", "SCONCE_TEST_"]
                    .iter()
                    .any(|other| name.starts_with(other))
            })
            .filter(|name| !known.iter().any(|known| known == name))
            .map(str::to_owned)
            .collect()
    }

    /// Reads a settings file.
    ///
    /// # Errors
    /// [`ConfigError::File`] if it cannot be read, is no TOML, or holds a key that is no setting.
    pub(super) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let refused = |reason: String| ConfigError::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| refused(error.to_string()))?;
        let mut raw = Self::default();
        for (key, value) in table {
            let name = key.replace('_', "-");
            let setting = find(&name).filter(|setting| setting.name != "config");
            let setting = setting.ok_or_else(|| refused(format!("`{key}` is not a setting")))?;
            for text in texts(setting, value).map_err(refused)? {
                raw.push(setting, text);
            }
        }
        Ok(raw)
    }

    fn push(&mut self, setting: &'static Setting, value: String) {
        let values = self.values.entry(setting.name).or_default();
        if !setting.many {
            values.clear();
        }
        values.push(value);
    }
}

/// Values of a variable: those of a repeatable setting are separated by commas or line breaks.
fn split(setting: &Setting, text: &str) -> Vec<String> {
    if !setting.many {
        return vec![text.to_owned()];
    }
    text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A TOML value as the text that a flag would have.
fn texts(setting: &Setting, value: toml::Value) -> Result<Vec<String>, String> {
    match value {
        toml::Value::String(text) => Ok(vec![text]),
        toml::Value::Integer(number) => Ok(vec![number.to_string()]),
        toml::Value::Boolean(truth) => Ok(vec![truth.to_string()]),
        toml::Value::Array(items) if setting.many => items
            .into_iter()
            .map(|item| texts(setting, item))
            .collect::<Result<Vec<_>, _>>()
            .map(|all| all.concat()),
        other => Err(format!("`{}` cannot be a {}", setting.name, other.type_str())),
    }
}

impl Args for RawConfig {
    fn augment_args(mut command: Command) -> Command {
        for setting in SETTINGS.iter().filter(|setting| !setting.secret) {
            let mut help = format!("{} [env: {}]", setting.help, setting.variable());
            if !setting.default.is_empty() {
                help.push_str(&format!(" [default: {}]", setting.default));
            }
            let action = if setting.many { ArgAction::Append } else { ArgAction::Set };
            command = command.arg(
                Arg::new(setting.name)
                    .long(setting.name)
                    .value_name(setting.value)
                    .help(help)
                    .action(action)
                    .help_heading("Settings"),
            );
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RawConfig {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut raw = Self::default();
        raw.update_from_arg_matches(matches)?;
        Ok(raw)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS.iter().filter(|setting| !setting.secret) {
            for value in matches.try_get_many::<String>(setting.name).ok().flatten().into_iter().flatten() {
                self.push(setting, value.clone());
            }
        }
        Ok(())
    }
}
