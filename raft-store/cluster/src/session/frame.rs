//! The bytes of a [`WatchAnswer`]: a version byte, the length of the head (four bytes, big-endian),
//! the head in JSON, and the parts that are sent, one after the other.
//!
//! A part stands in them as the leader made it, and is not copied for the node that gets it.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Digest, Listed, PARTS_MAX, PartId, Told, WatchAnswer};
use crate::id::TaskId;
use crate::time::{Revision, Timestamp};

/// First byte.
const VERSION: u8 = 2;
/// The longest answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// An answer that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`ANSWER_BYTES_MAX`].
    #[error("an answer of {0} bytes is longer than the limit of {ANSWER_BYTES_MAX}")]
    TooLong(usize),
    /// Made by another version.
    #[error("an answer of version {0:?}, this node reads version {VERSION}")]
    Version(Option<u8>),
    /// It ends before the head does.
    #[error("an answer that ends in its head")]
    Short,
    /// The head is not what it should be, or cannot be written.
    #[error("the head of an answer")]
    Head(#[source] serde_json::Error),
    /// More parts than an assignment has.
    #[error("an answer with {0} parts, and an assignment has at most {PARTS_MAX}")]
    TooMany(usize),
    /// It ends before the part does.
    #[error("an answer that ends in {0}")]
    PartShort(PartId),
    /// There is more after the last part.
    #[error("an answer with {0} bytes after its last part")]
    Rest(usize),
}

#[derive(Serialize, Deserialize)]
struct Head {
    told: Option<HeadOfTold>,
    released: BTreeSet<TaskId>,
    now: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct HeadOfTold {
    revision: Revision,
    parts: Vec<HeadOfPart>,
}

#[derive(Serialize, Deserialize)]
struct HeadOfPart {
    part: PartId,
    digest: Digest,
    /// How long it is, where it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<usize>,
}

/// The pieces of an answer's bytes, in order.
///
/// # Errors
/// When the answer is longer than the node would take.
pub fn encode(answer: WatchAnswer) -> Result<Vec<Bytes>, FrameError> {
    let WatchAnswer { told, released, now } = answer;
    let mut pieces = vec![Bytes::new()];
    let told = told.map(|Told { revision, parts }| {
        let parts = parts.into_iter().map(|Listed { part, digest, bytes }| {
            let length = bytes.as_ref().map(Bytes::len);
            pieces.extend(bytes);
            HeadOfPart { part, digest, length }
        });
        HeadOfTold { revision, parts: parts.collect() }
    });
    let head = serde_json::to_vec(&Head { told, released, now }).map_err(FrameError::Head)?;
    let length = u32::try_from(head.len()).map_err(|_longer| FrameError::TooLong(head.len()))?;
    pieces[0] = [&[VERSION], &length.to_be_bytes()[..], &head].concat().into();
    match pieces.iter().map(Bytes::len).sum() {
        length if length > ANSWER_BYTES_MAX => Err(FrameError::TooLong(length)),
        _short_enough => Ok(pieces),
    }
}

/// Reads an answer.
///
/// # Errors
/// When it is none.
pub fn decode(mut bytes: Bytes) -> Result<WatchAnswer, FrameError> {
    if bytes.len() > ANSWER_BYTES_MAX {
        return Err(FrameError::TooLong(bytes.len()));
    }
    let version = bytes.first().copied();
    if version != Some(VERSION) {
        return Err(FrameError::Version(version));
    }
    let length = bytes.get(1..).and_then(|rest| rest.first_chunk::<4>());
    let length = u32::from_be_bytes(*length.ok_or(FrameError::Short)?) as usize;
    let mut rest = bytes.split_off(5);
    if rest.len() < length {
        return Err(FrameError::Short);
    }
    let head: Head = serde_json::from_slice(&rest.split_to(length)).map_err(FrameError::Head)?;
    let told = head.told.map(|told| parts(told, &mut rest)).transpose()?;
    if !rest.is_empty() {
        return Err(FrameError::Rest(rest.len()));
    }
    Ok(WatchAnswer { told, released: head.released, now: head.now })
}

fn parts(told: HeadOfTold, rest: &mut Bytes) -> Result<Told, FrameError> {
    if told.parts.len() > PARTS_MAX {
        return Err(FrameError::TooMany(told.parts.len()));
    }
    let parts = told.parts.into_iter().map(|HeadOfPart { part, digest, length }| {
        let bytes = match length {
            Some(length) if length > rest.len() => return Err(FrameError::PartShort(part)),
            Some(length) => Some(rest.split_to(length)),
            None => None,
        };
        Ok(Listed { part, digest, bytes })
    });
    Ok(Told { revision: told.revision, parts: parts.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NetworkId;

    fn answer() -> WatchAnswer {
        let listed = |part, digest, bytes: Option<&'static [u8]>| Listed {
            part,
            digest: Digest([digest; 32]),
            bytes: bytes.map(Bytes::from_static),
        };
        let parts = vec![
            listed(PartId::Common, 0x1a, None),
            listed(PartId::Network(NetworkId(7)), 2, Some(b"{}")),
            listed(PartId::Own, 3, Some(b"[]")),
        ];
        let told = Some(Told { revision: Revision(9), parts });
        WatchAnswer { told, released: [TaskId(5)].into(), now: Timestamp(11) }
    }

    fn bytes(answer: WatchAnswer) -> Vec<u8> {
        encode(answer).unwrap().concat()
    }

    #[test]
    fn golden_bytes() {
        let written = bytes(answer());
        let (head, rest) = written.split_at(written.len() - 4);
        assert_eq!(rest, b"{}[]");
        let digest = |byte: &str| byte.repeat(32);
        let golden = [
            r#"{"told":{"revision":9,"parts":[{"part":"common","digest":""#,
            &digest("1a"),
            r#""},{"part":{"network":"0000000000000000000000007"},"digest":""#,
            &digest("02"),
            r#"","length":2},{"part":"own","digest":""#,
            &digest("03"),
            r#"","length":2}]},"released":["0000000000000000000000005"],"now":11}"#,
        ];
        assert_eq!(&head[5..], golden.concat().as_bytes());
        assert_eq!(head[..5], [2, 0, 0, 1, 0x9f]);
        assert_eq!(decode(written.into()).unwrap(), answer());
    }

    /// Goal: what is cut off, added or of another version is refused, and says where.
    #[test]
    fn what_is_not_an_answer_is_refused() {
        let whole = bytes(answer());
        let refused = |bytes: Vec<u8>| decode(bytes.into()).unwrap_err().to_string();
        let cut = |count: usize| refused(whole[..whole.len() - count].to_vec());
        assert_eq!(cut(1), "an answer that ends in the node's own part");
        assert_eq!(cut(3), format!("an answer that ends in {}", PartId::Network(NetworkId(7))));
        assert_eq!(cut(5), "an answer that ends in its head");
        assert_eq!(refused(whole[..3].to_vec()), "an answer that ends in its head");
        assert_eq!(
            refused([whole.clone(), vec![0]].concat()),
            "an answer with 1 bytes after its last part"
        );
        let other = [&[1], &whole[1..]].concat();
        assert_eq!(refused(other), "an answer of version Some(1), this node reads version 2");
        let many = answer().told.unwrap().parts.into_iter().cycle().take(PARTS_MAX + 1);
        let parts = many.map(|part| Listed { bytes: None, ..part }).collect();
        let told = Some(Told { revision: Revision(9), parts });
        let many = bytes(WatchAnswer { told, ..answer() });
        assert!(refused(many).starts_with("an answer with 16385 parts"));
    }
}
