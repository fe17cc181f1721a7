//! Templates in a service's spec, like `{{.Node.Hostname}}`: checked when the spec is stored, and
//! written out for each task when its node gets it (swarmkit: `template`). The tag of a log
//! has fields of its own (moby: `daemon/logger/loggerutils/log_tag.go`).
//!
//! Known are the fields of Docker's documentation and `index .Service.Labels "NAME"`. The rest of
//! Go's language (pipes, `if`, functions) is refused by name, and not half understood.

use crate::log_driver::sink::TAG;
use crate::object::{Node, Slot, Task};
use crate::rejection::Rejection;
use crate::spec::{ContainerSpec, Driver, Labels, ServiceSpec};

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
const LABELS: &str = ".Service.Labels";
const REMEDY: &str = "use .Service.ID, .Service.Name, index .Service.Labels \"NAME\", .Node.ID, \
    .Node.Hostname, .Node.Platform.OS, .Node.Platform.Architecture, .Task.ID, .Task.Name or \
    .Task.Slot";

const TAG_REMEDY: &str = "use .ID, .FullID, .Name, .ImageName or .DaemonName";
/// What Docker's engine calls itself in tags is `docker`.
const DAEMON_NAME: &str = "skein";
/// Docker's short form of an id.
const SHORT_ID_CHARS: usize = 12;
const TAG_BYTES_MAX: usize = 1_024;

/// The longest id, and the longest host name (`HOST_NAME_MAX` in limits.h).
const ID_CHARS_MAX: usize = 25;
const HOST_NAME_CHARS_MAX: usize = 64;

/// What a task's templates are about.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    service_id: String,
    service_name: &'a str,
    labels: &'a Labels,
    node_id: String,
    hostname: &'a str,
    os: &'a str,
    architecture: &'a str,
    task_id: String,
    task_name: String,
    slot: String,
    image: &'a str,
}

impl<'a> Context<'a> {
    /// Of a task on its node.
    pub(crate) fn of(task: &'a Task, node: &'a Node) -> Self {
        Self {
            service_id: task.service.to_string(),
            service_name: &task.service_name,
            labels: &task.service_labels,
            node_id: node.id.to_string(),
            hostname: &node.description.hostname,
            os: &node.description.os,
            architecture: &node.description.architecture,
            task_id: task.id.to_string(),
            task_name: task.name(),
            slot: match task.slot {
                Slot::Replica(number) => number.to_string(),
                Slot::Node(node) => node.to_string(),
            },
            image: &task.spec.container_spec.image,
        }
    }
}

/// What is written out in place of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    ServiceId,
    ServiceName,
    Label(String),
    NodeId,
    Hostname,
    Os,
    Architecture,
    TaskId,
    TaskName,
    Slot,
    ShortId,
    Image,
}

impl Value {
    fn of(field: &str) -> Option<Self> {
        Some(match field {
            ".Service.ID" => Self::ServiceId,
            ".Service.Name" => Self::ServiceName,
            ".Node.ID" => Self::NodeId,
            ".Node.Hostname" => Self::Hostname,
            ".Node.Platform.OS" => Self::Os,
            ".Node.Platform.Architecture" => Self::Architecture,
            ".Task.ID" => Self::TaskId,
            ".Task.Name" => Self::TaskName,
            ".Task.Slot" => Self::Slot,
            _ => {
                let label = field.strip_prefix(LABELS)?.strip_prefix('.')?;
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let named = !label.is_empty() && label.chars().all(plain);
                return named.then(|| Self::Label(label.to_owned()));
            }
        })
    }

    /// A label that is not there is empty.
    fn text<'a>(&self, context: &'a Context<'_>) -> &'a str {
        match self {
            Self::ServiceId => &context.service_id,
            Self::ServiceName => context.service_name,
            Self::Label(name) => context.labels.get(name).map_or("", String::as_str),
            Self::NodeId => &context.node_id,
            Self::Hostname => context.hostname,
            Self::Os => context.os,
            Self::Architecture => context.architecture,
            Self::TaskId => &context.task_id,
            Self::TaskName => &context.task_name,
            Self::Slot => &context.slot,
            Self::ShortId => context.task_id.get(..SHORT_ID_CHARS).unwrap_or(&context.task_id),
            Self::Image => context.image,
        }
    }
}

/// The fields that may stand in a text.
#[derive(Clone, Copy)]
enum Fields {
    OfSpec,
    OfTag,
}

