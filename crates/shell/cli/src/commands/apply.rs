//! `apply`: what a manifest says becomes what the cluster wants.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use api::shapes::{Authoring, DeploymentRow, ImageRow, NodeRow};
use api::{Client, routes};
use document::event::Verb;
use model::{Deployment, Digest, Group, Name, RestartGroup};

use crate::Context;
use crate::args::{GuardArgs, Target, WaitArgs};
use crate::change::{Ask, Prepared, Step, carry, stand};
use crate::connect;
use crate::error::CliError;
use crate::manifest::{ImageRef, Spec, load};
use crate::voters;

/// Plan, ask, do, and wait until every replica runs
#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    files: FilesArgs,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: GuardArgs,
}

/// Manifests.
#[derive(Debug, clap::Args)]
pub(crate) struct FilesArgs {
    /// A manifest, a folder of manifests, or - for standard input
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// The manifests against what is there.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) prepared: Vec<Prepared>,
    /// Deployments of the manifests that are as they should be.
    pub(crate) unchanged: Vec<Target>,
}

/// The digest that an image's name stands for: the one that every node with such an image holds.
fn resolve(
    images: &[ImageRow],
    wanted: &ImageRef,
    current: Option<&DeploymentRow>,
) -> Result<Digest, CliError> {
    if let Some(digest) = wanted.digest {
        return Ok(digest);
    }
    let key =
        |text: &str| ::image::Reference::parse(text).map_or_else(|_| text.to_owned(), |name| name.key());
    let wanted_key = key(&wanted.reference);
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in images.iter().filter(|row| key(&row.reference) == wanted_key) {
        found.entry(&row.digest).or_default().extend(row.nodes.iter().map(String::as_str));
    }
    let parse = |digest: &str| {
        digest
            .strip_prefix("sha256:")
            .unwrap_or(digest)
            .parse::<Digest>()
            .map_err(|error| CliError::from_error("peer", &error))
    };
    match found.keys().copied().collect::<Vec<_>>().as_slice() {
        [one] => parse(one),
        [] => {
            // An image that runs already need not be resolved again: its holders may be out of reach.
            let running = current.and_then(|row| row.groups.get(Group::Image.as_str()));
            let running = running.and_then(|json| serde_json::from_str::<model::ImageGroup>(json).ok());
            if let Some(image) = running.filter(|image| key(&image.reference) == wanted_key) {
                return Ok(image.digest);
            }
            let names: BTreeSet<&str> = images.iter().map(|row| row.reference.as_str()).collect();
            let near = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, &wanted.reference));
            let error =
                CliError::new("no-image", format!("no reachable peer has image {}", wanted.reference));
            let error = match near {
                Some(near) if strsim::damerau_levenshtein(near, &wanted.reference) <= 3 => {
                    error.because(format!("there is `{near}`; is that the one?"))
                }
                _ => error,
            };
            Err(error.hint("load it into any peer with `skerry image load FILE`"))
        }
        several => {
            let error = CliError::new(
                "ambiguous-image",
                format!("image {} is not the same on every node", wanted.reference),
            );
            Err(several
                .iter()
                .fold(error, |error, digest| {
                    let nodes: Vec<_> = found[digest].iter().copied().collect();
                    error.because(format!("{digest} on {}", nodes.join(", ")))
                })
                .hint(format!("name the one that is meant: {}@{}", wanted.reference, several[0])))
        }
    }
}

/// The groups that a manifest wants, over what there is: `restart` keeps its token, or every apply
/// after a restart would replace the containers once more.
fn wanted(deployment: &mut Deployment, current: Option<&DeploymentRow>) -> BTreeMap<String, String> {
    let restart = current.and_then(|row| row.groups.get(Group::Restart.as_str()));
    if let Some(now) = restart.and_then(|json| serde_json::from_str::<RestartGroup>(json).ok()) {
        deployment.restart.token = now.token;
    }
    deployment.to_groups()
}

