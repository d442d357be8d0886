//! Writes the seed corpus: for each decoder some inputs that it reads, from the golden files of the
//! formats and from what the crates write themselves. `cargo run --bin seeds` in this folder.

#[path = "decoders.rs"]
mod decoders;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use decoders::{DECODERS, JOURNAL_CLUSTER, Memory, golden_events, golden_key, member, membership_of};
use identity::JoinToken;
use membership::Effect;
use model::{ClusterId, Time};
use store::Journal;

type Seeds = Vec<(String, Vec<u8>)>;

const WIRE: &str = include_str!("../../crates/core/wire/tests/golden/v1.txt");

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn wire() -> Seeds {
    let lines = WIRE.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, hex)| (name.to_owned(), unhex(hex))).collect()
}

fn events() -> Seeds {
    golden_events().into_iter().enumerate().map(|(n, event)| (format!("event-{n:02}"), event)).collect()
}

fn events_signed() -> Seeds {
    let signer = |event: &[u8]| {
        let author = document::event::decode(event).unwrap().body.author;
        (0..6).find(|index| golden_key(*index).public() == *author.key())
    };
    let seeds = events().into_iter().filter_map(|(name, event)| {
        Some((name, [&[signer(&event)?][..], &event[document::event::SIGNATURE_BYTES..]].concat()))
    });
    seeds.collect()
}

/// Packets and tables of some nodes that find one another.
fn liveness() -> (Seeds, Seeds) {
    let mut nodes: Vec<_> = (0..5).map(membership_of).collect();
    let (mut packets, mut tables) = (Seeds::new(), Seeds::new());
    for step in 0..12_u32 {
        let now = Time::ZERO + Duration::from_millis(250) * step;
        let mut sent = Vec::new();
        for (from, node) in (0..5_u8).zip(&mut nodes) {
            node.tick(now);
            for effect in node.take_effects() {
                if let Effect::Datagram { to, bytes } = effect {
                    sent.push((from, to, bytes));
                }
            }
        }
        for (n, (from, to, bytes)) in sent.into_iter().enumerate() {
            // One is out of reach, so that it is suspected and spoken of.
            if from != 4 && to != member(4) {
                let index = (0..5_u8).find(|index| member(*index) == to).unwrap();
                nodes[usize::from(index)].datagram(now, member(from), &bytes).unwrap();
            }
            if n < 3 {
                packets.push((format!("packet-{step:02}-{n}"), [&[from][..], &bytes].concat()));
            }
        }
        if step % 4 == 3 {
            for from in [1_u8, 2] {
                let table = nodes[usize::from(from)].push_pull_out();
                tables.push((format!("table-{step:02}-{from}"), [&[from][..], &table].concat()));
            }
        }
    }
    (packets, tables)
}

fn manifests() -> Seeds {
    let whole = r#"namespace: shop
deployments:
  - name: web
    image: web:1
    replicas: 3
    class: available
    command: [/app]
    args: ["--port", "80"]
    env: {LEVEL: debug}
    workdir: /srv
    user: "1000:1000"
    resources: {cpu: 250m, memory: 64Mi, pids: 100}
    ports: ["8080:80", {host: 9090, container: 90}]
    restart: on-failure
    labels: {team: shop}
    constraints: {site: north}
  - {name: db, image: db}
"#;
    let small = "deployments: [{name: web, image: \"web:1\"}]\n";
    let json = "{\"deployments\": [{\"name\": \"web\", \"image\": \"web:1\", \"replicas\": 2}]}";
    let anchors = "deployments:\n- &a {name: a, image: i}\n- {<<: *a, name: b}\n";
    let texts = [("whole", whole), ("small", small), ("json", json), ("anchors", anchors), ("empty", "")];
    texts.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).to_vec()
}

