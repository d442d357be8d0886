//! Groups of a document as the fields that people know from their manifest, and how two differ.

use std::collections::BTreeMap;

use model::{
    Class, DependsGroup, EnvGroup, Group, ImageGroup, JobGroup, MetaGroup, Mode, OnFailure, PlacementGroup,
    PortsGroup, Priority, ReplicasGroup, ResourcesGroup, RestartGroup, RestartPolicy, Strategy, UpdateGroup,
};
use serde::de::DeserializeOwned;

use crate::manifest::units::{show_cpu, show_memory};
use crate::out::short;
use crate::shapes::PlanField;

/// Group name to JSON text.
pub(crate) type Groups = BTreeMap<String, String>;

/// What a group is when nobody set it. `None` for a group that has no such value, or is not known.
pub(crate) fn default_of(group: &str) -> Option<String> {
    let json = |value: serde_json::Value| serde_json::to_string(&value).ok();
    let known = Group::ALL.into_iter().find(|known| known.as_str() == group)?;
    match known {
        Group::Image | Group::Replicas => None,
        Group::Resources => json(serde_json::to_value(ResourcesGroup::default()).ok()?),
        Group::Env => json(serde_json::to_value(EnvGroup::default()).ok()?),
        Group::Ports => json(serde_json::to_value(PortsGroup::default()).ok()?),
        Group::Placement => json(serde_json::to_value(PlacementGroup::default()).ok()?),
        Group::Restart => json(serde_json::to_value(RestartGroup::default()).ok()?),
        Group::Meta => json(serde_json::to_value(MetaGroup::default()).ok()?),
        Group::Update => json(serde_json::to_value(UpdateGroup::default()).ok()?),
        Group::Job => Some("null".to_owned()),
        Group::DependsOn => json(serde_json::to_value(DependsGroup::default()).ok()?),
    }
}

/// The values of one group by field, in the order of the manifest.
fn fields_of(group: &str, json: &str) -> Vec<(String, String)> {
    // A group that this release does not know, or that does not read, is shown as it is.
    known_fields(group, json).unwrap_or_else(|| vec![(group.to_owned(), json.to_owned())])
}

fn read<T: DeserializeOwned>(json: &str) -> Option<T> {
    serde_json::from_str(json).ok()
}

fn words(list: &[String]) -> String {
    serde_json::to_string(list).expect("a list of text is JSON")
}

