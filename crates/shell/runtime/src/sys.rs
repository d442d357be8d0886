//! Every call of the kernel that has no safe wrapper elsewhere; the only `unsafe` of the project.
//!
//! Invariant: what leaves this module is owned (`OwnedFd`) or a plain number, and errors are the
//! kernel's own.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_long, pid_t};

pub(crate) mod boottime;
mod mount;

pub(crate) use mount::{NewMount, clone_mount, map_ids, move_mount, open_tree};

/// Place the child into the control group of `cgroup`. Not in every libc crate's target.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_int(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn own(fd: c_long) -> OwnedFd {
    let fd = RawFd::try_from(fd).expect("the kernel hands out descriptors that fit an int");
    // SAFETY: the callers pass what the kernel has just handed to this process, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The arguments of clone3, as the kernel lays them out (version 2, 88 bytes).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What a clone returns twice.
pub(crate) enum Cloned {
    /// In the new process.
    Child,
    /// In the old one.
    Parent {
        /// The new process, as the old one sees it.
        pid: pid_t,
        /// Refers to it even after its number was given out again.
        pidfd: OwnedFd,
    },
}

/// Makes a process with namespaces of its own, in the given v2 control group.
///
/// The caller must be single-threaded: then the child holds no lock that nobody will release.
pub(crate) fn clone3(flags: c_int, sibling: bool, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: c_int = -1;
    let sibling_flag = if sibling { libc::CLONE_PARENT } else { 0 };
    let bits = |flags: c_int| u64::from(flags.cast_unsigned());
    let mut args = CloneArgs {
        flags: bits(flags | libc::CLONE_PIDFD | sibling_flag),
        pidfd: &raw mut pidfd as u64,
        // A sibling must not name a signal: it takes over the one of its maker.
        exit_signal: if sibling { 0 } else { bits(libc::SIGCHLD) },
        ..CloneArgs::default()
    };
    if let Some(group) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().cast_unsigned());
    }
    // NEEDED: no wrapper offers CLONE_INTO_CGROUP and CLONE_PIDFD, nor namespaces without a new stack.
    // SAFETY: `args` and `pidfd` outlive the call and have the layout and size passed. Without
    // CLONE_VM the child works on a copy of all memory, as after fork; callers are single-threaded.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    let pid = pid_t::try_from(pid).expect("process numbers fit pid_t");
    Ok(Cloned::Parent { pid, pidfd: own(c_long::from(pidfd)) })
}

/// Makes a process that shares nothing but what fork shares. The caller must be single-threaded.
pub(crate) fn fork() -> io::Result<Option<pid_t>> {
    // SAFETY: callers are single-threaded, so the child inherits no lock that nobody will release.
    let pid = check_int(unsafe { libc::fork() })?;
    Ok((pid != 0).then_some(pid))
}

/// Ends this process at once, without running anything of the program's own.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from `first` up, or only marks it to be closed by exec.
pub(crate) fn close_from(first: RawFd, at_exec: bool) -> io::Result<()> {
    let flags: c_int = if at_exec {
        4 /* CLOSE_RANGE_CLOEXEC */
    } else {
        0
    };
    // SAFETY: only called where no owned descriptor in the range is used again by its owner: at the
    // start of a process, and in children that go on to exec or _exit.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) }).map(drop)
}

