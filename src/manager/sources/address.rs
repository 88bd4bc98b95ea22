//! Which addresses model files may come from: public ones over https, and what the operator named.
//!
//! A name is resolved once, what it resolved to is judged, and that same address is connected to: a name cannot
//! change its meaning in between. Redirects come back here hop by hop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A host the operator vouches for: it may have a private address, and be reached without encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrustedHost {
    host: String,
    port: Option<u16>,
}

impl TrustedHost {
    /// `host`, `host:port` or `[v6]:port`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let url: Url =
            format!("http://{text}").parse().map_err(|error| format!("`{text}` is no host: {error}"))?;
        let host =
            url.host_str().filter(|_| url.path() == "/").ok_or_else(|| format!("`{text}` is no host"))?;
        // `:80` is dropped by the parser as the default of its scheme.
        let port = url.port().or_else(|| text.ends_with(":80").then_some(80));
        Ok(Self { host: host.to_owned(), port })
    }

    /// The host and port of an address.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        Some(Self { host: url.host_str()?.to_owned(), port: url.port_or_known_default() })
    }

    fn is(&self, url: &Url) -> bool {
        url.host_str().is_some_and(|host| host == self.host)
            && self.port.is_none_or(|port| url.port_or_known_default() == Some(port))
    }
}

/// How an address may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Whatever its name resolves to.
    Trusted,
    /// Only if its name resolves to a public address.
    Public,
}

/// Whether an address may be asked, and how it may be connected to.
///
/// # Errors
/// In words.
pub(crate) fn judge(url: &Url, trusted: &[TrustedHost]) -> Result<Passage, String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the address has a user name in it".into());
    }
    let host = url.host_str().ok_or("the address has no host")?;
    if trusted.iter().any(|known| known.is(url)) && matches!(url.scheme(), "http" | "https") {
        return Ok(Passage::Trusted);
    }
    if url.scheme() != "https" {
        return Err(format!(
            "{host} is not asked without encryption (name it with `private-host` if it may be)"
        ));
    }
    // The parser has made plain numbers of every way to write an IPv4 address.
    match host.trim_matches(['[', ']']).parse() {
        Ok(address) if !is_public(address) => Err(private(host)),
        _ => Ok(Passage::Public),
    }
}

/// What is said of a host that may not be asked.
pub(crate) fn private(host: &str) -> String {
    format!("{host} has no public address (name it with `private-host` if it may be asked)")
}

/// Resolves names to their public addresses alone; a proxy's name to all of its.
#[derive(Debug, Clone)]
pub(crate) struct PublicResolver {
    /// Hosts of proxies: connected to on the system's behalf, whatever their address.
    pub proxies: Vec<String>,
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let is_proxy = self.proxies.iter().any(|proxy| proxy == name.as_str());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> =
                found.filter(|found| is_proxy || is_public(found.ip())).collect();
            if addresses.is_empty() {
                return Err(private(name.as_str()).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public internet: not this machine's, not a private network's, not special.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127, _, _) => true,           // this network, private, loopback
        (100, 64..=127, _) => true,             // carrier-grade NAT (RFC 6598)
        (169, 254, _) => true,                  // link-local
        (172, 16..=31, _) => true,              // private
        (192, 168, _) => true,                  // private
        (192, 0, 0 | 2) => true,                // protocol assignments, documentation
        (192, 88, 99) => true,                  // 6to4 relays
        (198, 18 | 19, _) => true,              // benchmarks
        (198, 51, 100) | (203, 0, 113) => true, // documentation
        (224.., _, _) => true,                  // multicast, reserved, broadcast
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Addresses that carry an IPv4 address are judged by it.
    let embedded = match segments {
        [0, 0, 0, 0, 0, 0, _, _] => Some((segments[6], segments[7])), // ::, ::1, compatible
        [0, 0, 0, 0, 0, 0xffff, _, _] => Some((segments[6], segments[7])), // mapped
        [0, 0, 0, 0, 0xffff, 0, _, _] => Some((segments[6], segments[7])), // translated
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some((segments[6], segments[7])), // NAT64
        [0x2002, high, low, ..] => Some((high, low)),                 // 6to4
        _ => None,
    };
    if let Some((high, low)) = embedded {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    match segments[0] {
        0x64 => false,                                          // local NAT64 prefixes
        0x100 => false,                                         // discard
        0x2001 => segments[1] >= 0x200 && segments[1] != 0xdb8, // Teredo, ORCHID, documentation
        0x3fff => false,                                        // documentation
        // Only 2000::/3 is given out; the rest is local, link-local, multicast or unassigned.
        first => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:169.254.169.254",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "3fff::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn addresses_in_disguise_are_seen_through() {
        for text in [
            "https://127.0.0.1/x",
            "https://0.0.0.0/x",
            "https://[::1]/x",
            "https://[::ffff:169.254.169.254]/x",
            "https://2130706433/x",
            "https://0x7f.1/x",
            "https://0177.0.0.1/x",
            "https://10.0.0.1/x",
            "https://user@example.com/x",
            "http://example.com/x",
            "ftp://example.com/x",
            "https://evil@10.0.0.1/x",
            "http://evil\\@allowed/x",
        ] {
            let refused = Url::parse(text).map_or(true, |url| judge(&url, &[]).is_err());
            assert!(refused, "{text}");
        }
        assert_eq!(judge(&Url::parse("https://example.com/x").unwrap(), &[]), Ok(Passage::Public));
        assert_eq!(judge(&Url::parse("https://1.1.1.1/x").unwrap(), &[]), Ok(Passage::Public));
    }

    #[test]
    fn a_trusted_host_is_trusted_on_its_port_alone() {
        let trusted =
            [TrustedHost::parse("127.0.0.1:5000").unwrap(), TrustedHost::parse("mirror.corp").unwrap()];
        let judged = |text: &str| judge(&Url::parse(text).unwrap(), &trusted);
        assert_eq!(judged("http://127.0.0.1:5000/x"), Ok(Passage::Trusted));
        assert!(judged("http://127.0.0.1:5001/x").is_err());
        assert_eq!(judged("http://mirror.corp:8080/x"), Ok(Passage::Trusted));
        assert!(judged("http://u@mirror.corp/x").is_err());
        assert!(judged("file://mirror.corp/x").is_err());
        assert_eq!(TrustedHost::parse("a:80").unwrap(), TrustedHost { host: "a".into(), port: Some(80) });
        for text in ["", "a/b", "a b", "http://a"] {
            assert!(TrustedHost::parse(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_that_means_this_machine_is_not_resolved() {
        let resolver = PublicResolver { proxies: vec!["localhost".into()] };
        assert!(resolver.resolve("localhost".parse().unwrap()).await.is_ok(), "a proxy may be local");
        let resolver = PublicResolver { proxies: Vec::new() };
        for name in ["localhost", "localhost."] {
            assert!(resolver.resolve(name.parse().unwrap()).await.is_err(), "{name}");
        }
    }
}
