//! Flags of a service, as Docker's spec: `flags.rs` is the table of them, `forms.rs` says what
//! their words mean.

mod flags;
mod forms;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Map, Value, json};

use flags::{Flag, Form, flags};
pub(in crate::cli) use forms::nanoseconds;

/// Flags of `service create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Do not wait until the tasks run
    #[arg(short, long)]
    pub detach: bool,
    /// Name of the service
    #[arg(long, default_value = "")]
    name: String,
    /// Number of tasks
    #[arg(long)]
    replicas: Option<u64>,
    /// replicated or global
    #[arg(long, default_value = "replicated")]
    mode: String,
    /// File of lines NAME=VALUE
    #[arg(long)]
    env_file: Vec<PathBuf>,
    /// No small reaper as pid 1
    #[arg(long, conflicts_with = "init")]
    no_init: bool,
    /// No health check, whatever the image says
    #[arg(long, conflicts_with = "health-cmd")]
    no_healthcheck: bool,
    #[command(flatten)]
    given: OnCreate,
    /// host or dir:/path
    image: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl CreateArgs {
    /// Docker's spec.
    pub fn to_spec(&self) -> anyhow::Result<Value> {
        let mode = match self.mode.as_str() {
            "replicated" => json!({ "Replicated": { "Replicas": self.replicas.unwrap_or(1) } }),
            "global" if self.replicas.is_some() => {
                bail!("--replicas can only be used with replicated mode")
            }
            "global" => json!({ "Global": {} }),
            other => bail!("--mode {other:?}: give replicated or global"),
        };
        let mut env = Vec::new();
        for path in &self.env_file {
            env.extend(read_env(path)?);
        }
        let mut container = json!({
            "Image": self.image,
            "Args": self.command,
            "Env": env,
            "Init": !self.no_init,
        });
        if self.no_healthcheck {
            container["Healthcheck"] = json!({ "Test": ["NONE"] });
        }
        let mut spec = json!({
            "Name": self.name,
            "TaskTemplate": { "ContainerSpec": container },
            "Mode": mode,
            "EndpointSpec": { "Mode": "vip" },
        });
        self.given.0.apply(&mut spec, &BTreeMap::new())?;
        Ok(spec)
    }
}

/// The lines of a file of variables; `#` begins a comment.
fn read_env(path: &std::path::Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("--env-file {path:?}"))?;
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| (forms::ENV.parse)(line)).collect()
}

/// Flags of `service update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Do not wait until the tasks run
    #[arg(short, long)]
    pub detach: bool,
    /// Replace every task although nothing else changes
    #[arg(long)]
    force: bool,
    /// Number of tasks
    #[arg(long)]
    replicas: Option<u64>,
    /// host or dir:/path
    #[arg(long)]
    image: Option<String>,
    /// Arguments, split as a shell does
    #[arg(long, allow_hyphen_values = true)]
    args: Option<String>,
    /// No health check, whatever the image says
    #[arg(long, conflicts_with = "health-cmd")]
    no_healthcheck: bool,
    #[command(flatten)]
    given: OnUpdate,
    /// Id or name
    pub service: String,
}

impl UpdateArgs {
    /// The networks that flags name. A spec that was stored holds their ids.
    pub fn networks(&self) -> anyhow::Result<Vec<String>> {
        self.given.0.networks()
    }

    /// The spec with the flags' changes, where networks are known by these ids.
    pub fn apply(&self, mut spec: Value, ids: &BTreeMap<String, String>) -> anyhow::Result<Value> {
        if let Some(replicas) = self.replicas {
            if spec.pointer("/Mode/Replicated").is_none() {
                bail!("replicas can only be used with replicated mode");
            }
            spec["Mode"]["Replicated"]["Replicas"] = json!(replicas);
        }
        let template = &mut spec["TaskTemplate"];
        if self.force {
            let count = template["ForceUpdate"].as_u64().unwrap_or(0);
            template["ForceUpdate"] = json!(count + 1);
        }
        if let Some(image) = &self.image {
            template["ContainerSpec"]["Image"] = json!(image);
        }
        if let Some(args) = &self.args {
            template["ContainerSpec"]["Args"] = json!(forms::words(args)?);
        }
        if self.no_healthcheck {
            template["ContainerSpec"]["Healthcheck"] = json!({ "Test": ["NONE"] });
        }
        self.given.0.apply(&mut spec, ids)?;
        Ok(spec)
    }
}

/// What was given of the flags of the table.
#[derive(Debug, Clone, Default)]
struct Given {
    /// By the flag's place in the table: what to set or to add.
    set: BTreeMap<usize, Vec<String>>,
    /// What to remove.
    removed: BTreeMap<usize, Vec<String>>,
}

impl Given {
    /// In the order of the table: a capability that is both dropped and added is added.
    fn apply(&self, spec: &mut Value, ids: &BTreeMap<String, String>) -> anyhow::Result<()> {
        for (at, (field, flag)) in flags().enumerate() {
            let (set, removed) = (self.set.get(&at), self.removed.get(&at));
            if set.is_none() && removed.is_none() {
                continue;
            }
            let words = |words: Option<&Vec<String>>| words.cloned().unwrap_or_default();
            change((&field, flag.form), spec, (&words(set), &words(removed)), ids)
                .with_context(|| format!("--{}", flag.name))?;
        }
        Ok(())
    }

