//! The JSON Schema of graph files, with which editors complete and explain them.

use serde_json::{Value, json};

/// The schema (draft 2020-12) of `graph.yaml` and of the files in `graph.d`.
///
/// It knows the form of a file. What a file means, such as whether an id is known, only [`load`](super::load()) checks.
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A graph of tasks for taskrun",
        "type": "object",
        "properties": {
            "version": {
                "description": "The version of this format. The main file must say it.",
                "const": 1
            },
            "pools": {
                "description": "Resources that tasks share, and how much of each the running tasks may hold together.",
                "type": "object",
                "additionalProperties": {"type": "integer", "minimum": 1},
                "examples": [{"disk": 2}]
            },
            "tasks": {
                "description": "The tasks by their ids: letters, digits, `.`, `_` and `-`. What stands before the \
                    last dot is the task's phase.",
                "type": "object",
                "propertyNames": {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"},
                "additionalProperties": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/task"}]}
            }
        },
        "patternProperties": {"^x-": {"description": "Ignored: a place for anchors."}},
        "additionalProperties": false,
        "$defs": {
            "task": task(),
            "text": {
                "description": "A text; numbers and truth values are taken as they are written.",
                "type": ["string", "number", "boolean"]
            },
            "texts": {
                "anyOf": [{"$ref": "#/$defs/text"}, {"type": "array", "items": {"$ref": "#/$defs/text"}}]
            },
            "duration": {
                "description": "Numbers with units, from the longest to the shortest: d, h, m, s, ms.",
                "type": "string",
                "pattern": "^(\\d+d)?(\\d+h)?(\\d+m)?(\\d+s)?(\\d+ms)?$",
                "examples": ["500ms", "10s", "5m", "1h30m"]
            },
            "run": {
                "description": "A script for `sh -c`, or a list of a program and its arguments.",
                "anyOf": [
                    {"$ref": "#/$defs/text"},
                    {"type": "array", "items": {"$ref": "#/$defs/text"}, "minItems": 1}
                ]
            },
            "when_skipped": {"enum": ["run", "skip"]},
            "env_value": env_value()
        }
    })
}

fn task() -> Value {
    json!({
        "description": "A plugin, called like the task or named by `uses`; with `run`, a command.",
        "type": "object",
        "properties": {
            "title": {"description": "One line for people.", "$ref": "#/$defs/text"},
            "needs": {"description": "The ids of the tasks that must be done before.", "$ref": "#/$defs/texts"},
            "when_skipped": {
                "description": "What becomes of this task when one that it needs is skipped: `skip` (it is skipped \
                    too) or `run` (it can do without), for all needs or by id.",
                "anyOf": [
                    {"$ref": "#/$defs/when_skipped"},
                    {"type": "object", "additionalProperties": {"$ref": "#/$defs/when_skipped"}}
                ]
            },
            "pool": {
                "description": "What it holds while it runs: the name of a pool, or names with amounts.",
                "anyOf": [
                    {"$ref": "#/$defs/text"},
                    {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}}
                ]
            },
            "retries": {
                "description": "How often it is tried again after a failure that may pass. For a command that is one \
                    with an exit code of `transient_exit_codes`, with 75 (EX_TEMPFAIL), or by `timeout`. A signal, a \
                    program that cannot be started, and a missing or unreadable output do not pass.",
                "anyOf": [{"type": "integer", "minimum": 0}, retries()]
            },
            "timeout": {"description": "How long one attempt may take.", "$ref": "#/$defs/duration"},
            "uses": {"description": "The plugin, if it is not called like the task.", "$ref": "#/$defs/text"},
            "with": {"description": "Parameters for the plugin.", "type": "object"},
            "run": {"$ref": "#/$defs/run"},
            "env": {
                "description": "Environment variables on top of the inherited ones.",
                "type": "object",
                "additionalProperties": {"$ref": "#/$defs/env_value"}
            },
            "dir": {
                "description": "The folder that the command runs in, from the folder of the main graph file.",
                "$ref": "#/$defs/text"
            },
            "inputs": {
                "description": "Paths and globs, from `dir`, of the files that it reads. It runs again when they change.",
                "$ref": "#/$defs/texts"
            },
            "outputs": {
                "description": "Paths and globs, from `dir`, of the files that it makes.",
                "$ref": "#/$defs/texts"
            },
            "probe": {
                "description": "Succeeds if what the task makes is there and right.",
                "$ref": "#/$defs/run"
            },
            "destroy": {"description": "Takes away what the task makes.", "$ref": "#/$defs/run"},
            "transient_exit_codes": {
                "description": "The exit codes after which trying again may help, besides 75. Without this field, and \
                    with `retries`, that is every code but 0.",
                "anyOf": [exit_code(), {"type": "array", "items": exit_code()}]
            }
        },
        "additionalProperties": false,
        "dependentRequired": {
            "env": ["run"], "dir": ["run"], "inputs": ["run"], "outputs": ["run"], "probe": ["run"],
            "destroy": ["run"], "transient_exit_codes": ["run"]
        },
        "dependentSchemas": {"run": {"properties": {"uses": false, "with": false}}}
    })
}

