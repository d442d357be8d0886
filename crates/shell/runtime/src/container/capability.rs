//! The capabilities that a container has: Docker's default set.

use std::io;

use crate::sys;

/// CHOWN, `DAC_OVERRIDE`, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, `NET_BIND_SERVICE`,
/// `NET_RAW`, `SYS_CHROOT`, MKNOD, `AUDIT_WRITE`, SETFCAP; by their numbers. Device nodes that MKNOD
/// makes do not work: nothing but `/dev` itself is mounted with devices.
const DEFAULT: [u32; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

const KILL: u32 = 5;

/// Numbers that a kernel may know one day; it refuses the ones that it does not know.
const CAPABILITIES_MAX: u32 = 64;

fn bits(of: &[u32]) -> u64 {
    of.iter().map(|number| 1 << number).sum()
}

/// No process of the container can gain a capability outside of the set, not even by exec.
pub(crate) fn drop_from_bounding_set() -> io::Result<()> {
    for number in 0..CAPABILITIES_MAX {
        if DEFAULT.contains(&number) {
            continue;
        }
        match sys::prctl(libc::PR_CAPBSET_DROP, number.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            done => done?,
        }
    }
    match sys::prctl_ambient_clear() {
        // Kernels before 4.3 have no ambient set.
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

/// The default set for user 0, none for any other.
pub(crate) fn set_for_user(uid: u32) -> io::Result<()> {
    sys::set_capabilities(if uid == 0 { bits(&DEFAULT) } else { 0 })
}

/// What init needs to pass signals on to a program of another user.
pub(crate) fn keep_only_kill() -> io::Result<()> {
    sys::set_capabilities(bits(&[KILL]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_dockers() {
        // As `docker run alpine grep CapEff /proc/self/status` prints it.
        assert_eq!(bits(&DEFAULT), 0xa804_25fb);
    }
}
