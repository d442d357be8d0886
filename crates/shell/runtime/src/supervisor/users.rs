//! Gives a container's users what they need of the host: a mapping, and the things made for them.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, fchown};
use std::path::Path;

use nix::unistd::{getegid, geteuid};

use crate::container::{self, Mapped};
use crate::error::StartError;
use crate::files;
use crate::spec::ContainerSpec;
use crate::users::{IDS, Ids, Range, Users};

use super::start::file_error;

/// The users of the container in `dir`, and what it lacks, in words.
pub(super) fn of(dir: &Path, rootless: bool) -> Result<(Users, Vec<String>), StartError> {
    if rootless {
        return Ok((Users::Own, Vec::new()));
    }
    let without = |why: &str| {
        let missing = format!("no user namespace, user 0 of the container is root of the host: {why}");
        Ok((Users::Host, vec![missing]))
    };
    match files::read::<Ids>(dir, files::IDS).map_err(|error| file_error(&error))? {
        Some(Ids::Mapped(range)) if range.is_one() => Ok((Users::Mapped(range), Vec::new())),
        Some(Ids::Mapped(Range { first })) => Err(StartError::Spec {
            path: dir.join(files::IDS),
            problem: format!("{first} is not the first id of a range"),
        }),
        Some(Ids::Host { why }) => without(&why),
        None => without("the peer that started it knows of none"),
    }
}

/// Writes the mapping of the user namespace of process `pid`.
pub(super) fn map(pid: u32, users: Users) -> Result<(), StartError> {
    let (uids, gids) = match users {
        Users::Host => return Ok(()),
        // User 0 of the container is us; it knows nobody else.
        Users::Own => (format!("0 {} 1\n", geteuid()), format!("0 {} 1\n", getegid())),
        Users::Mapped(Range { first }) => {
            let line = format!("0 {first} {IDS}\n");
            (line.clone(), line)
        }
    };
    // Without root the kernel wants groups to be given up before one is mapped.
    let deny = users.are_rootless().then(|| ("setgroups", "deny".to_owned()));
    for (file, text) in deny.into_iter().chain([("uid_map", uids), ("gid_map", gids)]) {
        fs::write(format!("/proc/{pid}/{file}"), text)
            .map_err(StartError::kernel(format!("write the {file} of the container")))?;
    }
    Ok(())
}

/// The overlay of a container that cannot make it by itself, for its first process `pid`, which is
/// mapped.
pub(super) fn overlay(
    pid: u32,
    users: Users,
    dir: &Path,
    spec: &ContainerSpec,
) -> Result<Option<Mapped>, StartError> {
    let Users::Mapped(_) = users else { return Ok(None) };
    let namespace = fs::File::open(format!("/proc/{pid}/ns/user"))
        .map_err(StartError::kernel("open the container's user namespace"))?;
    container::make_mapped(dir, &spec.lower, namespace.as_fd()).map(Some)
}

/// Makes user 0 of the container the owner of a pipe, so that it may hand it on to the program's user.
pub(super) fn own(pipe: BorrowedFd<'_>, users: Users) -> Result<(), StartError> {
    let Users::Mapped(Range { first }) = users else { return Ok(()) };
    fchown(pipe, Some(first), Some(first)).map_err(StartError::kernel("hand a pipe to the container"))
}

/// The merged root looks like its topmost folder, so that one takes on the looks of the image's.
pub(super) fn dress_upper(dir: &Path, spec: &ContainerSpec, users: Users) -> Result<(), StartError> {
    let upper = dir.join(container::FOLDERS[0]);
    let Some(Ok(image)) = spec.lower.first().map(fs::metadata) else {
        // The container's own attempt names the layer that is missing.
        return Ok(());
    };
    let owners = match users {
        Users::Own => None,
        Users::Host => Some((image.uid(), image.gid())),
        // An owner whom the container does not know would leave it a root that it cannot change.
        Users::Mapped(range) => {
            Some((range.of(image.uid()).unwrap_or(range.first), range.of(image.gid()).unwrap_or(range.first)))
        }
    };
    let dressed: io::Result<()> = (|| {
        if let Some((uid, gid)) = owners {
            chown(&upper, Some(uid), Some(gid))?;
        }
        fs::set_permissions(&upper, fs::Permissions::from_mode(image.mode() & 0o7777))
    })();
    dressed.map_err(StartError::kernel(format!("prepare {}", dir.display())))
}
