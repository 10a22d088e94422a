//! Random numbers for inputs, the same on every backend.

use burn::tensor::TensorData;

/// Source of random numbers: splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Sampler(u64);

impl Sampler {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, uniform in `0..1`.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Floats of the mean and deviation of the given ones; of `-1..1` where these are all the same.
    pub(super) fn floats(&mut self, given: TensorData) -> TensorData {
        let count = given.num_elements().max(1) as f64;
        let mean = given.iter::<f64>().sum::<f64>() / count;
        let square = given.iter::<f64>().map(|x| (x - mean).powi(2)).sum::<f64>();
        // A uniform number in -1..1 has the deviation 1 / sqrt(3).
        let deviation = (square / count).sqrt() * 3f64.sqrt();
        let (mean, spread) = match deviation > 0.0 && deviation.is_finite() {
            true => (mean, deviation),
            false => (0.0, 1.0),
        };
        let values: Vec<f64> = (0..given.num_elements())
            .map(|_| mean + spread * (2.0 * self.uniform() - 1.0))
            .collect();
        TensorData::new(values, given.shape().clone()).convert_dtype(given.dtype())
    }

    /// Integers between the smallest and the largest of the given ones.
    pub(super) fn integers(&mut self, given: TensorData) -> TensorData {
        let least = given.iter::<i64>().min().unwrap_or(0);
        let most = given.iter::<i64>().max().unwrap_or(0);
        let size = (most - least) as f64 + 1.0;
        let values: Vec<i64> = (0..given.num_elements())
            .map(|_| (least + (self.uniform() * size) as i64).min(most))
            .collect();
        TensorData::new(values, given.shape().clone()).convert_dtype(given.dtype())
    }

    /// The given ones: what is masked and what not is rarely arbitrary.
    pub(super) fn booleans(&mut self, given: TensorData) -> TensorData {
        given
    }
}
