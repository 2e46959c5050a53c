//! QEMU's options that this build has nothing for: each is named, with why and what would work.

/// Why `option` (without its dash) is refused, if it is an option of QEMU's at all.
pub fn reason(option: &str) -> Option<&'static str> {
    REFUSED
        .iter()
        .find(|(names, _)| names.contains(&option))
        .map(|(_, reason)| *reason)
}

const REFUSED: &[(&[&str], &str)] = &[
    (
        &["hda", "hdb", "hdc", "hdd"],
        "no IDE controller in this build; use -drive file=FILE,format=raw,if=virtio",
    ),
    (
        &["cdrom"],
        "no CD-ROM drive in this build; use -drive file=FILE,format=raw,if=virtio,readonly=on",
    ),
    (
        &["fda", "fdb"],
        "no floppy controller in this build; use -drive file=FILE,format=raw,if=virtio",
    ),
    (
        &["sd"],
        "no SD card controller in this build; use -drive file=FILE,format=raw,if=virtio",
    ),
    (
        &["pflash", "mtdblock"],
        "no flash in this build; leave it out",
    ),
    (
        &["snapshot"],
        "no temporary overlays in this build; copy the image, or use readonly=on",
    ),
    (
        &[
            "S",
            "no-shutdown",
            "loadvm",
            "incoming",
            "only-migratable",
            "preconfig",
            "action",
        ],
        "needs a monitor, and there is none in this build; leave it out",
    ),
    (
        &["qmp", "qmp-pretty", "mon", "chardev"],
        "no monitor in this build; leave it out, or use -monitor none",
    ),
    (&["netdev"], "no network card in this build; use -nic none"),
    (
        &[
            "vnc",
            "spice",
            "sdl",
            "gtk",
            "curses",
            "full-screen",
            "g",
            "win2k-hack",
            "alt-grab",
            "ctrl-grab",
        ],
        "no display in this build; use -nographic or -display none",
    ),
    (
        &[
            "bios",
            "boot",
            "L",
            "option-rom",
            "no-fd-bootchk",
            "prom-env",
        ],
        "no firmware in this build; use -kernel",
    ),
    (
        &["audio", "audiodev", "audio-help", "soundhw"],
        "no sound in this build; leave it out",
    ),
    (
        &["usb", "usbdevice"],
        "no USB controller in this build; leave it out",
    ),
    (
        &["parallel", "virtioconsole", "debugcon"],
        "no such port in this build; use -serial",
    ),
    (
        &["virtfs", "fsdev"],
        "no shared folders in this build; use a disk",
    ),
    (&["tpmdev"], "no TPM in this build; leave it out"),
    (
        &["daemonize"],
        "spindle stays in the foreground; use a service manager, or 'spindle ... &' with -pidfile",
    ),
    (
        &["runas", "run-with", "chroot", "user"],
        "spindle does not change its user; start it as the user it should run as (-sandbox on is the default)",
    ),
    (
        &["gdb", "s"],
        "no debugger stub in this build; leave it out",
    ),
    (
        &[
            "icount",
            "singlestep",
            "tb-size",
            "one-insn-per-tb",
            "perfmap",
            "jitdump",
        ],
        "guests run on kvm and are not emulated; leave it out",
    ),
    (
        &["mem-path", "mem-prealloc"],
        "RAM is private and comes page by page in this build; leave it out",
    ),
    (&["numa"], "one memory node in this build; leave it out"),
    (
        &["readconfig", "writeconfig", "set", "global", "compat"],
        "no configuration beside the command line in this build; write the properties to the options themselves",
    ),
    (
        &["fw_cfg", "smbios", "acpitable", "no-acpi", "no-hpet", "dtb"],
        "the tables a guest is given are fixed in this build; leave it out",
    ),
    (
        &["trace", "d", "D", "dfilter", "msg", "plugin"],
        "messages are chosen by the environment: SPINDLE_LOG=debug",
    ),
    (
        &[
            "watchdog",
            "watchdog-action",
            "balloon",
            "overcommit",
            "add-fd",
            "qtest",
            "qtest-log",
            "k",
            "echr",
            "seed",
            "iscsi",
            "xen-domid",
            "xen-attach",
            "xen-domid-restrict",
            "nouserconfig",
            "old-param",
            "semihosting",
            "semihosting-config",
            "enable-sync-profile",
            "async-teardown",
            "tdf",
            "localtime",
            "startdate",
            "smp-cache",
            "shim",
        ],
        "is not in this build; leave it out",
    ),
    (
        &["no-kvm"],
        "guests run on kvm only in this build; leave it out",
    ),
];
