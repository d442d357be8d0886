//! One task for each container of this node: it alone starts, stops and removes it, and hears of its
//! end. The calls into the runtime block, so each runs on a thread of the pool.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use image::{ImageConfig, ImageStore};
use model::ContainerId;
use node::{Claim, Exit, Found, Input};
use runtime::{
    ContainerSpec, ExitRecord, Limits, LogLimits, PublishedPort, Runtime, SPEC_VERSION, StartError, State,
};
use tokio::sync::{Semaphore, mpsc};

use crate::mind::{Mind, wall_ms};
use crate::notices::Notices;

/// How long a program has to end by itself, in milliseconds: what Docker gives.
const STOP_GRACE_MS: u64 = 10_000;

/// Bytes of one log file of a container, and files: 12 MiB a container at the most.
const LOG_FILE_BYTES_MAX: u64 = 4 << 20;
const LOG_FILES_MAX: u32 = 3;

/// Containers that are made at once. More only wait for the same processors and mounts.
const STARTS_AT_ONCE_MAX: usize = 8;

/// How a removal that failed is tried again: something of the machine is in the way.
const REMOVE_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// The number of the lease that an exclusive container was started under.
const FENCE_VARIABLE: &str = "SKERRY_FENCE";

enum Op {
    /// Until then and no longer, in nanoseconds of `runtime::boot_now_ns`.
    Start(Box<Claim>, Option<u64>),
    Stop,
    Remove,
}

/// All containers of this node.
#[derive(Clone)]
pub(crate) struct Keeper {
    inner: Arc<Inner>,
    tasks: Arc<Mutex<BTreeMap<ContainerId, mpsc::UnboundedSender<Op>>>>,
}

struct Inner {
    runtime: Arc<Runtime>,
    images: Arc<ImageStore>,
    mind: Mind,
    notices: Arc<Notices>,
    cgroup_parent: String,
    starts: Semaphore,
}

/// Containers that a scan of the folder found, as the core wants to know them, and what could not be
/// understood, in words.
pub(crate) fn scan(runtime: &Runtime) -> Result<(Vec<Found>, Vec<String>), runtime::RuntimeError> {
    let mut found = Vec::new();
    let mut strange = Vec::new();
    for it in runtime.scan()? {
        let spec = match it.spec {
            Ok(spec) => spec,
            Err(error) => {
                strange.push(format!("{}: {}", it.path.display(), chain(&error)));
                continue;
            }
        };
        let claim: Result<Claim, _> = serde_json::from_value(spec.claim);
        let (Ok(container), Ok(claim)) = (it.id.parse(), claim) else {
            strange.push(format!("{}: holds no claim of this release", it.path.display()));
            continue;
        };
        let state = match it.state {
            Ok(State::Running(running)) => Ok((running.pid, running.started_ms)),
            Ok(State::Exited(exit)) => Err(how_it_ended(&exit)),
            Ok(State::Lost { reason }) => Err(Exit { lost: Some(reason), ..Exit::default() }),
            Ok(State::Created) => {
                Err(Exit { lost: Some("it was never started".to_owned()), ..Exit::default() })
            }
            // Another peer's start, cut off: its supervisor ends by itself and is told as lost then.
            Ok(State::Starting) => {
                Err(Exit { lost: Some("its start was cut off".to_owned()), ..Exit::default() })
            }
            Err(error) => {
                strange.push(format!("{}: {}", it.path.display(), chain(&error)));
                continue;
            }
        };
        found.push(Found { container, claim, state, stopping: it.stopping });
    }
    Ok((found, strange))
}

impl Keeper {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        images: Arc<ImageStore>,
        mind: Mind,
        notices: Arc<Notices>,
        cgroup_parent: String,
    ) -> Self {
        let starts = Semaphore::new(STARTS_AT_ONCE_MAX);
        let inner = Arc::new(Inner { runtime, images, mind, notices, cgroup_parent, starts });
        Self { inner, tasks: Arc::default() }
    }

    /// Watches over a container that was found running.
    pub(crate) fn adopt(&self, container: ContainerId) {
        self.task(container, true);
    }

    pub(crate) fn start(&self, container: ContainerId, claim: Box<Claim>, until_boot_ns: Option<u64>) {
        self.tell(container, Op::Start(claim, until_boot_ns));
    }

    /// Beside its task, which may be busy with its start or its end. One that is lost is followed by another.
    pub(crate) fn extend(&self, container: ContainerId, until_boot_ns: u64) {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = inner.runtime.extend(&container.to_string(), until_boot_ns) {
                tracing::debug!(%container, error = chain(&error), "its end was not moved on");
            }
        });
    }

    pub(crate) fn stop(&self, container: ContainerId) {
        self.tell(container, Op::Stop);
    }

    pub(crate) fn remove(&self, container: ContainerId) {
        self.tell(container, Op::Remove);
    }

    fn tell(&self, container: ContainerId, op: Op) {
        // The task reads until its container is removed, so the letter is read.
        drop(self.task(container, false).send(op));
    }

    fn task(&self, container: ContainerId, runs: bool) -> mpsc::UnboundedSender<Op> {
        let mut tasks = self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(task) = tasks.get(&container)
            && !task.is_closed()
        {
            return task.clone();
        }
        let (sender, ops) = mpsc::unbounded_channel();
        tasks.insert(container, sender.clone());
        let keeper = self.clone();
        tokio::spawn(async move {
            keeper.inner.keep(container, ops, runs).await;
            keeper.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&container);
        });
        sender
    }
}

