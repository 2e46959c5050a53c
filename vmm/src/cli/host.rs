//! Whether this host can carry such a machine.

use arch::x86_64::layout::Layout;

/// Whether guest RAM of `memory` bytes has a place on this host and in its guests' address space.
///
/// # Errors
/// Why not, and what would fit.
pub fn can_hold(memory: u64) -> Result<(), String> {
    fits(memory, ram_and_swap(), physical_address_bits())
}

fn fits(memory: u64, host: u64, bits: u8) -> Result<(), String> {
    const MIB: u64 = 1 << 20;
    Layout::new(memory, bits).map_err(|error| error.to_string())?;
    if memory > host {
        return Err(format!(
            "{} MiB are more than this host has: its RAM and swap are {} MiB",
            memory / MIB,
            host / MIB
        ));
    }
    Ok(())
}

/// The host's RAM and swap in bytes.
fn ram_and_swap() -> u64 {
    let info = rustix::system::sysinfo();
    let units = info.totalram.saturating_add(info.totalswap);
    units.saturating_mul(u64::from(info.mem_unit))
}

/// The width of a physical address (CPUID 8000_0008h EAX bits 7 to 0), at least what all have.
fn physical_address_bits() -> u8 {
    use std::arch::x86_64::__cpuid;
    const LEAST: u8 = 36;
    match __cpuid(0x8000_0000).eax {
        0x8000_0008.. => (__cpuid(0x8000_0008).eax as u8).max(LEAST),
        _ => LEAST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_must_fit_the_host_and_the_address_width() {
        const GIB: u64 = 1 << 30;
        assert_eq!(fits(GIB, GIB, 40), Ok(()));
        let error = fits(GIB + (1 << 20), GIB, 40).unwrap_err();
        assert!(
            error.contains("1025 MiB are more than this host has"),
            "{error}"
        );
        let error = fits(64 * GIB, 128 * GIB, 36).unwrap_err();
        assert!(error.contains("36 physical address bits"), "{error}");
    }

    #[test]
    fn this_host_carries_something() {
        assert!(can_hold(2 << 20).is_ok());
        assert!(can_hold(1 << 52).is_err());
    }
}
