//! Bytes from others: each refusal by name, and nothing that panics.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod common;

use common::*;
use document::event::{
    ADDRESSES_MAX, Author, Body, Change, DecodeError, GROUP_DEPTH_MAX, GROUPS_PER_EDIT_MAX, Hex, Kind,
    Refused, SignedEvent, Verb, decode, id_of, signing_bytes,
};
use document::{Documents, InsertError};
use model::limits::{EVENT_BYTES_MAX, EVENT_DEPS_MAX, EVENT_EDITS_MAX, GROUP_BYTES_MAX, NODES_MAX};
use model::{ClusterId, DocId, EventId};

/// Signs a text as it stands.
fn signed(key: &Key, text: &str) -> Vec<u8> {
    [&key.sign(&signing_bytes(text))[..], text.as_bytes()].concat()
}

fn signed_body(key: &Key, body: &Body) -> Vec<u8> {
    SignedEvent::sign(body, |bytes| key.sign(bytes)).encode()
}

fn refused(documents: &mut Documents, bytes: &[u8]) -> Refused {
    let Err(InsertError::Refused(checked)) = documents.check(bytes) else { panic!("check does not refuse") };
    match documents.insert(bytes) {
        Err(InsertError::Refused(refused)) => {
            assert_eq!(refused.to_string(), checked.to_string());
            refused
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// A valid change of `web`, to be spoilt.
fn good(world: &World, documents: &Documents) -> Body {
    world.body(
        Author::User(world.deploy.user()),
        web(),
        documents.heads(&DocId::Cluster),
        documents.heads(&web()),
        apply(vec![create("web", whole(1))]),
    )
}

fn change_of(body: &mut Body) -> &mut Change {
    match &mut body.kind {
        Kind::Change(change) => change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_body_that_is_not_spoilt_is_taken() {
    let world = World::new();
    let mut documents = world.documents();
    let bytes = signed_body(&world.deploy, &good(&world, &documents));
    let decoded = decode(&bytes).unwrap();
    assert_eq!(decoded.id, id_of(&bytes));
    assert_eq!(decoded.event.encode(), bytes);
    assert_eq!(decoded.event.id(), decoded.id);
    put(&mut documents, &bytes);
}

#[test]
fn bytes_that_are_no_event_are_refused_by_name() {
    let world = World::new();
    let mut documents = world.documents();
    for size in [0, 1, 63, 64] {
        assert!(
            matches!(refused(&mut documents, &vec![0; size]), Refused::TooShort { size: got } if got == size)
        );
    }
    let size = EVENT_BYTES_MAX + 1;
    assert!(
        matches!(refused(&mut documents, &vec![b' '; size]), Refused::TooLarge { size: got } if got == size)
    );
    let not_utf8 = [&[0; 64][..], &[0xff, 0xfe]].concat();
    assert!(matches!(refused(&mut documents, &not_utf8), Refused::NotUtf8 { .. }));
    for text in
        ["x", "{}", "[]", "[1]", "null", r#"{"v":"1"}"#, r#"{"v":-1}"#, r#"{"v":1}"#, r#"{"v":65536}"#]
    {
        let bytes = signed(&world.admin, text);
        assert!(matches!(refused(&mut documents, &bytes), Refused::Malformed { .. }), "{text}");
    }
    let deep = format!(r#"{{"v":1,"x":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    assert!(matches!(refused(&mut documents, &signed(&world.admin, &deep)), Refused::Malformed { .. }));
}

#[test]
fn one_meaning_has_one_text() {
    let world = World::new();
    let mut documents = world.documents();
    let text = good(&world, &documents).to_text();
    let reordered = {
        let (first, second) = (r#""v":1,"#, format!(r#""cluster":"{}","#, world.cluster));
        text.replacen(&format!("{first}{second}"), &format!("{second}{first}"), 1)
    };
    for (what, other) in [
        ("a space", text.replacen(r#""v":1"#, r#""v": 1"#, 1)),
        ("a newline at the end", format!("{text}\n")),
        ("another order", reordered),
        ("an escape", text.replacen("web", r"\u0077eb", 1)),
        ("a null", text.replacen(r#""verb":"apply""#, r#""verb":"apply","undoes":null"#, 1)),
        ("a repeated group", text.replacen(r#""groups":{"#, r#""groups":{"image":"{}","#, 1)),
    ] {
        assert_ne!(other, text, "{what}");
        let refusal = refused(&mut documents, &signed(&world.deploy, &other));
        assert!(matches!(refusal, Refused::NotCanonical), "{what}: {refusal}");
    }
    for (what, other) in [
        ("an unknown field", text.replacen(r#""v":1"#, r#""v":1,"x":1"#, 1)),
        ("an unknown field inside", text.replacen(r#""verb":"#, r#""x":1,"verb":"#, 1)),
        ("a repeated field", text.replacen(r#""v":1"#, r#""v":1,"v":1"#, 1)),
        ("an unknown kind", text.replacen(r#""kind":{"change""#, r#""kind":{"chance""#, 1)),
        ("two kinds", text.replacen(r#""kind":{"#, r#""kind":{"token_revoke":{},"#, 1)),
        ("an upper-case id", text.replacen(&world.cluster.to_string(), &"AB".repeat(32), 1)),
        ("a short nonce", {
            let start = text.find(r#""nonce":""#).unwrap() + 9;
            format!("{}{}", &text[..start], &text[start + 2..])
        }),
        ("a number that is no integer", text.replacen(r#""time_ms":1"#, r#""time_ms":0.1"#, 1)),
        ("a bad name", text.replacen(r#""name":"web""#, r#""name":"../x""#, 1)),
    ] {
        assert_ne!(other, text, "{what}");
        let refusal = refused(&mut documents, &signed(&world.deploy, &other));
        assert!(matches!(refusal, Refused::Malformed { .. }), "{what}: {refusal}");
    }
}

#[test]
fn a_newer_version_is_put_aside_and_not_called_broken() {
    let world = World::new();
    let mut documents = world.documents();
    for version in [2, 3, 65_535] {
        let bytes = signed(&world.stranger, &format!(r#"{{"v":{version},"something":["new"]}}"#));
        assert!(matches!(
            documents.insert(&bytes),
            Err(InsertError::NotUnderstood { id, version: got }) if id == id_of(&bytes) && got == version
        ));
        assert!(matches!(decode(&bytes), Err(DecodeError::NotUnderstood { .. })));
    }
    let mut zero = good(&world, &documents);
    zero.v = 0;
    assert!(matches!(
        refused(&mut documents, &signed_body(&world.deploy, &zero)),
        Refused::Field { field: "v", .. }
    ));
}

#[test]
fn a_signature_by_another_or_over_another_text_is_refused() {
    let world = World::new();
    let mut documents = world.documents();
    let body = good(&world, &documents);
    let by_other = signed_body(&world.stranger, &body);
    assert!(matches!(refused(&mut documents, &by_other), Refused::Signature { .. }));
    let mut flipped = signed_body(&world.deploy, &body);
    flipped[10] ^= 1;
    assert!(matches!(refused(&mut documents, &flipped), Refused::Signature { .. }));
    // Without the context in front, a signature for something else could be passed off as an event's.
    let text = body.to_text();
    let bare = [&world.deploy.sign(text.as_bytes())[..], text.as_bytes()].concat();
    assert!(matches!(refused(&mut documents, &bare), Refused::Signature { .. }));
}

#[test]
fn an_event_of_another_cluster_is_refused() {
    let world = World::new();
    let mut documents = world.documents();
    let mut body = good(&world, &documents);
    body.cluster = ClusterId::from_bytes([9; 32]);
    let bytes = signed_body(&world.deploy, &body);
    assert!(matches!(refused(&mut documents, &bytes), Refused::WrongCluster { .. }));
    let other = genesis_body(&world.stranger, &world.recovery, &world.node);
    let bytes = signed_body(&world.stranger, &other);
    assert!(matches!(refused(&mut documents, &bytes), Refused::WrongCluster { .. }));
    // The same admin and names, another nonce: still another cluster.
    let mut other = genesis_body(&world.admin, &world.recovery, &world.node);
    other.nonce = Hex([1; 16]);
    let bytes = signed_body(&world.admin, &other);
    assert!(matches!(refused(&mut documents, &bytes), Refused::WrongCluster { .. }));
}

#[test]
fn an_admission_needs_the_tokens_key_for_this_node_this_name_and_this_cluster() {
    let world = World::new();
    let mut documents = world.documents();
    let (token, node, other) = (Key::new(100), Key::new(60), Key::new(61));
    let Kind::NodeAdmit(right) = world.admit(&token, &node, "rock-2") else { unreachable!() };
    let proof_of = |kind| match kind {
        Kind::NodeAdmit(admit) => admit.proof,
        _ => unreachable!(),
    };
    let elsewhere =
        document::event::admit_bytes(ClusterId::from_bytes([9; 32]), node.node(), &name("rock-2"));
    for proof in [
        Hex([0; 64]),
        proof_of(world.admit(&other, &node, "rock-2")),
        proof_of(world.admit(&token, &other, "rock-2")),
        proof_of(world.admit(&token, &node, "rock-3")),
        Hex(token.sign(&elsewhere)),
    ] {
        let mut admit = right.clone();
        admit.proof = proof;
        let event = world.cluster_event(&node, documents.heads(&DocId::Cluster), Kind::NodeAdmit(admit));
        assert!(matches!(refused(&mut documents, &event), Refused::Proof { .. }));
    }
}

#[test]
fn each_field_has_its_bounds() {
    let world = World::new();
    let mut documents = world.documents();
    let heads = documents.heads(&DocId::Cluster);
    let base = good(&world, &documents);
    let ids = |count: usize| -> Vec<EventId> {
        (0..count).map(|i| EventId::from_bytes([u8::try_from(i).unwrap(); 32])).collect()
    };
    let spoil = |change: &dyn Fn(&mut Body)| {
        let mut body = base.clone();
        change(&mut body);
        body
    };
    let grp = |group: &str, json: &str| vec![create("web", groups(&[(group, json)]))];
    let many: Vec<String> =
        (0..=GROUPS_PER_EDIT_MAX).map(|i| format!("g{}", "-".repeat(i % 31) + &"a".repeat(i / 31))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|group| (group.as_str(), "{}")).collect();
    assert_eq!(groups(&many).len(), GROUPS_PER_EDIT_MAX + 1);
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(GROUP_BYTES_MAX));
    let nested = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
    let edits_of =
        |count: usize| (0..count).map(|i| create(&format!("d{i}"), replicas(1))).collect::<Vec<_>>();

    let cases: Vec<(&str, Body)> = vec![
        ("auth", spoil(&|body| body.auth = ids(EVENT_DEPS_MAX + 1))),
        ("auth", spoil(&|body| body.auth = vec![])),
        ("auth", spoil(&|body| body.auth = vec![ids(2)[1], ids(2)[0]])),
        ("auth", spoil(&|body| body.auth = vec![ids(1)[0], ids(1)[0]])),
        ("deps", spoil(&|body| body.deps = ids(EVENT_DEPS_MAX + 1))),
        ("deps", spoil(&|body| body.deps = vec![ids(2)[1], ids(2)[0]])),
        ("doc", spoil(&|body| body.doc = DocId::Cluster)),
        ("doc", spoil(&|body| body.kind = World::token(&world.node, 1))),
        ("cluster", spoil(&|body| body.cluster = ClusterId::from_bytes([0; 32]))),
        ("author", spoil(&|body| body.author = Author::Node(world.deploy.node()))),
        ("kind.change.undoes", spoil(&|body| change_of(body).undoes = Some(heads[0]))),
        ("kind.change.undoes", spoil(&|body| change_of(body).verb = Verb::Undo)),
        ("kind.change.edits", spoil(&|body| change_of(body).edits.clear())),
        ("kind.change.edits", spoil(&|body| change_of(body).edits = edits_of(EVENT_EDITS_MAX + 1))),
        (
            "kind.change.edits",
            spoil(&|body| change_of(body).edits = vec![create("web", whole(1)), delete("web", heads[0])]),
        ),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = vec![create("web", groups(&[]))])),
        (
            "kind.change.edits.groups",
            spoil(&|body| change_of(body).edits = vec![create("web", groups(&many))]),
        ),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("deleted", "{}"))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("", "{}"))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("-a", "{}"))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("a/b", "{}"))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("Image", "{}"))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp(&"a".repeat(33), "{}"))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("a", &long))),
        (
            "kind.change.edits.groups",
            spoil(&|body| change_of(body).edits = grp("a", &nested(GROUP_DEPTH_MAX + 1))),
        ),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("a", ""))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("a", "[]"))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("a", "{"))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("a", " {}"))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("a", "{} {}"))),
        ("kind.change.edits.groups", spoil(&|body| change_of(body).edits = grp("a", r#"{"a":}"#))),
    ];
    for (wanted, body) in &cases {
        match refused(&mut documents, &signed_body(&world.deploy, body)) {
            Refused::Field { field, .. } => assert_eq!(field, *wanted, "{body:?}"),
            other => panic!("{wanted}: {other}"),
        }
    }
    // At the bounds all is well.
    for edits in [
        grp("a", &nested(GROUP_DEPTH_MAX)),
        grp(&"a".repeat(32), "{}"),
        grp("a-b", r#"{"text":"}]{[ \" \\"}"#),
        edits_of(EVENT_EDITS_MAX),
    ] {
        let body = spoil(&|body| change_of(body).edits = edits.clone());
        documents.check(&signed_body(&world.deploy, &body)).unwrap();
    }

    let cluster_body =
        |author: Author, deps: Vec<EventId>, kind| world.body(author, DocId::Cluster, vec![], deps, kind);
    let admin = Author::User(world.admin.user());
    let Kind::NodeAdmit(admit) = world.admit(&Key::new(100), &world.stranger, "rock-2") else {
        unreachable!()
    };
    let with_addresses = |addresses: Vec<String>| {
        let mut admit = admit.clone();
        admit.node.addresses = addresses;
        cluster_body(Author::Node(world.stranger.node()), heads.clone(), Kind::NodeAdmit(admit))
    };
    let mut genesis = genesis_body(&world.admin, &world.recovery, &world.node);
    genesis.deps = heads.clone();
    let mut with_auth = cluster_body(admin, heads.clone(), World::token(&world.node, 1));
    with_auth.auth = heads.clone();
    let too_many = u32::try_from(NODES_MAX).unwrap() + 1;
    let mut cases = vec![
        ("deps", &world.admin, cluster_body(admin, vec![], World::token(&world.node, 1))),
        ("deps", &world.admin, genesis),
        ("auth", &world.admin, with_auth),
        ("kind.token.uses", &world.admin, cluster_body(admin, heads.clone(), World::token(&world.node, 0))),
        (
            "kind.token.uses",
            &world.admin,
            cluster_body(admin, heads.clone(), World::token(&world.node, too_many)),
        ),
        ("author", &world.admin, cluster_body(admin, heads.clone(), Kind::NodeAdmit(admit.clone()))),
        (
            "author",
            &world.node,
            cluster_body(Author::Node(world.node.node()), heads.clone(), World::remove(&world.stranger)),
        ),
        (
            "author",
            &world.stranger,
            genesis_body(&world.admin, &world.recovery, &world.node).into_by(&world.stranger),
        ),
        ("kind.node_admit.node", &world.stranger, with_addresses(vec!["a:1".to_owned(); ADDRESSES_MAX + 1])),
    ];
    for address in
        ["", "host", ":1", "host:", "host:0", "host:65536", "host:+1", "ho st:1", "höst:1", "a\n:1"]
    {
        cases.push(("kind.node_admit.node", &world.stranger, with_addresses(vec![address.to_owned()])));
    }
    for (wanted, key, body) in &cases {
        match refused(&mut documents, &signed_body(key, body)) {
            Refused::Field { field, .. } => assert_eq!(field, *wanted, "{body:?}"),
            other => panic!("{wanted}: {other}"),
        }
    }
}

trait IntoBy {
    fn into_by(self, key: &Key) -> Self;
}

impl IntoBy for Body {
    fn into_by(mut self, key: &Key) -> Self {
        self.author = Author::User(key.user());
        self
    }
}

/// A small generator, seeded: the same mutations at every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}

fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    const PIECES: [&str; 12] = [
        "{}",
        "[]",
        "\"",
        ",",
        ":",
        "null",
        "18446744073709551616",
        "-1",
        "\\u0000",
        "{\"v\":2",
        "1e999",
        "\u{fffd}",
    ];
    for _ in 0..=dice.next(3) {
        let at = dice.next(bytes.len());
        match dice.next(6) {
            0 => bytes[at] ^= 1 << dice.next(8),
            1 => {
                bytes.remove(at);
            }
            2 => bytes.insert(at, u8::try_from(dice.next(256)).unwrap()),
            3 => {
                let piece = PIECES[dice.next(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
            4 => {
                let end = (at + dice.next(40)).min(bytes.len());
                let piece: Vec<u8> = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
}

#[test]
fn ten_thousand_mutations_neither_panic_nor_change_anything_they_should_not() {
    let world = World::new();
    let mut documents = world.documents();
    let first = world.at_heads(&documents, apply(vec![create("web", whole(1))]));
    let created = put(&mut documents, &first);
    let seeds = [
        world.first[0].clone(),
        world.first[1].clone(),
        first,
        world.at_heads(
            &documents,
            change(Verb::Scale, vec![set("web", created, replicas(3)), delete("x", created)]),
        ),
        world.cluster_at_heads(&world.node, &documents, world.admit(&Key::new(100), &world.node, "rock-2")),
        world.cluster_at_heads(&world.admin, &documents, World::token(&Key::new(100), 1)),
    ];
    let keys = [&world.admin, &world.deploy, &world.node];
    let mut dice = Dice(0x5eed);
    let (mut taken, mut refusals) = (0, 0);
    for round in 0..10_000 {
        let mut bytes = seeds[dice.next(seeds.len())].clone();
        if round % 2 == 0 {
            mutate(&mut dice, &mut bytes);
        } else {
            // Signed anew, so that what lies behind the signature is reached.
            let mut text = bytes.split_off(64);
            if round % 4 == 1 {
                mutate(&mut dice, &mut text);
            } else {
                // One digit for another: most such texts are canonical and mean something else.
                let digits: Vec<usize> = (0..text.len()).filter(|at| text[*at].is_ascii_digit()).collect();
                text[digits[dice.next(digits.len())]] = b'0' + u8::try_from(dice.next(10)).unwrap();
            }
            bytes = String::from_utf8(text).map_or_else(std::string::FromUtf8Error::into_bytes, |text| {
                signed(keys[dice.next(keys.len())], &text)
            });
        }
        document::fuzz::decode(&bytes);
        let checked = documents.check(&bytes);
        let heads = documents.heads(&web());
        let inserted = documents.insert(&bytes);
        assert_eq!(checked.is_ok(), inserted.is_ok());
        if let Ok(inserted) = inserted {
            assert_eq!(Some(inserted), checked.ok());
            taken += 1;
        } else {
            assert_eq!(documents.heads(&web()), heads);
            refusals += 1;
        }
        if round % 100 == 0 {
            document::fuzz::insert(&bytes);
        }
    }
    assert!(taken > 300 && refusals > 5_000, "{taken} taken, {refusals} refused: both ways are walked");
    for doc in documents.docs() {
        automerge_content(&documents.save(&doc).unwrap());
    }
}
