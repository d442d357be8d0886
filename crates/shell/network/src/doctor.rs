//! Whether this machine can hold a lab.

use std::io;
use std::net::Ipv4Addr;

use crate::links;
use crate::netns::in_new_netns;
use crate::nft::{self, Drop};

/// One thing that a lab needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was tried, in two or three words.
    pub name: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// What was found: the error with its causes, or what works.
    pub detail: String,
    /// What to do about it; nothing when it works.
    pub fix: Option<&'static str>,
}

impl Check {
    fn new(
        name: &'static str,
        works: &str,
        fix: &'static str,
        result: Result<(), &(dyn std::error::Error + 'static)>,
    ) -> Self {
        match result {
            Ok(()) => Self { name, ok: true, detail: works.to_owned(), fix: None },
            Err(error) => Self { name, ok: false, detail: chain(error), fix: Some(fix) },
        }
    }
}

/// The error and its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Tries, in a network namespace that ends with the call, each thing that a lab is made of.
///
/// When no namespace can be made the rest is not tried: it would happen in the caller's own.
pub fn doctor() -> Vec<Check> {
    let inside = in_new_netns(|| {
        let veth = links::make_veth();
        let bridge = links::make_bridge();
        let filter = nft::replace(&[Drop { source: Ipv4Addr::new(10, 99, 0, 1), per_mille: 1000 }]);
        let loss = nft::replace(&[Drop { source: Ipv4Addr::new(10, 99, 0, 1), per_mille: 500 }]);
        [
            Check::new(
                "veth links",
                "pairs of links can be made",
                "use a kernel with CONFIG_VETH, or load the module `veth`",
                veth.as_ref().copied().map_err(|error| error as _),
            ),
            Check::new(
                "bridge",
                "a bridge can be made",
                "use a kernel with CONFIG_BRIDGE, or load the module `bridge`",
                bridge.as_ref().copied().map_err(|error| error as _),
            ),
            Check::new(
                "packet filter",
                "nf_tables drops packets",
                "use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET, or load the module `nf_tables`",
                filter.as_ref().copied().map_err(|error| error as _),
            ),
            Check::new(
                "packet loss",
                "nf_tables drops packets by chance",
                "use a kernel with CONFIG_NFT_NUMGEN, or load the module `nft_numgen`; cuts work without it",
                loss.as_ref().copied().map_err(|error| error as _),
            ),
        ]
    });
    let namespace = Check::new(
        "network namespace",
        "a namespace can be made",
        "run as root (CAP_SYS_ADMIN), on a kernel with CONFIG_NET_NS",
        inside.as_ref().map(|_| ()).map_err(|error: &io::Error| error as _),
    );
    let mut checks = vec![namespace];
    checks.extend(inside.into_iter().flatten());
    checks
}
