//! A small cluster as owned values, to be changed by tests and seen as a view.

use std::collections::BTreeMap;

use model::{
    Capacity, Class, ContainerId, ContainerRecord, ContainerState, Declined, Deployment, Digest, EnvGroup,
    EventId, Extras, ImageGroup, MetaGroup, Mode, Name, NodeId, PlacementGroup, Port, PortsGroup, Protocol,
    ReplicaId, ReplicasGroup, ResourcesGroup, RestartGroup, RestartPolicy,
};
use planner::{NodeView, Placement, Plan, RULES, View, Wanted};

pub(crate) const MIB: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) name: Name,
    pub(crate) labels: BTreeMap<model::LabelKey, String>,
    pub(crate) capacity: Capacity,
    pub(crate) capacity_version: u64,
    pub(crate) alive: bool,
    pub(crate) accepts_new: bool,
    pub(crate) pressure: Option<String>,
    pub(crate) drains: bool,
    pub(crate) linked_voters: Vec<NodeId>,
    pub(crate) images: Vec<model::ImageRecord>,
    pub(crate) containers: Vec<ContainerRecord>,
    pub(crate) declined: Vec<Declined>,
}

impl Machine {
    fn view(&self) -> NodeView<'_> {
        NodeView {
            said: None,
            ordinal: 0,
            name: &self.name,
            labels: &self.labels,
            capacity: &self.capacity,
            capacity_version: self.capacity_version,
            alive: self.alive,
            accepts_new: self.accepts_new,
            pressure: self.pressure.as_deref(),
            drains: self.drains,
            linked_voters: self.linked_voters.clone(),
            images: &self.images,
            containers: &self.containers,
            declined: &self.declined,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) nodes: BTreeMap<NodeId, Machine>,
    pub(crate) next_container: u64,
    /// What has ended for good of jobs, by name.
    pub(crate) ends: BTreeMap<Name, model::JobEnds>,
}

pub(crate) fn node_id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

pub(crate) fn deployment(name: &str, count: u32) -> Deployment {
    Deployment {
        namespace: Name::default_namespace(),
        name: name.parse().unwrap(),
        incarnation: EventId::from_bytes([7; 32]),
        image: ImageGroup {
            reference: "web:1".into(),
            digest: Digest::from_bytes([2; 32]),
            command: vec![],
            args: vec![],
            workdir: None,
            user: None,
        },
        replicas: ReplicasGroup { count, class: Class::Available, mode: Mode::Replicated, voters: vec![] },
        resources: ResourcesGroup { cpu_m: 100, memory_b: 100 * MIB, pids: 10, ..ResourcesGroup::default() },
        env: EnvGroup::default(),
        ports: PortsGroup::default(),
        placement: PlacementGroup::default(),
        restart: RestartGroup::default(),
        meta: MetaGroup::default(),
        update: model::UpdateGroup::default(),
        depends: model::DependsGroup::default(),
        job: None,
    }
}

pub(crate) fn with_port(mut it: Deployment, host: u16) -> Deployment {
    it.ports.ports.push(Port { container: 80, host, protocol: Protocol::Tcp });
    it
}

pub(crate) fn with_policy(mut it: Deployment, policy: RestartPolicy) -> Deployment {
    it.restart.policy = policy;
    it
}

pub(crate) fn replica(of: &Deployment, ordinal: u32) -> ReplicaId {
    ReplicaId {
        namespace: of.namespace.clone(),
        deployment: of.name.clone(),
        incarnation: of.incarnation,
        ordinal,
    }
}

/// One letter for each replica: kept, old and waits (`o`), doubled, stopped first, new, ended, queued, given up (`x`),
/// waits for others, waits for those who yield, without a place.
pub(crate) fn letters(plan: &Plan, of: &Deployment) -> String {
    let letter = |ordinal| match &plan.placements[&replica(of, ordinal)] {
        Placement::Keep { .. } => 'k',
        Placement::KeepOld { .. } => 'o',
        Placement::Replace { .. } => 'd',
        Placement::StopFirst { .. } => 's',
        Placement::Start { .. } => 'n',
        Placement::Ended => 'e',
        Placement::Queued => 'q',
        Placement::GivenUp => 'x',
        Placement::Waits => 'w',
        Placement::Awaits { .. } => 'y',
        Placement::Unplaced { .. } => '-',
    };
    (0..of.replicas.count).map(letter).collect()
}

/// So many of the extra `gpu`; none for 0.
pub(crate) fn gpus(count: u64) -> Extras {
    let counts = (count > 0).then(|| ("gpu".parse().unwrap(), count));
    Extras::new(counts.into_iter().collect()).unwrap()
}

