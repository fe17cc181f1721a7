//! Answers of the host's resolvers, for as long as they say.

use std::collections::BTreeMap;
use std::time::Duration;

use hickory_server::proto::op::{Message, Query, ResponseCode};
use hickory_server::proto::rr::RData;

/// Answers kept at most.
pub(super) const ENTRIES_MAX: usize = 4096;
/// Larger answers are not kept: tasks choose what is asked for, and all entries have to fit.
const KEPT_BYTES_MAX: usize = 4096;
/// Longest time for which an answer is cached, whatever its TTL.
const KEPT_MAX: Duration = Duration::from_secs(300);
/// The same for an answer that there is nothing.
const ABSENCE_KEPT_MAX: Duration = Duration::from_secs(30);

/// What an answer is to: name in lower case and type.
type Key = (String, u16);

/// Times are those of the caller's clock.
#[derive(Default)]
pub(crate) struct Cache {
    entries: BTreeMap<Key, Entry>,
}

struct Entry {
    message: Message,
    since: Duration,
    until: Duration,
}

fn key(query: &Query) -> Key {
    (query.name().to_lowercase().to_string(), query.query_type().into())
}

impl Cache {
    /// An answer that is still good, its records' lives shortened by its age.
    pub(crate) fn get(&self, query: &Query, now: Duration) -> Option<Message> {
        let entry = self.entries.get(&key(query)).filter(|entry| now < entry.until)?;
        let mut message = entry.message.clone();
        let age = u32::try_from(now.saturating_sub(entry.since).as_secs()).unwrap_or(u32::MAX);
        let records = message.answers.iter_mut().chain(&mut message.authorities);
        for record in records {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    /// Keeps an answer if it may be kept.
    pub(crate) fn put(&mut self, query: &Query, message: &Message, now: Duration) {
        let Some(kept) = lifetime(message) else { return };
        if !message.to_vec().is_ok_and(|bytes| bytes.len() <= KEPT_BYTES_MAX) {
            return;
        }
        if self.entries.len() >= ENTRIES_MAX {
            self.make_room(now);
        }
        let entry = Entry { message: message.clone(), since: now, until: now + kept };
        self.entries.insert(key(query), entry);
    }

    /// Drops what is over, else what is over soonest.
    fn make_room(&mut self, now: Duration) {
        self.entries.retain(|_, entry| now < entry.until);
        if self.entries.len() >= ENTRIES_MAX {
            let soonest = self.entries.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(key) = soonest.map(|(key, _)| key.clone()) {
                self.entries.remove(&key);
            }
        }
    }
}

/// How long an answer may be kept: the shortest of its records; for an absence the zone's own word
/// (RFC 2308, section 5). An absence without it and every failure are not kept.
fn lifetime(message: &Message) -> Option<Duration> {
    let code = message.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return None;
    }
    let kept = if message.answers.is_empty() {
        let absence = message.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        });
        Duration::from_secs(absence?.into()).min(ABSENCE_KEPT_MAX)
    } else {
        let shortest = message.answers.iter().map(|record| record.ttl).min();
        Duration::from_secs(shortest?.into()).min(KEPT_MAX)
    };
    (!kept.is_zero()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::op::{MessageType, OpCode};
    use hickory_server::proto::rr::rdata::{A, SOA};
    use hickory_server::proto::rr::{Name, Record, RecordType};

    use super::*;

    fn query(name: &str) -> Query {
        Query::query(Name::from_utf8(name).unwrap(), RecordType::A)
    }

    fn message(answers: &[u32], absence: Option<(u32, u32)>) -> Message {
        let name = Name::from_utf8("example.org.").unwrap();
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        for ttl in answers {
            let data = RData::A(A([192, 0, 2, 1].into()));
            message.add_answer(Record::from_rdata(name.clone(), *ttl, data));
        }
        if let Some((ttl, minimum)) = absence {
            let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, minimum);
            message.add_authority(Record::from_rdata(name.clone(), ttl, RData::SOA(soa)));
        }
        message
    }

    #[test]
    fn an_answer_lives_as_long_as_it_says_but_not_too_long() {
        let table = [
            (message(&[60, 20], None), Some(20)),
            (message(&[86400], None), Some(300)),
            (message(&[0], None), None),
            (message(&[], Some((10, 7))), Some(7)),
            (message(&[], Some((86400, 86400))), Some(30)),
            (message(&[], None), None),
            (Message::error_msg(1, OpCode::Query, ResponseCode::ServFail), None),
        ];
        for (message, seconds) in table {
            assert_eq!(lifetime(&message), seconds.map(Duration::from_secs), "{message}");
        }
    }

    #[test]
    fn records_age_and_end() {
        let mut cache = Cache::default();
        let at = Duration::from_secs;
        cache.put(&query("Example.ORG."), &message(&[60], None), at(100));
        let found = cache.get(&query("example.org."), at(140)).unwrap();
        assert_eq!(found.answers[0].ttl, 20);
        assert_eq!(cache.get(&query("example.org."), at(160)), None);
        assert_eq!(cache.get(&query("example.net."), at(140)), None);
    }

    #[test]
    fn a_large_answer_is_not_kept() {
        let mut cache = Cache::default();
        for (records, kept) in [(100, true), (400, false)] {
            let asked = query(&format!("n{records}.example."));
            cache.put(&asked, &message(&vec![60; records], None), Duration::ZERO);
            assert_eq!(cache.get(&asked, Duration::ZERO).is_some(), kept, "{records}");
        }
    }

    #[test]
    fn room_is_made_where_it_hurts_least() {
        let mut cache = Cache::default();
        let at = Duration::from_secs;
        for n in 0..ENTRIES_MAX {
            let ttl = if n == 7 { 50 } else { 60 };
            cache.put(&query(&format!("n{n}.example.")), &message(&[ttl], None), at(0));
        }
        cache.put(&query("one.more."), &message(&[60], None), at(1));
        assert_eq!(cache.entries.len(), ENTRIES_MAX);
        assert_eq!(cache.get(&query("n7.example."), at(1)), None);
        assert!(cache.get(&query("one.more."), at(1)).is_some());
    }
}
