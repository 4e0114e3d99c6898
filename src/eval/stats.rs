//! Statistics of a report. `docs/report.md` says what each is for.

use serde::Serialize;

/// Neighbouring predictions are alike, so errors of means are taken from means of so many predictions in a row.
pub const BLOCK: usize = 64;

/// A mean and its standard error; none where there are fewer than two blocks to tell it from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Mean {
    pub mean: f64,
    pub se: Option<f64>,
}

/// Mean of runs of neighbouring values, and its error from the means of blocks of [`BLOCK`] values of one run. The last
/// block of a run may be shorter, and counts for less.
pub fn mean_of_runs(runs: &[Vec<f64>]) -> Mean {
    let blocks: Vec<(f64, f64)> = runs
        .iter()
        .flat_map(|run| run.chunks(BLOCK))
        .map(|block| (block.len() as f64, block.iter().sum::<f64>() / block.len() as f64))
        .collect();
    let n: f64 = blocks.iter().map(|b| b.0).sum();
    if n == 0.0 {
        return Mean::default();
    }
    let mean = blocks.iter().map(|(n, m)| n * m).sum::<f64>() / n;
    let count = blocks.len() as f64;
    let se = (blocks.len() > 1).then(|| {
        let spread: f64 = blocks.iter().map(|(w, m)| w * w * (m - mean) * (m - mean)).sum();
        (spread * count / (count - 1.0)).sqrt() / n
    });
    Mean { mean, se }
}

/// How a quantity is distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    pub mean: f64,
    pub se: Option<f64>,
    pub median: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Distribution {
    pub fn of_runs(runs: &[Vec<f64>]) -> Distribution {
        let Mean { mean, se } = mean_of_runs(runs);
        let mut all: Vec<f64> = runs.concat();
        all.sort_unstable_by(f64::total_cmp);
        let at = |p| percentile(&all, p);
        Distribution {
            mean,
            se,
            median: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: all.last().copied().unwrap_or(0.0),
        }
    }
}

/// The value below which a share `p` of sorted values lies, between neighbours in proportion (as llama-perplexity does it); 0
/// of nothing.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = p.clamp(0.0, 1.0) * last as f64;
    let low = at.floor() as usize;
    let (a, b) = (sorted[low], sorted[(low + 1).min(last)]);
    a + (b - a) * (at - low as f64)
}

/// Standard error of a share of `n` independent cases; none of fewer than two.
pub fn share_error(share: f64, n: usize) -> Option<f64> {
    (n > 1).then(|| (share * (1.0 - share) / (n - 1) as f64).sqrt())
}

/// Ranks, equal values sharing the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = first as f64 + (equal.len() - 1) as f64 / 2.0;
        equal.iter().for_each(|i| ranks[*i] = rank);
        first += equal.len();
    }
    ranks
}

/// Spearman's rank correlation; none of fewer than three pairs, or where one side is constant.
pub fn rank_correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() || a.len() < 3 {
        return None;
    }
    let (a, b) = (ranks(a), ranks(b));
    let line = fit(&a.into_iter().zip(b).collect::<Vec<_>>())?;
    line.correlation
}

/// A straight line through points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub slope: f64,
    pub intercept: f64,
    /// Standard error of the slope; none of two points.
    pub se: Option<f64>,
    /// None where y is constant.
    pub correlation: Option<f64>,
}

/// Least squares; none of fewer than two points, or where x is constant.
pub fn fit(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    let (mx, my) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let sum = |f: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| f(x - mx, y - my)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    if points.len() < 2 || xx <= 0.0 {
        return None;
    }
    let slope = xy / xx;
    let rest = (yy - slope * xy).max(0.0);
    Some(Line {
        slope,
        intercept: my - slope * mx,
        se: (points.len() > 2).then(|| (rest / (n - 2.0) / xx).sqrt()),
        correlation: (yy > 0.0).then(|| xy / (xx * yy).sqrt()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_hand() {
        let values = [1.0, 2.0, 3.0, 4.0, 10.0];
        assert_eq!([0.0, 0.25, 0.5, 0.875, 1.0].map(|p| percentile(&values, p)), [1.0, 2.0, 3.0, 7.0, 10.0]);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn means_of_blocks() {
        // two blocks with means 1 and 3: mean 2, deviation sqrt(2), error 1
        let mut run = vec![1.0; BLOCK];
        run.extend(vec![3.0; BLOCK]);
        let m = mean_of_runs(&[run.clone()]);
        assert_eq!(m, Mean { mean: 2.0, se: Some(1.0) });
        // the same in two runs: blocks don't span runs
        assert_eq!(mean_of_runs(&[run[..BLOCK].to_vec(), run[BLOCK..].to_vec()]), m);
        assert_eq!(mean_of_runs(&[vec![5.0; 3]]), Mean { mean: 5.0, se: None });
        assert_eq!(mean_of_runs(&[]), Mean { mean: 0.0, se: None });
        // independent values: about the deviation over the root of their number
        let mut x = 1u64;
        let values: Vec<f64> = (0..64_000)
            .map(|_| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (x >> 33) as f64 / (1u64 << 31) as f64
            })
            .collect();
        let se = mean_of_runs(&[values]).se.unwrap();
        let expected = (1.0f64 / 12.0 / 64_000.0).sqrt();
        assert!((se / expected - 1.0).abs() < 0.15, "{se} {expected}");
    }

    #[test]
    fn distributions_by_hand() {
        let d = Distribution::of_runs(&[vec![4.0, 1.0], vec![3.0, 2.0, 10.0]]);
        assert_eq!((d.mean, d.median, d.max), (4.0, 3.0, 10.0));
        assert!((d.p90 - 7.6).abs() < 1e-12);
    }

    #[test]
    fn correlations_by_hand() {
        let up = rank_correlation(&[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0, 400.0, 8000.0]).unwrap();
        let down = rank_correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]).unwrap();
        assert!((up - 1.0).abs() < 1e-12 && (down + 1.0).abs() < 1e-12);
        // ranks 0 1 2 3 against 0.5 0.5 2 3: 4.5 / sqrt(5 * 4.5)
        let tied = rank_correlation(&[1.0, 2.0, 3.0, 4.0], &[5.0, 5.0, 6.0, 7.0]).unwrap();
        assert!((tied - 4.5 / (5.0f64 * 4.5).sqrt()).abs() < 1e-12, "{tied}");
        assert_eq!(rank_correlation(&[1.0, 2.0, 3.0], &[1.0, 1.0, 1.0]), None);
        assert_eq!(rank_correlation(&[1.0, 2.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn lines_by_hand() {
        let line = fit(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]).unwrap();
        assert_eq!((line.slope, line.intercept, line.se), (2.0, 1.0, Some(0.0)));
        // residuals -1/6, 1/3, -1/6 around slope 1/2: se = sqrt((1/6) / 1 / 2)
        let line = fit(&[(0.0, 0.0), (1.0, 1.0), (2.0, 1.0)]).unwrap();
        assert!((line.slope - 0.5).abs() < 1e-12 && (line.se.unwrap() - (1.0f64 / 12.0).sqrt()).abs() < 1e-12);
        assert_eq!(fit(&[(1.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(fit(&[(1.0, 1.0)]), None);
    }

    #[test]
    fn errors_of_shares() {
        assert_eq!(share_error(0.5, 5), Some(0.25));
        assert_eq!(share_error(1.0, 10), Some(0.0));
        assert_eq!(share_error(1.0, 1), None);
    }
}
