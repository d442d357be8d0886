//! One step is taken.

use model::{MetaGroup, Name, Time};

use super::act::{Act, Expectation, Flap};
use super::agenda::{Chore, Then};
use super::condition::{Looked, Names};
use super::run::{Problem, Run};
use crate::Author;
use crate::doom::Doom;
use crate::faults::User;
use crate::host::HostState;
use crate::short::Shortage;
use crate::world::{Cluster, EPOCH_MS};

impl Run {
    pub(super) fn take(&mut self, act: &Act, line: usize) -> Result<(), Problem> {
        match act {
            Act::Deploy(user, host, of, spec) => {
                let what = format!("apply {of} with {} replicas", spec.replicas.count);
                self.sign((*user, *host), &what, |author, documents, time_ms| {
                    author.apply(documents, of.as_str(), spec, time_ms)
                })
            }
            Act::Set(user, host, of, groups) => groups.iter().try_for_each(|(group, json)| {
                let what = format!("set {group} of {of} to {json}");
                self.sign((*user, *host), &what, |author, documents, time_ms| {
                    author.set(documents, of.as_str(), group, json, time_ms)
                })
            }),
            Act::Restart(user, host, of) => {
                self.sign((*user, *host), &format!("restart {of}"), |author, documents, time_ms| {
                    author.restart(documents, of.as_str(), time_ms)
                })
            }
            Act::Delete(user, host, of) => {
                self.sign((*user, *host), &format!("delete {of}"), |author, documents, time_ms| {
                    author.delete(documents, of.as_str(), time_ms)
                })
            }
            Act::Retry(host) => self.retry(*host),
            Act::Edits(user, host, of, count, every) => {
                let who = format!("{} through n{}", user.name(), host + 1);
                self.cluster
                    .tell(format!("{who}: {count} changes of the labels of {of}, one each {every:?}"));
                let edit = Chore::Edit {
                    user: *user,
                    host: *host,
                    of: of.clone(),
                    done: 0,
                    count: *count,
                    every: *every,
                };
                self.agenda.add(self.cluster.now(), edit);
                Ok(())
            }
            Act::RemoveNode(host, gone) => {
                up(&self.cluster, *host)?;
                self.past.last = Some(self.cluster.remove_node(*host, *gone));
                Ok(())
            }
            Act::Schedule(host, of, schedule, deadline) => {
                up(&self.cluster, *host)?;
                self.past.last = Some(self.cluster.schedule(*host, *of, *schedule, *deadline));
                Ok(())
            }
            Act::Join(through, host) => {
                let command = self.cluster.join(*host, *through)?;
                self.past.last = Some(command);
                self.agenda.when_acked(command, Then::LetIn);
                Ok(())
            }
            Act::Split(_) | Act::OneWay(..) | Act::Bridge(..) | Act::Flap(_) | Act::Loss(_) | Act::Heal => {
                self.change_network(act);
                Ok(())
            }
            Act::PowerOff(_)
            | Act::PowerOffOnAck(_)
            | Act::StopPeer(_)
            | Act::Start(_)
            | Act::DiskFull(..)
            | Act::CopyDisk(_)
            | Act::Clock(..)
            | Act::Capacity(..)
            | Act::Pressure(..) => self.change_machines(act),
            Act::Crash(..) | Act::CrashLoop(_) | Act::Mend(_) => {
                self.change_programs(act);
                Ok(())
            }
            Act::Remember => {
                self.past.remember(&self.cluster);
                self.cluster.changes += 1;
                self.cluster.tell("what runs and is known now is remembered");
                Ok(())
            }
            Act::Watch(condition, until) => {
                self.cluster.tell(format!("WATCH until {until:?}: {condition}"));
                if !condition.holds(&self.cluster, &self.past) {
                    return Err(format!("not so when the watch begins: {condition}").into());
                }
                self.agenda.watch(condition.clone(), Time::ZERO + *until, line);
                Ok(())
            }
            Act::Expect(expectation) => self.expect(expectation),
        }
    }

