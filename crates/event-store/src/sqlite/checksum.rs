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

    /// Of an event at this place: what `new`, `number` and `bytes` give, in two steps, since it is asked for at each read.
    pub(super) fn of_event(log: i64, seq: u64, envelope: &[u8]) -> u32 {
        let mut place = [0; 24];
        for (field, number) in
            place.chunks_exact_mut(8).zip([log.cast_unsigned(), seq, envelope.len() as u64])
        {
            field.copy_from_slice(&number.to_le_bytes());
        }
        crc32c::crc32c_append(crc32c::crc32c(&place), envelope)
    }

    pub(super) fn finish(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_s_checksum_is_that_of_its_fields() {
        for envelope in [&b""[..], b"{}", &[7; 600]] {
            let by_fields = Checksum::new(-7).number(1 << 40).bytes(Some(envelope)).finish();
            assert_eq!(Checksum::of_event(-7, 1 << 40, envelope), by_fields);
        }
    }
}
