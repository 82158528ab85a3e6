//! A table that lies flat: numbers side by side, built here or used from a mapped file as they lie.
//!
//! Whoever reads a table sees a slice and nothing else: a pointer and a length, with no question who owns the memory. So an encoding
//! loop is the same code, at the same cost, over a table that was just built and over one of a compiled file
//! (`compiled`).

use crate::gguf::FileBytes;
use bitnet_kernels::pages::Pages;
use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;

/// A value that may come from any bytes.
///
/// # Safety
/// Every pattern of bits is a value, there are no bytes between the fields, and the alignment divides [`ALIGN`].
pub(super) unsafe trait Pod: Copy + Send + Sync + 'static {}

// SAFETY: numbers are such values.
unsafe impl Pod for u8 {}
// SAFETY: as above.
unsafe impl Pod for u32 {}
// SAFETY: as above.
unsafe impl Pod for u64 {}
// SAFETY: as above.
unsafe impl Pod for f64 {}

/// Where a table may begin in a file.
pub(super) const ALIGN: usize = 64;

/// Bytes of a table that is asked for in huge pages: its entries are all over it, and each of 4 KiB would be looked up by itself.
const LARGE: usize = 2 << 20;

/// Items side by side: owned, or a part of a mapped file that stays mapped as long.
pub(super) struct Flat<T: Pod> {
    items: NonNull<[T]>,
    owner: Owner,
}

/// Whose memory the items are.
enum Owner {
    /// The table's: a box that was leaked.
    Table,
    /// The table's: a mapping.
    #[expect(dead_code, reason = "only keeps it mapped")]
    Pages(Pages),
    File(FileBytes),
}

// SAFETY: the items are plain values that nobody changes while they are shared: a table gives them out by `&` only.
unsafe impl<T: Pod> Send for Flat<T> {}
// SAFETY: as above.
unsafe impl<T: Pod> Sync for Flat<T> {}

impl<T: Pod> Flat<T> {
    /// The items that lie at `range` of a file; `None` where it has no such bytes, or they are not whole items that are aligned.
    pub(super) fn mapped(file: &FileBytes, range: Range<usize>) -> Option<Self> {
        let bytes = file.as_slice().get(range)?;
        let start = bytes.as_ptr().cast::<T>();
        if !start.is_aligned() || !bytes.len().is_multiple_of(size_of::<T>()) {
            return None;
        }
        let items = NonNull::slice_from_raw_parts(NonNull::new(start.cast_mut())?, bytes.len() / size_of::<T>());
        Some(Self { items, owner: Owner::File(file.clone()) })
    }

    /// So many items of zeros. Those of a large table are the system's own: pages that nobody needs are never touched.
    pub(super) fn zeroed(n: usize) -> Self {
        let bytes = n.saturating_mul(size_of::<T>());
        if bytes >= LARGE
            && let Ok(mut pages) = Pages::new(bytes, true)
            && let Some(start) = NonNull::new(pages.as_mut_ptr().cast::<T>()).filter(|start| start.is_aligned())
        {
            return Self { items: NonNull::slice_from_raw_parts(start, n), owner: Owner::Pages(pages) };
        }
        // SAFETY: zeros are a value of `T`, as all bytes are.
        let items: Box<[T]> = unsafe { Box::new_zeroed_slice(n).assume_init() };
        Self { items: NonNull::from(Box::leak(items)), owner: Owner::Table }
    }

    /// So many of an item.
    pub(super) fn filled(item: T, n: usize) -> Self {
        let mut table = Self::zeroed(n);
        table.items_mut().fill(item);
        table
    }

    /// The items of a table that lies in no file (there are none to be changed in one that does).
    #[inline]
    pub(super) fn items_mut(&mut self) -> &mut [T] {
        match self.owner {
            // SAFETY: the memory is this table's alone, which is borrowed, and its items are as in `deref`.
            Owner::Table | Owner::Pages(_) => unsafe { self.items.as_mut() },
            Owner::File(_) => &mut [],
        }
    }
}

/// The bytes of items, as a file has them.
pub(super) fn bytes_of<T: Pod>(items: &[T]) -> &[u8] {
    // SAFETY: `Pod` has no bytes between its fields, so every byte of the items is there; bytes need no alignment.
    unsafe { std::slice::from_raw_parts(items.as_ptr().cast::<u8>(), size_of_val(items)) }
}

impl<T: Pod> Deref for Flat<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the items are those of a leaked box that only `drop` takes back, or lie in what `owner` keeps mapped; they are aligned, and any bytes are values of `T`. (That a file is not written in place is the invariant of `FileBytes::map`.)
        unsafe { self.items.as_ref() }
    }
}

impl<T: Pod> From<Vec<T>> for Flat<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items: NonNull::from(Box::leak(items.into_boxed_slice())), owner: Owner::Table }
    }
}

