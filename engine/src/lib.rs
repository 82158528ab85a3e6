//! Placeholder while the rooms are being built.

pub mod hub;
