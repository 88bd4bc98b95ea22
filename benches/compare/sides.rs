//! The servers that are compared: one that runs already, or one of ours that is started here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::Target;
use crate::client::own_server::{self, Launch, OwnServer};

/// What was said of a side.
#[derive(Debug, Clone)]
pub struct SideArguments {
    pub name: &'static str,
    /// Of a server that runs already; none for one to be started.
    pub url: Option<String>,
    pub key: Option<String>,
    pub model: Option<String>,
    pub process: Option<u32>,
    pub program: Option<PathBuf>,
    pub arguments: Option<String>,
    pub file: PathBuf,
}

/// A server under comparison.
pub struct Side {
    pub name: &'static str,
    /// Where it is, and what it is.
    pub description: String,
    pub target: Target,
    /// Its process on this machine, if known.
    pub process: Option<u32>,
    /// From the start of the process until it was ready, if it was started here.
    pub start: Option<Duration>,
    _server: Option<OwnServer>,
}

impl Side {
    pub async fn open(said: SideArguments, results: &Path) -> Result<Self, String> {
        let name = said.name;
        if let Some(url) = said.url {
            let target = Target::new(&url, said.key.filter(|key| !key.is_empty()), said.model).await;
            let target = target.map_err(|error| format!("{name}: {error}"))?;
            let description = format!("{} ({})", target.url, target.model);
            return Ok(Self { name, description, target, process: said.process, start: None, _server: None });
        }
        let launch = Launch {
            program: said.program.unwrap_or_else(own_server::program),
            model: said.file,
            arguments: said.arguments.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            log: results.join(format!("{name}.log")),
        };
        let server = OwnServer::start(&launch).await.map_err(|error| format!("{name}: {error}"))?;
        let target = Target::new(&server.url, None, Some(own_server::MODEL.to_owned())).await?;
        let file = launch.model.file_name().unwrap_or_default().to_string_lossy();
        let description = format!("sconce {} ({file})", launch.arguments.join(" "));
        Ok(Self {
            name,
            description,
            target,
            process: Some(server.process),
            start: Some(server.start),
            _server: Some(server),
        })
    }
}
