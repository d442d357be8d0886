//! Finding and reading manifest files, in bounds.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// Bytes of one manifest: ten times the largest namespace that Skerry can hold. A larger file is not
/// a manifest, and is refused before it is read.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Files of one folder: more is a folder of something else.
const FILES_MAX: usize = 1_000;

/// The text of a manifest and the name that people know it by.
#[derive(Clone, Debug)]
pub struct Source {
    /// The path as given, or `<stdin>`.
    pub name: String,
    /// The text.
    pub text: String,
}

fn too_large(name: &str, size: Option<u64>) -> CliError {
    let size = size.map_or_else(|| "more".to_owned(), |size| format!("{size} bytes"));
    CliError::new(
        "manifest-too-large",
        format!("{name} is too large: {size}, the limit is {FILE_BYTES_MAX} bytes (4 MiB)"),
    )
    .hint("is it a manifest? Split it into several files if so")
}

fn read_bounded(name: &str, from: impl Read) -> Result<Source, CliError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_BYTES_MAX).expect("4 MiB fit") + 1;
    from.take(limit).read_to_end(&mut bytes).map_err(|error| cannot_read(name, &error))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(too_large(name, None));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        CliError::new("manifest", format!("{name} is not text"))
            .because(format!("byte {at} is not UTF-8"))
            .hint("manifests are YAML or JSON in UTF-8")
    })?;
    Ok(Source { name: name.to_owned(), text })
}

fn cannot_read(name: &str, error: &std::io::Error) -> CliError {
    CliError::new("manifest", format!("{name} cannot be read")).because(error.to_string())
}

fn read_file(path: &Path) -> Result<Source, CliError> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| cannot_read(&name, &error))?;
    let size = file.metadata().map_err(|error| cannot_read(&name, &error))?.len();
    if size > u64::try_from(FILE_BYTES_MAX).expect("4 MiB fit") {
        return Err(too_large(&name, Some(size)));
    }
    read_bounded(&name, file)
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ["yaml", "yml", "json"].iter().any(|known| ext == *known))
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let name = dir.display().to_string();
    let entries = std::fs::read_dir(dir).map_err(|error| cannot_read(&name, &error))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| cannot_read(&name, &error))?.path();
        if path.is_file() && is_manifest(&path) {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(CliError::new("manifest", format!("{name} holds more than {FILES_MAX} manifests")));
        }
    }
    if paths.is_empty() {
        return Err(CliError::new("manifest", format!("{name} holds no manifest"))
            .hint("files that end in .yaml, .yml or .json are read"));
    }
    paths.sort();
    Ok(paths)
}

/// Reads every file that `paths` name: files, folders (one level deep), `-` for standard input.
pub fn read_sources(paths: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            sources.push(read_bounded("<stdin>", std::io::stdin().lock())?);
        } else if path.is_dir() {
            for file in list(path)? {
                sources.push(read_file(&file)?);
            }
        } else {
            sources.push(read_file(path)?);
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_hundred_megabytes_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big.yaml");
        // Sparse: it takes no room, and reading it would show in the time of the test.
        std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
        let error = read_sources(std::slice::from_ref(&path)).unwrap_err();
        assert_eq!(
            error.what,
            format!("{} is too large: 104857600 bytes, the limit is 4194304 bytes (4 MiB)", path.display())
        );
    }

    #[test]
    fn an_endless_pipe_is_read_up_to_the_limit_and_refused() {
        let error = read_bounded("<stdin>", std::io::repeat(b'a')).unwrap_err();
        assert_eq!(error.what, "<stdin> is too large: more, the limit is 4194304 bytes (4 MiB)");
    }

    #[test]
    fn a_folder_gives_its_manifests_in_order_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", "notes.txt", "c.yml"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let texts: Vec<_> =
            read_sources(&[dir.path().to_owned()]).unwrap().into_iter().map(|source| source.text).collect();
        assert_eq!(texts, ["a.json", "b.yaml", "c.yml"]);
        let empty = tempfile::tempdir().unwrap();
        let error = read_sources(&[empty.path().to_owned()]).unwrap_err();
        assert_eq!(error.what, format!("{} holds no manifest", empty.path().display()));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_the_place() {
        let error = read_bounded("x.yaml", &b"ab\xff"[..]).unwrap_err();
        assert_eq!(error.what, "x.yaml is not text");
        assert_eq!(error.why[0].text, "byte 2 is not UTF-8");
    }
}