fn groups() -> Seeds {
    let whole = &manifests()[0].1;
    let specs = cli::manifest::read(std::str::from_utf8(whole).unwrap()).unwrap();
    let seeds = specs.iter().map(|spec| {
        let groups = spec.with_digest(model::Digest::from_bytes([1; 32])).to_groups();
        let lines: Vec<String> = groups.iter().map(|(group, json)| format!("{group} {json}\n")).collect();
        (spec.name.to_string(), lines.concat().into_bytes())
    });
    seeds.collect()
}

/// The blobs of an image that is built here: its documents and its layer.
fn image() -> (Seeds, Seeds) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("etc/deep")).unwrap();
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    std::fs::write(root.join("app"), "#!/bin/sh\n").unwrap();
    std::os::unix::fs::symlink("../etc", root.join("etc/deep/link")).unwrap();
    std::fs::hard_link(root.join("app"), root.join("app2")).unwrap();
    let store = ::image::ImageStore::open(folder.path().join("store")).unwrap();
    store.build_rootfs("seed:1", &root, &::image::BuildOptions::default()).unwrap();
    let (mut documents, mut layers) = (Seeds::new(), Seeds::new());
    documents.push(("index".to_owned(), std::fs::read(folder.path().join("store/index.json")).unwrap()));
    for blob in std::fs::read_dir(folder.path().join("store/blobs/sha256")).unwrap() {
        let bytes = std::fs::read(blob.unwrap().path()).unwrap();
        match bytes.first() {
            Some(b'{') if bytes.windows(9).any(|part| part == b"\"layers\":") => {
                documents.push(("manifest".to_owned(), bytes));
            }
            Some(b'{') => documents.push(("config".to_owned(), bytes)),
            _ => layers.push(("layer".to_owned(), bytes)),
        }
    }
    layers.push(("tar".to_owned(), tar()));
    (documents, layers)
}

