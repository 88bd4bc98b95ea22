//! What a pass frees, the next one wants again: it stays with the process.

/// Tells the allocator to keep freed blocks rather than give them back to the system, which would clear each page before
/// it is used again: for large batches of a small model that was a fifteenth of the time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn keep() {
    /// The most that may be asked for.
    const LARGEST_BLOCK: libc::c_int = 32 << 20;
    const KEPT: libc::c_int = 64 << 20;
    // SAFETY: settings of the allocator, which may be made at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_BLOCK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep() {}