impl Fields {
    fn part(self, field: &str) -> Option<Part> {
        match (self, field) {
            (Self::OfSpec, field) => Value::of(field).map(Part::Value),
            (Self::OfTag, ".ID") => Some(Part::Value(Value::ShortId)),
            (Self::OfTag, ".FullID") => Some(Part::Value(Value::TaskId)),
            (Self::OfTag, ".Name") => Some(Part::Value(Value::TaskName)),
            (Self::OfTag, ".ImageName") => Some(Part::Value(Value::Image)),
            (Self::OfTag, ".DaemonName") => Some(Part::Text(DAEMON_NAME.to_owned())),
            (Self::OfTag, _) => None,
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::OfSpec => REMEDY,
            Self::OfTag => TAG_REMEDY,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
}

/// A text with templates in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

impl Template {
    /// Reads a text; the error is one line for the user.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::of(text, Fields::OfSpec)
    }

    fn of(text: &str, fields: Fields) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            // `{{- ` and ` -}}` take the white space around them along (Go, text/template).
            let trimmed = after.strip_prefix('-').filter(|after| after.starts_with(is_space));
            let before = if trimmed.is_some() { before.trim_end_matches(is_space) } else { before };
            parts.push(Part::Text(before.to_owned()));
            let mut action = Action::read(trimmed.unwrap_or(after))?;
            parts.push(action.part(fields)?);
            rest = action.rest;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    fn expand(&self, context: &Context<'_>) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(value) => value.text(context).to_owned(),
        };
        self.0.iter().map(text).collect()
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Plain(String),
    Quoted(String),
}

/// What stands between `{{` and `}}`, and what follows.
struct Action<'a> {
    words: Vec<Word>,
    rest: &'a str,
}

impl<'a> Action<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let mut words = Vec::new();
        let mut rest = text.trim_start_matches(is_space);
        loop {
            if let Some(rest) = rest.strip_prefix(CLOSE) {
                return Ok(Self { words, rest });
            }
            if let Some(after) = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(CLOSE)) {
                return Ok(Self { words, rest: after.trim_start_matches(is_space) });
            }
            let (word, after) = match rest.chars().next() {
                None => return Err("{{ has no }} after it: close it".to_owned()),
                Some('"') => quoted(&rest[1..])?,
                Some('`') => {
                    let raw = rest[1..].split_once('`').ok_or(NO_END)?;
                    (Word::Quoted(raw.0.to_owned()), raw.1)
                }
                Some(_) => plain(rest),
            };
            words.push(word);
            rest = after.trim_start_matches(is_space);
        }
    }

    fn part(&mut self, fields: Fields) -> Result<Part, String> {
        let remedy = fields.remedy();
        match self.words.as_mut_slice() {
            [] => Err("{{}} holds nothing: leave it out".to_owned()),
            [Word::Quoted(text)] => Ok(Part::Text(std::mem::take(text))),
            [Word::Plain(field)] if field.starts_with('.') => {
                fields.part(field).ok_or_else(|| format!("{field} is unknown: {remedy}"))
            }
            [Word::Plain(index), Word::Plain(labels), Word::Quoted(name)]
                if index == "index" && labels == LABELS && matches!(fields, Fields::OfSpec) =>
            {
                Ok(Part::Value(Value::Label(std::mem::take(name))))
            }
            [Word::Plain(word) | Word::Quoted(word), ..] => {
                Err(format!("{word:?} cannot stand here: {remedy}"))
            }
        }
    }
}

const NO_END: &str = "a quotation has no end: close it";

/// A word up to white space, a quotation or the end.
fn plain(text: &str) -> (Word, &str) {
    let stop = |c: char| is_space(c) || c == '"' || c == '`';
    let end = [text.find(stop), text.find(CLOSE)].into_iter().flatten().min();
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (Word::Plain(word.to_owned()), rest)
}

/// What a `"` begins.
fn quoted(text: &str) -> Result<(Word, &str), String> {
    let mut word = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next() {
            None | Some('\n') => return Err(NO_END.to_owned()),
            Some('"') => return Ok((Word::Quoted(word), chars.as_str())),
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\')) => word.push(c),
                Some('n') => word.push('\n'),
                Some('t') => word.push('\t'),
                _ => return Err("a quotation has another escape than \\\" \\\\ \\n \\t".to_owned()),
            },
            Some(c) => word.push(c),
        }
    }
}