fn known_fields(group: &str, json: &str) -> Option<Vec<(String, String)>> {
    let group = Group::ALL.into_iter().find(|known| known.as_str() == group)?;
    let mut fields = Vec::new();
    let mut put = |field: &str, value: String| fields.push((field.to_owned(), value));
    match group {
        Group::Image => {
            let image: ImageGroup = read(json)?;
            put("image", format!("{} ({})", image.reference, short(&image.digest.to_string())));
            if !image.command.is_empty() {
                put("command", words(&image.command));
            }
            if !image.args.is_empty() {
                put("args", words(&image.args));
            }
            for (field, value) in [("workdir", image.workdir), ("user", image.user)] {
                if let Some(value) = value {
                    put(field, value);
                }
            }
        }
        Group::Replicas => {
            let replicas: ReplicasGroup = read(json)?;
            match replicas.mode {
                Mode::Replicated => put("replicas", replicas.count.to_string()),
                Mode::Global if replicas.count == 0 => put("mode", "global, scaled to 0".to_owned()),
                Mode::Global => put("mode", "global".to_owned()),
            }
            let class = match replicas.class {
                Class::Available => "available",
                Class::Exclusive => "exclusive",
            };
            put("class", class.to_owned());
            if !replicas.voters.is_empty() {
                let voters: Vec<String> = replicas.voters.iter().map(model::NodeId::short).collect();
                put("voters", voters.join(", "));
            }
        }
        Group::Resources => {
            let resources: ResourcesGroup = read(json)?;
            put("resources.cpu", show_cpu(resources.cpu_m));
            put("resources.memory", show_memory(resources.memory_b));
            put("resources.pids", resources.pids.to_string());
            for (name, count) in resources.extras.iter() {
                put(&format!("resources.extras.{name}"), count.to_string());
            }
            let limits = resources.limits;
            for (field, value) in [
                ("resources.limits.cpu", limits.cpu_m.map(show_cpu)),
                ("resources.limits.memory", limits.memory_b.map(show_memory)),
                ("resources.limits.pids", limits.pids.map(|it| it.to_string())),
            ] {
                if let Some(value) = value {
                    put(field, value);
                }
            }
        }
        Group::Env => {
            for (key, value) in read::<EnvGroup>(json)?.vars {
                put(&format!("env.{key}"), value);
            }
        }
        Group::Ports => {
            let ports: PortsGroup = read(json)?;
            for port in ports.ports {
                put(&format!("ports.{}", port.host), format!("{}:{}", port.host, port.container));
            }
        }
        Group::Placement => {
            let placement: PlacementGroup = read(json)?;
            for (key, value) in &placement.labels {
                put(&format!("constraints.{key}"), value.clone());
            }
            let list = |all: Vec<String>| all.join("; ");
            let prefers = placement.prefer.iter().map(|it| format!("{} (weight {})", it.when, it.weight));
            for (field, values) in [
                ("constraints", list(placement.require.iter().map(ToString::to_string).collect())),
                ("prefer", list(prefers.collect())),
                ("spread", list(placement.spread.iter().map(ToString::to_string).collect())),
                ("near", list(placement.near.iter().map(ToString::to_string).collect())),
                ("apart", list(placement.apart.iter().map(ToString::to_string).collect())),
            ] {
                if !values.is_empty() {
                    put(field, values);
                }
            }
            if placement.priority != Priority::Normal {
                put("priority", placement.priority.to_string());
            }
        }
        Group::Restart => {
            let restart: RestartGroup = read(json)?;
            let policy = match restart.policy {
                RestartPolicy::Always => "always",
                RestartPolicy::OnFailure => "on-failure",
                RestartPolicy::Never => "never",
            };
            put("restart", policy.to_owned());
            if !restart.token.is_empty() {
                put("restarted", short(&restart.token).to_owned());
            }
        }
        Group::Update => {
            let update: UpdateGroup = read(json)?;
            put("update.surge", update.surge.to_string());
            put("update.unavailable", update.unavailable.to_string());
            put("update.min-healthy", format!("{}s", update.min_healthy_s));
            put("update.deadline", format!("{}s", update.deadline_s));
            let on_failure = match update.on_failure {
                OnFailure::Rollback => "rollback",
                OnFailure::Stop => "stop",
            };
            put("update.on-failure", on_failure.to_owned());
            if update.strategy == Strategy::BlueGreen {
                put("update.strategy", "blue-green".to_owned());
            }
            if let Some(canary) = update.canary {
                let after = canary.promote_after_s.map(|it| format!(", the others after {it}s"));
                let through = canary.promoted.map(|it| format!(", {} let through", it.short()));
                let more = format!("{}{}", after.unwrap_or_default(), through.unwrap_or_default());
                put("update.canary", format!("{} first{more}", canary.replicas));
            }
            if update.paused {
                put("update.paused", "true".to_owned());
            }
        }
        Group::DependsOn => {
            for (name, condition) in read::<DependsGroup>(json)?.on {
                put(&format!("depends-on.{name}"), condition.as_str().to_owned());
            }
        }
        Group::Job => {
            if let Some(job) = read::<Option<JobGroup>>(json)? {
                put("job.parallelism", job.parallelism.to_string());
                put("job.retries", job.retries.to_string());
                if let Some(seconds) = job.deadline_s {
                    put("job.deadline", format!("{seconds}s"));
                }
            }
        }
        Group::Meta => {
            for (key, value) in read::<MetaGroup>(json)?.labels {
                put(&format!("labels.{key}"), value);
            }
        }
    }
    Some(fields)
}

/// One group's JSON as one line for people.
pub(crate) fn show_group(group: &str, json: &str) -> String {
    let fields = fields_of(group, json);
    let shown: Vec<_> = fields.into_iter().map(|(field, value)| format!("{field}={value}")).collect();
    if shown.is_empty() { "(none)".to_owned() } else { shown.join(" ") }
}

/// Whether two texts are the same JSON.
pub(crate) fn same(a: &str, b: &str) -> bool {
    let read = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    a == b || matches!((read(a), read(b)), (Some(a), Some(b)) if a == b)
}

/// The groups of `after` that differ from `before`.
pub(crate) fn changed(before: &Groups, after: &Groups) -> Groups {
    let differs = |(group, json): &(&String, &String)| before.get(*group).is_none_or(|old| !same(old, json));
    after.iter().filter(differs).map(|(group, json)| (group.clone(), json.clone())).collect()
}

/// Whether changing this group replaces running containers.
pub(crate) fn replaces(group: &str) -> bool {
    Group::TEMPLATE.iter().any(|it| it.as_str() == group)
}

/// How the fields differ, group by group.
pub(crate) fn diff(before: &Groups, after: &Groups) -> Vec<PlanField> {
    // The manifest's order for the groups that we know, then the rest by name.
    let known = Group::ALL.into_iter().map(|group| group.as_str().to_owned());
    let rest = after.keys().filter(|name| !Group::ALL.iter().any(|group| group.as_str() == *name)).cloned();
    let mut fields = Vec::new();
    for group in known.chain(rest) {
        let of = |groups: &Groups| groups.get(&group).map(|json| fields_of(&group, json)).unwrap_or_default();
        let (old, new) = (of(before), of(after));
        let value = |list: &[(String, String)], field: &str| {
            list.iter().find(|(name, _)| name == field).map(|(_, value)| value.clone())
        };
        let gone = old.iter().filter(|(field, _)| value(&new, field).is_none());
        for field in new.iter().chain(gone).map(|(field, _)| field) {
            let (before, after) = (value(&old, field), value(&new, field));
            if before != after {
                fields.push(PlanField { field: field.clone(), before, after });
            }
        }
    }
    fields
}