/// A plain archive: a folder, a file in it, a link out of it, a whiteout and an extended header.
fn tar() -> Vec<u8> {
    fn entry(name: &str, kind: u8, link: &str, body: &[u8]) -> Vec<u8> {
        let mut head = [0; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[100..108].copy_from_slice(b"0000755\0");
        head[108..116].copy_from_slice(b"0000000\0");
        head[116..124].copy_from_slice(b"0000000\0");
        head[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
        head[136..148].copy_from_slice(b"00000000000\0");
        head[156] = kind;
        head[157..157 + link.len()].copy_from_slice(link.as_bytes());
        head[257..265].copy_from_slice(b"ustar\x0000");
        head[148..156].copy_from_slice(b"        ");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut all = head.to_vec();
        all.extend_from_slice(body);
        all.resize(all.len().next_multiple_of(512), 0);
        all
    }
    [
        entry("etc/", b'5', "", b""),
        entry("etc/hosts", b'0', "", b"127.0.0.1 localhost\n"),
        entry("pax", b'x', "", b"20 path=etc/renamed\n"),
        entry("etc/short", b'0', "", b"x"),
        entry("out", b'2', "../../../outside", b""),
        entry("out/file", b'0', "", b"y"),
        entry("etc/.wh.gone", b'0', "", b""),
        entry("hard", b'1', "etc/hosts", b""),
        entry("pipe", b'6', "", b""),
        vec![0; 1024],
    ]
    .concat()
}

/// The head of an ELF program for 64 bits with a dynamic section, as small as can be.
fn program() -> Vec<u8> {
    let mut elf = vec![0; 64 + 3 * 56];
    elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &3_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(20, &1_u32.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(52, &64_u16.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &3_u16.to_le_bytes());
    // Interpreter, one loaded segment, the dynamic section: type, offset, address, sizes.
    let tail = 64 + 3 * 56;
    for (n, (kind, offset, size)) in
        [(3_u32, tail, 16), (1, 0, 512), (2, tail + 16, 96)].into_iter().enumerate()
    {
        let at = 64 + n * 56;
        put(at, &kind.to_le_bytes());
        put(at + 8, &(offset as u64).to_le_bytes());
        put(at + 16, &(offset as u64).to_le_bytes());
        put(at + 32, &(size as u64).to_le_bytes());
        put(at + 40, &(size as u64).to_le_bytes());
    }
    elf.extend_from_slice(b"/lib/ld-linux.1\0");
    let strings = (tail + 16 + 96) as u64;
    for (tag, value) in [(1_u64, 1_u64), (5, strings), (10, 16), (29, 9), (0, 0), (0, 0)] {
        elf.extend_from_slice(&tag.to_le_bytes());
        elf.extend_from_slice(&value.to_le_bytes());
    }
    elf.extend_from_slice(b"\0libc.so\0$ORIGIN\0");
    elf.resize(512, 0);
    elf
}

fn tokens() -> Seeds {
    let token = |addresses: &[&str]| {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        JoinToken::new(ClusterId::from_bytes([1; 32]), addresses, [2; 32]).unwrap().to_string().into_bytes()
    };
    vec![
        ("one".to_owned(), token(&["10.0.0.1:7440"])),
        ("several".to_owned(), token(&["[fd00::1]:7440", "edge-1.example:7440", "10.0.0.1:1"])),
    ]
}

fn frames() -> Seeds {
    let frame = |kind: u8, payload: &[u8]| {
        [&[kind][..], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
    };
    let all = [
        frame(0, b"in"),
        frame(1, b""),
        frame(2, b"out\n"),
        frame(3, b"err\n"),
        frame(4, &[0, 24, 0, 80]),
        frame(5, &[0, 0, 0, 42]),
        frame(6, b"no such program"),
    ];
    vec![("all".to_owned(), all.concat()), ("one".to_owned(), all[2].clone())]
}

fn journals() -> Seeds {
    let dir = Path::new("/journal");
    let cluster = ClusterId::from_bytes(JOURNAL_CLUSTER);
    let mut seeds = Seeds::new();
    for records in [0, 1, 5] {
        let memory = Memory::default();
        Journal::create_with(&memory, dir, cluster).unwrap();
        let (mut journal, _) = Journal::open_with(Arc::new(memory.clone()), dir, cluster, 4_096).unwrap();
        for n in 0..records {
            journal.append(&[format!("record {n}").as_bytes(), b"and another"]).unwrap();
        }
        let [mark, log] = ["mark", "00000001.log"].map(|name| memory.get(&dir.join(name)).unwrap());
        let length = u16::try_from(mark.len()).unwrap().to_be_bytes();
        seeds.push((format!("records-{records}"), [&length[..], &mark, &log].concat()));
    }
    seeds
}

fn seeds(decoder: &str) -> Seeds {
    match decoder {
        "wire" => wire(),
        "event" | "event_insert" => events(),
        "event_signed" => events_signed(),
        "datagram" => liveness().0,
        "push_pull" => liveness().1,
        "manifest" => manifests(),
        "groups" => groups(),
        "image_documents" => image().0,
        "image_layer" => image().1,
        "image_program" => {
            vec![("dynamic".to_owned(), program()), ("script".to_owned(), b"#!/bin/sh\n".to_vec())]
        }
        "image_reference" => {
            ["web", "web:1", "registry.example:5000/team/web:1.2", "docker.io/library/nginx:latest"]
                .iter()
                .enumerate()
                .map(|(n, text)| (format!("name-{n}"), text.as_bytes().to_vec()))
                .chain([("digest".to_owned(), format!("web@sha256:{}", "ab".repeat(32)).into_bytes())])
                .collect()
        }
        "token" => tokens(),
        "frames" => frames(),
        "journal" => journals(),
        other => panic!("no seeds for {other}"),
    }
}

fn main() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, decode) in DECODERS {
        let folder = corpus.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (seed, bytes) in seeds(name) {
            decode(&bytes);
            std::fs::write(folder.join(seed), bytes).unwrap();
        }
    }
}
