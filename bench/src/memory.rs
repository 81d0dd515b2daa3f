//! How much less free memory there is while something happens.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Does something while another CPU watches the machine's free memory; returns by how many bytes
/// it fell at most.
pub fn peak<T>(work: impl FnOnce() -> T) -> io::Result<(T, u64)> {
    let before = free()?;
    let least = AtomicU64::new(before);
    let done = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let watcher = scope.spawn(|| -> io::Result<()> {
            while !done.load(Ordering::Relaxed) {
                least.fetch_min(free()?, Ordering::Relaxed);
            }
            Ok(())
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        match watcher.join() {
            Ok(watched) => watched.map(|()| result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok((result, before - least.into_inner().min(before)))
}

fn free() -> io::Result<u64> {
    let mut info = std::mem::MaybeUninit::<libc::sysinfo>::uninit();
    // SAFETY: the kernel writes a `sysinfo`.
    if unsafe { libc::sysinfo(info.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it is written.
    let info = unsafe { info.assume_init() };
    #[allow(clippy::useless_conversion, reason = "of 32 bits on 32-bit machines")]
    let units = u64::from(info.freeram);
    Ok(units * u64::from(info.mem_unit))
}
