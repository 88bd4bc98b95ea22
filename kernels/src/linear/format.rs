//! How each GGUF type is held here: its code width, offset and scales, and how its blocks are read. No
//! arithmetic on activations.
//!
//! Every type is brought to one form: a weight is `d · (code - offset) + m` with an unsigned code, where `d`
//! and `m` hold for 32 weights, or for each half of 32. Layouts are those of the GGUF format (ggml's block
//! structs).

use candle_core::quantized::GgmlDType;

/// Weights that share one activation scale.
pub(crate) const BLOCK: usize = 32;

/// Where a weight's `d` and `m` come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scales {
    /// `d` f16.
    Half,
    /// `d` and `m` f16.
    HalfMinimum,
    /// `d` f32.
    Single,
    /// `d` f16 times a signed byte per half block.
    Sub,
    /// `d` f16 times a byte, `m` is minus an f16 times a byte, per block or half block.
    SubMinimum,
}

/// What a packed type looks like; constants, so that each kernel is compiled for its type.
pub(super) trait Kind {
    /// Bits of a code.
    const BITS: usize;
    /// What to take from a code, as a power of two; 0 for nothing.
    const OFFSET_SHIFT: u32 = 0;
    /// Scales per block of 32: one, or one per half.
    const HALVES: usize = 1;
    const SCALES: Scales;
    /// Blocks of 32 that share a header.
    const BLOCKS: usize = 1;

    const OFFSET: i32 = if Self::OFFSET_SHIFT == 0 { 0 } else { 1 << Self::OFFSET_SHIFT };
    const HAS_MINIMUM: bool = matches!(Self::SCALES, Scales::HalfMinimum | Scales::SubMinimum);
    /// Whether a table of bf16 weights is faster than working each out: one scale a block, and few codes.
    const HAS_TABLE: bool = Self::HALVES == 1 && (Self::BITS == 4 || Self::BITS == 5);
    /// Bytes of a panel's header: one `d` (and `m`) for each of its sixteen rows.
    const HEADER_BYTES: usize = match Self::SCALES {
        Scales::Half | Scales::Sub => 32,
        Scales::HalfMinimum | Scales::Single | Scales::SubMinimum => 64,
    };
    /// Bytes of the scales in each block of a panel.
    const SCALE_BYTES: usize = match Self::SCALES {
        Scales::Sub => 16 * Self::HALVES,
        Scales::SubMinimum => 32 * Self::HALVES,
        _ => 0,
    };
    /// Bytes of a block in a panel: scales, then codes.
    const BLOCK_BYTES: usize = Self::SCALE_BYTES + 64 * Self::BITS;
    /// Bytes of a header and its blocks.
    const GROUP_BYTES: usize = Self::HEADER_BYTES + Self::BLOCKS * Self::BLOCK_BYTES;
}

macro_rules! kinds {
    ($( $name:ident: $( $constant:ident = $value:expr ),*; )*) => {
        $( pub(super) struct $name; impl Kind for $name { $( kinds!(@ $constant $value); )* } )*
    };
    (@ BITS $value:expr) => { const BITS: usize = $value; };
    (@ OFFSET_SHIFT $value:expr) => { const OFFSET_SHIFT: u32 = $value; };
    (@ HALVES $value:expr) => { const HALVES: usize = $value; };
    (@ SCALES $value:expr) => { const SCALES: Scales = $value; };
    (@ BLOCKS $value:expr) => { const BLOCKS: usize = $value; };
}

