//! "Did you mean …?": the nearest known word, by edit distance.

/// Appends a suggestion to `message` when one of `known` is near `word`.
pub fn append(message: String, word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(near) => format!("{message} (did you mean {near}?)"),
        None => message,
    }
}

/// The word of `known` that takes the fewest edits from `word`, if that is at most two, and
/// fewer than the word has characters.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(edits, _)| *edits <= 2 && *edits < lower.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
