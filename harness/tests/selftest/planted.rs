//! Faults planted in the engine itself: the checks of the real matrix must see each of them.

use bitnet_engine::device::Opened;
use bitnet_engine::load::Loaded;
use bitnet_harness::check::{digest, greedy, kernel, ops, place};
use bitnet_harness::data::texts;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::{Cell, Context, models, setup};
use bitnet_kernels::quant::FORMATS;
use bitnet_kernels::{ActKind, Activations, Kernels, Matrix, OutView, Rope, best};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::cases::cases;
use crate::lost::context;

cases![
    every_format_is_in_the_matrix,
    the_kernels_without_a_fault_are_green,
    a_wrong_product_in_every_format,
    a_wrong_operation_of_every_kind,
    a_wrong_token,
    a_wrong_bit_in_one_logit,
    a_product_that_depends_on_the_chunk,
    a_wrong_device_is_named_with_its_step,
    every_pair_of_threads_and_chunk_is_run,
];

/// Where the fault sits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The last output of every product is off by one bit.
    Product,
    /// The same, when several tokens are computed together.
    ProductOfMany,
    /// One row of the head wins everywhere.
    Token,
    RmsNorm,
    Rope,
    Attention,
    Relu2,
    Silu,
    Add,
    Half,
    LayerNorm,
    Gelu,
    GeluGate,
    Scale,
}

/// The best kernels of this machine with one fault.
struct Faulty(Fault);

fn flip(x: &mut f32) {
    *x = f32::from_bits(x.to_bits() ^ 1);
}

impl Faulty {
    fn new(fault: Fault) -> &'static Self {
        Box::leak(Box::new(Self(fault)))
    }

    /// As a device.
    fn device(fault: Fault) -> Opened {
        Opened { kernels: Self::new(fault), card: None }
    }

    fn plant(&self, fault: Fault, values: &mut [f32]) {
        if self.0 == fault
            && let Some(last) = values.last_mut()
        {
            flip(last);
        }
    }
}

impl Kernels for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }
    fn prepare(&self, kind: ActKind, x: &[f32], n_tokens: usize, out: &mut Activations) {
        best().prepare(kind, x, n_tokens, out);
    }
    fn matmul(&self, w: &Matrix<'_>, x: &Activations, rows: Range<usize>, mut y: OutView<'_>) {
        best().matmul(w, x, rows.clone(), y.reborrow());
        let many = x.n_tokens() > 1;
        if rows.end == w.rows && (self.0 == Fault::Product || self.0 == Fault::ProductOfMany && many) {
            let mut value = y.get(0, rows.end - 1);
            flip(&mut value);
            y.set(0, rows.end - 1, value);
        }
        // Only the head has as many rows.
        if self.0 == Fault::Token && w.rows >= 2048 && rows.contains(&7) {
            for token in 0..x.n_tokens() {
                y.set(token, 7, 1e6);
            }
        }
    }
    fn rms_norm(&self, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
        best().rms_norm(x, w, eps, y);
        self.plant(Fault::RmsNorm, y);
    }
    fn rope(&self, kind: Rope, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        best().rope(kind, x, cos, sin);
        self.plant(Fault::Rope, x);
    }
    fn attention(
        &self,
        q: &[f32],
        k: &[u16],
        v: &[u16],
        stride: usize,
        n: usize,
        scale: f32,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        best().attention(q, k, v, stride, n, scale, scratch, out);
        self.plant(Fault::Attention, out);
    }
    fn relu2_gate(&self, gate: &mut [f32], up: &[f32]) {
        best().relu2_gate(gate, up);
        self.plant(Fault::Relu2, gate);
    }
    fn silu_gate(&self, gate: &mut [f32], up: &[f32]) {
        best().silu_gate(gate, up);
        self.plant(Fault::Silu, gate);
    }
    fn layer_norm(&self, x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [f32]) {
        best().layer_norm(x, w, b, eps, y);
        self.plant(Fault::LayerNorm, y);
    }
    fn gelu(&self, x: &mut [f32]) {
        best().gelu(x);
        self.plant(Fault::Gelu, x);
    }
    fn gelu_gate(&self, gate: &mut [f32], up: &[f32]) {
        best().gelu_gate(gate, up);
        self.plant(Fault::GeluGate, gate);
    }
    fn scale(&self, x: &mut [f32], factor: f32) {
        best().scale(x, factor);
        self.plant(Fault::Scale, x);
    }
    fn add(&self, x: &mut [f32], y: &[f32]) {
        best().add(x, y);
        self.plant(Fault::Add, x);
    }
    fn f32_to_f16(&self, x: &[f32], out: &mut [u16]) {
        best().f32_to_f16(x, out);
        if self.0 == Fault::Half
            && let Some(last) = out.last_mut()
        {
            *last ^= 1;
        }
    }
}

