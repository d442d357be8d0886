//! Every limit that more than one crate leans on: a name, a unit, a reason.

/// Bytes in a name: a DNS label (RFC 1035), since names become host names.
pub const NAME_BYTES_MAX: usize = 63;

/// Bytes in a label's key: as Kubernetes has it, so that keys can be carried over.
pub const LABEL_KEY_BYTES_MAX: usize = 63;

/// Bytes in a label's value, for the same reason.
pub const LABEL_VALUE_BYTES_MAX: usize = 63;

/// Kinds of extras of one node or deployment: a box with more kinds of devices is several.
pub const EXTRAS_MAX: usize = 16;

/// Of one extra on one node: what is counted is few and whole; more is an amount, with a unit.
pub const EXTRA_COUNT_MAX: u64 = 10_000;

/// Percent of what a node has that it may offer: ten times over is a wrong number.
pub const OVERCOMMIT_PERCENT_MAX: u16 = 1_000;

/// Hundredths of a percent of ten seconds in which some task waited for a processor (PSI, some avg10) from which
/// a node takes no new work: all processors are busy all the time. What runs has its share by its weight, so
/// that nothing less is trouble.
pub const PRESSURE_CPU_BEGIN: u16 = 9_500;

/// Below which it is over: a box that is busy, and has some room.
pub const PRESSURE_CPU_END: u16 = 7_000;

/// The same of memory: a fifth of the time something waited for pages to come back. A healthy machine is near 0.
pub const PRESSURE_MEMORY_BEGIN: u16 = 2_000;

/// Below which it is over.
pub const PRESSURE_MEMORY_END: u16 = 500;

/// The same of the disk. Flash cards are slow: unpacking one image makes half of the time, and is no trouble.
pub const PRESSURE_IO_BEGIN: u16 = 8_000;

/// Below which it is over.
pub const PRESSURE_IO_END: u16 = 4_000;

/// A disk is nearly full with less than one part in so many free: what file systems keep for root is as much.
/// It has room again with twice as much.
pub const PRESSURE_DISK_PART: u64 = 20;

/// Bytes of which that part is never more: an image of the usual size, and logs.
pub const PRESSURE_DISK_B_MAX: u64 = 512 << 20;

/// Labels on one node or deployment: more is data, which belongs elsewhere.
pub const LABELS_MAX: usize = 64;

/// Bytes of one signed event: fits one frame with room to spare, and an hour of the largest events
/// at one a second stays under 250 MB.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one group's JSON. Eight groups of this size would not fit one event; each alone does.
pub const GROUP_BYTES_MAX: usize = 32 * 1024;

/// Events named in `deps` or `auth_heads`: heads stay far fewer, as every peer merges on sight.
pub const EVENT_DEPS_MAX: usize = 64;

/// Edits in one event: one apply of a whole file; a larger file is split by the CLI.
pub const EVENT_EDITS_MAX: usize = 64;

/// Replicas of one deployment. The plan's cost grows with it; thousands of nodes would be needed.
pub const REPLICAS_MAX: u32 = 10_000;

/// Voters of one deployment: of five two may be lost. More are asked for each start, and lose no more than that.
pub const VOTERS_MAX: usize = 5;

/// Replicas of one deployment of which at most one copy may run: each is asked for, again and again, of each voter.
pub const EXCLUSIVE_REPLICAS_MAX: u32 = 100;

/// Leases that one voter keeps: some megabytes, written whole at each grant.
pub const LEASES_PER_VOTER_MAX: usize = 10_000;

/// The highest number of a lease, as [`CLAIM_NUMBER_MAX`] is of a claim.
pub const LEASE_NUMBER_MAX: u64 = 1 << 48;

/// Milliseconds of a lease's term below which a busy machine loses what it runs.
pub const LEASE_TERM_MS_MIN: u32 = 1_000;

/// Milliseconds of a lease's term above which nobody waits for its end.
pub const LEASE_TERM_MS_MAX: u32 = 3_600_000;

/// Deployments in one namespace: the size that automerge stays fast at (docs/decisions/0002).
pub const DEPLOYMENTS_PER_NAMESPACE_MAX: usize = 500;

/// Namespaces in one cluster: each is a document in memory.
pub const NAMESPACES_MAX: usize = 200;

/// Nodes in one cluster: what a full roster and its gossip were planned for.
pub const NODES_MAX: usize = 1_000;

/// Containers that one node runs: supervisors, cgroups and file handles were sized for it.
pub const CONTAINERS_PER_NODE_MAX: usize = 1_000;

/// Images that one node announces in its record; the rest are held but not offered.
pub const IMAGES_ANNOUNCED_MAX: usize = 256;

/// Published ports of one deployment.
pub const PORTS_MAX: usize = 32;

/// Environment variables of one deployment.
pub const ENV_MAX: usize = 256;

/// Words in a command and its arguments.
pub const ARGS_MAX: usize = 256;

/// Conditions on a node's labels in one deployment: each is judged of every node.
pub const REQUIREMENTS_MAX: usize = 32;

/// Values in one condition.
pub const REQUIREMENT_VALUES_MAX: usize = 32;

/// Preferences of one deployment, for the same reason.
pub const PREFERENCES_MAX: usize = 16;

/// The greatest weight of a preference: as if the whole node stayed free.
pub const WEIGHT_MAX: i32 = 100;

/// Labels that one deployment is spread over: site, rack and host are three.
pub const SPREAD_MAX: usize = 4;

/// Deployments that one deployment is to be near, and as many that it is to be apart from.
pub const AFFINITIES_MAX: usize = 16;

/// Deployments that one deployment waits for before it is started: who needs more waits for one that does.
pub const DEPENDENCIES_MAX: usize = 16;

/// Seconds of any span of an update: a week. What takes longer is looked at by a person.
pub const UPDATE_SECONDS_MAX: u32 = 604_800;

/// Runs of one job that must end well: each is a bit in the records of some nodes.
pub const JOB_COMPLETIONS_MAX: u32 = 1_000;

/// Retries of one run of a job: with the longest back-off a day of trying.
pub const JOB_RETRIES_MAX: u32 = 100;

/// Runs of one job that are told to have failed; the job has failed with the first.
pub const JOB_FAILURES_MAX: usize = 8;

/// Jobs of which one node keeps what it heard: a record must fit one frame.
pub const JOBS_REMEMBERED_MAX: usize = 64;

/// Jobs of which one node says what has ended, those included of which it ran something itself: twice as many.
pub const JOBS_TOLD_MAX: usize = 128;

/// Templates that one node knows to have failed: one for each deployment that is being changed.
pub const FAILED_REVISIONS_MAX: usize = 64;

/// Thousandths of a core that can be asked for: 1,024 cores.
pub const CPU_M_MAX: u64 = 1_024_000;

/// Bytes of memory that can be asked for: 16 TiB.
pub const MEMORY_B_MAX: u64 = 16 << 40;

/// Bytes of memory below which no program starts: less is a wrong unit.
pub const MEMORY_B_MIN: u64 = 1 << 20;

/// Processes that can be asked for: Linux' own limit (`PID_MAX_LIMIT`).
pub const PIDS_MAX: u64 = 4_194_304;

/// Processes below which no program starts: the container's init is one of them.
pub const PIDS_MIN: u64 = 2;

/// The highest number of a claim. Each start of a replica takes the next one, so that an honest cluster
/// never comes near it: one start every millisecond for 8,900 years. A member that lies about its own
/// claims must not bring the others to the end of their numbers.
pub const CLAIM_NUMBER_MAX: u64 = 1 << 48;
