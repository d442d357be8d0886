//! Two users who sign events and hand them in to any peer, and somebody who is none. Each request runs by
//! itself: a peer that stands still holds up who asked it, and not the story.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use api::shapes::{Applied, Authoring, DeploymentRow, Submitted};
use api::{Client, ClientError, UnixSocket, path, routes};
use dev::skerry::Skerry;
use dev::wait::chain;
use document::event::{Create, Delete, Edit, Set, SignedEvent, Verb};
use identity::KeyPair;
use model::{DocId, EventId, ImageGroup, Name, RestartGroup};
use sim::story::Bad;
use sim::{Spec, User};

use super::stage::Stage;
use crate::author;

/// How long one answer may take before nobody waits for it any more. What was asked may still be done.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Disks that an event is to be on before the answer, as the command line asks.
const DURABLE: &str = "2";

/// What a user wants of one deployment.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// All of it.
    Apply(Box<Spec>),
    /// One group.
    Set(&'static str, String),
    /// Every replica made anew.
    Restart,
    /// Its end.
    Delete,
    /// The last change taken back.
    Undo,
    /// Something that has no effect, or must be refused.
    Bad(Bad),
    /// The last event that anybody signed, once more.
    Retry,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// There was nothing to sign.
    Nothing,
    /// It is on so many disks, by the peer's word, and on so many by the disks'; these are not read where
    /// the event's bytes are not known here.
    Accepted { event: String, durable_on: u32, found_on: Option<usize> },
    /// The peer does not take it.
    Refused(String),
    /// There was no answer.
    Unanswered(String),
}

/// What was handed in, and how it ended.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Through which machine.
    pub(super) host: usize,
    /// What.
    pub(super) wish: Wish,
    /// The incarnation that a deletion is of.
    pub(super) deleted: Option<EventId>,
    /// How it ended.
    pub(super) outcome: Outcome,
}

/// What is remembered of all events, for what is made from earlier ones.
#[derive(Debug, Default)]
struct Memory {
    last: Option<Vec<u8>>,
    deleted: BTreeMap<String, EventId>,
}

/// The users.
#[derive(Debug)]
pub(super) struct Users {
    alice: KeyPair,
    bob: KeyPair,
    stranger: KeyPair,
    image: String,
    memory: Arc<Mutex<Memory>>,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
    under_way: usize,
    seed: u64,
    nonces: u64,
}

impl Users {
    /// The users of a cluster, whose programs are the image with this digest.
    pub(super) fn new(stage: &Stage, digest: &str, seed: u64) -> Result<Self> {
        let dir = stage.cluster.dir();
        let image = ImageGroup {
            reference: "probe:1".to_owned(),
            digest: digest.parse().context("a digest")?,
            command: vec!["/probe".to_owned(), "sleep".to_owned()],
            args: Vec::new(),
            workdir: None,
            user: None,
        };
        let (sender, answers) = channel();
        Ok(Self {
            alice: KeyPair::load(&dir.join("user.key"))?,
            bob: KeyPair::load(&dir.join("bob.key"))?,
            stranger: KeyPair::from_seed([0x66; 32]),
            image: serde_json::to_string(&image)?,
            memory: Arc::default(),
            sender,
            answers,
            under_way: 0,
            seed,
            nonces: 0,
        })
    }

    /// Hands something in through a machine's peer; the answer comes later.
    pub(super) fn hand_in(&mut self, stage: &Stage, user: User, host: usize, of: &str, wish: Wish) {
        self.nonces += 1;
        self.under_way += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.seed.to_be_bytes());
        nonce[8..].copy_from_slice(&self.nonces.to_be_bytes());
        let (key, person) = match user {
            User::Alice => (&self.alice, dev::User::Alice),
            User::Bob => (&self.bob, dev::User::Bob),
        };
        let key = if matches!(wish, Wish::Bad(Bad::Stranger)) { &self.stranger } else { key };
        let node = stage.name(host);
        let request = Request {
            socket: stage.cluster.socket(node),
            key: key.clone(),
            skerry: stage.cluster.skerry(node, person).within(ANSWER_WAIT),
            of: of.to_owned(),
            image: self.image.clone(),
            nonce,
            memory: Arc::clone(&self.memory),
            journals: stage
                .machines
                .iter()
                .map(|it| stage.cluster.dir().join(&it.name).join("journal"))
                .collect(),
        };
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let (outcome, deleted) = request.carry_out(&wish);
            // Nobody hears it where the story has ended.
            sender.send(Answer { host, wish, deleted, outcome }).ok();
        });
    }

    /// The answers that have come.
    pub(super) fn answers(&mut self) -> Vec<Answer> {
        let come: Vec<Answer> = self.answers.try_iter().collect();
        self.under_way -= come.len();
        come
    }

    /// Whether everything was answered, or given up.
    pub(super) fn are_done(&self) -> bool {
        self.under_way == 0
    }
}

