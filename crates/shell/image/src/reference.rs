//! Decides what is a name for an image, and which names mean the same.

use std::fmt;
use std::str::FromStr;

use model::Digest;

use crate::limits::REFERENCE_BYTES_MAX;

/// Bytes in a tag, as the OCI distribution specification has it.
const TAG_BYTES_MAX: usize = 128;

/// Registries that Docker leaves out when it prints a name; so they are left out here.
const IMPLIED_REGISTRIES: [&str; 2] = ["docker.io/", "index.docker.io/"];

/// The folder of names of one part, left out for the same reason.
const IMPLIED_FOLDER: &str = "library/";

/// Why a text is not the name of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing at all, or nothing before the tag.
    #[error("the name of an image is empty")]
    Empty,
    /// More bytes than registries accept.
    #[error("the name of an image has {bytes} bytes, the limit is {REFERENCE_BYTES_MAX}")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// A part of the name breaks the rules.
    #[error("`{text}` is not the name of an image: {why}")]
    Name {
        /// The whole text.
        text: String,
        /// Which rule.
        why: &'static str,
    },
    /// The tag breaks the rules.
    #[error(
        "`{text}` has no valid tag: a tag is 1 to {TAG_BYTES_MAX} letters, digits, `_`, `.` or `-`, and begins \
         with a letter, a digit or `_`"
    )]
    Tag {
        /// The whole text.
        text: String,
    },
    /// The digest is not `sha256:` and 64 hexadecimal digits.
    #[error(
        "`{text}` has no valid digest after `@`: expected `sha256:` and 64 hexadecimal digits in lower case"
    )]
    Digest {
        /// The whole text.
        text: String,
    },
}