impl<T: Pod> FromIterator<T> for Flat<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        items.into_iter().collect::<Vec<T>>().into()
    }
}

impl<T: Pod> Default for Flat<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T: Pod> Clone for Flat<T> {
    fn clone(&self) -> Self {
        match &self.owner {
            Owner::File(file) => Self { items: self.items, owner: Owner::File(file.clone()) },
            Owner::Table | Owner::Pages(_) => self.to_vec().into(),
        }
    }
}

impl<T: Pod> Drop for Flat<T> {
    fn drop(&mut self) {
        if let Owner::Table = self.owner {
            // SAFETY: the items are the box that was leaked when the table was made, and nobody else has them.
            drop(unsafe { Box::from_raw(self.items.as_ptr()) });
        }
    }
}

impl<T: Pod> fmt::Debug for Flat<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if let Owner::File(_) = self.owner { "mapped" } else { "built" };
        write!(f, "{} {of} items", self.len())
    }
}

/// Many texts in one piece of memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Texts {
    bytes: Flat<u8>,
    /// Where each ends.
    ends: Flat<u32>,
}

/// [`Texts`] to which texts are added, of less than 2^32 bytes together.
#[derive(Debug, Default)]
pub(super) struct TextsBuilder {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl TextsBuilder {
    /// For so many texts.
    pub(super) fn with_capacity(n: usize) -> Self {
        Self { bytes: Vec::with_capacity(n * 7), ends: Vec::with_capacity(n) }
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Adds what `write` puts at the end, unless it gives `false`; gives what it gives.
    pub(super) fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let before = self.bytes.len();
        let done = write(&mut self.bytes);
        if done {
            self.ends.push(self.bytes.len() as u32);
        } else {
            self.bytes.truncate(before);
        }
        done
    }

    pub(super) fn finish(self) -> Texts {
        Texts { bytes: self.bytes.into(), ends: self.ends.into() }
    }
}

impl Texts {
    /// The texts, which together have less than 2^32 bytes.
    pub(super) fn new<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut all = TextsBuilder::with_capacity(texts.size_hint().0);
        texts.for_each(|text| all.push(text));
        all.finish()
    }

    /// Of tables that lie in a file.
    pub(super) fn of(bytes: Flat<u8>, ends: Flat<u32>) -> Self {
        Self { bytes, ends }
    }

    /// The bytes of all texts, and where each ends.
    pub(super) fn parts(&self) -> (&Flat<u8>, &Flat<u32>) {
        (&self.bytes, &self.ends)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text at `index`; an empty one where a damaged file says nonsense of its place.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Some(self.bytes.get(start..end).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_table_is_the_built_one() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let built: Flat<u32> = (0..100u32).map(|i| i * i).collect();
        std::fs::write(&path, [&[7; 4], bytes_of(&built), &[1, 2]].concat()).unwrap();
        let file = FileBytes::map(&path).unwrap();
        let mapped = Flat::<u32>::mapped(&file, 4..404).unwrap();
        assert_eq!((&*mapped, bytes_of(&mapped)), (&*built, bytes_of(&built)));
        let again = mapped.clone();
        drop((mapped, file));
        assert_eq!(&*again, &*built.clone());
        let file = FileBytes::map(&path).unwrap();
        for range in [3..403, 4..403, 4..410, 400..408] {
            assert!(Flat::<u32>::mapped(&file, range.clone()).is_none(), "{range:?}");
        }
        assert!(Flat::<f64>::mapped(&file, 4..12).is_none());
        assert_eq!(Flat::<u32>::mapped(&file, 8..8).unwrap().len(), 0);
    }

    #[test]
    fn a_table_is_filled_whatever_its_memory() {
        for n in [0, 1, 100, LARGE / 8 + 3] {
            let mut table = Flat::<u64>::zeroed(n);
            assert!(table.len() == n && table.iter().all(|item| *item == 0));
            if let Some(last) = table.items_mut().last_mut() {
                *last = 7;
            }
            let again = table.clone();
            assert_eq!((&*table, table.iter().sum::<u64>()), (&*again, 7 * u64::from(n > 0)));
            assert!(Flat::filled(5u32, n).iter().all(|item| *item == 5));
        }
    }

    #[test]
    fn texts_lie_in_one_piece() {
        let list: Vec<&[u8]> = vec![b"", b"ab", b"", b"c"];
        let texts = Texts::new(list.iter().copied());
        let all = |texts: &Texts| (0..texts.len()).map(|at| texts.get(at).unwrap().to_vec()).collect::<Vec<_>>();
        assert_eq!(all(&texts), list);
        assert_eq!((texts.get(4), texts.len()), (None, 4));
        let nonsense = Texts::of(b"abc".to_vec().into(), vec![2u32, 1, 9].into());
        assert_eq!(all(&nonsense), [&b"ab"[..], b"", b""]);
    }
}
