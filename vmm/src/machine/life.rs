//! The main task: boot, resets, end.
//!
//! A reset: processors parked → devices reset, their last transfers awaited → KVM's machine made anew
//! → RAM loaded → BARs placed → processors released. The end: processors parked → devices reset →
//! graph drained, flushed and closed → processors and I/O threads joined → console flushed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arch::x86_64::boot::LoadPlan;
use devices::bus::{Action, Ticket};
use devices::memory::GuestRam;

use super::Outcome;
use super::boot::Files;
use super::disks::Disks;
use super::events::{Event, Events};
use super::pc::Pc;
use super::signals;
use crate::console::Console;
use crate::error::Error;
use crate::kvm::Board;
use crate::kvm::threads::Threads;
use crate::kvm::vcpu::Stop;
use crate::sandbox::{Sandbox, Thread};

/// How long the end may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A built machine, taken apart for its main task.
pub(super) struct Life {
    pub(super) no_reboot: bool,
    pub(super) wait_for_console: bool,
    pub(super) sandbox: Sandbox,
    pub(super) console: Console,
    pub(super) events: Arc<Events>,
    pub(super) files: Files,
    pub(super) plan: LoadPlan,
    pub(super) ram: Arc<GuestRam>,
    pub(super) board: Board,
    pub(super) threads: Threads,
    pub(super) pc: Pc,
    pub(super) disks: Disks,
}

impl Life {
    /// Runs the guest, then takes the machine down, up to what has to be done when this executor rests:
    /// stopping the I/O threads by the instant returned.
    pub(super) async fn run(self) -> Result<(Outcome, Disks, Instant), Error> {
        self.attend();
        // They open what they need (the console its terminal) before the last wall is up.
        exec::yield_now().await;
        self.sandbox
            .enter(Thread::Main)
            .map_err(|error| Error::user("-sandbox").because(error))?;
        let outcome = self.serve().await;
        let console = self.console.clone();
        let deadline = Instant::now() + PATIENCE;
        let ended = self.end(deadline).await;
        console.flush().await;
        console.close();
        let outcome = outcome.map_err(Error::of_host)?;
        Ok((outcome, ended?, deadline))
    }

    /// Starts the tasks beside this one.
    fn attend(&self) {
        let (console, serial) = (self.console.clone(), self.pc.serial());
        let events = self.events.clone();
        exec::spawn(async move {
            let input = |bytes: &[u8]| match &serial {
                Some(serial) => serial.input(bytes),
                // Without a port, what comes in is lost.
                None => bytes.len(),
            };
            console
                .run(input, || events.push(Event::Quit("the console")))
                .await;
        });
        exec::spawn(self.pc.timers());
        let events = self.events.clone();
        exec::spawn(async move {
            loop {
                match signals::next().await {
                    Ok(name) => events.push(Event::Quit(name)),
                    Err(error) => return tracing::error!("{error}"),
                }
            }
        });
        if self.wait_for_console {
            let (console, events) = (self.console.clone(), self.events.clone());
            exec::spawn(async move {
                console.connected().await;
                events.push(Event::Connected);
            });
        } else {
            self.events.push(Event::Connected);
        }
    }

    /// Does what processors, signals and the console ask for until one asks for the end.
    async fn serve(&self) -> Result<Outcome, Error> {
        loop {
            let stop = match self.events.next().await {
                Event::Quit(how) => return Ok(Outcome::Quit(how)),
                Event::Connected => {
                    self.threads.boot(self.plan.entry.state());
                    continue;
                }
                Event::Processor(index, stop) => {
                    tracing::debug!("processor {index}: {stop:?}");
                    stop
                }
            };
            match stop {
                Stop::Failed(error) => return Err(error),
                Stop::Crashed(reason) => return Ok(Outcome::Crashed(reason)),
                Stop::Asked(Action::Shutdown) => return Ok(Outcome::PowerOff),
                Stop::Asked(Action::Exit(status)) => return Ok(Outcome::Exit(status)),
                Stop::Asked(Action::GuestPanicked) => return Ok(Outcome::Panicked),
                Stop::Asked(Action::GuestCrashLoaded) => {
                    tracing::warn!("the guest crashed, and its crash kernel takes over");
                }
                Stop::Asked(Action::Reset) if self.no_reboot => return Ok(Outcome::Reset),
                Stop::Asked(Action::Reset) => self.reset().await?,
                // A processor has dealt with these.
                Stop::Asked(Action::None | Action::Wait(_)) => {}
            }
        }
    }

    /// Restarts the guest. Left undone when the user ends the run meanwhile.
    async fn reset(&self) -> Result<(), Error> {
        let wanted = || !self.events.is_quitting();
        if !redeemed(self.threads.park(), wanted).await {
            return Ok(());
        }
        for (_, ticket) in self.pc.reset() {
            if !redeemed(ticket, wanted).await {
                return Ok(());
            }
        }
        self.board.renew()?;
        self.files.write(&self.plan.writes, &self.ram, false)?;
        self.pc.place()?;
        self.events.forget_processors();
        self.threads.boot(self.plan.entry.state());
        Ok(())
    }

    /// Takes the machine down but for the I/O threads.
    async fn end(self, deadline: Instant) -> Result<Disks, Error> {
        let in_time = || Instant::now() < deadline;
        let stuck = |what: String| Error::host(format!("not at rest after 10 s: {what}"));
        if !redeemed(self.threads.park(), in_time).await {
            return Err(stuck("a processor waits for a device".into()));
        }
        for (device, ticket) in self.pc.reset() {
            if !redeemed(ticket, in_time).await {
                return Err(stuck(format!("requests of {device}")));
            }
        }
        if let Err(count) = self.threads.end(deadline) {
            return Err(stuck(format!("{count} processors")));
        }
        drop(self.pc);
        self.disks.close(deadline).await?;
        Ok(self.disks)
    }
}

/// Waits for a ticket as long as it is `wanted`; whether it was redeemed. The executor's thread must
/// not block in [`Ticket::wait`], and what is waited for here is not worth a thread.
pub(super) async fn redeemed(ticket: Ticket, wanted: impl Fn() -> bool) -> bool {
    let mut pause = Duration::from_micros(50);
    while !ticket.is_redeemed() {
        if !wanted() {
            return false;
        }
        exec::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    true
}
