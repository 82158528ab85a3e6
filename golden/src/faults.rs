//! `faults.toml`: what the network does to us, and what must come out of it.
//!
//! Every table is a cell `hub::<name>::<device>::native::download` of the matrix. The file says what to plant (in the words
//! of the mock hub's `--fault`), what to ask for, and every figure that a downloader could get wrong in silence: how many
//! requests, from which byte, how many bytes, whether anything is left in the cache.

use crate::{GoldenError, check_schema, read_toml};
use serde::Deserialize;
use std::path::Path;

pub const SCHEMA: u32 = 1;

/// How a download must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultOutcome {
    /// The file arrives, byte for byte.
    Ok,
    /// An error, and nothing in the cache.
    Error,
}

/// Where the client stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The hub can be reached.
    #[default]
    Up,
    /// The client is told to send nothing.
    Offline,
    /// Nobody listens at the endpoint.
    Gone,
}

/// One fault and its consequences.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The quant of its cell.
    pub name: String,
    /// One sentence for people: what happens, and what we do.
    pub about: String,
    /// Rules of the mock hub, as its `--fault` reads them. Each must strike at least once.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Seed of the rules with `chance=`.
    #[serde(default)]
    pub seed: u64,
    /// Whether the hub can be reached.
    #[serde(default)]
    pub network: Network,
    /// The CDN names an ETag of its own.
    #[serde(default)]
    pub cdn_etag_differs: bool,
    #[serde(default = "repo")]
    pub repo: String,
    /// Branch, tag or commit.
    #[serde(default = "revision")]
    pub revision: String,
    #[serde(default = "file")]
    pub file: String,
    /// The access token that the client has.
    pub token: Option<String>,
    /// The client's overall deadline, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// Silence in a body that the client takes for a stall, in milliseconds.
    pub stall_ms: Option<u64>,
    /// The client's limit for one answer with metadata, in milliseconds.
    pub metadata_ms: Option<u64>,
    /// Failures in a row that open the circuit.
    pub breaker: Option<u32>,
    pub outcome: FaultOutcome,
    /// Name of the error's variant (of `HubError`), for [`FaultOutcome::Error`].
    pub error: Option<String>,
    /// What the error's text must hold.
    #[serde(default)]
    pub words: Vec<String>,
    /// Fewest and most requests that the three sides of the hub may see.
    pub requests: [u64; 2],
    /// The `Range` headers of the requests for contents that reached the CDN, in order; `""` is a request without.
    pub ranges: Option<Vec<String>>,
    /// Bytes of bodies that the client may take off the network, all attempts together.
    pub transferred: Option<u64>,
    /// Attempts after the first.
    pub retries: Option<u64>,
    /// Milliseconds that the client must have waited, at least.
    #[serde(default)]
    pub waited_ms: u64,
    /// The third origin must have been asked, and must not have seen the token.
    #[serde(default)]
    pub elsewhere: bool,
    /// Whether the same request succeeds when all faults have ended. It does, unless what is asked for does not exist.
    #[serde(default = "yes")]
    pub recovers: bool,
}

fn repo() -> String {
    "org/name".to_owned()
}

fn revision() -> String {
    "main".to_owned()
}

fn file() -> String {
    "tokenizer.json".to_owned()
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    schema: u32,
    fault: Vec<Fault>,
}

/// All faults.
///
/// # Errors
/// The file cannot be read or understood, two tables have one name, or a table contradicts itself.
pub fn read(golden: &Path) -> Result<Vec<Fault>, GoldenError> {
    let path = golden.join("faults.toml");
    let Faults { schema, fault } = read_toml(&path)?;
    check_schema(&path, schema, SCHEMA)?;
    for (at, entry) in fault.iter().enumerate() {
        let wrong = if fault.iter().take(at).any(|before| before.name == entry.name) {
            "stands there twice"
        } else if (entry.outcome == FaultOutcome::Error) != entry.error.is_some() {
            "needs `error` if and only if its outcome is an error"
        } else if entry.requests[0] > entry.requests[1] {
            "allows no number of requests: `requests` is [fewest, most]"
        } else {
            continue;
        };
        return Err(GoldenError::Parse { path, message: format!("the fault `{}` {wrong}", entry.name) });
    }
    Ok(fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{Matrix, Source};

    const HEAD: &str = "schema = 1\n[[fault]]\nname = \"a\"\nabout = \"\"\nrequests = [1, 1]\n";

    fn read_text(text: &str) -> Result<Vec<Fault>, GoldenError> {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("faults.toml"), text).expect("write");
        read(dir.path())
    }

    #[test]
    fn every_fault_is_a_cell_and_every_cell_has_a_fault() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"));
        let matrix = Matrix::read(&golden.join("matrix.toml")).expect("matrix.toml");
        let hub = matrix.models.iter().find(|model| model.source == Source::Hub).expect("a model of kind hub");
        let names: Vec<String> = read(golden).expect("faults.toml").into_iter().map(|fault| fault.name).collect();
        assert_eq!(hub.quants, names, "the same names in the same order");
    }

    #[test]
    fn defaults_are_the_plain_request() {
        let fault = read_text(&format!("{HEAD}outcome = \"ok\"\n")).expect("one fault").remove(0);
        assert_eq!((&*fault.repo, &*fault.revision, &*fault.file), ("org/name", "main", "tokenizer.json"));
        assert!(fault.recovers && fault.faults.is_empty() && fault.network == Network::Up);
    }

    #[test]
    fn contradictions_are_named() {
        for (text, words) in [
            (format!("{HEAD}outcome = \"error\"\n"), "if and only if"),
            (format!("{HEAD}outcome = \"ok\"\nerror = \"Network\"\n"), "if and only if"),
            (format!("{HEAD}outcome = \"ok\"\nrequest = 7\n"), "unknown field `request`"),
            (HEAD.replace("[1, 1]", "[2, 1]") + "outcome = \"ok\"\n", "[fewest, most]"),
            (format!("{HEAD}outcome = \"ok\"\n{}outcome = \"ok\"", &HEAD[11..]), "stands there twice"),
            (HEAD.replace("schema = 1", "schema = 2") + "outcome = \"ok\"\n", "schema 2"),
        ] {
            let error = read_text(&text).expect_err("a contradiction").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
