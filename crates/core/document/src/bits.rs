//! A growing set of small numbers: the ancestors of an event, by their index in one log.

/// A set of indices. Each event holds one, so a question about the past is one look at one bit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn contains(&self, index: u32) -> bool {
        self.0.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(crate) fn insert(&mut self, index: u32) {
        let word = index as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % 64);
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_holds_what_either_holds_and_nothing_else() {
        let (mut a, mut b) = (Bits::default(), Bits::default());
        a.insert(3);
        b.insert(64);
        b.insert(700);
        a.add_all(&b);
        let held: Vec<u32> = (0..2_000).filter(|index| a.contains(*index)).collect();
        assert_eq!(held, [3, 64, 700]);
    }
}
