//! Corrects a client's JSON at the edge: key case, `null`, empty words.
//!
//! Docker decodes with Go, where keys are case-insensitive, and `null` or an empty
//! enumeration word is the same as absent. Clients rely on it (docker-py sends
//! `"Mode":{"replicated":…}`). The shapes below say which objects have known fields and which are
//! the user's own maps (labels, options), whose keys are left alone.

use serde_json::{Map, Value};

pub(crate) use shapes::{
    CLUSTER_SPEC, INIT, JOIN, NETWORK_CREATE, NODE_SPEC, SERVICE_SPEC, UNLOCK,
};

mod shapes;

/// What is known about a place in a body.
#[derive(Debug)]
pub(crate) enum Shape {
    /// A scalar, a list of scalars, or a map of the user: left alone.
    Leaf,
    /// A word of an enumeration: empty means absent.
    Word,
    /// An object with known fields, in canonical case. Unknown fields are kept as they are.
    Object(&'static [(&'static str, Shape)]),
    /// The same, shared between places.
    Named(&'static Shape),
    /// A list of such.
    List(&'static Shape),
}

/// Corrects `value` in place.
pub(crate) fn correct(value: &mut Value, shape: &Shape) {
    match shape {
        Shape::Leaf | Shape::Word => {}
        Shape::Named(inner) => correct(value, inner),
        Shape::List(inner) => {
            if let Value::Array(items) = value {
                items.retain(|item| !item.is_null());
                items.iter_mut().for_each(|item| correct(item, inner));
            }
        }
        Shape::Object(fields) => {
            if let Value::Object(map) = value {
                correct_object(map, fields);
            }
        }
    }
}

fn correct_object(map: &mut Map<String, Value>, fields: &[(&'static str, Shape)]) {
    for (key, mut value) in std::mem::take(map) {
        let known = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key));
        if is_absent(&value, known.map(|(_, shape)| shape)) {
            continue;
        }
        match known {
            Some((name, shape)) => {
                correct(&mut value, shape);
                let exact = *name == key;
                if exact || !map.contains_key(*name) {
                    map.insert((*name).to_owned(), value);
                }
            }
            None => {
                map.insert(key, value);
            }
        }
    }
}

fn is_absent(value: &Value, shape: Option<&Shape>) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() && matches!(shape, Some(Shape::Word)),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    /// JSON whose keys are often, in some case, those of a service's spec.
    fn json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            "[Nn]ame|[Ll]abels|[Mm]ode|[Rr]eplicated|[Pp]orts|[Ee]ndpoint[Ss]pec|[Nn]etworks",
            "[Tt]ask[Tt]emplate|[Cc]ontainer[Ss]pec|TTY|tty|[Mm]ounts|[a-z]{1,3}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u32>().prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            let map = prop::collection::btree_map(key.clone(), inner.clone(), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::from),
                map.prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn correcting_twice_changes_nothing(mut value in json()) {
            correct(&mut value, &SERVICE_SPEC);
            let once = value.clone();
            correct(&mut value, &SERVICE_SPEC);
            prop_assert_eq!(value, once);
        }

        #[test]
        fn labels_are_never_changed(labels in json()) {
            let mut value = serde_json::json!({ "labels": labels.clone() });
            correct(&mut value, &SERVICE_SPEC);
            prop_assert_eq!(value.get("Labels").cloned().unwrap_or(Value::Null), labels);
        }
    }

    fn check(text: &str, shape: &Shape, expected: &Expect) {
        let mut value: Value = serde_json::from_str(text).unwrap();
        correct(&mut value, shape);
        expected.assert_eq(&serde_json::to_string_pretty(&value).unwrap());
        let once = value.clone();
        correct(&mut value, shape);
        assert_eq!(once, value, "correcting twice changes nothing");
    }

    #[test]
    fn key_case_is_corrected_in_known_objects() {
        check(
            r#"{"name":"web","Mode":{"replicated":{"replicas":3}},"TASKTEMPLATE":{"containerspec":
                {"image":"host","tty":true,"HealthCheck":{"test":["NONE"]}}}}"#,
            &SERVICE_SPEC,
            &expect![[r#"
                {
                  "Mode": {
                    "Replicated": {
                      "Replicas": 3
                    }
                  },
                  "Name": "web",
                  "TaskTemplate": {
                    "ContainerSpec": {
                      "Healthcheck": {
                        "Test": [
                          "NONE"
                        ]
                      },
                      "Image": "host",
                      "TTY": true
                    }
                  }
                }"#]],
        );
    }

    #[test]
    fn maps_of_the_user_are_left_alone() {
        check(
            r#"{"Labels":{"name":"x","NAME":"y"},
                "TaskTemplate":{"Networks":[{"target":"n","driveropts":{"Target":"t"}}]}}"#,
            &SERVICE_SPEC,
            &expect![[r#"
                {
                  "Labels": {
                    "NAME": "y",
                    "name": "x"
                  },
                  "TaskTemplate": {
                    "Networks": [
                      {
                        "DriverOpts": {
                          "Target": "t"
                        },
                        "Target": "n"
                      }
                    ]
                  }
                }"#]],
        );
    }

    #[test]
    fn null_and_empty_words_are_absent() {
        check(
            r#"{"Labels":null,"Mode":null,"EndpointSpec":{"Mode":"","Ports":[null,
                {"Protocol":"","TargetPort":80,"PublishMode":null}]},"Future":{"a":null}}"#,
            &SERVICE_SPEC,
            &expect![[r#"
                {
                  "EndpointSpec": {
                    "Ports": [
                      {
                        "TargetPort": 80
                      }
                    ]
                  },
                  "Future": {
                    "a": null
                  }
                }"#]],
        );
    }

    #[test]
    fn the_exact_key_wins_over_another_case() {
        for text in [r#"{"NAME":"a","Name":"b"}"#, r#"{"name":"a","Name":"b"}"#] {
            let mut value: Value = serde_json::from_str(text).unwrap();
            correct(&mut value, &SERVICE_SPEC);
            assert_eq!(value, serde_json::json!({ "Name": "b" }), "{text}");
        }
    }
}
