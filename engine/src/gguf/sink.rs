//! Writers around the output: one counts, one guards the length of a streamed tensor.

use std::io::{self, Write};

/// Writes zeros up to the next multiple of `alignment`.
pub(super) fn pad<W: Write>(out: &mut Counted<W>, alignment: u64) -> io::Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut left = out.written.next_multiple_of(alignment) - out.written;
    while left > 0 {
        let n = left.min(ZEROS.len() as u64);
        out.write_all(ZEROS.get(..n as usize).unwrap_or_default())?;
        left -= n;
    }
    Ok(())
}

/// Counts what was written.
pub(super) struct Counted<W> {
    inner: W,
    pub(super) written: u64,
}

impl<W: Write> Counted<W> {
    pub(super) fn new(inner: W) -> Self {
        Counted { inner, written: 0 }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Lets `left` more bytes pass and refuses the rest.
pub(super) struct Limited<'w, W> {
    inner: &'w mut W,
    /// Bytes that are still owed.
    pub(super) left: u64,
    /// Length of the piece that was refused; 0 if none was.
    pub(super) excess: u64,
}

impl<'w, W: Write> Limited<'w, W> {
    pub(super) fn new(inner: &'w mut W, left: u64) -> Self {
        Limited { inner, left, excess: 0 }
    }
}

impl<W: Write> Write for Limited<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.left < buf.len() as u64 {
            self.excess = buf.len() as u64;
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more bytes than the tensor has"));
        }
        let n = self.inner.write(buf)?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
