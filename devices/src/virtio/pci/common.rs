//! The common configuration structure (virtio 1.3 §4.1.4.3).

use std::sync::atomic::{AtomicU16, Ordering};

use super::{NO_VECTOR, QueueState, Registers, State};
use crate::virtio::{feature, load, status};

const DEVICE_FEATURE_SELECT: u64 = 0;
const DRIVER_FEATURE_SELECT: u64 = 8;
const DRIVER_FEATURE: u64 = 12;
const CONFIG_MSIX_VECTOR: u64 = 16;
const DEVICE_STATUS: u64 = 20;
const QUEUE_SELECT: u64 = 22;
const QUEUE_SIZE: u64 = 24;
const QUEUE_MSIX_VECTOR: u64 = 26;
const QUEUE_ENABLE: u64 = 28;
const QUEUE_DESC: u64 = 32;
const QUEUE_DRIVER: u64 = 40;
const QUEUE_DEVICE: u64 = 48;
const QUEUE_RESET: u64 = 58;

impl Registers {
    /// A load of any width.
    pub(super) fn read_common(&self, offset: u64, size: u8) -> u64 {
        load(&self.common(&self.state()), offset, size)
    }

    fn common(&self, state: &State) -> Vec<u8> {
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let line = self.queues.get(usize::from(state.queue_select));
        let absent = QueueState::new(0);
        let queue = state.selected().unwrap_or(&absent);
        let vector = line.map_or(NO_VECTOR, |l| l.vector.load(Ordering::Relaxed));
        let count = u16::try_from(self.queues.len()).unwrap_or(0);
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(state.device_feature_select.to_le_bytes());
        bytes.extend(half(self.features, state.device_feature_select).to_le_bytes());
        bytes.extend(state.driver_feature_select.to_le_bytes());
        bytes.extend(half(state.driver_features, state.driver_feature_select).to_le_bytes());
        bytes.extend(self.config_vector.load(Ordering::Relaxed).to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.push(state.status);
        bytes.push(state.generation);
        bytes.extend(state.queue_select.to_le_bytes());
        bytes.extend(queue.layout.size.to_le_bytes());
        bytes.extend(vector.to_le_bytes());
        bytes.extend(u16::from(queue.enabled).to_le_bytes());
        bytes.extend(line.map_or(0, |_| state.queue_select).to_le_bytes());
        bytes.extend(queue.layout.descriptors.to_le_bytes());
        bytes.extend(queue.layout.available.to_le_bytes());
        bytes.extend(queue.layout.used.to_le_bytes());
        bytes.extend(0u16.to_le_bytes());
        bytes.extend(u16::from(queue.resetting).to_le_bytes());
        bytes
    }

    /// A store as wide as the field; 64-bit fields also take their halves. Others are lost.
    pub(super) fn write_common(&self, offset: u64, size: u8, value: u64) {
        let (half, word) = (value as u32, value as u16);
        if (offset, size) == (DEVICE_STATUS, 1) {
            return self.write_status(value as u8);
        }
        let mut state = self.state();
        if state.resetting {
            return;
        }
        match (offset, size) {
            (DEVICE_FEATURE_SELECT, 4) => state.device_feature_select = half,
            (DRIVER_FEATURE_SELECT, 4) => state.driver_feature_select = half,
            (DRIVER_FEATURE, 4) if state.status & status::FEATURES_OK == 0 => {
                let select = state.driver_feature_select;
                let features = &mut state.driver_features;
                match select {
                    0 => *features = *features & !0xffff_ffff | u64::from(half),
                    1 => *features = *features & 0xffff_ffff | u64::from(half) << 32,
                    _ => {}
                }
            }
            (CONFIG_MSIX_VECTOR, 2) => self.set_vector(&self.config_vector, word),
            (QUEUE_SELECT, 2) => state.queue_select = word,
            (QUEUE_MSIX_VECTOR, 2) => {
                if let Some(line) = self.queues.get(usize::from(state.queue_select)) {
                    self.set_vector(&line.vector, word);
                }
            }
            (QUEUE_ENABLE, 2) if word == 1 => {
                let queue = state.queue_select;
                let live = state.status & status::DRIVER_OK != 0
                    && state.status & status::DEVICE_NEEDS_RESET == 0;
                if let Some(regs) = state.configurable() {
                    regs.enabled = true;
                    if live {
                        let started = vec![self.prepare(&mut state, queue)];
                        self.start(state, started);
                    }
                }
            }
            (QUEUE_RESET, 2) if word == 1 => {
                let agreed = state.agreed() & feature::RING_RESET != 0;
                self.reset_queue(&mut state, agreed);
            }
            (QUEUE_SIZE, 2) => {
                if let Some(regs) = state.configurable() {
                    regs.layout.size = word;
                }
            }
            (QUEUE_DESC..QUEUE_RESET, 4 | 8) => {
                let Some(regs) = state.configurable() else {
                    return;
                };
                let layout = &mut regs.layout;
                let (field, shift) = match offset {
                    QUEUE_DESC => (&mut layout.descriptors, 0),
                    QUEUE_DRIVER => (&mut layout.available, 0),
                    QUEUE_DEVICE => (&mut layout.used, 0),
                    0x24 => (&mut layout.descriptors, 32),
                    0x2c => (&mut layout.available, 32),
                    0x34 => (&mut layout.used, 32),
                    _ => return,
                };
                match (size, shift) {
                    (8, 0) => *field = value,
                    (4, 0) => *field = *field & !0xffff_ffff | u64::from(half),
                    (4, _) => *field = *field & 0xffff_ffff | u64::from(half) << 32,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Begins to reset the selected queue (§2.6.1); the register reads 1 until it is done.
    fn reset_queue(&self, state: &mut State, agreed: bool) {
        let select = usize::from(state.queue_select);
        let Some(regs) = state.queues.get_mut(select).filter(|q| agreed && q.enabled) else {
            return;
        };
        match &regs.running {
            Some(control) => {
                regs.resetting = true;
                control.stop();
            }
            None => self.renew_queue(state, select),
        }
    }

    /// A vector that does not exist reads back as none (§4.1.5.1.2).
    fn set_vector(&self, vector: &AtomicU16, value: u16) {
        let exists = value < self.interrupts.vectors();
        vector.store(if exists { value } else { NO_VECTOR }, Ordering::Relaxed);
    }
}

impl State {
    fn selected(&self) -> Option<&QueueState> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// The selected queue, if it exists and the driver may still set it up.
    fn configurable(&mut self) -> Option<&mut QueueState> {
        let queue = self.queues.get_mut(usize::from(self.queue_select))?;
        (!queue.enabled && !queue.resetting).then_some(queue)
    }
}