/// Makes `to` refer to what `from` refers to; it stays open across exec.
pub(crate) fn dup_onto(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    // SAFETY: plain descriptor numbers; `to` is one of 0, 1 and 2, which nothing of ours owns.
    if from.as_raw_fd() == to {
        // SAFETY: as above; dup2 onto itself would keep the close-on-exec mark.
        return check_int(unsafe { libc::fcntl(to, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: as above.
    check_int(unsafe { libc::dup2(from.as_raw_fd(), to) }).map(drop)
}

/// A pipe: the end that is read, the end that is written. Both are closed by exec.
pub(crate) fn pipe(nonblocking_read: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    check_int(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let (read, write) = (own(ends[0].into()), own(ends[1].into()));
    if nonblocking_read {
        set_nonblocking(read.as_fd())?;
    }
    Ok((read, write))
}

/// Calls on it return at once, with `WouldBlock` where they would wait.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take plain numbers.
    let flags = check_int(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check_int(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// Reads once into `buffer`; 0 is the end.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: pointer and length are of one live buffer.
        let n = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match check(n as c_long) {
            Ok(n) => return Ok(usize::try_from(n).expect("checked not to be negative")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes once.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: pointer and length are of one live slice.
        let n = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        match check(n as c_long) {
            Ok(n) => return Ok(usize::try_from(n).expect("checked not to be negative")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends on a socket without SIGPIPE.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are of one live slice.
    let n = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    Ok(usize::try_from(check(n as c_long)?).expect("checked not to be negative"))
}

/// Waits until one of `fds` is ready or `timeout_ms` is over; -1 waits for ever. Whether one is.
pub(crate) fn poll_read(fd: BorrowedFd<'_>, timeout_ms: c_int) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live entry, and its count.
    let n = unsafe { libc::poll(&raw mut entry, 1, timeout_ms) };
    match check_int(n) {
        Ok(n) => Ok(n > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tries to lock an open file; whether it did.
pub(crate) fn flock_try(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: plain numbers.
    match check_int(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Locks an open file, waiting for it.
pub(crate) fn flock_wait(fd: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        // SAFETY: plain numbers.
        match check_int(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done.map(drop),
        }
    }
}

/// One prctl with a number.
pub(crate) fn prctl(option: c_int, value: u64) -> io::Result<()> {
    // SAFETY: the options used here take numbers and no pointers.
    check_int(unsafe { libc::prctl(option, value, 0u64, 0u64, 0u64) }).map(drop)
}

/// The name shown by `ps`, at most 15 bytes.
pub(crate) fn set_name(name: &CStr) -> io::Result<()> {
    // SAFETY: the kernel copies at most 16 bytes of a terminated string.
    check_int(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }).map(drop)
}

/// Overwrites the command line that `/proc` shows of this process.
///
/// Init is seen by the container, and its command line would tell it paths of the host.
pub(crate) fn blank_command_line() -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rfind(')').map_or("", |end| &stat[end + 1..]);
    let mut fields = fields.split_ascii_whitespace().skip(45);
    let mut next = || fields.next().and_then(|field| field.parse::<usize>().ok()).unwrap_or(0);
    let (start, end) = (next(), next());
    if start == 0 || end <= start {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no place of the command line in stat"));
    }
    // SAFETY: the kernel says that these bytes are this process's argument strings, which lie in its
    // own writable stack. They are not read again: `std` hands out copies, and none are asked for
    // after this.
    unsafe { ptr::write_bytes(start as *mut u8, 0, end - start) };
    Ok(())
}

/// Blocks every signal for this process, so that they are fetched and never interrupt.
pub(crate) fn block_signals() -> io::Result<()> {
    let set = full_set();
    // SAFETY: a live, initialised set.
    check_int(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) }).map(drop)
}

/// Every signal has its default action again and none is blocked, as a new program expects it.
pub(crate) fn reset_signals() -> io::Result<()> {
    // The kernel's own form of a sigaction: all zeros is the default action. Through libc, the two
    // signals that it keeps for itself would stay ignored if whoever started us ignored them.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` is at least as long as the kernel's struct, and its mask has 8 bytes. KILL
        // and STOP refuse, rightly.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), 8usize)
        };
    }
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, which lives on.
    check_int(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
    // SAFETY: initialised above.
    check_int(unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) }).map(drop)
}

fn full_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises all of the set.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// Waits for the next signal of a process that blocks all.
pub(crate) fn next_signal() -> io::Result<c_int> {
    let set = full_set();
    // SAFETY: a live set; the information about the signal is not asked for.
    check_int(unsafe { libc::sigwaitinfo(&raw const set, ptr::null_mut()) })
}

/// Becomes readable when a child ends.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
    }
    // SAFETY: initialised above.
    let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    Ok(own(check_int(fd)?.into()))
}

/// A child that has ended, with its wait status, if there is one. `None` too when there are no children.
pub(crate) fn reap() -> io::Result<Option<(pid_t, c_int)>> {
    let mut status = 0;
    // SAFETY: `status` is a live int.
    match check_int(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }) {
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some((pid, status))),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a wait status says: exit code, or signal.
pub(crate) fn decode_status(status: c_int) -> (Option<i32>, Option<i32>) {
    if libc::WIFEXITED(status) {
        (Some(libc::WEXITSTATUS(status)), None)
    } else {
        (None, Some(libc::WTERMSIG(status)))
    }
}

/// Signals a process by number.
pub(crate) fn kill(pid: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: plain numbers.
    check_int(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Signals the very process that the descriptor refers to.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    // SAFETY: plain numbers; no information about the signal is passed.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, ptr::null::<u8>(), 0)
    })
    .map(drop)
}

/// Enters namespaces of the process behind a pidfd, or the one behind a namespace file.
pub(crate) fn setns(fd: BorrowedFd<'_>, flags: c_int) -> io::Result<()> {
    // SAFETY: plain numbers; callers are single-threaded.
    check_int(unsafe { libc::setns(fd.as_raw_fd(), flags) }).map(drop)
}

/// Capability sets in the kernel's layout (version 3).
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// This process's effective and permitted capabilities become `bits`, the inheritable none.
pub(crate) fn set_capabilities(bits: u64) -> io::Result<()> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let data = |half: u64| {
        let half = u32::try_from(half & u64::from(u32::MAX)).expect("masked to 32 bits");
        CapData { effective: half, permitted: half, inheritable: 0 }
    };
    let data = [data(bits), data(bits >> 32)];
    // SAFETY: header and two data entries, as version 3 demands.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Sets user, groups and group of this process, for good.
pub(crate) fn set_ids(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    if let Some(groups) = groups {
        // SAFETY: pointer and count are of one slice. The calls here are raw or single-threaded, so
        // libc has no other thread to bring along.
        check_int(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    }
    // SAFETY: plain numbers.
    check_int(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: plain numbers.
    check_int(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// Executes a program instead of this one. Returns only when it cannot.
pub(crate) fn execve(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |words: &[CString]| {
        let mut list: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
        list.push(ptr::null());
        list
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: terminated strings in null-terminated lists, all alive.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Puts the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("0x41 fits a short");
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    check_int(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
        .map(drop)
}

/// A socket that exec closes.
pub(crate) fn socket(family: c_int, kind: c_int) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    check_int(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) }).map(|fd| own(fd.into()))
}

/// Sets a socket option that is an int.
pub(crate) fn set_option(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<c_int>()).expect("4 fits");
    // SAFETY: a live int and its size.
    check_int(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) })
        .map(drop)
}

/// The pending error of a socket, which is also how a connect ended.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<()> {
    let (mut value, mut size) = (0, libc::socklen_t::try_from(size_of::<c_int>()).expect("4 fits"));
    // SAFETY: a live int and its size.
    check_int(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut value).cast(),
            &raw mut size,
        )
    })?;
    if value == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(value)) }
}

