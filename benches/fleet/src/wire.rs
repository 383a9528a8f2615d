//! The parts of protobuf and gRPC that the answers need, written by hand: the types that etcd-client generates have a
//! server side only if the client of the whole workspace is built with one.

use bytes::{BufMut, Bytes, BytesMut};

/// A message under construction. Fields with the default value are left out, as proto3 does.
#[derive(Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A number, `bool` or enumeration.
    pub(crate) fn number(mut self, field: u8, value: u64) -> Self {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
        self
    }

    /// A string.
    pub(crate) fn text(self, field: u8, value: &str) -> Self {
        if value.is_empty() { self } else { self.bytes(field, value.as_bytes()) }
    }

    /// A message within.
    pub(crate) fn message(self, field: u8, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn bytes(mut self, field: u8, value: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// With gRPC's prefix: not compressed, so long.
    pub(crate) fn framed(self) -> Bytes {
        let mut frame = BytesMut::with_capacity(self.0.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        frame.extend_from_slice(&self.0);
        frame.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_texts_and_messages_are_written_as_protobuf_does() {
        let inner = Message::default().number(1, 300);
        let message = Message::default().number(2, 0).text(2, "testing").message(3, &inner);
        let expected = [0x12, 7, b't', b'e', b's', b't', b'i', b'n', b'g', 0x1a, 3, 0x08, 0xac, 0x02];
        assert_eq!(message.framed()[5..], expected);
    }
}
