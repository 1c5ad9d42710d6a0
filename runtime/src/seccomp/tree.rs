//! From ranges to a program: balanced searches, emitted from their ends.

use oci_spec::runtime::LinuxSeccompOperator as Op;

use super::arch::Abi;
use super::bpf::{ARCHITECTURE, Assembler, Insn, NUMBER, Target, Test};
use super::calls::{BAD_ARCHITECTURE, Leaf, Table};
use super::profile::Profile;
use super::rule::{Compare, Rule};

/// The whole filter: which ABI, which call, which arguments.
pub(super) fn program(profile: &Profile, tables: &[Table]) -> Vec<Insn> {
    let mut asm = Assembler::default();
    let mut start = Target::Return(BAD_ARCHITECTURE);
    for table in tables.iter().rev() {
        let calls = search(&mut asm, &table.ranges, &mut |asm, leaf| match leaf {
            Leaf::Return(action) => Target::Return(*action),
            Leaf::Ask(abi, rules) => ask(asm, abi, rules, profile.default),
        });
        let calls = asm.load(NUMBER, calls);
        start = asm.branch(Test::Equal, table.audit, calls, start);
    }
    let start = asm.load(ARCHITECTURE, start);
    asm.finish(start)
}

/// Emits a search for the range in which the accumulator lies: one comparison where a single value
/// is an exception, else halves.
fn search<L: PartialEq>(
    asm: &mut Assembler,
    ranges: &[(u32, L)],
    leaf: &mut impl FnMut(&mut Assembler, &L) -> Target,
) -> Target {
    match ranges {
        [only] => leaf(asm, &only.1),
        [before, single, after] if single.0 + 1 == after.0 && before.1 == after.1 => {
            let others = leaf(asm, &before.1);
            let this = leaf(asm, &single.1);
            asm.branch(Test::Equal, single.0, this, others)
        }
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let start = high[0].0;
            let high = search(asm, high, leaf);
            let low = search(asm, low, leaf);
            asm.branch(Test::NotLess, start, high, low)
        }
    }
}

/// Emits the rules on a call's arguments: a search where all bound one argument, else one by one.
fn ask(asm: &mut Assembler, abi: &Abi, rules: &[Rule], default: u32) -> Target {
    let arg = rules[0].compares[0].arg;
    let bounds_it = |rule: &Rule| match rule.compares[..] {
        [compare] => compare.arg == arg && compare.op != Op::ScmpCmpMaskedEq,
        _ => false,
    };
    if rules.iter().all(bounds_it) {
        return by_value(asm, abi, arg, &segments(rules, default));
    }
    let mut next = Target::Return(default);
    for rule in rules.iter().rev() {
        let mut holds = Target::Return(rule.action);
        for compare in rule.compares.iter().rev() {
            holds = test(asm, abi, *compare, holds, next);
        }
        next = holds;
    }
    next
}

/// The values of the one argument that all `rules` bound, cut where the answer changes.
fn segments(rules: &[Rule], default: u32) -> Vec<(u64, u32)> {
    let bounds = rules.iter().map(|rule| rule.compares[0].value);
    let mut starts: Vec<u64> =
        bounds.flat_map(|bound| [Some(bound), bound.checked_add(1)]).flatten().collect();
    starts.push(0);
    starts.sort_unstable();
    starts.dedup();
    let answer = |value: u64| {
        let rule = rules.iter().find(|rule| rule.compares[0].holds(value));
        rule.map_or(default, |rule| rule.action)
    };
    let mut segments: Vec<(u64, u32)> = Vec::new();
    for start in starts {
        let action = answer(start);
        if segments.last().is_none_or(|last| last.1 != action) {
            segments.push((start, action));
        }
    }
    segments
}

/// What the higher half of an argument decides: an action, or nothing before the lower half.
#[derive(PartialEq)]
enum High {
    Return(u32),
    Low(Vec<(u32, u32)>),
}

/// Emits a search among the values of one argument, by its higher half, then by its lower.
fn by_value(asm: &mut Assembler, abi: &Abi, arg: u8, segments: &[(u64, u32)]) -> Target {
    let low = |asm: &mut Assembler, ranges: &[(u32, u32)]| {
        let found = search(asm, ranges, &mut |_, action| Target::Return(*action));
        asm.load(abi.low_word(arg), found)
    };
    if !abi.wide {
        // Only the bound above the largest value lies outside 32 bits.
        let ranges: Vec<(u32, u32)> = segments
            .iter()
            .filter_map(|(start, action)| Some((u32::try_from(*start).ok()?, *action)))
            .collect();
        return low(asm, &ranges);
    }
    let found = search(asm, &halves(segments), &mut |asm, high| match high {
        High::Return(action) => Target::Return(*action),
        High::Low(ranges) => low(asm, ranges),
    });
    asm.load(abi.high_word(arg), found)
}

/// The same segments by higher half.
fn halves(segments: &[(u64, u32)]) -> Vec<(u32, High)> {
    let high = |segment: &(u64, u32)| (segment.0 >> 32) as u32;
    let mut halves: Vec<(u32, High)> = Vec::new();
    let mut before = segments[0].1;
    for group in segments.chunk_by(|a, b| high(a) == high(b)) {
        let at = high(&group[0]);
        if halves.last().is_some_and(|last| last.0 == at) {
            halves.pop();
        }
        let mut ranges: Vec<(u32, u32)> =
            group.iter().map(|(start, action)| (*start as u32, *action)).collect();
        if ranges[0].0 != 0 {
            ranges.insert(0, (0, before));
        }
        before = group[group.len() - 1].1;
        match ranges[..] {
            [(_, action)] => halves.push((at, High::Return(action))),
            _ => {
                halves.push((at, High::Low(ranges)));
                if let Some(next) = at.checked_add(1) {
                    halves.push((next, High::Return(before)));
                }
            }
        }
    }
    halves
}

/// Emits one comparison, by both halves of the argument where the ABI has two.
fn test(asm: &mut Assembler, abi: &Abi, compare: Compare, yes: Target, no: Target) -> Target {
    let (low_value, high_value) = (compare.value as u32, (compare.value >> 32) as u32);
    let (low_mask, high_mask) = (compare.mask as u32, (compare.mask >> 32) as u32);
    let (low_word, high_word) = (abi.low_word(compare.arg), abi.high_word(compare.arg));
    // Each operator is one of three, or its opposite.
    let (op, yes, no) = match compare.op {
        Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => (Test::Equal, yes, no),
        Op::ScmpCmpNe => (Test::Equal, no, yes),
        Op::ScmpCmpGt => (Test::Greater, yes, no),
        Op::ScmpCmpLe => (Test::Greater, no, yes),
        Op::ScmpCmpGe => (Test::NotLess, yes, no),
        Op::ScmpCmpLt => (Test::NotLess, no, yes),
    };
    let mut next = yes;
    if low_mask != 0 {
        next = asm.branch(op, low_value, yes, no);
        next = asm.and(low_mask, next);
        next = asm.load(low_word, next);
    }
    if abi.wide && high_mask != 0 {
        next = asm.branch(Test::Equal, high_value, next, no);
        if op != Test::Equal {
            next = asm.branch(Test::Greater, high_value, yes, next);
        }
        next = asm.and(high_mask, next);
        next = asm.load(high_word, next);
    }
    next
}
