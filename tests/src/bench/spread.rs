//! P6: how long one event takes to the last of many peers.
//!
//! A peer that takes an event appends it to its journal. The kernel tells of that write (inotify),
//! which costs the peers nothing; asking thirty of them a thousand times a second would be what is
//! measured on two cores. Afterwards each is asked whether it stands where the first one stands.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::report::{Report, Series, Target};
use super::stats::Samples;
use super::world::{CALM_WAIT, World, ms, now_ns, until_every};
use super::{Options, go_on};

/// Between two events: what peers tell each other about the one before is over by then.
const GAP: Duration = Duration::from_millis(1_500);

/// How long an event may take before a run is given up.
const SPREAD_WAIT: Duration = Duration::from_secs(20);

/// Watches the journals of all peers.
struct Journals {
    inotify: OwnedFd,
    watches: Vec<i32>,
}

impl Journals {
    fn watch(world: &World) -> Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut watches = Vec::new();
        for node in &world.names {
            let dir = world.cluster().dir().join(node).join("journal");
            File::open(&dir).with_context(|| format!("open {}", dir.display()))?;
            watches.push(inotify::add_watch(&inotify, &dir, WatchFlags::MODIFY)?);
        }
        Ok(Self { inotify, watches })
    }

    /// Which of the journals were written to since the last call; waits for one until `deadline`.
    fn written(&self, deadline: Instant) -> Result<Vec<usize>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).context("a deadline is near")?;
        poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&wait))?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut found = Vec::new();
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => bail!("events were lost"),
                Ok(event) => found.extend(self.watches.iter().position(|it| *it == event.wd())),
                Err(rustix::io::Errno::AGAIN) => return Ok(found),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Submits at changing peers; each event is a sample.
pub(crate) fn last_peer(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    world.whole()?;
    let journals = Journals::watch(world)?;
    // Joining is over, and its events are everywhere.
    std::thread::sleep(Duration::from_secs(3));
    let series = Series::begin(options)?;
    let [mut last, mut half, mut sent] = <[Samples; 3]>::default();
    for run in 0..options.runs(50, 5) {
        go_on()?;
        let at = run * 7 % world.names.len();
        std::thread::sleep(GAP);
        journals.written(Instant::now())?;
        let pids = world.names.iter().map(|node| world.peer(node)).collect::<Result<Vec<u32>>>()?;
        let bytes = || -> Result<u64> { pids.iter().map(|pid| super::machine::bytes_sent(*pid)).sum() };
        let before = bytes()?;
        let submitted = world.create(&world.names[at], &world.fresh("p6"), 0)?;
        let mut times: Vec<Option<f64>> = vec![None; world.names.len()];
        let deadline = Instant::now() + SPREAD_WAIT;
        while times.iter().any(Option::is_none) {
            let which = journals.written(deadline)?;
            let now = ms(submitted.at_ns, now_ns());
            if which.is_empty() && Instant::now() >= deadline {
                let missing = times.iter().filter(|it| it.is_none()).count();
                bail!("{missing} peers did not get an event within {} s", SPREAD_WAIT.as_secs());
            }
            for index in which {
                times[index] = times[index].or(Some(now));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "some KiB")]
        sent.push((bytes()? - before) as f64 / 1024.0);
        until_every(Duration::from_millis(5), CALM_WAIT, || world.heads_equal())?;
        // The submitter's own is not on the way to anybody.
        let mut others = Samples::default();
        for (_, time) in times.iter().enumerate().filter(|(index, _)| *index != at) {
            others.push(time.unwrap_or(f64::INFINITY));
        }
        last.push(others.max());
        half.push(others.quantile(50));
    }
    let peers = world.names.len();
    let target = Target::p50_p99(100.0, 120.0);
    report.add(&format!("P6 submit → the last of {peers} peers writes it"), "ms", &last, target, series)?;
    report.add("P6b of that, half of them", "ms", &half, Target::NONE, series)?;
    report.add("P6c sent by all peers meanwhile", "KiB", &sent, Target::NONE, series)
}
