//! Messages that wait to be sent, up to a number of bytes.

use std::collections::VecDeque;

pub(super) struct Queue {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
    /// How much of the first one was sent, on a stream.
    sent: usize,
    dropped: usize,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Queue { messages: VecDeque::new(), bytes: 0, bytes_max, sent: 0, dropped: 0 }
    }

    /// `false` where there is no room: the message is dropped.
    pub(super) fn push(&mut self, message: Vec<u8>) -> bool {
        // What a message costs at least, however short.
        let bytes = message.len() + size_of::<Vec<u8>>();
        let fits = self.bytes + bytes <= self.bytes_max;
        if fits {
            self.bytes += bytes;
            self.messages.push_back(message);
        } else {
            self.dropped += 1;
        }
        fits
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// What is to be sent of the first message.
    pub(super) fn first(&self) -> Option<&[u8]> {
        self.messages.front().map(|message| &message[self.sent..])
    }

    /// So much of the first message was sent.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.messages.front().is_some_and(|message| message.len() <= self.sent) {
            self.remove_first();
        }
    }

    /// The first message cannot be sent at all.
    pub(super) fn drop_first(&mut self) {
        self.dropped += 1;
        self.remove_first();
    }

    /// The next server has seen nothing of the first message.
    pub(super) fn restart(&mut self) {
        self.sent = 0;
    }

    /// How many were dropped since this was asked.
    pub(super) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    fn remove_first(&mut self) {
        self.sent = 0;
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.len() + size_of::<Vec<u8>>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let mut queue = Queue::new(2 * (10 + size_of::<Vec<u8>>()));
        assert!(queue.push(vec![1; 10]) && queue.push(vec![2; 10]));
        assert!(!queue.push(vec![3]));
        queue.advance(10);
        assert!(queue.push(vec![4]), "there is room again");
        assert_eq!((queue.len(), queue.take_dropped(), queue.take_dropped()), (2, 1, 0));
    }

    #[test]
    fn a_message_that_was_cut_is_sent_whole_to_the_next_server() {
        let mut queue = Queue::new(1_000);
        queue.push(b"one".to_vec());
        queue.push(b"two".to_vec());
        queue.advance(2);
        assert_eq!(queue.first(), Some(b"e".as_slice()));
        queue.restart();
        assert_eq!(queue.first(), Some(b"one".as_slice()));
        queue.advance(3);
        assert_eq!(queue.first(), Some(b"two".as_slice()));
        queue.drop_first();
        assert!(queue.is_empty());
        assert_eq!((queue.take_dropped(), queue.bytes), (1, 0));
    }
}
