//! The cells that a declaration makes.

use super::Problem;
use crate::axes::{Axes, Axis, Cell};
use bitnet_golden::matrix::{Backend, Device, Matrix, Model, Rectangle};
use std::collections::BTreeSet;

/// All declared cells in a stable order: by check as declared, then model, quant, device, backend.
///
/// What a backend does not know makes no cell. Mistakes of the declaration (empty or overlapping rectangles, unknown names,
/// facts about nothing, another number of cells than the check says) go to `problems`.
pub(super) fn expand(matrix: &Matrix, axes: &Axes, problems: &mut Vec<Problem>) -> Vec<Cell> {
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
