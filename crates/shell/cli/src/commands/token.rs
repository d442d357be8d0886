//! `token`: what lets a new node in.

use std::time::Duration;

use api::shapes::{NodeRow, NodeState, TokenRow};
use api::{Client, routes};
use document::event::{Kind, TokenGrant, TokenRevoke};
use identity::JoinToken;
use model::DocId;

use crate::Context;
use crate::args::{IdPrefix, parse_duration};
use crate::author::{authoring, now_ms, random, submit, submit_cluster};
use crate::error::CliError;
use crate::out::{moment, short};
use crate::shapes::TokenCreated;
use crate::{connect, keys};

/// Manage the tokens that let new nodes in
#[derive(Debug, clap::Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print the line that joins with it
    Create(CreateArgs),
    /// List the tokens
    Ls,
    /// Withdraw a token
    Revoke(RevokeArgs),
}

/// Make a token
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// How long it is good for
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
    /// How many nodes it lets in
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    uses: u32,
    /// Addresses that new nodes dial, HOST:PORT [default: those of the nodes that are up]
    #[arg(long, value_name = "HOST:PORT")]
    address: Vec<String>,
}

/// Withdraw a token
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// The beginning of its id
    id: IdPrefix,
}

/// One address of each node that is up, then the second ones, up to what a token holds.
fn addresses(nodes: &[NodeRow]) -> Vec<String> {
    let mut up: Vec<_> = nodes.iter().filter(|node| node.state == NodeState::Up).collect();
    // The answering peer first: the person is beside it.
    up.sort_by_key(|node| node.seen_s.unwrap_or(u64::MAX));
    let most = up.iter().map(|node| node.addresses.len()).max().unwrap_or(0);
    let mut addresses: Vec<String> = Vec::new();
    for n in 0..most {
        for address in up.iter().filter_map(|node| node.addresses.get(n)) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
    }
    addresses.truncate(identity::ADDRESSES_MAX);
    addresses
}

async fn create(client: &Client, args: &CreateArgs, context: &Context) -> Result<(), CliError> {
    let key = keys::load(context.globals.key.as_deref())?;
    let addresses = if args.address.is_empty() {
        let nodes: Vec<NodeRow> = client.get(routes::NODES).await?;
        addresses(&nodes)
    } else {
        args.address.clone()
    };
    let authoring = authoring(client, &DocId::Cluster).await?;
    let cluster =
        authoring.cluster.parse().map_err(|error: model::IdError| CliError::from_error("peer", &error))?;
    let token = JoinToken::new(cluster, addresses, random()?).map_err(|error| {
        CliError::from_error("token", &error)
            .hint("say where the cluster is reached with --address HOST:PORT")
    })?;
    let ttl_ms = i64::try_from(args.ttl.as_millis()).unwrap_or(i64::MAX);
    let expires_ms = now_ms().saturating_add(ttl_ms);
    let kind = Kind::Token(TokenGrant { id: token.token_id(), expires_ms, uses: args.uses });
    submit(client, &key, &DocId::Cluster, &authoring, kind, None).await?;
    let answer = TokenCreated {
        token: token.to_string(),
        id: token.token_id().to_string(),
        expires_ms,
        uses: args.uses,
        join: format!("skerry join {token}"),
    };
    let nodes = if args.uses == 1 { "one node".to_owned() } else { format!("{} nodes", args.uses) };
    context.out.say(format!("lets in {nodes} until {} UTC; on the new machine run:", moment(expires_ms)))?;
    let named = context.out.format == crate::out::Format::Name;
    context.out.answer(&answer, || if named { answer.token.clone() } else { answer.join.clone() })
}

async fn revoke(client: &Client, args: &RevokeArgs, context: &Context) -> Result<(), CliError> {
    let rows: Vec<TokenRow> = client.get(routes::TOKENS).await?;
    let found: Vec<_> = rows.iter().filter(|row| args.id.is_of(&row.id)).collect();
    let row = match found.as_slice() {
        [one] => one,
        [] => {
            return Err(CliError::new("not-found", format!("there is no token `{}`", args.id.0))
                .hint("`skerry token ls` lists them"));
        }
        more => {
            return Err(CliError::new(
                "ambiguous",
                format!("`{}` may be any of {} tokens", args.id.0, more.len()),
            )
            .hint("give more digits"));
        }
    };
    if row.revoked {
        context.out.say("it was revoked already")?;
    }
    let id = row.id.parse().map_err(|error: model::IdError| CliError::from_error("peer", &error))?;
    let key = keys::load(context.globals.key.as_deref())?;
    let submitted = submit_cluster(client, &key, Kind::TokenRevoke(TokenRevoke { id })).await?;
    context.out.answer(&submitted, || format!("token {} is revoked", short(&row.id)))
}

fn state(row: &TokenRow) -> &'static str {
    if row.revoked {
        "revoked"
    } else if row.used >= row.uses {
        "used"
    } else if row.expires_ms <= now_ms() {
        "expired"
    } else {
        "open"
    }
}

pub(crate) async fn run(command: &TokenCommand, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    match command {
        TokenCommand::Create(args) => create(&client, args, context).await,
        TokenCommand::Revoke(args) => revoke(&client, args, context).await,
        TokenCommand::Ls => {
            let rows: Vec<TokenRow> = client.get(routes::TOKENS).await?;
            context.out.rows(
                &rows,
                |row| row.id.clone(),
                &[
                    ("TOKEN", &|row: &TokenRow| short(&row.id).to_owned()),
                    ("STATE", &|row| state(row).to_owned()),
                    ("USED", &|row| format!("{}/{}", row.used, row.uses)),
                    ("EXPIRES (UTC)", &|row| moment(row.expires_ms)),
                ],
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_one_address_of_each_node_that_is_up_before_a_second_of_any() {
        let node = |name: &str, state, seen_s, addresses: &[&str]| NodeRow {
            name: name.into(),
            id: "00".repeat(32),
            state,
            schedule: api::shapes::NodeSchedule::Normal,
            capacity: api::shapes::Amounts::default(),
            free: api::shapes::Amounts::default(),
            heads: std::collections::BTreeMap::new(),
            seen_s,
            labels: std::collections::BTreeMap::new(),
            cpu_percent: 100,
            memory_percent: 100,
            reserved_cpu_m: 0,
            reserved_memory_b: 0,
            pressure: None,
            removed: None,
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        let nodes = [
            node("b", NodeState::Up, Some(1), &["b:1", "b:2"]),
            node("c", NodeState::Down, Some(90), &["c:1"]),
            node("a", NodeState::Up, Some(0), &["a:1", "a:2", "a:3"]),
        ];
        assert_eq!(addresses(&nodes), ["a:1", "b:1", "a:2", "b:2", "a:3"]);
        let many: Vec<_> = (0..9).map(|n| format!("h{n}:1")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(addresses(&[node("a", NodeState::Up, None, &many)]).len(), 8);
    }
}
