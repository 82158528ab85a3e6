//! The axes of the matrix as data, and the cells that they make.
//!
//! A cell is `model::quant::device::backend::check`. The name is the nextest name, the record's key and
//! the bench's id, so it never holds a status and never depends on the host: which cells exist follows
//! from `golden/matrix.toml` alone.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use bitnet_golden::matrix::{Backend, Device, Matrix, Model, Rectangle};

use crate::setup::Problem;

/// One axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Axis {
    Model,
    /// The weight format.
    Quant,
    /// What computes.
    Device,
    /// What it is checked against.
    Backend,
    /// What is checked.
    Check,
}

impl Axis {
    /// All axes in the order of a cell's name.
    pub const ALL: [Axis; 5] = [Axis::Model, Axis::Quant, Axis::Device, Axis::Backend, Axis::Check];

    pub fn name(self) -> &'static str {
        match self {
            Axis::Model => "model",
            Axis::Quant => "quant",
            Axis::Device => "device",
            Axis::Backend => "backend",
            Axis::Check => "check",
        }
    }

    pub fn flag(self) -> &'static str {
        match self {
            Axis::Model => "--model",
            Axis::Quant => "--quant",
            Axis::Device => "--device",
            Axis::Backend => "--backend",
            Axis::Check => "--check",
        }
    }

    pub fn env(self) -> &'static str {
        match self {
            Axis::Model => "MATRIX_MODEL",
            Axis::Quant => "MATRIX_QUANT",
            Axis::Device => "MATRIX_DEVICE",
            Axis::Backend => "MATRIX_BACKEND",
            Axis::Check => "MATRIX_CHECK",
        }
    }
}

/// One cell of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    pub model: String,
    pub quant: String,
    pub device: String,
    pub backend: String,
    pub check: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a cell name; it has the form model::quant::device::backend::check")]
pub struct CellNameError(pub String);

impl Cell {
    /// The value on one axis.
    pub fn get(&self, axis: Axis) -> &str {
        match axis {
            Axis::Model => &self.model,
            Axis::Quant => &self.quant,
            Axis::Device => &self.device,
            Axis::Backend => &self.backend,
            Axis::Check => &self.check,
        }
    }

    /// All five values in the order of the name.
    pub fn parts(&self) -> [&str; 5] {
        Axis::ALL.map(|axis| self.get(axis))
    }

    /// What the golden truth is keyed by: device and backend are left out, since all of them must meet
    /// one truth.
    pub fn golden_key(&self) -> String {
        format!("{}::{}::{}", self.model, self.quant, self.check)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts().join("::"))
    }
}

impl FromStr for Cell {
    type Err = CellNameError;

    fn from_str(text: &str) -> Result<Self, CellNameError> {
        let parts: Vec<&str> = text.split("::").collect();
        match parts.as_slice() {
            [model, quant, device, backend, check] if parts.iter().all(|p| valid_name(p)) => Ok(Cell {
                model: (*model).to_owned(),
                quant: (*quant).to_owned(),
                device: (*device).to_owned(),
                backend: (*backend).to_owned(),
                check: (*check).to_owned(),
            }),
            _ => Err(CellNameError(text.to_owned())),
        }
    }
}

/// Whether a text can be an axis value: it becomes part of test names, file names and shell commands on
/// every platform, and `__` separates the parts in file names.
pub fn valid_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(ok)
        && !name.contains("__")
        && !name.ends_with('_')
}

/// The valid values of each axis, in the order of `matrix.toml`.
#[derive(Debug, Clone)]
pub struct Axes {
    values: [Vec<String>; 5],
}

impl Axes {
    /// Reads them off the declaration; quants are the union over the models.
    pub fn of(matrix: &Matrix) -> Self {
        let mut quants: Vec<String> = Vec::new();
        for quant in matrix.models.iter().flat_map(|model| &model.quants) {
            if !quants.contains(quant) {
                quants.push(quant.clone());
            }
        }
        let values = [
            matrix.models.iter().map(|m| m.name.clone()).collect(),
            quants,
            matrix.devices.iter().map(|d| d.name.clone()).collect(),
            matrix.backends.iter().map(|b| b.name.clone()).collect(),
            matrix.checks.iter().map(|c| c.name.clone()).collect(),
        ];
        Self { values }
    }

    pub fn values(&self, axis: Axis) -> &[String] {
        let [model, quant, device, backend, check] = &self.values;
        match axis {
            Axis::Model => model,
            Axis::Quant => quant,
            Axis::Device => device,
            Axis::Backend => backend,
            Axis::Check => check,
        }
    }

    pub fn has(&self, axis: Axis, value: &str) -> bool {
        self.values(axis).iter().any(|known| known == value)
    }
}

