//! What a kernel starts with: busybox, an init script, modules in order, and chosen programs with their libraries.
//!
//! Not compressed: unpacking costs an emulated processor more than reading the bytes.

use std::fs;
use std::hash::Hash;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cpio::Cpio;
use crate::kernel::Kernel;
use crate::modules::Modules;
use crate::{cache, programs};

/// What makes them: an initramfs that was made otherwise is another.
const MAKER: [&str; 3] = [
    include_str!("initramfs.rs"),
    include_str!("modules.rs"),
    include_str!("cpio.rs"),
];

/// The content of an initramfs.
#[derive(Hash)]
pub struct Contents<'a> {
    /// The init script (run by busybox sh).
    pub init: &'a str,
    /// Modules that init loads; they lie in `/modules` with their order in `/modules/order`.
    pub modules: &'a [&'a str],
    /// Programs and the packages they come from.
    pub programs: &'a [(&'a str, &'a str)],
}

impl Contents<'_> {
    /// The initramfs in the cache, made if it is not there.
    pub fn build(&self, kernel: &Kernel) -> Result<PathBuf> {
        let key = cache::key(&(
            self,
            cache::stamp(&kernel.vmlinux)?,
            programs::always_fetch(),
            MAKER,
        ));
        let entry = cache::entry("initramfs", &key, |dir| {
            fs::write(dir.join("initrd.img"), self.write(kernel)?)
                .context("cannot write the initramfs")
        })?;
        Ok(entry.join("initrd.img"))
    }

    fn write(&self, kernel: &Kernel) -> Result<Vec<u8>> {
        let mut cpio = Cpio::new();
        for directory in [
            "bin", "dev", "lib", "modules", "mnt", "proc", "run", "sys", "tmp",
        ] {
            cpio.directory(directory);
        }
        // The kernel opens its console before init has mounted anything.
        cpio.character_device("dev/console", 5, 1);
        let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
        cpio.file("bin/busybox", 0o755, &read(&programs::busybox()?)?);
        cpio.symlink("bin/sh", "busybox");
        cpio.file("init", 0o755, self.init.as_bytes());

        let mut order = String::new();
        for (name, module) in Modules::index(&kernel.modules)?.in_order(self.modules)? {
            // With a name that says that it is not packed: newer busybox tells the kernel by that.
            let file = name + ".ko";
            cpio.file(&format!("modules/{file}"), 0o644, &module);
            order += &(file + "\n");
        }
        cpio.file("modules/order", 0o644, order.as_bytes());

        let mut libraries = Vec::new();
        for (name, package) in self.programs {
            let program = programs::find(name, package)?;
            cpio.file(&format!("usr/bin/{name}"), 0o755, &read(&program.path)?);
            libraries.extend(programs::libraries(&program)?);
        }
        libraries.sort();
        libraries.dedup_by(|a, b| a.0 == b.0);
        for (inside, here) in libraries {
            cpio.file(
                inside.to_str().context("a library's path is no text")?,
                0o755,
                &read(&here)?,
            );
        }
        Ok(cpio.finish())
    }
}