kinds! {
    Q4Zero: BITS = 4, OFFSET_SHIFT = 3, SCALES = Scales::Half;
    Q4One: BITS = 4, SCALES = Scales::HalfMinimum;
    Q5Zero: BITS = 5, OFFSET_SHIFT = 4, SCALES = Scales::Half;
    Q5One: BITS = 5, SCALES = Scales::HalfMinimum;
    Q8Zero: BITS = 8, OFFSET_SHIFT = 7, SCALES = Scales::Half;
    Q2K: BITS = 2, HALVES = 2, SCALES = Scales::SubMinimum, BLOCKS = 8;
    Q3K: BITS = 3, OFFSET_SHIFT = 2, HALVES = 2, SCALES = Scales::Sub, BLOCKS = 8;
    Q4K: BITS = 4, SCALES = Scales::SubMinimum, BLOCKS = 8;
    Q5K: BITS = 5, SCALES = Scales::SubMinimum, BLOCKS = 8;
    Q6K: BITS = 6, OFFSET_SHIFT = 5, HALVES = 2, SCALES = Scales::Sub, BLOCKS = 8;
    Q8K: BITS = 8, OFFSET_SHIFT = 7, SCALES = Scales::Single, BLOCKS = 8;
}

/// Runs `$body` with `$kind` naming the packed form of a GGUF type; `$otherwise` for types that are not
/// quantised.
macro_rules! with_kind {
    ($dtype:expr, $kind:ident => $body:expr, $otherwise:expr) => {{
        use candle_core::quantized::GgmlDType as T;
        use $crate::linear::format as f;
        macro_rules! run {
            ($name:ident) => {{
                type $kind = f::$name;
                $body
            }};
        }
        match $dtype {
            T::Q4_0 => run!(Q4Zero),
            T::Q4_1 => run!(Q4One),
            T::Q5_0 => run!(Q5Zero),
            T::Q5_1 => run!(Q5One),
            T::Q8_0 | T::Q8_1 => run!(Q8Zero),
            T::Q2K => run!(Q2K),
            T::Q3K => run!(Q3K),
            T::Q4K => run!(Q4K),
            T::Q5K => run!(Q5K),
            T::Q6K => run!(Q6K),
            T::Q8K => run!(Q8K),
            _ => $otherwise,
        }
    }};
}
pub(super) use with_kind;

/// One GGUF block of one row, taken apart.
pub(super) struct Parts {
    /// Bits of `d`: f16 in the lower half, or f32.
    pub scale: u32,
    /// Bits of the f16 minimum.
    pub minimum: u16,
    /// Unsigned codes of 32 or 256 weights, in order.
    pub codes: [u8; 256],
    /// Scale bytes per block or half block.
    pub scales: [u8; 16],
    /// Minimum bytes per block or half block.
    pub minimums: [u8; 16],
}

impl Parts {
    pub(super) fn new() -> Self {
        Self { scale: 0, minimum: 0, codes: [0; 256], scales: [0; 16], minimums: [0; 16] }
    }

    /// Reads one block of a quantised type; `bytes` has that type's size.
    pub(super) fn read(&mut self, dtype: GgmlDType, bytes: &[u8]) {
        match dtype {
            GgmlDType::Q4_0 => self.read_nibbles(bytes, None, &bytes[2..]),
            GgmlDType::Q4_1 => self.read_nibbles(bytes, Some(2), &bytes[4..]),
            GgmlDType::Q5_0 => self.read_five_bits(bytes, None, &bytes[2..]),
            GgmlDType::Q5_1 => self.read_five_bits(bytes, Some(2), &bytes[4..]),
            GgmlDType::Q8_0 => self.read_bytes(bytes, &bytes[2..]),
            GgmlDType::Q8_1 => self.read_bytes(bytes, &bytes[4..]),
            GgmlDType::Q2K => self.read_q2k(bytes),
            GgmlDType::Q3K => self.read_q3k(bytes),
            GgmlDType::Q4K => self.read_q4k(bytes, None, &bytes[16..144]),
            GgmlDType::Q5K => self.read_q4k(bytes, Some(16), &bytes[48..176]),
            GgmlDType::Q6K => self.read_q6k(bytes),
            GgmlDType::Q8K => self.read_q8k(bytes),
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => {}
        }
    }

    fn read_nibbles(&mut self, bytes: &[u8], minimum_at: Option<usize>, codes: &[u8]) {
        self.scale = u32::from(half_at(bytes, 0));
        self.minimum = minimum_at.map_or(0, |at| half_at(bytes, at));
        for (index, code) in codes[..16].iter().enumerate() {
            self.codes[index] = code & 15;
            self.codes[index + 16] = code >> 4;
        }
    }