/// Characters of a value that is shown in a diff.
const VALUE_CHARS_MAX: usize = 120;

pub(crate) fn cut(value: &str) -> String {
    // A value may hold anything; a terminal is not to act on it.
    let plain = |c: char| if c.is_control() { c.escape_debug().collect() } else { c.to_string() };
    let shown: String = value.chars().take(VALUE_CHARS_MAX).map(plain).collect();
    if value.chars().count() > VALUE_CHARS_MAX { format!("{shown}...") } else { shown }
}

/// One changed field as a line.
pub(crate) fn show_field(field: &PlanField) -> String {
    match (&field.before, &field.after) {
        (Some(before), Some(after)) => format!("{}: {} -> {}", field.field, cut(before), cut(after)),
        (None, Some(after)) => format!("{}: {} (added)", field.field, cut(after)),
        (Some(before), None) => format!("{}: {} (removed)", field.field, cut(before)),
        (None, None) => field.field.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(of: &[(&str, &str)]) -> Groups {
        of.iter().map(|(group, json)| ((*group).to_owned(), (*json).to_owned())).collect()
    }

    fn lines(before: &Groups, after: &Groups) -> Vec<String> {
        diff(before, after).iter().map(show_field).collect()
    }

    #[test]
    fn a_diff_names_fields_as_the_manifest_does() {
        let digest = |hex: &str| format!(r#"{{"reference":"web:1","digest":"{}"}}"#, hex.repeat(32));
        let before = groups(&[
            ("image", &digest("ab")),
            ("replicas", r#"{"count":2,"class":"available"}"#),
            ("resources", r#"{"cpu_m":100,"memory_b":67108864,"pids":64}"#),
            ("env", r#"{"vars":{"A":"1","GONE":"x"}}"#),
            ("ports", r#"{"ports":[{"container":80,"host":8080,"protocol":"tcp"}]}"#),
            ("placement", r#"{"labels":{"site":"north"}}"#),
            ("restart", r#"{"policy":"always"}"#),
            ("meta", r#"{"labels":{}}"#),
        ]);
        let after = groups(&[
            ("image", &digest("cd")),
            ("replicas", r#"{"count":3,"class":"available"}"#),
            ("resources", r#"{"cpu_m":1000,"memory_b":134217728,"pids":64}"#),
            ("env", r#"{"vars":{"A":"2","NEW":"y"}}"#),
            ("ports", r#"{"ports":[{"container":81,"host":8080,"protocol":"tcp"}]}"#),
            ("placement", r#"{"labels":{}}"#),
            ("restart", r#"{"policy":"never","token":"0011223344"}"#),
            ("meta", r#"{"labels":{"team":"shop"}}"#),
        ]);
        assert_eq!(
            lines(&before, &after),
            [
                "image: web:1 (abababab) -> web:1 (cdcdcdcd)",
                "replicas: 2 -> 3",
                "resources.cpu: 100m -> 1",
                "resources.memory: 64Mi -> 128Mi",
                "env.A: 1 -> 2",
                "env.NEW: y (added)",
                "env.GONE: x (removed)",
                "ports.8080: 8080:80 -> 8080:81",
                "constraints.site: north (removed)",
                "restart: always -> never",
                "restarted: 00112233 (added)",
                "labels.team: shop (added)",
            ]
        );
        assert!(lines(&before, &before).is_empty());
    }

    #[test]
    fn order_and_white_space_of_json_are_no_change() {
        let before = groups(&[("replicas", r#"{"class":"available", "count":2}"#)]);
        let after = groups(&[("replicas", r#"{"count":2,"class":"available"}"#)]);
        assert!(changed(&before, &after).is_empty());
        let after = groups(&[("replicas", r#"{"count":3,"class":"available"}"#)]);
        assert_eq!(changed(&before, &after), after);
    }

    #[test]
    fn a_group_of_a_newer_release_is_shown_as_it_is() {
        let before = groups(&[("volumes", r#"{"a":1}"#)]);
        let after = groups(&[("volumes", r#"{"a":2}"#)]);
        assert_eq!(lines(&before, &after), [r#"volumes: {"a":1} -> {"a":2}"#]);
        assert_eq!(cut("a\u{1b}[31m\n"), "a\\u{1b}[31m\\n");
    }

    #[test]
    fn only_changes_of_the_template_replace_containers() {
        for (group, expected) in [
            ("image", true),
            ("env", true),
            ("ports", true),
            ("resources", true),
            ("restart", true),
            ("replicas", false),
            ("placement", false),
            ("meta", false),
            ("update", false),
            ("depends-on", false),
            ("job", false),
        ] {
            assert_eq!(replaces(group), expected, "{group}");
        }
    }
}