/// Compares the manifests with what the peer says.
pub(crate) async fn plan(client: &Client, specs: &[Spec], guard: &GuardArgs) -> Result<Planned, CliError> {
    let names: BTreeSet<Name> = specs.iter().map(|spec| spec.namespace.clone()).collect();
    let names: Vec<Name> = names.into_iter().collect();
    let stands: BTreeMap<Name, Authoring> = stand(client, &names, guard).await?;
    let images: Vec<ImageRow> = client.get(routes::IMAGES).await?;
    // Only voters are named by nodes.
    let nodes: Vec<NodeRow> = if specs.iter().any(|spec| !spec.voters.is_empty()) {
        client.get(routes::NODES).await?
    } else {
        Vec::new()
    };
    let mut planned = Planned { prepared: Vec::new(), unchanged: Vec::new() };
    for (namespace, authoring) in stands {
        let mut steps = Vec::new();
        for spec in specs.iter().filter(|spec| spec.namespace == namespace) {
            let target = Target { namespace: namespace.clone(), name: spec.name.clone() };
            let row = authoring
                .deployments
                .iter()
                .find(|row| row.name == spec.name.as_str() && row.namespace == namespace.as_str());
            let digest = resolve(&images, &spec.image, row).map_err(|error| {
                if error.at.is_none() { error.at(format!("deployment {target}")) } else { error }
            })?;
            let mut deployment = spec.with_digest(digest);
            if !spec.voters.is_empty() {
                deployment.replicas.voters = voters::ids_of(&target, &spec.voters, &nodes, row.is_none())?;
            }
            if let Some(row) = row {
                voters::may_not_change(&target, row, &deployment.replicas)?;
            }
            let groups = wanted(&mut deployment, row);
            match Step::apply(target.clone(), row, groups)? {
                Some(step) => steps.push(step),
                None => planned.unchanged.push(target),
            }
        }
        planned.prepared.push(Prepared { namespace, authoring, verb: Verb::Apply, undoes: None, steps });
    }
    Ok(planned)
}

pub(crate) async fn run(args: &ApplyArgs, context: &Context) -> Result<(), CliError> {
    let specs = load(&args.files.files)?;
    let client = connect::client(&context.globals)?;
    let planned = plan(&client, &specs, &args.guard).await?;
    carry(context, &client, planned.prepared, args.wait.wanted(), Ask::Always).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(reference: &str, digest: &str, nodes: &[&str]) -> ImageRow {
        ImageRow {
            reference: reference.into(),
            digest: format!("sha256:{}", digest.repeat(32)),
            size_b: 1,
            nodes: nodes.iter().map(ToString::to_string).collect(),
        }
    }

    fn named(text: &str) -> ImageRef {
        ImageRef { reference: text.into(), digest: None }
    }

    #[test]
    fn an_image_that_every_holder_has_alike_is_its_digest() {
        let images =
            [image("web:1", "ab", &["n1"]), image("web:1", "ab", &["n2"]), image("web:2", "cd", &["n1"])];
        assert_eq!(resolve(&images, &named("web:1"), None).unwrap(), Digest::from_bytes([0xab; 32]));
        assert_eq!(
            resolve(&[image("web:latest", "ab", &["n1"])], &named("web"), None).unwrap(),
            Digest::from_bytes([0xab; 32])
        );
        let given = ImageRef { reference: "web".into(), digest: Some(Digest::from_bytes([9; 32])) };
        assert_eq!(resolve(&[], &given, None).unwrap(), Digest::from_bytes([9; 32]));
    }

    #[test]
    fn an_image_that_nobody_has_is_an_error_with_the_way_out() {
        let error = resolve(&[image("web:1", "ab", &["n1"])], &named("web:2"), None).unwrap_err();
        assert_eq!(error.what, "no reachable peer has image web:2");
        assert_eq!(error.why[0].text, "there is `web:1`; is that the one?");
        assert_eq!(error.hint.as_deref(), Some("load it into any peer with `skerry image load FILE`"));
    }

    #[test]
    fn an_image_that_differs_between_nodes_is_an_error_that_lists_them() {
        let images = [image("web:1", "ab", &["n1", "n3"]), image("web:1", "cd", &["n2"])];
        let error = resolve(&images, &named("web:1"), None).unwrap_err();
        assert_eq!(error.what, "image web:1 is not the same on every node");
        assert_eq!(error.why[0].text, format!("sha256:{} on n1, n3", "ab".repeat(32)));
        assert_eq!(error.why[1].text, format!("sha256:{} on n2", "cd".repeat(32)));
    }
}
