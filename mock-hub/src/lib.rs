//! A stand-in for the HuggingFace hub, faults included.
//!
//! The engine's downloader promises to survive everything that a hub, its CDN and the network between can do. This crate
//! is what those promises are tried on: a hub that speaks the real protocol (metadata on the redirect, commits, checksums
//! in the ETag, gated and renamed repositories) and that can be told to misbehave, one [`Rule`] at a time.
//!
//! ```text
//!   client ── front (raw sockets) ── wiremock: hub        metadata, small files, errors, redirects
//!                 │                  wiremock: CDN        contents of LFS and Xet files     (other origin)
//!                 │                  wiremock: elsewhere  a mirror nobody should trust      (third origin)
//!                 └ cuts, drips, stalls, false lengths: what an HTTP library refuses to do
//! ```
//!
//! wiremock answers whole, well-formed responses. What the hub *says* is therefore made in `answer.rs`
//! (a wiremock `Respond`, with Range and If-Range of our own), and what happens *to the connection* in a small front of
//! plain sockets before it. The three sides listen on three ports, so they are three origins: a token that reaches the
//! second one is a leak, and [`Log`] shows it.
//!
//! Everything runs on a thread of its own, so that blocking clients and `#[tokio::test]` can both use it, and ends when
//! [`MockHub`] is dropped. As a program: `cargo run -p bitnet-mock-hub -- --dir DIR --port P --fault cut=100,on=cdn`.

#![allow(missing_docs, reason = "a name that says it all has no comment")]

mod answer;
mod api;
mod dir;
mod faults;
mod front;
mod log;
mod range;
mod repo;
mod server;

pub use dir::{DirError, load_dir};
pub use faults::{Fault, FaultError, Rule};
pub use log::{Entry, Log};
pub use repo::{Access, File, Repo, Storage, git_blob_sha1, sha256_hex};
pub use server::{MockHub, MockHubBuilder, Side, StartError};
