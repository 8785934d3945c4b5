//! How figures grow.

/// The exponent `k` of the least-squares line through the logarithms of `(n, figure)`: the figure grows with `n` to the
/// power of `k`, 1 being linear. `None` where there are no two points.
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> =
        points.iter().filter(|(n, y)| *n > 0.0 && *y > 0.0).map(|(n, y)| (n.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let (mean_x, mean_y) =
        (logs.iter().map(|(x, _)| x).sum::<f64>() / count, logs.iter().map(|(_, y)| y).sum::<f64>() / count);
    let spread: f64 = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let together: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (logs.len() > 1 && spread > 0.0).then(|| together / spread)
}

/// The exponent in words.
pub fn told(what: &str, points: &[(f64, f64)]) -> Option<String> {
    let exponent = exponent(points)?;
    let verdict = if exponent <= 1.15 { "no faster than linearly" } else { "faster than linearly" };
    Some(format!(
        "{what} grows {verdict}: with the power {exponent:.2} (least squares, {} points)",
        points.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_powers() {
        let of = |k: f64| [1.0, 2.0, 4.0, 8.0].map(|n: f64| (n, 3.0 * n.powf(k)));
        for k in [0.0, 1.0, 2.0] {
            assert!((exponent(&of(k)).unwrap() - k).abs() < 1e-9, "{k}");
        }
        assert_eq!(exponent(&[(1.0, 1.0)]), None);
        assert_eq!(exponent(&[(2.0, 1.0), (2.0, 3.0)]), None);
        assert!(told("time", &of(2.0)).unwrap().contains("faster than linearly: with the power 2.00"));
        assert!(told("time", &of(1.0)).unwrap().contains("no faster than linearly"));
    }
}
