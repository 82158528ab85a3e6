//! What families make of their keys: the constants of their plans, in models of zeros that are never run.

use bitnet_engine::gguf::{GgufFile, GgufWriter, MetaValue};
use bitnet_engine::model::{Model, ModelError};
use bitnet_engine::ops::{Experts, Op, Scale};
use bitnet_kernels::Pool;
use bitnet_kernels::quant::I2sLayout;

const WIDTH: u64 = 8;
const HEAD: u64 = 16;
const EXPERTS: u64 = 3;
const INNER: u64 = 5;

/// A model of `blocks` blocks, two heads and one head of keys. Every value of a tensor is its place among the tensor's matrices.
fn file(architecture: &str, blocks: u32, keys: &[(&str, MetaValue)]) -> GgufFile {
    let mut writer = GgufWriter::new(3, 32).unwrap();
    writer.meta("general.architecture", architecture).unwrap();
    let sizes = [
        ("context_length", 64),
        ("embedding_length", WIDTH as u32),
        ("block_count", blocks),
        ("feed_forward_length", INNER as u32),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("attention.key_length", HEAD as u32),
    ];
    let sizes = sizes.map(|(key, value)| (key, MetaValue::from(value)));
    let eps = ("attention.layer_norm_rms_epsilon", MetaValue::from(1e-5f32));
    for (key, value) in sizes.iter().chain([&eps]).chain(keys) {
        writer.meta(&format!("{architecture}.{key}"), value.clone()).unwrap();
    }
    let mut add = |name: String, dims: &[u64]| {
        let one = dims.iter().take(2).product::<u64>();
        let values = (0..dims.iter().product()).flat_map(|i: u64| ((i / one) as f32).to_le_bytes());
        writer.tensor(&format!("{name}.weight"), dims, 0, values.collect::<Vec<u8>>()).unwrap();
    };
    add("token_embd".into(), &[WIDTH, 4]);
    add("output_norm".into(), &[WIDTH]);
    let (q, kv, wide) = ([WIDTH, 2 * HEAD], [WIDTH, HEAD], [2 * HEAD, WIDTH]);
    let (up, down) = ([WIDTH, INNER], [INNER, WIDTH]);
    let (up_all, down_all) = ([WIDTH, INNER, EXPERTS], [INNER, WIDTH, EXPERTS]);
    let always: [(&str, &[u64]); 6] = [
        ("attn_norm", &[WIDTH]),
        ("attn_q", &q),
        ("attn_k", &kv),
        ("attn_v", &kv),
        ("attn_output", &wide),
        ("ffn_norm", &[WIDTH]),
    ];
    let own: &[(&str, &[u64])] = match architecture {
        "gemma3" => &[
            ("attn_q_norm", &[HEAD]),
            ("attn_k_norm", &[HEAD]),
            ("post_attention_norm", &[WIDTH]),
            ("post_ffw_norm", &[WIDTH]),
            ("ffn_gate", &up),
            ("ffn_up", &up),
            ("ffn_down", &down),
        ],
        "maple" => &[
            ("attn_q_norm", &[HEAD]),
            ("attn_k_norm", &[HEAD]),
            ("ffn_gate_inp", &[WIDTH, EXPERTS]),
            ("ffn_gate_exps", &up_all),
            ("ffn_up_exps", &up_all),
            ("ffn_down_exps", &down_all),
        ],
        _ => &[("ffn_gate", &up), ("ffn_up", &up), ("ffn_down", &down)],
    };
    for block in 0..blocks {
        for (part, dims) in always.iter().chain(own) {
            add(format!("blk.{block}.{part}"), dims);
        }
    }
    GgufFile::from_vec(writer.into_vec().unwrap()).unwrap()
}

fn open(architecture: &str, blocks: u32, keys: &[(&str, MetaValue)]) -> Result<Model, ModelError> {
    Model::open(&file(architecture, blocks, keys), I2sLayout::X86)
}

/// The factors of the steps whose name ends so.
fn factors(model: &Model, part: &str) -> Vec<f32> {
    let steps = model.plan.iter().filter(|step| step.name.ends_with(part));
    let factor = |op: &Op| match op {
        Op::Scale(Scale { factor, .. }) => *factor,
        other => panic!("{other:?}"),
    };
    steps.map(|step| factor(&step.op)).collect()
}

fn near(found: &[f32], expected: &[f32]) {
    let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs());
    assert!(found.len() == expected.len() && close, "{found:?}, expected {expected:?}");
}

