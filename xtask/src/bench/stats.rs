//! Medians and ratios.

use serde::Serialize;

/// Median, smallest and largest of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The middle one; of an even count the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Summarises; `None` when there are no figures.
pub fn summary(figures: &[f64]) -> Option<Summary> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    Some(Summary { median, min, max })
}

/// Which figures are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Times.
    Lower,
    /// Rates.
    Higher,
}

/// How many times better `ours` is than `theirs`, round by round: figures of one round are neighbours in time, so that
/// what slows the whole machine down for a while slows both.
pub fn ratio(ours: &[f64], theirs: &[f64], better: Better) -> Option<Summary> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| match better {
            Better::Lower => theirs / ours,
            Better::Higher => ours / theirs,
        })
        .filter(|ratio| ratio.is_finite())
        .collect();
    summary(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(summary(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    }

    #[test]
    fn ratios_compare_within_a_round() {
        let lower = ratio(&[1.0, 2.0, 4.0], &[10.0, 20.0, 40.0], Better::Lower).unwrap();
        assert_eq!(lower, Summary { median: 10.0, min: 10.0, max: 10.0 });
        assert_eq!(ratio(&[30.0], &[10.0, 1.0], Better::Higher).unwrap().median, 3.0);
        assert_eq!(ratio(&[0.0], &[1.0], Better::Lower), None);
    }
}