/// The data cannot be derived from the table of formats, so it is held against it.
fn every_format_is_in_the_matrix() {
    let declaration = setup::declare(&Paths::discover(&Env::default()).golden).expect("golden folder");
    let model = declaration.matrix.models.iter().find(|model| model.name == "kernels").expect("the bare formats");
    let mut listed: Vec<_> = model.quants.iter().map(String::as_str).collect();
    let mut formats: Vec<_> = FORMATS.iter().map(|format| format.name).collect();
    listed.sort_unstable();
    formats.sort_unstable();
    assert_eq!(listed, formats);
}

fn the_kernels_without_a_fault_are_green() {
    let kernels = Faulty::new(Fault::None);
    for format in FORMATS {
        assert!(kernel::compare(kernels, format, 1).expect(format.name) > 1000);
    }
    assert!(ops::compare(kernels, 1).expect("ops") > 1000);
}

fn a_wrong_product_in_every_format() {
    for fault in [Fault::Product, Fault::ProductOfMany] {
        for format in FORMATS {
            let failure = kernel::compare(Faulty::new(fault), format, 1).expect_err(format.name);
            assert!(failure.message.contains(format.name) && failure.message.contains("instead of"), "{failure:?}");
        }
    }
}

fn a_wrong_operation_of_every_kind() {
    for (fault, name) in [
        (Fault::RmsNorm, "rms_norm"),
        (Fault::Rope, "rope"),
        (Fault::Attention, "attention"),
        (Fault::Relu2, "gate Relu2"),
        (Fault::Silu, "gate Silu"),
        (Fault::GeluGate, "gate Gelu"),
        (Fault::LayerNorm, "layer_norm"),
        (Fault::Gelu, "gelu"),
        (Fault::Scale, "scale"),
        // The first operation that sums.
        (Fault::Add, "bias"),
        (Fault::Half, "cache_append"),
    ] {
        let failure = ops::compare(Faulty::new(fault), 1).expect_err(name);
        assert!(failure.message.contains(name), "{fault:?}: {failure:?}");
    }
}

/// The real matrix's context and the trained model, as its cells see them.
fn tiny(check: &str) -> (Context, Cell, Loaded) {
    let ctx = context();
    let cell: Cell = format!("tiny-bitnet::i2_s::cpu-scalar::native::{check}").parse().expect("cell");
    let loaded = models::loaded(&ctx, &cell).expect("tiny-bitnet");
    (ctx, cell, loaded)
}

fn a_wrong_token() {
    let (ctx, cell, loaded) = tiny("greedy");
    let plan = texts::plan(&ctx.paths.golden, &cell.model).expect("plan");
    let answers = |fault| -> Vec<greedy::Answer> {
        let answer = |prompt: &String| greedy::answer(&loaded, &Faulty::device(fault), prompt, plan.new_tokens);
        plan.prompts.iter().map(answer).collect::<Result<_, _>>().expect("answers")
    };
    ctx.assert_golden_json(&cell, "", &answers(Fault::None)).expect("the snapshot holds without a fault");
    let failure = ctx.assert_golden_json(&cell, "", &answers(Fault::Token)).expect_err("token 7 everywhere");
    assert!(failure.message.contains("golden snapshot differs"), "{failure:?}");
    assert!(failure.message.contains("7 7 7 7"), "{failure:?}");
}

