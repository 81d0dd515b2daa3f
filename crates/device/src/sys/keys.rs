//! `add_key(2)` and `keyctl(2)`.

use std::io;

use super::check;

const KEYCTL_RESTRICT_KEYRING: libc::c_long = 29;

/// Adds an X.509 certificate (DER) to a keyring; returns the key's serial number.
pub fn add_certificate(keyring: i32, certificate: &[u8]) -> io::Result<libc::c_long> {
    // SAFETY: both strings are terminated, the payload has the size that is given.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"asymmetric".as_ptr(),
            c"".as_ptr(),
            certificate.as_ptr(),
            certificate.len(),
            libc::c_long::from(keyring),
        )
    };
    check(returned)
}

/// Lets nobody add keys to a keyring any more.
pub fn restrict(keyring: i32) -> io::Result<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: two null pointers mean: without exception.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_RESTRICT_KEYRING,
            libc::c_long::from(keyring),
            null,
            null,
        )
    };
    check(returned).map(drop)
}
