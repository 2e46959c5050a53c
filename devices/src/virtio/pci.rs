//! Virtio over PCI (virtio 1.3 §4.1), modern devices only.
//!
//! All registers are in BAR 4, MSI-X in BAR 1. [`VirtioPci`] is the PCI function; [`Registers`] is
//! what the BAR, the queues and the device share.
//!
//! What a driver wrote for a queue is looked at once, when the queue starts, and cannot be changed
//! while it is enabled. A reset is over when the last queue has ended: until then the status reads
//! back as it was, and nothing but that can be done.
//!
//! Lock order: the state → interrupts and seams of the machine. Queues are started, and may end, with
//! no lock held.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use exec::Kick;

use super::queue::{self, Layout, SplitRing};
use super::serve::{Control, Started};
use super::{Device, Transport, feature, status};
use crate::bus::{Action, Mmio, Ticket};
use crate::irq::{self, MsiSink, Notify};
use crate::memory::GuestRam;
use crate::pci::{Bar, BarKind, Identity, Interrupts, PciConfig, PciDevice, Window};

mod common;

const VENDOR: u16 = 0x1af4;
/// Device IDs are this plus the virtio ID (§4.1.2).
const DEVICE_BASE: u16 = 0x1040;
const SUBSYSTEM: u16 = 0x1100;
const NO_VECTOR: u16 = 0xffff;

const MSIX_BAR: usize = 1;
const BAR: u8 = 4;
const BAR_SIZE: u64 = 0x4000;
/// The four blocks of BAR 4, a page each.
const PAGE: u64 = 0x1000;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
/// Bytes between the notification addresses of two queues.
const NOTIFY_STEP: u64 = 4;

/// The most queues whose notification addresses fit.
pub const MAX_QUEUES: u16 = 1024;

/// ISR status bits (§4.1.4.5).
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// What the machine offers a device.
#[derive(Clone)]
pub struct Seams {
    /// Guest RAM.
    pub ram: Arc<GuestRam>,
    /// Where messages go.
    pub msi: Arc<dyn MsiSink>,
    /// Doorbells without exits.
    pub notify: Arc<dyn Notify>,
}

/// How a device is presented.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What is offered of [`feature`] beside the device's own and `VERSION_1`.
    pub features: u64,
    /// MSI-X vectors, at most 2048; 0 for INTx only.
    pub vectors: u16,
    /// Whether doorbells are attached to the machine.
    pub doorbells: bool,
    /// Whether the slot may hold other functions.
    pub multifunction: bool,
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    name: String,
    config: PciConfig,
    registers: Arc<Registers>,
    /// Where the capability for access without a BAR is (§4.1.4.9).
    window: u16,
}

/// The registers in BAR 4, and everything behind them.
pub struct Registers {
    name: String,
    device: Arc<dyn Device>,
    features: u64,
    doorbells: bool,
    seams: Seams,
    interrupts: Arc<Interrupts>,
    /// A mistake of the driver was logged.
    told: AtomicBool,
    isr: AtomicU8,
    config_vector: AtomicU16,
    queues: Box<[Line]>,
    state: Mutex<State>,
    /// Where doorbells are attached, by queue.
    attached: Mutex<Vec<(u16, irq::Doorbell)>>,
    itself: Weak<Registers>,
}

/// What of a queue is used without the state's lock.
struct Line {
    doorbell: Arc<Kick>,
    vector: AtomicU16,
}

struct State {
    status: u8,
    /// The driver wrote 0 to the status, and queues are still in use.
    resetting: bool,
    /// Not a bus master.
    paused: bool,
    generation: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
    queues: Vec<QueueState>,
}

impl State {
    /// The features that are in force: none before both sides agreed.
    fn agreed(&self) -> u64 {
        match self.status & status::FEATURES_OK {
            0 => 0,
            _ => self.driver_features,
        }
    }
}

/// One queue's registers (§4.1.4.3).
struct QueueState {
    layout: Layout,
    enabled: bool,
    resetting: bool,
    running: Option<Arc<Control>>,
}

impl QueueState {
    fn new(max: u16) -> QueueState {
        QueueState {
            layout: Layout {
                size: max,
                ..Layout::default()
            },
            enabled: false,
            resetting: false,
            running: None,
        }
    }
}

