//! The system calls that a container may not make.
//!
//! Two filters. The first, made by hand because it compares the number itself, refuses calls that
//! are newer than this list and the second numbering of x86-64 (x32), which would walk around any
//! list; and it answers clone3 with ENOSYS, so that libc falls back to clone, whose flags a filter
//! can read. The second refuses the listed calls with EPERM, and kills on a foreign architecture.
//! Whatever Docker's default profile refuses to a container without added capabilities is refused
//! here too; ptrace and its kin as well.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::error::{Errno, StartError};

/// The newest system call that was looked at (removexattrat, Linux 6.13); its number is the same on
/// every architecture. Later ones get ENOSYS, as from an older kernel.
const NEWEST_CALL: u32 = 466;

/// The numbers of x32 start here.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// Every flag of clone that makes a namespace.
const CLONE_NEW: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// The personalities that Docker allows: Linux, 32-bit Linux, both with a legacy uname, and asking.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Typing into a terminal on behalf of its user.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

const REFUSED: &[i64] = &[
    // The file system tree.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    QUOTACTL_FD,
    STATMOUNT,
    LISTMOUNT,
    libc::SYS_fanotify_init,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Namespaces.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_vhangup,
    // Large surfaces with a long list of holes.
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Keys are not namespaced.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The clock is not namespaced.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Memory of other nodes.
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_get_mempolicy,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    SET_MEMPOLICY_HOME_NODE,
];

/// Calls that only old architectures have.
#[cfg(target_arch = "x86_64")]
const REFUSED_OLD: &[i64] = &[
    174, // create_module
    177, // get_kernel_syms
    178, // query_module
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_iopl,
    libc::SYS_ioperm,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OLD: &[i64] = &[];

// Numbers that are the same on every architecture, and not in every libc crate.
const QUOTACTL_FD: i64 = 443;
const SET_MEMPOLICY_HOME_NODE: i64 = 450;
const STATMOUNT: i64 = 457;
const LISTMOUNT: i64 = 458;

/// The filters, ready for the kernel.
#[derive(Debug)]
pub(crate) struct Filters {
    numbers: BpfProgram,
    calls: BpfProgram,
}

/// Makes the filters for this machine.
pub(crate) fn compile() -> Result<Filters, StartError> {
    let impossible = |_| StartError::Kernel {
        action: "make the system call filter for this architecture".into(),
        source: Errno(libc::ENOSYS),
    };
    Ok(Filters { numbers: numbers(), calls: calls().map_err(impossible)? })
}

/// Installs both for this process and all that come of it, and gives up new privileges for good.
pub(crate) fn install(filters: &Filters) -> Result<(), Errno> {
    for program in [&filters.numbers, &filters.calls] {
        seccompiler::apply_filter(program).map_err(|error| match error {
            seccompiler::Error::Prctl(source) | seccompiler::Error::Seccomp(source) => Errno::from(source),
            _ => Errno(libc::EINVAL),
        })?;
    }
    Ok(())
}

fn calls() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().chain(REFUSED_OLD).map(|call| (*call, Vec::new())).collect();
    let rule = |conditions| SeccompRule::new(conditions);
    let is = |argument, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let mut clone = Vec::new();
    for flag in CLONE_NEW {
        let flag = u64::from(flag.cast_unsigned());
        let has = SeccompCmpOp::MaskedEq(flag);
        clone.push(rule(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, has, flag)?])?);
    }
    rules.insert(libc::SYS_clone, clone);
    let other = PERSONALITIES
        .iter()
        .map(|it| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *it))
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_personality, vec![rule(other)?]);
    let vsock = u64::from(libc::AF_VSOCK.cast_unsigned());
    rules.insert(libc::SYS_socket, vec![rule(vec![is(0, vsock)?])?]);
    rules.insert(libc::SYS_ioctl, vec![rule(vec![is(1, TIOCSTI)?])?, rule(vec![is(1, TIOCLINUX)?])?]);

    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
}

fn numbers() -> BpfProgram {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    #[cfg(target_arch = "x86_64")]
    const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ERRNO: u32 = 0x0005_0000;
    const ALLOW: u32 = 0x7fff_0000;
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let clone3 = u32::try_from(libc::SYS_clone3).expect("system call numbers are small");
    vec![
        op(LOAD, 0, 0, 0), // The number is the first field.
        #[cfg(target_arch = "x86_64")]
        op(AT_LEAST, 4, 0, X32_BIT), // to EPERM
        op(ABOVE, 2, 0, NEWEST_CALL), // to ENOSYS
        op(EQUAL, 1, 0, clone3), // to ENOSYS
        op(RETURN, 0, 0, ALLOW),
        op(RETURN, 0, 0, ERRNO | libc::ENOSYS.cast_unsigned()),
        op(RETURN, 0, 0, ERRNO | libc::EPERM.cast_unsigned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_are_made_and_fit_the_kernel() {
        let filters = compile().unwrap();
        let most = usize::from(u16::MAX).min(4096);
        assert!((REFUSED.len()..most).contains(&filters.calls.len()));
    }

    #[test]
    fn jumps_of_the_first_filter_land_where_they_say() {
        // Runs the program as the kernel would.
        let run = |number: u32| {
            let program = numbers();
            let mut at = 0;
            loop {
                let it = &program[at];
                let taken = match it.code {
                    0x20 => {
                        at += 1;
                        continue;
                    }
                    0x06 => return it.k,
                    0x15 => number == it.k,
                    0x25 => number > it.k,
                    0x35 => number >= it.k,
                    code => panic!("{code}"),
                };
                at += 1 + usize::from(if taken { it.jt } else { it.jf });
            }
        };
        let errno = |errno: i32| 0x0005_0000 | errno.cast_unsigned();
        assert_eq!(run(0), 0x7fff_0000);
        assert_eq!(run(NEWEST_CALL), 0x7fff_0000);
        assert_eq!(run(435), errno(libc::ENOSYS));
        assert_eq!(run(NEWEST_CALL + 1), errno(libc::ENOSYS));
        #[cfg(target_arch = "x86_64")]
        assert_eq!(run(X32_BIT + 165), errno(libc::EPERM));
    }
}
