//! Small dense matrices, row by row, in f64.

pub fn transposed(a: &[f64], n: usize) -> Vec<f64> {
    (0..n * n).map(|i| a[i % n * n + i / n]).collect()
}

/// The inverse, by elimination with pivots; `None` where the matrix is singular or so near to it that what comes back
/// would be noise (a pivot below 1e-9 of the largest entry).
pub fn inverse(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut a = a.to_vec();
    let mut out = vec![0.0; n * n];
    (0..n).for_each(|i| out[i * n + i] = 1.0);
    let largest = a.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for c in 0..n {
        let pivot = (c..n).max_by(|&i, &j| a[i * n + c].abs().total_cmp(&a[j * n + c].abs()))?;
        let p = a[pivot * n + c];
        // NaN too
        if p.abs().partial_cmp(&(1e-9 * largest)) != Some(std::cmp::Ordering::Greater) {
            return None;
        }
        if pivot != c {
            for j in 0..n {
                a.swap(pivot * n + j, c * n + j);
                out.swap(pivot * n + j, c * n + j);
            }
        }
        for j in 0..n {
            a[c * n + j] /= p;
            out[c * n + j] /= p;
        }
        for i in (0..n).filter(|&i| i != c) {
            let f = a[i * n + c];
            if f != 0.0 {
                for j in 0..n {
                    a[i * n + j] -= f * a[c * n + j];
                    out[i * n + j] -= f * out[c * n + j];
                }
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a * b`, both `n` by `n`.
    fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
        let mut out = vec![0.0; n * n];
        for i in 0..n {
            for k in 0..n {
                let x = a[i * n + k];
                for j in 0..n {
                    out[i * n + j] += x * b[k * n + j];
                }
            }
        }
        out
    }

    #[test]
    fn inverse_times_matrix_is_one() {
        let n = 24;
        let noise = |i: usize| ((i * 7919 % 101) as f64 - 50.0) / 17.0;
        let a: Vec<f64> = (0..n * n).map(|i| noise(i) + if i / n == i % n { 7.0 } else { 0.0 }).collect();
        let p = product(&inverse(&a, n).unwrap(), &a, n);
        assert!(p.iter().enumerate().all(|(i, x)| (x - f64::from(i / n == i % n)).abs() < 1e-9));
        assert!(inverse(&vec![1.0; n * n], n).is_none());
    }
}
