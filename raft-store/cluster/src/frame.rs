//! What a stream between two programs consists of, in either direction: a byte that says what it
//! is, the length of the payload (four bytes, big-endian), and the payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest payload, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// What is before each payload.
const HEAD_BYTES: usize = 5;

/// One message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is: for who uses the stream to say.
    pub kind: u8,
    /// At most [`FRAME_BYTES_MAX`] bytes.
    pub payload: Bytes,
}

/// Why something is no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Its payload is longer than [`FRAME_BYTES_MAX`].
    #[error("a frame with {0} bytes, and the limit is {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// Nobody knows what it is.
    #[error("a frame of kind {0}, which does not belong here")]
    Kind(u8),
    /// Its payload is not what its kind says.
    #[error("a frame of kind {0} with another payload")]
    Payload(u8),
}

impl Frame {
    /// The frame's bytes.
    ///
    /// # Errors
    /// When its payload is too long.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let length = self.payload.len();
        let written = u32::try_from(length).ok().filter(|_| length <= FRAME_BYTES_MAX);
        let written = written.ok_or(FrameError::TooLong(length))?;
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + length);
        bytes.put_u8(self.kind);
        bytes.put_u32(written);
        bytes.put_slice(&self.payload);
        Ok(bytes.freeze())
    }

    /// Takes the first whole frame out of what has come.
    ///
    /// # Errors
    /// When it is longer than a frame may be: nothing after it can be read.
    pub fn take(received: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some((&[kind, a, b, c, d], rest)) = received.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        received.advance(HEAD_BYTES);
        Ok(Some(Frame { kind, payload: received.split_to(length).freeze() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_these_bytes_wherever_they_are_cut() {
        let frame = Frame { kind: 7, payload: Bytes::from_static(b"ab") };
        let bytes = frame.encode().unwrap();
        assert_eq!(bytes, b"\x07\0\0\0\x02ab".as_slice());
        let twice = [bytes.clone(), bytes].concat();
        for cut in 0..twice.len() {
            let mut received = BytesMut::new();
            let mut frames = Vec::new();
            for part in [&twice[..cut], &twice[cut..]] {
                received.extend_from_slice(part);
                while let Some(frame) = Frame::take(&mut received).unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!((frames, received.len()), (vec![frame.clone(), frame.clone()], 0), "{cut}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_neither_written_nor_waited_for() {
        let frame = |bytes| Frame { kind: 0, payload: Bytes::from(vec![0; bytes]) };
        let longest = frame(FRAME_BYTES_MAX).encode().unwrap();
        assert!(Frame::take(&mut BytesMut::from(longest.as_ref())).unwrap().is_some());
        let length = FRAME_BYTES_MAX + 1;
        assert_eq!(frame(length).encode(), Err(FrameError::TooLong(length)));
        let head = [&[0], u32::try_from(length).unwrap().to_be_bytes().as_slice()].concat();
        let mut received = BytesMut::from(head.as_slice());
        assert_eq!(Frame::take(&mut received), Err(FrameError::TooLong(length)));
    }
}
