//! `explain`: why here, why not there, in numbers.

use api::shapes::Explain;
use api::{path, routes};

use crate::Context;
use crate::args::Target;
use crate::connect;
use crate::error::CliError;
use crate::out::{NOTHING, table};

/// Why replicas are where they are, and why not elsewhere, in numbers
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// NAME or NAMESPACE/NAME
    deployment: Target,
}

pub(crate) async fn run(args: &ExplainArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::client(&context.globals)?;
    let target = &args.deployment;
    let query = [("namespace", target.namespace.as_str()), ("deployment", target.name.as_str())];
    let explain: Explain = client.get(&path(routes::EXPLAIN, &query)).await?;
    context.out.answer(&explain, || {
        let replicas = explain.replicas.iter().map(|row| {
            let node = row.node.clone().unwrap_or_else(|| NOTHING.to_owned());
            vec![format!("{}.{}", explain.deployment, row.ordinal), node, row.why.clone()]
        });
        let nodes = explain.nodes.iter().map(|row| {
            vec![row.node.clone(), if row.fits { "yes".into() } else { "no".into() }, row.why.clone()]
        });
        let heading = |words: [&str; 3]| words.map(str::to_owned).to_vec();
        format!(
            "{}\n\n{}",
            table(heading(["REPLICA", "NODE", "WHY"]), replicas.collect()),
            table(heading(["NODE", "ONE MORE FITS", "WHY"]), nodes.collect())
        )
    })
}
