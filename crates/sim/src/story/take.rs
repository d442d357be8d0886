//! One step is taken, where it can be.

use document::Documents;
use model::{ContainerId, RestartPolicy};

use super::action::{Action, Bad, Cuts};
use crate::author::Author;
use crate::faults::User;
use crate::host::HostState;
use crate::world::{Cluster, seed32};

type Last = Option<Vec<u8>>;

fn sign(
    cluster: &mut Cluster,
    last: &mut Last,
    user: User,
    host: usize,
    what: &str,
    with: impl FnOnce(&mut Author, &Documents, i64) -> Option<Vec<u8>>,
) {
    if cluster.answers(host)
        && let Some((_, event)) = cluster.sign_and_submit(host, user, what, with)
    {
        *last = Some(event);
    }
}

/// Does one thing, where it can be done.
pub(super) fn take(cluster: &mut Cluster, action: &Action, last: &mut Last) {
    match action {
        Action::Apply(user, host, of, spec) => {
            let ends = match spec.restart.policy {
                RestartPolicy::Always => String::new(),
                policy => format!(", restart {policy:?}"),
            };
            let voters = if spec.voters.is_empty() {
                String::new()
            } else {
                format!(", exclusive by {}", spec.voters.join("+"))
            };
            let what =
                format!("apply {of} x{} at {}m{ends}{voters}", spec.replicas.count, spec.resources.cpu_m);
            sign(cluster, last, *user, *host, &what, |author, documents, time_ms| {
                author.apply(documents, of, spec, time_ms)
            });
        }
        Action::Set(user, host, of, group, json) => {
            let what = format!("set {group} of {of} to {json}");
            sign(cluster, last, *user, *host, &what, |author, documents, time_ms| {
                let json =
                    if *group == "replicas" { Author::scaled(documents, of, json) } else { json.clone() };
                author.set(documents, of, group, &json, time_ms)
            });
        }
        Action::Restart(user, host, of) => {
            let what = format!("restart {of}");
            sign(cluster, last, *user, *host, &what, |author, documents, time_ms| {
                author.restart(documents, of, time_ms)
            });
        }
        Action::Delete(user, host, of) => {
            let what = format!("delete {of}");
            sign(cluster, last, *user, *host, &what, |author, documents, time_ms| {
                author.delete(documents, of, time_ms)
            });
        }
        Action::Retry(host) => {
            if cluster.answers(*host)
                && let Some(event) = last.clone()
            {
                cluster.tell(format!("the last event is handed in again through n{}", host + 1));
                cluster.submit(*host, event);
            }
        }
        Action::Cut(Cuts::Split(groups)) => {
            let groups: Vec<&[usize]> = groups.iter().map(Vec::as_slice).collect();
            cluster.split(&groups);
        }
        Action::Cut(Cuts::OneWay(pairs)) => {
            for (from, to) in pairs {
                cluster.cut_one_way(*from, *to);
            }
        }
        Action::Cut(Cuts::Bridge(bridge)) => {
            let others: Vec<usize> = (0..cluster.len()).filter(|host| host != bridge).collect();
            for from in &others {
                for to in others.iter().filter(|to| *to != from) {
                    cluster.cut_one_way(*from, *to);
                }
            }
        }
        Action::Cut(Cuts::Ring) => cluster.ring(),
        Action::Heal => cluster.heal(),
        Action::PowerOff(host) => {
            if cluster.state(*host) != HostState::PowerOff && honest(cluster, *host) {
                cluster.power_off(*host);
            }
        }
        Action::KillPeer(host) => {
            if cluster.state(*host) == HostState::Up && honest(cluster, *host) {
                cluster.stop_peer(*host);
            }
        }
        Action::Start(host) => start(cluster, *host),
        Action::Blackout => {
            for host in 0..cluster.len() {
                if cluster.state(host) != HostState::PowerOff && honest(cluster, host) {
                    cluster.power_off(host);
                }
            }
        }
        Action::StartAll => (0..cluster.len()).for_each(|host| start(cluster, host)),
        Action::DiskFull(host, full) => cluster.disk_full(*host, *full),
        Action::Crash(draw) => {
            if let Some((host, container)) = one_of_those_that_run(cluster, *draw) {
                cluster.crash_container(host, container, 3);
            }
        }
        Action::Finish(draw) => {
            if let Some((host, container)) = one_of_those_that_run(cluster, *draw) {
                cluster.crash_container(host, container, 0);
            }
        }
        Action::Oom(draw) => {
            if let Some((host, container)) = one_of_those_that_run(cluster, *draw) {
                cluster.oom_container(host, container);
            }
        }
        Action::Undo(user, host, of) => {
            sign(
                cluster,
                last,
                *user,
                *host,
                &format!("undo the last change of {of}"),
                |author, documents, at| author.undo(documents, of, at),
            );
        }
        Action::Bad(user, host, of, bad) => hand_in_bad(cluster, last, (*user, *host), of, *bad),
        Action::Join(host) => {
            cluster.join_new(*host);
        }
        Action::Leave(host) => remove(cluster, *host, *host),
        Action::Remove(host, gone) => remove(cluster, *host, *gone),
        Action::Clog(from, to, span) => cluster.clog(*from, *to, *span),
        Action::Flap(pairs, half, span) => cluster.flap(pairs.clone(), *half, *span),
        Action::Lossy(from, to, loss) => cluster.lose_on(*from, *to, *loss),
        Action::DieAfter(host, effects, death, back) => cluster.die_after(*host, *effects, *death, *back),
        Action::Pause(host, span) => cluster.pause(*host, *span),
        Action::Again(host) => {
            if cluster.state(*host) == HostState::Up && honest(cluster, *host) {
                cluster.stop_peer(*host);
                cluster.start(*host);
            }
        }
        Action::Room(host, records) => cluster.disk_room(*host, *records),
        Action::BackUp(host) => cluster.back_up(*host),
        Action::Restore(host) => {
            if honest(cluster, *host) {
                cluster.restore(*host);
            }
        }
        Action::Clone(host) => {
            // One is enough to make two of one key.
            if honest(cluster, *host) && cluster.clones.is_empty() {
                cluster.clone_disk(*host);
            }
        }
        Action::StepClock(host, by_ms) => cluster.step_clock(*host, *by_ms),
        Action::Drift(host, ppm) => cluster.drift_clock(*host, *ppm),
        Action::StopClock(host, stopped) => cluster.stop_clock(*host, *stopped),
        Action::NoPids(host, none) => cluster.no_pids(*host, *none),
        Action::SlowStarts(host, start) => cluster.slow_starts(*host, *start),
        Action::Press(host, shortage) => cluster.press(*host, *shortage),
    }
}