/// All declared cells in a stable order: by check as declared, then model, quant, device, backend.
///
/// What a backend does not know makes no cell. Mistakes of the declaration (empty or overlapping rectangles, unknown names,
/// facts about nothing, another number of cells than the check says) go to `problems`.
pub fn expand(matrix: &Matrix, axes: &Axes, problems: &mut Vec<Problem>) -> Vec<Cell> {
    let mut seen = BTreeSet::new();
    let mut cells = Vec::new();
    facts(matrix, axes, problems);
    for check in &matrix.checks {
        let before = cells.len();
        for rectangle in &check.cells {
            unknown_values(&check.name, rectangle, axes, problems);
            let made = fill(matrix, &check.name, rectangle);
            if made.is_empty() {
                problems
                    .push(Problem::EmptyRectangle { check: check.name.clone(), rectangle: format!("{rectangle:?}") });
            }
            for cell in made {
                if seen.insert(cell.clone()) {
                    cells.push(cell);
                } else {
                    problems.push(Problem::DeclaredTwice { cell: cell.to_string() });
                }
            }
        }
        let made = cells.len() - before;
        if let Some(count) = check.count.filter(|count| *count != made) {
            problems.push(Problem::Count { check: check.name.clone(), count, made });
        }
    }
    cells
}

/// What backends do not know must be about something that is declared.
fn facts(matrix: &Matrix, axes: &Axes, problems: &mut Vec<Problem>) {
    for backend in &matrix.backends {
        let place = || format!("matrix.toml, what the backend `{}` does not know", backend.name);
        for unknown in &backend.unknown {
            for (axis, values) in [(Axis::Model, &unknown.models), (Axis::Quant, &unknown.quants)] {
                for value in values.iter().filter(|value| !axes.has(axis, value)) {
                    let valid = axes.values(axis).to_vec();
                    problems.push(Problem::UnknownValue { place: place(), axis, value: value.clone(), valid });
                }
            }
            if !matrix.models.iter().any(|model| model.quants.iter().any(|quant| unknown.covers(model, quant))) {
                problems.push(Problem::StaleFact { place: place(), reason: unknown.reason.clone() });
            }
        }
    }
}

fn unknown_values(check: &str, r: &Rectangle, axes: &Axes, problems: &mut Vec<Problem>) {
    let named =
        [(Axis::Model, &r.models), (Axis::Quant, &r.quants), (Axis::Device, &r.devices), (Axis::Backend, &r.backends)];
    for (axis, values) in named {
        for value in values {
            if value != "*" && !axes.has(axis, value) {
                problems.push(Problem::UnknownValue {
                    place: format!("matrix.toml, cells of check `{check}`"),
                    axis,
                    value: value.clone(),
                    valid: axes.values(axis).to_vec(),
                });
            }
        }
    }
}

