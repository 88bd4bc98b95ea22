//! Which sources an administrator may name over the network: hubs and pip as the operator set them up, files below the
//! operator's model roots, and https to public addresses.
//!
//! What the operator's own configuration names is not judged here. A source that is admitted is judged again when it is
//! used: paths by `roots.rs`, addresses by `sources/address.rs` at each connection and redirect.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Url;

use crate::error::{Code, Failure};
use crate::manager::definition::MOST_SOURCES;
use crate::manager::roots::Roots;
use crate::manager::source::Source;
use crate::manager::sources::address::{Passage, TrustedHost, is_public, judge, private};

/// The longest text of a source.
const MOST_BYTES: usize = 4096;
/// A name that is not resolved in this time is judged when it is connected to.
const LOOK_UP: Duration = Duration::from_secs(3);
/// Names that are never those of a public server (RFC 6761, 6762, 8375, and what networks use inside).
const INNER_NAMES: [&str; 5] = ["localhost", "localdomain", "local", "internal", "home.arpa"];

/// Why a source may not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the source is not allowed: {reason}")]
pub struct SourceRefusal {
    /// For the administrator.
    pub reason: String,
}

impl Failure for SourceRefusal {
    fn code(&self) -> Code {
        Code::SourceNotAllowed
    }

    fn param(&self) -> Option<&str> {
        Some("sources")
    }
}

/// The rules for sources that come over the network.
#[derive(Debug, Clone)]
pub struct SourcePolicy {
    roots: Roots,
    trusted: Vec<TrustedHost>,
    /// Whether names may be looked up.
    is_offline: bool,
}

impl SourcePolicy {
    pub(super) fn new(roots: Vec<PathBuf>, trusted: Vec<TrustedHost>, is_offline: bool) -> Self {
        Self { roots: Roots::new(roots), trusted, is_offline }
    }

    /// Reads and judges a source as somebody on the network wrote it. To keep it, keep the text that it displays as.
    ///
    /// # Errors
    /// [`SourceRefusal`].
    pub async fn check(&self, text: &str) -> Result<Source, SourceRefusal> {
        let look_up = |host: String| async move {
            let found = tokio::net::lookup_host((host.as_str(), 443)).await?;
            Ok(found.map(|address| address.ip()).collect())
        };
        self.check_with(text, look_up).await.map_err(|reason| SourceRefusal { reason })
    }

    /// The same for all sources of a model, all at once. More than a model may have are not looked at.
    ///
    /// # Errors
    /// [`SourceRefusal`] of the first that is refused.
    pub async fn check_all(&self, texts: &[String]) -> Result<Vec<Source>, SourceRefusal> {
        let checks = texts.iter().take(MOST_SOURCES).map(|text| self.check(text));
        join_all(checks).await.into_iter().collect()
    }

    async fn check_with<F>(&self, text: &str, look_up: impl Fn(String) -> F) -> Result<Source, String>
    where
        F: Future<Output = io::Result<Vec<IpAddr>>>,
    {
        if text.len() > MOST_BYTES || text.chars().any(|c| c.is_control()) || text.trim() != text {
            return Err(format!(
                "its text is longer than {MOST_BYTES} bytes, or has control characters or spaces around it"
            ));
        }
        if !Source::has_prefix(text) {
            return self.path(text).map(Source::Local);
        }
        let source: Source = text.parse()?;
        if let Source::Https { url, .. } = &source {
            // Where parsers of addresses disagree about a text, there is no telling who will be asked.
            if !text.is_ascii() || text.contains(['\\', ' ', '"', '<', '>', '`', '{', '}', '|', '^']) {
                return Err("its address holds characters that must be written with %".into());
            }
            self.address(url, look_up).await?;
        }
        Ok(source)
    }

