//! The sides of a cut, as the command line names them: `a,b/c,d`.

use crate::error::CliError;

/// How alike two names must be for one to be meant by the other, in letters.
const ALIKE: usize = 2;

/// Sides by the numbers of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sides {
    /// Every node is in one; those that are killed and in none as named are with the first.
    pub(super) islands: Vec<Vec<usize>>,
    /// Nodes that lose power.
    pub(super) killed: Vec<usize>,
}

/// Reads them. `names` are the nodes, `away` those that take no part, with the reason.
pub(super) fn read(
    text: &str,
    kill: &[String],
    names: &[&str],
    away: &[(String, &'static str)],
) -> Result<Sides, CliError> {
    let mut islands: Vec<Vec<usize>> = Vec::new();
    for side in text.split('/') {
        let mut island = Vec::new();
        for word in side.split(',').map(str::trim) {
            if word.is_empty() {
                return Err(CliError::usage(format!("`{text}` has a side or a node without a name"))
                    .hint("write the nodes of each side with commas, and a slash between sides: a,b/c,d"));
            }
            let node = find(word, names, away)?;
            if island.contains(&node) || islands.iter().any(|it| it.contains(&node)) {
                return Err(
                    CliError::usage(format!("`{text}` names {word} twice")).hint("a node is on one side")
                );
            }
            island.push(node);
        }
        islands.push(island);
    }
    let mut killed = Vec::new();
    for word in kill {
        let node = find(word, names, away)?;
        if killed.contains(&node) {
            return Err(CliError::usage(format!("--kill names {word} twice")).hint("a node dies once"));
        }
        killed.push(node);
    }
    let left_out: Vec<&str> = (0..names.len())
        .filter(|node| !killed.contains(node) && !islands.iter().any(|it| it.contains(node)))
        .map(|node| names[node])
        .collect();
    if let Some(first) = left_out.first() {
        let (verb, rest) = if left_out.len() == 1 { ("is", "") } else { ("are", " and others") };
        return Err(CliError::usage(format!("{} {verb} on no side of `{text}`", some(&left_out)))
            .hint(format!("name {first}{rest} on one side, or say that it loses power: --kill {first}")));
    }
    if islands.len() == 1 && killed.is_empty() {
        return Err(CliError::usage(format!("`{text}` cuts nothing: it has one side"))
            .hint("write a slash between the sides, like a,b/c,d, or --kill a node"));
    }
    // Where a node without power stands makes no difference.
    let loose: Vec<usize> =
        killed.iter().copied().filter(|node| !islands.iter().any(|it| it.contains(node))).collect();
    islands[0].extend(loose);
    Ok(Sides { islands, killed })
}

/// The first few of many names.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

fn find(word: &str, names: &[&str], away: &[(String, &'static str)]) -> Result<usize, CliError> {
    if let Some(node) = names.iter().position(|name| *name == word) {
        return Ok(node);
    }
    if let Some((_, why)) = away.iter().find(|(name, _)| name == word) {
        return Err(CliError::usage(format!("{word} is {why} and takes no part"))
            .hint("leave it out: the simulation begins with the nodes that are up"));
    }
    let error = CliError::usage(format!("there is no node `{}`", crate::manifest::start_of(word)));
    let nearest = names.iter().map(|name| (strsim::damerau_levenshtein(word, name), *name)).min();
    Err(match nearest {
        // A name of two letters is not two letters away from every other.
        Some((distance, name)) if distance <= ALIKE.min(word.chars().count() / 2) => {
            error.hint(format!("did you mean `{name}`?"))
        }
        _ => error.hint(format!("there is {}", some(names))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["shop-1", "shop-2", "depot-1", "depot-2", "van"];

    fn wrong(text: &str, kill: &[&str]) -> (String, String) {
        let kill: Vec<String> = kill.iter().map(|it| (*it).to_owned()).collect();
        let error = read(text, &kill, &NAMES, &[("old".to_owned(), "down")]).unwrap_err();
        assert_eq!(error.exit.code(), 2, "{error}");
        (error.what.clone(), error.hint.clone().unwrap_or_default())
    }

    #[test]
    fn sides_have_commas_within_and_a_slash_between() {
        let sides = read("shop-1,shop-2/depot-1, depot-2/van", &[], &NAMES, &[]).unwrap();
        assert_eq!(sides, Sides { islands: vec![vec![0, 1], vec![2, 3], vec![4]], killed: vec![] });
    }

    #[test]
    fn a_killed_node_may_be_on_a_side_or_on_none() {
        let kill = ["van".to_owned()];
        let on_none = read("shop-1,shop-2/depot-1,depot-2", &kill, &NAMES, &[]).unwrap();
        assert_eq!(on_none, Sides { islands: vec![vec![0, 1, 4], vec![2, 3]], killed: vec![4] });
        let on_one = read("shop-1,shop-2/depot-1,depot-2,van", &kill, &NAMES, &[]).unwrap();
        assert_eq!(on_one.islands, [vec![0, 1], vec![2, 3, 4]]);
        assert_eq!(read("shop-1,shop-2,depot-1,depot-2", &kill, &NAMES, &[]).unwrap().islands.len(), 1);
    }

    #[test]
    fn sides_that_make_no_sense_are_refused_with_a_hint() {
        let all = "shop-1,shop-2/depot-1,depot-2";
        for (text, kill, what, hint) in [
            (
                "shop-1,shop-1/shop-2",
                &[][..],
                "`shop-1,shop-1/shop-2` names shop-1 twice",
                "a node is on one side",
            ),
            ("shop-1/shop-1", &[], "`shop-1/shop-1` names shop-1 twice", "one side"),
            (all, &[], "van is on no side of `shop-1,shop-2/depot-1,depot-2`", "--kill van"),
            ("van/shop-1", &[], "shop-2, depot-1, depot-2 are on no side of `van/shop-1`", "name shop-2"),
            ("shop-1,shop-2/depto-1", &[], "there is no node `depto-1`", "did you mean `depot-1`?"),
            ("shop-1/x", &[], "there is no node `x`", "there is shop-1, shop-2, depot-1, depot-2, van"),
            ("shop-1/old", &[], "old is down and takes no part", "leave it out"),
            ("shop-1//van", &[], "`shop-1//van` has a side or a node without a name", "a,b/c,d"),
            ("", &[], "`` has a side or a node without a name", "a,b/c,d"),
            (
                "shop-1,shop-2,depot-1,depot-2,van",
                &[],
                "`shop-1,shop-2,depot-1,depot-2,van` cuts nothing: it has one side",
                "slash",
            ),
            (all, &["van", "van"], "--kill names van twice", "once"),
            (all, &["bus"], "there is no node `bus`", "there is"),
        ] {
            let found = wrong(text, kill);
            assert_eq!(found.0, what);
            assert!(found.1.contains(hint), "{text}: {}", found.1);
        }
    }
}
