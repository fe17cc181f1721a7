//! The reaper: pid 1 of a task whose spec asks for one. It passes signals on to the command, reaps
//! what is orphaned, and ends with the command, which ends every other process of the task.

use nix::sys::prctl::{set_dumpable, set_name};

use crate::sys::{self, Ended};

/// `SIGCHLD`.
const CHILD: i32 = 17;

/// Runs as the reaper of `command`, which has been forked already. Holds nothing of the
/// supervisor's: no descriptor, and no way for the task to the program file through /proc.
pub(super) fn run(command: i32) -> ! {
    sys::block_all_signals();
    sys::close_all_but_stdio();
    // Both are hardening and names: the task runs without them.
    let _ = set_dumpable(false);
    let _ = set_name(c"skein-init");
    loop {
        while let Some((pid, ended)) = sys::reap(-1) {
            if pid == command {
                sys::exit_now(match ended {
                    Ended::Code(code) => code,
                    Ended::Signal(signal) => 128 + signal,
                });
            }
        }
        match sys::next_signal() {
            CHILD => {}
            // A command that has just ended is found in the next round.
            signal => drop(sys::kill(command, signal)),
        }
    }
}
