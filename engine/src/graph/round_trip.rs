//! What is written as YAML by another program is read as it was meant.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::model::{
    Claim, CommandSpec, Digest, Edge, EnvValue, Graph, Need, Node, NodeKind, Parts, Place, Pool, Retries, Run,
    WhenSkipped,
};
use super::{NodeIndex, load_cached};
use crate::TaskId;

const POOLS: [(&str, u32); 2] = [("a pool", 3), ("disk", 1)];

/// Texts that YAML could take for something else.
const ODD: [&str; 15] =
    ["~", "null", "yes", "1e3", "0x10", "- a", "#", "a: b", " x ", "<<", "", "a\nb\n", "*x", "'\"", "\u{85}"];

/// Any texts but those with the line separators that YAML 1.1, which serde_yaml writes, takes for line breaks.
fn texts() -> impl Strategy<Value = Box<str>> {
    prop_oneof![prop::sample::select(&ODD[..]).prop_map(String::from), "[\\PC&&[^\u{2028}\u{2029}]]{0,12}"]
        .prop_map(String::into_boxed_str)
}

fn json_values() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        (-1e6..1e6).prop_map(|number: f64| Json::from(number + 0.5)),
        texts().prop_map(|text| Json::from(String::from(text))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        // serde_yaml writes the key `<<` without quotes, and so as a merge key.
        let keys = texts().prop_map(String::from).prop_filter("not a merge key", |key| key != "<<");
        let entries = prop::collection::btree_map(keys, inner.clone(), 0..4);
        let object = entries.prop_map(|entries| Json::from(Map::from_iter(entries)));
        prop_oneof![prop::collection::vec(inner, 0..4).prop_map(Json::from), object]
    })
}

fn runs() -> impl Strategy<Value = Run> {
    prop_oneof![
        texts().prop_map(Run::Shell),
        prop::collection::vec(texts(), 1..4).prop_map(|argv| Run::Argv(argv.into()))
    ]
}

fn durations() -> impl Strategy<Value = Duration> {
    (1..10_000_000u64).prop_map(Duration::from_millis)
}

fn env_values() -> impl Strategy<Value = (Box<str>, EnvValue)> {
    let secret = texts().prop_map(|secret| EnvValue::Secret { secret });
    ("[A-Z_]{1,6}", prop_oneof![texts().prop_map(EnvValue::Literal), secret])
        .prop_map(|(name, value)| (name.into_boxed_str(), value))
}

prop_compose! {
    fn commands()(
        run in runs(),
        mut env in prop::collection::vec(env_values(), 0..3),
        dir in prop::option::of("[a-z]{1,5}"),
        inputs in prop::collection::vec("in-[a-z]{1,4}/\\*", 0..3),
        probe in prop::option::of(runs()),
        destroy in prop::option::of(runs()),
        transient_exit_codes in prop::collection::vec(1..256, 0..3),
    ) -> NodeKind {
        env.sort_by(|a, b| a.0.cmp(&b.0));
        env.dedup_by(|a, b| a.0 == b.0);
        let spec = CommandSpec {
            settings_digest: crate::fingerprint::Digest::of(&[]),
            run,
            env: env.into(),
            dir: dir.map(Into::into),
            inputs: inputs.into_iter().map(Into::into).collect(),
            outputs: ["an output".into(), "*.o".into()].into(),
            probe,
            destroy,
            transient_exit_codes: transient_exit_codes.into(),
        };
        NodeKind::Command(Box::new(spec))
    }
}

fn kinds() -> impl Strategy<Value = NodeKind> {
    let with = prop_oneof![Just(Json::Null), json_values().prop_map(|value| json!({"value": value}))];
    let plugin = (texts(), with).prop_map(|(uses, with)| NodeKind::Plugin { uses, with });
    prop_oneof![plugin, commands()]
}

prop_compose! {
    fn retries()(count: u32, backoff in durations(), max_delay in durations(), jitter in 0..=100u8) -> Retries {
        Retries { count, backoff, max_delay, jitter: f64::from(jitter) / 100.0 }
    }
}

prop_compose! {
    fn nodes()(
        title in prop::option::of(texts()),
        kind in kinds(),
        amount in 0..=3u32,
        retries in prop::option::of(retries()),
        timeout in prop::option::of(durations()),
    ) -> Node {
        let id = TaskId::new("unnamed").unwrap();
        let pools = (amount > 0).then_some(Claim { pool: 0, amount }).into_iter().collect();
        Node { id, title, kind, pools, retries: retries.map(Box::new), timeout, place: Place { file: 0, line: 1 } }
    }
}

fn graphs() -> impl Strategy<Value = Graph> {
    let needs = prop::collection::vec(any::<(bool, bool)>(), 64);
    (prop::collection::vec(nodes(), 1..8), needs).prop_map(|(mut nodes, matrix)| {
        for (at, node) in nodes.iter_mut().enumerate() {
            node.id = TaskId::new(&format!("p{}.{at}", at % 3)).unwrap();
            if let NodeKind::Command(spec) = &mut node.kind {
                spec.outputs[0] = format!("out{at}").into();
                let from = at.checked_sub(1).filter(|need| matrix[at * 8 + need].0);
                let from = from.map(|need| TaskId::new(&format!("p{}.{need}", need % 3)).unwrap());
                let from = from.map(|from| ("from".into(), EnvValue::From { from, field: Some("a.b".into()) }));
                spec.env = std::mem::take(&mut spec.env).into_iter().chain(from).collect();
                **spec = spec.clone().sealed();
            }
        }
        let edges: Vec<Edge> = (0..nodes.len() as u32)
            .flat_map(|to| (0..to).map(move |from| (from, to)))
            .map(|(from, to)| (from, to, matrix[(to * 8 + from) as usize]))
            .filter(|(_, _, (needed, _))| *needed)
            .map(|(from, to, (_, run))| {
                let when_skipped = if run { WhenSkipped::Run } else { WhenSkipped::Skip };
                Edge { from, to, need: Need { when_skipped } }
            })
            .collect();
        let pools = POOLS.map(|(name, capacity)| Pool { name: name.into(), capacity }).into();
        Graph::assemble(nodes.into_iter(), &edges, Parts { pools, files: Vec::new(), digest: Digest([0; 32]) }).unwrap()
    })
}

