//! Samples, and what is told of them. Nothing is dropped.

use std::time::Duration;

/// Figures of one kind, in the unit they are told in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn push_ms(&mut self, span: Duration) {
        self.0.push(span.as_secs_f64() * 1e3);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest value that at least `per_cent` of all are not above: 0 for none at all.
    pub(crate) fn quantile(&self, per_cent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * per_cent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(0.0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.quantile(100)
    }

    pub(crate) fn min(&self) -> f64 {
        self.quantile(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_and_the_largest_is_the_last() {
        let mut samples = Samples::default();
        for value in [4.0, 1.0, 3.0, 2.0] {
            samples.push(value);
        }
        assert_eq!(
            [samples.min(), samples.quantile(50), samples.quantile(99), samples.max()].map(|it| it as u8),
            [1, 2, 4, 4]
        );
        assert!(Samples::default().max() < f64::EPSILON);
    }
}
