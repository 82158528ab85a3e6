//! The CUDA kernels of the engine, as source text that NVRTC compiles for the card at hand.
//!
//! **Nothing here has run on a GPU yet.** What is shown: NVRTC compiles the text, and the same text, compiled as C++ and run on
//! the CPU (module `emu`, cargo feature `cuda-emu`), gives the bits of [`crate::cpu::scalar`] on every grid tried. What is not: speed,
//! and the order of memory between blocks, on which one kernel relies (below).
//!
//! # Rules
//! * Compile with `-fmad=false`, without fast math, as C++17, for sm_80 or later (tensor cores on int8, `dp4a`).
//! * Every float operation keeps the order of [`crate::numerics`]; integers are exact. So no result depends on the grid.
//! * Activations are f32 `[tokens][width]` as in a session's slots, matrices are as they lie in the file.
//! * Pointers are to device memory, aligned to 16 bytes. What a kernel needs beyond its arguments it reads from the device: the
//!   position, the token. One decoded token is one sequence of launches that never changes, so it can be replayed as a graph.
//! * Blocks are whole warps along x; shared memory beyond 48 KiB must be allowed first (`cuFuncSetAttribute`).
//!
//! # Entries
//! `T` tokens of the launch, `H` query heads, `G` key-value heads, `D` dimensions of a head (a multiple of 8, at most 512), `C` the
//! cache's capacity, `chunks = ceil(C / 128)`, `S` cols rounded up to 16, `K` pairs that there is room for. `wanted` is u32 (count, bits of within, n, 0, also
//! `[n]`), `ranks` u32 `[T][6152]`, zero before its first use, `picked` u32 `[T][4 + 2 K]` (count, not sound, reach, 0, then row and bits
//! of a logit, in any order): [`head`] drives them. `row` is x `[cols]`, weight `[cols]` of a norm or null, eps f32, cols (a multiple
//! of 128, below 2^19), shift (2 to the shift lanes for a row of a matrix: 3, 4 or 5). Arguments in order; types are f32 and u32 where nothing is said.
//!
//! | entry | arguments | does | grid and block | dynamic shared bytes |
//! |---|---|---|---|---|
//! | `bn_embed_f16` | table f16 `[vocab][cols]`, tokens u32 `[T]`, x `[T][cols]` out, T, cols, vocab, multiplier f32 | looks up rows; NaN for a token that is not there | any | 0 |
//! | `bn_add` | x, y `[n]`, n u64 | `x += y` | any | 0 |
//! | `bn_gate` | kind (0 squared ReLU, 1 SiLU), gate, up `[n]`, n u64 | gates in place | any | 0 |
//! | `bn_norm_quant` | input, x, y `[T][cols]`, weight `[cols]` or null, eps f32, T, cols, values `[T][cols]` or null, q i8 `[T][cols]` or null, scale `[T]`, isum i32 `[T]` | a row by `input` (0: x; 1: x + y, kept in x; 2: squared ReLU gate of x with y; 3: SiLU gate), its RMS norm unless weight is null, as f32 to values (may be x), as int8 to q; cols is a multiple of 4 | T blocks or fewer; 64 to 512 threads: many for one token | 4 cols |
//! | `bn_gemv_store` | row, three times (w I2_S `[rows][cols]`, rows, multiplier f32, y `[rows]` out) | up to three products of one token (rows 0 and null for those that are not) | any; 64 to 256 threads | 5 cols |
//! | `bn_gemv_add` | row, w, rows, multiplier, y `[rows]` | `y += w x`; y is not x | as for `bn_gemv_store` | 5 cols |
//! | `bn_gemv_gate` | row, kind (as for `bn_gate`), w of gate, multiplier, w of up, multiplier, rows, y `[rows]` out | both products, gated | as for `bn_gemv_store` | 5 cols |
//! | `bn_gemv_rope` | row, w of q, multiplier, of k, multiplier, of v, multiplier, kind (as for `bn_rope_append`), cos, sin, position, H, G, D, n_rot, q `[H][D]` out, keys, values, C | the three products; q rotated, k rotated and v to the cache | as for `bn_gemv_store` | 5 cols |
//! | `bn_gemm_i2s` | w I2_S `[rows][cols]`, rows, cols, multiplier f32, q i8 `[T][cols]`, scale `[T]`, isum i32 `[T]`, T, y `[T][rows]` out | the product of many tokens, on tensor cores | x: ceil(rows / 128), y: ceil(T / 64), or fewer; 256 | 0 |
//! | `bn_rope_append` | kind (0 NeoX, 1 pairs), q `[T][H][D]`, k, v `[T][G][D]`, cos, sin `[C][n_rot / 2]`, position u32 `[1]`, T, H, G, D, n_rot, keys, values f16 `[G][C][D]`, C | rotates q and k in place by position + t, appends k and v to the cache | T (H + 2 G) blocks or fewer; 32 or 64 | 0 |
//! | `bn_attention_scores_4`, `_16` | q, keys, position, T, H, G, D, C, scale f32, scores `[G][T H/G][C]` out, maxima `[G][T H/G][chunks]` out | scores, and each chunk's largest; tiles of 4 rows (decode) or 16 (prompts) | x: chunks, y: ceil(T H/G / 4 or 16), z: G, or fewer; 256 | 128 (2 D + 16) + 4 D (4 or 16) |
//! | `bn_attention_values_4`, `_16` | values, position, T, H, G, D, C, scores, maxima, partial `[G][T H/G][chunks][D]`, done u32 `[G][tiles]` (zero, and left so), out `[T][H][D]` (may be q) | softmax and the sum of values | as for the scores; 256 | 128 (2 D + 4 (4 or 16)) |
//! | `bn_head_f16` | w f16 `[rows][cols]`, rows, cols (a multiple of 8), multiplier f32, x `[T][cols]`, T, y `[T][rows]` out, best u64 `[T]` (zero) or null | logits, and the key of the largest | x over rows, y over tokens, any; at most 256 | 4 cols, rounded up to 64 |
//! | `bn_argmax` | y `[n]`, n, best u64 `[1]` (zero) | the key of the largest: NaN never, the lower row on a tie | any | 0 |
//! | `bn_next` | best, token u32 `[1]`, position u32 `[1]`, history u32 `[C]`, C | the key becomes the next token, the position advances, the key is zero again | 1; 32 | 0 |
//! | `bn_screen_build` | w f16 `[rows][cols]`, rows, cols (a multiple of 8), S, q i8 `[rows][S]` out, known `[rows][4]` out, largest u32 `[1]` (zero) | the int8 copy and what is known of each row | any; at most 256 | 0 |
//! | `bn_screen_token` | x `[T][cols]`, T, cols, S, multiplier f32, largest, planes u8 `[T][2][S]` out, known `[T][4]` out, picked, K, best u64 `[T]` out or null | x as integers of two bytes; best and the headers of picked are zero then | T blocks or fewer; 256 | 0 |
//! | `bn_screen_1`, `_4` | q, known of rows, rows, S, multiplier f32, planes, known of tokens, T, lower, upper `[T][rows]` out, picked, K | the bounds of every logit, and the largest lower one; tokens by 1 or 4 | x over rows, y over tokens by 1 or 4, any; at most 256 | 2 S (1 or 4) |
//! | `bn_rank` | pass, values `[T][n]`, n, T, wanted, ranks, picked, K | pass 0, 1 or 2 of the search for the count-th largest, after one another | x over values, y over tokens, any; 256 | 0 |
//! | `bn_pick` | passes (0, 2 or 3), values, n, T, wanted, ranks, picked, K | the rows that reach it less `within`, and those of `also`, with their values | as for `bn_rank` | 0 |
//! | `bn_rescore` | w, rows, cols, multiplier f32, x, T, picked, K, y `[T][rows]`, best u64 `[T]` or null, totals u64 `[3]` | the exact logits of what was picked; of all rows, to y, where that was more than K | x over rows, y over tokens, any; at most 256 | 4 cols, rounded up to 64 |
//!
//! For text, `B` bytes of it, a multiple of 1024, in `P` parts, each from a multiple of 64 bytes on; parts u32 `[P][2]`: first
//! stretch of 64 bytes, rising; bytes, at least 1 ([`tokenize`] has all of it as one call):
//!
//! | entry | arguments | does | grid and block | dynamic shared bytes |
//! |---|---|---|---|---|
//! | `bn_tokens_split` | text u8 `[B]`, parts, P, classes u8 `[n]`, n, rule, B / 64, words u8 `[B]` out | where a piece starts its length (255: above 254), 0 elsewhere | any; at most 128 | 0 |
//! | `bn_tokens_words` | text u8 `[B + 8]`, parts, P, vocabulary u32 `[n][4]`, n, arena u8, pairs u32 `[2^(64 - s)][4]`, s, byte ids u32 `[256]`, B / 1024, words in and out, ids u32 `[B]` out, totals u32 `[B / 1024]` out, refused u32 `[P]` | a piece's tokens at ids, from the place of its first byte on, their number in words; their sum in totals; 1 where a part has a piece that is too long | any; 128 | 0 |
//! | `bn_tokens_offsets` | totals u32 `[n + 1]`, n | each becomes the sum of those before | 1; at most 1024 | 0 |
//! | `bn_tokens_gather` | words, ids, totals, parts, P, B / 1024, firsts u32 `[P]` out, out u32 | the tokens one after the other, and where those of a part start | any; 128 | 0 |
//!
//! # A token
//! `bn_embed_f16`; for each layer `bn_gemv_rope` (q, k, v), scores, values, `bn_gemv_add` (o), `bn_gemv_gate` (gate, up),
//! `bn_gemv_add` (down); then `bn_norm_quant` to values, `bn_head_f16`, `bn_next`. That is 6 launches a layer: the least for this
//! order of operations without a barrier of the whole grid, since each needs all of what the one before makes. In the place of `bn_head_f16` may
//! stand `bn_screen_token`, `bn_screen_1`, `bn_pick` (0), `bn_rescore` ([`head::ScreenedHead::greedy`]): the same key.
//! `tests/cuda_emu/decode.rs` runs it.
//!
//! # A prompt
//! `bn_embed_f16`; for each layer `bn_norm_quant` (input 1 from the second layer on: the sum that ends a layer is done where the
//! next begins), `bn_gemm_i2s` three times, `bn_rope_append`, scores, values, `bn_norm_quant`, `bn_gemm_i2s` (o), `bn_norm_quant`
//! (1), `bn_gemm_i2s` twice, `bn_norm_quant` (2 or 3), `bn_gemm_i2s` (down); then `bn_norm_quant` to values.
//!
//! # Between blocks
//! `bn_attention_values_*` lets the last block of a tile add up what the others wrote: they write, `__threadfence`, count; the
//! last reads past the first cache. All other kernels exchange nothing between blocks (`atomicMax` of a key and
//! counts apart, which are read in the next launch).
//!
//! # Launches that overlap
//! From compute capability 9.0 and CUDA 12.3 on all entries but `bn_screen_build` and those for text are launched so that they may
//! begin while the launch before them ends: [`overlap`] lists them and says which rule makes that right. In short: every
//! thread calls `wait_for_earlier` (`common.cuh`) before it reads what a kernel writes, and before it writes.

