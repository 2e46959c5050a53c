//! What is in guest RAM before the first instruction: kernel, initrd, command line and tables.
//!
//! The files stay open: a guest that resets finds their contents in its RAM again.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use arch::x86_64::boot::{self, Content, ElfProtocol, Image, LoadPlan, Write};
use arch::x86_64::layout::Layout;
use devices::memory::GuestRam;
use vm_memory::{Bytes, GuestAddress};

use crate::config::Boot;
use crate::error::Error;

/// The open files of a direct boot.
#[derive(Debug)]
pub struct Files {
    kernel: OpenFile,
    initrd: Option<OpenFile>,
    append: String,
}

#[derive(Debug)]
struct OpenFile {
    option: &'static str,
    path: PathBuf,
    file: File,
    len: u64,
}

impl Files {
    /// Opens what `config` names.
    ///
    /// # Errors
    /// A file that cannot be opened or is none.
    pub fn open(config: &Boot) -> Result<Files, Error> {
        Ok(Files {
            kernel: OpenFile::open("-kernel", &config.kernel)?,
            initrd: config
                .initrd
                .as_deref()
                .map(|path| OpenFile::open("-initrd", path))
                .transpose()?,
            append: config.append.clone(),
        })
    }

    /// Where everything goes, and how the first processor begins.
    ///
    /// # Errors
    /// The kernel is none, or something does not fit.
    pub fn plan(&self, layout: &Layout, rsdp: u64) -> Result<LoadPlan, Error> {
        let boot = boot::Boot {
            kernel: &self.kernel,
            initrd: self.initrd.as_ref().map(|initrd| initrd.len),
            cmdline: self.append.as_bytes(),
            rsdp,
            elf: ElfProtocol::Auto,
        };
        boot::plan(layout, &boot).map_err(|error| self.blame(error))
    }

    /// Copies `writes` into `ram`. RAM that is `fresh` is zero already.
    ///
    /// # Errors
    /// A file that has become shorter, or cannot be read.
    pub fn write(&self, writes: &[Write], ram: &GuestRam, fresh: bool) -> Result<(), Error> {
        for write in writes {
            let to = GuestAddress(write.address);
            match &write.content {
                Content::Bytes(bytes) => ram
                    .write_slice(bytes, to)
                    .map_err(|error| Error::host("cannot write to guest RAM").because(error))?,
                Content::Kernel(range) => {
                    self.kernel
                        .copy(range.start, write.content.len(), ram, to)?
                }
                Content::Initrd(range) => {
                    if let Some(initrd) = &self.initrd {
                        initrd.copy(range.start, write.content.len(), ram, to)?;
                    }
                }
                Content::Zero(_) if fresh => {}
                Content::Zero(len) => zero(ram, to, *len)
                    .map_err(|error| Error::host("cannot write to guest RAM").because(error))?,
            }
        }
        Ok(())
    }

    /// `error` with the option that it is about.
    fn blame(&self, error: arch::Error) -> Error {
        match error.kind() {
            arch::Kind::Kernel => self.kernel.error(error),
            arch::Kind::Initrd => match &self.initrd {
                Some(initrd) => initrd.error(error),
                None => Error::user("-initrd").because(error),
            },
            _ => blame(error),
        }
    }
}

/// `error` with the option that it is about.
pub(super) fn blame(error: arch::Error) -> Error {
    let option = match error.kind() {
        arch::Kind::Kernel => "-kernel",
        arch::Kind::Initrd => "-initrd",
        arch::Kind::CommandLine => "-append",
        arch::Kind::Memory => "-m",
        arch::Kind::Cpu => "-cpu",
        arch::Kind::Topology => "-smp",
    };
    Error::user(option).because(error)
}

impl OpenFile {
    fn open(option: &'static str, path: &Path) -> Result<OpenFile, Error> {
        let failed = |error: io::Error| {
            Error::user(format!("{option}: cannot open '{}'", path.display())).because(error)
        };
        // Without O_NONBLOCK a pipe is waited for, for ever if nobody writes to it.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::other("it is no regular file")));
        }
        Ok(OpenFile {
            option,
            path: path.to_owned(),
            len: metadata.len(),
            file,
        })
    }

    fn error(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::user(format!("{}: '{}'", self.option, self.path.display())).because(source)
    }

    /// Copies from the file straight to guest RAM.
    fn copy(&self, from: u64, len: u64, ram: &GuestRam, to: GuestAddress) -> Result<(), Error> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(from))
            .map_err(|error| self.error(error))?;
        let len = usize::try_from(len).map_err(|error| self.error(error))?;
        ram.read_exact_volatile_from(to, &mut file, len)
            .map_err(|error| self.error(error))
    }
}

impl Image for OpenFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

fn zero(
    ram: &GuestRam,
    mut to: GuestAddress,
    mut len: u64,
) -> Result<(), vm_memory::GuestMemoryError> {
    const ZEROES: [u8; 4096] = [0; 4096];
    while len > 0 {
        let now = len.min(ZEROES.len() as u64);
        ram.write_slice(ZEROES.get(..now as usize).unwrap_or(&[]), to)?;
        to = GuestAddress(to.0.saturating_add(now));
        len = len.saturating_sub(now);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