#[test]
fn gemma_3_of_62_blocks_divides_by_another_width() {
    // Two heads share an embedding of 8.
    for (blocks, width) in [(1u32, HEAD as f32), (61, HEAD as f32), (62, 4.0), (63, HEAD as f32)] {
        let model = open("gemma3", blocks, &[]).unwrap();
        near(&factors(&model, "attn_q_scale"), &vec![width.sqrt().recip(); blocks as usize]);
        near(&factors(&model, "embd_scale"), &[8f32.sqrt()]);
    }
}

#[test]
fn minicpm_has_three_constants() {
    let constants = |keys: &[(&str, MetaValue)]| {
        let model = open("minicpm", 4, keys)?;
        let residual = [factors(&model, "attn_output_scale"), factors(&model, "ffn_scale")];
        let [embedding, logits] = ["embd_scale", "output_scale"].map(|part| factors(&model, part));
        // `attn_output_scale` ends like `output_scale`, and stands before it.
        Ok::<_, ModelError>((embedding, residual, logits.last().copied().unwrap()))
    };
    let key = |name, value: f32| (name, MetaValue::from(value));
    let (embedding, residual, logits) = constants(&[]).unwrap();
    near(&embedding, &[12.0]);
    residual.iter().for_each(|found| near(found, &[0.7; 4]));
    near(&[logits], &[32.0]);
    let own = [key("embedding_scale", 3.0), key("residual_scale", 0.25), key("logit_scale", 4.0)];
    let (embedding, residual, logits) = constants(&own).unwrap();
    near(&embedding, &[3.0]);
    residual.iter().for_each(|found| near(found, &[0.25; 4]));
    near(&[logits], &[0.25]);
    for name in ["embedding_scale", "residual_scale", "logit_scale"] {
        let error = constants(&[key(name, 0.0)]).unwrap_err().to_string();
        assert!(error.contains(&format!("`minicpm.{name}` is 0, expected a number from")), "{error}");
    }
}

fn maple(limits: &[f32]) -> GgufFile {
    let count = |name, value: u64| (name, MetaValue::from(value as u32));
    let keys = [
        count("expert_count", EXPERTS),
        count("expert_used_count", 2),
        count("expert_feed_forward_length", INNER),
        ("swiglu_clamp_exp", MetaValue::from(limits.to_vec())),
    ];
    file("maple", limits.len() as u32, &keys)
}

#[test]
fn a_limit_of_experts_that_is_next_to_nothing_is_none() {
    let model = Model::open(&maple(&[-1.0, 0.0, 9e-7, 1e-6, 7.0]), I2sLayout::X86).unwrap();
    let limits = model.plan.iter().filter_map(|step| match &step.op {
        Op::Experts(Experts { limit, .. }) => Some(*limit),
        _ => None,
    });
    let none = f32::INFINITY;
    assert_eq!(limits.collect::<Vec<_>>(), [none, none, none, 1e-6, 7.0]);
}

#[test]
fn each_expert_is_its_part_of_the_tensor() {
    let file = maple(&[0.0]);
    let model = Model::open(&file, I2sLayout::X86).unwrap();
    let parts: Vec<_> = model.weights.matrices().filter(|(name, _)| name.ends_with("_exps.weight")).collect();
    assert_eq!(parts.len() as u64, 3 * EXPERTS, "gate, up and down of one layer");
    for (at, (name, matrix)) in parts.into_iter().enumerate() {
        let expert = ((at as u64 % EXPERTS) as f32).to_le_bytes();
        assert_eq!(matrix.data.len() as u64, 4 * WIDTH * INNER, "{name}");
        assert!(matrix.data.chunks(4).all(|value| value == expert), "{name} {at}");
    }
    // What is wrong with one is told by its place in the file.
    let name = "blk.0.ffn_up_exps.weight";
    let start = file.tensor(name).unwrap().info.file_offset;
    let mut bytes = Vec::new();
    file.copy_to(&mut bytes).unwrap();
    for expert in 0..EXPERTS {
        let at = start + expert * 4 * WIDTH * INNER;
        let mut spoilt = bytes.clone();
        spoilt[at as usize..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        let spoilt = GgufFile::from_vec(spoilt).unwrap();
        let error = Model::load(&spoilt, I2sLayout::X86, &Pool::new(1).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("tensor `{name}` at byte {at}: ")), "{error}");
    }
}
