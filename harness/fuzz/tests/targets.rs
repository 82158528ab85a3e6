//! Every target takes its seeds, what broke it before, and a few hundred changed inputs.

use bitnet_fuzz::limits::Counting;
use bitnet_fuzz::run::{FuzzPlan, corpus, corpus_folder, execute, run};
use bitnet_fuzz::{ALL, Target};
use bitnet_kernels::pages::Pages;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a target says of a seed that it takes.
fn accepted(target: &Target) -> &'static [&'static str] {
    match target.name {
        "tokenizer-json" | "sentencepiece" | "tiktoken" | "vocab-merges" => &[" seen "],
        "compiled-tokenizer" => &["ids ids"],
        "worker-answers" => &["---"],
        "hub" => &["fetched, read true"],
        "checkpoint" => &["bitnet", "gemma3", "gpt2", "llama", "minicpm", "qwen2", "qwen3"],
        "records" => &["accepted", "shown"],
        _ => &["accepted"],
    }
}

/// Held by the test that runs, since the limits are those of the process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn every_target_takes_its_seeds_and_survives_changes() {
    let _alone = ALONE.lock();
    // Without a stack for each panic that a reader catches.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    for target in ALL {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let said: Vec<String> = seeds.iter().map(|seed| (target.run)(seed)).collect();
        let takes = said.iter().filter(|said| accepted(target).iter().any(|word| said.contains(word))).count();
        assert!(takes * 4 >= seeds.len(), "{} takes {takes} of its {} seeds: {said:#?}", target.name, seeds.len());
        let corpus = corpus(&corpus_folder(target)).expect("the corpus");
        let (time, executions) = (Duration::from_secs(2), seeds.len() as u64 + corpus.len() as u64 + 300);
        let outcome = run(&FuzzPlan { target, time, executions, seed: 1, corpus, current: None }).expect("a run");
        if let Some((input, why)) = outcome.finding {
            panic!("{}: {why}: {:?}", target.name, String::from_utf8_lossy(&input));
        }
        assert!(outcome.executions > seeds.len() as u64, "{}: only {} executions", target.name, outcome.executions);
    }
}

const INPUT: usize = 1 << 20;
/// What an input of that length may hold.
const MOST: usize = 4 * INPUT + (64 << 20);

/// How something is held, and a target that does it.
type Holds = (&'static str, fn(&[u8]) -> String);

/// Held in one piece.
fn one(bytes: usize) -> usize {
    black_box(vec![0_u8; bytes]).len()
}

/// Held in many pieces; each costs a pointer, a length and a capacity too.
fn pieces(bytes: usize) -> usize {
    let pieces: Vec<Vec<u8>> = (0..bytes / 1024).map(|_| black_box(vec![0; 1000])).collect();
    black_box(pieces).len()
}

/// Held one after the other.
fn in_turn(bytes: usize) -> usize {
    (0..40).map(|_| one(bytes / 2)).sum()
}

/// Grown, so that it is moved.
fn grown(bytes: usize) -> usize {
    let mut all = vec![0_u8; 16];
    while all.len() < bytes / 2 {
        all.extend_from_within(..);
    }
    black_box(all).len()
}

/// Held by another thread, in many pieces.
fn elsewhere(bytes: usize) -> usize {
    std::thread::spawn(move || pieces(bytes)).join().expect("a thread")
}

/// Held in a mapping that the allocator does not see.
fn mapped(bytes: usize) -> usize {
    black_box(Pages::new(bytes, false).expect("pages")).len()
}

/// Asked for and refused.
fn refused() -> usize {
    usize::from(Vec::<u8>::new().try_reserve_exact(3 << 30).is_err())
}

#[test]
fn what_is_held_is_counted_wherever_it_is() {
    let _alone = ALONE.lock();
    let target = |run: fn(&[u8]) -> String| Target { name: "holds", about: "holds memory", seeds: Vec::new, run };
    let held = |run| execute(&target(run), &[0; INPUT]).expect("executed");
    let within: [Holds; 6] = [
        ("one", |_| one(MOST - 4096).to_string()),
        ("pieces", |_| pieces(MOST - (1 << 20)).to_string()),
        ("in turn", |_| in_turn(MOST).to_string()),
        ("grown", |_| grown(MOST / 2).to_string()),
        ("elsewhere", |_| elsewhere(MOST - (1 << 20)).to_string()),
        ("mapped", |_| (mapped(MOST - (1 << 20)) + mapped(MOST / 2)).to_string()),
    ];
    for (name, run) in within {
        let (_, cost) = held(run).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!((MOST / 4..=MOST).contains(&cost.bytes), "{name}: {}", cost.bytes);
    }
    let beyond: [Holds; 6] = [
        ("one", |_| one(MOST + 4096).to_string()),
        ("pieces", |_| pieces(MOST + (1 << 20)).to_string()),
        ("in turn", |_| in_turn(2 * MOST + 4096).to_string()),
        ("elsewhere", |_| elsewhere(MOST + (1 << 20)).to_string()),
        ("mapped", |_| mapped(MOST + 4096).to_string()),
        ("refused", |_| refused().to_string()),
    ];
    for (name, run) in beyond {
        let why = held(run).expect_err(name);
        assert!(why.contains("for an input of 1048576"), "{name}: {why}");
    }
}
