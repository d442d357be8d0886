//! Bad manifests and what is said of each, word for word.

use std::collections::BTreeSet;

use super::*;

/// What is said of a text: `line:column: message` for each problem.
fn said(text: &str) -> Vec<String> {
    match read(text) {
        Ok(specs) => vec![format!("accepted: {} deployments", specs.len())],
        Err(mut problems) => {
            problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
            problems
                .iter()
                .map(|problem| {
                    format!("{}:{}: {}", problem.place.line, problem.place.column, problem.message)
                })
                .collect()
        }
    }
}

/// A manifest of one deployment with a field more.
fn with(field: &str) -> String {
    format!("deployments:\n  - name: web\n    image: web:1\n    {field}\n")
}

#[test]
fn a_whole_manifest_becomes_a_deployment() {
    let text = r#"
namespace: shop
deployments:
  - name: web
    image: web:1
    replicas: 3
    class: available
    command: [/app]
    args: ["--port", "80"]
    env: {LEVEL: debug}
    workdir: /srv
    user: "1000:1000"
    resources: {cpu: 250m, memory: 64Mi, pids: 100, extras: {gpu: 1, camera: 2}, limits: {cpu: 1, memory: 64Mi}}
    ports: ["8080:80", {host: 9090, container: 90}]
    restart: on-failure
    labels: {team: shop}
    constraints: {site: north}
  - {name: db, image: db}
"#;
    let specs = read(text).unwrap();
    assert_eq!(specs.len(), 2);
    let web = specs[0].with_digest(model::Digest::from_bytes([1; 32]));
    assert_eq!(web.namespace.as_str(), "shop");
    assert_eq!((web.replicas.count, web.resources.cpu_m, web.resources.memory_b), (3, 250, 64 << 20));
    assert_eq!(web.resources.extras.to_string(), "camera=2, gpu=1");
    // What is no more than what is set aside is no limit of its own.
    assert_eq!(web.resources.limits, model::Limits { cpu_m: Some(1_000), ..model::Limits::default() });
    assert_eq!(web.image.command, ["/app"]);
    assert_eq!(web.image.args, ["--port", "80"]);
    assert_eq!(
        web.ports.ports.iter().map(|port| (port.host, port.container)).collect::<Vec<_>>(),
        [(8080, 80), (9090, 90)]
    );
    assert_eq!(web.restart.policy, model::RestartPolicy::OnFailure);
    let db = specs[1].with_digest(model::Digest::from_bytes([1; 32]));
    assert_eq!((db.replicas.count, db.resources), (1, model::ResourcesGroup::default()));
    assert_eq!(db.namespace.as_str(), "shop");
}

#[test]
fn json_is_read_as_well_tabs_and_all() {
    let text =
        "{\n\t\"deployments\": [\n\t\t{\"name\": \"web\", \"image\": \"web:1\", \"replicas\": 2}\n\t]\n}";
    assert_eq!(said(text), ["accepted: 1 deployments"]);
    let pinned = format!("deployments: [{{name: a, image: \"web@sha256:{}\"}}]", "ab".repeat(32));
    assert_eq!(read(&pinned).unwrap()[0].image.digest, Some(model::Digest::from_bytes([0xab; 32])));
}

#[test]
fn amounts_may_be_numbers_or_text() {
    for (cpu, cpu_m) in [("0.25", 250), ("1", 1000), ("'1'", 1000), ("250m", 250), ("2.5", 2500)] {
        let specs = read(&with(&format!("resources: {{cpu: {cpu}}}"))).unwrap();
        assert_eq!(specs[0].with_digest(model::Digest::from_bytes([1; 32])).resources.cpu_m, cpu_m, "{cpu}");
    }
    let specs = read(&with("resources: {memory: 67108864}")).unwrap();
    assert_eq!(specs[0].with_digest(model::Digest::from_bytes([1; 32])).resources.memory_b, 64 << 20);
}

