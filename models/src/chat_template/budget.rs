//! What a rendering may still do: an account of bytes and values, and how values are measured.
//!
//! Values share their parts, so a small one can be enormous written out; it is measured as if it shared nothing, and
//! measuring itself stops at the limits.

use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Most bytes of a rendered prompt.
pub(super) const MAX_OUTPUT_BYTES: usize = 8 << 20;
/// Most bytes written out, into variables and macros too.
const MAX_EMITTED_BYTES: u64 = 32 << 20;
/// Most bytes of one text within a rendering.
pub(super) const MAX_TEXT_BYTES: u64 = 8 << 20;
/// Most elements of a list, counting those within elements.
const MAX_NODES: u64 = 1 << 20;
/// Most levels of lists within lists. Messages come from JSON, which has at most 128.
const MAX_DEPTH: usize = 200;
/// Bytes worked through in one rendering, an element counting as [`NODE_BYTES`].
const MAX_WORK_BYTES: u64 = 256 << 20;
/// What an element of a list costs beside its text.
const NODE_BYTES: u64 = 32;

/// The account of one rendering.
#[derive(Debug, Default)]
pub(super) struct Budget {
    worked: AtomicU64,
    emitted: AtomicU64,
}

/// Size of a value written out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes of text.
    pub(super) bytes: u64,
    /// Values.
    pub(super) nodes: u64,
}

/// The error for going over a limit.
pub(super) fn over(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

fn too_long() -> Error {
    over(format!("a text would be longer than {MAX_TEXT_BYTES} bytes"))
}

fn too_many() -> Error {
    over(format!("a value has more than {MAX_NODES} elements"))
}

impl Budget {
    /// Enters work in the account.
    pub(super) fn charge(&self, bytes: u64) -> Result<(), Error> {
        let before = self.worked.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_WORK_BYTES {
            return Err(over("the template takes too much work"));
        }
        Ok(())
    }

    /// Enters a text that is about to be made; it must not be too long.
    pub(super) fn charge_text(&self, bytes: u64) -> Result<(), Error> {
        if bytes > MAX_TEXT_BYTES {
            return Err(too_long());
        }
        self.charge(bytes)
    }

    /// Enters a value that is about to be copied, compared or written out.
    pub(super) fn charge_value(&self, value: &Value) -> Result<Size, Error> {
        let size = measure(value)?;
        self.charge(size.bytes.saturating_add(size.nodes.saturating_mul(NODE_BYTES)))?;
        Ok(size)
    }

    /// Enters a value that is about to be joined to another: both together must not be too long.
    pub(super) fn charge_operand(&self, value: &Value) -> Result<(), Error> {
        if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
            let length = value
                .len()
                .map_or_else(|| measure(value).map(|size| size.nodes), |length| Ok(length as u64))?;
            return if length > MAX_NODES / 2 { Err(too_many()) } else { self.charge(length * 8) };
        }
        let size = self.charge_value(value)?;
        if size.bytes > MAX_TEXT_BYTES / 2 { Err(too_long()) } else { Ok(()) }
    }

    /// Enters a value that is about to be written out.
    pub(super) fn charge_emitted(&self, value: &Value) -> Result<(), Error> {
        let size = self.charge_value(value)?;
        let before = self.emitted.fetch_add(size.bytes, Ordering::Relaxed);
        if before.saturating_add(size.bytes) > MAX_EMITTED_BYTES {
            return Err(over("the template writes too much"));
        }
        Ok(())
    }

    /// Enters a container in which something is looked for: a map by its key, a list by all that it holds.
    pub(super) fn charge_container(&self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::Map => self.charge(NODE_BYTES),
            _ => self.charge_value(value).map(drop),
        }
    }

    /// Enters a value whose method is called: a text is copied, of a container the outermost elements are.
    pub(super) fn charge_method(&self, value: &Value) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.charge(text.len() as u64),
            None => self.charge_elements(value),
        }
    }

    /// Enters a value of which only the outermost elements are looked at.
    pub(super) fn charge_elements(&self, value: &Value) -> Result<(), Error> {
        let length = match value.kind() {
            ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => value.len().unwrap_or(0) as u64,
            _ => 0,
        };
        if length > MAX_NODES {
            return Err(too_many());
        }
        self.charge(length * 8)
    }

    /// Enters a value that is about to be stored: it must not nest too deep or be too large, its texts are not copied.
    pub(super) fn charge_stored(&self, value: &Value) -> Result<(), Error> {
        let size = measure(value)?;
        self.charge(size.nodes * 8)
    }
}

/// Measures a value within the limits.
pub(super) fn measure(value: &Value) -> Result<Size, Error> {
    let mut size = Size::default();
    add_size(value, 0, &mut size)?;
    Ok(size)
}

fn add_size(value: &Value, depth: usize, size: &mut Size) -> Result<(), Error> {
    size.nodes += 1;
    if depth > MAX_DEPTH {
        return Err(over("a value nests too deep"));
    }
    if size.nodes > MAX_NODES {
        return Err(too_many());
    }
    match value.kind() {
        ValueKind::String => size.bytes += value.as_str().map_or(0, str::len) as u64,
        ValueKind::Bytes => size.bytes += value.as_bytes().map_or(0, <[u8]>::len) as u64,
        ValueKind::Number => size.bytes += 24,
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()?.checked() {
                add_size(&item?, depth + 1, size)?;
            }
        }
        ValueKind::Map => {
            for key in value.try_iter()?.checked() {
                let key = key?;
                add_size(&key, depth + 1, size)?;
                add_size(&value.get_item(&key).unwrap_or_default(), depth + 1, size)?;
            }
        }
        _ => size.bytes += 8,
    }
    Ok(())
}