impl VirtioPci {
    /// The function for `device`, called `name` in messages.
    ///
    /// # Errors
    /// Those of creating an eventfd a queue.
    pub fn new(
        name: String,
        device: Arc<dyn Device>,
        setup: &Setup,
        seams: Seams,
    ) -> std::io::Result<Arc<VirtioPci>> {
        let count = device.queues().min(MAX_QUEUES);
        let interrupts = Interrupts::new(seams.msi.clone(), setup.vectors);
        let mut queues = Vec::new();
        for _ in 0..count {
            queues.push(Line {
                doorbell: Arc::new(Kick::eventfd()?),
                vector: AtomicU16::new(NO_VECTOR),
            });
        }
        let max = device.queue_size();
        let registers = Arc::new_cyclic(|itself| Registers {
            name: name.clone(),
            features: setup.features | feature::VERSION_1 | device.features(),
            doorbells: setup.doorbells,
            device,
            seams,
            interrupts,
            told: AtomicBool::new(false),
            isr: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queues: queues.into(),
            state: Mutex::new(State {
                status: 0,
                resetting: false,
                paused: true,
                generation: 0,
                device_feature_select: 0,
                driver_feature_select: 0,
                driver_features: 0,
                queue_select: 0,
                queues: (0..count).map(|_| QueueState::new(max)).collect(),
            }),
            attached: Mutex::default(),
            itself: itself.clone(),
        });
        let transport: Weak<dyn Transport> = registers.itself.clone();
        registers.device.attach(transport);
        let (config, window) = configuration(&registers, setup);
        Ok(Arc::new(VirtioPci {
            name,
            config,
            registers,
            window,
        }))
    }

    /// The register that the access window names, and how wide, if `offset` is in the window's four
    /// data bytes.
    fn window(&self, offset: u16) -> Option<(u64, u8)> {
        let data = self.window_data();
        if !(data..data.saturating_add(4)).contains(&offset) {
            return None;
        }
        let field = |at: u16, size| self.config.read(self.window.saturating_add(at), size);
        let (bar, register, len) = (field(4, 1), field(8, 4), field(12, 4));
        let len = u8::try_from(len).ok().filter(|l| matches!(l, 1 | 2 | 4))?;
        (bar == u32::from(BAR)).then_some((u64::from(register), len))
    }

    fn window_data(&self) -> u16 {
        self.window.saturating_add(16)
    }
}

/// The configuration space, and where its access window is.
fn configuration(registers: &Arc<Registers>, setup: &Setup) -> (PciConfig, u16) {
    let mut builder = PciConfig::builder(Identity {
        vendor: VENDOR,
        device: DEVICE_BASE.saturating_add(registers.device.id()),
        class: registers.device.class(),
        revision: 1,
        subsystem_vendor: VENDOR,
        subsystem: SUBSYSTEM,
    });
    if setup.multifunction {
        builder.multifunction();
    }
    builder.interrupts(
        &registers.interrupts,
        1,
        Some((
            MSIX_BAR,
            BarKind::Memory32 {
                prefetchable: false,
            },
        )),
    );
    builder.bar(
        usize::from(BAR),
        Bar {
            kind: BarKind::Memory64 { prefetchable: true },
            size: BAR_SIZE,
            registers: registers.clone(),
        },
    );
    // struct virtio_pci_cap (§4.1.4) behind ID and link.
    let mut add = |kind: u8, offset: u64, len: u64, more: &[u8]| {
        let size = u8::try_from(more.len()).unwrap_or(0).saturating_add(16);
        let mut body = vec![size, kind, BAR, 0, 0, 0];
        body.extend((offset as u32).to_le_bytes());
        body.extend((len as u32).to_le_bytes());
        body.extend(more);
        builder.capability(0x09, &body)
    };
    add(1, 0, PAGE, &[]);
    add(2, NOTIFY, PAGE, &(NOTIFY_STEP as u32).to_le_bytes());
    add(3, ISR, PAGE, &[]);
    add(4, DEVICE, PAGE, &[]);
    let window = add(5, 0, 0, &[0; 4]);
    builder.set(window.saturating_add(4), &[0]);
    builder.writable(window.saturating_add(4), &[0xff]);
    builder.writable(window.saturating_add(8), &[0xff; 12]);
    (builder.build(), window)
}

impl PciDevice for VirtioPci {
    fn name(&self) -> &str {
        &self.name
    }

    fn config(&self) -> &PciConfig {
        &self.config
    }

    fn reset(&self) {
        self.registers.reset();
    }

    // An access to any of the window's data is one to the whole register (§4.1.4.9.1).
    fn read_config(&self, offset: u16, size: u8) -> u32 {
        if let Some((register, len)) = self.window(offset) {
            let value = self.registers.read(register, len).to_le_bytes();
            let value = value.get(..usize::from(len)).unwrap_or_default();
            self.config.set(self.window_data(), value);
        }
        self.config.read(offset, size)
    }

