//! What takes the place of a function of glibc in static binaries, where its size counts.
#![cfg(all(target_env = "gnu", target_feature = "crt-static"))]

/// The standard library asks at its start where the stack ends, to say so when it overflows.
/// glibc's answer parses `/proc/self/maps` with `sscanf`, which comes with readers of locales and of
/// every kind of floating-point number: a tenth of the binary, for this only. Without an answer,
/// an overflow still ends the process, by SIGSEGV, and without that sentence.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(
    _thread: libc::pthread_t,
    _attributes: *mut libc::pthread_attr_t,
) -> libc::c_int {
    libc::ENOSYS
}
