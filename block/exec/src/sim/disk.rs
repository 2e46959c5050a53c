//! One simulated file: what it holds, what of that is durable, and what happened since.

/// Blocks in which holes are kept.
const BLOCK: usize = 4096;
/// What a crash tears writes into.
const SECTOR: usize = 512;

/// A change of a file.
#[derive(Clone)]
pub(super) enum Change {
    Write {
        at: u64,
        data: Vec<u8>,
    },
    Allocate {
        at: u64,
        len: u64,
        zero: bool,
        hole: bool,
        keep_size: bool,
    },
    SetLen(u64),
}

#[derive(Clone, Default)]
struct State {
    bytes: Vec<u8>,
    /// Which blocks have space on the disk.
    allocated: Vec<bool>,
}

#[derive(Default)]
pub(super) struct Disk {
    now: State,
    durable: State,
    /// Changes since the last flush, and whether they are durable all the same.
    since: Vec<(Change, bool)>,
}

impl Change {
    /// The largest length that the file may have after it.
    pub(super) fn end(&self) -> u64 {
        match self {
            Self::Write { at, data } => at.saturating_add(data.len() as u64),
            Self::Allocate { at, len, .. } => at.saturating_add(*len),
            Self::SetLen(len) => *len,
        }
    }
}

impl State {
    fn set_len(&mut self, len: usize) {
        self.bytes.resize(len, 0);
        self.allocated.resize(len.div_ceil(BLOCK), false);
    }

    /// Changes are within `LARGEST`, so positions fit.
    fn apply(&mut self, change: &Change) {
        let end = change.end() as usize;
        match change {
            Change::Write { at, data } => {
                if data.is_empty() {
                    return;
                }
                self.set_len(self.bytes.len().max(end));
                let at = *at as usize;
                self.bytes[at..end].copy_from_slice(data);
                self.allocated[at / BLOCK..end.div_ceil(BLOCK)].fill(true);
            }
            Change::Allocate {
                at,
                zero,
                hole,
                keep_size,
                ..
            } => {
                if !keep_size {
                    self.set_len(self.bytes.len().max(end));
                }
                let end = end.min(self.bytes.len());
                let at = (*at as usize).min(end);
                if *zero {
                    self.bytes[at..end].fill(0);
                }
                if !hole {
                    self.allocated[at / BLOCK..end.div_ceil(BLOCK)].fill(true);
                } else if at.div_ceil(BLOCK) < end / BLOCK {
                    self.allocated[at.div_ceil(BLOCK)..end / BLOCK].fill(false);
                }
            }
            Change::SetLen(len) => self.set_len(*len as usize),
        }
    }
}

impl Disk {
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        let state = State {
            allocated: vec![true; bytes.len().div_ceil(BLOCK)],
            bytes,
        };
        Self {
            now: state.clone(),
            durable: state,
            since: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> &[u8] {
        &self.now.bytes
    }

    pub(super) fn allocated(&self) -> u64 {
        (self.now.allocated.iter().filter(|block| **block).count() * BLOCK) as u64
    }

    pub(super) fn change(&mut self, change: Change, sure: bool) {
        self.now.apply(&change);
        self.since.push((change, sure));
    }

    pub(super) fn flush(&mut self) {
        self.durable = self.now.clone();
        self.since.clear();
    }

    /// The next data (or hole) at or after `offset`, as SEEK_DATA and SEEK_HOLE say it.
    pub(super) fn seek(&self, hole: bool, offset: u64) -> Option<u64> {
        let len = self.now.bytes.len();
        let start = usize::try_from(offset).ok().filter(|start| *start < len)?;
        let found = (start / BLOCK..self.now.allocated.len())
            .find(|block| self.now.allocated[*block] != hole);
        match found {
            Some(block) => Some((block * BLOCK).max(start) as u64),
            None => hole.then_some(len as u64),
        }
    }

    /// What a crash leaves; `roll(n)` is one of `0..n`.
    pub(super) fn survivor(&self, roll: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut state = self.durable.clone();
        for (change, sure) in &self.since {
            match (sure, roll(3)) {
                (true, _) | (false, 0) => state.apply(change),
                (false, 1) => {}
                _ => {
                    if let Change::Write { at, data } = change {
                        let mut from = 0;
                        while from < data.len() {
                            let place = *at as usize + from;
                            let to = data.len().min(from + SECTOR - place % SECTOR);
                            if roll(2) == 0 {
                                state.apply(&Change::Write {
                                    at: place as u64,
                                    data: data[from..to].to_vec(),
                                });
                            }
                            from = to;
                        }
                    }
                }
            }
        }
        Self {
            now: state.clone(),
            durable: state,
            since: Vec::new(),
        }
    }
}
