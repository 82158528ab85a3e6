//! The inputs that are changed: the sound ones, and the shortest for each new thing that a target said.

use bitnet_engine::random::fnv1a;
use bitnet_harness::strings::Random;
use std::collections::HashMap;

/// Inputs that are kept at most.
const MOST: usize = 4000;
/// Different words that are remembered at most.
const HEARD: usize = 1 << 20;
/// Of words whose input made room for another one.
const GONE: usize = usize::MAX;

#[derive(Debug, Default)]
pub struct Pool {
    inputs: Vec<Vec<u8>>,
    /// Of each input, the words it is kept for.
    words: Vec<u64>,
    /// Which input is kept for the words.
    heard: HashMap<u64, usize>,
    /// The first inputs are those to begin with.
    sound: usize,
}

impl Pool {
    /// Takes an input to begin with, which stays. All of these come before any other.
    pub fn begin_with(&mut self, input: &[u8], said: &str) {
        let words = shape(said);
        self.heard.entry(words).or_insert(self.inputs.len());
        self.inputs.push(input.to_vec());
        self.words.push(words);
        self.sound = self.inputs.len();
    }

    /// Takes an input if it brought new words, or is a shorter one for words that are known: short ones take less time.
    pub fn consider(&mut self, r: &mut Random, input: &[u8], said: &str) {
        let words = shape(said);
        let index = match self.heard.get(&words) {
            Some(index) => match self.inputs.get(*index) {
                Some(kept) if *index >= self.sound && input.len() < kept.len() => *index,
                _ => return,
            },
            None if self.heard.len() >= HEARD => return,
            None if self.inputs.len() < MOST.max(self.sound + 1) => {
                self.inputs.push(Vec::new());
                self.words.push(words);
                self.inputs.len() - 1
            }
            None => self.sound + r.below(self.inputs.len() - self.sound),
        };
        if self.words[index] != words {
            self.heard.insert(self.words[index], GONE);
            self.words[index] = words;
        }
        self.heard.insert(words, index);
        self.inputs[index].clear();
        self.inputs[index].extend_from_slice(input);
        self.inputs[index].shrink_to(2 * input.len());
    }

    /// An input to change. Those to begin with come as often as what was kept; short ones more often, since they cost less.
    pub fn pick(&self, r: &mut Random) -> &[u8] {
        let among = if r.below(2) == 0 { self.inputs.len().min(self.sound.max(1)) } else { self.inputs.len() };
        if among == 0 {
            return &[];
        }
        let (one, other) = (&self.inputs[r.below(among)], &self.inputs[r.below(among)]);
        if one.len() <= other.len() { one } else { other }
    }

    /// All of them.
    pub fn inputs(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// Different things that were said.
    pub fn heard(&self) -> usize {
        self.heard.len()
    }
}

/// What is said, without what differs from input to input: numbers, and what stands in quotes, in brackets, or behind a bar.
fn shape(said: &str) -> u64 {
    let (mut plain, mut n) = ([0_u8; 400], 0);
    let mut bytes = said.bytes().take(plain.len());
    while let Some(byte) = bytes.next() {
        plain[n] = byte;
        match HIDES[usize::from(byte)] {
            PLAIN => n += 1,
            ALONE => (),
            end => {
                while let Some(byte) = bytes.next().filter(|byte| *byte != end) {
                    if byte == b'\\' {
                        bytes.next();
                    }
                }
            }
        }
    }
    let (eights, rest) = plain[..n].as_chunks::<8>();
    let step = |sum: u64, eight: &[u8; 8]| (sum ^ u64::from_le_bytes(*eight)).wrapping_mul(K).rotate_left(29);
    eights.iter().fold(fnv1a(rest.iter().copied()), step)
}

const PLAIN: u8 = 0;
const ALONE: u8 = 1;
/// What a byte hides: nothing, itself, or all up to another one.
static HIDES: [u8; 256] = {
    let mut hides = [PLAIN; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        hides[digit as usize] = ALONE;
        digit += 1;
    }
    hides[b'`' as usize] = b'`';
    hides[b'"' as usize] = b'"';
    hides[b'(' as usize] = b')';
    hides[b'[' as usize] = b']';
    hides[b'|' as usize] = b'\n';
    hides
};

/// An odd number with many changes between its bits.
const K: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_what_is_an_inputs_own_are_the_same() {
        assert_eq!(shape("byte 12 of `a`"), shape("byte 7 of `bc`"));
        assert_eq!(shape(r#"found "a\" b" (3d, ff)"#), shape(r#"found "" (00)"#));
        assert_eq!(shape("an error\n1 | [x\n  | ^\nwhy"), shape("an error\n1 | y\n  |  ^\nwhy"));
        assert_ne!(shape("byte 12"), shape("bytes 12"));
        assert_ne!(shape("the first of the words"), shape("the words of the first"));
        assert_eq!(shape(&"a".repeat(401)), shape(&"a".repeat(400)));
    }

    #[test]
    fn the_shortest_input_is_kept_for_each_word_and_sound_ones_stay() {
        let (mut pool, mut r) = (Pool::default(), Random::new("pool"));
        pool.begin_with(b"sound and long", "good");
        for (input, said) in [("long one", "bad"), ("longer one", "bad"), ("short", "bad"), ("s", "good"), ("x", "odd")]
        {
            pool.consider(&mut r, input.as_bytes(), said);
        }
        assert_eq!(pool.inputs(), [b"sound and long".to_vec(), b"short".to_vec(), b"x".to_vec()]);
        assert_eq!(pool.heard(), 3);
        let picked: Vec<&[u8]> = (0..200).map(|_| pool.pick(&mut r)).collect();
        assert!(pool.inputs().iter().all(|input| picked.contains(&input.as_slice())));
    }

    #[test]
    fn a_full_pool_takes_new_words_in_place_of_old_ones() {
        let (mut pool, mut r) = (Pool::default(), Random::new("full"));
        pool.begin_with(b"sound", "good");
        let word =
            |n: usize| [1, 26, 26 * 26].map(|one| char::from(b'a' + (n / one % 26) as u8)).iter().collect::<String>();
        let words: Vec<String> = (0..2 * MOST).map(word).collect();
        for word in &words {
            pool.consider(&mut r, format!("input {word}").as_bytes(), word);
        }
        assert_eq!((pool.inputs().len(), &pool.inputs()[0][..]), (MOST, &b"sound"[..]));
        // What made room is not taken for the input of its words.
        for word in &words {
            pool.consider(&mut r, word.as_bytes(), word);
        }
        let sound = |input: &[u8], words: u64| shape(std::str::from_utf8(input).unwrap_or_default()) == words;
        assert!(pool.inputs().iter().zip(&pool.words).skip(1).all(|(input, words)| sound(input, *words)));
    }
}
