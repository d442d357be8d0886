//! Faults put in on purpose, so that tests can show that the checks fail.
//!
//! Each is one mistake that somebody could make in the core, at the place where it would be made. They
//! are there only in a build with the feature `sabotage`, which nothing that is shipped has; without it
//! [`Sabotages::has`] is `false` before the compiler has finished. docs/planted-bugs.md says of each how
//! soon the simulator finds it.

/// Declares the faults, their names and a sentence for each, in one place.
macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal in $family:literal,)+) => {
        /// One fault that is put in on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Sabotage {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Sabotage {
            /// All of them, by family.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in files and commands.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// What part of the core it is in.
            pub const fn family(self) -> &'static str {
                match self { $(Self::$name => $family,)+ }
            }

            /// What is wrong, in a sentence.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

faults! {
    /// Of several values of one group the one that came last to this peer is used.
    LastArrivalWins = "last-arrival-wins" in "merge",
    /// Of several values of one group the lowest is used, on all peers alike.
    LowestWins = "lowest-wins" in "merge",
    /// Of several values of one group the one with the latest clock is used.
    LatestClockWins = "latest-clock-wins" in "merge",
    /// A deletion counts only where it is the last that happened to its deployment.
    DeletionUndone = "deletion-undone" in "merge",
    /// Of two creations of one name the older one is run.
    OlderCreationWins = "older-creation-wins" in "merge",
    /// A change is judged by all that is known, and not by what its author knew.
    JudgedByPresent = "judged-by-present" in "merge",
    /// What was deleted before may be changed all the same.
    DeletedMayChange = "deleted-may-change" in "merge",
    /// Of all removals of nodes only the first that this peer heard of counts.
    OneRemovalCounts = "one-removal-counts" in "merge",
    /// A view is not worked out again after every fourth change of a group that it had.
    StaleView = "stale-view" in "merge",
    /// Signatures of events and records are not looked at.
    NoVerification = "no-verification" in "merge",

    /// What is new leaves before it is on disk.
    TellsBeforeSync = "tells-before-sync" in "sync",
    /// That an event is stored is said before it is.
    StoredBeforeSync = "stored-before-sync" in "sync",
    /// A client is answered before its event is on disk.
    AcksBeforeSync = "acks-before-sync" in "sync",
    /// Another disk is counted in every answer to a client.
    AcksOneMore = "acks-one-more" in "sync",
    /// The last of the events that another lacks is not sent.
    LastEventKept = "last-event-kept" in "sync",
    /// Whoever says where it stands is sent everything, whatever it has.
    SendsEverything = "sends-everything" in "sync",
    /// A link is not asked where it stands when it comes up.
    NoPositionsAtConnect = "no-positions-at-connect" in "sync",

    /// Of a batch the first event only is given to the journal.
    BatchCutShort = "batch-cut-short" in "journal",
    /// Events that a failed sync lost are kept all the same.
    LostKept = "lost-kept" in "journal",
    /// One sync that is done counts for all that were asked for.
    OneSyncForAll = "one-sync-for-all" in "journal",
    /// The last event of the journal is not read at a start.
    LastOfJournalUnread = "last-of-journal-unread" in "journal",
    /// What is here already is written again.
    WrittenTwice = "written-twice" in "journal",
    /// The starts of a peer are not counted: ids and versions begin anew.
    StartsUncounted = "starts-uncounted" in "journal",

    /// A node takes itself for twice as large when it plans.
    PlansForItself = "plans-for-itself" in "planning",
    /// A plan is not thought through again when a node dies or returns.
    PlanIgnoresDeaths = "plan-ignores-deaths" in "planning",
    /// A plan is not thought through again when the count of replicas changes.
    PlanIgnoresCounts = "plan-ignores-counts" in "planning",
    /// Equal nodes are ordered by when this peer met the deployment.
    TiesByArrival = "ties-by-arrival" in "planning",
    /// A node that declined is never asked again.
    DeclinedForEver = "declined-for-ever" in "planning",
    /// What was scaled in runs on.
    ScaleInIgnored = "scale-in-ignored" in "planning",
    /// What was deleted runs on.
    DeletionIgnored = "deletion-ignored" in "planning",
    /// What is of an earlier creation of a name runs on.
    EarlierCreationKept = "earlier-creation-kept" in "planning",
    /// A dead node's work is never taken over.
    NoTakeOver = "no-take-over" in "planning",

    /// Duplicates are never resolved, and so no update comes to its end.
    NoDuplicateResolution = "no-duplicate-resolution" in "duplicates",
    /// Duplicates on nodes that were apart once are not resolved; updates go on.
    NoResolutionAfterPartition = "no-resolution-after-partition" in "duplicates",
    /// A loser goes before the winner has confirmed that it saw it.
    GoesUnconfirmed = "goes-unconfirmed" in "duplicates",
    /// A loser goes before the winner is well.
    GoesBeforeWell = "goes-before-well" in "duplicates",
    /// An old word of a winner counts as well as its present one.
    OldWordCounts = "old-word-counts" in "duplicates",
    /// Each side takes its own copy for the winner.
    OwnCopyWins = "own-copy-wins" in "duplicates",
    /// Each side takes the other copy for the winner.
    OtherCopyWins = "other-copy-wins" in "duplicates",

    /// Whoever is suspected is never called down.
    NeverDown = "never-down" in "membership",
    /// Whoever was down is not called any more.
    DownForGood = "down-for-good" in "membership",
    /// A word against this node is not contradicted.
    NoContradiction = "no-contradiction" in "membership",
    /// An older record takes the place of a newer one.
    OlderRecordWins = "older-record-wins" in "membership",
    /// Records that another lacks are not sent to it.
    RecordsKept = "records-kept" in "membership",
    /// Members that were removed are served on.
    RemovedAreServed = "removed-are-served" in "membership",
    /// Whoever was removed is not told so.
    NoFarewell = "no-farewell" in "membership",
    /// A node that was removed runs its containers on.
    RemovedRunsOn = "removed-runs-on" in "membership",

    /// What runs is not taken over by a peer that starts.
    NoAdoption = "no-adoption" in "containers",
    /// What runs is started again by a peer that starts.
    AdoptedAsWaiting = "adopted-as-waiting" in "containers",
    /// What was being stopped when the peer was killed runs on for the next.
    StopForgotten = "stop-forgotten" in "containers",
    /// What ran before waits for company when a machine starts.
    StartWaitsForCompany = "start-waits-for-company" in "containers",
    /// A program that ended counts as running.
    EndUnnoticed = "end-unnoticed" in "containers",
    /// A container that is still being made is not told to stop.
    StopMissesStarts = "stop-misses-starts" in "containers",
    /// What runs is removed and not stopped.
    RemovedRunning = "removed-running" in "containers",
    /// After its first failure a container is not started again.
    NoSecondStart = "no-second-start" in "containers",
    /// What ended for good by its policy is started again.
    PolicyIgnored = "policy-ignored" in "containers",

    /// A run of a job that ended is run again by a peer that starts.
    FinishedForgotten = "finished-forgotten" in "jobs",
    /// Of a job only what ended on this node counts as ended.
    EndsUnheard = "ends-unheard" in "jobs",
    /// Runs of a job that failed are not counted: each is tried again for ever.
    RetriesUncounted = "retries-uncounted" in "jobs",
    /// All of a job run at a time.
    ParallelismIgnored = "parallelism-ignored" in "jobs",
    /// The time of a job is never over.
    DeadlineIgnored = "deadline-ignored" in "jobs",

    /// Nobody waits for what it depends on.
    OrderIgnored = "order-ignored" in "order",
    /// What is to be completed need only be started.
    CompletedAsStarted = "completed-as-started" in "order",
    /// What ran on a node that is down counts as running for those that wait for it.
    DeadCountForOrder = "dead-count-for-order" in "order",

    /// Counted things are not counted, in plans and by the node that has them.
    ExtrasUncounted = "extras-uncounted" in "room",
    /// A plan sets the limits of a replica aside, and not what it asks for.
    LimitsAsRequests = "limits-as-requests" in "room",
    /// A plan gives new work to a node that is short of something.
    PressureIgnored = "pressure-ignored" in "room",
    /// A node that was short of something once takes nothing new any more.
    PressureForGood = "pressure-for-good" in "room",

    /// A voter that starts knows of no lease that it has granted.
    GrantsForgotten = "grants-forgotten" in "leases",
    /// A voter grants a lease whoever holds one.
    GrantsToAll = "grants-to-all" in "leases",
    /// A holder counts the term from when it was granted, and not from when it asked.
    TermFromAnswer = "term-from-answer" in "leases",
    /// A program runs on when its lease has ended.
    LeaseOutlived = "lease-outlived" in "leases",
}

/// The faults of one node. None unless the build has the feature `sabotage`, but for
/// [`Sabotage::NoDuplicateResolution`], with which every build can show that a check fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sabotages(u128);

const _: () = assert!(Sabotage::ALL.len() <= 128, "a bit for each");

impl Sabotages {
    /// No fault.
    pub const NONE: Self = Self(0);

    /// With one more.
    #[must_use]
    pub const fn with(self, fault: Sabotage) -> Self {
        Self(self.0 | 1 << fault as u32)
    }

    /// Whether this one is put in.
    #[inline]
    pub const fn has(self, fault: Sabotage) -> bool {
        (cfg!(feature = "sabotage") || matches!(fault, Sabotage::NoDuplicateResolution))
            && self.0 & 1 << fault as u32 != 0
    }
}

impl FromIterator<Sabotage> for Sabotages {
    fn from_iter<I: IntoIterator<Item = Sabotage>>(faults: I) -> Self {
        faults.into_iter().fold(Self::NONE, Self::with)
    }
}
