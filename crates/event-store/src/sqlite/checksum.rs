//! The checksum that every row and every event has.

/// CRC-32C over fields of which each is preceded by its length, so that none can be taken for a part of another.
#[derive(Debug)]
pub(super) struct Checksum(u32);

impl Checksum {
    /// Of something that belongs to the log with this id: it cannot stand in for another log's.
    pub(super) fn new(log: i64) -> Self {
        Self(0).number(log.cast_unsigned())
    }

    pub(super) fn number(self, number: u64) -> Self {
        Self(crc32c::crc32c_append(self.0, &number.to_le_bytes()))
    }

    pub(super) fn bytes(self, field: Option<&[u8]>) -> Self {
        let this = self.number(field.map_or(u64::MAX, |field| field.len() as u64));
        Self(crc32c::crc32c_append(this.0, field.unwrap_or_default()))
    }

    pub(super) fn text(self, field: Option<&str>) -> Self {
        self.bytes(field.map(str::as_bytes))
    }

    pub(super) fn finish(self) -> u32 {
        self.0
    }
}
