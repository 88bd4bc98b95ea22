//! What can go wrong in an operation. Born here with its facts; its shape towards a client is the server's
//! business.

/// Why an operation refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Tensors, or the lists of a batch, disagree on a size.
    #[error("{operation}: {reason}")]
    Shape {
        /// The operation that refused.
        operation: &'static str,
        /// What disagrees with what.
        reason: String,
    },
    /// A tensor has an element type the operation does not take.
    #[error("{operation}: element type {found} is not supported")]
    ElementType {
        /// The operation that refused.
        operation: &'static str,
        /// The type that was given.
        found: String,
    },
    /// A block table, slot or row id names something that does not exist.
    #[error("{operation}: {what} {index} does not exist, there are {count}")]
    OutOfRange {
        /// The operation that refused.
        operation: &'static str,
        /// What was named.
        what: &'static str,
        /// The index that was named.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The system gives no more memory.
    #[error("the system gives no {bytes} bytes of memory for weights")]
    Memory {
        /// What was asked for.
        bytes: usize,
    },
    /// The tensor library failed (memory, driver).
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A disagreement of sizes.
    pub(crate) fn shape(operation: &'static str, reason: impl Into<String>) -> Self {
        Self::Shape { operation, reason: reason.into() }
    }

    /// An element type that is not taken.
    pub(crate) fn element_type(operation: &'static str, found: impl std::fmt::Debug) -> Self {
        Self::ElementType { operation, found: format!("{found:?}") }
    }
}
