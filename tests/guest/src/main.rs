//! A guest without an operating system: says one byte on the serial port, and then ends, or one of a few things more.
//!
//! It is entered as the PVH boot protocol says (xen/include/public/arch-x86/hvm/start_info.h): 32-bit protected mode
//! without paging, flat segments, interrupts off, the address of the start info in EBX. It touches no memory but that
//! page, so that what is measured with it is the VMM.
//!
//! The first byte of the command line chooses: `w` waits for ever, `f` floods the serial port, `r` resets the machine,
//! anything else ends through the port of `isa-debug-exit`.
#![no_std]
#![no_main]

use core::arch::global_asm;

global_asm!(
    // The note by which a loader finds the entry: XEN_ELFNOTE_PHYS32_ENTRY (18) of the owner "Xen".
    ".pushsection .note.Xen, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long start32",
    ".popsection",
    ".pushsection .text.start32, \"ax\", @progbits",
    ".code32",
    ".globl start32",
    "start32:",
    // COM1, transmitter holding register.
    "movw $0x3f8, %dx",
    "movb $'!', %al",
    "outb %al, %dx",
    // hvm_start_info.cmdline_paddr, low half.
    "movl 24(%ebx), %esi",
    "testl %esi, %esi",
    "jz 1f",
    "cmpb $'w', (%esi)",
    "je 2f",
    "cmpb $'f', (%esi)",
    "je 3f",
    "cmpb $'r', (%esi)",
    "je 4f",
    "1:",
    "movw $0xf4, %dx",
    "xorl %eax, %eax",
    "outl %eax, %dx",
    "2:",
    "cli",
    "hlt",
    "jmp 2b",
    "3:",
    "outb %al, %dx",
    "jmp 3b",
    // The reset control register: SYS_RST and RST_CPU.
    "4:",
    "movw $0xcf9, %dx",
    "movb $6, %al",
    "outb %al, %dx",
    "jmp 2b",
    ".code64",
    ".popsection",
    options(att_syntax)
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
