//! Real containers on a real Docker Engine, by the compose file that users get: what a cluster does
//! on machines of other kinds it does there. Needs root; see deploy/compose/README.md.

mod bad_input;
mod played;
mod project;
mod stage;
mod virtual_machines;