    fn change_network(&mut self, act: &Act) {
        let cluster = &mut self.cluster;
        match act {
            Act::Split(groups) => {
                let groups: Vec<&[usize]> = groups.iter().map(Vec::as_slice).collect();
                cluster.split(&groups);
            }
            Act::OneWay(from, to) => cluster.cut_one_way(*from, *to),
            Act::Bridge(one, other) => {
                for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
                    cluster.cut_one_way(a, b);
                    cluster.cut_one_way(b, a);
                }
            }
            Act::Flap(flap) => {
                let Flap { one, other, down, up, lasts } = flap;
                let (one, other) = (Names(one), Names(other));
                cluster.tell(format!("{one} | {other} flaps: {down:?} cut, {up:?} whole, for {lasts:?}"));
                let end = cluster.now() + *lasts;
                let switch = Chore::Switch { pairs: flap.pairs(), cut: true, down: *down, up: *up, end };
                self.agenda.add(cluster.now(), switch);
            }
            Act::Loss(loss) => {
                cluster.tell(format!("{loss} of 1000 datagrams are lost"));
                cluster.set_loss(*loss);
            }
            _ => cluster.heal(),
        }
    }

    fn change_machines(&mut self, act: &Act) -> Result<(), Problem> {
        let cluster = &mut self.cluster;
        match act {
            Act::PowerOff(hosts) => hosts.iter().for_each(|host| cluster.power_off(*host)),
            Act::PowerOffOnAck(hosts) => {
                let Some(last) = self.past.last else { return Err("nothing was handed in".into()) };
                if cluster.outcome(last).is_some() {
                    return Err("the last event is acknowledged already: write this step at its time".into());
                }
                self.agenda.when_acked(last, Then::PowerOff(hosts.clone()));
            }
            Act::StopPeer(hosts) => {
                for host in hosts {
                    up(cluster, *host)?;
                    cluster.stop_peer(*host);
                }
            }
            Act::Start(hosts) => {
                for host in hosts {
                    if cluster.state(*host) == HostState::Up {
                        return Err(format!("n{} runs already", host + 1).into());
                    }
                    cluster.start(*host);
                }
            }
            Act::DiskFull(hosts, full) => hosts.iter().for_each(|host| cluster.disk_full(*host, *full)),
            Act::CopyDisk(hosts) => hosts.iter().for_each(|host| _ = cluster.clone_disk(*host)),
            Act::Clock(hosts, unix_s) => {
                let passed = i64::try_from(cluster.now().as_millis()).unwrap_or(i64::MAX / 4);
                let skew_ms = unix_s.saturating_mul(1_000) - EPOCH_MS - passed;
                for host in hosts {
                    cluster.skew_clock(*host, skew_ms);
                }
            }
            Act::Pressure(hosts, memory) => {
                for host in hosts {
                    cluster.press(*host, Shortage::Memory(*memory));
                }
            }
            Act::Capacity(hosts, capacity) => {
                let (cpu_m, mib) = (capacity.cpu_m, capacity.memory_b >> 20);
                let names = Names(hosts);
                cluster.tell(format!("{names} will offer {cpu_m}m cpu and {mib} MiB when started again"));
                for host in hosts {
                    cluster.offer(*host, capacity.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn change_programs(&mut self, act: &Act) {
        let cluster = &mut self.cluster;
        match act {
            Act::Crash(of, on, code) => {
                let of_it = |host: &usize| {
                    let all = cluster.running(*host).filter(|(_, it)| it.claim.replica.deployment == *of);
                    all.map(|(id, _)| (*host, *id)).collect::<Vec<_>>()
                };
                let all: Vec<_> = on.iter().flat_map(of_it).collect();
                for (host, container) in all {
                    cluster.crash_container(host, container, *code);
                }
            }
            Act::CrashLoop(it) => {
                let env: Vec<String> = it.env.iter().map(|(key, value)| format!(" {key}={value}")).collect();
                let what = format!("{}{} on {}", it.of, env.concat(), Names(&it.on));
                cluster.tell(format!("programs of {what} end after {:?} from now on", it.after));
                cluster.dooms(Doom {
                    of: it.of.clone(),
                    on: it.on.iter().copied().collect(),
                    env: it.env.clone(),
                    after: it.after,
                    code: it.code,
                });
            }
            Act::Mend(of) => {
                cluster.tell(format!("programs of {of} run again from now on"));
                cluster.spare(of);
            }
            _ => {}
        }
    }

    fn expect(&mut self, expectation: &Expectation) -> Result<(), Problem> {
        let Expectation { condition, within, holds } = expectation;
        self.cluster.tell(format!("EXPECT within {within:?}: {condition}"));
        let looked = Looked::new(condition.clone());
        let Some(took) = self.pass(*within, |cluster, past| looked.holds(cluster, past))? else {
            self.cluster.tell(format!("FAILED not within {within:?}: {condition}"));
            return Err(format!("not within {within:?}: {condition}").into());
        };
        self.cluster.tell(format!("HOLDS after {:.3} s: {condition}", took.as_secs_f64()));
        if holds.is_zero() {
            return Ok(());
        }
        if self.pass(*holds, |cluster, past| !looked.holds(cluster, past))?.is_some() {
            self.cluster.tell(format!("FAILED did not last {holds:?}: {condition}"));
            return Err(format!("did not last {holds:?}: {condition}").into());
        }
        self.cluster.tell(format!("HELD for {holds:?}: {condition}"));
        Ok(())
    }

    fn sign(
        &mut self,
        (user, host): (User, usize),
        what: &str,
        with: impl FnOnce(&mut Author, &document::Documents, i64) -> Option<Vec<u8>>,
    ) -> Result<(), Problem> {
        up(&self.cluster, host)?;
        let signed = self.cluster.sign_and_submit(host, user, what, with);
        let (command, event) =
            signed.ok_or_else(|| format!("there is nothing to {what} at n{}", host + 1))?;
        self.past.last = Some(command);
        self.past.event = Some(event);
        Ok(())
    }

    fn retry(&mut self, host: usize) -> Result<(), Problem> {
        up(&self.cluster, host)?;
        let Some(event) = self.past.event.clone() else { return Err("nothing was handed in".into()) };
        self.cluster.tell(format!("the last event is handed in again through n{}", host + 1));
        self.past.last = Some(self.cluster.submit(host, event));
        Ok(())
    }

    /// One of many changes: the first is told, the others are like it.
    pub(super) fn edit(&mut self, user: User, host: usize, of: &Name, done: u32) -> Result<(), Problem> {
        let key = "edit".parse().expect("a word is a label's key");
        let meta = MetaGroup { labels: [(key, done.to_string())].into() };
        let json = serde_json::to_string(&meta).expect("a group is a map with text keys");
        self.sign((user, host), &format!("set meta of {of}"), |author, documents, time_ms| {
            author.set(documents, of.as_str(), "meta", &json, time_ms)
        })
    }
}

fn up(cluster: &Cluster, host: usize) -> Result<(), Problem> {
    if cluster.state(host) == HostState::Up {
        Ok(())
    } else {
        Err(format!("n{} does not run", host + 1).into())
    }
}
