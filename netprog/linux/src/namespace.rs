//! A thread that lives inside one network namespace and does jobs there.
//!
//! `setns` changes the calling thread only, so it is called exactly once, on a thread made for it,
//! and never on a runtime's worker. Sockets opened by a job stay bound to the namespace, and
//! programs started by a job inherit it. The thread keeps the namespace alive: drop the
//! [`Namespace`] before deleting what it stands for.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as reply;
use std::thread::JoinHandle;
use std::time::Duration;

use netprog::plane::Place;
use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr};
use tokio::sync::mpsc;

use crate::drift::{Doorbell, Muted, OwnChanges, Subscription};
use crate::netlink::Refusal;
use crate::{ipvs, nft};

/// Jobs that may wait for one namespace's thread; more are refused.
pub const JOBS_MAX: usize = 64;
/// How long a caller waits for a job: far above any pass, so that a stuck job is an error and does
/// not block forever.
pub const JOB_WAIT_MAX: Duration = Duration::from_secs(60);
/// Stack of a namespace's thread in bytes.
const STACK_BYTES: usize = 512 * 1024;
/// Characters of a thread's name that the kernel keeps (`TASK_COMM_LEN` without the end).
const THREAD_NAME_CHARS: usize = 15;

type Work = Box<dyn FnOnce(Rc<Inside>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

struct Job {
    work: Work,
    effect: Effect,
}

/// How a job affects notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It only reads.
    None,
    /// It changes our objects: notifications that it causes are ignored.
    Changes,
    /// A job in another namespace has changed our objects here.
    Changed,
}

/// What a job finds in its namespace.
pub(crate) struct Inside {
    /// Route netlink, for single requests and dumps.
    pub(crate) route: Handle,
    /// Route netlink, for batches.
    pub(crate) bulk: Socket,
    /// Reads tables and sets.
    pub(crate) nft: RefCell<nft::Reader>,
    /// The IPVS client, opened on first use.
    ipvs: OnceCell<ipvs::Client>,
    /// Our links as a job has just read them, for the subscription.
    pub(crate) ours: RefCell<Option<BTreeSet<u32>>>,
    /// The changes that the running job requests, so that drift detection ignores them.
    pub(crate) own: RefCell<OwnChanges>,
}

/// A namespace that has been entered.
pub struct Namespace {
    identity: Identity,
    file: OwnedFd,
    muted: Muted,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// The identity of a namespace: device and inode of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of an open namespace file.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat = nix::sys::stat::fstat(fd)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

/// The result of a queued job.
pub(crate) struct Pending<T>(reply::Receiver<T>);

impl<T> Pending<T> {
    /// Waits for it, at most [`JOB_WAIT_MAX`].
    pub(crate) fn wait(self) -> io::Result<T> {
        self.0.recv_timeout(JOB_WAIT_MAX).map_err(|error| match error {
            reply::RecvTimeoutError::Timeout => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer from the namespace's thread in {} s", JOB_WAIT_MAX.as_secs()),
            ),
            reply::RecvTimeoutError::Disconnected => {
                io::Error::new(io::ErrorKind::BrokenPipe, "the namespace's thread has ended")
            }
        })
    }
}

impl Namespace {
    /// Starts a thread, enters the namespace and opens netlink sockets there.
    ///
    /// Needs CAP_SYS_ADMIN. `name` shows in the thread list.
    pub fn enter(name: &str, namespace: OwnedFd) -> io::Result<Self> {
        Self::start_thread(name, namespace, None)
    }

    /// The same, and rings the bell when something other than our own jobs changes our objects
    /// there.
    pub fn enter_listening(place: Place, namespace: OwnedFd, bell: Doorbell) -> io::Result<Self> {
        Self::start_thread(&place.to_string(), namespace, Some((place, bell)))
    }

