//! Our ids against the crate `tokenizers`, vocabulary by vocabulary, on every kind of string that trips tokenizers.
//!
//! ```text
//! cargo test --test tokenizer_discovery_crossval
//! cargo test --test tokenizer_discovery_crossval -- llama3          one vocabulary
//! cargo test --test tokenizer_discovery_crossval -- --require llama2,llama3,smollm2
//! CROSSVAL_REQUIRE=llama3 cargo nextest run --test tokenizer_discovery_crossval
//! ```
//!
//! A trial is `vocabulary::way::class`. A *way* is how our tokenizer was made: from a GGUF written in memory (`gguf`), from that
//! compiled into a file (`compiled`), or from the files of the vocabulary in one of their published forms. A *class* is a kind of string
//! (`bitnet_harness::strings`), or
//!
//! | class | what is shown |
//! |---|---|
//! | `tokens` | every token's own text, alone |
//! | `runs` | 1 M characters of one kind: the oracle's ids, in time that grows with the text (from files: a tenth, ids alone) |
//! | `bytes` | what is not UTF-8: no panic, every byte comes back, the parts that are UTF-8 keep their ids |
//! | `proptest` | whatever proptest thinks of, made smaller until it is understood |
//!
//! Every string is encoded twice, with special tokens read in text and with them taken as text, and decoded again.
//! `test_tokenization_performance_vs_cpp` holds ids and speed against SentencePiece's C++ library.
//! `differences::NAME` are the known differences between HuggingFace and llama.cpp (`golden/differences.toml`).
//!
//! Vocabularies that were not fetched are `unavailable`, with the command that fetches them; `--require NAME` (or
//! `CROSSVAL_REQUIRE`) makes that a failure. The last line accounts for every trial. Exit codes as the matrix.

mod bytes;
mod compare;
mod cpp;
mod differences;
mod llama_cpp;
mod oracle;
mod prop;
mod runs;
mod setup;

use bitnet_harness::Failure;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::roster::{Named, Roster};
use bitnet_harness::strings::CLASSES;
use bitnet_harness::verdict::Availability;
use bitnet_harness::vocabularies::{ALL, Entry};
use setup::Stage;
use std::process::ExitCode;
use std::sync::Arc;

/// Classes that are not lists of strings.
type Special = (&'static str, fn(&Stage, &str) -> Result<(), Failure>);
const SPECIAL: &[Special] =
    &[("tokens", compare::tokens), ("runs", runs::run), ("bytes", bytes::run), ("proptest", prop::run)];

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    let env = Env::read();
    let paths = Arc::new(Paths::discover(&env));
    let mut trials = vec![pinned(&paths), cpp::trial(&paths)];
    for entry in ALL {
        for way in setup::ways(entry) {
            for (class, count) in CLASSES {
                trials.push(named(entry, way, class, &paths, move |stage, way| {
                    compare::class(stage, way, class, *count)
                }));
            }
            for (class, run) in SPECIAL {
                trials.push(named(entry, way, class, &paths, *run));
            }
        }
    }
    match differences::trials(&paths) {
        Ok(more) => trials.extend(more),
        Err(failure) => {
            eprintln!("tokenizer_discovery_crossval: nothing was run:\n  error: {}", failure.message);
            return ExitCode::from(2);
        }
    }
    let roster = Roster {
        target: "tokenizer_discovery_crossval",
        require_twin: "CROSSVAL_REQUIRE",
        requirable: ALL.iter().map(|entry| entry.name).chain([cpp::PEER]).map(str::to_owned).collect(),
        trials,
    };
    roster.main(&argv, &env)
}

fn named(
    entry: &'static Entry,
    way: &'static str,
    class: &str,
    paths: &Arc<Paths>,
    run: impl Fn(&Stage, &str) -> Result<(), Failure> + Send + Sync + 'static,
) -> Named {
    let availability = entry.availability(paths);
    let paths = Arc::clone(paths);
    Named {
        name: format!("{}::{way}::{class}", entry.name),
        availability,
        run: Arc::new(move || run(&*setup::stage(entry, &paths)?, way)),
    }
}

/// The vocabularies of the repository are byte for byte what their README says.
fn pinned(paths: &Arc<Paths>) -> Named {
    let folder = paths.golden.join("vocab");
    let run = move || {
        let readme = std::fs::read_to_string(folder.join("README.md"))?;
        let mut rows = 0;
        for row in readme.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let (Some(file), Some(want)) = (cells.get(1), cells.get(5)) else {
                return Err(Failure::new(format_args!("a row of {} has no five cells: {row}", folder.display())));
            };
            let found = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(std::fs::read(folder.join(file))?));
            if found != *want {
                return Err(Failure::new(format_args!("{file} has the sha256 {found}, the README says {want}")));
            }
            rows += 1;
        }
        if rows == 3 { Ok(()) } else { Err(Failure::new(format_args!("{rows} files in the README, not 3"))) }
    };
    Named { name: "committed::pinned".into(), availability: Availability::Available, run: Arc::new(run) }
}
