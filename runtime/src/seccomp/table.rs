//! Finds a system call by name.
//!
//! A profile names some 430 calls, and compiling it is on the start path of a container: so the
//! names stand in a hash table that the compiler lays out, and a lookup is one or two comparisons.

use super::syscalls::{NONE, ROWS};

/// The ABIs of [`ROWS`], in the order of its columns. Byte orders share a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Column {
    X86,
    X86_64,
    X32,
    Arm,
    Aarch64,
    Loongarch64,
    M68k,
    Mips,
    Mips64,
    Mips64n32,
    Parisc,
    Parisc64,
    Ppc,
    Ppc64,
    Riscv64,
    S390,
    S390x,
    Sh,
}

/// One call: its name and its numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row(u16);

impl Row {
    /// The row of a name, on whichever architecture it exists.
    pub fn find(name: &str) -> Option<Row> {
        let mut slot = hash(name.as_bytes());
        loop {
            let row = INDEX[slot];
            if row == EMPTY || ROWS[usize::from(row)].0 == name {
                return (row != EMPTY).then_some(Row(row));
            }
            slot = (slot + 1) % INDEX.len();
        }
    }

    /// The call's name.
    pub fn name(self) -> &'static str {
        ROWS[usize::from(self.0)].0
    }

    /// Its number in one ABI, before that ABI adds its base.
    pub fn number(self, column: Column) -> Option<u32> {
        let number = ROWS[usize::from(self.0)].1[column as usize];
        (number != NONE).then_some(u32::from(number))
    }
}

const EMPTY: u16 = u16::MAX;

/// Row numbers by hash of the name; open addressing, a quarter full.
static INDEX: [u16; 2048] = {
    let mut index = [EMPTY; 2048];
    let mut row = 0;
    while row < ROWS.len() {
        let mut slot = hash(ROWS[row].0.as_bytes());
        while index[slot] != EMPTY {
            slot = (slot + 1) % index.len();
        }
        index[slot] = row as u16;
        row += 1;
    }
    index
};

/// FNV-1a, folded to a slot of [`INDEX`].
const fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    ((hash ^ (hash >> 15)) % 2048) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name_and_nothing_else_is() {
        for (at, (name, _)) in ROWS.iter().enumerate() {
            assert_eq!(usize::from(Row::find(name).expect(name).0), at);
        }
        assert!(ROWS.is_sorted_by(|a, b| a.0 < b.0));
        for name in ["", "open ", "Open", "no_such_call"] {
            assert!(Row::find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn numbers_agree_with_the_kernel_headers_that_libc_was_written_from() {
        #[cfg(target_arch = "x86_64")]
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("uselib", libc::SYS_uselib),
            ("mseal", libc::SYS_mseal),
            ("seccomp", libc::SYS_seccomp),
        ] {
            let row = Row::find(name).expect(name);
            assert_eq!(row.number(Column::X86_64), u32::try_from(number).ok(), "{name}");
        }
        assert_eq!(Row::find("clone").and_then(|row| row.number(Column::Aarch64)), Some(220));
        assert_eq!(Row::find("open").and_then(|row| row.number(Column::Riscv64)), None);
    }
}
