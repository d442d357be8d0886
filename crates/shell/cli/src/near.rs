//! The word that was perhaps meant.

/// Of the known words the nearest that differs by so many letters at most; of two that are equally near the
/// first by name.
pub(crate) fn nearest<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    letters_max: usize,
) -> Option<&'a str> {
    let by_distance = known.into_iter().map(|it| (strsim::damerau_levenshtein(word, it), it));
    by_distance.min().filter(|(distance, _)| *distance <= letters_max).map(|(_, it)| it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_none_that_is_another() {
        assert_eq!(nearest("wbe", ["db", "web", "worker"], 2), Some("web"));
        assert_eq!(nearest("queue", ["db", "web"], 2), None);
        assert_eq!(nearest("a", [], 2), None);
    }
}
