//! AMX: tiles of bytes multiplied by one instruction. Written in assembly, since the language has no stable functions for
//! it.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

/// Of one round: four products of tiles of 16 by 64 and 64 by 16 bytes.
pub const OPERATIONS: u64 = 4 * 16 * 16 * 64 * 2;

/// Whether the machine has tiles of bytes, and the system lets this process use them.
pub fn is_available() -> bool {
    const TILES: u32 = 1 << 24 | 1 << 25; // AMX-TILE and AMX-INT8, in edx
    let has_leaf = __cpuid_count(0, 0).eax >= 7;
    has_leaf && __cpuid_count(7, 0).edx & TILES == TILES && is_permitted()
}

/// Linux gives the room for tiles on request; other systems are not asked.
fn is_permitted() -> bool {
    #[cfg(target_os = "linux")]
    {
        const REQUEST_PERMISSION: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        // SAFETY: two numbers; no memory of ours is touched.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// What the tiles of a thread look like: palette 1, all eight of sixteen rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes([u8; 64]);

impl Shapes {
    fn whole() -> Self {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        for tile in 0..8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = 16;
        }
        Self(bytes)
    }
}

/// Four chains of products of zeros.
///
/// # Safety
/// [`is_available`] must have said so.
pub unsafe fn run(rounds: u64) {
    let shapes = Shapes::whole();
    // SAFETY: there are tiles, as the caller promises; the shapes are 64 bytes; all tiles are named as changed; nobody
    // else uses tiles on this thread.
    unsafe {
        asm!(
            "ldtilecfg [{shapes}]",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbsud tmm0, tmm4, tmm6",
            "tdpbsud tmm1, tmm4, tmm7",
            "tdpbsud tmm2, tmm5, tmm6",
            "tdpbsud tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            "tilerelease",
            shapes = in(reg) shapes.0.as_ptr(), rounds = inout(reg) rounds.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly),
        );
    }
}
