//! The distribution's kernel: this machine's own where it will do, else fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{apt, cache, programs, progress};

/// A kernel, packed and unpacked, and its modules.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// What `uname -r` says.
    pub release: String,
    /// The image as shipped, a bzImage.
    pub bzimage: PathBuf,
    /// The ELF file inside it.
    pub vmlinux: PathBuf,
    /// `/lib/modules/RELEASE`, wherever it is.
    pub modules: PathBuf,
}

/// The kernel that guests, and the emulated host, are booted with.
pub fn find() -> Result<Kernel> {
    let installed = if programs::always_fetch() {
        None
    } else {
        newest_under(Path::new("/"))
    };
    let (release, bzimage, modules) = match installed {
        Some(found) => found,
        None => fetch()?,
    };
    let key = cache::key(&(cache::stamp(&bzimage)?, &release));
    let unpacked = cache::entry("kernels", &format!("{release}-{key}"), |dir| {
        progress::step(&format!("unpacking the kernel {release}"), || {
            unpack(&bzimage, &dir.join("vmlinux"))
        })
    })?;
    Ok(Kernel {
        release,
        bzimage,
        vmlinux: unpacked.join("vmlinux"),
        modules,
    })
}

/// The newest kernel in a root directory that has the modules we need: release, image, modules.
fn newest_under(root: &Path) -> Option<(String, PathBuf, PathBuf)> {
    let suits = |modules: &Path| {
        // Kernels for clouds lack file sharing (9p), real-time ones are slow to emulate.
        let release = modules.file_name()?.to_str()?.to_owned();
        let bzimage = root.join("boot").join(format!("vmlinuz-{release}"));
        let complete =
            modules.join("kernel/fs/9p").is_dir() && modules.join("kernel/arch/x86/kvm").is_dir();
        let general = !release.contains("cloud") && !release.contains("-rt");
        let readable = fs::File::open(&bzimage).is_ok();
        (complete && general && readable).then(|| (release, bzimage, modules.to_owned()))
    };
    let directories = ["lib/modules", "usr/lib/modules"]
        .map(|dir| root.join(dir))
        .into_iter();
    let releases = directories
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    releases
        .filter_map(|modules| suits(&modules))
        .max_by_key(|(release, ..)| version(release))
}

/// The numbers in a release, for comparing.
fn version(release: &str) -> Vec<u64> {
    release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn fetch() -> Result<(String, PathBuf, PathBuf)> {
    let ubuntu = apt::is_ubuntu();
    let meta = if ubuntu {
        "linux-image-generic"
    } else {
        "linux-image-amd64"
    };
    let image = apt::depends(meta)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"));
    let image = image.with_context(|| format!("{meta} names no kernel"))?;
    let release = image
        .trim_start_matches("linux-image-")
        .trim_start_matches("unsigned-")
        .to_owned();
    let mut packages = vec![image];
    if ubuntu {
        // Ubuntu splits the modules off, and some of ours may be among the "extra" ones.
        packages.extend([
            format!("linux-modules-{release}"),
            format!("linux-modules-extra-{release}"),
        ]);
    }
    let root = apt::exactly(&packages)?;
    newest_under(&root).with_context(|| format!("package {} has no kernel we can use", packages[0]))
}

/// Takes the ELF file out of a bzImage (Documentation/arch/x86/boot.rst: `payload_offset`, `payload_length`).
fn unpack(bzimage: &Path, vmlinux: &Path) -> Result<()> {
    let image = fs::read(bzimage).with_context(|| bzimage.display().to_string())?;
    let payload =
        payload(&image).with_context(|| format!("{} is no bzImage", bzimage.display()))?;
    let packed = vmlinux.with_extension("packed");
    fs::write(&packed, payload)?;
    let (program, package, args) = unpacker(payload)?;
    let mut command = programs::find(program, package)?.command();
    let out = fs::File::create(vmlinux)?;
    // The length of the unpacked kernel follows the stream: some programs take it for garbage and say so.
    let _ = command
        .args(args)
        .stdin(fs::File::open(&packed)?)
        .stdout(out)
        .stderr(Stdio::null())
        .status()?;
    fs::remove_file(packed)?;
    let mut magic = [0; 4];
    std::io::Read::read_exact(&mut fs::File::open(vmlinux)?, &mut magic)?;
    ensure!(
        magic == *b"\x7fELF",
        "{program} cannot unpack {}",
        bzimage.display()
    );
    Ok(())
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word =
        |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup = (usize::from(*image.get(0x1f1)?) + 1) * 512;
    let start = setup.checked_add(word(0x248)?)?;
    image.get(start..start.checked_add(word(0x24c)?)?)
}

/// Program, its package and arguments for what the payload is packed with.
fn unpacker(payload: &[u8]) -> Result<(&'static str, &'static str, &'static [&'static str])> {
    Ok(match payload {
        [0xfd, b'7', b'z', b'X', ..] => ("xz", "xz-utils", &["-dcq", "--single-stream"]),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", "zstd", &["-dcq"]),
        [0x02, 0x21, 0x4c, 0x18, ..] => ("lz4", "lz4", &["-dcq"]),
        [0x1f, 0x8b, ..] => ("gzip", "gzip", &["-dcq"]),
        _ => bail!("the kernel is packed in a way not known here"),
    })
}

/// Reads a kernel module, unpacked.
pub fn read_module(path: &Path) -> Result<Vec<u8>> {
    let (program, package) = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => ("xz", "xz-utils"),
        Some("zst") => ("zstd", "zstd"),
        Some("gz") => ("gzip", "gzip"),
        _ => return fs::read(path).with_context(|| path.display().to_string()),
    };
    let mut command: Command = programs::find(program, package)?.command();
    let out = command
        .arg("-dcq")
        .stdin(fs::File::open(path)?)
        .stderr(Stdio::null())
        .output()?;
    ensure!(
        out.status.success(),
        "{program} cannot unpack {}",
        path.display()
    );
    Ok(out.stdout)
}

#[cfg(test)]
mod tests;
