//! The cluster as it is before the cut: the deployments are on every disk and what runs now is in the
//! kernels before the machines are switched on; the peers adopt it, as after a restart.

use std::time::Duration;

use document::Documents;
use model::{ContainerId, ReplicaId, Time};
use node::{Claim, Exit, RunSpec};

use super::{NoAnswer, Question};
use crate::author::image_digest;
use crate::host::Container;
use crate::world::{Cluster, EPOCH_MS, Settings};

/// How long what runs before the cut has run: long enough to be well.
const RAN_MS: i64 = 3_600_000;

/// The cluster of a question, switched on.
pub(super) fn found(question: &Question) -> Result<Cluster, NoAnswer> {
    let mut cluster = Cluster::of_machines(question.seed, question.machines.clone(), Settings::default());
    // A what-if tells what a cluster does; whether it may is asked in stories, and takes longer.
    cluster.thorough(false);
    cluster.keep_lives();
    let documents = write_deployments(&mut cluster, question)?;
    for (n, placed) in question.placed.iter().enumerate() {
        let Some(view) = documents.get(&placed.namespace, &placed.name) else { continue };
        let Ok(deployment) = &view.deployment else { continue };
        let claim = Claim {
            replica: ReplicaId {
                namespace: placed.namespace.clone(),
                deployment: placed.name.clone(),
                incarnation: view.incarnation,
                ordinal: placed.ordinal,
            },
            revision: deployment.revision(),
            revision_number: documents.revision_number(&placed.namespace, &placed.name, view.incarnation),
            number: 1,
            run: RunSpec::of(deployment),
            restarts: 0,
            // It runs under some number, which its voters grant again.
            fence: deployment.is_exclusive().then_some(1),
            failed_runs: 0,
        };
        cluster.runs_already(placed.machine, n, claim);
    }
    for host in 0..cluster.len() {
        cluster.start(host);
    }
    Ok(cluster)
}

/// Signs the creation of every deployment and puts it on every disk.
fn write_deployments(cluster: &mut Cluster, question: &Question) -> Result<Documents, NoAnswer> {
    let mut documents = Documents::new(cluster.identity);
    for event in &cluster.hosts[0].disk {
        documents.insert(event).expect("the simulator's own events are valid");
    }
    for deployment in &question.deployments {
        // Every simulated machine holds this image and no other.
        let mut deployment = deployment.clone();
        deployment.image.digest = image_digest();
        let event = cluster.alice.create(&documents, &deployment, EPOCH_MS);
        documents.insert(&event).map_err(|source| NoAnswer::Refused {
            namespace: deployment.namespace.clone(),
            name: deployment.name.clone(),
            source: Box::new(source),
        })?;
        cluster.check.signed(&event);
        for host in &mut cluster.hosts {
            host.write([event.clone()]);
        }
    }
    Ok(documents)
}

impl Cluster {
    /// A container runs before its machine's peer is started for the first time.
    fn runs_already(&mut self, host: usize, number: usize, claim: Claim) {
        // Ids of containers that nodes make are hashes; these only must differ from one another.
        let id = ContainerId::from_bytes((number as u64 + 1).to_be_bytes());
        let replica = claim.replica.clone();
        let it = &mut self.hosts[host];
        let pid = it.pids;
        it.pids += 1;
        let container = Container {
            claim,
            pid: Some(pid),
            started_ms: EPOCH_MS - RAN_MS,
            started: Time::ZERO,
            starts: 1,
            until: None,
            starting: false,
            stop_asked: false,
            surplus: false,
            exit: Exit::default(),
            ends_at: None,
            failed: 0,
            failed_starts: 0,
        };
        it.kernel.insert(id, container);
        self.count(&replica, true);
        self.remember_truth(host);
        self.life_begins(host, id);
    }
}

/// How long a cluster may take to come to rest.
pub(super) const AT_REST_WITHIN: Duration = Duration::from_secs(600);
