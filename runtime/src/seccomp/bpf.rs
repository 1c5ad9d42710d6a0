//! Classic BPF: the instruction, an assembler that works from the end, and an interpreter.
//!
//! Jumps go forward only and reach 255 instructions. So the assembler writes a program backwards:
//! whoever emits a jump has its targets already, knows how far they are, and bridges a gap that is
//! too wide at once, by a second copy of a return or by a long jump.

/// `BPF_MAXINSNS`: the kernel takes no longer program.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// One instruction, laid out as `struct sock_filter` of `linux/filter.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip where a comparison holds.
    pub jt: u8,
    /// How many where it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl Insn {
    /// Reads the kernel's layout, in the byte order of this machine.
    pub(super) fn from_bytes(bytes: &[u8; 8]) -> Insn {
        let [c0, c1, jt, jf, k @ ..] = *bytes;
        Insn { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes(k) }
    }

    /// Does it end the program with this action, whatever its data?
    pub(super) fn returns(self, action: u32) -> bool {
        self.code == code::RETURN && self.k & 0xffff_0000 == action
    }
}

/// The operations that filters use: `BPF_CLASS | BPF_OP | BPF_SRC` of `linux/bpf_common.h`.
mod code {
    /// `A = seccomp_data[k]`
    pub const LOAD: u16 = 0x20;
    /// `A &= k`
    pub const AND: u16 = 0x54;
    /// `return k`
    pub const RETURN: u16 = 0x06;
    /// `pc += k`
    pub const JUMP: u16 = 0x05;
    pub const JUMP_EQUAL: u16 = 0x15;
    pub const JUMP_GREATER: u16 = 0x25;
    pub const JUMP_NOT_LESS: u16 = 0x35;
    pub const JUMP_BITS: u16 = 0x45;
}

/// Offset of the call's number in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
/// Offset of its architecture.
pub(super) const ARCHITECTURE: u32 = 4;

/// How the accumulator is compared with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Greater,
    NotLess,
}

/// Where a jump leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To any instruction that returns this value.
    Return(u32),
    /// To the instruction that was emitted as number so and so.
    Emitted(usize),
}

/// A program under construction, its last instruction first.
#[derive(Default)]
pub(super) struct Assembler {
    reversed: Vec<Insn>,
    /// The nearest return of each value.
    returns: Vec<(u32, usize)>,
}

impl Assembler {
    /// Emits a comparison of the accumulator; both ways must be known.
    pub fn branch(&mut self, test: Test, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let code = match test {
            Test::Equal => code::JUMP_EQUAL,
            Test::Greater => code::JUMP_GREATER,
            Test::NotLess => code::JUMP_NOT_LESS,
        };
        // Reaching `no` may put one instruction between the branch and `yes`.
        let yes = self.reach(yes, 254);
        let no = self.reach(no, 255);
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(Insn { code, jt, jf, k })
    }

    /// Emits a load of the word at `offset` before `then`; where that reads nothing, just `then`.
    pub fn load(&mut self, offset: u32, then: Target) -> Target {
        self.before(then, Insn { code: code::LOAD, jt: 0, jf: 0, k: offset })
    }

    /// Emits a mask of the accumulator before `then`.
    pub fn and(&mut self, mask: u32, then: Target) -> Target {
        match mask {
            u32::MAX => then,
            _ => self.before(then, Insn { code: code::AND, jt: 0, jf: 0, k: mask }),
        }
    }

    /// The program that begins at `start`.
    pub fn finish(mut self, start: Target) -> Vec<Insn> {
        self.reach(start, 0);
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, insn: Insn) -> Target {
        self.reversed.push(insn);
        Target::Emitted(self.reversed.len() - 1)
    }

    /// How many instructions lie between the next one to be emitted and `position`.
    fn distance(&self, position: usize) -> usize {
        self.reversed.len() - 1 - position
    }

    /// Emits an instruction that falls through to `then`.
    fn before(&mut self, then: Target, insn: Insn) -> Target {
        match then {
            // A return reads no accumulator.
            Target::Return(_) => then,
            Target::Emitted(_) => {
                self.reach(then, 0);
                self.push(insn)
            }
        }
    }

    /// A position within `limit` of the next instruction that leads to `target`.
    fn reach(&mut self, target: Target, limit: usize) -> usize {
        match target {
            Target::Return(value) => self.reach_return(value, limit),
            Target::Emitted(position) if self.distance(position) <= limit => position,
            Target::Emitted(position) => {
                let k = self.distance(position) as u32;
                self.push(Insn { code: code::JUMP, jt: 0, jf: 0, k });
                self.reversed.len() - 1
            }
        }
    }

