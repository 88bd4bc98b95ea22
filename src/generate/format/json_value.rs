//! Where a JSON value ends, found out while it comes. Not whether it is right: the model's word is passed on.

/// Follows one value from its first byte.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ValueScan {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    has_begun: bool,
    is_scalar: bool,
}

impl ValueScan {
    /// How many bytes of `text` belong to the value, and whether it ends there. Space before it is part of it.
    pub(super) fn take(&mut self, text: &str) -> (usize, bool) {
        for (at, byte) in text.bytes().enumerate() {
            if self.is_scalar && matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') {
                return (at, true);
            }
            if self.byte(byte) {
                return (at + 1, true);
            }
        }
        (text.len(), false)
    }

    /// Takes a byte; whether it was the last.
    fn byte(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => {
                    self.in_string = false;
                    return self.depth == 0;
                }
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.has_begun = true;
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.has_begun = true;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            byte if byte.is_ascii_whitespace() => {}
            _ if !self.has_begun => {
                self.has_begun = true;
                self.is_scalar = true;
            }
            _ => {}
        }
        false
    }
}

/// The text of a JSON string that `text` begins with, and how many bytes it takes; none if it is not whole, or no string.
pub(super) fn string(text: &str) -> Option<(String, usize)> {
    let mut scan = ValueScan::default();
    let (length, is_whole) = scan.take(text);
    if !is_whole {
        return None;
    }
    let literal = &text[..length];
    let decoded = serde_json::from_str(literal).unwrap_or_else(|_| literal.trim_matches('"').to_owned());
    Some((decoded, length))
}
