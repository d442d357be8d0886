//! Voters of an exclusive deployment: names become nodes, and what was promised once stays.

use std::collections::BTreeSet;

use api::shapes::{DeploymentRow, NodeRow, NodeState};
use model::{Class, Group, NodeId, ReplicasGroup};

use crate::args::Target;
use crate::error::CliError;

/// The ids of the named nodes, sorted. A removed one counts where the deployment is there already: it was one of
/// its voters when it was made.
pub(crate) fn ids_of(
    target: &Target,
    named: &[String],
    nodes: &[NodeRow],
    is_new: bool,
) -> Result<Vec<NodeId>, CliError> {
    let mut ids = BTreeSet::new();
    for name in named {
        let of_name = || nodes.iter().filter(|row| row.name == *name || row.id == *name);
        let mut found: Vec<&NodeRow> = of_name().filter(|row| row.state != NodeState::Removed).collect();
        if found.is_empty() && !is_new {
            found = of_name().collect();
        }
        let odd = |what: String| CliError::new("voters", what).at(format!("deployment {target}, `voters`"));
        let row = match found.as_slice() {
            [one] => one,
            [] => {
                let known: Vec<&str> = nodes
                    .iter()
                    .filter(|row| row.state != NodeState::Removed)
                    .map(|row| row.name.as_str())
                    .collect();
                return Err(odd(format!("no node is called {name}"))
                    .because(format!("the cluster has {}", known.join(", ")))
                    .hint("name nodes as `skerry node ls` does, or by their ids"));
            }
            several => {
                let error = odd(format!("{} nodes are called {name}", several.len()));
                return Err(several
                    .iter()
                    .fold(error, |error, row| error.because(row.id.clone()))
                    .hint("name the one that is meant by its id"));
            }
        };
        ids.insert(row.id.parse::<NodeId>().map_err(|error| CliError::from_error("peer", &error))?);
    }
    if ids.len() < named.len() {
        let what = format!("two of its {} voters are one node", named.len());
        return Err(CliError::new("voters", what).at(format!("deployment {target}, `voters`")));
    }
    Ok(ids.into_iter().collect())
}

/// Refuses to change the promise of a deployment that is there: its voters may have granted leases to others.
pub(crate) fn may_not_change(
    target: &Target,
    row: &DeploymentRow,
    wanted: &ReplicasGroup,
) -> Result<(), CliError> {
    let now = row.groups.get(Group::Replicas.as_str());
    let Some(now) = now.and_then(|json| serde_json::from_str::<ReplicasGroup>(json).ok()) else {
        return Ok(());
    };
    if now.class == wanted.class && now.voters == wanted.voters {
        return Ok(());
    }
    let (what, why) = match (now.class, wanted.class) {
        (Class::Available, Class::Exclusive) => (
            format!("{target} cannot become `exclusive`"),
            "it is `available`, and out of reach there may be copies that ask nobody for a lease",
        ),
        (Class::Exclusive, Class::Available) => (
            format!("{target} cannot become `available`"),
            "it is `exclusive`, and what it does may rely on being alone",
        ),
        _ => (
            format!("the voters of {target} cannot be changed"),
            "those that it has may have granted leases that the new ones do not know of",
        ),
    };
    Err(CliError::new("promise", what).because(why).hint(format!(
        "delete it and make it anew: `skerry delete {target}`, see in `skerry ps` that no copy is left on any \
         node, those out of reach included, and apply again"
    )))
}

/// What a promise costs, for whoever makes it.
pub(crate) fn costs(target: &Target, replicas: &ReplicasGroup, nodes: &[&NodeRow]) -> Option<String> {
    let name = |id: &NodeId| {
        let id = id.to_string();
        nodes.iter().find(|row| row.id == id).map_or_else(|| id[..8].to_owned(), |row| row.name.clone())
    };
    match replicas.voters.as_slice() {
        [] => None,
        [home] => Some(format!("{target}: runs on {} alone; with the home gone, nothing runs", name(home))),
        voters => Some(format!(
            "{target}: runs only where {} of its {} voters ({}) are in reach; a side without them runs none",
            model::majority(voters.len()),
            voters.len(),
            voters.iter().map(name).collect::<Vec<_>>().join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target { namespace: model::Name::default_namespace(), name: "till".parse().unwrap() }
    }

    fn group(class: Class, voters: &[u8]) -> ReplicasGroup {
        let voters = voters.iter().map(|it| NodeId::from_bytes([*it; 32])).collect();
        ReplicasGroup { count: 1, class, mode: model::Mode::Replicated, voters }
    }

    fn row(group: &ReplicasGroup) -> DeploymentRow {
        let groups = std::collections::BTreeMap::from([(
            "replicas".to_owned(),
            serde_json::to_string(group).unwrap(),
        )]);
        DeploymentRow { groups, ..DeploymentRow::default() }
    }

    #[test]
    fn a_promise_stays_as_it_was_made_and_the_error_says_what_to_do() {
        let (one, three) = (group(Class::Exclusive, &[1]), group(Class::Exclusive, &[1, 2, 3]));
        let free = group(Class::Available, &[]);
        assert!(
            may_not_change(&target(), &row(&three), &ReplicasGroup { count: 7, ..three.clone() }).is_ok()
        );
        for (from, to, what) in [
            (&free, &three, "till cannot become `exclusive`"),
            (&three, &free, "till cannot become `available`"),
            (&three, &one, "the voters of till cannot be changed"),
        ] {
            let error = may_not_change(&target(), &row(from), to).unwrap_err();
            assert_eq!(error.what, what);
            assert!(error.hint.as_deref().unwrap().starts_with("delete it and make it anew"));
        }
    }

    #[test]
    fn one_voter_is_told_what_it_costs() {
        let told = costs(&target(), &group(Class::Exclusive, &[1]), &[]).unwrap();
        assert_eq!(told, "till: runs on 01010101 alone; with the home gone, nothing runs");
        assert_eq!(costs(&target(), &group(Class::Available, &[]), &[]), None);
    }
}
