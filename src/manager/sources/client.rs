//! The HTTP client of all sources: judges every address it is sent to, follows redirects itself, keeps secrets at home.
//!
//! Proxies and certificate authorities are the system's, as reqwest finds them. Through a proxy it is the proxy that
//! resolves names; addresses written as numbers are judged here all the same.

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, Url, redirect};
use secrecy::{ExposeSecret, SecretString};

use crate::config::FetchConfig;
use crate::manager::sources::SourceError;
use crate::manager::sources::address::{Passage, PublicResolver, TrustedHost, judge};

/// A server that is not connected to in this time, or does not begin to answer, is unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const REDIRECTS: usize = 3;

/// Asks servers for files.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    trusted: Client,
    public: Client,
}

/// Whom one source trusts, and what it tells its own server alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relation {
    /// May have private addresses.
    pub trusted: Vec<TrustedHost>,
    /// Sent to the origin of the first address, and to no other.
    pub token: Option<SecretString>,
}

/// An answer, and the headers of the first one where there were redirects.
pub(crate) struct Answer {
    /// The last answer.
    pub response: Response,
    /// Headers of the first.
    pub first: HeaderMap,
}

impl HttpClient {
    /// Builds the clients.
    ///
    /// # Errors
    /// In words, if the system's certificates cannot be read.
    pub(crate) fn new(config: &FetchConfig) -> Result<Self, String> {
        let builder = || {
            Client::builder()
                .user_agent(concat!("sconce/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(config.stall_timeout)
        };
        let failed = |error: reqwest::Error| format!("no HTTP client can be made: {error}");
        let proxies = config.proxies.iter().filter_map(|proxy| proxy_host(proxy)).collect();
        let resolver = std::sync::Arc::new(PublicResolver { proxies });
        Ok(Self {
            trusted: builder().build().map_err(failed)?,
            public: builder().dns_resolver(resolver).build().map_err(failed)?,
        })
    }

    /// Asks for an address and follows redirects.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`] if there is no answer, [`SourceError::NotAllowed`] if an address is not one that
    /// may be asked, [`SourceError::Refused`] if the answer is an error.
    pub(crate) async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
        relation: &Relation,
    ) -> Result<Answer, SourceError> {
        let mut here = url.clone();
        let mut first = None;
        for _ in 0..=REDIRECTS {
            let response = self.ask(&here, headers, relation, here.origin() == url.origin()).await?;
            let first = first.get_or_insert_with(|| response.headers().clone());
            if !response.status().is_redirection() || response.status().as_u16() == 304 {
                let first = std::mem::take(first);
                return check_status(response).map(|response| Answer { response, first });
            }
            let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let target = target.ok_or_else(|| SourceError::Refused("a redirect to nowhere".into()))?;
            here = here.join(target).map_err(|_| SourceError::Refused("a redirect to no address".into()))?;
        }
        Err(SourceError::Refused(format!("more than {REDIRECTS} redirects")))
    }

    async fn ask(
        &self,
        url: &Url,
        headers: &HeaderMap,
        relation: &Relation,
        is_home: bool,
    ) -> Result<Response, SourceError> {
        let passage = judge(url, &relation.trusted).map_err(SourceError::NotAllowed)?;
        let client = match passage {
            Passage::Trusted => &self.trusted,
            Passage::Public => &self.public,
        };
        let mut request =
            client.get(url.clone()).headers(headers.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(token) = relation.token.as_ref().filter(|_| is_home) {
            request = request.header(AUTHORIZATION, bearer(token)?);
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(SourceError::Unreachable(cause(&error))),
            Err(_) => {
                Err(SourceError::Unreachable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))
            }
        }
    }
}

fn bearer(token: &SecretString) -> Result<HeaderValue, SourceError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
        .map_err(|_| SourceError::Refused("the token cannot be sent".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn check_status(response: Response) -> Result<Response, SourceError> {
    let status = response.status();
    if status.is_success() || status.as_u16() == 416 {
        return Ok(response);
    }
    let hint = match status.as_u16() {
        401 | 403 => " (is a token needed, or a licence to be accepted?)",
        404 => " (is there such a repository, revision and file?)",
        _ => "",
    };
    let answered = format!("answered {status}{hint}");
    Err(if status.is_server_error() {
        SourceError::Unreachable(answered)
    } else {
        SourceError::Refused(answered)
    })
}

/// The innermost reason of a failed request; the outer ones repeat the address, which may hold a signature.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(inner) = reason.source() {
        reason = inner;
    }
    if error.is_timeout() { "timed out".into() } else { reason.to_string() }
}

/// The host of a proxy as the environment writes it, with or without a scheme.
fn proxy_host(text: &str) -> Option<String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    Url::parse(&with_scheme).ok()?.host_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_written_in_two_ways() {
        assert_eq!(proxy_host("http://user:pass@proxy.corp:3128"), Some("proxy.corp".into()));
        assert_eq!(proxy_host("proxy.corp:3128"), Some("proxy.corp".into()));
        assert_eq!(proxy_host(""), None);
    }
}
