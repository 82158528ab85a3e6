//! A mixture of experts: each token takes the few feed-forward blocks that its router likes most.
//!
//! ```text
//! p      = softmax(router logits), over all experts
//! chosen = the `used` largest of p; of equal ones the lower index
//! dst    = sum over chosen, largest first, of p_e / max(sum of the chosen p, 6.1e-5) * down_e(h_e)
//! h_e    = silu(min(gate_e(src), limit)) * clamp(up_e(src), -limit, limit)
//! ```
//!
//! The order of the sum is that of the choice, so that what else is computed beside a token changes none of its bits.

use super::{Cases, MatrixId, Operation, ShapeError, Shapes, Slot, State, Unit};
use bitnet_kernels::numerics::softmax_parts;
use bitnet_kernels::parallel::{self, Product};
use bitnet_kernels::{Activations, Matrix};

/// The least that the chosen probabilities are divided by, as llama.cpp has it: the smallest normal f16.
const LEAST: f32 = 6.103_515_6e-5;

/// The matrices of one expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Expert {
    /// `[inner][width]`.
    pub gate: MatrixId,
    /// `[inner][width]`.
    pub up: MatrixId,
    /// `[width][inner]`.
    pub down: MatrixId,
}

/// The experts of a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Their input.
    pub src: Slot,
    /// The sum; may be `src`.
    pub dst: Slot,
    /// All of them; [`Slot::Router`] has a logit for each.
    pub experts: Vec<Expert>,
    /// Chosen for each token.
    pub used: usize,
    /// Bounds gate and up projections; infinite for none.
    pub limit: f32,
}

pub(super) static UNIT: Unit = Unit { name: "experts", cases };

/// A row that an expert computes: the token, its rank among the token's choices, its share.
#[derive(Clone, Copy)]
struct Share {
    token: usize,
    rank: usize,
    weight: f32,
}

impl Operation for Experts {
    fn slots(&self) -> [Vec<Slot>; 2] {
        [vec![self.src, Slot::Router], vec![self.dst]]
    }

    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError> {
        let (width, router) = (shapes.read(self.src)?, shapes.read(Slot::Router)?);
        let experts = self.experts.len();
        shapes.ensure(router == experts, || format!("{router} router logits for {experts} experts"))?;
        shapes.ensure((1..=experts).contains(&self.used), || format!("{} of {experts} experts are used", self.used))?;
        for Expert { gate, up, down } in &self.experts {
            let [gate, up, down] = [gate, up, down].map(|id| shapes.matrix(*id));
            let inner = gate.rows;
            let fits = [gate.cols, up.cols, down.rows] == [width; 3] && [up.rows, down.cols] == [inner; 2];
            shapes.ensure(fits, || format!("an expert whose matrices do not fit each other and rows of {width}"))?;
        }
        shapes.write(self.dst, width);
        Ok(())
    }

    fn run(&self, state: &mut State<'_>) {
        let rows = state.rows();
        let src = std::mem::take(state.slot_mut(self.src));
        let width = src.len() / rows.max(1);
        let shares = choose(state.slot(Slot::Router), self.experts.len(), self.used);
        let mut terms = vec![0.0; rows * self.used * width];
        for (expert, shares) in self.experts.iter().zip(&shares).filter(|(_, shares)| !shares.is_empty()) {
            let input: Vec<f32> =
                shares.iter().flat_map(|s| &src[s.token * width..(s.token + 1) * width]).copied().collect();
            let output = self.compute(expert, &input, shares.len(), state);
            for (share, row) in shares.iter().zip(output.chunks_exact(width)) {
                let at = (share.token * self.used + share.rank) * width;
                terms[at..at + width].iter_mut().zip(row).for_each(|(term, y)| *term = y * share.weight);
            }
        }
        *state.slot_mut(self.src) = src;
        let out = state.slot_mut(self.dst);
        out.resize(rows * width);
        for (out, terms) in out.chunks_exact_mut(width).zip(terms.chunks_exact(self.used * width)) {
            for (i, out) in out.iter_mut().enumerate() {
                *out = terms[i..].iter().step_by(width).fold(0.0, |sum, term| sum + term);
            }
        }
    }
}