/// Binds to every address of the host: of both families with `AF_INET6`, else of IPv4.
pub(crate) fn bind_any(fd: BorrowedFd<'_>, family: c_int, port: u16) -> io::Result<()> {
    let family16 = libc::sa_family_t::try_from(family).expect("families are small");
    if family == libc::AF_INET6 {
        // SAFETY: all zeros is a valid sockaddr_in6: the unspecified address.
        let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        address.sin6_family = family16;
        address.sin6_port = port.to_be();
        bind(fd, &address)
    } else {
        bind(fd, &v4([0, 0, 0, 0], port))
    }
}

fn v4(host: [u8; 4], port: u16) -> libc::sockaddr_in {
    // SAFETY: all zeros is a valid sockaddr_in.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::sa_family_t::try_from(libc::AF_INET).expect("2 fits");
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes(host);
    address
}

fn bind<A>(fd: BorrowedFd<'_>, address: &A) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<A>()).expect("addresses are small");
    // SAFETY: `A` is one of the two address types above, passed with its size.
    check_int(unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(address).cast(), size) }).map(drop)
}

/// Lets a bound socket accept.
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: c_int) -> io::Result<()> {
    // SAFETY: plain numbers.
    check_int(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// The next connection, non-blocking.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the peer's address is not asked for.
    check_int(unsafe {
        libc::accept4(
            fd.as_raw_fd(),
            ptr::null_mut(),
            ptr::null_mut(),
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    })
    .map(|fd| own(fd.into()))
}

/// Connects to a port of the loopback; whether it is done already.
pub(crate) fn connect_loopback(fd: BorrowedFd<'_>, port: u16) -> io::Result<bool> {
    let address = v4([127, 0, 0, 1], port);
    let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).expect("addresses are small");
    // SAFETY: a live address and its size.
    match check_int(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), size) }) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says that nothing more will be sent.
pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain numbers.
    check_int(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) }).map(drop)
}

/// The number that `/proc/net/tcp` shows of a socket.
pub(crate) fn inode(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: room for one stat.
    check_int(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: fstat has filled it in.
    Ok(unsafe { stat.assume_init() }.st_ino)
}

/// A set of descriptors to wait for.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

/// What happened to which descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) failed: bool,
}

