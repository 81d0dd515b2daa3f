//! `add_key(2)` and `keyctl(2)`.

use std::io;

use super::check;

const KEYCTL_UNLINK: libc::c_long = 9;
const KEYCTL_RESTRICT_KEYRING: libc::c_long = 29;

/// Adds an X.509 certificate (DER) to a keyring; returns the key's serial number.
pub fn add_certificate(keyring: i32, certificate: &[u8]) -> io::Result<i32> {
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
    i32::try_from(check(returned)?).map_err(|_| io::Error::other("the kernel returned no key"))
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

/// Takes a key out of a keyring.
pub fn unlink(key: i32, keyring: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_UNLINK,
            libc::c_long::from(key),
            libc::c_long::from(keyring),
        )
    };
    check(returned).map(drop)
}
