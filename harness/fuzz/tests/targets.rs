//! Every target takes its seeds, what broke it before, and a few hundred changed inputs.

use bitnet_fuzz::limits::Counting;
use bitnet_fuzz::run::{FuzzPlan, corpus, corpus_folder, run};
use bitnet_fuzz::{ALL, Target};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a target says of a seed that it takes.
fn accepted(target: &Target) -> &'static [&'static str] {
    match target.name {
        "tokenizer-json" | "sentencepiece" | "tiktoken" | "vocab-merges" => &["true ["],
        "hub" => &["fetched, read true"],
        "checkpoint" => &["bitnet", "gemma3", "gpt2", "llama", "minicpm", "qwen2", "qwen3"],
        "records" => &["accepted", "shown"],
        _ => &["accepted"],
    }
}

/// One test, since the limits are those of the process.
#[test]
fn every_target_takes_its_seeds_and_survives_changes() {
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