impl Experts {
    /// `down(h)` for some rows.
    fn compute(&self, expert: &Expert, input: &[f32], rows: usize, state: &mut State<'_>) -> Vec<f32> {
        let (tensors, kernels, pool) = (state.tensors, state.kernels, state.pool);
        let [gate, up, down] = [expert.gate, expert.up, expert.down].map(|id| tensors.matrix(id));
        let prepared = &mut state.work.prepared;
        let product = |matrix: Matrix<'_>, x: &[f32], prepared: &mut Activations| {
            let mut out = vec![0.0; rows * matrix.rows];
            kernels.prepare(matrix.act, x, rows, prepared);
            parallel::matmul(pool, kernels, &mut [Product { matrix, out: &mut out }], prepared);
            out
        };
        let mut hidden = product(gate, input, prepared);
        let mut factors = product(up, input, prepared);
        hidden.iter_mut().for_each(|g| *g = at_most(*g, self.limit));
        factors.iter_mut().for_each(|u| *u = at_most(at_most(*u, self.limit), -self.limit));
        kernels.silu_gate(&mut hidden, &factors);
        product(down, &hidden, prepared)
    }
}

/// `min(x, limit)`, or `max` with a negative limit; a NaN stays one.
fn at_most(x: f32, limit: f32) -> f32 {
    let beyond = if limit < 0.0 { x < limit } else { x > limit };
    if beyond { limit } else { x }
}

/// The rows of each expert.
fn choose(router: &[f32], experts: usize, used: usize) -> Vec<Vec<Share>> {
    let mut shares = vec![Vec::new(); experts];
    for (token, logits) in router.chunks_exact(experts).enumerate() {
        let mut p = logits.to_vec();
        let z = softmax_parts(&mut p);
        p.iter_mut().for_each(|p| *p /= z);
        let mut order: Vec<usize> = (0..experts).collect();
        // Stable: of equal ones the lower index stays ahead.
        order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
        order.truncate(used);
        let sum = order.iter().fold(0.0, |sum, e| sum + p[*e]).max(LEAST);
        for (rank, expert) in order.into_iter().enumerate() {
            shares[expert].push(Share { token, rank, weight: p[expert] / sum });
        }
    }
    shares
}

/// The clamped gate; products are those of `linear`, the choice is not a kernel's.
fn cases(cases: &mut Cases<'_>) {
    for &n in cases.some(&super::cases::LENGTHS) {
        let (gate, up) = (cases.values(n, 20.0), cases.values(n, 20.0));
        cases.compare(&format!("of {n}, gated within 7"), |k| {
            let mut out: Vec<f32> = gate.iter().map(|g| at_most(*g, 7.0)).collect();
            let up: Vec<f32> = up.iter().map(|u| at_most(at_most(*u, 7.0), -7.0)).collect();
            k.silu_gate(&mut out, &up);
            out
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_experts_share_one() {
        let shares = choose(&[0.0, 2.0, 2.0, -1.0, 5.0, 0.0, 0.0, 0.0], 4, 2);
        let of = |expert: usize| shares[expert].iter().map(|s| (s.token, s.rank, s.weight)).collect::<Vec<_>>();
        // Of equal logits the lower index is first, and their shares are halves.
        assert_eq!((of(1)[0], of(2)[0]), ((0, 0, 0.5), (0, 1, 0.5)));
        assert_eq!((of(0).len(), of(3).len()), (1, 0), "the second token: 0, then 1");
        assert!(of(0)[0].2 > 0.9 && of(1)[1].1 == 1);
    }

    /// Where probabilities are tiny they are not made large.
    #[test]
    fn shares_of_next_to_nothing_stay_small() {
        let many = 20_000;
        let shares = choose(&vec![1.0; many], many, 1);
        assert!((shares[0][0].weight - 5e-5 / LEAST).abs() < 1e-4, "{}", shares[0][0].weight);
    }

    #[test]
    fn limits_bound_both_sides() {
        assert_eq!([at_most(9.0, 7.0), at_most(-9.0, 7.0), at_most(-9.0, -7.0)], [7.0, -9.0, -7.0]);
        assert_eq!(at_most(9.0, f32::INFINITY), 9.0);
        assert!(at_most(f32::NAN, 7.0).is_nan());
        assert_eq!([at_most(5.0, 0.0), at_most(-5.0, 0.0)], [0.0, -5.0]);
    }
}
