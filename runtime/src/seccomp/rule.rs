//! One rule on the arguments of a call, and which of two rules is asked first.

use std::cmp::Ordering;

use oci_spec::runtime::LinuxSeccompOperator as Op;

use super::arch::Abi;

/// A comparison of one argument with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compare {
    /// Which argument, 0 to 5.
    pub arg: u8,
    pub op: Op,
    /// What it is compared with; under the mask already.
    pub value: u64,
    /// All ones but for `SCMP_CMP_MASKED_EQ`.
    pub mask: u64,
}

impl Compare {
    /// The same comparison where only the lower halves of arguments count.
    fn narrowed(self) -> Compare {
        let low = u64::from(u32::MAX);
        Compare { value: self.value & low, mask: self.mask & low, ..self }
    }

    /// Under what a rule with this comparison sorts, apart from its value: higher arguments first,
    /// then equality, upper bounds, lower bounds.
    fn rank(self) -> (u8, u8) {
        let op = match self.op {
            Op::ScmpCmpEq | Op::ScmpCmpNe | Op::ScmpCmpMaskedEq => 3,
            Op::ScmpCmpLt | Op::ScmpCmpLe => 2,
            Op::ScmpCmpGe | Op::ScmpCmpGt => 1,
        };
        (self.arg, op)
    }

    /// The narrower bound first, by either half; `None` where the order of addition decides.
    fn before(self, other: Compare) -> Option<Ordering> {
        let order = other.rank().cmp(&self.rank());
        if order.is_ne() {
            return Some(order);
        }
        let masked = |compare: Compare| compare.op == Op::ScmpCmpMaskedEq;
        for shift in [32, 0] {
            let halves = |compare: Compare| {
                ((compare.value >> shift) as u32, (compare.mask >> shift) as u32)
            };
            let ((mine, my_mask), (theirs, their_mask)) = (halves(self), halves(other));
            let order = match self.op {
                Op::ScmpCmpLt | Op::ScmpCmpLe => mine.cmp(&theirs),
                _ => theirs.cmp(&mine),
            };
            if order.is_ne() {
                return Some(order);
            }
            let same = my_mask == their_mask && (my_mask == 0 || masked(self) == masked(other));
            if !same {
                return None;
            }
        }
        match (self.op, other.op) {
            (a, b) if a == b => Some(Ordering::Equal),
            (Op::ScmpCmpEq, Op::ScmpCmpNe) | (Op::ScmpCmpNe, Op::ScmpCmpEq) => {
                Some(Ordering::Equal)
            }
            _ => None,
        }
    }

    /// Whether an argument satisfies the comparison.
    pub fn holds(self, argument: u64) -> bool {
        match self.op {
            Op::ScmpCmpEq => argument == self.value,
            Op::ScmpCmpNe => argument != self.value,
            Op::ScmpCmpLt => argument < self.value,
            Op::ScmpCmpLe => argument <= self.value,
            Op::ScmpCmpGe => argument >= self.value,
            Op::ScmpCmpGt => argument > self.value,
            Op::ScmpCmpMaskedEq => argument & self.mask == self.value,
        }
    }
}

/// What a call gets if all its comparisons hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// By argument, each at most once.
    pub compares: Vec<Compare>,
    /// `SECCOMP_RET_*` with its data.
    pub action: u32,
    /// Its place in `linux.seccomp.syscalls`.
    pub origin: usize,
}

impl Rule {
    /// The rule as one ABI sees it: without comparisons that hold for every argument.
    pub fn seen_by(&self, abi: &Abi) -> Rule {
        let narrow = |compare: &Compare| if abi.wide { *compare } else { compare.narrowed() };
        let mut rule = Rule { compares: Vec::new(), action: self.action, origin: self.origin };
        rule.compares.extend(self.compares.iter().map(narrow).filter(|seen| seen.mask != 0));
        rule
    }

    /// Whether this rule, added after `other`, is asked before it.
    fn precedes(&self, other: &Rule) -> bool {
        for (mine, theirs) in self.compares.iter().zip(&other.compares) {
            match mine.before(*theirs) {
                Some(Ordering::Equal) => continue,
                order => return order == Some(Ordering::Less),
            }
        }
        self.compares.len() < other.compares.len()
    }

    /// Whether this rule visibly holds wherever `other` does: it has the first of its comparisons.
    fn covers(&self, other: &Rule) -> bool {
        other.compares.starts_with(&self.compares)
    }
}

/// What the rules on one call of one ABI amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same answer whatever the arguments.
    Always(u32),
    /// The first rule that holds answers; if none does, the default.
    First(Vec<Rule>),
}

/// Two rules that say different things of the same arguments: their places in the profile.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub earlier: usize,
    pub later: usize,
}

/// Settles the rules on one call, given in the profile's order, as libseccomp does.
///
/// The first rule without comparisons decides alone. Among the others the more special is asked
/// first: the higher argument, equality before bounds, the narrower of two bounds; see
/// [`Compare::before`]. A rule that an earlier one covers changes nothing; one that covers an earlier
/// rule, and says something else, is refused.
pub(super) fn settle(rules: impl Iterator<Item = Rule>) -> Result<Verdict, Conflict> {
    let mut sorted: Vec<Rule> = Vec::new();
    for rule in rules {
        if rule.compares.is_empty() {
            return Ok(Verdict::Always(rule.action));
        }
        let overruled = sorted.iter().find(|old| old.action != rule.action && rule.covers(old));
        if sorted.iter().any(|old| old.covers(&rule) && !rule.covers(old)) {
            continue;
        }
        if let Some(old) = overruled {
            return Err(Conflict { earlier: old.origin, later: rule.origin });
        }
        let at = sorted.iter().position(|old| rule.precedes(old)).unwrap_or(sorted.len());
        sorted.insert(at, rule);
    }
    Ok(Verdict::First(sorted))
}
