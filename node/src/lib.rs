//! Skeleton.
pub mod clock;
pub mod enter;
pub mod executor;
pub mod hold;
pub mod logs;
pub mod supervise;
