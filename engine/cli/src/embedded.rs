//! The model that answers when none is named: `tiny-bitnet`, trained by this project (`golden/models/MODEL_CARD.md`).

/// Tensor data is aligned in the file; the file must be aligned in memory for that to mean anything.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../golden/models/tiny-bitnet.gguf"));

/// Name in messages.
pub(crate) const NAME: &str = "tiny-bitnet (embedded)";

/// The GGUF.
pub(crate) fn model() -> &'static [u8] {
    &MODEL.0
}
