//! What to do about an error of the driver.
//!
//! The meanings are those of `CUresult` in NVIDIA's documentation of the driver API; codes after which a process can do
//! nothing more on a card say so.

use cudarc::driver::sys::CUresult;

/// What fixes an error, where one thing does.
pub(super) fn hint(code: i32) -> &'static str {
    use CUresult::*;
    let known: &[(&[CUresult], &str)] = &[
        (
            &[CUDA_ERROR_SYSTEM_DRIVER_MISMATCH],
            ": its library and its kernel module are of different versions; restart the machine, or install one version of both",
        ),
        (
            &[CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE],
            ": CUDA's forward compatibility does not cover this card; update the driver",
        ),
        (
            &[CUDA_ERROR_STUB_LIBRARY],
            ": that is the toolkit's stub for linking; take its folder out of LD_LIBRARY_PATH",
        ),
        (
            &[CUDA_ERROR_UNKNOWN, CUDA_ERROR_SYSTEM_NOT_READY],
            ": the kernel module does not answer; look at `nvidia-smi` and the kernel's log",
        ),
        (
            &[CUDA_ERROR_DEVICE_UNAVAILABLE],
            ": the card is held by another process in exclusive mode; `nvidia-smi` shows it",
        ),
        (&[CUDA_ERROR_OUT_OF_MEMORY], ": the card has no memory left; `nvidia-smi` shows who has it"),
        (
            &[CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_INVALID_SOURCE],
            ": the card does not take what NVRTC compiled for it; update the driver, or take an NVRTC of its version (BITNET_NVRTC)",
        ),
        (
            &[CUDA_ERROR_ECC_UNCORRECTABLE, CUDA_ERROR_NVLINK_UNCORRECTABLE, CUDA_ERROR_CONTAINED],
            ": the card is lost to this process, its memory or its link is faulty; `nvidia-smi -q` and the kernel's log (Xid) say more, take another card or --device cpu",
        ),
        (
            &[CUDA_ERROR_LAUNCH_TIMEOUT],
            ": the card is lost to this process, since a launch took longer than a card with a screen may; take one without, or --device cpu",
        ),
        (
            &[
                CUDA_ERROR_ILLEGAL_ADDRESS,
                CUDA_ERROR_MISALIGNED_ADDRESS,
                CUDA_ERROR_INVALID_ADDRESS_SPACE,
                CUDA_ERROR_ILLEGAL_INSTRUCTION,
                CUDA_ERROR_INVALID_PC,
                CUDA_ERROR_HARDWARE_STACK_ERROR,
                CUDA_ERROR_ASSERT,
                CUDA_ERROR_LAUNCH_FAILED,
                CUDA_ERROR_CONTEXT_IS_DESTROYED,
            ],
            ": the card is lost to this process, by this call or a kernel that was started before it; start again. If it comes back, \
             CUDA_LAUNCH_BLOCKING=1 shows the kernel and --device cpu computes the same without the card",
        ),
    ];
    known.iter().find(|(codes, _)| codes.iter().any(|known| *known as i32 == code)).map_or("", |(_, hint)| hint)
}
