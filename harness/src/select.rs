//! Which cells a run is about: our flags, their environment twins, and what is required.
//!
//! Our flags are taken out of the command line first; the rest belongs to libtest-mimic (name filter,
//! `--list`, `--exact`, `--skip`, `--format`, `--ignored`, `--test-threads`, ...). A flag wins over its
//! environment twin; `--require` and `MATRIX_REQUIRE` add up.

use crate::axes::{Axes, Axis, Cell};
use crate::env::{self, Env};

/// Help for our own flags, printed before libtest-mimic's.
pub const HELP: &str = "\
Selection of cells (comma lists, repeatable, exact names; environment twins in brackets):
      --model <NAMES>    [MATRIX_MODEL]
      --quant <NAMES>    [MATRIX_QUANT]
      --device <NAMES>   [MATRIX_DEVICE]
      --backend <NAMES>  [MATRIX_BACKEND]
      --check <NAMES>    [MATRIX_CHECK]
      --require <NAMES>  [MATRIX_REQUIRE] models, devices, backends or checks that must be available:
                         what needs them fails where it would be shown as unavailable
      --all-devices      [MATRIX_ALL_DEVICES] one test for each cell of a device that this host does not have, where
                         there is one line for each device otherwise

Exit codes: 0 all is as it should be; 101 a cell failed or the accounting does not add up;
2 the command line, the data or the registration is wrong (nothing was run).

";

/// A command line that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("{flag} needs a value: a name, or names joined by commas")]
    MissingValue { flag: String },
    #[error("{origin}: unknown {axis} `{value}`; valid: {valid}", axis = axis.name(), valid = valid.join(", "))]
    UnknownValue { origin: String, axis: Axis, value: String, valid: Vec<String> },
    #[error("{origin}: unknown name `{value}`; valid: {valid}", valid = valid.join(", "))]
    UnknownRequirement { origin: String, value: String, valid: Vec<String> },
    #[error("the selection {selection} matches none of the {declared} declared cells; `--list` without it shows them")]
    Empty { selection: String, declared: usize },
}

/// The values that were asked for on one axis, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    axis: Axis,
    origin: String,
    values: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct CommandLine {
    wanted: Vec<Wanted>,
    required: Vec<(String, String)>,
    /// Whether one of our selection flags was on the command line itself.
    pub by_flag: bool,
    /// Whether cells of devices that are not here are tests as well, not one line for each device.
    pub all_devices: bool,
    /// What is left for libtest-mimic, the program's name included.
    pub rest: Vec<String>,
}

impl CommandLine {
    /// Parses `argv` (with the program's name) and the environment.
    ///
    /// # Errors
    /// [`UsageError::MissingValue`].
    pub fn parse(argv: &[String], env: &Env) -> Result<Self, UsageError> {
        let mut line = Self { all_devices: env.on(env::MATRIX_ALL_DEVICES), ..Self::default() };
        let mut args = argv.iter();
        line.rest.extend(args.next().cloned());
        while let Some(arg) = args.next() {
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            if arg == ALL_DEVICES {
                line.all_devices = true;
                continue;
            }
            let axis = Axis::ALL.into_iter().find(|axis| axis.flag() == flag);
            if axis.is_none() && flag != "--require" {
                line.rest.push(arg.clone());
                continue;
            }
            let missing = || UsageError::MissingValue { flag: flag.to_owned() };
            let value = match inline {
                Some(value) => value,
                None => args.next().filter(|v| !v.starts_with("--")).cloned().ok_or_else(missing)?,
            };
            let values = names(&value);
            if values.is_empty() {
                return Err(missing());
            }
            line.by_flag |= axis.is_some();
            line.add(axis, flag, values);
        }
        for axis in Axis::ALL {
            let given = line.wanted.iter().any(|wanted| wanted.axis == axis);
            if let Some(value) = env.get(axis.env()).filter(|_| !given) {
                line.add(Some(axis), axis.env(), names(value));
            }
        }
        if let Some(value) = env.get(env::MATRIX_REQUIRE) {
            line.add(None, env::MATRIX_REQUIRE, names(value));
        }
        Ok(line)
    }

    fn add(&mut self, axis: Option<Axis>, origin: &str, values: Vec<String>) {
        let Some(axis) = axis else {
            self.required.extend(values.into_iter().map(|value| (origin.to_owned(), value)));
            return;
        };
        match self.wanted.iter_mut().find(|wanted| wanted.axis == axis) {
            Some(wanted) => wanted.values.extend(values),
            None => self.wanted.push(Wanted { axis, origin: origin.to_owned(), values }),
        }
    }

