//! What `trait Executor` promises, tested on any implementation: `contract` takes a function that
//! makes one, as a daemon does that starts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use skein::executor::{Error, Executor, Launched, Phase, Sandbox, StartSpec, Supervisors};
use skein::logs::Query;

use super::execs;
use super::node::{LIMIT, Node, shell};

/// `SIGKILL`.
const KILL: i32 = 9;

#[tokio::test]
async fn the_process_executor_keeps_the_contract() {
    let node = Node::new();
    contract(&node.executor.supervisors, || Arc::new(node.executor.executor.clone())).await;
}

async fn contract(supervisors: &Supervisors, daemon: impl Fn() -> Arc<dyn Executor>) {
    let contract = Contract { supervisors, daemon: &daemon };
    contract.tasks_are_found_again().await;
    contract.a_task_runs_at_most_once().await;
    contract.an_end_is_never_lost().await;
    contract.what_runs_is_not_forgotten().await;
    execs::contract(&contract).await;
}

pub(crate) struct Contract<'a> {
    pub(crate) supervisors: &'a Supervisors,
    /// A daemon that has just started: it knows nothing but what it finds.
    pub(crate) daemon: &'a dyn Fn() -> Arc<dyn Executor>,
}

impl Contract<'_> {
    pub(crate) async fn launch(&self, task: &str, line: &str) -> Launched {
        let sandbox = self.supervisors.make(task).await.unwrap();
        (self.daemon)().launch(shell(task, line), &sandbox).await.unwrap()
    }

    pub(crate) async fn start(&self, task: &str, line: &str) -> Launched {
        let launched = self.launch(task, line).await;
        (self.daemon)().start(&launched.sandbox, StartSpec::default()).await.unwrap();
        launched
    }

    /// What a daemon that has just started finds in a sandbox.
    async fn found(&self, task: &str) -> Launched {
        let sandbox = self.supervisors.adopt(task).await.unwrap().unwrap();
        (self.daemon)().adopt(&sandbox).await.unwrap().unwrap()
    }

    pub(crate) async fn release(&self, sandbox: &Sandbox) {
        (self.daemon)().forget(sandbox).await.unwrap();
        sandbox.release().await.unwrap();
    }

    pub(crate) async fn lines(&self, task: &str) -> Vec<String> {
        let lines = (self.daemon)().logs(task, Query::all());
        lines.map(|line| String::from_utf8(line.unwrap().text).unwrap()).collect().await
    }

    pub(crate) async fn first_line(&self, task: &str) -> String {
        let mut log = (self.daemon)().logs(task, Query { follow: true, ..Query::all() });
        let line = tokio::time::timeout(LIMIT, log.next()).await.unwrap();
        String::from_utf8(line.unwrap().unwrap().text).unwrap()
    }

    /// Whatever a task is doing, a daemon that starts finds it doing that, and can go on with it.
    async fn tasks_are_found_again(&self) {
        drop(self.launch("prepared", "exit 4").await);
        reaches(&self.start("running", "exec sleep 1000").await, "running").await;
        ended(&self.start("ended", "exit 9").await).await;
        self.supervisors.make("empty").await.unwrap();

        let daemon = (self.daemon)();
        let sandboxes = self.supervisors.adopt_all().await.unwrap();
        let tasks: Vec<&str> = sandboxes.iter().map(Sandbox::task).collect();
        assert_eq!(tasks, ["empty", "ended", "prepared", "running"]);
        assert!(daemon.adopt(&sandboxes[0]).await.unwrap().is_none());
        let found = self.found("ended").await;
        assert_eq!((found.spec.clone(), word(&found)), (shell("ended", "exit 9"), "exited"));
        assert_eq!(ended(&found).await, 9);
        let found = self.found("prepared").await;
        assert_eq!(word(&found), "prepared");
        daemon.start(&found.sandbox, StartSpec::default()).await.unwrap();
        assert_eq!(ended(&found).await, 4);
        let found = self.found("running").await;
        assert_eq!(word(&found), "running");
        daemon.stop(&found.sandbox, Some(KILL), Some(Duration::ZERO)).await.unwrap();
        assert_eq!(ended(&found).await, 137);
        for sandbox in sandboxes {
            self.release(&sandbox).await;
        }
        assert!(self.supervisors.adopt_all().await.unwrap().is_empty());
    }

    /// Each daemon launches and starts it again, at once and at each later time; it has written one
    /// line in the end.
    async fn a_task_runs_at_most_once(&self) {
        let line = "echo ran; read wait < f";
        let launched = self.launch("once", &format!("mkfifo f; {line}")).await;
        let sandbox = &launched.sandbox;
        let again = async || {
            let daemon = (self.daemon)();
            let launched = daemon.launch(shell("once", "echo other"), sandbox).await;
            assert!(matches!(launched, Err(Error::AlreadyLaunched { .. })), "{launched:?}");
            let started = daemon.start(sandbox, StartSpec::default()).await;
            assert!(matches!(started, Err(Error::Refused { .. })), "{started:?}");
        };
        let (one, other) = ((self.daemon)(), (self.daemon)());
        let started = tokio::join!(
            one.start(sandbox, StartSpec::default()),
            other.start(sandbox, StartSpec::default()),
        );
        assert_eq!(u8::from(started.0.is_ok()) + u8::from(started.1.is_ok()), 1, "{started:?}");
        again().await;
        reaches(&launched, "running").await;
        assert_eq!(self.first_line("once").await, "ran");
        again().await;
        one.stop(sandbox, Some(KILL), Some(Duration::ZERO)).await.unwrap();
        ended(&launched).await;
        again().await;
        one.forget(sandbox).await.unwrap();
        let daemon = (self.daemon)();
        assert!(daemon.launch(shell("once", "echo other"), sandbox).await.is_err());
        assert!(daemon.start(sandbox, StartSpec::default()).await.is_err());
        assert_eq!(self.lines("once").await, ["ran"]);
        sandbox.release().await.unwrap();
    }

    /// A task ends while no daemon is there, or before it began: each one that comes finds how.
    async fn an_end_is_never_lost(&self) {
        let launched = self.start("unseen", "exit 7").await;
        let log = (self.daemon)().logs("unseen", Query { follow: true, ..Query::all() });
        drop(launched);
        let lines: Vec<_> = tokio::time::timeout(LIMIT, log.collect()).await.unwrap();
        assert!(lines.is_empty());
        for _ in 0..3 {
            assert_eq!(ended(&self.found("unseen").await).await, 7);
        }
        let launched = self.launch("unstarted", "echo ran").await;
        (self.daemon)().stop(&launched.sandbox, None, None).await.unwrap();
        ended(&launched).await;
        drop(launched);
        for task in ["unseen", "unstarted"] {
            let found = self.found(task).await;
            assert_eq!(word(&found), "exited");
            (self.daemon)().stop(&found.sandbox, None, None).await.unwrap();
            self.release(&found.sandbox).await;
        }
        assert!(self.lines("unstarted").await.is_empty());
    }

    /// What runs is not forgotten; what ended is, though it is asked twice, and its log stays.
    async fn what_runs_is_not_forgotten(&self) {
        let launched = self.start("known", "echo ready; exec sleep 1000").await;
        reaches(&launched, "running").await;
        assert_eq!(self.first_line("known").await, "ready");
        let sandbox = &launched.sandbox;
        let refused = (self.daemon)().forget(sandbox).await;
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
        assert_eq!(word(&self.found("known").await), "running");
        (self.daemon)().stop(sandbox, Some(KILL), Some(Duration::ZERO)).await.unwrap();
        ended(&launched).await;
        for _ in 0..2 {
            (self.daemon)().forget(sandbox).await.unwrap();
            assert!((self.daemon)().adopt(sandbox).await.unwrap().is_none());
        }
        sandbox.release().await.unwrap();
        (self.daemon)().forget(sandbox).await.unwrap();
        assert_eq!(self.lines("known").await, ["ready"]);
    }
}

fn word(launched: &Launched) -> &'static str {
    match launched.report().phase {
        Phase::Prepared => "prepared",
        Phase::Starting => "starting",
        Phase::Running { .. } => "running",
        Phase::Exited(_) => "exited",
    }
}

pub(crate) async fn reaches(launched: &Launched, wanted: &str) {
    let mut reports = launched.reports.clone();
    let wait = async {
        while word(launched) != wanted {
            reports.changed().await.unwrap();
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "it is {}", word(launched));
}

/// The exit code.
pub(crate) async fn ended(launched: &Launched) -> i32 {
    reaches(launched, "exited").await;
    match launched.report().phase {
        Phase::Exited(exit) => exit.code,
        other => panic!("{other:?}"),
    }
}
