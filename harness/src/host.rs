//! What this host has: the table of devices and backends, and whether a model's bytes are here.
//!
//! Asked when the cells are listed, so every answer is cheap: a CPU feature, the presence of a file. What
//! is declared in `matrix.toml` and what stands here must agree both ways.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bitnet_engine::device;
use bitnet_engine::settings::Settings;
use bitnet_golden::matrix::{Model, Source};
use bitnet_kernels::kernel_sets;
use cpp_sys::CppBackend;

use crate::axes::{Axis, Cell};
use crate::env::Env;
use crate::paths::Paths;
use crate::references::live;
use crate::setup::{Declaration, Problem, implementations};
use crate::verdict::Availability;
use crate::vocabularies;

/// Where a device or backend is registered, for messages.
const PLACE: &str = "harness/src/host.rs";

type Detect = Arc<dyn Fn() -> Availability + Send + Sync>;

/// The devices and backends that this build knows, with how to detect them.
#[derive(Clone, Default)]
pub struct Host {
    devices: Vec<(String, Detect)>,
    backends: Vec<(String, Detect)>,
    env: Env,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |table: &[(String, Detect)]| -> Vec<String> { table.iter().map(|(name, _)| name.clone()).collect() };
        f.debug_struct("Host")
            .field("devices", &names(&self.devices))
            .field("backends", &names(&self.backends))
            .finish_non_exhaustive()
    }
}

impl Host {
    /// A host that knows nothing yet.
    pub fn empty(env: Env) -> Self {
        Self { env, ..Self::default() }
    }

    /// This build's table.
    pub fn here(env: Env, paths: &Paths) -> Self {
        let mut host = Self::empty(env).backend("native", || Availability::Available);
        for backend in CppBackend::ALL {
            let target = paths.target.clone();
            host = host.backend(backend.name(), move || live::availability(backend, &target));
        }
        for name in [device::cuda::NAME, device::cuda::EMULATED] {
            host = host.device(name, move || card(name));
        }
        // Every kernel set of the engine is a device, so that none can be left out of the matrix.
        kernel_sets().iter().fold(host, |host, set| {
            host.device(format!("cpu-{}", set.name), || match (set.detect)() {
                Ok(_) => Availability::Available,
                Err(missing) => Availability::unavailable(
                    format!("cpu-{}", set.name),
                    missing.reason,
                    format!("run on a processor with {}", set.isa),
                ),
            })
        })
    }

    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().map(|(name, _)| name.as_str())
    }

    pub fn device(
        mut self,
        name: impl Into<String>,
        detect: impl Fn() -> Availability + Send + Sync + 'static,
    ) -> Self {
        self.devices.push((name.into(), Arc::new(detect)));
        self
    }

    pub fn backend(
        mut self,
        name: impl Into<String>,
        detect: impl Fn() -> Availability + Send + Sync + 'static,
    ) -> Self {
        self.backends.push((name.into(), Arc::new(detect)));
        self
    }

    /// Compares the table with the declaration.
    pub fn validate(&self, declaration: &Declaration, problems: &mut Vec<Problem>) {
        for (axis, table) in [(Axis::Device, &self.devices), (Axis::Backend, &self.backends)] {
            let registered: Vec<&str> = table.iter().map(|(name, _)| name.as_str()).collect();
            let declared = declaration.axes.values(axis);
            implementations(axis, declared, &registered, PLACE, problems);
        }
    }

    /// Asks every device, backend and model once.
    pub fn survey(&self, declaration: &Declaration, paths: &Paths) -> Survey {
        let mut answers = BTreeMap::new();
        for (axis, table) in [(Axis::Device, &self.devices), (Axis::Backend, &self.backends)] {
            for (name, detect) in table {
                answers.insert((axis, name.clone()), detect());
            }
        }
        for model in &declaration.matrix.models {
            answers.insert((Axis::Model, model.name.clone()), self.model(model, paths));
        }
        Survey { answers }
    }

    fn model(&self, model: &Model, paths: &Paths) -> Availability {
        match &model.source {
            // What is in the repository or made from a seed is always here: should it be missing, that is
            // a failure of its cells, not a property of the host.
            Source::Embedded { .. } | Source::Generated { .. } | Source::Formats | Source::Hub => {
                Availability::Available
            }
            Source::Vocabulary { vocabulary, .. } => match vocabularies::by_name(vocabulary) {
                Some(entry) => match entry.availability(paths) {
                    Availability::Available => Availability::Available,
                    Availability::Unavailable { reason, remedy, .. } => {
                        Availability::unavailable(&model.name, reason, remedy)
                    }
                },
                // Its cells say what is wrong with the declaration.
                None => Availability::Available,
            },
            Source::Fixture { file } => {
                let path = paths.fixtures.join(file);
                if path.is_file() {
                    Availability::Available
                } else {
                    Availability::unavailable(
                        &model.name,
                        format!("the fixture {file} has not been fetched"),
                        format!("cargo xtask fixtures fetch {}", model.name),
                    )
                }
            }
            Source::Path { env } => match self.env.get(env) {
                Some(path) if paths.root.join(path).is_file() => Availability::Available,
                Some(path) => Availability::unavailable(
                    &model.name,
                    format!("{env} names {path}, which is not a file"),
                    format!("set {env} to the path of the model"),
                ),
                None => Availability::unavailable(
                    &model.name,
                    format!("{env} is not set"),
                    format!("set {env} to the path of the model"),
                ),
            },
        }
    }
}

