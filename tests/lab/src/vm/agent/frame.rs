//! Frames of a program's streams: one byte for the kind, four for the length (big-endian), bytes.

use std::io::{Read, Write};

use anyhow::{Context as _, Result, bail, ensure};

/// Most bytes of one frame.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// A piece of a stream, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Standard input.
    Input(Vec<u8>),
    /// The end of standard input.
    InputEnd,
    /// Standard output.
    Output(Vec<u8>),
    /// Standard error.
    Error(Vec<u8>),
    /// The program ended, with this status: 128 + signal when a signal ended it.
    Ended(i32),
}

impl Frame {
    /// Sends it.
    ///
    /// # Errors
    /// When the other end is gone, or the frame is too long.
    pub fn write(&self, to: &mut impl Write) -> Result<()> {
        let status;
        let (kind, bytes): (u8, &[u8]) = match self {
            Self::Input(bytes) => (1, bytes),
            Self::InputEnd => (2, &[]),
            Self::Output(bytes) => (3, bytes),
            Self::Error(bytes) => (4, bytes),
            Self::Ended(code) => {
                status = code.to_be_bytes();
                (5, &status)
            }
        };
        ensure!(bytes.len() <= FRAME_BYTES_MAX, "a frame of {} bytes", bytes.len());
        let mut all = vec![kind];
        all.extend(u32::try_from(bytes.len())?.to_be_bytes());
        all.extend(bytes);
        to.write_all(&all).context("sending a frame")
    }

    /// Reads one; none where the stream ends before it.
    ///
    /// # Errors
    /// When the stream ends within a frame, or it is not one of these frames.
    pub fn read(from: &mut impl Read) -> Result<Option<Self>> {
        let mut head = [0; 5];
        match from.read_exact(&mut head[..1]) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error).context("awaiting a frame"),
        }
        from.read_exact(&mut head[1..]).context("awaiting a frame's length")?;
        let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]]))?;
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes).context("awaiting a frame's bytes")?;
        Ok(Some(match head[0] {
            1 => Self::Input(bytes),
            2 => Self::InputEnd,
            3 => Self::Output(bytes),
            4 => Self::Error(bytes),
            5 => Self::Ended(i32::from_be_bytes(bytes.as_slice().try_into()?)),
            other => bail!("a frame of kind {other}"),
        }))
    }
}

#[test]
fn frames_come_through_and_nonsense_does_not() {
    let frames = [
        Frame::Input(b"words".to_vec()),
        Frame::InputEnd,
        Frame::Output(vec![0; FRAME_BYTES_MAX]),
        Frame::Error(Vec::new()),
        Frame::Ended(-3),
    ];
    let mut bytes = Vec::new();
    for frame in &frames {
        frame.write(&mut bytes).expect("a vector takes it");
    }
    assert!(bytes.starts_with(b"\x01\0\0\0\x05words\x02\0\0\0\0"));
    let mut rest = bytes.as_slice();
    for frame in frames {
        assert_eq!(Frame::read(&mut rest).expect("a frame"), Some(frame));
    }
    assert_eq!(Frame::read(&mut rest).expect("the end"), None);
    assert!(Frame::Output(vec![0; FRAME_BYTES_MAX + 1]).write(&mut Vec::new()).is_err());
    for bad in [&b"\x01\0\0\0\x05wor"[..], b"\x01\0\0", b"\x01\xff\0\0\0", b"\x09\0\0\0\0"] {
        assert!(Frame::read(&mut &bad[..]).is_err(), "{bad:?}");
    }
    assert!(Frame::read(&mut &b"\x05\0\0\0\x01x"[..]).is_err(), "a short status");
}
