//! Prompts: tokens a second by model, kernel set and threads.
//!
//! `cargo bench --bench prefill [-- FILTER]`. Names are `prefill/MODEL/SET/THREADS`; a prompt of 512 tokens (fewer where the
//! model's context is shorter) is computed in chunks of 128 to the logits of its last token. The embedded model runs on every
//! set; the one of real size, if there is one (`BITNET_BENCH_MODEL`, or what `make-model` wrote), on the best of this machine.

use bitnet_harness::bench::{inputs, models};
use bitnet_harness::models::session;
use bitnet_kernels::{best, kernel_sets};
use criterion::{Criterion, Throughput};

const PROMPT: usize = 512;

fn prefill(criterion: &mut Criterion) {
    for (index, (name, path)) in models::paths().into_iter().enumerate() {
        let loaded = models::open(&path).map_err(|f| f.message).expect("the model");
        let config = &loaded.model.config;
        let length = PROMPT.min(config.context_length);
        let ids = inputs::ids(config.vocab_size, length);
        let mut group = criterion.benchmark_group("prefill");
        group.throughput(Throughput::Elements(length as u64));
        let sets = kernel_sets().iter().filter_map(|set| (set.detect)().ok());
        for kernels in sets.filter(|kernels| index == 0 || kernels.name() == best().name()) {
            for threads in [1, 2] {
                group.bench_function(format!("{name}/{}/{threads}", kernels.name()), |b| {
                    let made = session(&loaded, kernels, threads, 128, length);
                    let mut session = made.map_err(|f| f.message).expect("a session");
                    b.iter(|| {
                        session.truncate(0);
                        session.logits(&ids).expect("logits").len()
                    });
                });
            }
        }
        group.finish();
    }
}

bitnet_harness::criterion_main!(10 samples, 300 ms warm, 2000 ms: prefill);
