//! The supervisor's one loop: from the program's first instruction to the exit record.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crate::cgroup;
use crate::error::StartError;
use crate::files;
use crate::protocol::{ExecLine, Reply, Request};
use crate::record::ExitRecord;
use crate::sys::boottime::Alarm;
use crate::sys::{self, Epoll, Event};

use super::control::{Connections, Role};
use super::exec::{self, Exec, Progress};
use super::log::{Log, Stream};
use super::proxy::Proxy;
use super::start::Live;

const CHILDREN: u64 = 0;
const OUT: u64 = 1;
const ERR: u64 = 2;
const SOCKET: u64 = 3;
const ALARM: u64 = 4;
const LISTENERS: u64 = 1 << 32;
const CONNECTIONS: u64 = 2 << 32;
const EXECS: u64 = 3 << 32;
const PROXY: u64 = 4 << 32;

/// Read at once from the program's output.
const READ_B: usize = 16 << 10;

/// Programs started in one container at a time.
const EXECS_MAX: usize = 32;

/// Exits of children that are not known yet: a program may end before its number is heard.
const STRANGERS_MAX: usize = 64;

/// The exit record is tried this often while the disk is full; then watchers are told all the same.
const RECORD_TRIES: u32 = 40;
const RECORD_WAIT: Duration = Duration::from_millis(250);

struct Life<'a> {
    live: &'a mut Live,
    epoll: Epoll,
    children: std::os::fd::OwnedFd,
    log: Log,
    streams: [Stream; 2],
    open: [bool; 2],
    connections: Connections,
    execs: Vec<Option<Exec>>,
    strangers: Vec<(u32, i32)>,
    proxy: Proxy,
    accepting: bool,
    kill_at: Option<Instant>,
    /// Rings when the container may run no longer.
    alarm: Alarm,
    /// It has rung.
    overdue: bool,
    /// Init's wait status.
    ended: Option<i32>,
}

/// Serves the container until it has ended and everybody was told.
pub(super) fn run(live: &mut Live) -> io::Result<()> {
    let log = Log::new(&live.dir, live.log);
    let mut life = Life {
        epoll: Epoll::new()?,
        children: sys::child_signals()?,
        log,
        streams: [Stream::new(b'o'), Stream::new(b'e')],
        open: [true; 2],
        connections: Connections::new(CONNECTIONS),
        execs: Vec::new(),
        strangers: Vec::new(),
        proxy: Proxy::new(PROXY),
        accepting: false,
        kill_at: None,
        alarm: Alarm::new()?,
        overdue: false,
        ended: None,
        live,
    };
    life.epoll.add(life.children.as_fd(), CHILDREN, true, false)?;
    life.epoll.add(life.live.out.as_fd(), OUT, true, false)?;
    life.epoll.add(life.live.err.as_fd(), ERR, true, false)?;
    life.epoll.add(life.live.socket.as_fd(), SOCKET, true, false)?;
    life.epoll.add(life.alarm.as_fd(), ALARM, true, false)?;
    if let Some(until) = life.live.until_boot_ns {
        life.alarm.set(until)?;
    }
    life.accept_ports(true)?;
    // A child that ended before the descriptor was made left no signal behind.
    life.reap()?;
    while life.ended.is_none() {
        let timeout = life.timeout_ms();
        for event in life.epoll.wait(timeout)? {
            life.handle(event)?;
        }
        life.proxy.settle();
        life.overdue()?;
    }
    life.finish()
}

