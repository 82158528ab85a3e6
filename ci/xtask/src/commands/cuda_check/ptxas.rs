//! What `--ptxas-options=-v` makes NVRTC's log say.
//!
//! ```text
//! ptxas info    : Compiling entry function 'k' for 'sm_90a'
//! ptxas info    : Function properties for k
//! ptxas         .     1168 bytes stack frame, 2088 bytes spill stores, 2760 bytes spill loads
//! ptxas info    : Used 255 registers, used 0 barriers, 1168 bytes cumulative stack size, 1024 bytes smem
//! ```
//!
//! Properties stand for device functions too, where they were not inlined: what such a function spills is every caller's.

use std::collections::BTreeMap;

/// What a function takes, in bytes but for the registers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Function {
    /// Registers of a thread: of entries only.
    pub(super) registers: Option<u64>,
    pub(super) stack: Option<u64>,
    pub(super) spill_stores: Option<u64>,
    pub(super) spill_loads: Option<u64>,
    pub(super) shared: u64,
    /// An entry, not a device function.
    pub(super) entry: bool,
}

/// The log, taken apart.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) functions: BTreeMap<String, Function>,
    /// What is neither ptxas's account nor empty: warnings, with file and line.
    pub(super) other: Vec<String>,
}

pub(super) fn read(log: &str) -> Log {
    let mut read = Log::default();
    let (mut entry, mut function) = (None::<String>, None::<String>);
    for line in log.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()) {
        let Some(said) = account(line) else {
            read.other.push(line.to_owned());
            continue;
        };
        if let Some(rest) = said.strip_prefix("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default().to_owned();
            read.functions.entry(name.clone()).or_default().entry = true;
            entry = Some(name);
        } else if let Some(name) = said.strip_prefix("Function properties for ") {
            function = Some(name.trim().to_owned());
        } else if said.contains("bytes stack frame") {
            if let Some(name) = function.take() {
                let found = read.functions.entry(name).or_default();
                found.stack = before(said, " bytes stack frame");
                found.spill_stores = before(said, " bytes spill stores");
                found.spill_loads = before(said, " bytes spill loads");
            }
        } else if said.starts_with("Used ")
            && let Some(name) = &entry
        {
            let found = read.functions.entry(name.clone()).or_default();
            found.registers = before(said, " registers");
            found.shared = before(said, " bytes smem").unwrap_or(0);
        }
    }
    read
}

/// What ptxas reports: not its warnings and errors.
fn account(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("ptxas")?.trim_start();
    let rest = rest.strip_prefix("info").map_or(rest, str::trim_start);
    rest.strip_prefix([':', '.']).map(str::trim_start)
}

/// The number right before these words.
fn before(text: &str, words: &str) -> Option<u64> {
    let (head, _) = text.split_once(words)?;
    head.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "k.cu(3): warning #177-D: variable \"x\" was declared but never referenced\n\n\
        ptxas info    : 0 bytes gmem, 16 bytes cmem[3]\n\
        ptxas info    : Compiling entry function 'spill' for 'sm_90a'\n\
        ptxas info    : Function properties for helper\n\
        ptxas         .     8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
        ptxas info    : Function properties for spill\n\
        ptxas         .     1168 bytes stack frame, 2088 bytes spill stores, 2760 bytes spill loads\n\
        ptxas info    : Used 255 registers, used 0 barriers, 1168 bytes cumulative stack size\n\
        ptxas info    : Compile time = 2158.001 ms\n\
        ptxas info    : Compiling entry function 'k' for 'sm_90a'\n\
        ptxas info    : Function properties for k\n\
        ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 11 registers, used 1 barriers, 1024 bytes smem, 356 bytes cmem[0]\n\
        ptxas warning : Stack size for entry function 'k' cannot be statically determined\n";

    #[test]
    fn figures_stand_with_their_function() {
        let log = read(LOG);
        let spill = Function {
            registers: Some(255),
            stack: Some(1168),
            spill_stores: Some(2088),
            spill_loads: Some(2760),
            shared: 0,
            entry: true,
        };
        assert_eq!(log.functions["spill"], spill);
        let k = Function {
            registers: Some(11),
            stack: Some(0),
            spill_stores: Some(0),
            spill_loads: Some(0),
            shared: 1024,
            entry: true,
        };
        assert_eq!(log.functions["k"], k);
        let helper = &log.functions["helper"];
        assert_eq!((helper.entry, helper.registers, helper.spill_stores), (false, None, Some(4)));
        assert_eq!(log.functions.len(), 3);
        assert!(log.other.len() == 2 && log.other[0].starts_with("k.cu(3): warning"), "{:?}", log.other);
        assert!(log.other[1].starts_with("ptxas warning"), "{:?}", log.other);
    }

    /// What is not said is absent, and not zero.
    #[test]
    fn a_log_of_another_form_gives_no_figures() {
        let log = read("ptxas info : Compiling entry function 'k' for 'sm_80'\nptxas info : Used some registers\n");
        let nothing = Function { entry: true, ..Function::default() };
        assert_eq!(log.functions["k"], nothing);
        assert!(read("").functions.is_empty());
    }
}
