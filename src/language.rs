//! The languages that sconce speaks to people. Logs are English.

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// The usual.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// That of a locale such as `zh_CN.UTF-8`.
    pub fn of_locale(locale: &str) -> Self {
        if locale.to_ascii_lowercase().starts_with("zh") { Self::Chinese } else { Self::English }
    }

    /// The best of an `Accept-Language` header (RFC 9110 §12.5.4); English where it names neither.
    pub fn of_accept_language(header: &str) -> Self {
        let mut best = (0.0, Self::English);
        for item in header.split(',').take(32) {
            let mut parts = item.split(';').map(str::trim);
            let language = match parts.next().unwrap_or_default().to_ascii_lowercase() {
                tag if tag == "zh" || tag.starts_with("zh-") => Self::Chinese,
                tag if tag == "en" || tag.starts_with("en-") || tag == "*" => Self::English,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            if quality > best.0 {
                best = (quality, language);
            }
        }
        best.1
    }

    /// As HTML and HTTP name it.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_language_that_is_spoken_is_chosen() {
        for (header, language) in [
            ("", Language::English),
            ("zh", Language::Chinese),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en-US,en;q=0.9,zh;q=0.8", Language::English),
            ("fr, zh-TW;q=0.3, en;q=0.2", Language::Chinese),
            ("fr, de", Language::English),
            ("zh;q=0, en;q=0.1", Language::English),
            ("zh;q=nan", Language::English),
            ("*;q=0.5, zh;q=0.4", Language::English),
        ] {
            assert_eq!(Language::of_accept_language(header), language, "{header}");
        }
    }
}