/// The name of an image: `name[:tag][@sha256:hex]`.
///
/// The name may begin with a registry (`host[:port]/`). `docker.io/library/web` and `web` are the
/// same, and so are `web` and `web:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads `name[:tag][@sha256:hex]`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(ReferenceError::TooLong { bytes: text.len() });
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let hex = digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
                (rest, Some(hex.ok_or_else(|| ReferenceError::Digest { text: text.into() })?))
            }
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag { text: text.into() });
        }
        check_name(name).map_err(|why| ReferenceError::Name { text: text.into(), why })?;
        let read = Self { name: short(name).into(), tag: tag.map(Into::into), digest };
        // What the index files it under, with the tag that is implied, must read back as well.
        let bytes = read.key().len();
        if bytes > REFERENCE_BYTES_MAX {
            return Err(ReferenceError::TooLong { bytes });
        }
        Ok(read)
    }

    /// The name, without tag and digest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag, where one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one was given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What the index files it under: `name:tag`, with `latest` where no tag was given.
    pub fn key(&self) -> String {
        format!("{}:{}", self.name, self.tag().unwrap_or("latest"))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tag, &self.digest) {
            (None, Some(digest)) => write!(f, "{}@sha256:{digest}", self.name),
            (_, Some(digest)) => write!(f, "{}@sha256:{digest}", self.key()),
            (_, None) => f.write_str(&self.key()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

fn is_tag(tag: &str) -> bool {
    let first = tag.as_bytes().first();
    tag.len() <= TAG_BYTES_MAX
        && first.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// The name without what is implied. Nothing is left out where the rest would be read as another name.
fn short(name: &str) -> &str {
    let rest = IMPLIED_REGISTRIES.iter().find_map(|implied| name.strip_prefix(implied)).unwrap_or(name);
    match rest.strip_prefix(IMPLIED_FOLDER) {
        Some(alone) if !alone.contains('/') => alone,
        _ if rest.split_once('/').is_some_and(|(first, _)| is_registry(first)) => name,
        _ => rest,
    }
}

/// As Docker has it: a first part (of several) with a dot or a port, or `localhost`, is a registry.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("nothing stands before the tag");
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 1 && is_registry(parts[0]) {
        check_registry(parts.remove(0))?;
    }
    parts.into_iter().try_for_each(check_part)
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = registry.split_once(':').unwrap_or((registry, "0"));
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the registry's port is not a number");
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if host.split('.').all(label) { Ok(()) } else { Err("the registry is not a host name in lower case") }
}

fn check_part(part: &str) -> Result<(), &'static str> {
    if part.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("upper case is not allowed (tags may have it)");
    }
    if part.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return Err("spaces are not allowed");
    }
    if part.is_empty() {
        return Err("a part between two `/` is empty");
    }
    if !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return Err("only a to z, 0 to 9, `.`, `_`, `-` and `/` are allowed");
    }
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !edge(part.bytes().next()) || !edge(part.bytes().last()) {
        return Err("every part begins and ends with a letter or a digit");
    }
    if part.contains("..") || part.contains("___") || part.contains("._") || part.contains("_.") {
        return Err("`..`, `___`, `._` and `_.` are not allowed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> String {
        Reference::parse(text).unwrap().key()
    }

    #[test]
    fn names_that_mean_the_same_are_filed_under_one_key() {
        for text in
            ["web", "web:latest", "library/web", "docker.io/library/web", "docker.io/library/web:latest"]
        {
            assert_eq!(key(text), "web:latest", "{text}");
        }
        assert_eq!(key("docker.io/team/web"), "team/web:latest");
        // Shorter, these would be read as others.
        assert_eq!(key("library/docker.io/web"), "library/docker.io/web:latest");
        assert_eq!(key("docker.io/ghcr.io/web"), "docker.io/ghcr.io/web:latest");
        assert_eq!(key("localhost:5000/a/b:V1"), "localhost:5000/a/b:V1");
        assert_eq!(key("ghcr.io/x/y__z-w.v"), "ghcr.io/x/y__z-w.v:latest");
        let hex = "ab".repeat(32);
        let pinned = Reference::parse(&format!("web:1@sha256:{hex}")).unwrap();
        assert_eq!((pinned.tag(), pinned.digest().unwrap().to_string()), (Some("1"), hex.clone()));
        assert_eq!(pinned.to_string(), format!("web:1@sha256:{hex}"));
        assert_eq!(
            Reference::parse(&format!("web@sha256:{hex}")).unwrap().to_string(),
            format!("web@sha256:{hex}")
        );
    }

    #[test]
    fn what_is_not_a_name_is_refused_with_the_rule_that_it_breaks() {
        let long = "a".repeat(300);
        for (text, expected) in [
            ("", "the name of an image is empty"),
            (":1", "`:1` is not the name of an image: nothing stands before the tag"),
            ("Web", "`Web` is not the name of an image: upper case is not allowed (tags may have it)"),
            ("a b", "`a b` is not the name of an image: spaces are not allowed"),
            ("a//b", "`a//b` is not the name of an image: a part between two `/` is empty"),
            ("/a", "`/a` is not the name of an image: a part between two `/` is empty"),
            ("a/", "`a/` is not the name of an image: a part between two `/` is empty"),
            ("../etc", "`../etc` is not the name of an image: the registry is not a host name in lower case"),
            (
                "a/../b",
                "`a/../b` is not the name of an image: every part begins and ends with a letter or a digit",
            ),
            ("a..b", "`a..b` is not the name of an image: `..`, `___`, `._` and `_.` are not allowed"),
            ("a/b..c", "`a/b..c` is not the name of an image: `..`, `___`, `._` and `_.` are not allowed"),
            ("é", "`é` is not the name of an image: only a to z, 0 to 9, `.`, `_`, `-` and `/` are allowed"),
            ("host:x/a", "`host:x/a` is not the name of an image: the registry's port is not a number"),
            (
                "web@sha256:12",
                "`web@sha256:12` has no valid digest after `@`: expected `sha256:` and 64 hexadecimal digits in lower case",
            ),
            (long.as_str(), "the name of an image has 300 bytes, the limit is 255"),
        ] {
            assert_eq!(Reference::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        // The implied `:latest` counts.
        assert!(Reference::parse(&"a".repeat(248)).is_ok());
        assert_eq!(Reference::parse(&"a".repeat(249)), Err(ReferenceError::TooLong { bytes: 256 }));
        for tag in ["web:", "web:-1", "web:a b", "web:é"] {
            assert!(matches!(Reference::parse(tag), Err(ReferenceError::Tag { .. })), "{tag}");
        }
    }
}