fn one_of_those_that_run(cluster: &Cluster, draw: u64) -> Option<(usize, ContainerId)> {
    let running = cluster.processes();
    let at = usize::try_from(draw.checked_rem(running.len() as u64)?).ok()?;
    running.get(at).map(|(host, container, _)| (*host, *container))
}

fn honest(cluster: &Cluster, host: usize) -> bool {
    cluster.hosts[host].rogue.is_none()
}

/// Removes a machine, if enough are left that a story can go on.
fn remove(cluster: &mut Cluster, via: usize, gone: usize) {
    if cluster.answers(via) && cluster.members(via).len() > 2 && gone != 0 {
        cluster.remove_node(via, gone);
    }
}

fn hand_in_bad(cluster: &mut Cluster, last: &mut Last, (user, host): (User, usize), of: &str, bad: Bad) {
    if !cluster.answers(host) {
        return;
    }
    let what = format!("something bad about {of}: {bad:?}");
    match bad {
        Bad::OnTheDeleted => sign(cluster, last, user, host, &what, |author, documents, at| {
            author.set_on_the_deleted(documents, of, at)
        }),
        Bad::Group => sign(cluster, last, user, host, &what, |author, documents, at| {
            author.set(documents, of, "env", r#"{"vars":17}"#, at)
        }),
        Bad::Forged | Bad::Stranger => {
            let mut stranger = Author::new(seed32(cluster.seed, 0x66, 0));
            let time_ms = cluster.wall_ms(host);
            let Some(node) = cluster.node(host) else { return };
            let signed =
                stranger.set(node.documents(), of, "restart", r#"{"policy":"never","token":"x"}"#, time_ms);
            let Some(mut event) = signed else { return };
            if bad == Bad::Forged {
                event[10] ^= 1;
            }
            cluster.tell(format!("a stranger through n{}: {what}", host + 1));
            cluster.submit(host, event);
        }
    }
}

pub(crate) fn start(cluster: &mut Cluster, host: usize) {
    // A machine that was never let in has nothing to start with.
    if cluster.state(host) != HostState::Up && !cluster.hosts[host].disk.is_empty() {
        cluster.start(host);
    }
}
