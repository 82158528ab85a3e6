//! Encoding, by vocabulary, text and size, with the crate `tokenizers` in the same run.
//!
//! `cargo bench --bench tokenizer [-- FILTER]`. Names are
//! `encode/VOCABULARY/TEXT-SIZE/ENGINE-STATE`. `warm` is one document again and again, which is what caches are made for;
//! `cold` is a document that was never seen, though its words were. Vocabularies that were not fetched are named and left out.

use bitnet_engine::tokenizer::{EncodeOptions, from_gguf};
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::strings::document;
use bitnet_harness::verdict::Availability;
use bitnet_harness::vocabularies::ALL;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::str::FromStr;
use std::time::Duration;

const OPTIONS: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };

/// Encodes a text and says how many ids there are.
type Run<'a> = &'a dyn Fn(&str) -> usize;

fn encode(criterion: &mut Criterion) {
    let paths = Paths::discover(&Env::read());
    for entry in ALL.iter().filter(|entry| entry.name != "tiny-bitnet") {
        if let Availability::Unavailable { reason, remedy, .. } = entry.availability(&paths) {
            eprintln!("{}: unavailable: {reason}; {remedy}", entry.name);
            continue;
        }
        let vocabulary = entry.load(&paths).map_err(|f| f.message).expect("the vocabulary");
        let file = vocabulary.gguf().map_err(|f| f.message).expect("a GGUF of it");
        let ours = from_gguf(file.metadata()).expect("our tokenizer").tokenizer;
        let theirs = tokenizers::Tokenizer::from_str(&vocabulary.json.to_string()).expect("their tokenizer");
        let us = |text: &str| ours.encode(text, OPTIONS).map(|ids| ids.len()).expect("our ids");
        let them = |text: &str| theirs.encode_fast(text, false).map(|e| e.len()).expect("their ids");
        let engines: [(&str, Run<'_>); 2] = [("bitnet", &us), ("tokenizers", &them)];
        for kind in ["english", "mixed", "multilingual", "code"] {
            for bytes in [4 << 10, 100 << 10] {
                let mut group = criterion.benchmark_group(format!("encode/{}/{kind}-{}K", entry.name, bytes >> 10));
                group.throughput(Throughput::Bytes(bytes as u64));
                for (engine, run) in engines {
                    let text = document(kind, bytes, 0);
                    group.bench_function(format!("{engine}-warm"), |b| b.iter(|| run(black_box(&text))));
                    let mut number = 0;
                    let mut next = || {
                        number += 1;
                        document(kind, bytes, number)
                    };
                    group.bench_function(format!("{engine}-cold"), |b| {
                        b.iter_batched(&mut next, |text| run(&text), BatchSize::SmallInput);
                    });
                }
                group.finish();
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = encode
}
criterion_main!(benches);
