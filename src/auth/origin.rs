//! Where a request comes from, as far as records and limits need it.

use std::net::IpAddr;

/// Where a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; the unspecified one if nobody knows it.
    pub address: IpAddr,
    /// What is asked for: method and path, with the names of its variable parts.
    pub request: String,
    /// The request's id.
    pub request_id: String,
    /// What the client calls itself.
    pub user_agent: String,
}
