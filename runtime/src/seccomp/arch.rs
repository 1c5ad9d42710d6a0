//! The ABIs that a profile may name: how the kernel marks their calls, and how they pass arguments.
//!
//! An ABI is more than a machine: an x86-64 kernel runs calls of three (`X86_64`, `X86`, `X32`),
//! and two of them share one audit token. The values follow `linux/audit.h` and `asm/unistd.h`.

use oci_spec::runtime::Arch;

use super::table::{Column, Row};

/// The bit by which an x32 call differs from an x86-64 one (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// ARM's private calls stand at this number and up; the table keeps them at [`ARM_PRIVATE_ROW`].
const ARM_PRIVATE: u32 = 0xf_0000;
const ARM_PRIVATE_ROW: u32 = 0xf000;

/// `__AUDIT_ARCH_LE`.
pub(super) const AUDIT_LITTLE_ENDIAN: u32 = 0x4000_0000;

/// One system call ABI.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Abi {
    /// Its name in `config.json`.
    pub arch: Arch,
    /// `seccomp_data.arch` of its calls (`AUDIT_ARCH_*`).
    pub audit: u32,
    /// Arguments are 64 bits wide; otherwise only their lower halves count.
    pub wide: bool,
    /// Socket and System V IPC calls also go through `socketcall(2)` and `ipc(2)`.
    pub multiplexed: bool,
    /// Added to each number of the table.
    base: u32,
    column: Column,
}

impl Abi {
    /// Finds the ABI of a name in `config.json`; `SCMP_ARCH_NATIVE` is `native`.
    pub fn of(arch: Arch, native: Arch) -> &'static Abi {
        let wanted = if arch == Arch::ScmpArchNative { native } else { arch };
        let wanted = if wanted == Arch::ScmpArchNative { super::native() } else { wanted };
        let known = ABIS.iter().find(|abi| abi.arch == wanted);
        known.expect("every architecture of the specification has an entry")
    }

    /// The number by which this ABI makes a call, if it has it.
    pub fn number(&self, row: &Row) -> Option<u32> {
        let number = row.number(self.column)?;
        Some(match number {
            ARM_PRIVATE_ROW.. => ARM_PRIVATE + (number - ARM_PRIVATE_ROW),
            _ => self.base + number,
        })
    }

    /// `true` where the higher half of an argument comes first in memory.
    pub fn is_big_endian(&self) -> bool {
        self.audit & AUDIT_LITTLE_ENDIAN == 0
    }

    /// Offset of the lower half of argument `index` in `struct seccomp_data`.
    pub fn low_word(&self, index: u8) -> u32 {
        16 + 8 * u32::from(index) + if self.is_big_endian() { 4 } else { 0 }
    }

    /// Offset of its higher half.
    pub fn high_word(&self, index: u8) -> u32 {
        self.low_word(index) ^ 4
    }
}

/// The ABI that this program was built for.
pub fn native() -> Arch {
    let little = cfg!(target_endian = "little");
    let narrow = cfg!(target_pointer_width = "32");
    match std::env::consts::ARCH {
        "x86" => Arch::ScmpArchX86,
        "arm" => Arch::ScmpArchArm,
        "aarch64" => Arch::ScmpArchAarch64,
        "loongarch64" => Arch::ScmpArchLoongarch64,
        "m68k" => Arch::ScmpArchM68k,
        "mips" if little => Arch::ScmpArchMipsel,
        "mips" => Arch::ScmpArchMips,
        "mips64" if little && narrow => Arch::ScmpArchMipsel64n32,
        "mips64" if little => Arch::ScmpArchMipsel64,
        "mips64" if narrow => Arch::ScmpArchMips64n32,
        "mips64" => Arch::ScmpArchMips64,
        "powerpc" => Arch::ScmpArchPpc,
        "powerpc64" if little => Arch::ScmpArchPpc64le,
        "powerpc64" => Arch::ScmpArchPpc64,
        "riscv64" => Arch::ScmpArchRiscv64,
        "s390x" => Arch::ScmpArchS390x,
        _ if narrow => Arch::ScmpArchX32,
        _ => Arch::ScmpArchX86_64,
    }
}

