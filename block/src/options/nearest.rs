//! "Did you mean": the candidate at the smallest edit distance, when it is near enough to be a slip.

/// Longest text that is compared: a longer one is no slip of the finger.
const LONGEST: usize = 64;

/// The candidate nearest to `name`, if it is near enough to be what was meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let wanted = plain(name);
    let length = wanted.chars().count();
    if length == 0 || length > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| {
            let other = plain(candidate);
            // A word cut short is as good as one slip.
            let far = if length >= 3 && other.starts_with(&wanted) {
                1
            } else {
                distance(&wanted, &other)
            };
            (far, candidate)
        })
        .filter(|(far, _)| *far <= (length / 3).max(1) && *far < length)
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance: insertions, deletions, substitutions, swaps of neighbours.
#[expect(
    clippy::indexing_slicing,
    reason = "each row has one cell more than `b`, and columns count `b`"
)]
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    let mut last_a = None;
    for (row, ca) in a.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, cb) in b.iter().enumerate() {
            let substituted = previous[column] + usize::from(ca != *cb);
            let mut best = substituted
                .min(previous[column + 1] + 1)
                .min(current[column] + 1);
            if column > 0 && last_a == Some(*cb) && b[column - 1] == ca {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        last_a = Some(ca);
        before = std::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}