/// Events fetched at once; more of them wait for the next turn.
const EVENTS_MAX: usize = 32;

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: plain numbers.
        check_int(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(|fd| Self(own(fd.into())))
    }

    fn control(&self, op: c_int, fd: BorrowedFd<'_>, token: u64, read: bool, write: bool) -> io::Result<()> {
        let mut events = 0;
        if read {
            events |= libc::EPOLLIN;
        }
        if write {
            events |= libc::EPOLLOUT;
        }
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: token };
        // SAFETY: a live event.
        check_int(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), op, fd.as_raw_fd(), &raw mut event) })
            .map(drop)
    }

    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64, read: bool, write: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, read, write)
    }

    pub(crate) fn change(&self, fd: BorrowedFd<'_>, token: u64, read: bool, write: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, read, write)
    }

    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, false, false)
    }

    /// Waits for events; `timeout_ms` of -1 waits for ever.
    pub(crate) fn wait(&self, timeout_ms: c_int) -> io::Result<Vec<Event>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        let max = c_int::try_from(EVENTS_MAX).expect("a small number");
        // SAFETY: room for `max` events.
        let n = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), max, timeout_ms) };
        let n = match check_int(n) {
            Ok(n) => usize::try_from(n).expect("checked not to be negative"),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        Ok(events[..n]
            .iter()
            .map(|event| {
                let bits = event.events.cast_signed();
                Event {
                    token: event.u64,
                    readable: bits & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) != 0,
                    writable: bits & (libc::EPOLLOUT | libc::EPOLLERR) != 0,
                    failed: bits & libc::EPOLLERR != 0,
                }
            })
            .collect())
    }
}

/// Descriptors that one message may carry: stdin, stdout, stderr.
const PASSED_FDS_MAX: usize = 3;

/// A control buffer, aligned as its header wants it.
#[repr(C, align(8))]
struct ControlBuffer([u8; 64]);

/// Sends bytes with descriptors, which the receiver gets as its own. All bytes or an error.
pub(crate) fn send_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    assert!(fds.len() <= PASSED_FDS_MAX);
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = ControlBuffer([0; 64]);
    let payload = u32::try_from(size_of_val(raw.as_slice())).expect("at most three descriptors");
    // SAFETY: all zeros is a valid msghdr; its pointers are set to live buffers of the sizes given.
    // CMSG_SPACE of three ints is 32 bytes, less than the buffer, so the first header lies within it.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !raw.is_empty() {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(payload) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload) as _;
            ptr::copy_nonoverlapping(raw.as_ptr().cast(), libc::CMSG_DATA(header), payload as usize);
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    let sent = usize::try_from(check(sent as c_long)?).expect("checked not to be negative");
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives bytes and the descriptors that came with them.
pub(crate) fn receive_fds(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = ControlBuffer([0; 64]);
    let mut fds = Vec::new();
    // SAFETY: as in `send_fds`. The kernel wrote `msg_controllen` bytes of headers, which the CMSG
    // functions walk; each SCM_RIGHTS header carries as many new descriptors as its length says.
    let received = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        let received = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
        if received >= 0 {
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                    let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                    let data = libc::CMSG_DATA(header);
                    for index in 0..bytes / size_of::<RawFd>() {
                        let mut raw = [0; size_of::<RawFd>()];
                        let from = data.add(index * raw.len());
                        ptr::copy_nonoverlapping(from, raw.as_mut_ptr(), raw.len());
                        fds.push(own(RawFd::from_ne_bytes(raw).into()));
                    }
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        received
    };
    Ok((usize::try_from(check(received as c_long)?).expect("checked not to be negative"), fds))
}

/// Opens the other end of a pseudo-terminal, without looking at any path.
pub(crate) fn open_terminal(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    check_int(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const unlocked) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags and returns a new descriptor.
    check_int(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) })
        .map(|fd| own(fd.into()))
}

/// Sets rows and columns of a pseudo-terminal.
pub(crate) fn resize(master: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check_int(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) }).map(drop)
}

/// Makes a terminal the controlling one of this session.
pub(crate) fn take_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check_int(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) }).map(drop)
}

/// What kind of file system a descriptor is on.
pub(crate) fn filesystem_magic(fd: BorrowedFd<'_>) -> io::Result<i64> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: room for one statfs.
    check_int(unsafe { libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: fstatfs has filled it in.
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between architectures")]
    Ok(unsafe { stat.assume_init() }.f_type as i64)
}

/// The soft and hard limit of open descriptors.
pub(crate) fn descriptor_limit() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for one rlimit.
    check_int(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the soft and hard limit of open descriptors.
pub(crate) fn set_descriptor_limit(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: a live rlimit.
    check_int(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Gives memory that is free but held by the allocator back to the kernel.
pub(crate) fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The ambient set becomes empty.
pub(crate) fn prctl_ambient_clear() -> io::Result<()> {
    let all = u64::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned());
    // SAFETY: takes numbers only.
    check_int(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, all, 0u64, 0u64, 0u64) }).map(drop)
}

/// Closes every descriptor above stdio but the ones in `keep`.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.to_vec();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            // SAFETY: as in `close_from`.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) })?;
        }
        first = first.max(fd + 1);
    }
    close_from(first, false)
}
