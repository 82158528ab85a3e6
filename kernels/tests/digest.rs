//! One number for all that the kernels compute from a seed: the same from every set, on every architecture. The other
//! tests hold the sets of one machine against its own oracle; this one holds machines against each other.

mod common;

use bitnet_kernels::{ActKind, Activations, Kernels, Matrix, Rope, kernel_sets, numerics};
use common::{Fill, Random, matmul, matrix, models, pairs};

/// Of the oracle on x86-64. Whoever changes the numerics contract, a format or this test's work changes it too: the test
/// says what it has become.
const DIGEST: u64 = 0x6994_31e5_2681_97d0;

/// FNV-1a, 64 bits.
struct Digest(u64);

impl Digest {
    fn add(&mut self, values: &[f32]) {
        for byte in values.iter().flat_map(|v| v.to_bits().to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn digest(k: &dyn Kernels) -> u64 {
    let mut out = Digest(0xcbf2_9ce4_8422_2325);
    let r = &mut Random::new(2026);
    let mut x = Activations::default();
    for (format, act) in pairs() {
        for (rows, length, tokens) in [(9, 700, 1), (6, 1300, 7)] {
            let cols = usize::next_multiple_of(length, format.block_len);
            let bytes = matrix(format, rows, cols, Fill::Packed, r);
            let w = Matrix::new(format, rows, cols, &bytes).unwrap().with_act(act);
            k.prepare(act, &r.floats(tokens * cols, 3.0), tokens, &mut x);
            if act == ActKind::I8 {
                (0..tokens).for_each(|t| out.add(&[x.i8(t).scale, x.i8(t).isum as f32]));
            }
            out.add(&matmul(k, &w, &x));
        }
    }
    let n = 331;
    let (a, b) = (r.floats(n, 8.0), r.floats(n, 8.0));
    let mut y = vec![0.0; n];
    k.rms_norm(&a, &b, 1e-5, &mut y);
    out.add(&y);
    k.layer_norm(&a, &b, &a, 1e-5, &mut y);
    out.add(&y);
    k.gelu(&mut y);
    k.scale(&mut y, 0.7);
    out.add(&y);
    type Gate = fn(&dyn Kernels, &mut [f32], &[f32]);
    let gates: [Gate; 4] =
        [|k, x, y| k.relu2_gate(x, y), |k, x, y| k.silu_gate(x, y), |k, x, y| k.gelu_gate(x, y), |k, x, y| k.add(x, y)];
    for gate in gates {
        y.copy_from_slice(&a);
        gate(k, &mut y, &b);
        out.add(&y);
    }
    for kind in [Rope::Neox, Rope::Norm] {
        y.copy_from_slice(&a);
        k.rope(kind, &mut y, &b[..77], &a[..77]);
        out.add(&y);
    }
    let (dim, positions, heads) = (80, 200, 3);
    let mut cache = || {
        let mut halves = vec![0; positions * dim];
        k.f32_to_f16(&r.floats(positions * dim, 2.0), &mut halves);
        halves
    };
    let (keys, values) = (cache(), cache());
    out.add(&keys.iter().map(|h| numerics::f16_to_f32(*h)).collect::<Vec<_>>());
    let (q, mut attended) = (r.floats(heads * dim, 2.0), vec![0.0; heads * dim]);
    let scratch = &mut vec![0.0; heads * positions];
    k.attention_group(&q, dim, &keys, &values, dim, positions, 0.11, scratch, &mut attended);
    out.add(&attended);
    let w: Vec<i8> = (0..5 * n).map(|_| r.bits() as i8).collect();
    let x: Vec<i16> = (0..n).map(|_| r.below(8000) as i16 - 4000).collect();
    let mut sums = [0; 5];
    k.dots_i8_i16(&w, &x, &mut sums);
    out.add(&sums.map(|sum| f32::from_bits(sum as u32)));
    out.0
}

#[test]
fn every_set_on_every_architecture_gives_one_number() {
    for set in kernel_sets() {
        match (set.detect)() {
            Ok(kernels) => {
                let found = digest(kernels);
                println!("{}: {found:#018x}", set.name);
                assert_eq!(found, DIGEST, "{}: {found:#018x}, must be {DIGEST:#018x}", set.name);
            }
            Err(unavailable) => println!("{unavailable}"),
        }
    }
    for model in models() {
        let found = digest(*model);
        println!("{}: {found:#018x}", model.name());
        assert_eq!(found, DIGEST, "{}", model.name());
    }
}
