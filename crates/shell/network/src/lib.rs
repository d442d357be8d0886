//! The piece of the world that is network: for now, test and dev clusters on one machine.
//!
//! Owns [`Lab`]: one network namespace per node, joined by a bridge in a namespace of its own, with
//! packet filters that cut and spoil the links between them; and what is needed to run something
//! inside a namespace. A lab is real: a cut is a packet filter in the kernel, not a pretence.
//!
//! What must hold:
//! - Nothing in the namespace of the caller is touched: no link, address, route or filter.
//! - Whatever is made can be found again and removed by another process, also after a kill -9 in
//!   the middle of any call: all of it hangs on the mounts in the lab's own folder.
//! - No thread of the caller changes its namespace: entering one is done by a thread made for it.
//! - No external program is needed: links and addresses are set by rtnetlink, filters by netlink
//!   messages written here.
//!
//! Absent on purpose: which links are cut and when (tests and the CLI decide), and root: without
//! it the kernel refuses, and [`doctor`] says what is missing.
#![forbid(unsafe_code)]

mod cuts;
mod doctor;
mod lab;
mod links;
mod netns;
mod nft;
mod subnet;

pub use cuts::{Cuts, CutsError, LOSS_PER_MILLE_MAX, one_way, partition};
pub use doctor::{Check, doctor};
pub use lab::{Lab, LabError, NodeNet, Straggler};
pub use links::LinkError;
pub use netns::{NetnsError, SpawnError, in_netns, spawn_in};
pub use nft::FilterError;
pub use subnet::{Subnet, SubnetError};