    fn start_thread(
        name: &str,
        namespace: OwnedFd,
        listen: Option<(Place, Doorbell)>,
    ) -> io::Result<Self> {
        let identity = Identity::of(&namespace)?;
        let file = namespace.try_clone()?;
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let muted = Muted::default();
        let listen = listen.map(|(place, bell)| (place, bell, Arc::clone(&muted)));
        let (started, start) = reply::sync_channel(1);
        let name: String = name.chars().take(THREAD_NAME_CHARS).collect();
        let thread =
            std::thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || {
                let runtime = match enter_and_build(namespace) {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error))),
                };
                runtime.block_on(serve(queue, &started, listen));
            })?;
        let namespace = Self { identity, file, muted, jobs: Some(jobs), thread: Some(thread) };
        match start.recv_timeout(JOB_WAIT_MAX) {
            Ok(Ok(())) => Ok(namespace),
            Ok(Err(error)) => Err(error),
            Err(_ended) => Err(io::Error::other("the namespace's thread ended at its start")),
        }
    }

    /// Which namespace this is, to notice that a name now means another one.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The namespace's file, to name it in requests from elsewhere.
    pub fn file(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }

    /// Runs a job inside the namespace and waits for its result, at most [`JOB_WAIT_MAX`].
    ///
    /// Blocks: call it from a dedicated thread, never from a runtime's worker.
    pub fn run<T, F>(&self, job: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.start(move |_inside| async move { job() })?.wait()
    }

    /// Queues a job that only reads, and returns at once.
    pub(crate) fn start<T, F, Fut>(&self, job: F) -> io::Result<Pending<T>>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Inside>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.queue(job, Effect::None)
    }

    /// Queues a job that changes our objects, and returns at once.
    pub(crate) fn start_change<T, F, Fut>(&self, job: F) -> io::Result<Pending<T>>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Inside>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.queue(job, Effect::Changes)
    }

    /// Mutes notifications: a job elsewhere is about to change our objects here.
    pub(crate) fn changing(&self) {
        self.muted.store(true, Ordering::Release);
    }

    /// Ends that: the job is done.
    pub(crate) fn changed(&self) -> io::Result<()> {
        let done = self.queue(|_inside| async {}, Effect::Changed).and_then(Pending::wait);
        self.muted.store(false, Ordering::Release);
        done
    }

    fn queue<T, F, Fut>(&self, job: F, effect: Effect) -> io::Result<Pending<T>>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Inside>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let (answer, pending) = reply::sync_channel(1);
        let work: Work = Box::new(move |inside| {
            Box::pin(async move {
                // A caller that has stopped waiting does not want the answer.
                let _unwanted = answer.send(job(inside).await);
            })
        });
        let jobs = self.jobs.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        jobs.try_send(Job { work, effect }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{JOBS_MAX} jobs already wait for the namespace"),
            ),
            mpsc::error::TrySendError::Closed(_) => {
                io::Error::new(io::ErrorKind::BrokenPipe, "the namespace's thread has ended")
            }
        })?;
        Ok(Pending(pending))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panicked thread has left the namespace too, which is all that matters here.
            let _panicked = thread.join();
        }
    }
}

fn enter_and_build(namespace: OwnedFd) -> io::Result<tokio::runtime::Runtime> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn serve(
    mut queue: mpsc::Receiver<Job>,
    started: &reply::SyncSender<io::Result<()>>,
    listen: Option<(Place, Doorbell, Muted)>,
) {
    let opened = Inside::open().and_then(|inside| {
        let subscription = listen
            .map(|(place, bell, muted)| Subscription::open(place, bell, muted))
            .transpose()?;
        Ok((Rc::new(inside), subscription))
    });
    let (inside, mut subscription) = match opened {
        Ok(opened) => opened,
        Err(error) => return drop(started.send(Err(error))),
    };
    if started.send(Ok(())).is_err() {
        return;
    }
    while let Some(job) = next_job(&mut queue, &mut subscription).await {
        if let Some(subscription) = subscription.as_mut().filter(|_| job.effect == Effect::Changes)
        {
            subscription.poll();
        }
        (job.work)(Rc::clone(&inside)).await;
        if let Some(subscription) = &mut subscription {
            if let Some(links) = inside.ours.take() {
                subscription.ours(links);
            }
            match job.effect {
                Effect::None => {}
                Effect::Changes => subscription.ignore(Some(&inside.own.borrow())),
                Effect::Changed => subscription.ignore(None),
            }
            inside.own.borrow_mut().entries.clear();
        }
    }
}

/// The next job; listens until it comes.
async fn next_job(
    queue: &mut mpsc::Receiver<Job>,
    subscription: &mut Option<Subscription>,
) -> Option<Job> {
    while let Some(listening) = subscription {
        tokio::select! {
            biased;
            job = queue.recv() => return job,
            () = listening.listen() => {}
        }
    }
    queue.recv().await
}

impl Inside {
    fn open() -> io::Result<Self> {
        let (mut connection, route, _notifications) = rtnetlink::new_connection()?;
        let socket = connection.socket_mut().socket_mut();
        // With these options the kernel adds an error message.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        let bulk = crate::netlink::open(NETLINK_ROUTE)?;
        // Bound now, because its port number would otherwise be known only after its first request.
        let ports = [socket.bind_auto()?.port_number(), port(&bulk)?].into();
        tokio::spawn(connection);
        Ok(Self {
            route,
            bulk,
            nft: RefCell::new(nft::Reader::new(crate::netlink::open(NETLINK_NETFILTER)?)),
            ipvs: OnceCell::new(),
            ours: RefCell::new(None),
            own: RefCell::new(OwnChanges { ports, ..OwnChanges::default() }),
        })
    }

    /// IPVS of this namespace, if the kernel has it by now.
    pub(crate) fn ipvs(&self) -> Result<Option<&ipvs::Client>, Refusal> {
        if self.ipvs.get().is_none()
            && let Some(client) = ipvs::Client::open()?
        {
            // Only this thread sets it, and it was not set.
            let _unset = self.ipvs.set(client);
        }
        Ok(self.ipvs.get())
    }
}

/// The number by which the kernel names a socket in notifications.
fn port(socket: &Socket) -> io::Result<u32> {
    let mut address = SocketAddr::new(0, 0);
    socket.get_address(&mut address)?;
    Ok(address.port_number())
}
