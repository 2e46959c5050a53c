use kvm_bindings::KVM_EXIT_IO_OUT;

use super::*;

#[test]
fn an_instruction_that_is_not_emulated_is_shown() {
    let mut run = kvm_run::default();
    run.__bindgen_anon_1.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run.__bindgen_anon_1.emulation_failure.ndata = 4;
    run.__bindgen_anon_1.emulation_failure.flags = 1;
    let mut bytes = [0; 15];
    bytes[..4].copy_from_slice(&[0x48, 0x0f, 0xc7, 0x0f]);
    let instruction =
        kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_14__bindgen_ty_1__bindgen_ty_1 {
            insn_size: 4,
            insn_bytes: bytes,
        };
    run.__bindgen_anon_1
        .emulation_failure
        .__bindgen_anon_1
        .__bindgen_anon_1 = instruction;
    assert_eq!(
        internal_error(&run),
        "KVM cannot emulate an instruction (48 0f c7 0f)"
    );
}

#[test]
fn other_internal_errors_show_their_data() {
    let mut run = kvm_run::default();
    run.__bindgen_anon_1.internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
    run.__bindgen_anon_1.internal.ndata = 2;
    run.__bindgen_anon_1.internal.data = [0; 16];
    // SAFETY: the array was written just above.
    unsafe { run.__bindgen_anon_1.internal.data[1] = 0x30 };
    assert_eq!(internal_error(&run), "KVM cannot deliver an event 0x0 0x30");
    // A kernel never says more than fits; a number that does is not believed.
    run.__bindgen_anon_1.internal.ndata = u32::MAX;
    assert!(internal_error(&run).len() < 200);
}

#[test]
fn string_accesses_are_items_of_their_size() {
    let mut page = vec![0_u64; 1024];
    let run: *mut kvm_run = page.as_mut_ptr().cast();
    // SAFETY: the buffer is larger than `kvm_run`, aligned like it, and any bytes are one.
    let run = unsafe { &mut *run };
    run.__bindgen_anon_1.io = kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_4 {
        direction: KVM_EXIT_IO_OUT as u8,
        size: 2,
        port: 0x1f0,
        count: 3,
        data_offset: 4096,
    };
    let access = port_access(run);
    assert_eq!((access.port, access.size, access.is_in), (0x1f0, 2, false));
    assert_eq!(access.data.len(), 6);
}
