//! What the kernel leaves on a processor's run page, where `kvm-ioctls` does not say it all.

use std::fmt::Write;

use kvm_bindings::{
    KVM_EXIT_IO_IN, KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, KVM_INTERNAL_ERROR_SIMUL_EX,
    KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, kvm_run,
};

/// Port accesses of one instruction: several for INS and OUTS with REP.
pub(super) struct PortAccess<'a> {
    pub(super) port: u16,
    /// Bytes an item: 1, 2 or 4.
    pub(super) size: u8,
    pub(super) is_in: bool,
    /// The items, one after the other.
    pub(super) data: &'a mut [u8],
}

/// The port accesses of an exit with `KVM_EXIT_IO`.
pub(super) fn port_access(run: &mut kvm_run) -> PortAccess<'_> {
    // SAFETY: the exit reason says that this field of the union is the one in use; it is plain data.
    let io = unsafe { run.__bindgen_anon_1.io };
    let len = usize::from(io.size) * io.count as usize;
    let page: *mut u8 = (&raw mut *run).cast();
    // SAFETY: the kernel puts `count` items of `size` bytes at `data_offset` of the mapping that begins
    // with `run`, inside it, and leaves them alone until the processor runs again, for which `run`
    // would have to be borrowed anew. They do not overlap `kvm_run` itself.
    let data = unsafe { std::slice::from_raw_parts_mut(page.add(io.data_offset as usize), len) };
    PortAccess {
        port: io.port,
        size: io.size,
        is_in: u32::from(io.direction) == KVM_EXIT_IO_IN,
        data,
    }
}

/// What an exit with `KVM_EXIT_INTERNAL_ERROR` is about.
pub(super) fn internal_error(run: &kvm_run) -> String {
    // SAFETY: the exit reason says that `internal` is in use, of which `emulation_failure` is a variant
    // of the same layout up to `ndata`; all are plain data.
    let (internal, failure) = unsafe {
        (
            run.__bindgen_anon_1.internal,
            run.__bindgen_anon_1.emulation_failure,
        )
    };
    let mut text = match internal.suberror {
        KVM_INTERNAL_ERROR_EMULATION => "KVM cannot emulate an instruction".to_owned(),
        KVM_INTERNAL_ERROR_SIMUL_EX => "KVM met two exceptions at once".to_owned(),
        KVM_INTERNAL_ERROR_DELIVERY_EV => "KVM cannot deliver an event".to_owned(),
        KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => {
            "the processor left the guest for an unexpected reason".to_owned()
        }
        other => format!("KVM internal error {other}"),
    };
    let has_bytes = internal.suberror == KVM_INTERNAL_ERROR_EMULATION
        && internal.ndata >= 3
        && failure.flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
    if has_bytes {
        // SAFETY: the flag says that the bytes are there; they are plain data.
        let instruction = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
        text.push_str(" (");
        let size = usize::from(instruction.insn_size);
        for (index, byte) in instruction.insn_bytes.iter().take(size).enumerate() {
            let space = if index == 0 { "" } else { " " };
            // Writing to a string does not fail.
            let _ = write!(text, "{space}{byte:02x}");
        }
        text.push(')');
    } else {
        for value in internal.data.iter().take(internal.ndata as usize) {
            let _ = write!(text, " {value:#x}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
