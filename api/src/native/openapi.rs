//! OpenAPI description of `/skein/v1/`. The Docker part is described by Docker.

use serde_json::{Map, Value, json};

struct Resource {
    path: &'static str,
    summary: &'static str,
    /// Name and meaning of each query parameter.
    parameters: &'static [(&'static str, &'static str)],
    /// Media type of the answer.
    answers: &'static str,
}

const NODE: (&str, &str) = ("node", "id or name; the node that is asked unless given");
const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const BYTES: &str = "application/octet-stream";

const RESOURCES: &[Resource] = &[
    Resource {
        path: "/skein/v1/explain",
        summary: "Why does A reach B, or not: DNS answer, VIP, backend, FDB, VTEP, each checked in \
                  the kernel",
        parameters: &[
            ("from", "task (id or name) that asks"),
            ("to", "name that is asked for"),
            ("port", "port that is called"),
        ],
        answers: JSON,
    },
    Resource {
        path: "/skein/v1/plan",
        summary: "The kernel operations that would run now on a node",
        parameters: &[NODE],
        answers: JSON,
    },
    Resource {
        path: "/skein/v1/topology",
        summary: "Nodes, networks and the endpoints on them",
        parameters: &[],
        answers: JSON,
    },
    Resource {
        path: "/skein/v1/gossip",
        summary: "Members, rows and versions, as a node has them",
        parameters: &[NODE],
        answers: JSON,
    },
    Resource {
        path: "/skein/v1/dataplane",
        summary: "What a node's kernel should hold in short, passes and operations so far",
        parameters: &[NODE],
        answers: JSON,
    },
    Resource {
        path: "/skein/v1/receipts",
        summary: "Which node has which revision in its kernel",
        parameters: &[],
        answers: JSON,
    },
    Resource {
        path: "/skein/v1/why",
        summary: "What a service waits for: its tasks that are not as they should be, each with \
                  its reasons, and when planners next have something to do for it",
        parameters: &[(
            "service",
            "id, name or prefix of the id of a service or of a task; id or name of a service or a \
             network that is being removed",
        )],
        answers: JSON,
    },
    Resource {
        path: "/skein/v1/backup",
        summary: "The cluster's state as a backup, with the CA's key and all tokens in it",
        parameters: &[],
        answers: BYTES,
    },
    Resource {
        path: "/skein/v1/debug/{topic}",
        summary: "A core printed as a table: state, assignment or desired",
        parameters: &[],
        answers: TEXT,
    },
];

pub(super) fn document() -> Value {
    let mut paths: Map<String, Value> =
        RESOURCES.iter().map(|resource| (resource.path.to_owned(), path_item(resource))).collect();
    paths.insert("/skein/v1/restore".to_owned(), restore());
    paths.insert("/skein/v1/tasks/{id}/exec".to_owned(), exec());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Skein",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Skein's own resources. Everything else is the Docker Engine API v1.44.",
        },
        "paths": paths,
        "components": { "schemas": { "Error": {
            "type": "object",
            "required": ["message"],
            "properties": { "message": { "type": "string" } },
        }}},
    })
}

/// The one that takes the connection over.
fn exec() -> Value {
    let of = |kind: &str, meaning: &str| json!({ "type": kind, "description": meaning });
    let words = json!({ "type": "string" });
    let list = |meaning: &str| json!({ "type": "array", "items": words, "description": meaning });
    let frames = "frames follow: a byte for the kind, four for the length (big-endian), the \
                  payload. To the program: 1 input, 2 end of input, 3 size of the terminal (rows, \
                  columns: two bytes each), 4 signal. From it: 5 output, 6 standard error, 7 its \
                  end (JSON: code, signal, error), 8 so many bytes of input were taken (four \
                  bytes): at most 131,072 may be on their way";
    json!({ "post": {
        "summary": "Runs a program in a task: of this node, or on a manager of any. The connection \
                    is upgraded to skein-exec, and carries frames in both directions",
        "parameters": [{
            "name": "id",
            "in": "path",
            "required": true,
            "description": "id, name or prefix of the id of a task",
            "schema": { "type": "string" },
        }],
        "requestBody": { "required": true, "content": { JSON: { "schema": {
            "type": "object",
            "required": ["Cmd"],
            "properties": {
                "Cmd": list("program and arguments"),
                "Env": list("KEY=VALUE, in addition to the task's"),
                "User": of("string", "the task's unless given"),
                "WorkingDir": of("string", "the task's unless given"),
                "Tty": of("boolean", "give the program a terminal"),
                "ConsoleSize": json!({
                    "type": "array", "items": { "type": "integer" }, "description": "height, width",
                }),
                "AttachStdin": of("boolean", "it has an input"),
                "AttachStdout": of("boolean", "its output is sent"),
                "AttachStderr": of("boolean", "its standard error is sent"),
            },
        }}}},
        "responses": {
            "101": { "description": frames },
            "default": error(),
        },
    }})
}

/// The one that changes something.
fn restore() -> Value {
    let field = |meaning: &str| json!({ "type": "string", "description": meaning });
    json!({ "post": {
        "summary": "Makes this node, which is in no cluster, the only manager of the one that a \
                    backup holds",
        "requestBody": { "required": true, "content": { JSON: { "schema": {
            "type": "object",
            "required": ["Path"],
            "properties": {
                "Path": field("file that the daemon can read, from / on"),
                "AdvertiseAddr": field("IP or interface that peers reach this node at"),
                "ListenAddr": field("where to listen"),
                "DataPathAddr": field("IP or interface for VXLAN"),
            },
        }}}},
        "responses": {
            "200": { "description": "the node's id", "content": { JSON: {} } },
            "default": error(),
        },
    }})
}

fn error() -> Value {
    json!({
        "description": "refused or failed; the message says why",
        "content": { JSON: { "schema": { "$ref": "#/components/schemas/Error" } } },
    })
}

fn path_item(resource: &Resource) -> Value {
    let parameter = |name: &str, place: &str, meaning: &str| {
        json!({
            "name": name,
            "in": place,
            "required": place == "path",
            "description": meaning,
            "schema": { "type": "string" },
        })
    };
    let mut parameters: Vec<Value> = resource
        .parameters
        .iter()
        .map(|(name, meaning)| parameter(name, "query", meaning))
        .collect();
    if resource.path.contains("{topic}") {
        parameters.push(parameter("topic", "path", "which core"));
    }
    json!({ "get": {
        "summary": resource.summary,
        "parameters": parameters,
        "responses": {
            "200": { "description": "the answer", "content": { resource.answers: {} } },
            "default": error(),
        },
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_described() {
        let document = document();
        for resource in RESOURCES {
            let get = &document["paths"][resource.path]["get"];
            assert_eq!(get["summary"], resource.summary);
            assert!(get["responses"]["200"]["content"][resource.answers].is_object());
        }
    }
}
