//! The cache of downloads: finding, reading (with decompression and checksum), and a fetch that the cache answers.
//!
//! The file is GPT-2's `encoder.json` (1 MB of JSON, kept compressed), put there by a download from the mock hub.

use bitnet_engine::hub::HubSettings;
use bitnet_engine::hub::blocking::BlockingDownload;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_mock_hub::{MockHub, Repo, Storage};
use criterion::{Criterion, Throughput};
use std::hint::black_box;

const REPO: &str = "org/name";
const FILE: &str = "encoder.json";

fn cache(criterion: &mut Criterion) {
    let paths = Paths::discover(&Env::read());
    let body = std::fs::read(paths.golden.join("vocab/gpt2/encoder.json")).expect("a vocabulary of the repository");
    let size = body.len() as u64;
    let hub = MockHub::builder().repo(Repo::new(REPO).file(FILE, body, Storage::Lfs)).start().expect("the mock hub");
    let dir = tempfile::tempdir().expect("a folder");
    let mut settings = HubSettings::new(dir.path());
    settings.endpoint = hub.endpoint().to_owned();
    let client = BlockingDownload::new(settings, None).expect("a client");
    client.fetch(REPO, "main", FILE).expect("a download");
    let cache = client.cache();
    let (commit, _) = cache.commit_of(REPO, "main").expect("its commit");
    let entry = cache.find(REPO, &commit, FILE).expect("its entry");

    let mut group = criterion.benchmark_group("cache");
    group.bench_function("find", |b| b.iter(|| cache.find(black_box(REPO), &commit, FILE).expect("found")));
    group.throughput(Throughput::Bytes(size));
    group.bench_function("read", |b| b.iter(|| cache.read(black_box(&entry)).expect("read")));
    // By commit: nothing to ask the hub.
    group.bench_function("fetch-cached", |b| b.iter(|| client.fetch(REPO, black_box(&commit), FILE).expect("fetched")));
    group.finish();
}

bitnet_harness::criterion_main!(100 samples, 300 ms warm, 2000 ms: cache);
