//! Quantities as people write them: `8GiB`, `80%`, `30s`, `off`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// A number of bytes: `512`, `32MiB`, `8GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a size; write 512, 32MiB or 8GB");
        let (number, unit) = number_and_unit(text).ok_or_else(refused)?;
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            _ => return Err(refused()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(refused)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nearest = |shift: u32| self.0.saturating_add(1 << (shift - 1)) >> shift;
        match self.0 {
            bytes if bytes >= 10 << 30 => write!(f, "{} GiB", nearest(30)),
            bytes if bytes >= 10 << 20 => write!(f, "{} MiB", nearest(20)),
            bytes if bytes >= 10 << 10 => write!(f, "{} KiB", nearest(10)),
            bytes => write!(f, "{bytes} B"),
        }
    }
}

/// A time: `250ms`, `30s`, `10m`, `2h`; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a time; write 250ms, 30s, 10m or 2h");
        let (number, unit) = number_and_unit(text).ok_or_else(refused)?;
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(refused()),
        };
        // A century is as good as for ever, and far from overflowing any clock.
        const LONGEST_MS: u64 = 100 * 366 * 86_400_000;
        let total =
            number.checked_mul(milliseconds).filter(|total| *total <= LONGEST_MS).ok_or_else(refused)?;
        Ok(Self(Duration::from_millis(total)))
    }
}

/// A value that may be switched off: `off` or a `T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrOff<T>(pub Option<T>);

impl<T: FromStr<Err = String>> FromStr for OrOff<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}

/// A value that may be left to the program: `auto` or a `T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrAuto<T>(pub Option<T>);

impl<T: FromStr<Err = String>> FromStr for OrAuto<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}

/// How much memory models may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryBudget {
    /// Of the memory that is free when the server starts, container limits considered.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

impl FromStr for MemoryBudget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else {
            return Size::from_str(text).map(|size| Self::Bytes(size.0));
        };
        match percent.trim().parse() {
            Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
            _ => Err(format!("`{text}` is not a percentage from 1% to 100%")),
        }
    }
}

/// `true`, `false`, and what other programs' variables say for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth(pub bool);

impl FromStr for Truth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(Self(true)),
            "0" | "false" | "no" | "off" => Ok(Self(false)),
            _ => Err(format!("`{text}` is neither true nor false")),
        }
    }
}

/// A network as `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        network.map(Self).ok_or_else(|| format!("`{text}` is not a network; write 10.0.0.0/8, or an address"))
    }
}

/// A web origin as browsers send it: `https://console.example`, `http://localhost:5173`. Kept as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(pub String);

impl FromStr for WebOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |part: &str, also: &str| {
            let right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c);
            !part.is_empty() && part.chars().all(right)
        };
        let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
            plain(scheme, "+-.") && plain(host, ".-_:[]") && !host.ends_with(':')
        });
        match is_origin {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "`{text}` is not a web origin as browsers send it; write https://console.example, in lower case, \
                 without a path"
            )),
        }
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_systems_of_units() {
        for (text, bytes) in
            [("512", 512), ("1KB", 1_000), ("1 KiB", 1_024), ("8GiB", 8 << 30), ("2g", 2 << 30)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "1.5GiB", "8 bananas", "99999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_as_the_nearest_whole_number() {
        for (bytes, text) in [
            (10_239, "10239 B"),
            (98_362_432, "94 MiB"),
            ((10 << 20) + (1 << 19) - 1, "10 MiB"),
            ((10 << 30) + (1 << 29), "11 GiB"),
            (u64::MAX, "17179869183 GiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn times_are_read_and_bounded() {
        assert_eq!("250ms".parse(), Ok(Time(Duration::from_millis(250))));
        assert_eq!("30".parse(), Ok(Time(Duration::from_secs(30))));
        assert_eq!("2h".parse(), Ok(Time(Duration::from_secs(7_200))));
        assert_eq!("off".parse(), Ok(OrOff::<Time>(None)));
        assert!("18446744073709551615h".parse::<Time>().is_err());
        assert!("9999999d".parse::<Time>().is_err());
    }

    #[test]
    fn a_memory_budget_is_a_size_or_a_percentage() {
        assert_eq!("80%".parse(), Ok(MemoryBudget::Percent(80)));
        assert_eq!("1GiB".parse(), Ok(MemoryBudget::Bytes(1 << 30)));
        for text in ["0%", "101%", "%", "much"] {
            assert!(text.parse::<MemoryBudget>().is_err(), "{text}");
        }
    }

    #[test]
    fn c1_an_origin_is_exact_and_never_a_pattern() {
        for text in
            ["https://console.example", "http://localhost:5173", "http://[::1]:80", "app://obsidian.md"]
        {
            assert_eq!(text.parse(), Ok(WebOrigin(text.to_owned())), "{text}");
        }
        for text in [
            "*",
            "null",
            "https://*.example",
            "https://a.example/",
            "https://A.example",
            "a.example",
            "https://",
            "https://u@a.example",
            "https://a.example, https://b.example",
        ] {
            assert!(text.parse::<WebOrigin>().is_err(), "{text}");
        }
    }
}