type Watch = tokio::task::JoinHandle<Exit>;

impl Inner {
    /// The life of one container, to its removal.
    async fn keep(
        self: &Arc<Self>,
        container: ContainerId,
        mut ops: mpsc::UnboundedReceiver<Op>,
        runs: bool,
    ) {
        let mut watch: Option<Watch> = runs.then(|| self.watch(container));
        loop {
            let ended = async {
                match &mut watch {
                    Some(watch) => watch.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                exit = ended => {
                    watch = None;
                    let exit = exit.unwrap_or_else(|error| Exit { lost: Some(error.to_string()), ..Exit::default() });
                    self.mind.input(Input::Exited { container, exit }).await;
                }
                op = ops.recv() => match op {
                    Some(Op::Start(claim, until)) => {
                        if self.start(container, claim, until).await {
                            watch = Some(self.watch(container));
                        }
                    }
                    Some(Op::Stop) => self.stop(container, watch.is_some()).await,
                    Some(Op::Remove) => {
                        self.remove(container).await;
                        self.mind.input(Input::Removed(container)).await;
                        return;
                    }
                    None => return,
                },
            }
        }
    }

    /// Waits, on a thread of its own, until the container has ended.
    fn watch(self: &Arc<Self>, container: ContainerId) -> Watch {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            match crate::watch::exit_of(&inner.runtime, &container.to_string()).await {
                Ok(exit) => how_it_ended(&exit),
                Err(reason) => Exit { lost: Some(reason), ..Exit::default() },
            }
        })
    }

    async fn start(self: &Arc<Self>, container: ContainerId, claim: Box<Claim>, until: Option<u64>) -> bool {
        let Ok(_permit) = self.starts.acquire().await else { return false };
        let inner = Arc::clone(self);
        let started =
            tokio::task::spawn_blocking(move || inner.start_blocking(container, &claim, until)).await;
        let (here_only, reason) = match started {
            Ok(Ok(pid)) => {
                self.mind.input(Input::Started { container, pid }).await;
                return true;
            }
            Ok(Err(failed)) => failed,
            Err(error) => (false, format!("a bug in the runtime: {error}")),
        };
        self.mind.input(Input::StartFailed { container, here_only, reason }).await;
        false
    }

    /// The process, or whether another node might do better and why it failed.
    fn start_blocking(
        &self,
        container: ContainerId,
        claim: &Claim,
        until: Option<u64>,
    ) -> Result<u32, (bool, String)> {
        let prepared = self.images.prepare(&claim.run.image).map_err(|error| (true, chain(&error)))?;
        let mut spec = self
            .spec(container, claim, prepared.lower, &prepared.config)
            .map_err(|reason| (false, reason))?;
        spec.until_boot_ns = until;
        self.runtime.write_spec(&spec).map_err(|error| (true, chain(&error)))?;
        match self.runtime.start(&spec.id) {
            Ok(started) => {
                for missing in &started.degraded {
                    tracing::warn!(%container, missing, "runs without");
                    let replica = &claim.replica;
                    let about = Some(format!("{}/{}", replica.namespace, replica.deployment));
                    let message =
                        format!("{}.{} runs with less: {missing}", replica.deployment, replica.ordinal);
                    self.notices.add(wall_ms(), &node::Notice { kind: "container-degraded", about, message });
                }
                Ok(started.pid)
            }
            Err(error) => {
                let here_only = matches!(
                    error,
                    StartError::PortTaken { .. }
                        | StartError::PortRefused { .. }
                        | StartError::LimitRefused { .. }
                );
                Err((here_only, chain(&error)))
            }
        }
    }

    fn spec(
        &self,
        container: ContainerId,
        claim: &Claim,
        lower: Vec<std::path::PathBuf>,
        image: &ImageConfig,
    ) -> Result<ContainerSpec, String> {
        let run = &claim.run;
        // As Kubernetes has it: a command replaces the entrypoint, and with it the image's arguments.
        let (entrypoint, cmd) = if run.command.is_empty() {
            (&image.entrypoint, if run.args.is_empty() { &image.cmd } else { &run.args })
        } else {
            (&run.command, &run.args)
        };
        let args: Vec<String> = entrypoint.iter().chain(cmd).cloned().collect();
        if args.is_empty() {
            return Err(format!(
                "image {} names no program and the deployment gives no `command`",
                run.reference
            ));
        }
        let mut env: BTreeMap<String, String> = BTreeMap::from([(
            "PATH".to_owned(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        )]);
        let of_image = image.env.iter().filter_map(|pair| pair.split_once('='));
        env.extend(of_image.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let hostname = format!("{}-{}", claim.replica.deployment, claim.replica.ordinal);
        env.extend([
            ("HOSTNAME".to_owned(), hostname.clone()),
            ("SKERRY_NAMESPACE".to_owned(), claim.replica.namespace.to_string()),
            ("SKERRY_DEPLOYMENT".to_owned(), claim.replica.deployment.to_string()),
            ("SKERRY_ORDINAL".to_owned(), claim.replica.ordinal.to_string()),
            ("SKERRY_REVISION".to_owned(), claim.revision_number.to_string()),
            ("SKERRY_CONTAINER".to_owned(), container.to_string()),
        ]);
        env.extend(claim.fence.map(|fence| (FENCE_VARIABLE.to_owned(), fence.to_string())));
        env.extend(run.env.iter().map(|(key, value)| (key.clone(), value.clone())));
        let most = run.limits.over(&run.resources);
        let limits = Limits { cpu_m: most.cpu_m, memory_b: most.memory_b, pids: most.pids };
        // To the runtime, 0 is no limit.
        #[cfg(feature = "sabotage")]
        let limits = if crate::sabotage::Sabotage::NoLimits.is_on() { Limits::default() } else { limits };
        Ok(ContainerSpec {
            version: SPEC_VERSION,
            id: container.to_string(),
            claim: serde_json::to_value(claim).map_err(|error| error.to_string())?,
            lower,
            args,
            env: env.into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
            cwd: run.workdir.clone().or_else(|| image.workdir.clone()).unwrap_or_else(|| "/".to_owned()),
            user: run.user.clone().or_else(|| image.user.clone()),
            hostname: hostname[..hostname.len().min(63)].to_owned(),
            limits,
            cpu_share_m: run.resources.cpu_m,
            ports: run
                .ports
                .iter()
                .map(|port| PublishedPort { host: port.host, container: port.container })
                .collect(),
            stop_grace_ms: STOP_GRACE_MS,
            log: LogLimits { file_b_max: LOG_FILE_BYTES_MAX, files_max: LOG_FILES_MAX },
            cgroup_parent: self.cgroup_parent.clone(),
            read_only: false,
            until_boot_ns: None,
            fence: claim.fence,
        })
    }

    async fn stop(self: &Arc<Self>, container: ContainerId, runs: bool) {
        if !runs {
            // It ended, or never began, before the word to stop came: say so once more.
            let exit = Exit { lost: Some("it had ended already".to_owned()), ..Exit::default() };
            self.mind.input(Input::Exited { container, exit }).await;
            return;
        }
        let inner = Arc::clone(self);
        let grace = std::time::Duration::from_millis(STOP_GRACE_MS);
        let stopped =
            tokio::task::spawn_blocking(move || inner.runtime.stop(&container.to_string(), grace)).await;
        match stopped {
            Ok(Ok(_)) => {}
            // Its end is told by the watch in any case, when its supervisor is gone too.
            Ok(Err(error)) => tracing::warn!(%container, error = chain(&error), "could not be asked to stop"),
            Err(error) => tracing::error!(%container, %error, "a bug in the runtime"),
        }
    }

    async fn remove(self: &Arc<Self>, container: ContainerId) {
        loop {
            let inner = Arc::clone(self);
            let removed =
                tokio::task::spawn_blocking(move || inner.runtime.remove(&container.to_string())).await;
            match removed {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::warn!(%container, error = chain(&error), "cannot be removed yet"),
                Err(error) => tracing::error!(%container, %error, "a bug in the runtime"),
            }
            tokio::time::sleep(REMOVE_AGAIN).await;
        }
    }
}

/// Killed for the end of its lease it has not had its run: it is started again wherever there is one.
fn how_it_ended(exit: &ExitRecord) -> Exit {
    let lost = exit.overdue.then(|| "its lease has ended: no majority of its voters renewed it".to_owned());
    Exit { code: exit.code, signal: exit.signal, oom: exit.oom, lost }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