/// The texts that may have templates, each with the place where it stands. Of a variable, that is
/// its value.
fn visit(
    container: &mut ContainerSpec,
    mut look: impl FnMut(&str, &mut String) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    for variable in &mut container.env {
        if let Some((name, value)) = variable.split_once('=') {
            let mut expanded = value.to_owned();
            look("TaskTemplate.ContainerSpec.Env[]", &mut expanded)?;
            if expanded != value {
                *variable = format!("{name}={expanded}");
            }
        }
    }
    look("TaskTemplate.ContainerSpec.Hostname", &mut container.hostname)?;
    for mount in &mut container.mounts {
        look("TaskTemplate.ContainerSpec.Mounts[].Source", &mut mount.source)?;
        look("TaskTemplate.ContainerSpec.Mounts[].Target", &mut mount.target)?;
    }
    Ok(())
}

/// Refuses a template that cannot be written out. Gives the spec with all templates as long as they
/// can become.
pub(crate) fn check(spec: &ServiceSpec) -> Result<ServiceSpec, Rejection> {
    let longest = |chars: usize| "x".repeat(chars);
    let (id, hostname) = (longest(ID_CHARS_MAX), longest(HOST_NAME_CHARS_MAX));
    let context = Context {
        service_id: id.clone(),
        service_name: &spec.name,
        labels: &spec.labels,
        node_id: id.clone(),
        hostname: &hostname,
        os: &hostname,
        architecture: &hostname,
        task_id: id.clone(),
        task_name: format!("{}.{id}.{id}", spec.name),
        slot: id,
        image: &spec.task_template.container_spec.image,
    };
    let mut whole = spec.clone();
    visit(&mut whole.task_template.container_spec, |place, text| {
        let refused = |reason| Rejection::invalid(format!("{place} {text:?}: {reason}"));
        *text = Template::parse(text).map_err(refused)?.expand(&context);
        Ok(())
    })?;
    Ok(whole)
}

/// Writes a task's templates out. Specs are checked when they are stored.
pub(crate) fn expand(container: &mut ContainerSpec, context: &Context<'_>) {
    let _infallible = visit(container, |_, text| {
        if let Ok(template) = Template::parse(text) {
            *text = template.expand(context);
        }
        Ok(())
    });
}

/// Refuses a tag that cannot be written out, or that would end its line.
pub(crate) fn check_tag(tag: &str) -> Result<(), String> {
    if tag.len() > TAG_BYTES_MAX || tag.contains(char::is_control) {
        return Err(format!("give {TAG_BYTES_MAX} bytes at most, without control characters"));
    }
    Template::of(tag, Fields::OfTag).map(drop)
}