#[test]
fn a_manifest_says_where_its_replicas_run() {
    let text = r#"
deployments:
  - name: web
    image: web:1
    priority: high
    constraints: ["zone in (a, b)", "gpu exists"]
    prefer: ["disk = ssd", {when: "arch = arm64", weight: -20}]
    spread: [site, host]
    near: cache
    apart: ["db", "web within rack"]
  - {name: agent, image: agent, mode: global, constraints: role = edge}
"#;
    let specs = read(text).unwrap();
    let deployment = |n: usize| specs[n].with_digest(model::Digest::from_bytes([1; 32]));
    let web = deployment(0).placement;
    let words = |list: Vec<String>| list.join("; ");
    assert_eq!(words(web.require.iter().map(ToString::to_string).collect()), "zone in (a, b); gpu exists");
    let prefers = web.prefer.iter().map(|it| format!("{} {}", it.when, it.weight));
    assert_eq!(words(prefers.collect()), "disk = ssd 10; arch = arm64 -20");
    assert_eq!(words(web.spread.iter().map(ToString::to_string).collect()), "site; host");
    assert_eq!(words(web.near.iter().map(ToString::to_string).collect()), "cache");
    assert_eq!(words(web.apart.iter().map(ToString::to_string).collect()), "db; web within rack");
    assert_eq!(web.priority, model::Priority::High);
    let agent = deployment(1);
    assert_eq!((agent.replicas.mode, agent.replicas.count), (model::Mode::Global, 1));
    assert_eq!(agent.placement.require[0].to_string(), "role = edge");
}

#[test]
fn a_manifest_says_how_it_is_updated() {
    let read_one =
        |text: &str| read(&with(text)).unwrap()[0].with_digest(model::Digest::from_bytes([1; 32])).update;
    let usual = model::UpdateGroup::default();
    assert_eq!(read_one("restart: always"), usual);
    let update = read_one(
        "update: {surge: 0, unavailable: 2, min-healthy: 30s, deadline: 5m, on-failure: stop, strategy: blue-green, canary: 3, paused: true}",
    );
    assert_eq!((update.surge, update.unavailable, update.min_healthy_s, update.deadline_s), (0, 2, 30, 300));
    assert_eq!((update.on_failure, update.strategy), (model::OnFailure::Stop, model::Strategy::BlueGreen));
    assert_eq!(update.canary.map(|it| (it.replicas, it.promote_after_s)), Some((3, None)));
    assert!(update.paused);
    let canary = read_one("update: {canary: {replicas: 2, promote-after: 10m}}").canary.unwrap();
    assert_eq!((canary.replicas, canary.promote_after_s), (2, Some(600)));
}

#[test]
fn every_wrong_word_of_an_update_is_told_with_its_place_and_the_way_out() {
    for (field, told) in [
        (
            "update: {surge: 0}",
            "update.surge: 0 more and 0 less (`unavailable`) leave no way to change anything",
        ),
        ("update: {surge: -1}", "4:21: update.surge must be 0 to 10000, found -1"),
        ("update: {surge: 1000000000}", "update.surge must be 0 to 10000, found 1000000000"),
        ("update: {maxSurge: 1}", "unknown field `maxSurge` in update; did you mean `surge`?"),
        ("update: {deadline: 1500ms}", "update.deadline must be whole seconds, 1s to 168h, found `1500ms`"),
        (
            "update: {min-healthy: 10m, deadline: 5m}",
            "300 s are over before a container can have been well for 600 s",
        ),
        ("update: {on-failure: retry}", "update.on-failure cannot be `retry`"),
        ("update: {canary: 0}", "update.canary must be 1 to 10000, found 0"),
        ("update: {paused: later}", "update.paused must be true or false"),
    ] {
        let said = said(&with(field));
        assert!(said.iter().any(|line| line.contains(told)), "{field}: {said:?}");
    }
}