fn a_wrong_bit_in_one_logit() {
    let (ctx, cell, loaded) = tiny("digest");
    let plan = texts::plan(&ctx.paths.golden, &cell.model).expect("plan");
    let passage = texts::passage(&ctx.paths.golden).expect("passage");
    let ids = models::ids(&loaded, &passage, plan.digest_tokens).expect("ids");
    let text = |fault| {
        let digest = digest::consistent(&loaded, &Faulty::device(fault), &ids, &[(1, 1)]).expect("digest");
        format!("{} tokens: {digest}", ids.len())
    };
    ctx.assert_golden(&cell, "", &text(Fault::None)).expect("the snapshot holds without a fault");
    let failure = ctx.assert_golden(&cell, "", &text(Fault::Product)).expect_err("one bit off");
    assert!(failure.message.contains("golden snapshot differs"), "{failure:?}");
}

fn a_product_that_depends_on_the_chunk() {
    let (ctx, _, loaded) = tiny("digest");
    let passage = texts::passage(&ctx.paths.golden).expect("passage");
    let ids = models::ids(&loaded, &passage, 10).expect("ids");
    let runs = [(1, 1), (2, 7)];
    digest::consistent(&loaded, &Faulty::device(Fault::None), &ids, &runs).expect("the same bits without a fault");
    let failure = digest::consistent(&loaded, &Faulty::device(Fault::ProductOfMany), &ids, &runs).expect_err("chunks");
    assert!(failure.message.contains("chunks of 7 give other bits than 1 threads and chunks of 1"), "{failure:?}");
}

fn a_wrong_device_is_named_with_its_step() {
    let (ctx, _, loaded) = tiny("digest");
    let passage = texts::passage(&ctx.paths.golden).expect("passage");
    let ids = models::ids(&loaded, &passage, 10).expect("ids");
    let oracle: Opened = bitnet_engine::device::kernels("cpu-scalar").expect("oracle").into();
    let place =
        |fault, run| place::first_difference(&loaded, (&oracle, &Faulty::device(fault)), &ids, run).expect("computed");
    for (fault, step) in [
        (Fault::RmsNorm, "blk.0.attn_norm: token 0, column 511 of 512"),
        (Fault::Product, "blk.0.attn_q: token 0, column 511 of 512"),
        (Fault::Attention, "blk.0.attn: token 0"),
    ] {
        let place = place(fault, (2, 7));
        assert!(place.contains(&format!("first differing step {step}")), "{fault:?}: {place}");
        assert!(place.contains("    oracle   ") && place.contains("    device   "), "{place}");
    }
    assert!(place(Fault::ProductOfMany, (1, 1)).contains("every step has the oracle's bits"));
    assert!(place(Fault::ProductOfMany, (1, 7)).contains("first differing step blk.0.attn_q"));
}

/// The cells of a device share the pairs among them, so that a repeat of each in every cell proves nothing more.
fn every_pair_of_threads_and_chunk_is_run() {
    let paths = Paths::discover(&Env::default());
    let declaration = setup::declare(&paths.golden).expect("golden folder");
    let mut pairs: BTreeMap<String, BTreeSet<(usize, usize)>> = BTreeMap::new();
    for declared in declaration.cells.iter().filter(|declared| declared.cell.check == "digest") {
        let cell = &declared.cell;
        let tokens = texts::plan(&paths.golden, &cell.model).expect("plan").digest_tokens;
        let runs = digest::runs(cell, tokens);
        let chunks: BTreeSet<usize> = runs.iter().map(|(_, chunk)| *chunk).collect();
        match cell.device.as_str() {
            "cpu-scalar" => assert_eq!(runs.len(), 1, "{cell}"),
            "cuda-emu" => assert_eq!(runs.len(), 1, "{cell}"),
            // Single tokens, small chunks with a rest, and one that is large or the whole text.
            _ => {
                assert!(chunks.len() == 3 && chunks.contains(&1) && chunks.contains(&7), "{cell}: {runs:?}");
                assert!(chunks.iter().any(|chunk| *chunk.min(&tokens) >= tokens.min(64)), "{cell}: {runs:?}");
            }
        }
        pairs.entry(cell.device.clone()).or_default().extend(runs);
    }
    assert_eq!(pairs["cuda-emu"], [(1, 7), (1, 64)].into());
    for (device, pairs) in pairs.iter().filter(|(device, _)| device.starts_with("cpu-") && *device != "cpu-scalar") {
        for threads in digest::THREADS {
            for chunk in digest::CHUNKS {
                assert!(
                    pairs.contains(&(threads, chunk)),
                    "{device}: no cell runs {threads} threads, chunks of {chunk}"
                );
            }
        }
    }
}
