//! The element types a GGUF tensor can have, as a table: number in the file, name, block, and what we compute with.
//!
//! Not the arithmetic of the blocks: that is `sconce-kernels`. A type without a [`GgmlDType`] is refused by its name.

use candle_core::quantized::GgmlDType;

/// One element type of the GGUF format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TensorType {
    /// Its number in the file.
    pub(crate) number: u32,
    /// Its name as people write it.
    pub(crate) name: &'static str,
    /// Elements per block.
    pub(crate) block: u64,
    /// Bytes per block.
    pub(crate) bytes: u64,
    /// The tensor library's name for it.
    pub(crate) ggml: GgmlDType,
}

const fn supported(number: u32, name: &'static str, block: u64, bytes: u64, ggml: GgmlDType) -> TensorType {
    TensorType { number, name, block, bytes, ggml }
}

/// Types that can be loaded.
const SUPPORTED: [TensorType; 13] = [
    supported(0, "F32", 1, 4, GgmlDType::F32),
    supported(1, "F16", 1, 2, GgmlDType::F16),
    supported(30, "BF16", 1, 2, GgmlDType::BF16),
    supported(2, "Q4_0", 32, 18, GgmlDType::Q4_0),
    supported(3, "Q4_1", 32, 20, GgmlDType::Q4_1),
    supported(6, "Q5_0", 32, 22, GgmlDType::Q5_0),
    supported(7, "Q5_1", 32, 24, GgmlDType::Q5_1),
    supported(8, "Q8_0", 32, 34, GgmlDType::Q8_0),
    supported(10, "Q2_K", 256, 84, GgmlDType::Q2K),
    supported(11, "Q3_K", 256, 110, GgmlDType::Q3K),
    supported(12, "Q4_K", 256, 144, GgmlDType::Q4K),
    supported(13, "Q5_K", 256, 176, GgmlDType::Q5K),
    supported(14, "Q6_K", 256, 210, GgmlDType::Q6K),
];

/// Types that the format knows and we do not: named, so that the refusal says what the file holds.
const UNSUPPORTED: [(u32, &str); 23] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

impl TensorType {
    /// The type of this number, or the name of one that cannot be loaded.
    pub(crate) fn from_number(number: u32) -> Result<Self, String> {
        if let Some(found) = SUPPORTED.iter().find(|candidate| candidate.number == number) {
            return Ok(*found);
        }
        match UNSUPPORTED.iter().find(|(candidate, _)| *candidate == number) {
            Some((_, name)) => Err((*name).to_owned()),
            None => Err(format!("number {number}")),
        }
    }

    /// Whether the elements are plain floating-point numbers.
    pub(crate) fn is_dense(self) -> bool {
        self.block == 1
    }
}

#[cfg(test)]
mod tests {
    use super::{SUPPORTED, TensorType};

    #[test]
    fn sizes_agree_with_the_tensor_library() {
        for entry in SUPPORTED {
            assert_eq!(entry.block, entry.ggml.block_size() as u64, "{}", entry.name);
            assert_eq!(entry.bytes, entry.ggml.type_size() as u64, "{}", entry.name);
        }
    }

    #[test]
    fn a_type_that_cannot_be_loaded_is_named() {
        assert_eq!(TensorType::from_number(23), Err("IQ4_XS".to_owned()));
        assert_eq!(TensorType::from_number(77), Err("number 77".to_owned()));
    }
}