    fn write_config(&self, offset: u16, size: u8, value: u32) -> Action {
        self.config.write(offset, size, value);
        let Some((register, len)) = self.window(offset) else {
            return Action::None;
        };
        let value = self.config.read(self.window_data(), len);
        self.registers.write(register, len, value.into())
    }

    fn bar_moved(&self, bar: usize, window: Option<Window>) {
        if bar == usize::from(BAR) {
            self.registers.place_doorbells(window.map(|w| w.base));
        }
    }

    fn bus_master(&self, enabled: bool) -> Action {
        self.registers.bus_master(enabled)
    }
}

impl Drop for VirtioPci {
    /// Queues end by themselves: their tasks outlive the function as long as requests are in flight.
    fn drop(&mut self) {
        self.registers.place_doorbells(None);
        self.registers.reset();
    }
}

impl Registers {
    /// Moves the doorbells to where the BAR is now. Where the machine takes none, stores to them
    /// come through the bus.
    fn place_doorbells(&self, base: Option<u64>) {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let doorbell = |queue: u16| self.queues.get(usize::from(queue)).map(|q| &*q.doorbell);
        for (queue, at) in attached.drain(..) {
            if let Some(doorbell) = doorbell(queue) {
                self.seams.notify.detach(at, doorbell.as_fd());
            }
        }
        let base = base.filter(|_| self.doorbells);
        let Some(notify) = base.and_then(|base| base.checked_add(NOTIFY)) else {
            return;
        };
        for (queue, line) in (0u16..).zip(&self.queues) {
            let offset = u64::from(queue).saturating_mul(NOTIFY_STEP);
            let at = irq::Doorbell::Mmio(notify.saturating_add(offset));
            let doorbell = line.doorbell.as_fd();
            if self.seams.notify.attach(at, doorbell).is_ok() {
                attached.push((queue, at));
            }
        }
    }

    /// A function that is no bus master neither reads nor writes memory: its queues are paused.
    fn bus_master(&self, enabled: bool) -> Action {
        let mut state = self.state();
        state.paused = !enabled;
        let running = state.queues.iter().filter_map(|q| q.running.as_ref());
        if enabled {
            running.for_each(|control| control.resume());
            return Action::None;
        }
        let (ticket, quiet) = Ticket::new();
        let quiet = Arc::new(quiet);
        running.for_each(|control| control.pause(quiet.clone()));
        Action::Wait(ticket)
    }

    fn write_status(&self, value: u8) {
        let mut state = self.state();
        if state.resetting {
            return;
        }
        if value == 0 {
            drop(state);
            return self.reset();
        }
        let new = value & !state.status;
        state.status |= new & (status::ACKNOWLEDGE | status::DRIVER | status::FAILED);
        // A driver sees that its choice was refused by the bit that stays clear (§3.1.1).
        let features = state.driver_features;
        let acceptable = features & !self.features == 0 && features & feature::VERSION_1 != 0;
        if new & status::FEATURES_OK != 0 && acceptable {
            state.status |= status::FEATURES_OK;
            self.device.agreed(features);
        }
        if new & status::DRIVER_OK != 0 && state.status & status::FEATURES_OK != 0 {
            state.status |= status::DRIVER_OK;
            let all = 0..u16::try_from(self.queues.len()).unwrap_or(0);
            let started = all.map(|queue| self.prepare(&mut state, queue)).collect();
            self.start(state, started);
        }
    }

    fn reset(&self) {
        let mut state = self.state();
        state.resetting = true;
        for control in state.queues.iter().filter_map(|q| q.running.as_ref()) {
            control.stop();
        }
        self.finish_reset(&mut state);
        let pending = state.resetting;
        drop(state);
        if pending {
            self.device.let_go();
        }
    }

    /// Completes a reset once no queue is in use.
    fn finish_reset(&self, state: &mut State) {
        if !state.resetting || state.queues.iter().any(|q| q.running.is_some()) {
            return;
        }
        *state = State {
            status: 0,
            resetting: false,
            paused: state.paused,
            generation: state.generation,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: std::mem::take(&mut state.queues),
        };
        self.config_vector.store(NO_VECTOR, Ordering::Relaxed);
        for queue in 0..self.queues.len() {
            self.renew_queue(state, queue);
        }
        self.device.reset();
        self.interrupts
            .acknowledge(|| self.isr.store(0, Ordering::Relaxed));
    }

    /// Gives the registers of a queue that is not in use their default values.
    fn renew_queue(&self, state: &mut State, queue: usize) {
        if let (Some(regs), Some(line)) = (state.queues.get_mut(queue), self.queues.get(queue)) {
            *regs = QueueState::new(self.device.queue_size());
            line.vector.store(NO_VECTOR, Ordering::Relaxed);
        }
    }

