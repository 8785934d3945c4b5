//! "Did you mean": the known name that is nearest to a misspelt one.

/// The candidate nearest to `word`, if it is near enough to be meant: one edit for short words, up to three for long
/// ones. Case counts not.
pub(crate) fn nearest<'c, S: AsRef<str>>(word: &str, candidates: &'c [S]) -> Option<&'c str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    if length > 64 {
        return None;
    }
    let allowed = match length {
        0 | 1 => return None,
        2..=4 => 1,
        5..=8 => 2,
        _ => 3,
    };
    candidates
        .iter()
        .map(|candidate| {
            (strsim::osa_distance(&word, &candidate.as_ref().to_lowercase()), candidate.as_ref())
        })
        .filter(|&(distance, _)| distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}
