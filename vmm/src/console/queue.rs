//! Bytes on their way out: a bounded queue that prefers the new to the old.

use std::collections::VecDeque;

/// The most bytes that wait.
pub const LIMIT: usize = 256 << 10;

/// The queue. It grows as needed up to [`LIMIT`] and shrinks to nothing when it is empty.
#[derive(Debug, Default)]
pub struct Queue {
    bytes: VecDeque<u8>,
    dropped: u64,
    /// Bytes were taken and are being written.
    writing: bool,
}

impl Queue {
    /// Appends bytes, dropping the oldest beyond the limit. True if the queue was empty: someone may
    /// sleep.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let was_empty = self.bytes.is_empty();
        let newest = bytes.len().saturating_sub(LIMIT);
        let (old, bytes) = bytes.split_at(newest);
        let over = (self.bytes.len().saturating_add(bytes.len())).saturating_sub(LIMIT);
        self.bytes.drain(..over);
        self.bytes.extend(bytes);
        let lost = old.len().saturating_add(over);
        self.dropped = self.dropped.saturating_add(lost as u64);
        was_empty
    }

    /// Moves at most `most` bytes to `chunk`, whose content is replaced. How many were dropped since
    /// the last time is returned. [`Queue::done`] follows when they are written.
    pub fn take(&mut self, chunk: &mut Vec<u8>, most: usize) -> u64 {
        chunk.clear();
        chunk.extend(self.bytes.drain(..most.min(self.bytes.len())));
        self.writing = !chunk.is_empty();
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
        std::mem::take(&mut self.dropped)
    }

    /// What was taken is written, or lost.
    pub fn done(&mut self) {
        self.writing = false;
    }

    /// Whether everything has left.
    pub fn is_idle(&self) -> bool {
        self.bytes.is_empty() && !self.writing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(queue: &mut Queue, most: usize) -> (Vec<u8>, u64) {
        let mut chunk = vec![b'?'];
        let dropped = queue.take(&mut chunk, most);
        (chunk, dropped)
    }

    #[test]
    fn bytes_come_out_in_order() {
        let mut queue = Queue::default();
        assert!(queue.push(b"abc"));
        assert!(!queue.push(b"def"));
        assert_eq!(take(&mut queue, 4), (b"abcd".to_vec(), 0));
        assert_eq!(take(&mut queue, 4), (b"ef".to_vec(), 0));
        assert!(!queue.is_idle());
        queue.done();
        assert!(queue.is_idle());
    }

    #[test]
    fn the_oldest_are_dropped_and_counted() {
        let mut queue = Queue::default();
        queue.push(&vec![b'a'; LIMIT]);
        queue.push(b"bc");
        assert_eq!(take(&mut queue, 1), (b"a".to_vec(), 2));
        assert_eq!(queue.bytes.len(), LIMIT - 1);
        assert!(queue.bytes.iter().rev().take(2).eq(b"cb"));
        let mut long = vec![b'x'; LIMIT];
        long.extend(b"yz");
        queue.push(&long);
        assert_eq!(queue.bytes.len(), LIMIT);
        assert_eq!(take(&mut queue, 0).1, (LIMIT - 1 + 2) as u64);
    }
}
