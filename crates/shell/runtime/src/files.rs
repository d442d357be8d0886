//! Small files that must be whole or absent, and what identifies a process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::RuntimeError;
use crate::record::Process;
use crate::sys;

/// What the container shall be.
pub(crate) const SPEC: &str = "spec.json";
/// Who runs it; see [`crate::record::StateFile`].
pub(crate) const STATE: &str = "state.json";
/// Who its users are on the host; see [`crate::users::Ids`].
pub(crate) const IDS: &str = "ids.json";
/// There once it was told to stop, empty.
pub(crate) const STOPPING: &str = "stopping";
/// How it ended.
pub(crate) const EXIT: &str = "exit.json";
/// Its control groups, written before they are made.
pub(crate) const CGROUPS: &str = "cgroups.json";
/// Its listeners, so that others of the same runtime folder know them as ours.
pub(crate) const LISTENERS: &str = "listeners.json";
/// Locked by a supervisor for as long as it lives.
pub(crate) const LOCK: &str = "lock";
/// The supervisor's socket.
pub(crate) const SOCKET: &str = "control.sock";
/// What a panicking supervisor said.
pub(crate) const STDERR: &str = "supervisor.err";
/// The log; rotated ones are `log.1`, `log.2` and so on, the oldest has the highest number.
pub(crate) const LOG: &str = "log";

/// A specification holds at most 1 MiB of arguments and environment; JSON may double them.
const FILE_B_MAX: u64 = 4 << 20;

/// Writes so that after a power cut the file is the old one or the new one, never half of one.
pub(crate) fn write_durable<T: Serialize>(dir: &Path, name: &str, value: &T) -> Result<(), RuntimeError> {
    write(dir, name, value, true)
}

/// As [`write_durable`], for what means nothing after a restart of the machine.
pub(crate) fn write_volatile<T: Serialize>(dir: &Path, name: &str, value: &T) -> Result<(), RuntimeError> {
    write(dir, name, value, false)
}

fn write<T: Serialize>(dir: &Path, name: &str, value: &T, durable: bool) -> Result<(), RuntimeError> {
    let path = dir.join(name);
    let tmp = dir.join(format!(".{name}.tmp"));
    let bytes = serde_json::to_vec(value)
        .map_err(|source| RuntimeError::Unreadable { path: path.clone(), source })?;
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
        file.write_all(&bytes)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&tmp, &path)?;
        if durable { sync_dir(dir) } else { Ok(()) }
    })();
    written.map_err(RuntimeError::file("write", path))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Reads a JSON file; `None` when it is not there.
pub(crate) fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>, RuntimeError> {
    let path = dir.join(name);
    let bytes = match read_bounded(&path, FILE_B_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RuntimeError::File { action: "read", path, source }),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| RuntimeError::Unreadable { path, source })
}

/// Reads a whole file, and fails when it is larger than it may be.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK a FIFO in its place would hold us for ever.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes a lock file if nobody holds it. Held until the file is dropped or the process ends.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = open_lock(path)?;
    Ok(if sys::flock_try(file.as_fd())? { Some(file) } else { None })
}

/// Takes a lock file, waiting for it.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    let file = open_lock(path)?;
    sys::flock_wait(file.as_fd())?;
    Ok(file)
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Removes a folder with all that is in it, also folders that their owner may not look into, as
/// overlayfs leaves them behind.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        done => done,
    }
}

/// Lets the owner into every folder below `path`. A container chose the names but cannot choose the
/// depth of our stack: what is to be visited is a list.
fn open_up(path: &Path) -> io::Result<()> {
    let mut folders: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Milliseconds since 1970 by this machine's clock, which may be wrong.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Changes with every boot.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn find(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: read_stat(pid)?.start_ticks })
    }

    /// Whether this very process still runs; a zombie does not.
    pub(crate) fn is_alive(&self) -> bool {
        read_stat(self.pid)
            .is_ok_and(|stat| stat.start_ticks == self.start_ticks && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Whether this very process runs and has not begun to end.
    pub(crate) fn is_well(&self) -> bool {
        self.is_alive() && read_stat(self.pid).is_ok_and(|stat| stat.flags & PF_EXITING == 0)
    }
}

/// The kernel is closing its files, or has done so.
const PF_EXITING: u64 = 0x4;

/// Some fields of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    flags: u64,
    start_ticks: u64,
}

fn read_stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a stat line"))
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the name in brackets, and a name may hold spaces and brackets.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let flags = fields.nth(5)?.parse().ok()?;
    Some(Stat { state, flags, start_ticks: fields.nth(12)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_name_made_to_confuse_is_read_rightly() {
        let text = "7 (a) R 1 2 (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', flags: 4_194_560, start_ticks: 4242 }));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn a_process_is_itself_and_not_its_successor() {
        let me = Process::find(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { start_ticks: me.start_ticks + 1, ..me }.is_alive());
    }

    #[test]
    fn a_file_larger_than_it_may_be_is_refused_and_an_absent_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("big"), vec![b'1'; 100]).unwrap();
        assert_eq!(
            read_bounded(&dir.path().join("big"), 99).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        assert_eq!(read_bounded(&dir.path().join("big"), 100).unwrap().len(), 100);
        assert_eq!(read::<u32>(dir.path(), "absent").unwrap(), None);
        write_durable(dir.path(), "n", &7).unwrap();
        assert_eq!(read::<u32>(dir.path(), "n").unwrap(), Some(7));
        fs::write(dir.path().join("n"), "{").unwrap();
        assert!(read::<u32>(dir.path(), "n").unwrap_err().to_string().contains("/n cannot be understood"));
    }

    #[test]
    fn a_lock_is_held_once_and_is_free_after_it_was_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK);
        let held = try_lock(&path).unwrap().unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
    }
}