fn node_json(graph: &Graph, task: NodeIndex) -> Json {
    let node = &graph[task];
    let mut json = Map::new();
    let mut set = |name: &str, value: Option<Json>| drop(value.map(|value| json.insert(name.into(), value)));
    let millis = |duration: Duration| json!(format!("{}ms", duration.as_millis()));
    let id = |need: NodeIndex| graph[need].id.to_string();
    set("title", node.title.as_ref().map(|title| json!(title)));
    set("needs", Some(graph.needs(task).map(|(need, _)| id(need)).collect()));
    let running = graph.needs(task).filter(|(_, how)| how.when_skipped == WhenSkipped::Run);
    set("when_skipped", Some(Json::Object(running.map(|(need, _)| (id(need), json!("run"))).collect())));
    let claims = node.pools.iter().map(|claim| (POOLS[usize::from(claim.pool)].0.to_owned(), json!(claim.amount)));
    set("pool", Some(Json::Object(claims.collect())));
    set("timeout", node.timeout.map(millis));
    set("retries", node.retries.as_ref().map(|it| {
        json!({"count": it.count, "backoff": millis(it.backoff), "max_delay": millis(it.max_delay), "jitter": it.jitter})
    }));
    match &node.kind {
        NodeKind::Plugin { uses, with } => {
            set("uses", Some(json!(uses)));
            set("with", (!with.is_null()).then(|| with.clone()));
        }
        NodeKind::Command(spec) => {
            let env = spec.env.iter().map(|(name, value)| {
                let value = match value {
                    EnvValue::Literal(text) => json!(text),
                    EnvValue::From { from, field } => json!({"from": from, "field": field}),
                    EnvValue::Secret { secret } => json!({"secret": secret}),
                };
                (name.to_string(), value)
            });
            set("env", Some(Json::Object(env.collect())));
            set("run", Some(spec.run.to_json()));
            set("dir", spec.dir.as_ref().map(|dir| json!(dir)));
            set("inputs", Some(json!(spec.inputs)));
            set("outputs", Some(json!(spec.outputs)));
            set("probe", spec.probe.as_ref().map(Run::to_json));
            set("destroy", spec.destroy.as_ref().map(Run::to_json));
            set("transient_exit_codes", Some(json!(spec.transient_exit_codes)));
        }
    }
    Json::Object(json)
}

fn to_yaml(graph: &Graph) -> String {
    // A mapping in the order of the graph, which JSON's objects do not keep.
    let entry = |task| (serde_yaml::Value::from(graph[task].id.as_str()), serde_yaml::to_value(node_json(graph, task)));
    let tasks: serde_yaml::Mapping = graph.indices().map(entry).map(|(id, node)| (id, node.unwrap())).collect();
    let pools: Map<_, _> = graph.pools().iter().map(|pool| (pool.name.to_string(), json!(pool.capacity))).collect();
    let part = |name: &str, value: serde_yaml::Value| {
        serde_yaml::to_string(&serde_yaml::Mapping::from_iter([(name.into(), value)])).unwrap()
    };
    let pools = serde_yaml::to_value(pools).unwrap();
    [part("version", 1.into()), part("pools", pools), part("tasks", tasks.into())].concat()
}

proptest! {
    #[test]
    fn yaml_of_a_graph_reads_as_that_graph(graph in graphs()) {
        let yaml = to_yaml(&graph);
        let read = Graph::from_yaml("graph.yaml", &yaml);
        let read = read.map_err(|errors| TestCaseError::fail(format!("{:?}\n{yaml}", errors.problems())))?;
        prop_assert!(read == graph, "{}\n{:#?}\n{:#?}", yaml, read, graph);
    }

    #[test]
    fn a_kept_graph_is_that_graph(graph in graphs()) {
        let folder = tempfile::tempdir().unwrap();
        let (main, cache) = (folder.path().join("graph.yaml"), folder.path().join("cache"));
        std::fs::write(&main, to_yaml(&graph)).unwrap();
        let (parsed, _) = load_cached(&main, &cache).unwrap();
        let (kept, _) = load_cached(&main, &cache).unwrap();
        prop_assert!(parsed == graph);
        prop_assert!(kept == graph);
        prop_assert!(parsed.indices().all(|task| parsed[task].place == kept[task].place));
    }

    #[test]
    fn junk_is_no_reason_to_panic(text in "(version|tasks|needs|run|[a:\\-\\[\\]{}&*<!|>'\"%#~0, \n\t]){0,40}") {
        let _ = Graph::from_yaml("graph.yaml", &text);
        let _ = Graph::from_yaml("graph.yaml", &format!("version: 1\ntasks:\n  a: {text}"));
    }
}