/// One request, with all that it needs.
struct Request {
    socket: PathBuf,
    key: KeyPair,
    skerry: Skerry,
    of: String,
    image: String,
    nonce: [u8; 16],
    memory: Arc<Mutex<Memory>>,
    journals: Vec<PathBuf>,
}

impl Request {
    /// How it ended, and what it deleted.
    fn carry_out(&self, wish: &Wish) -> (Outcome, Option<EventId>) {
        if matches!(wish, Wish::Undo) {
            return (self.undo(), None);
        }
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return (Outcome::Unanswered(error.to_string()), None),
        };
        let client = Client::new(Arc::new(UnixSocket(self.socket.clone())), ANSWER_WAIT);
        runtime.block_on(async {
            let (event, deleted) = match self.event(&client, wish).await {
                Ok(Some(made)) => made,
                Ok(None) => return (Outcome::Nothing, None),
                Err(error) => return (Outcome::Unanswered(format!("{error:#}")), None),
            };
            let route = path(routes::EVENTS, &[("durable", DURABLE)]);
            let outcome = match client.post::<Submitted>(&route, event.clone()).await {
                Ok(Submitted { event: id, durable_on, .. }) => {
                    Outcome::Accepted { event: id, durable_on, found_on: Some(self.found_on(&event)) }
                }
                Err(ClientError::Refused { body, .. }) => {
                    Outcome::Refused(format!("{}: {}", body.code, body.error))
                }
                Err(error) => Outcome::Unanswered(chain(&error)),
            };
            (outcome, deleted)
        })
    }

    /// As a person does it.
    fn undo(&self) -> Outcome {
        let answer = match self.skerry.run(&["undo", &self.of, "--detach"]) {
            Ok(answer) => answer,
            Err(error) => return Outcome::Unanswered(chain(&error)),
        };
        match (answer.code, answer.json::<Applied>()) {
            (Some(0), Ok(Applied { event: Some(event), durable_on, .. })) => {
                Outcome::Accepted { event, durable_on, found_on: None }
            }
            (Some(0), _) => Outcome::Nothing,
            _ => Outcome::Refused(answer.stderr.trim().chars().take(200).collect()),
        }
    }

    /// The bytes to hand in, and what they delete; `None` where there is nothing to sign.
    async fn event(&self, client: &Client, wish: &Wish) -> Result<Option<(Vec<u8>, Option<EventId>)>> {
        let memory = || self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(wish, Wish::Retry) {
            return Ok(memory().last.clone().map(|event| (event, None)));
        }
        let doc = DocId::Namespace(Name::default_namespace());
        let route = path(routes::AUTHORING, &[("doc", &doc.to_string())]);
        let authoring: Authoring = client.get(&route).await?;
        let row = authoring.deployments.iter().find(|row| row.name == self.of);
        let before = memory().deleted.get(&self.of).copied();
        let Some((verb, edit)) = self.edit(wish, row, before)? else { return Ok(None) };
        let deleted = match &edit {
            Edit::Delete(delete) => Some(delete.incarnation),
            _ => None,
        };
        let mut event = self.sign(&authoring, verb, edit)?;
        if matches!(wish, Wish::Bad(Bad::Forged)) {
            event[10] ^= 1;
            return Ok(Some((event, None)));
        }
        if !matches!(wish, Wish::Bad(Bad::Stranger)) {
            let mut memory = memory();
            memory.last = Some(event.clone());
            if let Some(incarnation) = deleted {
                memory.deleted.insert(self.of.clone(), incarnation);
            }
        }
        Ok(Some((event, deleted)))
    }

    /// The edit that comes to the wish, as of what the peer knows of the deployment.
    fn edit(
        &self,
        wish: &Wish,
        row: Option<&DeploymentRow>,
        deleted: Option<EventId>,
    ) -> Result<Option<(Verb, Edit)>> {
        let name: Name = self.of.parse()?;
        let set = |incarnation: EventId, groups: BTreeMap<String, String>| {
            (Verb::Apply, Edit::Set(Set { name: name.clone(), incarnation, groups }))
        };
        let one = |row: &DeploymentRow, group: &str, json: &str| -> Result<(Verb, Edit)> {
            Ok(set(row.incarnation.parse()?, BTreeMap::from([(group.to_owned(), json.to_owned())])))
        };
        let restart = |policy: &RestartGroup| -> Result<String> {
            let token = format!("{:x}", u128::from_be_bytes(self.nonce));
            Ok(serde_json::to_string(&RestartGroup { token, ..policy.clone() })?)
        };
        Ok(match (wish, row) {
            (Wish::Apply(spec), row) => {
                let mut groups = BTreeMap::from([
                    ("image".to_owned(), self.image.clone()),
                    ("replicas".to_owned(), serde_json::to_string(&spec.replicas)?),
                    ("resources".to_owned(), serde_json::to_string(&spec.resources)?),
                    ("env".to_owned(), serde_json::to_string(&spec.env)?),
                ]);
                match row {
                    None => Some((Verb::Apply, Edit::Create(Create { name, groups }))),
                    Some(row) => {
                        groups.retain(|group, json| row.groups.get(group) != Some(json));
                        if groups.is_empty() {
                            return Ok(None);
                        }
                        Some(set(row.incarnation.parse()?, groups))
                    }
                }
            }
            (Wish::Set(group, json), Some(row)) => Some(one(row, group, json)?),
            (Wish::Bad(Bad::Group), Some(row)) => Some(one(row, "env", r#"{"vars":17}"#)?),
            (Wish::Restart | Wish::Bad(Bad::Forged | Bad::Stranger), Some(row)) => {
                let now = row.groups.get("restart").and_then(|json| serde_json::from_str(json).ok());
                Some(one(row, "restart", &restart(&now.unwrap_or_default())?)?)
            }
            (Wish::Delete, Some(row)) => {
                let incarnation = row.incarnation.parse()?;
                Some((Verb::Delete, Edit::Delete(Delete { name, incarnation })))
            }
            (Wish::Bad(Bad::OnTheDeleted), _) => deleted.map(|incarnation| {
                let groups = BTreeMap::from([(
                    "replicas".to_owned(),
                    r#"{"count":5,"class":"available"}"#.to_owned(),
                )]);
                set(incarnation, groups)
            }),
            (Wish::Bad(Bad::Forged | Bad::Stranger), None) => {
                let replicas = r#"{"count":1,"class":"available"}"#.to_owned();
                let groups = [("image".to_owned(), self.image.clone()), ("replicas".to_owned(), replicas)];
                Some((Verb::Apply, Edit::Create(Create { name, groups: groups.into() })))
            }
            (_, None) | (Wish::Undo | Wish::Retry, Some(_)) => None,
        })
    }

    fn sign(&self, authoring: &Authoring, verb: Verb, edit: Edit) -> Result<Vec<u8>> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = i64::try_from(since.as_millis())?;
        let body = author::change(&self.key, authoring, self.nonce, time_ms, verb, edit)?;
        Ok(SignedEvent::sign(&body, |bytes| self.key.sign(bytes)).encode())
    }

    /// On how many disks these bytes are.
    fn found_on(&self, event: &[u8]) -> usize {
        self.journals.iter().filter(|journal| holds(journal, event)).count()
    }
}

/// Whether a journal's files hold these bytes. What form they have besides is the store's own affair.
fn holds(journal: &Path, event: &[u8]) -> bool {
    let Ok(files) = fs::read_dir(journal) else { return false };
    files.flatten().any(|file| {
        let bytes = fs::read(file.path()).unwrap_or_default();
        bytes.windows(event.len()).any(|window| window == event)
    })
}
