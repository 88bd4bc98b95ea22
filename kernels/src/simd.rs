//! Which vector instructions a kernel may use. Detected once at run time: one binary serves every machine.
//!
//! Not a promise about results: every level computes the same bits. aarch64 has no level of its own, its
//! baseline already holds NEON, so `Scalar` is compiled to it.

/// A set of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust with whatever the build's baseline offers.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// The same, and AMX's tiles of bf16 with AVX-512's conversions to it.
    Amx,
}

impl Level {
    /// The best level this machine has.
    pub fn detect() -> Self {
        [Self::Amx, Self::Avx512, Self::Avx2]
            .into_iter()
            .find(|level| level.is_supported())
            .unwrap_or(Self::Scalar)
    }

    /// Every level this machine has, the plainest first.
    pub fn supported() -> Vec<Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx]
            .into_iter()
            .filter(|level| level.is_supported())
            .collect()
    }

    /// Whether this machine can run the level.
    #[cfg(target_arch = "x86_64")]
    pub fn is_supported(self) -> bool {
        let avx2 = || {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
        };
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        };
        match self {
            Self::Scalar => true,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx512(),
            Self::Amx => avx512() && crate::tiles::are_available(),
        }
    }

    /// Whether this machine can run the level.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_supported(self) -> bool {
        self == Self::Scalar
    }
}

/// Compiles one `#[inline(always)]` body of plain Rust for each level and calls the right one.
///
/// `multiversion!(cpu.level(), body(argument: Type, …) -> Return)`: the arguments are variables in scope.
macro_rules! multiversion {
    ($level:expr, $body:path, $( $argument:ident : $kind:ty ),* ) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($( $argument: $kind ),*) {
                $body($( $argument ),*)
            }
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            fn avx512($( $argument: $kind ),*) {
                $body($( $argument ),*)
            }
            match $level {
                $crate::Level::Scalar => $body($( $argument ),*),
                // SAFETY: a `Cpu` holds only a level that this machine supports.
                $crate::Level::Avx2 => unsafe { avx2($( $argument ),*) },
                // SAFETY: as above.
                $crate::Level::Avx512 | $crate::Level::Amx => unsafe { avx512($( $argument ),*) },
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = $level;
            $body($( $argument ),*)
        }
    }};
}
pub(crate) use multiversion;
