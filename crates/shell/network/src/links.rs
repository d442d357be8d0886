//! Links and addresses inside namespaces, by rtnetlink.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridgePort, InfoData, InfoPortData, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
    State,
};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::netns::{NetnsError, in_netns};

/// The bridge's name in its namespace.
const BRIDGE: &str = "br0";

/// The link's name in each node's namespace.
pub(crate) const NODE_LINK: &str = "eth0";

/// The group of the lab's links in the bridge's namespace. Any but 0, which is everybody's.
const GROUP: u32 = 1;

/// Seconds that links may take to come up. It is milliseconds, but the kernel does it on a queue
/// that it shares with much else, and holds it back for up to a second when many links change.
const LINKS_UP_S_MAX: u64 = 20;

/// How often it is looked whether they are.
const LINKS_UP_EVERY: Duration = Duration::from_millis(2);

/// Why links could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel cannot be talked to.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {action} `{link}`")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The link.
        link: String,
        /// The kernel's answer.
        source: Box<rtnetlink::Error>,
    },
    /// A link that was just made is not there.
    #[error("there is no link `{link}`")]
    Missing {
        /// Its name.
        link: String,
    },
    /// A link that was switched on does not come up.
    #[error("the link `{link}` did not come up within {LINKS_UP_S_MAX} s")]
    NotUp {
        /// Its name.
        link: String,
    },
    /// IPv6 cannot be switched off, so a cut would not be one.
    #[error("cannot switch off IPv6 by `{}`", path.display())]
    Ipv6 {
        /// The switch.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn refused(action: &'static str, link: &str) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let link = link.to_owned();
    move |source| LinkError::Refused { action, link, source: Box::new(source) }
}

/// Runs `f` with a connection to the kernel about the calling thread's namespace.
fn with_kernel<T>(f: impl AsyncFnOnce(&Handle) -> Result<T, LinkError>) -> Result<T, LinkError> {
    let io_error = |action| move |source| LinkError::Io { action, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(io_error("start a runtime"))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(io_error("open an rtnetlink socket"))?;
        let connection = tokio::spawn(connection);
        let result = f(&handle).await;
        connection.abort();
        result
    })
}

async fn index(kernel: &Handle, name: &str) -> Result<Option<u32>, LinkError> {
    let mut links = kernel.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if is_no_such_link(&error) => Ok(None),
        Err(error) => Err(refused("find", name)(error)),
    }
}

fn is_no_such_link(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message)
        if message.raw_code() == -(nix::errno::Errno::ENODEV as i32))
}

async fn known_index(kernel: &Handle, name: &str) -> Result<u32, LinkError> {
    index(kernel, name).await?.ok_or_else(|| LinkError::Missing { link: name.to_owned() })
}

async fn up(kernel: &Handle, name: &str) -> Result<(), LinkError> {
    let link = known_index(kernel, name).await?;
    let message = LinkUnspec::new_with_index(link).up().build();
    kernel.link().set(message).execute().await.map_err(refused("switch on", name))
}

async fn remove(kernel: &Handle, name: &str) -> Result<(), LinkError> {
    match index(kernel, name).await? {
        Some(link) => kernel.link().del(link).execute().await.map_err(refused("remove", name)),
        None => Ok(()),
    }
}

/// Makes the bridge in the calling thread's namespace.
pub(crate) fn make_bridge() -> Result<(), LinkError> {
    with_kernel(async |kernel| {
        let message = LinkMessageBuilder::<LinkBridge>::new(BRIDGE).link_group(GROUP).up().build();
        kernel.link().add(message).execute().await.map_err(refused("make the bridge", BRIDGE))
    })
}

/// Makes a veth pair in the calling thread's namespace: for `doctor`.
pub(crate) fn make_veth() -> Result<(), LinkError> {
    with_kernel(async |kernel| {
        let message = LinkVeth::new("v0", "v1").build();
        kernel.link().add(message).execute().await.map_err(refused("make the link", "v0"))
    })
}

/// The name, in the bridge's namespace, of the link to the node with this index.
fn port(index: usize) -> String {
    format!("v{index}")
}