impl Life<'_> {
    fn timeout_ms(&self) -> i32 {
        let deadlines = self.streams.iter().map(Stream::deadline).chain([self.kill_at]).flatten();
        deadlines.min().map_or(-1, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, or the last millisecond would be spent spinning.
            i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX)
        })
    }

    fn overdue(&mut self) -> io::Result<()> {
        for stream in &mut self.streams {
            self.log.flush_overdue(stream);
        }
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            self.kill()?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> io::Result<()> {
        match event.token {
            CHILDREN => {
                let mut buffer = [0; 1024];
                match sys::read(self.children.as_fd(), &mut buffer) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
                self.reap()
            }
            ALARM => self.may_run_no_longer(),
            OUT => self.read_output(0),
            ERR => self.read_output(1),
            SOCKET => self.connections.accept(&self.epoll, &self.live.socket).or_else(|error| {
                self.log.notice(&format!("a control connection was not accepted: {error}"));
                Ok(())
            }),
            token if token >= PROXY => {
                if self.proxy.turn(&self.epoll, event) {
                    self.accept_ports(true)?;
                }
                Ok(())
            }
            token if token >= EXECS => {
                self.exec_progress(low(token));
                Ok(())
            }
            token if token >= CONNECTIONS => self.talk(low(token)),
            token => self.forward(low(token)),
        }
    }

    /// Reads once from the program's output, so that a chatty program does not starve the rest.
    fn read_output(&mut self, which: usize) -> io::Result<()> {
        if !self.open[which] {
            return Ok(());
        }
        let pipe = if which == 0 { self.live.out.as_fd() } else { self.live.err.as_fd() };
        let mut buffer = [0; READ_B];
        match sys::read(pipe, &mut buffer) {
            Ok(0) => {
                // The program has closed it; that is no reason to end.
                self.open[which] = false;
                self.epoll.remove(pipe)?;
                self.log.finish(&mut self.streams[which]);
            }
            Ok(n) => self.log.take(&mut self.streams[which], &buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The alarm rang: unless the end was moved on, all of the container is killed, without grace.
    fn may_run_no_longer(&mut self) -> io::Result<()> {
        let mut rang = [0; 8];
        match sys::read(self.alarm.as_fd(), &mut rang) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        let over = self.live.until_boot_ns.is_some_and(|until| until <= sys::boottime::now_ns());
        if over {
            self.log.notice("killed: the time in which it may run is over, and nobody has moved it on");
            self.overdue = true;
            self.kill()?;
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        let init = self.live.state.init.pid;
        while let Some((pid, status)) = sys::reap()? {
            let pid = pid.cast_unsigned();
            if pid == init {
                self.ended = Some(status);
                continue;
            }
            let index = self.execs.iter().position(|it| it.as_ref().is_some_and(|it| it.pid == Some(pid)));
            if let Some(index) = index {
                self.exec_ended(index, status);
            } else {
                if self.strangers.len() == STRANGERS_MAX {
                    self.strangers.remove(0);
                }
                self.strangers.push((pid, status));
            }
        }
        Ok(())
    }

    fn exec_ended(&mut self, index: usize, status: i32) {
        if let Some(exec) = self.execs[index].take() {
            self.connections.reply(exec.connection, &exec::exit_reply(status));
            self.connections.close(exec.connection);
        }
    }

    fn exec_progress(&mut self, index: usize) {
        let Some(Some(exec)) = self.execs.get_mut(index) else { return };
        let connection = exec.connection;
        match exec.progress() {
            Progress::Waiting => {}
            Progress::Runs { pid, fds } => {
                self.connections.reply_with(connection, &Reply::Exec { pid }, &fds);
                if let Some(at) = self.strangers.iter().position(|(stranger, _)| *stranger == pid) {
                    let (_, status) = self.strangers.remove(at);
                    self.exec_ended(index, status);
                }
            }
            Progress::Failed(error) => {
                self.execs[index] = None;
                self.connections.reply(connection, &Reply::ExecFailed(error));
                self.connections.close(connection);
            }
        }
        if self.execs.iter().all(Option::is_none) {
            self.strangers.clear();
        }
    }

    fn talk(&mut self, index: usize) -> io::Result<()> {
        let Some(brought) = self.connections.read(index) else { return Ok(()) };
        let mut role = brought.role;
        for line in &brought.lines {
            match role {
                Role::New => {
                    let Some(next) = self.request(index, line)? else {
                        self.connections.close(index);
                        return Ok(());
                    };
                    role = next;
                    self.connections.set_role(index, role);
                }
                Role::Watch => {}
                Role::Exec(exec) => self.exec_line(exec, line),
            }
        }
        if brought.over {
            if let Role::Exec(exec) = role {
                self.abandon(exec);
            }
            if role == Role::New {
                self.connections.reply(index, &Reply::Refused("the request is not a line of JSON".into()));
            }
            self.connections.close(index);
        }
        Ok(())
    }

    /// Leaves a note for a peer that is started before this has ended. Without it that peer would take the
    /// program for one that runs on; not to stop it for that would be worse.
    fn note_stop(&mut self) {
        let path = self.live.dir.join(files::STOPPING);
        if let Err(error) = std::fs::File::create(&path) {
            self.log.notice(&format!("{} cannot be made: {error}", path.display()));
        }
    }

    /// Answers the first line of a connection. `None` when that was all.
    fn request(&mut self, index: usize, line: &[u8]) -> io::Result<Option<Role>> {
        let request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => {
                self.connections.reply(index, &Reply::Refused(format!("not understood: {error}")));
                return Ok(None);
            }
        };
        match request {
            Request::Watch => {
                self.connections.reply(index, &Reply::Ok);
                return Ok(Some(Role::Watch));
            }
            Request::Stop { grace_ms } => {
                self.note_stop();
                let at = Instant::now().checked_add(Duration::from_millis(grace_ms));
                // A second stop may be more impatient than the first, never less.
                self.kill_at = [self.kill_at, at].into_iter().flatten().min();
                self.signal(libc::SIGTERM)?;
                // A stopped program acts on nothing until it is continued.
                self.signal(libc::SIGCONT)?;
                self.connections.reply(index, &Reply::Ok);
            }
            Request::Extend { until_boot_ns } => {
                if let Some(until) = self.live.until_boot_ns.filter(|until| *until < until_boot_ns) {
                    // One that is over stays over: it has been killed, and another may run.
                    if until > sys::boottime::now_ns() {
                        self.live.until_boot_ns = Some(until_boot_ns);
                        self.alarm.set(until_boot_ns)?;
                    }
                }
                self.connections.reply(index, &Reply::Ok);
            }
            Request::Kill => {
                self.note_stop();
                self.kill()?;
                self.connections.reply(index, &Reply::Ok);
            }
            Request::Signal { signal } => {
                let reply = match signal {
                    // Init cannot pass these on: one it never sees, the other is its own business.
                    libc::SIGSTOP | libc::SIGCHLD => {
                        Reply::Refused(format!("signal {signal} cannot be passed on"))
                    }
                    1..=64 => {
                        self.signal(signal)?;
                        Reply::Ok
                    }
                    _ => Reply::Refused(format!("there is no signal {signal}")),
                };
                self.connections.reply(index, &reply);
            }
            Request::Exec(request) => {
                let slot = self.execs.iter().position(Option::is_none).unwrap_or(self.execs.len());
                if slot == EXECS_MAX {
                    let text = format!("{EXECS_MAX} programs were started in the container already");
                    self.connections.reply(index, &Reply::Refused(text));
                    return Ok(None);
                }
                return match exec::begin(self.live, &request, index) {
                    Ok(exec) => {
                        if let Some(lines) = &exec.lines {
                            self.epoll.add(lines.as_fd(), EXECS + slot as u64, true, false)?;
                        }
                        if slot == self.execs.len() {
                            self.execs.push(Some(exec));
                        } else {
                            self.execs[slot] = Some(exec);
                        }
                        Ok(Some(Role::Exec(slot)))
                    }
                    Err(error) => {
                        self.connections.reply(index, &Reply::ExecFailed(error));
                        Ok(None)
                    }
                };
            }
        }
        Ok(None)
    }

    fn exec_line(&mut self, index: usize, line: &[u8]) {
        let Some(Some(exec)) = self.execs.get(index) else { return };
        let connection = exec.connection;
        let done = match serde_json::from_slice(line) {
            Ok(ExecLine::Resize(rows, columns)) => exec.resize(rows, columns),
            Ok(ExecLine::Signal(signal @ 1..=64)) => exec.signal(signal),
            Ok(ExecLine::Signal(signal)) => Err(io::Error::other(format!("there is no signal {signal}"))),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            self.connections.reply(connection, &Reply::Refused(error.to_string()));
        }
    }

    /// The client of an exec is gone: its program is told as if its line had been cut.
    fn abandon(&mut self, index: usize) {
        if let Some(Some(exec)) = self.execs.get(index)
            && let Err(error) = exec.signal(libc::SIGHUP)
        {
            self.log.notice(&format!("a program without client was not told: {error}"));
        }
    }

    /// To the program, by way of init.
    fn signal(&self, signal: i32) -> io::Result<()> {
        match sys::pidfd_signal(self.live.init.as_fd(), signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
            _ => Ok(()),
        }
    }

    /// Init's end is the end of all its namespace: the kernel sees to it.
    fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Starts or stops to listen on the published ports.
    fn accept_ports(&mut self, accept: bool) -> io::Result<()> {
        if accept == self.accepting {
            return Ok(());
        }
        for (index, listener) in self.live.listeners.iter().enumerate() {
            if accept {
                self.epoll.add(listener.socket.as_fd(), LISTENERS + index as u64, true, false)?;
            } else {
                self.epoll.remove(listener.socket.as_fd())?;
            }
        }
        self.accepting = accept;
        Ok(())
    }

    /// Takes one waiting client of a published port.
    fn forward(&mut self, index: usize) -> io::Result<()> {
        let Some(listener) = self.live.listeners.get(index) else { return Ok(()) };
        if !self.proxy.has_room() {
            return self.accept_ports(false);
        }
        let client = match sys::accept(listener.socket.as_fd()) {
            Ok(client) => client,
            // Out of descriptors or memory: wait until a connection ends.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                ) =>
            {
                return self.accept_ports(false);
            }
            // The client has given up, or the network has: nothing of ours.
            Err(_) => return Ok(()),
        };
        let container = listener.container;
        // A container that does not listen refuses, and so the client is hung up on.
        match self
            .live
            .connector
            .socket()
            .and_then(|inner| self.proxy.open(&self.epoll, client, inner, container))
        {
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// After init's end: nothing is left of the container when this tells of it.
    fn finish(&mut self) -> io::Result<()> {
        self.live.listeners.clear();
        files::remove_if_there(&self.live.dir.join(files::LISTENERS))?;
        self.kill_the_rest();
        self.reap()?;
        for which in 0..2 {
            self.drain(which)?;
        }
        let record = self.record();
        for tries in 0..=RECORD_TRIES {
            match files::write_durable(&self.live.dir, files::EXIT, &record) {
                Ok(()) => break,
                Err(error) if tries == RECORD_TRIES => {
                    self.log.notice(&format!("the exit record was not written: {error}"));
                }
                Err(_) => std::thread::sleep(RECORD_WAIT),
            }
        }
        self.clean_up();
        self.connections.tell_watchers(&Reply::Exit(record));
        Ok(())
    }

    /// The kernel has killed all of the container's processes; this waits until it is so, for as long
    /// as that takes.
    fn kill_the_rest(&mut self) {
        loop {
            match cgroup::kill_all(&self.live.groups) {
                Ok(true) => return,
                Ok(false) => self.log.notice("some processes do not end although they were killed"),
                Err(error) => {
                    self.log.notice(&format!("the container's processes cannot be seen: {error}"));
                    return;
                }
            }
        }
    }

    /// Reads what the program had written before it ended.
    fn drain(&mut self, which: usize) -> io::Result<()> {
        if !self.open[which] {
            return Ok(());
        }
        let mut buffer = [0; READ_B];
        loop {
            let pipe = if which == 0 { self.live.out.as_fd() } else { self.live.err.as_fd() };
            match sys::read(pipe, &mut buffer) {
                Ok(0) => break,
                Ok(n) => self.log.take(&mut self.streams[which], &buffer[..n]),
                // Somebody outside holds the other end, and all that was in there is read.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.log.finish(&mut self.streams[which]);
        Ok(())
    }

    fn record(&mut self) -> ExitRecord {
        let mut bytes = [0; 4];
        // Init tells the program's status; when it was killed itself, that is the container's end.
        let status = match sys::read(self.live.status.as_fd(), &mut bytes) {
            Ok(4) => i32::from_ne_bytes(bytes),
            Ok(_) | Err(_) => self.ended.unwrap_or(libc::SIGKILL),
        };
        let (code, signal) = sys::decode_status(status);
        let kills = cgroup::oom_kills(&self.live.groups).unwrap_or_else(|error| {
            self.log.notice(&format!("whether memory ran out cannot be told: {error}"));
            None
        });
        ExitRecord {
            code,
            signal,
            // A program that went on after a child was killed, and ended well, did not die of it.
            oom: kills.unwrap_or(0) > 0 && code != Some(0),
            // Nor of that, if it ended by itself just then.
            overdue: self.overdue && code.is_none(),
            started_ms: self.live.state.started_ms,
            exited_ms: files::now_ms(),
        }
    }

    /// What cannot be removed now, `Runtime::remove` tries again.
    fn clean_up(&mut self) {
        let cleaned = cgroup::remove(&self.live.groups).and_then(|()| {
            for file in [files::CGROUPS, files::STATE, files::SOCKET] {
                files::remove_if_there(&self.live.dir.join(file))?;
            }
            cgroup::remove_empty_parents(&self.live.layout, &self.live.cgroup_parent)
        });
        if let Err(error) = cleaned {
            self.log.notice(&format!("not everything of the container was cleaned up: {error}"));
        }
        let unheard = StartError::Supervisor { problem: "the container has ended".into() };
        for index in 0..self.execs.len() {
            if let Some(exec) = self.execs[index].take() {
                self.connections.reply(exec.connection, &Reply::ExecFailed(unheard.clone()));
            }
        }
    }
}

/// The lower half of a token: a number within its kind.
fn low(token: u64) -> usize {
    usize::try_from(token & u64::from(u32::MAX)).expect("half of a token fits")
}
