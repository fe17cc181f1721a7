//! The frames of a program's stream.

use bytes::Bytes;

use super::{ExecInput, ExecOutput, WindowSize};
use crate::frame::{FRAME_BYTES_MAX, Frame, FrameError};

const INPUT: u8 = 1;
const END: u8 = 2;
const RESIZE: u8 = 3;
const SIGNAL: u8 = 4;
const STDOUT: u8 = 5;
const STDERR: u8 = 6;
const ENDED: u8 = 7;
const TAKEN: u8 = 8;

impl From<ExecInput> for Frame {
    fn from(input: ExecInput) -> Self {
        let (kind, payload) = match input {
            ExecInput::Bytes(bytes) => (INPUT, bytes),
            ExecInput::End => (END, Bytes::new()),
            ExecInput::Resize(WindowSize { rows, columns }) => {
                let size = [rows.to_be_bytes(), columns.to_be_bytes()].concat();
                (RESIZE, Bytes::from(size))
            }
            ExecInput::Signal(number) => (SIGNAL, Bytes::copy_from_slice(&[number])),
        };
        Frame { kind, payload }
    }
}

impl TryFrom<Frame> for ExecInput {
    type Error = FrameError;

    fn try_from(frame: Frame) -> Result<Self, FrameError> {
        let Frame { kind, payload } = frame;
        match (kind, payload.as_ref()) {
            (INPUT, _) => Ok(ExecInput::Bytes(payload)),
            (END, []) => Ok(ExecInput::End),
            (RESIZE, &[a, b, c, d]) => {
                let (rows, columns) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                Ok(ExecInput::Resize(WindowSize { rows, columns }))
            }
            (SIGNAL, &[number]) => Ok(ExecInput::Signal(number)),
            (END | RESIZE | SIGNAL, _) => Err(FrameError::Payload(kind)),
            (_other, _) => Err(FrameError::Kind(kind)),
        }
    }
}

impl From<ExecOutput> for Frame {
    fn from(output: ExecOutput) -> Self {
        let (kind, payload) = match output {
            ExecOutput::Stdout(bytes) => (STDOUT, bytes),
            ExecOutput::Stderr(bytes) => (STDERR, bytes),
            ExecOutput::Taken(bytes) => (TAKEN, Bytes::copy_from_slice(&bytes.to_be_bytes())),
            ExecOutput::Ended(mut end) => {
                // A reason that is too long does not keep the code back. JSON makes of one byte six
                // at most.
                if let Some(error) = &mut end.error {
                    let mut length = error.len().min(FRAME_BYTES_MAX / 8);
                    while !error.is_char_boundary(length) {
                        length -= 1;
                    }
                    error.truncate(length);
                }
                // Numbers and a string can be written as JSON.
                (ENDED, Bytes::from(serde_json::to_vec(&end).unwrap_or_default()))
            }
        };
        Frame { kind, payload }
    }
}

impl TryFrom<Frame> for ExecOutput {
    type Error = FrameError;

    fn try_from(frame: Frame) -> Result<Self, FrameError> {
        let Frame { kind, payload } = frame;
        match kind {
            STDOUT => Ok(ExecOutput::Stdout(payload)),
            STDERR => Ok(ExecOutput::Stderr(payload)),
            TAKEN => <[u8; 4]>::try_from(payload.as_ref())
                .map(|bytes| ExecOutput::Taken(u32::from_be_bytes(bytes)))
                .map_err(|_malformed| FrameError::Payload(kind)),
            ENDED => serde_json::from_slice(&payload)
                .map(ExecOutput::Ended)
                .map_err(|_malformed| FrameError::Payload(kind)),
            _other => Err(FrameError::Kind(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ExecEnd;

    #[test]
    fn the_bytes_are_as_ever() {
        let inputs: [(ExecInput, &[u8]); 4] = [
            (ExecInput::Bytes(Bytes::from_static(b"a\n")), b"\x01\0\0\0\x02a\n"),
            (ExecInput::End, b"\x02\0\0\0\0"),
            (
                ExecInput::Resize(WindowSize { rows: 24, columns: 300 }),
                b"\x03\0\0\0\x04\0\x18\x01\x2c",
            ),
            (ExecInput::Signal(15), b"\x04\0\0\0\x01\x0f"),
        ];
        for (input, bytes) in inputs {
            let frame = Frame::from(input.clone());
            assert_eq!(frame.encode().unwrap(), bytes);
            assert_eq!(ExecInput::try_from(frame), Ok(input));
        }
        let end = ExecEnd { code: 137, signal: Some(9), error: None };
        let ended = b"\x07\0\0\0\x24{\"code\":137,\"signal\":9,\"error\":null}";
        let outputs: [(ExecOutput, &[u8]); 4] = [
            (ExecOutput::Taken(258), b"\x08\0\0\0\x04\0\0\x01\x02"),
            (ExecOutput::Stdout(Bytes::from_static(b"a")), b"\x05\0\0\0\x01a"),
            (ExecOutput::Stderr(Bytes::new()), b"\x06\0\0\0\0"),
            (ExecOutput::Ended(end), ended),
        ];
        for (output, bytes) in outputs {
            let frame = Frame::from(output.clone());
            assert_eq!(frame.encode().unwrap(), bytes);
            assert_eq!(ExecOutput::try_from(frame), Ok(output));
        }
    }

    #[test]
    fn what_does_not_belong_in_a_direction_is_refused() {
        let frame = |kind, payload| Frame { kind, payload: Bytes::from_static(payload) };
        for (kind, payload) in [(END, b"a".as_slice()), (RESIZE, b"abc"), (SIGNAL, b"")] {
            let refused = ExecInput::try_from(frame(kind, payload));
            assert_eq!(refused, Err(FrameError::Payload(kind)));
        }
        for kind in [0, STDOUT, ENDED, TAKEN, 9] {
            assert_eq!(ExecInput::try_from(frame(kind, b"")), Err(FrameError::Kind(kind)));
        }
        for kind in [0, INPUT, SIGNAL, 9] {
            assert_eq!(ExecOutput::try_from(frame(kind, b"")), Err(FrameError::Kind(kind)));
        }
        for (kind, payload) in [(ENDED, b"{".as_slice()), (TAKEN, b"abc")] {
            let refused = ExecOutput::try_from(frame(kind, payload));
            assert_eq!(refused, Err(FrameError::Payload(kind)));
        }
    }

    #[test]
    fn a_long_reason_leaves_the_code() {
        let end = ExecEnd::failed(127, "\u{1}ä".repeat(FRAME_BYTES_MAX));
        let frame = Frame::from(ExecOutput::Ended(end));
        assert!(frame.encode().is_ok());
        match ExecOutput::try_from(frame) {
            Ok(ExecOutput::Ended(end)) => assert_eq!(end.code, 127),
            other => panic!("{other:?}"),
        }
    }
}
