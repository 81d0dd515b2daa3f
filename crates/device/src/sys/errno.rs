//! Names of error numbers, as `errno.h` has them.

macro_rules! names {
    ($($name:ident)+) => {
        /// The name of an error number that the kernel part or `bpf(2)` may return.
        pub fn name(errno: i32) -> Option<&'static str> {
            match errno {
                $(libc::$name => Some(stringify!($name)),)+
                _ => None,
            }
        }
    };
}

names! {
    E2BIG EACCES EADDRINUSE EAGAIN EBADF EBADMSG EBUSY ECANCELED ECONNREFUSED EDOM EEXIST EFAULT
    EFBIG EILSEQ EINTR EINVAL EIO EISDIR EKEYEXPIRED EKEYREJECTED EKEYREVOKED ELIBBAD ELOOP EMFILE
    EMSGSIZE ENAMETOOLONG ENETDOWN ENFILE ENODATA ENODEV ENOENT ENOEXEC ENOKEY ENOMEM ENOPKG
    ENOSPC ENOSYS ENOTDIR ENOTEMPTY ENOTTY ENXIO EOPNOTSUPP EOVERFLOW EPERM EPIPE EPROTO
    EPROTONOSUPPORT EPROTOTYPE ERANGE EROFS ESRCH ESTALE ETIMEDOUT ETXTBSY EUCLEAN EXDEV
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown() {
        assert_eq!(name(libc::EKEYREJECTED), Some("EKEYREJECTED"));
        assert_eq!(name(0), None);
    }
}