fn retries() -> Value {
    json!({
        "type": "object",
        "properties": {
            "count": {"description": "How often after the first attempt.", "type": "integer", "minimum": 0},
            "backoff": {
                "description": "How long to wait before the first retry; doubled for each further one.",
                "$ref": "#/$defs/duration"
            },
            "max_delay": {"description": "What no wait exceeds.", "$ref": "#/$defs/duration"},
            "jitter": {
                "description": "The part of a wait that is left to chance.",
                "type": "number",
                "minimum": 0,
                "maximum": 1
            }
        },
        "required": ["count"],
        "additionalProperties": false
    })
}

fn env_value() -> Value {
    json!({
        "anyOf": [
            {"$ref": "#/$defs/text"},
            {
                "description": "What a task that this one needs, directly or not, gave out.",
                "type": "object",
                "properties": {
                    "from": {"description": "The id of the task.", "$ref": "#/$defs/text"},
                    "field": {
                        "description": "The dotted path into its output; the whole output as JSON without it.",
                        "$ref": "#/$defs/text"
                    }
                },
                "required": ["from"],
                "additionalProperties": false
            },
            {
                "description": "A secret.",
                "type": "object",
                "properties": {"secret": {"description": "Its name.", "$ref": "#/$defs/text"}},
                "required": ["secret"],
                "additionalProperties": false
            }
        ]
    })
}