    fn path(&self, text: &str) -> Result<PathBuf, String> {
        let path = Path::new(text);
        let is_plain = text.split(['/', '\\']).all(|part| part != "." && part != "..");
        if !path.is_absolute() || !is_plain {
            return Err(
                "write it as hf:…, modelscope:…, pip:…, https://…, or as the whole path of a file or \
                        folder on the server"
                    .into(),
            );
        }
        self.roots.admit(path)?;
        Ok(path.to_owned())
    }

    async fn address<F>(&self, url: &Url, look_up: impl Fn(String) -> F) -> Result<(), String>
    where
        F: Future<Output = io::Result<Vec<IpAddr>>>,
    {
        if judge(url, &self.trusted)? == Passage::Trusted {
            return Ok(());
        }
        let host = url.host_str().unwrap_or_default();
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        let name = host.trim_end_matches('.');
        let is_inner = INNER_NAMES.iter().any(|inner| {
            name.strip_suffix(inner).is_some_and(|front| front.is_empty() || front.ends_with('.'))
        });
        if is_inner || !name.contains('.') {
            return Err(private(host));
        }
        if self.is_offline {
            return Ok(());
        }
        match tokio::time::timeout(LOOK_UP, look_up(host.to_owned())).await {
            Ok(Ok(found)) if found.iter().any(|address| !is_public(*address)) => Err(private(host)),
            // Whether and where there is such a host is found out when it is connected to, and judged again.
            _ => Ok(()),
        }
    }

    /// The path to read instead of a local one that came over the network: without links, and below the roots.
    ///
    /// # Errors
    /// In words.
    pub(super) fn admit(&self, path: &Path) -> Result<PathBuf, String> {
        self.roots.admit(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn judged(text: &str, resolved: &[&str]) -> Result<Source, String> {
        let trusted = vec![TrustedHost::parse("mirror.corp").unwrap()];
        let policy = SourcePolicy::new(Vec::new(), trusted, false);
        let addresses: Vec<IpAddr> = resolved.iter().map(|address| address.parse().unwrap()).collect();
        let look_up = |_| {
            let addresses = addresses.clone();
            async move { if addresses.is_empty() { Err(io::Error::other("no such name")) } else { Ok(addresses) } }
        };
        policy.check_with(text, look_up).await
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let url = "https://models.example.com/a.gguf";
        assert!(judged(url, &["93.184.216.34"]).await.is_ok());
        assert!(judged(url, &[]).await.is_ok(), "behind a proxy only the proxy may know the name");
        for private in [["10.0.0.1"], ["127.0.0.1"], ["169.254.169.254"], ["fd00::1"], ["::ffff:10.0.0.1"]] {
            assert!(judged(url, &private).await.is_err(), "{private:?}");
        }
        assert!(judged(url, &["93.184.216.34", "10.0.0.1"]).await.is_err(), "one is enough");
        assert!(
            judged("http://mirror.corp/a.gguf", &["10.0.0.1"]).await.is_ok(),
            "the operator vouches for it"
        );
        for inner in ["localhost", "a.localhost.", "metadata.google.internal", "printer.local", "intranet"] {
            let reason = judged(&format!("https://{inner}/a.gguf"), &["93.184.216.34"]).await.unwrap_err();
            assert!(reason.contains("no public address"), "{inner}: {reason}");
        }
        assert!(judged("https://notlocalhost.com/a.gguf", &["93.184.216.34"]).await.is_ok());
    }

    #[tokio::test]
    async fn what_the_operators_endpoints_serve_may_be_named() {
        for text in ["hf:owner/name", "modelscope:owner/name@v1/x.gguf", "pip:package==1.0!x/model.gguf"] {
            assert_eq!(judged(text, &[]).await.unwrap(), text.parse().unwrap());
        }
        for text in
            ["", "model", "./model.gguf", "hf:owner/../x", "pip:-r==1!x", "ftp://example.com/x", "HTTPS://x"]
        {
            assert!(judged(text, &[]).await.is_err(), "{text}");
        }
    }
}
