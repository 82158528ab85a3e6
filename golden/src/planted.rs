//! `planted.toml`: faults by hand, which the suite must see.

use crate::{GoldenError, read_toml};
use serde::Deserialize;
use std::path::Path;

/// A fault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planted {
    /// The room of `mutants.toml` whose tests are to see it.
    pub room: String,
    /// What is wrong, in a line.
    pub about: String,
    pub file: String,
    /// Text that stands there once: an expression, or whole statements.
    pub from: String,
    /// What stands there instead.
    pub to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    fault: Vec<Planted>,
}

/// Reads the file.
pub fn read(golden: &Path) -> Result<Vec<Planted>, GoldenError> {
    Ok(read_toml::<File>(&golden.join("planted.toml"))?.fault)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// A fault whose place has moved would be tried nowhere.
    #[test]
    fn every_fault_has_its_place() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"));
        let rooms = crate::mutants::read(golden).expect("mutants.toml").rooms;
        let faults = super::read(golden).expect("planted.toml");
        assert!(faults.len() >= 40, "{}", faults.len());
        for fault in &faults {
            assert!(rooms.iter().any(|room| room.name == fault.room), "{}", fault.room);
            let text = std::fs::read_to_string(golden.join("..").join(&fault.file)).expect(&fault.file);
            assert_eq!(text.matches(&fault.from).count(), 1, "{}: {}", fault.file, fault.from);
            assert_ne!(fault.from, fault.to);
        }
    }
}
