//! AMX's tiles: of bf16, up to sixteen rows of 32 elements times as many columns in one instruction; and of bytes.
//!
//! The one thing to know is the order of a product's additions, which is the instruction's own ([`Tiles::multiply`]): each 32 elements
//! are two chains of sixteen fused additions from zero, the even and the odd elements; these two are added, then that to what was there.
//! `linear::bfloat` does the same in plain Rust. Numbers below the smallest normal one count as zero. The instructions are
//! written in assembly, since the language has no stable functions for them.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid, __cpuid_count, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_shuffle_i32x4,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _xgetbv,
};
use std::marker::PhantomData;
use std::mem::transmute;
use std::sync::OnceLock;

/// The most rows and columns of a tile of sums.
pub(crate) const SIDE: usize = 16;
/// Elements of a row that one product adds up.
pub(crate) const DEPTH: usize = 32;

/// Whether this machine has tiles of bytes and of bf16, and the system lets this process use them.
pub(crate) fn are_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && is_permitted())
}

fn has_instructions() -> bool {
    const TILES: u32 = 1 << 24 | 1 << 25 | 1 << 22; // AMX-TILE, AMX-INT8 and AMX-BF16 in edx
    const ROUNDING: u32 = 1 << 5; // AVX512-BF16 in eax of the second part
    const OSXSAVE: u32 = 1 << 27;
    const TILE_STATE: u64 = 0b11 << 17;

    #[target_feature(enable = "xsave")]
    fn enabled_states() -> u64 {
        // SAFETY: register 0 exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }

    let has_leaf = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).eax >= 1;
    let saves = __cpuid(1).ecx & OSXSAVE != 0;
    has_leaf
        && saves
        && __cpuid_count(7, 0).edx & TILES == TILES
        && __cpuid_count(7, 1).eax & ROUNDING == ROUNDING
        // SAFETY: the system has turned the instruction on, as just seen.
        && unsafe { enabled_states() } & TILE_STATE == TILE_STATE
}

/// Linux hands out the room for tiles on request only, to a whole process at once.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const REQUEST: libc::c_long = 0x1023; // ARCH_REQ_XCOMP_PERM
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The tiles of this thread while they have a shape: four of sums `[rows, columns]`, two of rows `[rows, 32]`, two of columns
/// `[32, columns]` whose elements lie in pairs, `[16, columns, 2]`.
pub(crate) struct Tiles {
    rows: usize,
    columns: usize,
    /// They are a thread's.
    thread: PhantomData<*const ()>,
}

#[repr(C, align(64))]
struct Shapes([u8; LINE]);

/// The most bytes of a row of a tile.
pub(crate) const LINE: usize = 64;

/// `[rows, columns]`, a row in 64 bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub [[f32; SIDE]; SIDE]);

/// Loads a tile.
macro_rules! load {
    ($tile:literal, $from:ident, $stride:expr) => {
        asm!(
            concat!("tileloadd ", $tile, ", [{from} + {stride}]"),
            from = in(reg) $from,
            stride = in(reg) $stride,
            options(nostack, preserves_flags, readonly),
        )
    };
}

impl Tiles {
    /// For up to sixteen rows and columns.
    ///
    /// # Safety
    /// [`are_available`] must have said so, and nothing else on this thread may use tiles while the value lives.
    pub(crate) unsafe fn new(rows: usize, columns: usize) -> Self {
        let mut tiles = Self { rows: 0, columns: 0, thread: PhantomData };
        tiles.reshape(rows, columns);
        tiles
    }

    /// Changes rows and columns, if they are others; what is in the tiles is lost.
    pub(crate) fn reshape(&mut self, rows: usize, columns: usize) {
        if (rows, columns) == (self.rows, self.columns) {
            return;
        }
        assert!((1..=SIDE).contains(&rows) && (1..=SIDE).contains(&columns));
        self.shape(|tile| match tile {
            0..4 => (4 * columns, rows),
            4 | 5 => (LINE, rows),
            _ => (4 * columns, DEPTH / 2),
        });
        (self.rows, self.columns) = (rows, columns);
    }

