//! Faults planted around the discovery cells: tokenizers that are found and are not the right ones.

use bitnet_engine::gguf::GgufFile;
use bitnet_harness::check::discover::{Scene, Stage, same_ids};
use bitnet_harness::data::texts;
use bitnet_harness::env::Env;
use bitnet_harness::paths::Paths;
use bitnet_harness::tokenizer_files::TokenizerFiles;
use bitnet_harness::{Cell, Context, models, setup};

use crate::cases::cases;

cases![
    the_scenes_without_a_lie_are_green,
    a_tokenizer_beside_with_other_merges,
    a_tokenizer_beside_of_another_model,
    a_cell_that_compares_no_text,
    a_chain_that_tells_another_story,
];

pub(crate) fn context() -> Context {
    let env = Env::default();
    let paths = Paths::discover(&env);
    let matrix = setup::declare(&paths.golden).expect("golden folder").matrix;
    Context::new(matrix, paths, &env)
}

fn file(ctx: &Context, model: &str, quant: &str) -> GgufFile {
    models::file(ctx, ctx.matrix.model(model).expect(model), quant).expect("GGUF")
}

fn the_scenes_without_a_lie_are_green() {
    let ctx = context();
    let strings = texts::strings(&ctx.paths.golden).expect("strings");
    for (model, quant) in [("tiny-bitnet", "i2_s"), ("gen-llama2", "f16")] {
        let file = file(&ctx, model, quant);
        let stage = Stage::new(&file, &strings).expect("stage");
        for scene in [Scene::Embedded, Scene::Beside, Scene::Nowhere] {
            let name = scene.name();
            let (_, compared) = stage.play(scene, &stage.vocabulary).expect(name);
            assert_eq!(compared, if scene == Scene::Nowhere { 0 } else { 2 * strings.len() }, "{model} {scene:?}");
        }
    }
}

fn a_tokenizer_beside_with_other_merges() {
    let ctx = context();
    let strings = texts::strings(&ctx.paths.golden).expect("strings");
    for (model, quant) in [("tiny-bitnet", "i2_s"), ("gen-llama2", "f16")] {
        let file = file(&ctx, model, quant);
        let stage = Stage::new(&file, &strings).expect("stage");
        let failure = stage.play(Scene::Beside, &stage.vocabulary.spoiled()).expect_err("other merges");
        assert!(failure.message.contains(", embedded ["), "{model}: {failure:?}");
    }
}

fn a_tokenizer_beside_of_another_model() {
    let ctx = context();
    let strings = texts::strings(&ctx.paths.golden).expect("strings");
    let (ours, other) = (file(&ctx, "tiny-bitnet", "i2_s"), file(&ctx, "gen-llama3", "f16"));
    let stage = Stage::new(&ours, &strings).expect("stage");
    let theirs = TokenizerFiles::read(other.metadata()).expect("vocabulary");
    let failure = stage.play(Scene::Beside, &theirs).expect_err("512 tokens for a model of more");
    assert!(failure.message.contains("None wins, expected Some(Beside)"), "{failure:?}");
}

fn a_cell_that_compares_no_text() {
    let ctx = context();
    let loaded = models::loaded(&ctx, &cell()).expect("tiny-bitnet");
    let failure = same_ids(&*loaded.tokenizer, &*loaded.tokenizer, &[]).expect_err("nothing compared");
    assert!(failure.message.contains("no text to compare"), "{failure:?}");
}

fn cell() -> Cell {
    "tiny-bitnet::i2_s::cpu-scalar::native::discover".parse().expect("cell")
}

fn a_chain_that_tells_another_story() {
    let ctx = context();
    let strings = texts::strings(&ctx.paths.golden).expect("strings");
    let file = file(&ctx, "tiny-bitnet", "i2_s");
    let stage = Stage::new(&file, &strings).expect("stage");
    let (sight, _) = stage.play(Scene::Beside, &stage.vocabulary).expect("beside");
    let only = std::collections::BTreeMap::from([("embedded", sight)]);
    let failure = ctx.assert_golden_json(&cell(), "", &only).expect_err("one scene under another's name");
    assert!(failure.message.contains("golden snapshot differs"), "{failure:?}");
}
