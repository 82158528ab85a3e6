//! The suite turned red on purpose: every way in which the matrix could be green and mean nothing.
//!
//! The program has two roles. As a test it writes a small golden folder, plants one fault in it or in the
//! command line, starts *itself* as the matrix of that folder, and asserts exit code, printed lines and
//! records. With `HARNESS_SELFTEST_ROOT` set it is that matrix: the very `Suite::main` of
//! `tests/matrix.rs`, with toy checks. Two roles of one program, since a test target cannot ask cargo for
//! the path of another one.

mod cases;
mod lies;
mod lost;
mod planted;
mod references;
mod rosters;
mod toy;
mod workers;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    if let Some(folder) = std::env::var_os(workers::WORKER) {
        return workers::worker(folder.into());
    }
    if std::env::var_os(rosters::ROSTER).is_some() {
        return rosters::target(&argv);
    }
    if let Some(root) = std::env::var_os(toy::ROOT) {
        return toy::suite(root.into()).main(&argv);
    }
    let trials = cases::CASES
        .iter()
        .chain(planted::CASES)
        .chain(lies::CASES)
        .chain(lost::CASES)
        .chain(references::CASES)
        .chain(rosters::CASES)
        .chain(workers::CASES)
        .map(|(name, case)| {
            // A failed assertion is a panic, which libtest-mimic turns into a failure with its message.
            Trial::test(*name, move || {
                case();
                Ok::<(), Failed>(())
            })
        });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
