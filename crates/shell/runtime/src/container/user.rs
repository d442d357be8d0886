//! A user's name to numbers, by the image's own files.

use std::path::Path;

use crate::error::{Errno, StartError};
use crate::files::read_bounded;

/// A user database larger than this is not one.
const DATABASE_B_MAX: u64 = 4 << 20;

/// More than the kernel's limit of 65536 would be refused anyway.
const GROUPS_MAX: usize = 1024;

/// Who the program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Further groups.
    pub(super) groups: Vec<u32>,
    /// The home folder.
    pub(super) home: String,
}

/// Looks the user up below the current root, which is the container's.
pub(super) fn look_up(wanted: Option<&str>) -> Result<User, StartError> {
    let wanted = wanted.unwrap_or("0");
    let passwd = database("/etc/passwd", wanted)?;
    let group = database("/etc/group", wanted)?;
    find(wanted, &passwd, &group).ok_or_else(|| StartError::UserMissing { user: wanted.into() })
}

fn database(path: &str, user: &str) -> Result<String, StartError> {
    match read_bounded(Path::new(path), DATABASE_B_MAX) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(StartError::Kernel {
            action: format!("read {path} of the image for user `{user}`"),
            source: Errno::from(error),
        }),
    }
}

/// `name`, `uid`, `name:group`, `uid:gid`. A number need not be in the files; a name must.
fn find(wanted: &str, passwd: &str, group: &str) -> Option<User> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, uid, gid, _, home, ..] = &fields[..] else { return None };
        let (uid, gid) = (uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?);
        (name == user || user.parse() == Ok(uid)).then_some((name, uid, gid, home))
    });
    let (name, uid, own_gid, home) = match entry {
        Some(entry) => entry,
        None => ("", number(user)?, 0, "/"),
    };
    let mut groups = Vec::new();
    let mut named_gid = None;
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let &[group_name, _, gid, members, ..] = &fields[..] else { continue };
        let Ok(gid) = gid.parse::<u32>() else { continue };
        if wanted_group == Some(group_name) {
            named_gid = Some(gid);
        }
        let member = !name.is_empty() && members.split(',').any(|it| it == name);
        if member && !groups.contains(&gid) && groups.len() < GROUPS_MAX {
            groups.push(gid);
        }
    }
    let gid = match wanted_group {
        None => own_gid,
        Some(text) => match number(text) {
            Some(gid) => gid,
            None => named_gid?,
        },
    };
    let home = if home.starts_with('/') { home } else { "/" };
    Some(User { uid, gid, groups, home: home.to_owned() })
}

/// The kernel keeps the highest number for "no change".
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken line\nweb:x:33:34:w:/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nlogs:x:50:other,web\nweb:x:34:\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number_with_its_groups() {
        let web = User { uid: 33, gid: 34, groups: vec![50], home: "/srv".into() };
        assert_eq!(find("web", PASSWD, GROUP), Some(web.clone()));
        assert_eq!(find("33", PASSWD, GROUP), Some(web.clone()));
        assert_eq!(find("web:logs", PASSWD, GROUP), Some(User { gid: 50, ..web.clone() }));
        assert_eq!(find("33:7", PASSWD, GROUP), Some(User { gid: 7, ..web }));
    }

    #[test]
    fn a_number_needs_no_entry_and_a_name_does() {
        let stranger = User { uid: 1000, gid: 0, groups: vec![], home: "/".into() };
        assert_eq!(find("1000", PASSWD, GROUP), Some(stranger));
        assert_eq!(find("0", "", ""), Some(User { uid: 0, gid: 0, groups: vec![], home: "/".into() }));
        assert_eq!(find("nobody", PASSWD, GROUP), None);
        assert_eq!(find("web:nogroup", PASSWD, GROUP), None);
        assert_eq!(find("", PASSWD, GROUP), None);
        assert_eq!(find("4294967295", PASSWD, GROUP), None);
        assert_eq!(find("-1", PASSWD, GROUP), None);
    }
}
