//! Discovery: what it costs to find a model's tokenizer, without the network.
//!
//! Three models, one a case: a GGUF that carries GPT-2's vocabulary, the same with the files beside it and no tokenizer
//! inside, and the repository's tiny model. `open` reads the header and the metadata, `chain` walks every step.

use bitnet_engine::discovery::{DiscoverySettings, TokenizerDiscovery};
use bitnet_engine::gguf::{GgufFile, GgufWriter};
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::vocabularies::by_name;
use criterion::Criterion;
use std::hint::black_box;
use std::path::{Path, PathBuf};

fn discovery(criterion: &mut Criterion) {
    let paths = Paths::discover(&Env::read());
    let dir = tempfile::tempdir().expect("a folder");
    let embedded = dir.path().join("embedded.gguf");
    let gpt2 = by_name("gpt2").expect("an entry").load(&paths).map_err(|f| f.message).expect("the vocabulary");
    copy(&gpt2.gguf().map_err(|f| f.message).expect("a GGUF"), &embedded, true);
    let folder = dir.path().join("beside");
    std::fs::create_dir(&folder).expect("a folder");
    let beside = folder.join("model.gguf");
    copy(&GgufFile::open(&embedded).expect("the GGUF"), &beside, false);
    for (name, bytes) in
        gpt2.files.iter().find(|(way, _)| *way == "vocab-bpe").map(|(_, files)| files).expect("its files")
    {
        std::fs::write(folder.join(name), bytes).expect("a file");
    }
    let tiny: PathBuf = paths.golden.join("models/tiny-bitnet.gguf");
    let settings = DiscoverySettings::default();
    let mut group = criterion.benchmark_group("discovery");
    let cases =
        [("embedded", &embedded, "embedded"), ("beside", &beside, "beside"), ("tiny-bitnet", &tiny, "embedded")];
    for (name, path, winner) in cases {
        let chain = TokenizerDiscovery::from_gguf(path).expect("a discovery").chain(&settings);
        assert_eq!(chain.winner.map(|step| step.name()), Some(winner), "{chain}");
        group.bench_function(format!("{name}/open"), |b| {
            b.iter(|| TokenizerDiscovery::from_gguf(black_box(path)).expect("a discovery"));
        });
        group.bench_function(format!("{name}/chain"), |b| {
            b.iter(|| TokenizerDiscovery::from_gguf(black_box(path)).expect("a discovery").chain(&settings));
        });
    }
    group.finish();
}

/// A copy of a GGUF without tensors, with or without its tokenizer.
fn copy(file: &GgufFile, to: &Path, tokenizer: bool) {
    let mut writer = GgufWriter::new(3, 32).expect("a writer");
    writer.copy_all_meta(file.metadata(), |key| tokenizer || !key.starts_with("tokenizer.")).expect("the keys");
    if !tokenizer {
        // There are neither tokens nor an embedding to count.
        writer.meta("llama.vocab_size", 50_257u32).expect("a key");
    }
    writer.write_file(to).expect("a file");
}

bitnet_harness::criterion_main!(100 samples, 300 ms warm, 2000 ms: discovery);
