//! Where a request comes from, as far as records and limits need it.

use std::net::IpAddr;

/// Where a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub address: IpAddr,
    /// The request's id.
    pub request_id: String,
    /// What the client calls itself.
    pub user_agent: String,
}
