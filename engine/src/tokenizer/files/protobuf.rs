//! The protobuf wire format, as much of it as reading needs (protobuf.dev, "Encoding"). Every length is checked
//! against what is left, so that a lying file is an error with an offset and nothing is allocated for it.

/// One field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// Reads fields one after another.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    /// Where `data` starts in the file, for messages.
    base: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, base: 0 }
    }

    /// A message inside: the bytes of the field that was read last.
    pub(super) fn inner(&self, bytes: &'a [u8]) -> Self {
        Self { data: bytes, at: 0, base: self.base + self.at - bytes.len() }
    }

    fn varint(&mut self) -> Result<u64, String> {
        let start = self.base + self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.data.get(self.at) else {
                return Err(format!("it ends inside of a number at byte {start}"));
            };
            self.at += 1;
            // The tenth byte has one bit left.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("the number at byte {start} is too long"))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], String> {
        let left = self.data.len() - self.at;
        match usize::try_from(len).ok().filter(|&len| len <= left) {
            Some(len) => {
                let bytes = &self.data[self.at..self.at + len];
                self.at += len;
                Ok(bytes)
            }
            None => Err(format!("the field at byte {} says {len} bytes and {left} are left", self.base + self.at)),
        }
    }

    /// The next field's number and value, or `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, String> {
        if self.at == self.data.len() {
            return Ok(None);
        }
        let start = self.base + self.at;
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 {
            return Err(format!("the field at byte {start} has number 0"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => match *self.take(4)? {
                [a, b, c, d] => Value::Fixed32([a, b, c, d]),
                _ => return Err(format!("the field at byte {start} is cut")),
            },
            other => return Err(format!("the field at byte {start} has wire type {other}")),
        };
        Ok(Some((number, value)))
    }
}