/// A wide ABI without peculiarities; the entries below say where theirs differ.
const fn abi(arch: Arch, column: Column) -> Abi {
    // oci-spec numbers architectures as libseccomp does: by audit token, x32 alone excepted.
    Abi { arch, audit: arch as u32, wide: true, multiplexed: false, base: 0, column }
}

static ABIS: [Abi; 23] = {
    use Arch::*;
    [
        abi(ScmpArchX86_64, Column::X86_64),
        Abi { wide: false, multiplexed: true, ..abi(ScmpArchX86, Column::X86) },
        Abi {
            audit: ScmpArchX86_64 as u32,
            wide: false,
            base: X32_BIT,
            ..abi(ScmpArchX32, Column::X32)
        },
        Abi { wide: false, ..abi(ScmpArchArm, Column::Arm) },
        abi(ScmpArchAarch64, Column::Aarch64),
        Abi { wide: false, multiplexed: true, base: 4000, ..abi(ScmpArchMips, Column::Mips) },
        Abi { wide: false, multiplexed: true, base: 4000, ..abi(ScmpArchMipsel, Column::Mips) },
        Abi { base: 5000, ..abi(ScmpArchMips64, Column::Mips64) },
        Abi { base: 5000, ..abi(ScmpArchMipsel64, Column::Mips64) },
        Abi { wide: false, base: 6000, ..abi(ScmpArchMips64n32, Column::Mips64n32) },
        Abi { wide: false, base: 6000, ..abi(ScmpArchMipsel64n32, Column::Mips64n32) },
        Abi { wide: false, multiplexed: true, ..abi(ScmpArchPpc, Column::Ppc) },
        Abi { multiplexed: true, ..abi(ScmpArchPpc64, Column::Ppc64) },
        Abi { multiplexed: true, ..abi(ScmpArchPpc64le, Column::Ppc64) },
        Abi { wide: false, multiplexed: true, ..abi(ScmpArchS390, Column::S390) },
        Abi { multiplexed: true, ..abi(ScmpArchS390x, Column::S390x) },
        Abi { wide: false, ..abi(ScmpArchParisc, Column::Parisc) },
        abi(ScmpArchParisc64, Column::Parisc64),
        abi(ScmpArchRiscv64, Column::Riscv64),
        abi(ScmpArchLoongarch64, Column::Loongarch64),
        Abi { wide: false, multiplexed: true, ..abi(ScmpArchM68k, Column::M68k) },
        Abi { wide: false, multiplexed: true, ..abi(ScmpArchSh, Column::Sh) },
        Abi { wide: false, multiplexed: true, ..abi(ScmpArchSheb, Column::Sh) },
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_of_the_specification_has_an_entry() {
        for abi in &ABIS {
            assert!(std::ptr::eq(Abi::of(abi.arch, native()), abi));
            let reparsed = abi.arch.to_string().parse::<Arch>().expect("a name");
            assert_eq!(reparsed, abi.arch);
        }
        for arch in [Arch::ScmpArchLoongarch64, Arch::ScmpArchSheb, Arch::ScmpArchMipsel64n32] {
            assert_eq!(Abi::of(Arch::ScmpArchNative, arch).arch, arch);
        }
    }

    #[test]
    fn numbers_have_the_base_of_their_abi() {
        let number = |arch, name| Abi::of(arch, native()).number(&Row::find(name).expect(name));
        assert_eq!(number(Arch::ScmpArchMips, "read"), Some(4003));
        assert_eq!(number(Arch::ScmpArchMipsel64, "read"), Some(5000));
        assert_eq!(number(Arch::ScmpArchMips64n32, "mseal"), Some(6462));
        assert_eq!(number(Arch::ScmpArchX32, "ioctl"), Some(X32_BIT + 514));
        assert_eq!(number(Arch::ScmpArchArm, "set_tls"), Some(0xf_0005));
        assert_eq!(number(Arch::ScmpArchAarch64, "open"), None);
    }
}