#[test]
fn a_manifest_says_what_comes_first_and_every_wrong_word_of_that_is_told() {
    let on = |text: &str| {
        let spec = &read(&with(text)).unwrap()[0];
        let on = &spec.depends().on;
        on.iter().map(|(name, it)| format!("{name} {}", it.as_str())).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(on("restart: always"), "");
    assert_eq!(on("depends-on: db"), "db healthy");
    assert_eq!(on("depends-on: [db, cache]"), "cache healthy, db healthy");
    assert_eq!(
        on("depends-on: {db: healthy, migrate: completed, cache: started}"),
        "cache started, db healthy, migrate completed"
    );
    for (field, told) in [
        ("depends-on: [db, db]", "depends-on: `db` is there twice"),
        ("depends-on: {db: helthy}", "4:22: depends-on.db cannot be `helthy`; did you mean `healthy`?"),
        ("depends-on: [Db]", "4:18: depends-on[0]: `Db` has the character 'D'"),
        ("depends-on: 3", "4:17: depends-on must be a list, found the number 3"),
        ("dependsOn: [db]", "unknown field `dependsOn` in deployments[0]; did you mean `depends-on`?"),
    ] {
        let said = said(&with(field));
        assert!(said.iter().any(|line| line.contains(told)), "{field}: {said:?}");
    }
}

#[test]
fn a_manifest_says_that_it_is_a_job_and_what_has_no_place_beside_that_is_told() {
    let of = |text: &str| read(&with(text)).unwrap()[0].with_digest(model::Digest::from_bytes([1; 32]));
    assert_eq!(of("restart: always").job, None);
    let usual = of("mode: job");
    assert_eq!((usual.job, usual.replicas.count), (Some(model::JobGroup::default()), 1));
    assert_eq!(usual.restart.policy, model::RestartPolicy::Never);
    let job = of("job: {completions: 5, parallelism: 2, retries: 0, deadline: 10m}");
    assert_eq!(job.replicas.count, 5);
    let said_of = model::JobGroup { parallelism: 2, retries: 0, deadline_s: Some(600) };
    assert_eq!(job.job, Some(said_of));
    for (field, told) in [
        ("job: {completions: 0}", "4:24: job.completions must be 1 to 1000, found 0"),
        ("job: {parallelism: 1001}", "job.parallelism must be 1 to 1000, found 1001"),
        ("job: {retries: 101}", "job.retries must be 0 to 100, found 101"),
        ("job: {deadline: 1500ms}", "job.deadline must be whole seconds, 1s to 168h, found `1500ms`"),
        ("job: {completion: 2}", "unknown field `completion` in job; did you mean `completions`?"),
        ("job: {}\n    replicas: 3", "replicas has no place beside a job"),
        ("mode: job\n    restart: never", "restart has no place beside a job"),
        ("mode: job\n    update: {surge: 2}", "update has no place beside a job"),
        ("mode: global\n    job: {}", "job: in mode `global`, which runs one on each node for ever"),
    ] {
        let said = said(&with(field));
        assert!(said.iter().any(|line| line.contains(told)), "{field}: {said:?}");
    }
}

#[test]
fn every_wrong_word_of_where_it_runs_is_told_with_its_place_and_the_way_out() {
    for (field, told) in [
        ("constraints: [\"disk\"]", "4:19: constraints[0]: `disk` is no condition: write `KEY = VALUE`"),
        ("constraints: [\"ram > much\"]", "4:19: constraints[0]: `ram >` needs a whole number, found `much`"),
        (
            "constraints: [\"a = 1\", \"a = 2\"]",
            "`a = 1` and `a = 2` contradict one another: no node meets both",
        ),
        ("constraints: 5", "4:18: constraints must be a group of fields, found the number 5"),
        ("prefer: [{weight: 5}]", "4:14: prefer[0] has no `when`, a condition like `disk = ssd`"),
        ("prefer: [{when: a = 1, weight: 0}]", "4:36: prefer[0].weight must be 1 to 100, or -100 to -1"),
        ("prefer: [{when: a = 1, wait: 3}]", "unknown field `wait` in prefer[0]"),
        ("spread: [site, site]", "4:20: spread[1]: `site` is there twice"),
        ("spread: [a, b, c, d, e]", "4:13: spread has 5 entries, the limit is 4"),
        (
            "near: [\"db in rack\"]",
            "4:12: near[0] must be the name of a deployment, or `NAME within LABEL`, found `db in rack`",
        ),
        ("apart: [Db]", "4:13: apart[0]: `Db` has the character 'D'"),
        ("mode: globl", "4:11: mode cannot be `globl`; did you mean `global`?"),
        (
            "priority: urgent",
            "4:15: priority cannot be `urgent`, use one of `low`, `normal`, `high`, `critical`",
        ),
        ("affinity: [db]", "unknown field `affinity` in deployments[0]; did you mean `near`?"),
    ] {
        let said = said(&with(field));
        assert!(said.iter().any(|line| line.contains(told)), "{field}: {said:?}");
    }
    let both = said(&with("mode: global\n    replicas: 3"));
    assert!(both[0].contains("replicas has no place beside mode `global`"), "{both:?}");
}

#[test]
fn every_wrong_field_is_told_with_its_place_and_the_way_out() {
    let long = "a".repeat(300);
    let name = |name: &str| format!("deployments: [{{name: {name}, image: i}}]");
    let table: Vec<(String, String)> = vec![
        // Unknown and missing fields.
        (with("replica: 3"), "4:5: unknown field `replica` in deployments[0]; did you mean `replicas`?".into()),
        (with("environment: {}"), "4:5: unknown field `environment` in deployments[0]; did you mean `env`?".into()),
        (with("entrypoint: [a]"), "4:5: unknown field `entrypoint` in deployments[0]; did you mean `command`?".into()),
        (with("resources: {mem: 64Mi}"), "4:17: unknown field `mem` in resources; did you mean `memory`?".into()),
        (with("resources: {gpu: 1}"), "4:17: unknown field `gpu` in resources; did you mean `extras`?".into()),
        (with("resources: {disk: 1Gi}"), "4:17: unknown field `disk` in resources, which knows `cpu`, `memory`, `pids`, `extras`, `limits`".into()),
        (with("ports: [{host: 80, guest: 80}]"), "4:24: unknown field `guest` in ports[0], which knows `host`, `container`".into()),
        ("services: []".into(), "1:1: unknown field `services` in the manifest; did you mean `deployments`?".into()),
        ("namespace: a".into(), "1:1: the manifest has no `deployments`".into()),
        ("deployments: []".into(), "1:14: `deployments` is empty".into()),
        ("deployments: [{image: i}]".into(), "1:15: deployments[0] has no `name`".into()),
        ("deployments: [{name: a}]".into(), "1:15: deployments[0] has no `image`".into()),
        ("deployments: [{name: a, image: i, 3: x}]".into(), "1:35: a field's name must be text, found the number 3".into()),
        // Shapes.
        ("[]".into(), "1:1: the manifest must be a group of fields, found a list".into()),
        ("hello".into(), "1:1: the manifest must be a group of fields, found the text \"hello\"".into()),
        ("deployments: {}".into(), "1:14: deployments must be a list, found a group of fields".into()),
        ("deployments: [web]".into(), "1:15: deployments[0] must be a group of fields, found the text \"web\"".into()),
        (with("env: [A=1]"), "4:10: env must be a group of fields, found a list".into()),
        (with("labels: team"), "4:13: labels must be a group of fields, found the text \"team\"".into()),
        (with("ports: 8080:80"), "4:12: ports must be a list, found the text \"8080:80\"".into()),
        (with("command: /app --fast"), "4:14: command must be a list, found the text \"/app --fast\"; no shell splits it".into()),
        // Types.
        (with("replicas: three"), "4:15: replicas must be a whole number, found the text \"three\"".into()),
        (with("replicas: \"3\""), "4:15: replicas must be a whole number, found the text \"3\"".into()),
        (with("replicas: 2.5"), "4:15: replicas must be a whole number, found the number 2.5".into()),
        (with("replicas: true"), "4:15: replicas must be a whole number, found `true`".into()),
        (with("replicas:"), "4:13: replicas must be a whole number, found nothing".into()),
        (with("env: {PORT: 8080}"), "4:17: env.PORT must be text, found the number 8080; put it in quotes: \"8080\"".into()),
        (with("env: {ON: true}"), "4:15: env.ON must be text, found `true`; put it in quotes: \"true\"".into()),
        (with("env: {A: }"), "4:12: env.A must be text, found nothing".into()),
        (with("args: [sleep, 10]"), "4:19: args[1] must be text, found the number 10; put it in quotes: \"10\"".into()),
        (with("workdir: [a]"), "4:14: workdir must be text, found a list".into()),
        ("deployments: [{name: 3, image: i}]".into(), "1:22: name must be text, found the number 3; put it in quotes: \"3\"".into()),
        // Ranges.
        (with("replicas: 0"), "4:15: replicas must be at least 1, found 0".into()),
        (with("replicas: -1"), "4:15: replicas must be 1 to 10000, found -1".into()),
        (with("replicas: 1000000000"), "4:15: replicas must be 1 to 10000, found 1000000000".into()),
        (with("resources: {cpu: 0}"), "4:22: resources.cpu: 0m asked, use 1m to 1024000m".into()),
        (with("resources: {memory: 64}"), "4:25: resources.memory: 64 bytes asked, use 1Mi to 16Ti".into()),
        (with("resources: {memory: 17Ti}"), "4:25: resources.memory: 18691697672192 bytes asked, use 1Mi to 16Ti".into()),
        (with("resources: {pids: 0}"), "4:23: resources.pids must be 1 to 4194304, found 0".into()),
        (with("resources: {extras: [gpu]}"), "4:25: resources.extras must be a group of counts, found a list".into()),
        (with("resources: {extras: {gpu: 0}}"), "4:31: resources.extras.gpu must be 1 to 10000, found 0".into()),
        (with("resources: {extras: {gpu: 0.5}}"), "4:31: resources.extras.gpu must be a whole number, found the number 0.5".into()),
        (
            with(&format!("resources: {{extras: {{{}}}}}", (0..17).map(|n| format!("x{n}: 1")).collect::<Vec<_>>().join(", "))),
            "4:25: resources.extras has 17 entries, the limit is 16".into(),
        ),
        (with("resources: {cpu: 200m, limits: {cpu: 100m}}"), "4:42: resources.limits.cpu: 100m is less than the 200m that are set aside for it".into()),
        (with("resources: {limits: {disk: 1}}"), "4:26: unknown field `disk` in resources.limits, which knows `cpu`, `memory`, `pids`".into()),
        // Units.
        (with("resources: {memory: 64mi}"), "4:25: resources.memory: `64mi` is not an amount of memory; did you mean `64Mi`?".into()),
        (with("resources: {memory: 64MB}"), "4:25: resources.memory: `64MB` is not an amount of memory; did you mean `64M`?".into()),
        (
            with("resources: {memory: lots}"),
            "4:25: resources.memory: `lots` is not an amount of memory: write it like `64Mi`, `1Gi`, `500M` or a number of bytes".into(),
        ),
        (with("resources: {cpu: 250M}"), "4:22: resources.cpu: `250M` is not an amount of cpu; did you mean `250m`?".into()),
        (
            with("resources: {cpu: [1]}"),
            "4:22: resources.cpu must be an amount, found a list: write it like `250m` (a quarter of a core), `0.5` or `2`".into(),
        ),
        // Names.
        (name("'..'"), "1:22: name: `..` has the character '.': use a to z, 0 to 9 and `-`, starting and ending with a letter or digit".into()),
        (name("a/b"), "1:22: name: `a/b` has the character '/': use a to z, 0 to 9 and `-`, starting and ending with a letter or digit".into()),
        (name("Web"), "1:22: name: `Web` has the character 'W': use a to z, 0 to 9 and `-`, starting and ending with a letter or digit".into()),
        (name(&long), "1:22: name: `aaaaaaaaaaaaaaaaaaaa...` has 300 characters, the limit is 63".into()),
        (name("''"), "1:22: name: a name must not be empty".into()),
        (
            "namespace: ..\ndeployments: [{name: a, image: i}]".into(),
            "1:12: namespace: `..` has the character '.': use a to z, 0 to 9 and `-`, starting and ending with a letter or digit".into(),
        ),
        (with("labels: {\"a b\": x}"), "4:14: labels: `a b` has the character ' ': use letters, digits, `-`, `_`, `.` and `/`, starting and ending with a letter or digit".into()),
        (with(&format!("constraints: {{site: {}}}", "x".repeat(64))), "4:18: constraints: the value of `site` has 64 characters, the limit is 63".into()),
        (with("env: {\"A=B\": x}"), "4:11: env: `A=B` is not a variable's name".into()),
        // Words.
        (with("restart: allways"), "4:14: restart cannot be `allways`; did you mean `always`?".into()),
        (with("restart: unless-stopped"), "4:14: restart cannot be `unless-stopped`, use one of `always`, `on-failure`, `never`".into()),
        (with("class: shared"), "4:12: class cannot be `shared`, use one of `available`, `exclusive`".into()),
        (
            with("class: exclusive"),
            "4:12: class `exclusive` needs voters: the nodes that decide who runs a replica".into(),
        ),
        (
            with("voters: [n1]"),
            "4:13: voters without `class: exclusive`: nobody votes on what may run more than once".into(),
        ),
        (
            with("class: exclusive\n    voters: [n1, n2]"),
            "5:13: voters: 2 named, use one or 3 to 5: of two, each is one too many".into(),
        ),
        (
            with("class: exclusive\n    voters: [n1, n2, n1]"),
            "5:22: voters: `n1` is named twice".into(),
        ),
        // Ports, folders, users, images.
        (with("ports: [8080]"), "4:13: ports[0] must be \"HOST:CONTAINER\", like \"8080:80\", found the number 8080".into()),
        (with("ports: ['8080']"), "4:13: ports[0] must be \"HOST:CONTAINER\" with ports 1 to 65535, like \"8080:80\", found \"8080\"".into()),
        (with("ports: ['0:80']"), "4:13: ports[0] must be \"HOST:CONTAINER\" with ports 1 to 65535, like \"8080:80\", found \"0:80\"".into()),
        (with("ports: ['70000:80']"), "4:13: ports[0] must be \"HOST:CONTAINER\" with ports 1 to 65535, like \"8080:80\", found \"70000:80\"".into()),
        (with("ports: [{host: 80}]"), "4:13: ports[0] has no `container`".into()),
        (with("ports: [{host: 80, container: 99999}]"), "4:35: ports[0].container must be 1 to 65535, found 99999".into()),
        (with("ports: ['80:1', '80:2']"), "4:21: ports[1]: host port 80 is published twice".into()),
        (with("workdir: srv"), "4:14: workdir must be an absolute path, like `/srv`, found `srv`".into()),
        (with("user: 'a b'"), "4:11: user must be `name`, `uid` or `uid:gid`, like `1000:1000`, found `a b`".into()),
        (
            "deployments: [{name: a, image: 'i@sha256:12'}]".into(),
            "1:32: image: `i@sha256:12` has no valid digest after `@`: expected `sha256:` and 64 hexadecimal digits in lower case".into(),
        ),
        ("deployments: [{name: a, image: ''}]".into(), "1:32: image: the name of an image is empty".into()),
        // More than once.
        (
            "deployments:\n  - {name: a, image: i}\n  - {name: a, image: j}\n".into(),
            "3:12: deployment `a` is there twice: first in line 2".into(),
        ),
    ];
    assert!(table.len() >= 40);
    let mut wrong = Vec::new();
    for (text, expected) in &table {
        let found = said(text);
        if found != [expected.clone()] {
            wrong.push(format!("{text}\n  expected {expected}\n  found    {}", found.join("\n           ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    for (text, place) in [
        ("deployments: [", 1),
        ("deployments:\n  - name: web\n   image: x\n", 3),
        ("a: 1\na: 2\n", 2),
        ("deployments: *unknown\n", 1),
        ("{\"deployments\": [}", 1),
        ("deployments:\n\t- name: web\n", 2),
    ] {
        let problems = read(text).unwrap_err();
        assert_eq!(problems.len(), 1, "{text}");
        assert_eq!(problems[0].place.line, place, "{text}: {}", problems[0].message);
        assert!(!problems[0].message.is_empty());
    }
    for empty in ["", "\n\n", "# nothing\n", "---\n"] {
        assert!(said(empty)[0].ends_with("the file is empty"), "{empty:?}: {:?}", said(empty));
    }
    let two = "deployments: [{name: a, image: i}]\n---\ndeployments: [{name: b, image: i}]\n";
    assert!(said(two)[0].ends_with("the file holds more than one document (`---`)"), "{:?}", said(two));
}

#[test]
fn every_problem_of_a_file_is_told_at_once() {
    let text = "
deployments:
  - name: Web
    image: web:1
    replica: 3
    resources: {memory: 64mi, gpu: 1}
  - name: ok
    image: ok
    env: {PORT: 80}
";
    assert_eq!(said(text).len(), 5);
    let source = Source { name: "app.yaml".into(), text: text.into() };
    let shown = error(&source, read(text).unwrap_err()).to_string();
    let expected = "error: app.yaml cannot be used: 5 problems
  app.yaml:3:11: name: `Web` has the character 'W': use a to z, 0 to 9 and `-`, starting and ending with a letter or digit
    3 |   - name: Web
      |           ^^^
  app.yaml:5:5: unknown field `replica` in deployments[0]; did you mean `replicas`?
    5 |     replica: 3
      |     ^^^^^^^
  app.yaml:6:25: resources.memory: `64mi` is not an amount of memory; did you mean `64Mi`?
    6 |     resources: {memory: 64mi, gpu: 1}
      |                         ^^^^
  app.yaml:6:31: unknown field `gpu` in resources; did you mean `extras`?
    6 |     resources: {memory: 64mi, gpu: 1}
      |                               ^^^
  app.yaml:9:17: env.PORT must be text, found the number 80; put it in quotes: \"80\"
    9 |     env: {PORT: 80}
      |                 ^^";
    assert_eq!(shown, expected);
}

#[test]
fn an_alias_bomb_is_refused_before_it_unfolds() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 1..12 {
        let row = vec![format!("*a{}", n - 1); 10].join(",");
        bomb = format!("{bomb}a{n}: &a{n} [{row}]\n");
    }
    bomb.push_str("deployments: *a11\n");
    let started = std::time::Instant::now();
    let problems = read(&bomb).unwrap_err();
    assert!(
        problems[0].message.starts_with("the file unfolds to more than a manifest may hold"),
        "{problems:?}"
    );
    assert!(started.elapsed() < std::time::Duration::from_secs(30));
    let deep = format!("deployments: {}{}", "[".repeat(2_000), "]".repeat(2_000));
    assert!(!read(&deep).unwrap_err().is_empty());
}

#[test]
fn a_place_in_a_long_line_stays_in_view() {
    let text = format!("deployments: [{{name: a, image: i, command: [{}], replica: 1}}]", "x, ".repeat(60));
    let problems = read(&text).unwrap_err();
    let shown = snippet(&text, problems[0].place).unwrap();
    let (line, carets) = shown.split_once('\n').unwrap();
    let at = carets.find('^').unwrap();
    assert!(line.chars().count() < 120);
    assert_eq!(line.chars().skip(at).take(7).collect::<String>(), "replica");
}

#[test]
fn the_schema_and_the_reader_know_the_same_fields() {
    let schema = serde_json::to_value(schemars::schema_for!(schema::Manifest)).unwrap();
    let fields = |value: &serde_json::Value| -> BTreeSet<String> {
        value["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let known = |list: &[&str]| -> BTreeSet<String> { list.iter().map(ToString::to_string).collect() };
    assert_eq!(fields(&schema), known(&read::FILE_FIELDS));
    for (name, list) in [
        ("Deployment", &read::DEPLOYMENT_FIELDS[..]),
        ("Resources", &resources::RESOURCES_FIELDS[..]),
        ("Limits", &resources::LIMITS_FIELDS[..]),
        ("PortFields", &read::PORT_FIELDS[..]),
        ("PreferenceFields", &placement::PREFERENCE_FIELDS[..]),
        ("Update", &update::UPDATE_FIELDS[..]),
        ("CanaryFields", &update::CANARY_FIELDS[..]),
        ("Job", &job::JOB_FIELDS[..]),
    ] {
        let part = &schema["$defs"][name];
        assert_eq!(fields(part), known(list), "{name}");
        assert_eq!(part["additionalProperties"], false, "{name}");
    }
}
