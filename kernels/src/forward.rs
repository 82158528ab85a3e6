//! Kernels that are those of another set but for some.

/// Inside of an `impl` of [`Kernels`](crate::Kernels): the named methods are those of another set.
///
/// ```text
/// forward!(self, self.base; rms_norm rope add);
/// ```
#[macro_export]
macro_rules! forward {
    (@ prepare $me:ident $to:expr) => {
        fn prepare(&$me, kind: $crate::ActKind, x: &[f32], n_tokens: usize, out: &mut $crate::Activations) {
            $to.prepare(kind, x, n_tokens, out);
        }
    };
    (@ matmul $me:ident $to:expr) => {
        fn matmul(
            &$me,
            w: &$crate::Matrix<'_>,
            x: &$crate::Activations,
            rows: ::std::ops::Range<usize>,
            y: $crate::OutView<'_>,
        ) {
            $to.matmul(w, x, rows, y);
        }
    };
    (@ rms_norm $me:ident $to:expr) => {
        fn rms_norm(&$me, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
            $to.rms_norm(x, w, eps, y);
        }
    };
    (@ layer_norm $me:ident $to:expr) => {
        fn layer_norm(&$me, x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [f32]) {
            $to.layer_norm(x, w, b, eps, y);
        }
    };
    (@ gelu $me:ident $to:expr) => {
        fn gelu(&$me, x: &mut [f32]) {
            $to.gelu(x);
        }
    };
    (@ rope $me:ident $to:expr) => {
        fn rope(&$me, kind: $crate::Rope, x: &mut [f32], cos: &[f32], sin: &[f32]) {
            $to.rope(kind, x, cos, sin);
        }
    };
    (@ attention $me:ident $to:expr) => {
        fn attention(
            &$me,
            q: &[f32],
            k: &[u16],
            v: &[u16],
            stride: usize,
            n: usize,
            scale: f32,
            scratch: &mut [f32],
            out: &mut [f32],
        ) {
            $to.attention(q, k, v, stride, n, scale, scratch, out);
        }
    };
    (@ relu2_gate $me:ident $to:expr) => {
        fn relu2_gate(&$me, gate: &mut [f32], up: &[f32]) {
            $to.relu2_gate(gate, up);
        }
    };
    (@ silu_gate $me:ident $to:expr) => {
        fn silu_gate(&$me, gate: &mut [f32], up: &[f32]) {
            $to.silu_gate(gate, up);
        }
    };
    (@ add $me:ident $to:expr) => {
        fn add(&$me, x: &mut [f32], y: &[f32]) {
            $to.add(x, y);
        }
    };
    (@ f32_to_f16 $me:ident $to:expr) => {
        fn f32_to_f16(&$me, x: &[f32], out: &mut [u16]) {
            $to.f32_to_f16(x, out);
        }
    };
    ($me:ident, $to:expr; $($method:ident)*) => {
        $($crate::forward!(@ $method $me $to);)*
    };
}