fn exit_code() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": 255})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Graph;
    use super::super::command::ENV_FIELDS;
    use super::super::decode::{FILE_FIELDS, RETRIES_FIELDS, TASK_FIELDS};
    use super::super::testing::snapshot;
    use super::*;

    /// Whether `value` fits `schema`, as far as the keywords go that are used here; patterns are left out.
    fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
        let Value::Object(keywords) = schema else { return schema != &Value::Bool(false) };
        keywords.iter().all(|(keyword, rule)| match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "examples" | "pattern" | "propertyNames" => true,
            "$ref" => fits(root, root.pointer(rule.as_str().unwrap().trim_start_matches('#')).unwrap(), value),
            "anyOf" => rule.as_array().unwrap().iter().any(|schema| fits(root, schema, value)),
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "type" => match rule {
                Value::Array(types) => types.iter().any(|name| is_of(value, name.as_str().unwrap())),
                name => is_of(value, name.as_str().unwrap()),
            },
            "minimum" => value.as_f64().is_none_or(|value| value >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|value| value <= rule.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap()),
            "items" => value.as_array().is_none_or(|list| list.iter().all(|item| fits(root, rule, item))),
            "required" => rule.as_array().unwrap().iter().all(|name| has(value, name.as_str().unwrap())),
            "dependentRequired" => rule.as_object().unwrap().iter().all(|(name, needed)| {
                !has(value, name) || needed.as_array().unwrap().iter().all(|name| has(value, name.as_str().unwrap()))
            }),
            "dependentSchemas" => {
                rule.as_object().unwrap().iter().all(|(name, schema)| !has(value, name) || fits(root, schema, value))
            }
            "properties" => rule
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, schema)| value.get(name).is_none_or(|value| fits(root, schema, value))),
            "patternProperties" => true,
            "additionalProperties" => value.as_object().is_none_or(|object| {
                let known = |name: &str| schema.get("properties").is_some_and(|known| has(known, name));
                let ignored = |name: &str| schema.get("patternProperties").is_some() && name.starts_with("x-");
                object.iter().all(|(name, value)| known(name) || ignored(name) || fits(root, rule, value))
            }),
            other => panic!("the keyword {other} is not understood"),
        })
    }

    fn has(value: &Value, name: &str) -> bool {
        value.get(name).is_some()
    }

    fn is_of(value: &Value, name: &str) -> bool {
        match name {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("there is no type {other}"),
        }
    }

    fn accepts(yaml: &str) -> bool {
        let schema = schema();
        fits(&schema, &schema, &serde_yaml::from_str(yaml).unwrap())
    }

    #[test]
    fn the_schema_and_the_parser_know_the_same_fields() {
        let schema = schema();
        let fields = |pointer: &str| -> BTreeSet<&str> {
            schema.pointer(pointer).unwrap().as_object().unwrap().keys().map(String::as_str).collect()
        };
        assert_eq!(fields("/properties"), FILE_FIELDS.iter().copied().collect());
        assert_eq!(fields("/$defs/task/properties"), TASK_FIELDS.iter().copied().collect());
        let retries = "/$defs/task/properties/retries/anyOf/1/properties";
        assert_eq!(fields(retries), RETRIES_FIELDS.iter().copied().collect());
        let mut env = fields("/$defs/env_value/anyOf/1/properties");
        env.extend(fields("/$defs/env_value/anyOf/2/properties"));
        assert_eq!(env, ENV_FIELDS.iter().copied().collect());
        for field in TASK_FIELDS {
            let yaml = format!("version: 1\ntasks: {{a: {{{field}: }}}}");
            let problems = Graph::from_yaml("graph.yaml", &yaml);
            let unknown = problems.is_err_and(|errors| {
                errors.problems().iter().any(|problem| problem.to_string().starts_with("a task has no field"))
            });
            assert!(!unknown, "{field}");
        }
    }

    #[test]
    fn what_the_parser_takes_the_schema_takes() {
        let yaml = "version: 1
pools: {disk: 2}
x-more: [anything]
tasks:
  CLOUD-2.1:
  CLOUD-3.1:
    title: Object store
    needs: [CLOUD-2.1]
    when_skipped: {CLOUD-2.1: run}
    pool: disk
    retries: 3
    timeout: 10m
    with: {a: [1, {b: c}]}
  CLOUD-3.3: {needs: CLOUD-3.1, when_skipped: skip, pool: {disk: 2}, uses: CLOUD-3.1}
  hello:
    run: echo hi
    needs: [CLOUD-3.3]
    env: {A: b, N: 1, URI: {from: CLOUD-3.3, field: tracking_url}, ALL: {from: CLOUD-3.1}, PW: {secret: name}}
    dir: sub
    inputs: [src/*.c]
    outputs: out.txt
    probe: test -f out.txt
    destroy: [rm, -f, out.txt]
    transient_exit_codes: [75]
    retries: {count: 3, backoff: 1s, max_delay: 1m, jitter: 0.2}
";
        Graph::from_yaml("graph.yaml", yaml).unwrap();
        assert!(accepts(yaml));
    }

    #[test]
    fn what_the_parser_refuses_for_its_form_the_schema_refuses() {
        for task in [
            "{colour: red}",
            "[run, it]",
            "{title: [one]}",
            "{needs: {b: c}}",
            "{retries: -1}",
            "{retries: {backoff: 1s}}",
            "{retries: {count: 1, jitter: 1.5}}",
            "{when_skipped: perhaps}",
            "{pool: {disk: 0}}",
            "{with: 7}",
            "{inputs: [x]}",
            "{run: x, uses: y}",
            "{run: []}",
            "{run: x, env: {A: {form: b}}}",
            "{run: x, env: {A: {from: b, secret: c}}}",
            "{run: x, transient_exit_codes: [256]}",
        ] {
            let yaml = format!("{{version: 1, tasks: {{a: {task}}}}}");
            assert!(Graph::from_yaml("graph.yaml", &yaml).is_err(), "{task}");
            assert!(!accepts(&yaml), "{task}");
        }
        for file in ["[]", "{version: 2, tasks: {a: {}}}", "{version: 1, task: {a: {}}}", "{version: 1, tasks: [a]}"] {
            assert!(Graph::from_yaml("graph.yaml", file).is_err() && !accepts(file), "{file}");
        }
    }

    #[test]
    fn the_schema_is_as_it_was() {
        snapshot("graph_schema", &format!("{:#}", schema()));
    }
}