    /// Checks every name against the declared values.
    ///
    /// # Errors
    /// One [`UsageError`] for each unknown name.
    pub fn validate(&self, axes: &Axes) -> Result<(), Vec<UsageError>> {
        let mut errors = Vec::new();
        for wanted in &self.wanted {
            for value in &wanted.values {
                if !axes.has(wanted.axis, value) {
                    errors.push(UsageError::UnknownValue {
                        origin: wanted.origin.clone(),
                        axis: wanted.axis,
                        value: value.clone(),
                        valid: axes.values(wanted.axis).to_vec(),
                    });
                }
            }
        }
        for (origin, value) in &self.required {
            let known = REQUIRABLE.into_iter().any(|axis| axes.has(axis, value));
            if !known {
                let valid = REQUIRABLE.into_iter().flat_map(|axis| axes.values(axis));
                errors.push(UsageError::UnknownRequirement {
                    origin: origin.clone(),
                    value: value.clone(),
                    valid: valid.cloned().collect(),
                });
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Whether the selection includes the cell. No selection on an axis includes all of it.
    pub fn selects(&self, cell: &Cell) -> bool {
        self.wanted.iter().all(|wanted| wanted.values.iter().any(|value| value == cell.get(wanted.axis)))
    }

    /// Whether the selection, by flag or environment, names this value of the axis.
    pub fn names(&self, axis: Axis, value: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted.axis == axis && wanted.values.iter().any(|named| named == value))
    }

    pub fn selects_on(&self, axis: Axis) -> bool {
        self.wanted.iter().any(|wanted| wanted.axis == axis)
    }

    pub fn requires(&self, name: &str) -> bool {
        self.required.iter().any(|(_, required)| required == name)
    }

    /// The selection as flags, for messages.
    pub fn selection(&self) -> String {
        let part = |wanted: &Wanted| format!("{} {}", wanted.origin, wanted.values.join(","));
        self.wanted.iter().map(part).collect::<Vec<_>>().join(" ")
    }
}

const ALL_DEVICES: &str = "--all-devices";

/// The axes whose values can be required. A weight format is nothing that a host has or lacks.
const REQUIRABLE: [Axis; 4] = [Axis::Backend, Axis::Device, Axis::Model, Axis::Check];

fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(args: &[&str]) -> Vec<String> {
        std::iter::once("matrix").chain(args.iter().copied()).map(str::to_owned).collect()
    }

    fn parse(args: &[&str], env: &[(&str, &str)]) -> CommandLine {
        CommandLine::parse(&argv(args), &Env::from_pairs(env)).expect("command line")
    }

    fn cell(name: &str) -> Cell {
        name.parse().expect("cell")
    }

    #[test]
    fn our_flags_are_taken_out_and_the_rest_passes() {
        let line =
            parse(&["--list", "--model", "a,b", "--exact", "--device=d", "--model=c", "name", "--skip", "x"], &[]);
        assert_eq!(line.rest, ["matrix", "--list", "--exact", "name", "--skip", "x"]);
        assert!(line.by_flag);
        assert!(line.selects(&cell("c::q::d::b::k")));
        assert!(!line.selects(&cell("c::q::d2::b::k")));
        assert!(!line.selects(&cell("ab::q::d::b::k")));
    }

    #[test]
    fn a_flag_wins_over_its_twin_and_requirements_add_up() {
        let env = [("MATRIX_MODEL", "x"), ("MATRIX_CHECK", "k"), ("MATRIX_REQUIRE", "r1,r2")];
        let line = parse(&["--model", "a", "--require", "r3"], &env);
        assert!(line.selects(&cell("a::q::d::b::k")));
        assert!(!line.selects(&cell("x::q::d::b::k")));
        assert!(!line.selects(&cell("a::q::d::b::k2")));
        assert!(["r1", "r2", "r3"].iter().all(|name| line.requires(name)));
        let line = parse(&[], &env);
        assert!(!line.by_flag);
        assert!(!line.selection().is_empty());
    }

    #[test]
    fn an_empty_twin_selects_nothing_away() {
        let line = parse(&[], &[("MATRIX_MODEL", "")]);
        assert!(line.selection().is_empty());
        assert!(line.selects(&cell("a::q::d::b::k")));
    }

    #[test]
    fn all_devices_is_a_switch_with_a_twin() {
        let line = parse(&["--all-devices", "--list"], &[]);
        assert!(line.all_devices && !line.by_flag);
        assert_eq!(line.rest, ["matrix", "--list"]);
        assert!(parse(&[], &[("MATRIX_ALL_DEVICES", "1")]).all_devices);
        assert!(!parse(&[], &[("MATRIX_ALL_DEVICES", "0")]).all_devices);
        let line = parse(&["--device", "d"], &[("MATRIX_MODEL", "m")]);
        assert!(line.names(Axis::Device, "d") && line.names(Axis::Model, "m") && !line.names(Axis::Device, "e"));
    }

    #[test]
    fn a_flag_without_value_is_an_error() {
        for args in [&["--model"][..], &["--model", "--list"], &["--model="], &["--model", ","]] {
            let error = CommandLine::parse(&argv(args), &Env::default()).expect_err("no value");
            assert!(error.to_string().contains("--model needs a value"), "{error}");
        }
    }

    #[test]
    fn unknown_names_list_the_valid_ones() {
        let matrix = toml::from_str(
            "schema = 1\n[[device]]\nname = \"d1\"\nabout = \"\"\n[[backend]]\nname = \"b1\"\nabout = \"\"\n",
        )
        .expect("matrix");
        let axes = Axes::of(&matrix);
        let errors =
            parse(&["--device", "d1,d2", "--require", "b1,zz"], &[]).validate(&axes).expect_err("two unknown names");
        let lines: Vec<String> = errors.iter().map(UsageError::to_string).collect();
        assert_eq!(lines, ["--device: unknown device `d2`; valid: d1", "--require: unknown name `zz`; valid: b1, d1"]);
    }
}
