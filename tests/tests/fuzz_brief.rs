//! The decoders of bytes from others, each on many seeded mutations of its seed corpus: nothing panics,
//! and nothing takes long. The same decoders are fuzzed at length in `tests/fuzz`.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

#[path = "../fuzz/decoders.rs"]
#[allow(dead_code, clippy::pedantic, reason = "shared with the fuzz targets")]
mod decoders;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use decoders::Decoder;

/// Mutations of each decoder's corpus.
const MUTATIONS: u64 = 20_000;

/// The longest that one input may take in a debug build on a busy machine. Inputs have some KiB: what
/// takes seconds is worse than linear.
const INPUT_TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes that an input may grow to.
const INPUT_BYTES_MAX: usize = 1 << 16;

/// Values at which arithmetic goes wrong, by their width in bytes.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// Words of the formats, which chance would hardly spell.
const WORDS: [&str; 24] = [
    "deployments",
    "replicas",
    "&a",
    "*a",
    "<<: *a",
    "\n",
    "\n  ",
    "- ",
    ": ",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "..",
    "/",
    "\0",
    "sha256:",
    "null",
    "1e999",
    "-1",
    "99999999999999999999",
    "skerry1_",
    "\u{ffff}",
];

/// Chance with a fixed seed: what fails can be repeated.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        from..from + self.below((length - from).min(64) + 1)
    }
}

fn mutate(chance: &mut Chance, bytes: &mut Vec<u8>, other: &[u8]) {
    let length = bytes.len();
    match chance.below(9) {
        0 if length > 0 => {
            let at = chance.below(length);
            bytes[at] ^= 1 << chance.below(8);
        }
        1 if length > 0 => {
            let at = chance.below(length);
            bytes[at] = chance.next().to_le_bytes()[0];
        }
        2 => {
            let range = chance.range(length);
            bytes.drain(range);
        }
        3 => {
            let copy = bytes[chance.range(length)].to_vec();
            let at = chance.below(length + 1);
            bytes.splice(at..at, copy);
        }
        4 => {
            let word = WORDS[chance.below(WORDS.len())].bytes();
            let at = chance.below(length + 1);
            bytes.splice(at..at, word);
        }
        5 => {
            let width = [1, 2, 4, 8][chance.below(4)];
            let edge = EDGES[chance.below(EDGES.len())].to_be_bytes();
            let mut edge = edge[8 - width..].to_vec();
            if chance.below(2) == 0 {
                edge.reverse();
            }
            let at = chance.below(length + 1);
            let end = (at + width).min(length);
            bytes.splice(at..end, edge);
        }
        6 => bytes.truncate(chance.below(length + 1)),
        7 => {
            let part = other[chance.range(other.len())].to_vec();
            let range = chance.range(length);
            bytes.splice(range, part);
        }
        _ => {
            // The same thing very often: depth, and lengths.
            let part = bytes[chance.range(length)].to_vec();
            let at = chance.below(length + 1);
            let times = chance.below(200);
            bytes.splice(at..at, part.repeat(times));
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Runs one input; on a panic says what it was.
fn run(name: &str, decode: Decoder, input: &[u8], what: &str) {
    let started = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| decode(input)));
    let took = started.elapsed();
    let shown = || input.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(ended.is_ok(), "{name} panicked at {what}: {}", shown());
    assert!(took < INPUT_TIME_MAX, "{name} took {took:?} for {what}: {}", shown());
}

fn brief(name: &str) {
    let (_, decode) = *decoders::DECODERS.iter().find(|(other, _)| *other == name).unwrap();
    let seeds = seeds(name);
    for (n, seed) in seeds.iter().enumerate() {
        run(name, decode, seed, &format!("seed {n}"));
    }
    let mut chance =
        Chance(name.bytes().fold(1, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into())));
    for n in 0..MUTATIONS {
        let mut input = seeds[chance.below(seeds.len())].clone();
        for _ in 0..=chance.below(4) {
            let other = chance.below(seeds.len());
            mutate(&mut chance, &mut input, &seeds[other]);
        }
        run(name, decode, &input, &format!("mutation {n}"));
    }
}

macro_rules! decoders_take_anything {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            brief(stringify!($name));
        })*

        #[test]
        fn every_decoder_is_among_these_and_has_a_target() {
            let here = [$(stringify!($name)),*];
            for (name, _) in decoders::DECODERS {
                assert!(here.contains(&name), "{name}");
                let target = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/targets/{name}.rs"));
                assert!(target.is_file(), "{}", target.display());
            }
            assert_eq!(here.len(), decoders::DECODERS.len());
        }
    };
}

decoders_take_anything! {
    wire event event_insert event_signed datagram push_pull manifest groups image_documents image_reference
    image_layer image_program token frames journal
}
