//! Attention of one new token in one layer, by context and kernel set, on one thread.
//!
//! `cargo bench --bench attention [-- FILTER]`. Names are `attention/CONTEXT/SET`; the heads are those of
//! BitNet-b1.58-2B-4T: 20 of queries, 5 of keys and values, 128 wide. The throughput is in bytes of keys and values, each
//! counted once.

use bitnet_harness::generate::Noise;
use bitnet_kernels::kernel_sets;
use criterion::{Criterion, Throughput};

const HEADS: usize = 20;
const KV_HEADS: usize = 5;
const DIM: usize = 128;

fn attention(criterion: &mut Criterion) {
    for context in [128, 1024, 4096] {
        let mut noise = Noise(4);
        let queries: Vec<f32> = (0..HEADS * DIM).map(|_| noise.next()).collect();
        let mut group = criterion.benchmark_group("attention");
        group.throughput(Throughput::Bytes((2 * KV_HEADS * context * DIM * size_of::<u16>()) as u64));
        for set in kernel_sets() {
            let kernels = match (set.detect)() {
                Ok(kernels) => kernels,
                Err(why) => {
                    eprintln!("{why}");
                    continue;
                }
            };
            let mut cached = || {
                let values: Vec<f32> = (0..KV_HEADS * context * DIM).map(|_| noise.next()).collect();
                let mut halves = vec![0; values.len()];
                kernels.f32_to_f16(&values, &mut halves);
                halves
            };
            let (keys, values) = (cached(), cached());
            const GROUP: usize = HEADS / KV_HEADS;
            let (mut scratch, mut out) = (vec![0.0; GROUP * context], vec![0.0; HEADS * DIM]);
            let scale = 1.0 / (DIM as f32).sqrt();
            group.bench_function(format!("{context}/{}", kernels.name()), |b| {
                b.iter(|| {
                    for (head, out) in out.chunks_exact_mut(GROUP * DIM).enumerate() {
                        let query = &queries[head * GROUP * DIM..][..GROUP * DIM];
                        let part = head * context * DIM..(head + 1) * context * DIM;
                        let (k, v) = (&keys[part.clone()], &values[part]);
                        kernels.attention_group(query, DIM, k, v, DIM, context, scale, &mut scratch, out);
                    }
                });
            });
        }
        group.finish();
    }
}

bitnet_harness::criterion_main!(20 samples, 300 ms warm, 1000 ms: attention);
