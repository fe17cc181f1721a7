//! Names for the DNS servers: a zone made again when assignment or view changed, read by all.

use std::sync::{Arc, Mutex, PoisonError};

use cluster::assignment::Assignment;
use cluster::id::TaskId;
use cluster::view::View;
use netprog::dns::{Answer, Question, Zone, answer};
use netprog_linux::dns_server::Resolver;
use tokio::sync::watch;

/// The newest zone; made when it is first asked for after a change.
pub struct Names {
    assignment: watch::Receiver<Option<Arc<Assignment>>>,
    view: watch::Receiver<Arc<View>>,
    zone: Mutex<Option<Made>>,
}

struct Made {
    assignment: Arc<Assignment>,
    view: Arc<View>,
    zone: Arc<Zone>,
}

impl Names {
    /// Over these sources.
    #[must_use]
    pub fn new(
        assignment: watch::Receiver<Option<Arc<Assignment>>>,
        view: watch::Receiver<Arc<View>>,
    ) -> Self {
        Self { assignment, view, zone: Mutex::new(None) }
    }

    /// The newest zone; none before the first assignment.
    #[must_use]
    pub fn zone(&self) -> Option<Arc<Zone>> {
        let assignment = self.assignment.borrow().clone()?;
        let view = self.view.borrow().clone();
        let mut made = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.as_ref()
            && Arc::ptr_eq(&known.assignment, &assignment)
            && Arc::ptr_eq(&known.view, &view)
        {
            return Some(known.zone.clone());
        }
        let zone = Arc::new(Zone::build(&assignment, &view));
        *made = Some(Made { assignment, view, zone: zone.clone() });
        Some(zone)
    }
}

impl Resolver for Names {
    fn resolve(&self, asker: TaskId, question: &Question) -> Answer {
        match self.zone() {
            Some(zone) => answer(&zone, asker, question),
            // Which names are the cluster's is not known yet, nor who may ask for others.
            None => Answer::Confined,
        }
    }
}
