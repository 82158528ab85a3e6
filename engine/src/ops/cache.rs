//! The KV cache: keys and values of every position seen, in f16.
//!
//! Layout per layer: `[kv_head][capacity][head_dim]`, so that one head's positions are contiguous. The memory is
//! zeroed by the operating system page by page as it is first touched: a long capacity costs nothing until it is used.

use bitnet_kernels::Kernels;

/// Keys and values of one model's layers.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Layer>,
    capacity: usize,
    kv_heads: usize,
    head_dim: usize,
}

#[derive(Debug)]
struct Layer {
    keys: Vec<u16>,
    values: Vec<u16>,
}

impl KvCache {
    /// An empty cache for `capacity` positions; `None` if this machine has not that much memory to promise. (A vector
    /// that cannot be had ends the process, so all of it is asked for once in a way that may fail.)
    pub fn new(layers: usize, capacity: usize, kv_heads: usize, head_dim: usize) -> Option<Self> {
        let len = capacity.checked_mul(kv_heads)?.checked_mul(head_dim)?;
        let mut all: Vec<u16> = Vec::new();
        all.try_reserve_exact(len.checked_mul(2)?.checked_mul(layers)?).ok()?;
        // Otherwise the compiler may see that nobody uses it and not ask at all.
        drop(std::hint::black_box(all));
        let layer = || Layer { keys: vec![0; len], values: vec![0; len] };
        Some(Self { layers: (0..layers).map(|_| layer()).collect(), capacity, kv_heads, head_dim })
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes reserved (not all of them touched).
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|l| 2 * (l.keys.len() + l.values.len())).sum()
    }

    /// Stores the keys and values of consecutive positions, each `[tokens][kv_heads * head_dim]`.
    pub(crate) fn append(
        &mut self,
        kernels: &dyn Kernels,
        layer: usize,
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let (dim, capacity) = (self.head_dim, self.capacity);
        let layer = &mut self.layers[layer];
        for (source, target) in [(keys, &mut layer.keys), (values, &mut layer.values)] {
            for (token, row) in source.chunks_exact(self.kv_heads * dim).enumerate() {
                for (head, part) in row.chunks_exact(dim).enumerate() {
                    let start = (head * capacity + position + token) * dim;
                    kernels.f32_to_f16(part, &mut target[start..start + dim]);
                }
            }
        }
    }

    /// Keys and values of one head, from position 0, `head_dim` apart.
    pub(crate) fn head(&self, layer: usize, head: usize) -> (&[u16], &[u16]) {
        let len = self.capacity * self.head_dim;
        let range = head * len..(head + 1) * len;
        (&self.layers[layer].keys[range.clone()], &self.layers[layer].values[range])
    }
}
