//! Parts of error messages: lists of names, and the name that was probably meant.

/// "one of `a`, `b`", or "`a`" where there is only one.
pub(crate) fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [only] => only.clone(),
        names => format!("one of {}", names.join(", ")),
    }
}

/// The name nearest to `word`, if one is near enough for a typing error.
pub(crate) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_'], "");
    let word = plain(word);
    names
        .map(|name| (distance(&word, &plain(name)), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many letters must be inserted, deleted, replaced or swapped with their neighbour to get from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest, one_of};

    #[test]
    fn counts_edits() {
        for (a, b, edits) in [
            ("ttl", "ttl", 0),
            ("tll", "ttl", 1),
            ("tlt", "ttl", 1),
            ("wiat", "wait", 1),
            ("", "wait", 4),
            ("lease", "wait", 4),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn finds_the_nearest_name() {
        let names = ["ttl", "wait", "wait_timeout", "lease", "required"];
        for (word, name) in [
            ("tll", Some("ttl")),
            ("wiat", Some("wait")),
            ("waitTimeout", Some("wait_timeout")),
            ("wait-timeout", Some("wait_timeout")),
            ("require", Some("required")),
            ("leese", Some("lease")),
            ("banana", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, names.into_iter()), name, "{word}");
        }
    }

    #[test]
    fn lists_names() {
        assert_eq!(one_of(["a"].into_iter()), "`a`");
        assert_eq!(one_of(["a", "b"].into_iter()), "one of `a`, `b`");
    }
}