impl World {
    /// `nodes` boxes of one core, 1,000 MiB and 100 processes.
    pub(crate) fn new(nodes: u8) -> Self {
        let mut world = Self::default();
        for n in 0..nodes {
            world.add_node(n);
        }
        world
    }

    pub(crate) fn add_node(&mut self, n: u8) {
        let it = Machine {
            name: format!("node-{n}").parse().unwrap(),
            labels: BTreeMap::new(),
            capacity: Capacity { cpu_m: 1_000, memory_b: 1_000 * MIB, pids: 100, ..Capacity::default() },
            capacity_version: 1,
            alive: true,
            accepts_new: true,
            pressure: None,
            drains: false,
            linked_voters: (0..=u8::MAX).map(node_id).collect(),
            images: vec![],
            containers: vec![],
            declined: vec![],
        };
        self.nodes.insert(node_id(n), it);
    }

    pub(crate) fn node(&mut self, n: u8) -> &mut Machine {
        self.nodes.get_mut(&node_id(n)).unwrap()
    }

    /// Puts a container that runs and is healthy on node `n`; the caller may change it.
    pub(crate) fn run(&mut self, n: u8, of: &Deployment, ordinal: u32) -> &mut ContainerRecord {
        self.run_on(node_id(n), of, ordinal)
    }

    pub(crate) fn run_on(&mut self, id: NodeId, of: &Deployment, ordinal: u32) -> &mut ContainerRecord {
        self.next_container += 1;
        let record = ContainerRecord {
            id: ContainerId::from_bytes(self.next_container.to_be_bytes()),
            replica: replica(of, ordinal),
            revision: of.revision(),
            revision_number: 1,
            claim: 1,
            resources: of.resources.as_capacity(),
            state: ContainerState::Running,
            healthy: Some(true),
            ready: true,
            proven: true,
            pid: None,
            started_ms: None,
            restarts: 0,
            reason: None,
            confirms: vec![],
            yields_to: None,
        };
        let containers = &mut self.nodes.get_mut(&id).unwrap().containers;
        containers.push(record);
        containers.last_mut().unwrap()
    }

    pub(crate) fn decline(&mut self, n: u8, of: &Deployment, ordinal: u32) {
        let it = Declined {
            replica: replica(of, ordinal),
            revision: of.revision(),
            capacity_version: self.node(n).capacity_version,
            reason: "disk full".into(),
        };
        self.node(n).declined.push(it);
    }

    pub(crate) fn view(&self) -> View<'_> {
        let ordinals = planner::ordinals(self.nodes.keys().copied());
        View {
            deployments: self
                .deployments
                .iter()
                .map(|it| Wanted { deployment: it, revision: it.revision(), ends: self.ends.get(&it.name) })
                .collect(),
            nodes: self
                .nodes
                .iter()
                .map(|(id, it)| (*id, NodeView { ordinal: ordinals[id], ..it.view() }))
                .collect(),
            rules: RULES,
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        planner::plan(&self.view())
    }

    /// Does what the plan says: starts what is to be started, healthy at once.
    pub(crate) fn obey(&mut self, plan: &Plan) {
        for (id, placement) in plan.placements.iter() {
            let of = self.deployments.iter().find(|it| it.name == id.deployment).unwrap().clone();
            match placement {
                Placement::Start { node } => {
                    self.run_on(*node, &of, id.ordinal);
                }
                Placement::Replace { old: (on, old), new } => {
                    self.nodes.get_mut(on).unwrap().containers.retain(|it| it.id != *old);
                    let there = |it: &ContainerRecord| {
                        it.replica == id && it.revision == of.revision() && planner::is_claim(it.state)
                    };
                    if !self.nodes[new].containers.iter().any(there) {
                        self.run_on(*new, &of, id.ordinal);
                    }
                }
                Placement::Keep { .. }
                | Placement::KeepOld { .. }
                | Placement::StopFirst { .. }
                | Placement::Awaits { .. }
                | Placement::Waits
                | Placement::Ended
                | Placement::Queued
                | Placement::GivenUp
                | Placement::Unplaced { .. } => {}
            }
        }
        for node in self.nodes.values_mut() {
            node.containers.retain(|it| {
                let stops = |placement: &Placement| {
                    matches!(placement, Placement::StopFirst { container, .. } if *container == it.id)
                };
                !plan.yields.contains_key(&it.id) && !plan.placements.get(&it.replica).is_some_and(stops)
            });
        }
    }
}