/// Writes the tag of a task's log out, Docker's where none is given.
pub(crate) fn expand_tag(driver: &mut Driver, context: &Context<'_>) {
    if let "syslog" | "journald" = driver.name.as_str() {
        let tag = driver.options.entry("tag".to_owned()).or_insert_with(|| TAG.to_owned());
        if let Ok(template) = Template::of(tag, Fields::OfTag) {
            *tag = template.expand(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::id::NodeId;
    use crate::spec::{Mount, MountKind, TaskSpec};

    fn placed() -> (Task, Node) {
        let mut task = fixture::task(6, 5, Vec::new());
        task.slot = Slot::Replica(3);
        task.service_labels.insert("tier".to_owned(), "front".to_owned());
        task.service_labels.insert("a.b/c".to_owned(), "x y".to_owned());
        (task, fixture::node(2, "alpha", None))
    }

    #[test]
    fn a_template_is_written_out() {
        let (task, node) = placed();
        let context = Context::of(&task, &node);
        for (text, expected) in [
            ("", ""),
            ("plain } }} {", "plain } }} {"),
            ("{{.Service.ID}}", "0000000000000000000000005"),
            ("{{.Service.Name}}-{{.Task.Slot}}", "web-3"),
            ("{{ .Node.ID }}", "0000000000000000000000002"),
            ("<{{.Node.Hostname}}>", "<alpha>"),
            ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/x86_64"),
            ("{{.Task.ID}}", "0000000000000000000000006"),
            ("{{.Task.Name}}", "web.3.0000000000000000000000006"),
            ("{{.Service.Labels.tier}}", "front"),
            ("{{index .Service.Labels \"a.b/c\"}}", "x y"),
            ("{{index .Service.Labels `a.b/c`}}", "x y"),
            ("{{index .Service.Labels \"none\"}}", ""),
            ("{{\"{{\"}}.Node.ID}}", "{{.Node.ID}}"),
            ("{{\"a}}\\\"b\\\\\"}}", "a}}\"b\\"),
            ("a {{- .Task.Slot -}} b", "a3b"),
            ("a {{.Task.Slot -}} \n b", "a 3b"),
        ] {
            let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(template.expand(&context), expected, "{text}");
        }
    }

    #[test]
    fn the_slot_of_a_global_task_is_its_node() {
        let (mut task, node) = placed();
        task.slot = Slot::Node(NodeId(2));
        let slot = Template::parse("{{.Task.Slot}}").unwrap().expand(&Context::of(&task, &node));
        assert_eq!(slot, NodeId(2).to_string());
    }

    #[test]
    fn the_tag_of_a_log_has_docker_s_fields() {
        let (mut task, node) = placed();
        let mut spec = TaskSpec::default();
        spec.container_spec.image = "host:latest".to_owned();
        task.spec = spec.into();
        for (tag, expected) in [
            (None, "000000000000"),
            (Some("{{.FullID}}"), "0000000000000000000000006"),
            (Some("{{.DaemonName}}/{{.Name}}"), "skein/web.3.0000000000000000000000006"),
            (Some("{{.ImageName}}"), "host:latest"),
        ] {
            let mut driver = Driver { name: "syslog".to_owned(), ..Driver::default() };
            driver.options.extend(tag.map(|tag| ("tag".to_owned(), tag.to_owned())));
            expand_tag(&mut driver, &Context::of(&task, &node));
            assert_eq!(driver.options["tag"], expected);
        }
        let error = check_tag("{{.Service.Name}}").unwrap_err();
        assert!(error.starts_with(".Service.Name is unknown: use .ID"), "{error}");
    }

    #[test]
    fn what_is_no_template_is_named() {
        for (text, fault) in [
            ("{{.Node.Hostname", "{{ has no }} after it"),
            ("{{", "{{ has no }} after it"),
            ("{{}}", "{{}} holds nothing"),
            ("{{ }}", "{{}} holds nothing"),
            ("{{.Node.Hostnam}}", ".Node.Hostnam is unknown"),
            ("{{.Service}}", ".Service is unknown"),
            ("{{.Service.Labels}}", ".Service.Labels is unknown"),
            ("{{.Service.Labels.a-b}}", ".Service.Labels.a-b is unknown"),
            ("{{if .Node.ID}}x{{end}}", "\"if\" cannot stand here"),
            ("{{.Node.ID | print}}", "\".Node.ID\" cannot stand here"),
            ("{{.Node.ID}} {{env \"A\"}}", "\"env\" cannot stand here"),
            ("{{index .Service.Labels}}", "\"index\" cannot stand here"),
            ("{{-.Node.ID}}", "\"-.Node.ID\" cannot stand here"),
            ("{{\"a}}", "a quotation has no end"),
            ("{{`a}}", "a quotation has no end"),
            ("{{\"\\x41\"}}", "a quotation has another escape"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.starts_with(fault), "{text}: {error}");
        }
    }

    #[test]
    fn templates_stand_in_values_host_names_and_mounts() {
        let (task, node) = placed();
        let mut container = ContainerSpec {
            env: vec!["A=b".to_owned(), "{{x=1".to_owned(), "N={{.Task.Slot}}=".to_owned()],
            hostname: "{{.Service.Name}}-{{.Task.Slot}}".to_owned(),
            args: vec!["{{.Task.Slot}}".to_owned()],
            mounts: vec![Mount {
                kind: MountKind::Volume,
                source: "data-{{.Task.Slot}}".to_owned(),
                target: "/{{.Node.Hostname}}".to_owned(),
                ..Mount::default()
            }],
            ..ContainerSpec::default()
        };
        expand(&mut container, &Context::of(&task, &node));
        assert_eq!(container.env, ["A=b", "{{x=1", "N=3="]);
        assert_eq!(container.hostname, "web-3");
        assert_eq!(container.args, ["{{.Task.Slot}}"], "as Docker does it");
        let mount = &container.mounts[0];
        assert_eq!((mount.source.as_str(), mount.target.as_str()), ("data-3", "/alpha"));
    }
}
