//! From a path to the first token, in a process that runs already, with the file in the page cache.
//!
//! `cargo bench --bench load [-- FILTER]`. `load/MODEL/open` reads and checks the header; `load/MODEL/load` adds the
//! tokenizer and a look at every weight; `load/MODEL/first-token` adds a prompt of some words and one greedy token. What
//! starting a process costs is in `cargo xtask bench-peers`. Models as in the bench `prefill`.

use bitnet_engine::gguf::GgufFile;
use bitnet_engine::inference::argmax;
use bitnet_engine::tokenizer::EncodeOptions;
use bitnet_harness::bench::models;
use bitnet_harness::models::session;
use bitnet_kernels::best;
use criterion::Criterion;
use std::hint::black_box;
use std::path::Path;

const PROMPT: &str = "In the beginning";
const THREADS: usize = 2;

fn first_token(path: &Path) -> u32 {
    let loaded = models::open(path).map_err(|f| f.message).expect("the model");
    let options = EncodeOptions { add_special: true, parse_special: false };
    let ids = loaded.tokenizer.encode(PROMPT, options).expect("ids");
    let made = session(&loaded, best(), THREADS, 128, ids.len() + 1);
    let mut session = made.map_err(|f| f.message).expect("a session");
    argmax(session.logits(&ids).expect("logits"))
}

fn load(criterion: &mut Criterion) {
    for (name, path) in models::paths() {
        let mut group = criterion.benchmark_group("load");
        group.bench_function(format!("{name}/open"), |b| {
            b.iter(|| GgufFile::open(black_box(&path)).expect("a GGUF").tensors().len());
        });
        group.bench_function(format!("{name}/load"), |b| {
            b.iter(|| models::open(black_box(&path)).map_err(|f| f.message).expect("the model"));
        });
        group.bench_function(format!("{name}/first-token"), |b| b.iter(|| first_token(black_box(&path))));
        group.finish();
    }
}

bitnet_harness::criterion_main!(10 samples, 300 ms warm, 2000 ms: load);