    /// Checks and takes over the registers of a queue that is to run, if it is.
    fn prepare(
        &self,
        state: &mut State,
        queue: u16,
    ) -> Option<(u16, Result<Started, queue::Error>)> {
        let (paused, driver_features) = (state.paused, state.driver_features);
        let regs = state.queues.get_mut(usize::from(queue))?;
        let line = self.queues.get(usize::from(queue))?;
        let itself = self.itself.upgrade()?;
        if !regs.enabled || regs.running.is_some() {
            return None;
        }
        let event_idx = driver_features & feature::EVENT_IDX != 0;
        let (ram, max) = (self.seams.ram.clone(), self.device.queue_size());
        let ring = SplitRing::new(ram, max, &regs.layout, event_idx);
        let started = ring.map(|ring| {
            let control = Control::new(line.doorbell.clone(), paused);
            regs.running = Some(control.clone());
            Started::new(itself, queue, Box::new(ring), control)
        });
        Some((queue, started))
    }

    /// Lets queues run, with the lock released.
    fn start(
        &self,
        mut state: MutexGuard<'_, State>,
        queues: Vec<Option<(u16, Result<Started, queue::Error>)>>,
    ) {
        let features = state.driver_features;
        let mut runnable = Vec::new();
        for (queue, started) in queues.into_iter().flatten() {
            match started {
                Ok(started) => runnable.push(started),
                Err(why) => self.break_down(&mut state, queue, why),
            }
        }
        drop(state);
        for started in runnable {
            self.device.clone().start(features, started);
        }
    }

    /// Stops everything until the driver resets the device.
    fn break_down(&self, state: &mut State, queue: u16, why: queue::Error) {
        if state.resetting || state.status & status::DEVICE_NEEDS_RESET != 0 {
            return;
        }
        // Once: a guest can go wrong as often as it likes.
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: queue {queue}: {why}: the device needs a reset; further such mistakes are not shown",
                self.name
            );
        }
        state.status |= status::DEVICE_NEEDS_RESET;
        for control in state.queues.iter().filter_map(|q| q.running.as_ref()) {
            control.stop();
        }
        if state.status & status::DRIVER_OK != 0 {
            self.notify_config();
        }
    }

    fn notify_config(&self) {
        self.isr.fetch_or(ISR_CONFIG, Ordering::AcqRel);
        self.interrupts
            .raise(self.config_vector.load(Ordering::Relaxed));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Registers {
    fn interrupt(&self, queue: u16) {
        if let Some(line) = self.queues.get(usize::from(queue)) {
            self.isr.fetch_or(ISR_QUEUE, Ordering::AcqRel);
            self.interrupts.raise(line.vector.load(Ordering::Relaxed));
        }
    }

    fn change_config(&self, change: &mut dyn FnMut()) {
        let mut state = self.state();
        change();
        state.generation = state.generation.wrapping_add(1);
        if state.status & status::DRIVER_OK != 0 && !state.resetting {
            self.notify_config();
        }
    }

    fn fail(&self, queue: u16, why: queue::Error) {
        self.break_down(&mut self.state(), queue, why);
    }

    fn ended(&self, queue: u16) {
        let mut state = self.state();
        let queue = usize::from(queue);
        if let Some(regs) = state.queues.get_mut(queue) {
            regs.running = None;
            if regs.resetting {
                self.renew_queue(&mut state, queue);
            }
        }
        self.finish_reset(&mut state);
    }
}

impl Mmio for Registers {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let page = offset % PAGE;
        match offset.wrapping_sub(page) {
            0 => self.read_common(page, size),
            // Reading takes the causes away, and with them the pin (§4.1.4.5).
            ISR if page == 0 => u64::from(
                self.interrupts
                    .acknowledge(|| self.isr.swap(0, Ordering::AcqRel)),
            ),
            DEVICE => {
                // The generation that a driver reads before and after is of this moment.
                let _state = self.state();
                self.device.read_config(page, size)
            }
            _ => 0,
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) -> Action {
        let page = offset % PAGE;
        match offset.wrapping_sub(page) {
            0 => self.write_common(page, size, value),
            DEVICE => {
                let features = self.state().agreed();
                self.device.write_config(page, size, value, features);
            }
            NOTIFY => {
                let queue = page.checked_div(NOTIFY_STEP).unwrap_or(0);
                let queue = usize::try_from(queue).unwrap_or(usize::MAX);
                if let Some(line) = self.queues.get(queue) {
                    line.doorbell.signal();
                }
            }
            _ => {}
        }
        Action::None
    }
}

#[cfg(test)]
mod tests;