/// Links a node's namespace to the bridge and gives it its address. A link that an earlier try
/// left is removed first.
pub(crate) fn connect(
    bridge: &Path,
    node: &Path,
    index: usize,
    address: Ipv4Addr,
    prefix: u8,
) -> Result<(), LinkError> {
    let port = port(index);
    let node_file =
        File::open(node).map_err(|source| LinkError::Io { action: "open the node's namespace", source })?;
    in_netns(bridge, || {
        with_kernel(async |kernel| {
            remove(kernel, &port).await?;
            let master = known_index(kernel, BRIDGE).await?;
            // Made where it belongs: at no moment is there a link to be cleared up elsewhere.
            let [a, b, c, d] = address.octets();
            let peer = LinkMessageBuilder::<LinkUnspec>::new()
                .name(NODE_LINK)
                .address(vec![0x02, 0x5c, a, b, c, d])
                .setns_by_fd(node_file.as_raw_fd())
                .build();
            let message = LinkVeth::new(&port, NODE_LINK)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
                .controller(master)
                .link_group(GROUP)
                .up()
                .build();
            kernel.link().add(message).execute().await.map_err(refused("make the link", &port))
        })
    })??;
    in_netns(node, || {
        switch_off_ipv6(NODE_LINK)?;
        with_kernel(async |kernel| {
            let link = known_index(kernel, NODE_LINK).await?;
            kernel
                .address()
                .add(link, address.into(), prefix)
                .execute()
                .await
                .map_err(refused("give an address to", NODE_LINK))?;
            up(kernel, NODE_LINK).await?;
            up(kernel, "lo").await
        })
    })?
}

/// Returns when the bridge forwards what comes from every node and every node's link is up.
///
/// Until then the kernel drops what is sent, and a peer's first words would be lost without a cut.
pub(crate) fn wait_until_up<'a>(
    bridge: &Path,
    nodes: impl IntoIterator<Item = &'a Path>,
) -> Result<(), LinkError> {
    in_netns(bridge, || with_kernel(async |kernel| until_up(kernel, is_forwarding).await))??;
    for node in nodes {
        in_netns(node, || with_kernel(async |kernel| until_up(kernel, is_up).await))??;
    }
    Ok(())
}

/// Looks at the links, again and again, until each that is a lab's is ready.
async fn until_up(kernel: &Handle, is_ready: fn(&LinkMessage) -> bool) -> Result<(), LinkError> {
    let deadline = Instant::now() + Duration::from_secs(LINKS_UP_S_MAX);
    loop {
        let links: Vec<_> = kernel
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(refused("look at the links with", "lo"))?;
        let waited_for = links.iter().find_map(|link| {
            let name = name_of(link)?;
            ((is_port(name) || name == NODE_LINK) && !is_ready(link)).then(|| name.to_owned())
        });
        match waited_for {
            None => return Ok(()),
            Some(link) if Instant::now() > deadline => return Err(LinkError::NotUp { link }),
            Some(_) => tokio::time::sleep(LINKS_UP_EVERY).await,
        }
    }
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn is_port(name: &str) -> bool {
    name.strip_prefix('v').is_some_and(|index| index.parse::<usize>().is_ok())
}

fn is_up(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::OperState(State::Up)))
}

fn is_forwarding(link: &LinkMessage) -> bool {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let mut states = infos.flatten().filter_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => Some(port),
        _ => None,
    });
    let forwards = states.any(|port| port.contains(&InfoBridgePort::State(BridgePortState::Forwarding)));
    is_up(link) && forwards
}

/// Removes the bridge and all links to it, at once; the namespaces may live on in processes that
/// are still inside.
pub(crate) fn disconnect_all(bridge: &Path) -> Result<(), LinkError> {
    in_netns(bridge, || {
        with_kernel(async |kernel| {
            // One request for the whole group: the kernel waits some 20 ms for each request.
            let message = LinkMessageBuilder::<LinkUnspec>::new().link_group(GROUP).build();
            match kernel.link().del_with_message(message).execute().await {
                Ok(()) => Ok(()),
                // There is none: the lab's maker was killed before it made any.
                Err(error) if is_no_such_link(&error) => Ok(()),
                Err(error) => Err(refused("remove the links of", BRIDGE)(error)),
            }
        })
    })?
}

/// The filters name IPv4 addresses: with IPv6 there would be a way around every cut.
fn switch_off_ipv6(link: &str) -> Result<(), LinkError> {
    let path = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"));
    match std::fs::write(&path, "1") {
        Ok(()) => Ok(()),
        // A kernel without IPv6 has nothing to switch off.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(LinkError::Ipv6 { path, source }),
    }
}
