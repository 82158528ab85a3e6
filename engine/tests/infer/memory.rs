//! Where the weights lie changes no bit: copied into huge pages, given back to the file and read again.

use crate::model_support::*;
use bitnet_engine::gguf::GgufFile;
use bitnet_engine::inference::{Head, Needs, Session, SessionOptions};
use bitnet_engine::load::{LoadOptions, Loaded, load_with};
use bitnet_engine::model::{Copied, HugePages};
use std::sync::Arc;

fn tokens() -> Vec<u32> {
    (0..40u32).map(|i| i * 47 % 2048).collect()
}

fn loaded(huge_pages: HugePages, file: GgufFile) -> Loaded {
    load_with(file, LoadOptions { huge_pages, ..LoadOptions::default() }, kernels(), &pool(2)).unwrap()
}

fn bits(loaded: &Loaded) -> Vec<Vec<u32>> {
    logits_bits(&mut session(&loaded.model, None, 16), &tokens())
}

#[test]
fn copies_in_huge_pages_are_the_weights() {
    let expected = bits(tiny());
    assert_eq!(tiny().model.weights.copied_bytes(), 0);
    for wish in [HugePages::Auto, HugePages::Off, HugePages::On] {
        let copy = loaded(wish, GgufFile::open(tiny_path()).unwrap());
        let bytes = copy.model.weights.copied_bytes();
        let layers: usize = copy.model.weights.matrices().map(|(_, m)| m.data.len()).sum();
        if wish == HugePages::On {
            // Twenty-eight matrices of the layers and the small output matrix, at cache lines.
            assert!((layers..layers + 64 * 64).contains(&bytes), "{bytes} of {layers}");
            let said = copy.diagnostics.iter().find(|d| d.code == "huge_pages").unwrap();
            assert!(said.message.contains("MiB of weights were copied"), "{said}");
            assert_eq!(copy.model.copy_hot(wish, &pool(1)), Copied::Bytes(bytes), "once is enough");
        } else {
            assert_eq!(bytes, 0);
            assert!(copy.diagnostics.iter().all(|d| d.code != "huge_pages"));
        }
        assert!(bits(&copy) == expected, "{wish:?}");
        for ((name, a), (_, b)) in tiny().model.weights.matrices().zip(copy.model.weights.matrices()) {
            assert!(a.data == b.data, "{name}");
        }
    }
}

/// A session goes on over weights that another thread copies meanwhile.
#[test]
fn copies_may_be_made_at_any_time() {
    let expected = bits(tiny());
    let copy = loaded(HugePages::Off, GgufFile::open(tiny_path()).unwrap());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| (0..3).all(|_| bits(&copy) == expected));
        assert_eq!(copy.model.copy_hot(HugePages::Auto, &pool(1)), Copied::Nothing, "so few bytes are not worth it");
        let copied: Vec<Copied> = std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| scope.spawn(|| copy.model.copy_hot(HugePages::On, &pool(2))));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        assert!(copied[0] == copied[1] && matches!(copied[0], Copied::Bytes(1..)), "{copied:?}");
        assert!(reader.join().unwrap(), "the logits changed");
    });
    assert!(copy.model.weights.copied_bytes() > 0 && bits(&copy) == expected);
}

/// Every page of every tensor, with its neighbours, while another thread reads them.
#[test]
fn pages_that_were_given_back_come_back() {
    let expected = bits(tiny());
    for file in [GgufFile::open(tiny_path()).unwrap(), GgufFile::from_vec(std::fs::read(tiny_path()).unwrap()).unwrap()]
    {
        let other = loaded(HugePages::Auto, file.clone());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| (0..3).all(|_| bits(&other) == expected));
            for _ in 0..50 {
                for view in file.views() {
                    file.release(view.data);
                    file.release(&view.data[view.data.len() / 3..view.data.len() / 2]);
                }
            }
            assert!(reader.join().unwrap(), "the logits changed");
        });
        // Bytes that are none of the file's are left alone.
        let mine = vec![7u8; 100_000];
        file.release(&mine);
        file.release(&[]);
        assert!(mine.iter().all(|b| *b == 7));
        assert!(bits(&other) == expected);
    }
}

/// The output matrix is given back while its copy is made and again every 512 exact rows: its products stay exact.
#[test]
fn a_screened_matrix_stays_itself() {
    let tokens = tokens();
    let expected = bits(tiny());
    let own = loaded(HugePages::Auto, GgufFile::open(tiny_path()).unwrap());
    let options = SessionOptions { head: Head::Screened, ..SessionOptions::new(kernels(), pool(2)) };
    let mut session = Session::new(Arc::clone(&own.model), options).unwrap();
    let needs = Needs { count: 40, within: 0.0, also: vec![1, 2000] };
    for (token, expected) in tokens.iter().zip(&expected) {
        let some = session.logits_needed(&[*token], &needs).unwrap();
        let known = some.iter().zip(expected).filter(|(a, _)| **a != f32::NEG_INFINITY);
        assert!(known.clone().all(|(a, b)| a.to_bits() == *b) && known.count() >= 40);
    }
    assert!(session.screening().rows > 2 * 512, "{:?}", session.screening());
    for ((name, a), (_, b)) in tiny().model.weights.matrices().zip(own.model.weights.matrices()) {
        assert!(a.data == b.data, "{name}");
    }
}