    fn networks(&self) -> anyhow::Result<Vec<String>> {
        let at = flags().position(|(_, flag)| flag.name == "network").context("--network")?;
        let added = self.set.get(&at).into_iter().flatten();
        let added = added.map(|text| Ok((forms::NETWORK.key)(&(forms::NETWORK.parse)(text)?)));
        let removed = self.removed.get(&at).into_iter().flatten().map(|text| Ok(text.clone()));
        added.chain(removed).collect()
    }

    /// What clap found under each flag's names: to set or add, and to remove.
    fn of(matches: &ArgMatches, names: impl Fn(&Flag) -> (String, Option<String>)) -> Self {
        let mut given = Self::default();
        let found = |name: &str| -> Option<Vec<String>> {
            let values = matches.try_get_many::<String>(name).ok().flatten()?;
            Some(values.cloned().collect())
        };
        for (at, (_, flag)) in flags().enumerate() {
            let (set, removed) = names(flag);
            given.set.extend(found(&set).map(|words| (at, words)));
            given.removed.extend(removed.and_then(|name| found(&name)).map(|words| (at, words)));
        }
        given
    }
}

/// The field at the flag's path; what is missing on the way is made.
fn place<'a>(spec: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(spec, |value, name| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        &mut value[name]
    })
}

fn change(
    (path, form): (&str, Form),
    spec: &mut Value,
    (set, removed): (&[String], &[String]),
    ids: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    if let Form::Capabilities(opposite) = form {
        let taken = |element: &Value| set.iter().any(|name| is_capability(element, name));
        for list_of in [path, opposite] {
            let field = place(spec, list_of);
            let mut list = field.as_array().cloned().unwrap_or_default();
            list.retain(|element| !taken(element));
            list.extend(set.iter().filter(|_| list_of == path).map(|name| json!(name)));
            *field = Value::Array(list);
        }
        return Ok(());
    }
    let field = place(spec, path);
    let number = |text: &str| text.parse::<u64>().with_context(|| format!("{text:?}: no number"));
    let one = set.last().map_or("", String::as_str);
    *field = match form {
        Form::Text => json!(one),
        Form::Integer => json!(number(one)?),
        Form::Ratio => {
            let ratio = one.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            json!(ratio.with_context(|| format!("{one:?}: give a number from 0 to 1"))?)
        }
        Form::Duration => json!(forms::nanoseconds(one)?),
        Form::Bytes => json!(forms::bytes(one)?),
        Form::Cpus => json!(forms::cpus(one)?),
        Form::Switch => json!(one == "true"),
        Form::Words => json!(forms::words(one)?),
        Form::Capabilities(_) => field.take(),
        Form::Check => json!(["CMD-SHELL", one]),
        Form::Map => {
            let mut map = field.as_object().cloned().unwrap_or_default();
            map.retain(|name, _| !removed.contains(name));
            let added = forms::map(set);
            map.extend(added.into_iter().map(|(name, value)| (name.to_owned(), json!(value))));
            Value::Object(map)
        }
        Form::List(entry) => {
            let id = |key: String| ids.get(&key).cloned().unwrap_or(key);
            let key = |element: &Value| id((entry.key)(element));
            let added = set.iter().map(|text| (entry.parse)(text));
            let added: Vec<Value> = added.collect::<Result<_, _>>()?;
            let mut gone = Vec::new();
            for text in removed {
                gone.push(id((entry.removed)(text)?));
            }
            gone.extend(added.iter().map(key));
            let mut list = field.as_array().cloned().unwrap_or_default();
            list.retain(|element| !gone.contains(&key(element)));
            list.extend(added.into_iter().filter(|element| *element != ""));
            Value::Array(list)
        }
    };
    Ok(())
}

/// By its name with or without the prefix, in any case.
fn is_capability(element: &Value, name: &str) -> bool {
    let bare = |name: &str| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    element.as_str().is_some_and(|element| bare(element) == bare(name))
}

/// The table's flags on `create`.
#[derive(Debug, Clone, Default)]
struct OnCreate(Given);

/// The table's flags on `update`: `…-add` and `…-rm` for what there can be several of.
#[derive(Debug, Clone, Default)]
struct OnUpdate(Given);

/// What sets a flag's field on `update`, or adds to it, and what removes from it.
fn on_update(flag: &Flag) -> (String, Option<String>) {
    match flag.form {
        Form::Map | Form::List(_) => {
            (format!("{}-add", flag.name), Some(format!("{}-rm", flag.name)))
        }
        _ => (flag.name.to_owned(), None),
    }
}

fn on_create(flag: &Flag) -> (String, Option<String>) {
    (flag.on_create.to_owned(), None)
}

fn argument(flag: &Flag, name: String) -> Arg {
    let arg = Arg::new(name.clone()).long(name).value_name("VALUE").help(flag.help);
    match flag.form {
        Form::Map | Form::List(_) | Form::Capabilities(_) => arg.action(ArgAction::Append),
        Form::Switch => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(["true", "false"]),
        _ => arg.action(ArgAction::Set),
    }
}

impl Args for OnCreate {
    fn augment_args(command: Command) -> Command {
        let args = flags().map(|(_, flag)| (flag, argument(flag, on_create(flag).0)));
        command.args(args.map(|(flag, arg)| match flag.short {
            Some(short) => arg.short(short),
            None => arg,
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OnCreate {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(Given::of(matches, on_create)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for OnUpdate {
    fn augment_args(command: Command) -> Command {
        command.args(flags().flat_map(|(_, flag)| {
            let (set, removed) = on_update(flag);
            [Some(set), removed].into_iter().flatten().map(move |name| argument(flag, name))
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OnUpdate {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(Given::of(matches, on_update)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
