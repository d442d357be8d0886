//! Files that appear whole or not at all, and folders that disappear whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::{NamedTempFile, TempDir};

use crate::ImageError;
use crate::error::at;

/// Makes a folder and its parents.
pub(crate) fn make_dir(path: &Path) -> Result<(), ImageError> {
    fs::create_dir_all(path).map_err(at("make the folder", path))
}

/// Makes the names inside a folder durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at("sync the folder", path))
}

/// A new file in `tmp` that is deleted unless it is kept.
pub(crate) fn temp_file(tmp: &Path) -> Result<NamedTempFile, ImageError> {
    NamedTempFile::new_in(tmp).map_err(at("make a file in", tmp))
}

/// A new folder in `tmp`.
pub(crate) fn temp_dir(tmp: &Path) -> Result<TempDir, ImageError> {
    TempDir::new_in(tmp).map_err(at("make a folder in", tmp))
}

/// Syncs a file, gives it its name and syncs that too.
pub(crate) fn keep(file: NamedTempFile, path: &Path) -> Result<(), ImageError> {
    file.as_file().sync_all().map_err(at("sync", path))?;
    file.persist(path).map_err(|error| ImageError::file("name", path, error.error))?;
    sync_dir(path.parent().expect("every kept file is inside the store"))
}

/// Writes a small file so that a crash leaves the old one or the new one.
pub(crate) fn replace(tmp: &Path, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let mut file = temp_file(tmp)?;
    file.write_all(bytes).map_err(at("write", path))?;
    keep(file, path)
}

/// Deletes a folder with all that is in it; that it is not there is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<(), ImageError> {
    with_entry(path, |path| match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ImageError::file("delete", path, error)),
        _ => Ok(()),
    })
}

/// Deletes all that is in a folder, and not the folder: to make it anew may need room.
pub(crate) fn empty_dir(path: &Path) -> Result<(), ImageError> {
    for entry in fs::read_dir(path).map_err(at("list", path))? {
        let entry = entry.map_err(at("list", path))?;
        if entry.file_type().map_err(at("look at", &entry.path()))?.is_dir() {
            remove_tree(&entry.path())?;
        } else {
            fs::remove_file(entry.path()).map_err(at("delete", &entry.path()))?;
        }
    }
    Ok(())
}

/// Deletes a folder and returns the bytes that its files took on the disk. Hard links count once for
/// each name.
pub(crate) fn remove_counted(path: &Path) -> Result<u64, ImageError> {
    let freed = with_entry(path, tree_bytes)?;
    remove_tree(path)?;
    Ok(freed)
}

/// Layers hold folders that their own owner may not read or write; only root passes by that. Others
/// open them up first.
fn with_entry<T>(path: &Path, act: impl Fn(&Path) -> Result<T, ImageError>) -> Result<T, ImageError> {
    match act(path) {
        Err(ImageError::File { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            act(path)
        }
        other => other,
    }
}

/// Makes every folder below writable by its owner. Never follows a link: `read_dir` says what each
/// entry is, and nobody else writes in the store.
fn open_up(path: &Path) -> Result<(), ImageError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(at("open up", path))?;
    for entry in fs::read_dir(path).map_err(at("list", path))? {
        let entry = entry.map_err(at("list", path))?;
        if entry.file_type().map_err(at("look at", &entry.path()))?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

fn tree_bytes(path: &Path) -> Result<u64, ImageError> {
    let mut total = 0;
    for entry in fs::read_dir(path).map_err(at("list", path))? {
        let path = entry.map_err(at("list", path))?.path();
        let meta = fs::symlink_metadata(&path).map_err(at("look at", &path))?;
        total += if meta.is_dir() { tree_bytes(&path)? } else { meta.blocks() * 512 };
    }
    Ok(total)
}
