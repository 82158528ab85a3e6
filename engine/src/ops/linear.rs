//! `dst = weight * src`: the rows of a matrix times every token. How `src` is rounded before is the matrix's
//! [`act`](bitnet_kernels::Matrix::act), which the model says.

use super::{Cases, MatrixId, Operation, ShapeError, Shapes, Slot, State, Step, Unit};
use bitnet_kernels::lines::Lines;
use bitnet_kernels::parallel::{self, Product};
use bitnet_kernels::quant::{FORMATS, Format};
use bitnet_kernels::{ActKind, Activations, Kernels, Matrix, OutView};

/// A matrix product.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// Input.
    pub src: Slot,
    /// Output.
    pub dst: Slot,
    /// The matrix, `[outputs][inputs]`.
    pub weight: MatrixId,
}

pub(super) static UNIT: Unit = Unit { name: "linear", cases };

impl Operation for Linear {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.src], vec![self.dst]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (width, matrix) = (shapes.read(self.src)?, shapes.matrix(self.weight));
        shapes.ensure(width == matrix.cols, || format!("a matrix of {} columns for rows of {width}", matrix.cols))?;
        shapes.write(self.dst, matrix.rows);
        Ok(())
    }

    fn run(&self, state: &mut State<'_>) {
        run_group(std::slice::from_ref(self), state);
    }
}

/// The linear steps at the start of `steps` that read one slot, which none of them writes but the last.
pub(crate) fn group(steps: &[Step]) -> Vec<Linear> {
    let mut group: Vec<Linear> = Vec::with_capacity(3);
    for step in steps {
        match &step.op {
            super::Op::Linear(linear) if group.first().is_none_or(|first| first.src == linear.src) => {
                group.push(linear.clone());
                if linear.dst == linear.src {
                    break;
                }
            }
            _ => break,
        }
    }
    group
}

/// Computes linear steps that share an input: it is prepared once per kind, and their rows are one region.
pub(crate) fn run_group(group: &[Linear], state: &mut State<'_>) {
    let Some(Linear { src, .. }) = group.first() else { return };
    let (kernels, tensors, rows) = (state.kernels, state.tensors, state.rows());
    for kind in ActKind::ALL {
        let members: Vec<(Matrix<'_>, Slot)> = group
            .iter()
            .map(|linear| (tensors.matrix(linear.weight), linear.dst))
            .filter(|(matrix, _)| matrix.act == kind)
            .collect();
        if members.is_empty() {
            continue;
        }
        let work = &mut *state.work;
        kernels.prepare(kind, &work.slots[src.index()], rows, &mut work.prepared);
        let mut outputs: Vec<Lines<f32>> =
            members.iter().map(|(_, dst)| std::mem::take(&mut work.slots[dst.index()])).collect();
        let mut products = Vec::with_capacity(members.len());
        for (&(matrix, _), output) in members.iter().zip(&mut outputs) {
            output.resize(rows * matrix.rows);
            products.push(Product { matrix, out: output });
        }
        parallel::matmul(state.pool, kernels, &mut products, &work.prepared);
        for ((_, dst), output) in members.iter().zip(outputs) {
            work.slots[dst.index()] = output;
        }
    }
}

/// Every format with every rounding that it takes, and the sums of a screened output matrix. (The check `kernel` of the matrix goes
/// further: shapes, and inputs that were chosen to break things.)
fn cases(cases: &mut Cases<'_>) {
    let (rows, tokens) = (5, 3);
    for &format in FORMATS {
        for act in ActKind::ALL.into_iter().filter(|act| format.takes(*act)) {
            let cols = 512usize.next_multiple_of(format.block_len);
            let x = cases.values(tokens * cols, 4.0);
            let weights = weights(cases, format, rows * cols);
            let packed = (format.pack)(&weights, rows, cols).expect("every format packs finite weights of its kind");
            let matrix = Matrix::new(format, rows, cols, &packed).expect("what a format packs has its size");
            let matrix = matrix.with_act(act);
            cases.compare(&format!("{} times {act:?}", format.name), |k| {
                let mut prepared = Activations::default();
                k.prepare(act, &x, tokens, &mut prepared);
                let mut y = vec![0.0; tokens * rows];
                k.matmul(&matrix, &prepared, 0..rows, OutView::new(&mut y, tokens, rows));
                y
            });
        }
    }
    for &n in cases.some(&[1, 17, 64, 130, 512]) {
        let codes: Vec<i8> = cases.values(rows * n, 127.0).iter().map(|v| *v as i8).collect();
        let x: Vec<i16> = cases.values(n, 2000.0).iter().map(|v| *v as i16).collect();
        cases.compare(&format!("of {n} int8 by int16"), |k: &dyn Kernels| {
            let mut out = vec![0; rows];
            k.dots_i8_i16(&codes, &x, &mut out);
            // Sums below 2^24 are exact in f32.
            out.into_iter().map(|sum| (sum % (1 << 24)) as f32).collect()
        });
    }
}

fn weights(cases: &mut Cases<'_>, format: &Format, n: usize) -> Vec<f32> {
    let ternary = |v: f32| 0.5 * v.clamp(-1.0, 1.0).trunc();
    let values = cases.values(n, 3.0);
    if format.takes(ActKind::I8) { values.into_iter().map(ternary).collect() } else { values }
}
