//! Every limit of the store: a name, a unit, a reason; and one bundle of them that tests can shrink.

/// Bytes of a manifest, an index or a configuration: the limit that registries keep.
pub const JSON_BYTES_MAX: u64 = 4 << 20;

/// Layers of one image: more than any builder makes (Docker stops at 127), and a number of lower
/// folders that overlayfs takes.
pub const LAYERS_MAX: usize = 128;

/// Bytes of one blob: the largest machine-learning images come in layers of some 10 GB.
pub const BLOB_BYTES_MAX: u64 = 32 << 30;

/// Bytes of one archive, unpacked from its own compression: two of the largest blobs.
pub const ARCHIVE_BYTES_MAX: u64 = 64 << 30;

/// Entries of one archive of images: three for each layer of five hundred images.
pub const ARCHIVE_ENTRIES_MAX: u64 = 200_000;

/// Images in one archive: more is an archive of a whole registry, or an attack on the index.
pub const ARCHIVE_IMAGES_MAX: usize = 1_024;

/// Entries of one layer: twice what the largest images (a monorepo of JavaScript) hold.
pub const LAYER_ENTRIES_MAX: u64 = 1_000_000;

/// Folders of one layer: what becomes of each is held in memory until the end, some 200 bytes.
pub const LAYER_DIRS_MAX: usize = 250_000;

/// Bytes that one layer may unpack to: as much as its blob may have.
pub const LAYER_BYTES_MAX: u64 = 32 << 30;

/// Bytes out for each byte in, once [`LAYER_RATIO_FREE_BYTES`] are used up. File systems pack 2 to 5
/// times, text 20, logs 100 times; beyond this there are only zeros.
pub const LAYER_RATIO_MAX: u64 = 200;

/// Bytes that a layer may unpack to whatever its ratio: a small swap or database file of zeros.
pub const LAYER_RATIO_FREE_BYTES: u64 = 256 << 20;

/// Bytes of a path or a link's target: Linux' own `PATH_MAX`, with its closing zero.
pub const PATH_BYTES_MAX: usize = 4_095;

/// Bytes of one part of a path: `NAME_MAX` of every file system that a node may have.
pub const PART_BYTES_MAX: usize = 255;

/// Folders inside folders. Cleaning up holds one file handle for each, and a process has 1,024.
pub const DEPTH_MAX: u32 = 200;

/// Bytes of headers for one entry (long names, PAX records): `tar` holds them in memory.
pub const ENTRY_HEADER_BYTES_MAX: u64 = 1 << 20;

/// Bytes of all extended attributes of one entry: what the VFS takes for one of them.
pub const ENTRY_XATTR_BYTES_MAX: usize = 64 * 1024;

/// Symbolic links walked through on the way to one entry: Linux' own limit.
pub const LINKS_WALKED_MAX: u32 = 40;

/// The binary logarithm of the window that a zstd stream may ask for: 32 MiB, four times what its
/// highest ordinary level uses; more would be felt on a node of 512 MiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 25;

/// Bytes of a name, with its registry, tag and digest: what registries accept.
pub const REFERENCE_BYTES_MAX: usize = 255;

/// Shared libraries of one program: a desktop program has some 200.
pub const LIBRARIES_MAX: usize = 512;

/// How long a blob from another peer may wait for the rest of its image before it may be pruned.
pub const ADOPT_WITHIN_S: u64 = 3_600;

/// The limits that depend on how large images are, in one value. A node keeps the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`JSON_BYTES_MAX`].
    pub json_bytes: u64,
    /// See [`LAYERS_MAX`].
    pub layers: usize,
    /// See [`BLOB_BYTES_MAX`].
    pub blob_bytes: u64,
    /// See [`ARCHIVE_BYTES_MAX`].
    pub archive_bytes: u64,
    /// See [`LAYER_ENTRIES_MAX`].
    pub layer_entries: u64,
    /// See [`LAYER_BYTES_MAX`].
    pub layer_bytes: u64,
    /// See [`LAYER_RATIO_MAX`].
    pub layer_ratio: u64,
    /// See [`LAYER_RATIO_FREE_BYTES`].
    pub layer_ratio_free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            json_bytes: JSON_BYTES_MAX,
            layers: LAYERS_MAX,
            blob_bytes: BLOB_BYTES_MAX,
            archive_bytes: ARCHIVE_BYTES_MAX,
            layer_entries: LAYER_ENTRIES_MAX,
            layer_bytes: LAYER_BYTES_MAX,
            layer_ratio: LAYER_RATIO_MAX,
            layer_ratio_free_bytes: LAYER_RATIO_FREE_BYTES,
        }
    }
}
