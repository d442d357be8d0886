//! Events that are not what they seem, handed in at the socket as a program of somebody's own may do.

use api::shapes::Authoring;
use document::event::{Author, Body, Create, Edit, Set, SignedEvent, Verb};
use e2e::author;
use identity::KeyPair;
use model::EventId;
use serde_json::Value;

use crate::world::{Node, Site, root};

fn authoring(node: &Node<'_>) -> Authoring {
    let (status, body) = node.http("GET", "/v1/authoring?doc=ns/default", b"");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// A change of the namespace `default`, over what the peer says now.
fn body(node: &Node<'_>, key: &KeyPair, edit: Edit) -> Body {
    author::change(key, &authoring(node), [7; 16], 1, Verb::Apply, edit).unwrap()
}

fn signed(key: &KeyPair, body: &Body) -> Vec<u8> {
    SignedEvent::sign(body, |bytes| key.sign(bytes)).encode()
}

fn create(name: &str, group: &str, json: &str) -> Edit {
    Edit::Create(Create { name: name.parse().unwrap(), groups: [(group.to_owned(), json.to_owned())].into() })
}

/// The peer refuses these bytes with this status, code and words, and knows as much as before.
#[track_caller]
fn refused(node: &Node<'_>, bytes: &[u8], status: u16, code: &str, words: &str) {
    let before = node.history();
    let (got, answer) = node.http("POST", "/v1/events", bytes);
    let error: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!((got, error["code"].as_str()), (status, Some(code)), "{error}");
    let said = error["error"].as_str().unwrap();
    assert!(said.starts_with("the event was not accepted: ") || status == 413, "{said}");
    assert!(said.contains(words), "{said}");
    assert_eq!(node.history(), before);
}

#[test]
fn an_event_that_was_changed_or_signed_by_somebody_else_is_refused() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    let key = site.key("ada");
    let body = body(&node, &key, create("web", "replicas", "{\"count\":1}"));
    let good = signed(&key, &body);
    // A flipped byte, wherever it is: in the signature, and in the text.
    for at in [0, 31, 32, 63] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused(&node, &bytes, 422, "malformed", "is not signed by its author");
    }
    for at in (64..good.len()).step_by(37) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused(&node, &bytes, 422, "malformed", "");
    }
    for length in [0, 1, 63, 64, good.len() - 1] {
        refused(&node, &good[..length], 422, "malformed", "");
    }
    // Signed by a user whom no event let in.
    let eve = KeyPair::from_seed([9; 32]);
    let mut foreign = body.clone();
    foreign.author = Author::User(eve.user_id());
    refused(&node, &signed(&eve, &foreign), 422, "void", "may not do this");
    // In somebody else's name.
    refused(&node, &signed(&eve, &body), 422, "malformed", "is not signed by its author");
    // Of another cluster, of a version to come, over events that nobody has.
    let mut other = body.clone();
    other.cluster = model::ClusterId::from_bytes([5; 32]);
    refused(&node, &signed(&key, &other), 422, "malformed", "belongs to another cluster");
    let mut newer = body.clone();
    newer.v = 2;
    refused(
        &node,
        &signed(&key, &newer),
        422,
        "newer-version",
        "has version 2, which this release does not understand",
    );
    let mut orphan = body.clone();
    orphan.deps = vec![EventId::from_bytes([5; 32])];
    refused(&node, &signed(&key, &orphan), 409, "unknown-deps", "waits for 1 others");
    // Too large, and no event at all.
    refused(&node, &vec![0x20; 66_000], 422, "malformed", "an event of 66000 bytes, the limit is 65536");
    refused(&node, &vec![0x20; 200_000], 413, "too-large", "the body is larger than 131072 bytes");
    // The good one is taken, and a second time it is the same one.
    let (status, answer) = node.http("POST", "/v1/events", &good);
    assert_eq!(status, 200, "{answer}");
    let (status, again) = node.http("POST", "/v1/events", &good);
    assert_eq!(status, 200, "{again}");
    assert_eq!(node.history().len(), 2);
}

#[test]
fn a_merged_deployment_that_is_not_valid_is_shown_and_what_runs_is_kept() {
    if !root() {
        return;
    }
    let site = Site::new();
    let node = site.node();
    node.image();
    node.apply("web", &[]).ok();
    let running = node.containers();
    assert_eq!(running.len(), 1);
    let key = site.key("ada");
    let incarnation = authoring(&node).deployments[0].incarnation.parse().unwrap();
    for (group, json, words) in [
        ("replicas", "{\"count\":\"three\"}", "group `replicas` cannot be read"),
        ("replicas", "{\"count\":4000000000}", "replicas"),
        ("resources", "{\"cpu_m\":0,\"memory_b\":1,\"pids\":0}", "resources"),
        ("image", "{}", "group `image` cannot be read"),
        ("hologram", "{\"on\":true}", "group `hologram` is not known to this release"),
    ] {
        let set = Edit::Set(Set {
            name: "web".parse().unwrap(),
            incarnation,
            groups: [(group.to_owned(), json.to_owned())].into(),
        });
        let (status, answer) = node.http("POST", "/v1/events", &signed(&key, &body(&node, &key, set)));
        assert_eq!(status, 200, "{answer}");
        let row = authoring(&node).deployments.remove(0);
        let invalid = row.invalid.unwrap_or_else(|| panic!("{group} {json} counts as valid"));
        assert!(invalid.contains(words), "{invalid}");
        let status = node.run(&["status"]).ok().out;
        assert!(status.contains("web"), "{status}");
        assert_eq!(node.containers(), running, "what runs is kept");
        // Taken back, it is as before; the unknown group stays, so it is the last.
        if group != "hologram" {
            node.run(&["undo", "web", "-y"]).ok();
            assert_eq!(authoring(&node).deployments[0].invalid, None);
        }
    }
    // Nothing is started for one that was never valid.
    let never = body(&node, &key, create("never", "replicas", "{\"count\":2,\"class\":\"available\"}"));
    let (status, answer) = node.http("POST", "/v1/events", &signed(&key, &never));
    assert_eq!(status, 200, "{answer}");
    let rows = authoring(&node).deployments;
    let row = rows.iter().find(|row| row.name == "never").unwrap();
    assert_eq!(row.invalid.as_deref(), Some("group `image` is missing"));
    assert_eq!(node.containers(), running);
    assert!(node.run(&["delete", "never", "web", "-y"]).ok().out.contains("web deleted"));
    assert!(node.containers().is_empty());
}