    fn read_five_bits(&mut self, bytes: &[u8], minimum_at: Option<usize>, fifth_then_codes: &[u8]) {
        let (fifth, codes) = fifth_then_codes.split_at(4);
        self.read_nibbles(bytes, minimum_at, codes);
        for (index, code) in self.codes[..BLOCK].iter_mut().enumerate() {
            *code |= ((fifth[index / 8] >> (index % 8)) & 1) << 4;
        }
    }

    fn read_bytes(&mut self, bytes: &[u8], codes: &[u8]) {
        self.scale = u32::from(half_at(bytes, 0));
        for (code, byte) in self.codes.iter_mut().zip(&codes[..BLOCK]) {
            *code = byte ^ 0x80;
        }
    }

    fn read_q2k(&mut self, bytes: &[u8]) {
        self.scale = u32::from(half_at(bytes, 80));
        self.minimum = half_at(bytes, 82);
        for (index, byte) in bytes[..16].iter().enumerate() {
            self.scales[index] = byte & 15;
            self.minimums[index] = byte >> 4;
        }
        for index in 0..256 {
            let (half, quarter, lane) = (index / 128, index / 32 % 4, index % 32);
            self.codes[index] = bytes[16 + 32 * half + lane] >> (2 * quarter) & 3;
        }
    }

    fn read_q3k(&mut self, bytes: &[u8]) {
        let (high, low, scales) = (&bytes[..32], &bytes[32..96], &bytes[96..108]);
        self.scale = u32::from(half_at(bytes, 108));
        for index in 0..16 {
            let lower = if index < 8 { scales[index] & 15 } else { scales[index - 8] >> 4 };
            let upper = scales[8 + index % 4] >> (2 * (index / 4)) & 3;
            self.scales[index] = (lower | upper << 4).wrapping_sub(32);
        }
        for index in 0..256 {
            let (half, quarter, lane) = (index / 128, index / 32 % 4, index % 32);
            let third = high[lane] >> (index / 32) & 1;
            self.codes[index] = low[32 * half + lane] >> (2 * quarter) & 3 | third << 2;
        }
    }

    fn read_q4k(&mut self, bytes: &[u8], fifth_at: Option<usize>, codes: &[u8]) {
        self.scale = u32::from(half_at(bytes, 0));
        self.minimum = half_at(bytes, 2);
        let packed = &bytes[4..16];
        for index in 0..4 {
            self.scales[index] = packed[index] & 63;
            self.minimums[index] = packed[index + 4] & 63;
            self.scales[index + 4] = packed[index + 8] & 15 | packed[index] >> 6 << 4;
            self.minimums[index + 4] = packed[index + 8] >> 4 | packed[index + 4] >> 6 << 4;
        }
        for index in 0..256 {
            let (pair, upper, lane) = (index / 64, index / 32 % 2, index % 32);
            let fifth = fifth_at.map_or(0, |at| bytes[at + lane] >> (index / 32) & 1);
            self.codes[index] = codes[32 * pair + lane] >> (4 * upper) & 15 | fifth << 4;
        }
    }

    fn read_q6k(&mut self, bytes: &[u8]) {
        let (low, high) = (&bytes[..128], &bytes[128..192]);
        self.scales.copy_from_slice(&bytes[192..208]);
        self.scale = u32::from(half_at(bytes, 208));
        for index in 0..256 {
            let (half, quarter, lane) = (index / 128, index / 32 % 4, index % 32);
            let lower = low[64 * half + 32 * (quarter % 2) + lane] >> (4 * (quarter / 2)) & 15;
            let upper = high[32 * half + lane] >> (2 * quarter) & 3;
            self.codes[index] = lower | upper << 4;
        }
    }

    fn read_q8k(&mut self, bytes: &[u8]) {
        self.scale = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        for (code, byte) in self.codes.iter_mut().zip(&bytes[4..260]) {
            *code = byte ^ 0x80;
        }
    }
}

fn half_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
