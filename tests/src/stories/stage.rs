//! The stage of one story: a cluster of real peers on this machine, and what is done to its machines and
//! links. What it knows is what was done, never what a peer says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context as _, Result};
use dev::{Cluster, Options, User};
use model::{Capacity, Time};

use super::packets::Packets;
use crate::binary;

/// Loss at which nothing arrives, in thousandths.
const CUT: u32 = 1_000;

/// What a machine is doing, as with the simulator's machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its peer runs, or stands still.
    Up,
    /// Its peer was killed; its containers go on.
    PeerDown,
    /// It has no power.
    Off,
}

/// One machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Its name.
    pub(super) name: String,
    /// What it is doing.
    pub(super) state: State,
    /// Whether its peer stands still (SIGSTOP).
    pub(super) still: bool,
    /// How often its peer was started or stopped: whatever was meant for an earlier life is void.
    pub(super) life: u64,
    /// When any of that last changed.
    pub(super) since: Time,
    /// When it last lost its power.
    pub(super) off_at: Option<Time>,
}

impl Machine {
    /// Whether its peer can do anything.
    pub(super) fn hears(&self) -> bool {
        self.state == State::Up && !self.still
    }
}

/// The cluster and what was done to it.
#[derive(Debug)]
pub(super) struct Stage {
    /// The cluster.
    pub(super) cluster: Cluster,
    /// Its machines; `n1` is the first.
    pub(super) machines: Vec<Machine>,
    /// What each of them offers.
    pub(super) capacity: Capacity,
    /// What happened, a line each.
    pub(super) trace: Vec<String>,
    /// When anything was last done.
    pub(super) disturbed: Time,
    /// Ways on which nothing passes.
    cuts: BTreeSet<(usize, usize)>,
    /// The same for those that come and go.
    flapped: BTreeSet<(usize, usize)>,
    /// Packets that are lost on one way, in thousandths.
    losses: BTreeMap<(usize, usize), u32>,
    /// Packets that are lost on any way, in thousandths.
    loss: u32,
    packets: Packets,
    began: Instant,
}

impl Stage {
    /// Brings up a cluster of so many machines in `dir`, with the image `probe:1` on each; its digest.
    pub(super) fn up(dir: &std::path::Path, nodes: usize, capacity: Capacity) -> Result<(Self, String)> {
        // Stories ask for no extras.
        let Capacity { cpu_m, memory_b, pids, .. } = capacity;
        let options = Options {
            exe: binary::skerry().to_owned(),
            dir: dir.to_owned(),
            nodes,
            capacity: Some(format!("cpu={cpu_m}m,memory={}Mi,pids={pids}", memory_b >> 20)),
            owned: true,
            replace: false,
        };
        let cluster = Cluster::up(&options).context("no cluster")?;
        match Self::prepare(&cluster) {
            Ok((names, digest, packets)) => {
                let machine = |name| Machine {
                    name,
                    state: State::Up,
                    still: false,
                    life: 0,
                    since: Time::ZERO,
                    off_at: None,
                };
                let stage = Self {
                    cluster,
                    machines: names.into_iter().map(machine).collect(),
                    capacity,
                    trace: Vec::new(),
                    disturbed: Time::ZERO,
                    cuts: BTreeSet::new(),
                    flapped: BTreeSet::new(),
                    losses: BTreeMap::new(),
                    loss: 0,
                    packets,
                    began: Instant::now(),
                };
                Ok((stage, digest))
            }
            Err(error) => {
                // The first error is the one that counts.
                cluster.down().ok();
                Err(error)
            }
        }
    }