fn fill(matrix: &Matrix, check: &str, r: &Rectangle) -> Vec<Cell> {
    let picked = |list: &[String], name: &str| list.iter().any(|v| v == "*" || v == name);
    let model_picked = |model: &Model| {
        r.models.contains(&model.name) || (model.source.is_model() && r.models.iter().any(|v| v == "*"))
    };
    let device_picked = |device: &Device| {
        r.devices.contains(&device.name) || (!device.named_only && r.devices.iter().any(|v| v == "*"))
    };
    let mut cells = Vec::new();
    for model in matrix.models.iter().filter(|m| model_picked(m)) {
        for quant in model.quants.iter().filter(|q| picked(&r.quants, q)) {
            for device in matrix.devices.iter().filter(|d| device_picked(d)) {
                let can_be = |b: &&Backend| picked(&r.backends, &b.name) && b.unknown(model, quant).is_none();
                for backend in matrix.backends.iter().filter(can_be) {
                    cells.push(Cell {
                        model: model.name.clone(),
                        quant: quant.clone(),
                        device: device.name.clone(),
                        backend: backend.name.clone(),
                        check: check.to_owned(),
                    });
                }
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_round_trip() {
        let name = "tiny-bitnet::i2_s::cpu-avx2::native::digest";
        let cell: Cell = name.parse().expect("cell");
        assert_eq!(cell.to_string(), name);
        assert_eq!(cell.golden_key(), "tiny-bitnet::i2_s::digest");
    }

    #[test]
    fn other_texts_are_no_names() {
        for text in ["", "a::b::c::d", "a::b::c::d::e::f", "A::b::c::d::e", "a::b::c::d::e__f", "a::b::::d::e"] {
            assert!(text.parse::<Cell>().is_err(), "{text}");
        }
    }

    fn matrix(text: &str) -> Matrix {
        toml::from_str(text).expect("matrix")
    }

    const BASE: &str = r#"
        schema = 1
        [[model]]
        name = "m"
        about = ""
        family = "f"
        quants = ["q1", "q2"]
        source = { kind = "embedded", file = "m" }
        [[model]]
        name = "bare"
        about = ""
        family = "none"
        quants = ["q1"]
        source = { kind = "formats" }
        [[model]]
        name = "net"
        about = ""
        family = "none"
        quants = ["fault"]
        source = { kind = "hub" }
        [[device]]
        name = "d"
        about = ""
        [[device]]
        name = "card"
        about = ""
        named_only = true
        [[backend]]
        name = "b"
        about = ""
    "#;

    fn expand_with(checks: &str) -> (Vec<String>, Vec<String>) {
        let matrix = matrix(&format!("{BASE}{checks}"));
        let mut problems = Vec::new();
        let cells = expand(&matrix, &Axes::of(&matrix), &mut problems);
        (cells.iter().map(Cell::to_string).collect(), problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn a_star_leaves_out_the_pseudo_models() {
        let (cells, problems) = expand_with("[[check]]\nname = \"c\"\nabout = \"\"\ncells = [{}]");
        assert_eq!(cells, ["m::q1::d::b::c", "m::q2::d::b::c"]);
        assert_eq!(problems, Vec::<String>::new());
        let (cells, _) = expand_with("[[check]]\nname = \"c\"\nabout = \"\"\ncells = [{ models = [\"bare\"] }]");
        assert_eq!(cells, ["bare::q1::d::b::c"]);
        let (cells, _) = expand_with("[[check]]\nname = \"c\"\nabout = \"\"\ncells = [{ models = [\"net\"] }]");
        assert_eq!(cells, ["net::fault::d::b::c"]);
    }

    #[test]
    fn a_device_that_wants_to_be_named_is_in_no_star() {
        let cells = |devices: &str| {
            let cells = format!("{{ models = [\"m\"], quants = [\"q1\"], devices = {devices} }}");
            expand_with(&format!("[[check]]\nname = \"c\"\nabout = \"\"\ncells = [{cells}]")).0
        };
        assert_eq!(cells("[\"*\"]"), ["m::q1::d::b::c"]);
        assert_eq!(cells("[\"card\"]"), ["m::q1::card::b::c"]);
        assert_eq!(cells("[\"*\", \"card\"]"), ["m::q1::d::b::c", "m::q1::card::b::c"]);
    }

    #[test]
    fn what_a_backend_does_not_know_is_no_cell() {
        let unknown =
            "[[backend]]\nname = \"ref\"\nabout = \"\"\n[[backend.unknown]]\nquants = [\"q1\"]\nreason = \"younger\"\n";
        let check = |cells: &str| format!("[[check]]\nname = \"c\"\nabout = \"\"\n{cells}\n");
        let (cells, problems) = expand_with(&format!("{unknown}{}", check("count = 3\ncells = [{}]")));
        assert_eq!(cells, ["m::q1::d::b::c", "m::q2::d::b::c", "m::q2::d::ref::c"]);
        assert_eq!(problems, Vec::<String>::new());
        // A rectangle of nothing else is a mistake, and so is a number that no longer holds.
        let named = check("cells = [{ quants = [\"q1\"], backends = [\"ref\"] }]");
        let (_, problems) = expand_with(&format!("{unknown}{named}"));
        assert!(problems[0].contains("makes no cell"), "{problems:?}");
        let (_, problems) = expand_with(&format!("{unknown}{}", check("count = 4\ncells = [{}]")));
        assert_eq!(
            problems,
            [
                "matrix.toml: the check `c` has 3 cells, its `count` says 4; find out which cells came or went, then correct it"
            ]
        );
        let (_, problems) = expand_with(&format!("{}{}", unknown.replace("q1", "q7"), check("cells = [{}]")));
        assert!(problems[0].contains("unknown quant `q7`") && problems[1].contains("younger"), "{problems:?}");
    }

    #[test]
    fn mistakes_are_named() {
        let check = |cells: &str| expand_with(&format!("[[check]]\nname = \"c\"\nabout = \"\"\ncells = [{cells}]")).1;
        let unknown = check("{ quants = [\"q9\", \"q1\"] }");
        assert!(unknown[0].contains("`q9`") && unknown[0].contains("q1, q2"), "{unknown:?}");
        let empty = check("{ models = [\"bare\"], quants = [\"q2\"] }");
        assert!(empty[0].contains("no cell"), "{empty:?}");
        let twice = check("{}, { quants = [\"q2\"] }");
        assert!(twice[0].contains("m::q2::d::b::c") && twice[0].contains("twice"), "{twice:?}");
    }
}