    /// For products of bytes: sums `[16, 16]` of `depth` products each.
    ///
    /// # Safety
    /// As [`Tiles::new`].
    pub(crate) unsafe fn of_bytes(depth: usize) -> Self {
        let tiles = Self { rows: SIDE, columns: SIDE, thread: PhantomData };
        tiles.shape(|tile| match tile {
            0..4 => (LINE, SIDE),
            4 | 5 => (depth, SIDE),
            _ => (LINE, depth / 4),
        });
        tiles
    }

    /// Gives each tile as many bytes in a row, and as many rows.
    fn shape(&self, of: impl Fn(usize) -> (usize, usize)) {
        let mut shapes = Shapes([0; LINE]);
        shapes.0[0] = 1; // palette
        for tile in 0..8 {
            let (bytes, rows) = of(tile);
            assert!(bytes <= LINE && rows <= SIDE);
            shapes.0[16 + 2 * tile] = bytes as u8;
            shapes.0[48 + tile] = rows as u8;
        }
        // SAFETY: there are tiles, and they are this value's, as was promised when it was made; the shapes are those of palette 1, at
        // most sixteen rows of 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) shapes.0.as_ptr(), options(nostack, readonly, preserves_flags))
        };
    }

    /// Rows of the tiles' shape.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the tiles' shape.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Sets the sums of `LANE` to zero.
    #[inline(always)]
    pub(crate) fn zero<const LANE: usize>(&self) {
        macro_rules! zero {
            ($sums:literal) => {
                asm!(concat!("tilezero ", $sums), options(nomem, nostack, preserves_flags))
            };
        }
        // SAFETY: the tiles belong to this value.
        unsafe {
            match LANE {
                0 => zero!("tmm0"),
                1 => zero!("tmm1"),
                2 => zero!("tmm2"),
                _ => zero!("tmm3"),
            }
        }
    }

    /// Loads rows `NTH` of two, `apart` bytes from each other.
    ///
    /// # Safety
    /// 64 bytes of each row must be readable.
    #[inline(always)]
    pub(crate) unsafe fn load_rows<const NTH: usize>(&self, rows: *const u8, apart: usize) {
        // SAFETY: the caller promises what is read; the tiles belong to this value.
        unsafe { if NTH == 0 { load!("tmm4", rows, apart) } else { load!("tmm5", rows, apart) } }
    }

    /// Loads columns `NTH` of two: of each pair of elements all columns; pairs are `apart` bytes from each other.
    ///
    /// # Safety
    /// Four bytes for each column of each of sixteen pairs must be readable.
    #[inline(always)]
    pub(crate) unsafe fn load_columns<const NTH: usize>(&self, pairs: *const u8, apart: usize) {
        // SAFETY: the caller promises what is read; the tiles belong to this value.
        unsafe { if NTH == 0 { load!("tmm6", pairs, apart) } else { load!("tmm7", pairs, apart) } }
    }

    /// Loads the sums of `LANE`, whose rows are `apart` bytes from each other.
    ///
    /// # Safety
    /// Four bytes for each column of each row must be readable.
    #[inline(always)]
    pub(crate) unsafe fn load_sums<const LANE: usize>(&self, sums: *const f32, apart: usize) {
        // SAFETY: the caller promises what is read; the tiles belong to this value.
        unsafe {
            match LANE {
                0 => load!("tmm0", sums, apart),
                1 => load!("tmm1", sums, apart),
                2 => load!("tmm2", sums, apart),
                _ => load!("tmm3", sums, apart),
            }
        }
    }

    /// Adds products to the sums of `LANE`: of rows `LANE / 2` and columns `LANE % 2`.
    #[inline(always)]
    pub(crate) fn multiply<const LANE: usize>(&self) {
        macro_rules! multiply {
            ($operands:literal) => {
                asm!(concat!("tdpbf16ps ", $operands), options(nomem, nostack, preserves_flags))
            };
        }
        // SAFETY: the tiles belong to this value.
        unsafe {
            match LANE {
                0 => multiply!("tmm0, tmm4, tmm6"),
                1 => multiply!("tmm1, tmm4, tmm7"),
                2 => multiply!("tmm2, tmm5, tmm6"),
                _ => multiply!("tmm3, tmm5, tmm7"),
            }
        }
    }

    /// Starts the sums of products of bytes: of activations' rows, `apart` bytes from each other, with weights, in the tile of `LANE` of
    /// four, so that products in a row do not wait for each other. Nothing but [`Tiles::store_to`] reads a tile.
    ///
    /// # Safety
    /// As many bytes as the shapes say must be readable.
    #[inline(always)]
    pub(crate) unsafe fn multiply_bytes<const LANE: usize>(
        &self,
        activations: *const i8,
        apart: usize,
        weights: *const u8,
    ) {
        macro_rules! multiply {
            ($sums:literal, $activations:literal, $weights:literal) => {
                asm!(
                    concat!("tilezero ", $sums),
                    concat!("tileloadd ", $activations, ", [{activations} + {apart}]"),
                    concat!("tileloadd ", $weights, ", [{weights} + {line}]"),
                    concat!("tdpbssd ", $sums, ", ", $activations, ", ", $weights),
                    activations = in(reg) activations,
                    apart = in(reg) apart,
                    weights = in(reg) weights,
                    line = in(reg) LINE,
                    options(nostack, preserves_flags, readonly),
                )
            };
        }
        // SAFETY: the caller promises what is read; the tiles belong to this value.
        unsafe {
            match LANE {
                0 => multiply!("tmm0", "tmm4", "tmm6"),
                1 => multiply!("tmm1", "tmm5", "tmm7"),
                2 => multiply!("tmm2", "tmm4", "tmm6"),
                _ => multiply!("tmm3", "tmm5", "tmm7"),
            }
        }
    }

    /// Stores the sums of `LANE`, as many rows as there are.
    #[inline(always)]
    pub(crate) fn store<const LANE: usize>(&self, sums: &mut Sums) {
        // SAFETY: sixteen rows of at most 64 bytes fit into the sums.
        unsafe { self.store_to::<LANE>(sums.0.as_mut_ptr().cast::<f32>(), LINE) };
    }

    /// Stores the sums of `LANE` to rows that are `apart` bytes from each other.
    ///
    /// # Safety
    /// Four bytes for each column of each row must be writable.
    #[inline(always)]
    pub(crate) unsafe fn store_to<const LANE: usize>(&self, sums: *mut f32, apart: usize) {
        macro_rules! store {
            ($tile:literal) => {
                asm!(
                    concat!("tilestored [{sums} + {apart}], ", $tile),
                    sums = in(reg) sums,
                    apart = in(reg) apart,
                    options(nostack, preserves_flags),
                )
            };
        }
        // SAFETY: the caller promises what is written; the tiles belong to this value.
        unsafe {
            match LANE {
                0 => store!("tmm0"),
                1 => store!("tmm1"),
                2 => store!("tmm2"),
                _ => store!("tmm3"),
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the thread has tiles, and they are this value's.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// 32 numbers rounded to bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(crate) fn narrowed(values: &[f32; DEPTH]) -> __m512i {
    let (lower, upper) = values.split_at(SIDE);
    // SAFETY: sixteen numbers each; and the same 64 bytes.
    unsafe {
        let (lower, upper) = (_mm512_loadu_ps(lower.as_ptr()), _mm512_loadu_ps(upper.as_ptr()));
        transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(upper, lower))
    }
}

/// Lane `c` of row `r` becomes lane `r` of row `c`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transposed(rows: [__m512i; SIDE]) -> [__m512i; SIDE] {
    let mut pairs = rows;
    for (two, rows) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(rows.as_chunks::<2>().0) {
        *two = [_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1])];
    }
    // Of four rows, columns 4q, 4q + 1, 4q + 2 and 4q + 3 in quarter q.
    let mut fours = pairs;
    for (four, pairs) in fours.as_chunks_mut::<4>().0.iter_mut().zip(pairs.as_chunks::<4>().0) {
        let [a, b, c, d] = *pairs;
        *four = [
            _mm512_unpacklo_epi64(a, c),
            _mm512_unpackhi_epi64(a, c),
            _mm512_unpacklo_epi64(b, d),
            _mm512_unpackhi_epi64(b, d),
        ];
    }
    let mut columns = fours;
    for column in 0..4 {
        let [a, b, c, d] = [fours[column], fours[column + 4], fours[column + 8], fours[column + 12]];
        let (ab, cd) =
            (_mm512_shuffle_i32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d));
        columns[column] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd);
        columns[column + 4] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd);
        let (ab, cd) =
            (_mm512_shuffle_i32x4::<0b11_10_11_10>(a, b), _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d));
        columns[column + 8] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd);
        columns[column + 12] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd);
    }
    columns
}