    fn prepare(cluster: &Cluster) -> Result<(Vec<String>, String, Packets)> {
        #[derive(serde::Deserialize)]
        struct Built {
            digest: String,
        }
        let names = cluster.names()?;
        let path = binary::probe().display().to_string();
        let mut digests = BTreeSet::new();
        // On each: a part that is cut off at once must be able to start something.
        for name in &names {
            let build = ["image", "build", "probe:1", "--binary", &path];
            let built: Vec<Built> = cluster.skerry(name, User::Alice).json(&build)?;
            digests.extend(built.into_iter().map(|it| it.digest));
        }
        anyhow::ensure!(digests.len() == 1, "one program became {} images: {digests:?}", digests.len());
        let digest = digests.pop_first().context("an image")?;
        let digest = digest.strip_prefix("sha256:").unwrap_or(&digest).to_owned();
        let packets = Packets::listen(cluster, &names)?;
        Ok((names, digest, packets))
    }

    /// Since the story began.
    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.began.elapsed()
    }

    /// A line of the trace.
    pub(super) fn tell(&mut self, words: impl AsRef<str>) {
        let now = self.now().as_millis();
        self.trace.push(format!("{:>4}.{:03}s {}", now / 1_000, now % 1_000, words.as_ref()));
    }

    /// What is asked of a quiet world is asked later.
    pub(super) fn disturb(&mut self) {
        self.disturbed = self.now();
    }

    /// Every machine, by number.
    pub(super) fn hosts(&self) -> std::ops::Range<usize> {
        0..self.machines.len()
    }

    /// The name of a machine.
    pub(super) fn name(&self, host: usize) -> &str {
        &self.machines[host].name
    }

    // --- Machines.

    fn became(&mut self, host: usize, state: State) {
        let now = self.now();
        let machine = &mut self.machines[host];
        (machine.state, machine.still, machine.since) = (state, false, now);
        machine.life += 1;
        self.disturbed = now;
    }

    /// Kills a peer with SIGKILL, if it runs.
    pub(super) fn kill_peer(&mut self, host: usize) -> Result<()> {
        if self.machines[host].state == State::Up {
            self.cluster.stop(self.name(host))?;
            self.became(host, State::PeerDown);
        }
        Ok(())
    }

    /// Takes a machine's power, if it has any: its network, its peer and all its containers end.
    pub(super) fn power_off(&mut self, host: usize) -> Result<()> {
        if self.machines[host].state != State::Off {
            // Before and after: what ends meanwhile has ended of this.
            self.machines[host].off_at = Some(self.now());
            self.cluster.kill(self.name(host))?;
            self.became(host, State::Off);
            self.machines[host].off_at = Some(self.now());
        }
        Ok(())
    }

    /// Switches a machine on, or starts its peer again, if it does not run. Returns when it answers.
    pub(super) fn start(&mut self, host: usize) -> Result<()> {
        if self.machines[host].state != State::Up {
            self.cluster.start(self.name(host))?;
            self.became(host, State::Up);
        }
        Ok(())
    }

    /// Lets a peer stand still, if it goes. Returns the life that it stands still in.
    pub(super) fn stand_still(&mut self, host: usize) -> Result<Option<u64>> {
        if !self.machines[host].hears() {
            return Ok(None);
        }
        self.cluster.stand_still(self.name(host))?;
        let now = self.now();
        let machine = &mut self.machines[host];
        (machine.still, machine.since, self.disturbed) = (true, now, now);
        Ok(Some(machine.life))
    }

    /// Lets a peer go on that stands still in this life.
    pub(super) fn go_on(&mut self, host: usize, life: u64) -> Result<()> {
        let machine = &self.machines[host];
        if machine.still && machine.life == life {
            self.cluster.go_on(self.name(host))?;
            let now = self.now();
            let machine = &mut self.machines[host];
            (machine.still, machine.since, self.disturbed) = (false, now, now);
        }
        Ok(())
    }

    // --- Links.

    /// Whether anything passes on the way from one machine to another.
    pub(super) fn open(&self, from: usize, to: usize) -> bool {
        self.lost(from, to) < CUT
    }

    /// Whether two machines can speak with each other.
    pub(super) fn clear(&self, a: usize, b: usize) -> bool {
        self.open(a, b) && self.open(b, a)
    }

    /// Whether any link loses some packets and lets others pass.
    pub(super) fn is_lossy(&self) -> bool {
        self.loss > 0 || !self.losses.is_empty()
    }

    /// Packets of a thousand that are lost on this way.
    fn lost(&self, from: usize, to: usize) -> u32 {
        if self.cuts.contains(&(from, to)) || self.flapped.contains(&(from, to)) {
            return CUT;
        }
        self.loss.max(self.losses.get(&(from, to)).copied().unwrap_or(0))
    }

    /// Whether a packet must pass, `None` where it is a matter of chance.
    fn must_pass(&self, from: usize, to: usize) -> Option<bool> {
        let powered = [from, to].iter().all(|host| self.machines[*host].state != State::Off);
        match self.lost(from, to) {
            0 => Some(powered),
            CUT.. => Some(false),
            _ => (!powered).then_some(false),
        }
    }

    /// Cuts exactly these ways.
    pub(super) fn set_cuts(&mut self, cuts: BTreeSet<(usize, usize)>) -> Result<()> {
        self.cuts = cuts;
        self.links_follow()
    }

    /// The ways that are cut.
    pub(super) fn cuts(&self) -> BTreeSet<(usize, usize)> {
        self.cuts.clone()
    }

    /// Cuts these ways, or lets them pass again, beside those that are cut for longer.
    pub(super) fn flap(&mut self, ways: &BTreeSet<(usize, usize)>, down: bool) -> Result<()> {
        self.flapped = if down { &self.flapped | ways } else { &self.flapped - ways };
        self.links_follow()
    }

    /// Loses so many packets of a thousand on one way.
    pub(super) fn lose_on(&mut self, from: usize, to: usize, loss: u32) -> Result<()> {
        self.losses.insert((from, to), loss);
        self.links_follow()
    }

    /// Loses so many packets of a thousand on every way.
    pub(super) fn lose(&mut self, loss: u32) -> Result<()> {
        self.loss = loss;
        self.links_follow()
    }

    /// No packet is lost by chance any more, and nothing comes and goes.
    pub(super) fn calm_links(&mut self) {
        self.loss = 0;
        self.losses.clear();
        self.flapped.clear();
    }

    fn links_follow(&mut self) -> Result<()> {
        let pairs = self.hosts().flat_map(|from| self.hosts().map(move |to| (from, to)));
        let lossy = pairs.filter(|(from, to)| from != to && self.lost(*from, *to) > 0);
        let ways: Vec<(String, String, u16)> = lossy
            .map(|(from, to)| {
                let loss = u16::try_from(self.lost(from, to).min(CUT)).unwrap_or(u16::MAX);
                (self.name(from).to_owned(), self.name(to).to_owned(), loss)
            })
            .collect();
        self.cluster.lose(&ways)?;
        self.disturb();
        Ok(())
    }

    /// Sends a packet on every way, and says on which one it did what it must not.
    pub(super) fn packets(&mut self) -> Result<Option<String>> {
        let pairs: Vec<(usize, usize)> =
            self.hosts().flat_map(|from| self.hosts().map(move |to| (from, to))).collect();
        let must = |(from, to): &(usize, usize)| Some(((*from, *to), self.must_pass(*from, *to)?));
        let must: BTreeMap<(usize, usize), bool> =
            pairs.iter().filter(|(from, to)| from != to).filter_map(must).collect();
        Ok(self.packets.check(&must)?.map(|(from, to, passes)| {
            let (from, to) = (self.name(from), self.name(to));
            if passes {
                format!("packets pass a way that is cut: {from} -> {to}")
            } else {
                format!("packets do not pass a way that is whole: {from} -> {to}")
            }
        }))
    }

    /// Takes the cluster down; what is left of it, in words, or why that cannot be told.
    pub(super) fn down(self) -> Result<Vec<String>> {
        let traces = self.cluster.traces()?;
        drop(self.packets);
        let strangers = self.cluster.down()?;
        let left = traces.left()?.into_iter().map(|it| format!("{it:?}"));
        let strangers = strangers.into_iter().map(|pid| format!("process {pid} in its network"));
        Ok(left.chain(strangers).collect())
    }
}