/// Whether a card, or the emulation of one, is here. A card is not opened for that: it would compile its kernels.
fn card(name: &'static str) -> Availability {
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(error) => {
            return Availability::unavailable(name, error.to_string(), "set the variable right, or not at all");
        }
    };
    match device::cuda::available(name, &settings) {
        Ok(()) => Availability::Available,
        Err((reason, remedy)) => Availability::unavailable(name, reason, remedy),
    }
}

/// The answers of one host.
#[derive(Debug, Clone)]
pub struct Survey {
    answers: BTreeMap<(Axis, String), Availability>,
}

impl Survey {
    /// Everything that is missing for a cell, of device, backend (if the check asks it anything) and model, in this order.
    pub fn missing(&self, cell: &Cell, asks_backend: bool) -> Vec<Availability> {
        let answer = |axis: Axis| {
            let name = cell.get(axis);
            match self.answers.get(&(axis, name.to_owned())) {
                Some(Availability::Available) => None,
                Some(missing) => Some(missing.clone()),
                // Unreachable after `Host::validate`; an answer that nobody gave is not a yes.
                None => {
                    let reason = format!("nothing detects the {} `{name}`", axis.name());
                    let remedy = format!("add it to {PLACE}");
                    Some(Availability::unavailable(name, reason, remedy))
                }
            }
        };
        let axes = [Axis::Device, Axis::Backend, Axis::Model];
        axes.into_iter().filter(|axis| asks_backend || *axis != Axis::Backend).filter_map(answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn this_build_implements_the_committed_axes() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden");
        let declaration = crate::setup::declare(&golden).expect("golden folder");
        let mut problems = Vec::new();
        Host::here(Env::default(), &Paths::discover(&Env::default())).validate(&declaration, &mut problems);
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(lines, Vec::<String>::new());
    }

    #[test]
    fn a_model_by_path_names_its_variable() {
        let model: Model = toml::from_str(
            "name = \"big\"\nabout = \"\"\nfamily = \"f\"\nquants = [\"q\"]\nsource = { kind = \"path\", env = \"BIG_GGUF\" }",
        )
        .expect("model");
        let paths = Paths::discover(&Env::default());
        let answer = |pairs: &[(&str, &str)]| Host::empty(Env::from_pairs(pairs)).model(&model, &paths);
        assert_eq!(answer(&[("BIG_GGUF", "Cargo.toml")]), Availability::Available);
        for pairs in [&[][..], &[("BIG_GGUF", "no/such/file")]] {
            let Availability::Unavailable { remedy, missing, .. } = answer(pairs) else {
                panic!("available: {pairs:?}");
            };
            assert_eq!(missing, "big");
            assert!(remedy.contains("BIG_GGUF"), "{remedy}");
        }
    }
}