    fn reach_return(&mut self, value: u32, limit: usize) -> usize {
        let known = self.returns.iter().position(|(known, _)| *known == value);
        if let Some(known) = known
            && self.distance(self.returns[known].1) <= limit
        {
            return self.returns[known].1;
        }
        self.push(Insn { code: code::RETURN, jt: 0, jf: 0, k: value });
        let position = self.reversed.len() - 1;
        match known {
            Some(known) => self.returns[known].1 = position,
            None => self.returns.push((value, position)),
        }
        position
    }
}

/// What a filter answers to a call, and how many instructions it took to say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `SECCOMP_RET_*` with its data.
    pub value: u32,
    /// Instructions executed.
    pub steps: usize,
    /// It read arguments (or the instruction pointer); otherwise Linux 5.11 remembers that it allows
    /// this call and runs no filter.
    pub asked: bool,
}

/// Runs a filter as the kernel would, on the call `number` of the ABI with the audit token `arch`.
///
/// # Panics
/// On a program that the kernel would refuse: an operation that filters may not use, a jump or a
/// fall beyond the end.
pub fn simulate(program: &[Insn], number: u32, arch: u32, args: [u64; 6]) -> Answer {
    let swap = if arch & super::arch::AUDIT_LITTLE_ENDIAN == 0 { 4 } else { 0 };
    let word = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => arch,
        8 | 12 => 0,
        _ => {
            let offset = (offset - 16) ^ swap;
            (args[offset as usize / 8] >> (8 * (offset % 8))) as u32
        }
    };
    let (mut accumulator, mut at, mut steps, mut asked) = (0, 0, 0, false);
    loop {
        let Insn { code, jt, jf, k } = program[at];
        (at, steps) = (at + 1, steps + 1);
        let holds = match code {
            code::RETURN => return Answer { value: k, steps, asked },
            code::LOAD => {
                accumulator = word(k);
                asked |= k > ARCHITECTURE;
                continue;
            }
            code::AND => {
                accumulator &= k;
                continue;
            }
            code::JUMP => {
                at += k as usize;
                continue;
            }
            code::JUMP_EQUAL => accumulator == k,
            code::JUMP_GREATER => accumulator > k,
            code::JUMP_NOT_LESS => accumulator >= k,
            code::JUMP_BITS => accumulator & k != 0,
            _ => panic!("instruction {}: no filter may use code {code:#x}", at - 1),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_over_more_than_255_instructions_is_bridged() {
        let mut asm = Assembler::default();
        let far = asm.branch(Test::Equal, 1, Target::Return(10), Target::Return(11));
        let far = asm.load(ARCHITECTURE, far);
        let mut next = Target::Return(12);
        for k in (0..600).rev() {
            next = asm.branch(Test::Equal, k, Target::Return(1000 + k), next);
        }
        let start = asm.branch(Test::Greater, 5000, far, next);
        let start = asm.load(NUMBER, start);
        let program = asm.finish(start);
        for k in 0..600 {
            assert_eq!(simulate(&program, k, 7, [0; 6]).value, 1000 + k);
        }
        assert_eq!(simulate(&program, 700, 7, [0; 6]).value, 12);
        assert_eq!(simulate(&program, 5001, 1, [0; 6]).value, 10);
        assert_eq!(simulate(&program, 5001, 2, [0; 6]).value, 11);
    }

    #[test]
    fn equal_ways_need_no_comparison_and_returns_no_load() {
        let mut asm = Assembler::default();
        let same = asm.branch(Test::Equal, 1, Target::Return(3), Target::Return(3));
        let start = asm.load(NUMBER, same);
        let program = asm.finish(start);
        assert_eq!(program, [Insn { code: code::RETURN, jt: 0, jf: 0, k: 3 }]);
    }

    #[test]
    fn the_interpreter_reads_arguments_in_the_byte_order_of_the_architecture() {
        let mut asm = Assembler::default();
        let same = asm.branch(Test::Equal, 7, Target::Return(1), Target::Return(0));
        let start = asm.load(24, same);
        let program = asm.finish(start);
        let args = [0, 0x5_0000_0007, 0, 0, 0, 0];
        assert_eq!(simulate(&program, 0, 0xc000_003e, args).value, 1);
        assert_eq!(simulate(&program, 0, 0x8000_0016, args).value, 0);
        assert_eq!(simulate(&program, 0, 0x8000_0016, [0, 7 << 32, 0, 0, 0, 0]).value, 1);
    }
}
