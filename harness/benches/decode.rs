//! Generation: time of one greedy step by model, kernel set and threads. Steps a second are tokens a second.
//!
//! `cargo bench --bench decode [-- FILTER]`. Names are `decode/MODEL/SET/THREADS`, and `.../whole` where the output matrix is
//! multiplied whole instead of screened (models of real size only: small ones are never screened). Positions run from 1 to
//! 64 and begin again. Models as in the bench `prefill`.

use bitnet_engine::inference::{Head, Sampler, SamplerOptions, Session, SessionOptions, WARM_STEPS};
use bitnet_harness::bench::models;
use bitnet_harness::models::pool;
use bitnet_kernels::{best, kernel_sets};
use criterion::{Criterion, Throughput};
use std::sync::Arc;

const CONTEXT: usize = 64;

fn decode(criterion: &mut Criterion) {
    for (index, (name, path)) in models::paths().into_iter().enumerate() {
        let loaded = models::open(&path).map_err(|f| f.message).expect("the model");
        let mut group = criterion.benchmark_group("decode");
        group.throughput(Throughput::Elements(1));
        let sets = kernel_sets().iter().filter_map(|set| (set.detect)().ok());
        for kernels in sets.filter(|kernels| index == 0 || kernels.name() == best().name()) {
            for threads in [1, 2] {
                let heads: &[(Head, &str)] =
                    if index == 0 { &[(Head::Auto, "")] } else { &[(Head::Auto, ""), (Head::Whole, "/whole")] };
                for &(head, ending) in heads {
                    group.bench_function(format!("{name}/{}/{threads}{ending}", kernels.name()), |b| {
                        let pool = pool(threads).map_err(|f| f.message).expect("threads");
                        let options =
                            SessionOptions { context: Some(CONTEXT), head, ..SessionOptions::new(kernels, pool) };
                        let mut session = Session::new(Arc::clone(&loaded.model), options).expect("a session");
                        let mut sampler = Sampler::new(SamplerOptions::default()).expect("greedy");
                        session.expect(usize::MAX);
                        let mut token = 1;
                        let mut step = || {
                            if session.position() == CONTEXT {
                                session.truncate(0);
                            }
                            session.hold(&[token], 1).expect("room");
                            let logits = session.held(0, sampler.needs(&[token]).as_ref()).expect("logits");
                            token = sampler.sample(logits, &[token]);
                        };
                        // The copies are made that pay in the long run.
                        (0..WARM_STEPS).for_each(|_| step());
                        b.iter(&mut step);
                    });
                }
            }
        }
        group.finish();
    }
}

bitnet_harness::criterion_main!(20 samples, 300 ms warm, 2000 ms: decode);
