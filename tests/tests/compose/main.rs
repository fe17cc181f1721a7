//! Real containers on a real Docker Engine, with the compose file that users get: a cluster behaves
//! there as on other kinds of machines. Needs root; see deploy/compose/README.md.

mod bad_input;
mod played;
mod project;
mod stage;
mod virtual_machines;
