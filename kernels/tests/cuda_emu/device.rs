//! The emulation as a device: what a recording keeps, and what a read waits for.

use bitnet_kernels::cuda::device::{Buffer, CudaError, Device, record};
use bitnet_kernels::cuda::emu::Emulation;
use bitnet_kernels::cuda::launches::Launches;
use std::sync::{Arc, mpsc};

fn device() -> Arc<dyn Device> {
    Arc::new(Emulation::new().unwrap())
}

fn first(buffer: &Buffer) -> f32 {
    let mut out = [0.0f32];
    buffer.read(0, &mut out).unwrap();
    out[0]
}

/// A recording has the launches of its own thread; those of another run meanwhile, as they would without it.
#[test]
fn a_recording_is_of_one_thread() {
    let device = device();
    let launches = Launches::new(&device);
    let [one, mine, theirs] = [1.0f32, 0.0, 0.0].map(|v| Buffer::of(&device, &[v; 4], "a few").unwrap());
    let add = |to: &Buffer| launches.add(to.into(), (&one).into(), 4);
    let (recording, begun) = mpsc::channel();
    let (ran, done) = mpsc::channel();
    let (launches_too, one_too, theirs_too) = (launches.clone(), one.clone(), theirs.clone());
    let replay = std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            begun.recv().unwrap();
            launches_too.add((&theirs_too).into(), (&one_too).into(), 4).unwrap();
            ran.send(()).unwrap();
        });
        let replay = record(&*device, &mut || {
            recording.send(()).unwrap();
            done.recv().unwrap();
            add(&mine)
        });
        other.join().unwrap();
        replay.unwrap()
    });
    assert_eq!((first(&mine), first(&theirs)), (0.0, 1.0));
    replay.start().unwrap();
    assert_eq!((first(&mine), first(&theirs)), (1.0, 1.0));
}

/// What a read finds is from before what is started meanwhile.
#[test]
fn a_read_does_not_see_what_comes_then() {
    let device = device();
    let launches = Launches::new(&device);
    let [one, sum] = [1.0f32, 2.0].map(|v| Buffer::of(&device, &[v; 4], "a few").unwrap());
    let two = u64::from(2.0f32.to_bits());
    let found = sum.word_before(0, &mut || launches.add((&sum).into(), (&one).into(), 4)).unwrap();
    assert_eq!(found, two << 32 | two);
    assert_eq!(first(&sum), 3.0);
    let refused = sum.word_before(0, &mut || Err(CudaError::Entry { entry: "none" })).unwrap_err();
    assert_eq!(refused, CudaError::Entry { entry: "none" });
    assert!(matches!(sum.word_before(9, &mut || Ok(())), Err(CudaError::Range { offset: 9, bytes: 8, len: 16 })));
}
