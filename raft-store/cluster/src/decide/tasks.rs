//! What nodes report of their tasks.

use crate::draft::Draft;
use crate::id::{NodeId, TaskId};
use crate::object::{TaskState, TaskStatus};
use crate::rejection::Rejection;
use crate::request::Answer;

/// Characters of a message or an error that are kept: a program that fails must not fill the log.
const TEXT_CHARS_MAX: usize = 1_000;

/// Takes what is news: a state above the known one, or more about the same state. Unknown tasks
/// and tasks of other nodes are ignored, and so is a node that was removed: the assignment that it
/// gets next tells it what to do.
pub(super) fn report(
    draft: &mut Draft<'_>,
    node: NodeId,
    statuses: &[(TaskId, TaskStatus)],
) -> Result<Answer, Rejection> {
    for (id, reported) in statuses {
        let Some(task) = draft.state().tasks.get(id) else { continue };
        let known = &task.status;
        if task.node != Some(node) || known.state.is_terminal() || reported.state < known.state {
            continue;
        }
        if !(TaskState::Accepted..=TaskState::Rejected).contains(&reported.state) {
            continue;
        }
        // The clocks of nodes differ; delays and monitoring are counted on the leader's alone.
        let at = if reported.state == known.state { known.at } else { draft.now() };
        let status = TaskStatus {
            at,
            message: cut(&reported.message),
            error: cut(&reported.error),
            ..reported.clone()
        };
        let runs = status.state == TaskState::Running;
        draft.edit_task(*id, |task| {
            task.ran_at = task.ran_at.or(runs.then_some(at));
            task.status = status;
        });
    }
    Ok(Answer::Done)
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
