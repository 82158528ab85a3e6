//! The KV cache: keys and values of every position seen, in f16.
//!
//! Layout: `[layer][keys, values][kv_head][capacity][head_dim]`, so that one head's positions are contiguous. The memory is
//! zeroed by the operating system page by page as it is first touched: a long capacity costs nothing until it is used. It begins at a page,
//! where an allocator would put it 16 bytes behind one, and every second load of 32 bytes would lie in two cache lines: attention took a
//! sixth longer.

use bitnet_kernels::Kernels;
use bitnet_kernels::pages::Pages;

/// Keys and values of one model's layers.
#[derive(Debug)]
pub struct KvCache {
    memory: Pages,
    capacity: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl KvCache {
    /// An empty cache for `capacity` positions; `None` if this machine has not that much memory to promise.
    pub fn new(layers: usize, capacity: usize, kv_heads: usize, head_dim: usize) -> Option<Self> {
        let numbers = capacity.checked_mul(kv_heads)?.checked_mul(head_dim)?.checked_mul(2)?.checked_mul(layers)?;
        let memory = Pages::new(numbers.checked_mul(size_of::<u16>())?, false).ok()?;
        Some(Self { memory, capacity, kv_heads, head_dim })
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes reserved (not all of them touched).
    pub fn bytes(&self) -> usize {
        self.memory.len()
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
        let of_kind = self.kv_heads * capacity * dim;
        let layer = &mut self.memory.as_mut_slice()[2 * layer * of_kind..][..2 * of_kind];
        let (of_keys, of_values) = layer.split_at_mut(of_kind);
        for (source, target) in [(keys, of_keys), (values, of_values)] {
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
        let of = |kind: usize| &self.memory.as_slice()[((2 * layer + kind) * self.kv_heads + head) * len..][..len];
        (of(0), of(1))
    }
}