#[cfg(feature = "cuda-emu")]
pub mod emu;

pub mod architecture;
pub mod cache;
pub mod card;
pub mod device;
pub mod driver;
pub mod head;
pub mod launches;
pub mod metered;
pub mod nvrtc;
pub mod overlap;
pub mod tokenize;

/// One file of kernels.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The file's name without its ending, e.g. `rows`.
    pub name: &'static str,
    /// The text, which includes [`HEADERS`] by their names.
    pub text: &'static str,
    /// The `extern "C" __global__` functions in it.
    pub entries: &'static [&'static str],
}

/// `(name, text)` of every header: the include list of `nvrtcCreateProgram`.
pub const HEADERS: &[(&str, &str)] = &[
    ("common.cuh", include_str!("common.cuh")),
    ("head.cuh", include_str!("head.cuh")),
    ("norm.cuh", include_str!("norm.cuh")),
    ("rope.cuh", include_str!("rope.cuh")),
    ("texts.cuh", include_str!("texts.cuh")),
];

/// Every file of kernels.
pub fn sources() -> &'static [Source] {
    &[
        Source {
            name: "attention",
            text: include_str!("attention.cu"),
            entries: &[
                "bn_attention_scores_4",
                "bn_attention_values_4",
                "bn_attention_scores_16",
                "bn_attention_values_16",
            ],
        },
        Source { name: "gemm", text: include_str!("gemm.cu"), entries: &["bn_gemm_i2s"] },
        Source {
            name: "gemv",
            text: include_str!("gemv.cu"),
            entries: &["bn_gemv_store", "bn_gemv_add", "bn_gemv_gate", "bn_gemv_rope"],
        },
        Source { name: "head", text: include_str!("head.cu"), entries: &["bn_head_f16", "bn_argmax", "bn_next"] },
        Source { name: "norm", text: include_str!("norm.cu"), entries: &["bn_norm_quant"] },
        Source { name: "pieces", text: include_str!("pieces.cu"), entries: &["bn_tokens_split"] },
        Source { name: "rope", text: include_str!("rope.cu"), entries: &["bn_rope_append"] },
        Source { name: "rows", text: include_str!("rows.cu"), entries: &["bn_embed_f16", "bn_add", "bn_gate"] },
        Source {
            name: "screen",
            text: include_str!("screen.cu"),
            entries: &["bn_screen_build", "bn_screen_token", "bn_screen_1", "bn_screen_4", "bn_rescore"],
        },
        Source { name: "top", text: include_str!("top.cu"), entries: &["bn_rank", "bn_pick"] },
        Source {
            name: "tokenize",
            text: include_str!("tokenize.cu"),
            entries: &["bn_tokens_words", "bn_tokens_offsets", "bn_tokens_gather"],
        },
    ]
}
