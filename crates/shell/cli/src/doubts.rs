//! What a change asks for that nothing here answers to: labels and extras that no node has, deployments that are
//! not there.
//!
//! These are warnings: a node with the label may join, the other deployment may come.

use std::collections::BTreeSet;

use api::shapes::{DeploymentRow, NodeRow, NodeState};
use api::{Client, routes};
use model::{
    Condition, DependsGroup, Group, HOST, Name, PlacementGroup, ReplicasGroup, ResourcesGroup, RestartGroup,
    RestartPolicy,
};
use serde::de::DeserializeOwned;

use crate::change::{NEAR_LETTERS, Prepared, Step};
use crate::error::CliError;
use crate::near::nearest;
use crate::voters;

/// The known word that was perhaps meant.
fn perhaps<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known, NEAR_LETTERS).map(|it| format!("; is `{it}` meant?")).unwrap_or_default()
}

/// A group as a step leaves it, where the step changes it.
fn changed<T: DeserializeOwned>(step: &Step, group: Group) -> Option<T> {
    let after = step.after.as_ref()?.get(group.as_str())?;
    if step.before.get(group.as_str()) == Some(after) {
        return None;
    }
    serde_json::from_str(after).ok()
}

/// What is to come first, where a step changes that.
fn depends(step: &Step) -> Option<DependsGroup> {
    changed(step, Group::DependsOn)
}

/// How something that is waited for is restarted, after the steps.
fn restart(one: &Prepared, name: &Name) -> Option<RestartPolicy> {
    let step = one.steps.iter().find(|step| step.target.name == *name).and_then(|step| step.after.as_ref());
    let row = one.authoring.deployments.iter().find(|row| row.name == name.as_str());
    let json = step.or(row.map(|row| &row.groups))?.get(Group::Restart.as_str())?;
    serde_json::from_str::<RestartGroup>(json).ok().map(|it| it.policy)
}

/// What is waited for, and may never be so far.
fn of_dependencies(one: &Prepared, step: &Step, names: &BTreeSet<&str>) -> Vec<String> {
    let of = &step.target;
    let mut doubts = Vec::new();
    for (name, condition) in depends(step).unwrap_or_default().on {
        if !names.contains(name.as_str()) {
            let perhaps = perhaps(name.as_str(), names.iter().copied());
            doubts.push(format!("{of}: waits for `{name}`, and there is no such deployment{perhaps}"));
        } else if condition == Condition::Completed && restart(one, &name) == Some(RestartPolicy::Always) {
            doubts.push(format!(
                "{of}: waits for `{name}` to be completed, which never is: it is restarted always"
            ));
        }
    }
    doubts
}

/// What is asked of where a deployment runs.
fn placement(step: &Step) -> Option<PlacementGroup> {
    changed(step, Group::Placement)
}

/// Extras that are asked for and that no node has so many of.
fn extras(step: &Step, nodes: &[&NodeRow]) -> Vec<String> {
    let Some(resources) = changed::<ResourcesGroup>(step, Group::Resources) else { return Vec::new() };
    let names: BTreeSet<&str> =
        nodes.iter().flat_map(|node| node.capacity.extras.keys().map(String::as_str)).collect();
    let most = |name: &str| nodes.iter().filter_map(|node| node.capacity.extras.get(name)).max();
    let doubt = |(name, asked): (&model::LabelKey, u64)| match most(name.as_str()) {
        None => {
            Some(format!("no node has an extra `{name}`{}", perhaps(name.as_str(), names.iter().copied())))
        }
        Some(most) if *most < asked => Some(format!("no node has {asked} of `{name}`, the most is {most}")),
        Some(_) => None,
    };
    resources.extras.iter().filter_map(doubt).map(|words| format!("{}: {words}", step.target)).collect()
}

fn of_step(step: &Step, nodes: &[&NodeRow], names: &BTreeSet<&str>) -> Vec<String> {
    let Some(placement) = placement(step) else { return Vec::new() };
    let of = &step.target;
    let keys: BTreeSet<&str> = nodes.iter().flat_map(|node| node.labels.keys().map(String::as_str)).collect();
    let affinities = || placement.near.iter().chain(&placement.apart);
    let asked = placement.labels.keys();
    let asked = asked.chain(placement.require.iter().map(|it| &it.key));
    let asked = asked.chain(placement.prefer.iter().map(|it| &it.when.key));
    let asked = asked.chain(&placement.spread).chain(affinities().map(|it| &it.within));
    let asked: BTreeSet<&str> = asked.map(model::LabelKey::as_str).filter(|key| *key != HOST).collect();
    let mut doubts: Vec<String> = asked
        .difference(&keys)
        .map(|key| format!("{of}: no node has a label `{key}`{}", perhaps(key, keys.iter().copied())))
        .collect();
    let others: BTreeSet<&str> = affinities().map(|it| it.deployment.as_str()).collect();
    let unknown = others.into_iter().filter(|other| !names.contains(other));
    doubts.extend(unknown.map(|other| {
        format!("{of}: there is no deployment `{other}`{}", perhaps(other, names.iter().copied()))
    }));
    doubts
}

/// A line for each thing that is asked for and not there.
pub(crate) async fn doubts(client: &Client, prepared: &[Prepared]) -> Result<Vec<String>, CliError> {
    let asks = |step: &Step| {
        let resources = || changed::<ResourcesGroup>(step, Group::Resources);
        let replicas = || changed::<ReplicasGroup>(step, Group::Replicas);
        placement(step).is_some()
            || resources().is_some_and(|it| !it.extras.is_empty())
            || replicas().is_some_and(|it| !it.voters.is_empty())
    };
    // Most changes ask nothing of nodes.
    let rows: Vec<NodeRow> = if prepared.iter().flat_map(|one| &one.steps).any(asks) {
        client.get(routes::NODES).await?
    } else {
        Vec::new()
    };
    // Of a node that was not heard from yet no labels are known.
    let nodes: Vec<&NodeRow> = rows.iter().filter(|row| row.state != NodeState::Removed).collect();
    let mut lines = Vec::new();
    for one in prepared {
        let there = one.authoring.deployments.iter().map(|row: &DeploymentRow| row.name.as_str());
        let names: BTreeSet<&str> =
            there.chain(one.steps.iter().map(|step| step.target.name.as_str())).collect();
        lines.extend(one.steps.iter().flat_map(|step| of_step(step, &nodes, &names)));
        lines.extend(one.steps.iter().flat_map(|step| of_dependencies(one, step, &names)));
        lines.extend(one.steps.iter().flat_map(|step| extras(step, &nodes)));
        lines.extend(one.steps.iter().filter(|step| step.before.is_empty()).filter_map(|step| {
            voters::costs(&step.target, &changed::<ReplicasGroup>(step, Group::Replicas)?, &nodes)
        }));
    }
    Ok(lines)
}
