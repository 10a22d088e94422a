//! Tensors that a feature loss trains beside the student, and a linear layer made of them.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use burn_compress_core::{AlgorithmState, BoxError, Learnable, TrainedBy};
use indexmap::IndexMap;

use crate::error::DistillationError;

/// The tensors that a [`FeatureLoss`](super::FeatureLoss) trains with the student.
///
/// They are made at the first batch, when the shapes are known, train with the student's optimizer,
/// are in the checkpoints, and are dropped after the run. Each student-teacher pair has its own
/// under the same name.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_distillation::feature::Learnables;
///
/// let device = Device::flex();
/// let mut learnables = Learnables::new(&device);
/// let rows = Tensor::<2>::ones([5, 3], &device);
/// assert_eq!(learnables.linear(rows, 8, 0)?.dims(), [5, 8]);
/// let scale = learnables.get_or_make("scale", &[8], || vec![1.0; 8])?;
/// assert_eq!(scale.values()?, [1.0; 8]);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Debug)]
pub struct Learnables {
    device: Device,
    pair: String,
    made: IndexMap<String, Arc<Learnable>>,
}

impl Learnables {
    /// No tensors yet; they will be made on `device`.
    pub fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            pair: String::new(),
            made: IndexMap::new(),
        }
    }

    /// The tensor `name` of this pair, made with the values of `start` if there is none.
    ///
    /// [`Learnable::tensor_for`] gives its values for a computation with the student's, `[num_elements]`.
    /// A start that is random draws from a seed of its own, so that every run begins alike.
    ///
    /// # Errors
    ///
    /// [`DistillationError::LearnableShape`] when the tensor has another shape from an earlier
    /// batch; a start with another number of values.
    pub fn get_or_make(
        &mut self,
        name: &str,
        shape: &[usize],
        start: impl FnOnce() -> Vec<f32>,
    ) -> Result<Arc<Learnable>, BoxError> {
        let name = format!("{}/{name}", self.pair);
        let learnable = match self.made.get(&name) {
            Some(learnable) => learnable.clone(),
            None => self.make(&name, shape.to_vec(), start())?,
        };
        match learnable.shape() == shape {
            true => Ok(learnable),
            false => Err(DistillationError::LearnableShape {
                name,
                expected: learnable.shape().to_vec(),
                found: shape.to_vec(),
            }
            .into()),
        }
    }

    /// The rows through a linear layer of this pair to `width` features.
    ///
    /// The layer starts as linear layers do in Burn and PyTorch; the start follows from `seed` and
    /// the names of the pair alone.
    ///
    /// # Shapes
    ///
    /// - rows: `[rows, features]`
    /// - result: `[rows, width]`
    ///
    /// # Errors
    ///
    /// [`DistillationError::LearnableShape`] when an earlier batch had other widths.
    pub fn linear(
        &mut self,
        rows: Tensor<2>,
        width: usize,
        seed: u64,
    ) -> Result<Tensor<2>, BoxError> {
        let features = rows.dims()[1];
        let bound = 1.0 / (features as f64).sqrt();
        let mut draws = Draws::new(seed, &self.pair);
        let mut uniform = |count: usize| -> Vec<f32> {
            let draw = |_| (bound * (2.0 * draws.next() - 1.0)) as f32;
            (0..count).map(draw).collect()
        };
        let (weight, bias) = match self.made.contains_key(&format!("{}/weight", self.pair)) {
            true => Default::default(),
            false => (uniform(features * width), uniform(width)),
        };
        let weight = self.get_or_make("weight", &[features, width], || weight)?;
        let bias = self.get_or_make("bias", &[width], || bias)?;
        let of = |part: &Learnable| part.tensor_for(&rows).cast(rows.dtype());
        let weight = of(&weight).reshape([features, width]);
        let bias = of(&bias).reshape([1, width]);
        Ok(rows.matmul(weight) + bias)
    }

    fn make(
        &mut self,
        name: &str,
        shape: Vec<usize>,
        values: Vec<f32>,
    ) -> Result<Arc<Learnable>, BoxError> {
        let made = Learnable::new(name, values, shape, TrainedBy::Evaluator, &self.device)?;
        self.made.insert(name.to_string(), made.clone());
        Ok(made)
    }

    /// Turns to the tensors of the pair with this name.
    pub(crate) fn enter(&mut self, pair: String) {
        self.pair = pair;
    }

    pub(crate) fn all(&self) -> Vec<Arc<Learnable>> {
        self.made.values().cloned().collect()
    }

    /// The shapes: what is needed to make the tensors again. The chain restores their values.
    pub(crate) fn state(&self) -> AlgorithmState {
        let sizes = self.made.iter().flat_map(|(name, learnable)| {
            let sizes = learnable.shape().iter().enumerate();
            sizes.map(move |(dim, &size)| (format!("{name}/{dim}"), size as f64))
        });
        AlgorithmState {
            values: sizes.collect(),
            ..AlgorithmState::default()
        }
    }

    pub(crate) fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        let mut shapes: IndexMap<&str, Vec<usize>> = IndexMap::new();
        for (key, &size) in &state.values {
            let name = key
                .rsplit_once('/')
                .map(|(name, dim)| (name, dim.parse::<usize>()));
            match name {
                Some((name, Ok(dim)))
                    if (1.0..1e9).contains(&size)
                        && shapes.get(name).map_or(0, Vec::len) == dim =>
                {
                    shapes.entry(name).or_default().push(size as usize);
                }
                _ => {
                    return Err(DistillationError::Setting {
                        key: "the size of a learnable",
                        value: format!("{size} at `{key}`"),
                        expected: "a number of elements for each dimension".to_string(),
                    }
                    .into());
                }
            }
        }
        self.made.clear();
        for (name, shape) in shapes {
            let zeros = vec![0.0; shape.iter().product()];
            self.make(name, shape, zeros)?;
        }
        Ok(())
    }
}

/// SplitMix64, begun at a seed and a name.
struct Draws(u64);

impl Draws {
    fn new(seed: u64, name: &str) -> Self {
        let name = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(seed ^ name)
    }

    /// A number from 0 up to but not including 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seed: u64, pairs: &[&str]) -> Learnables {
        let device = Device::flex();
        let mut learnables = Learnables::new(&device);
        for pair in pairs {
            learnables.enter(pair.to_string());
            let rows = Tensor::ones([2, 4], &device);
            learnables.linear(rows, 5, seed).unwrap();
        }
        learnables
    }

    fn values(learnables: &Learnables) -> Vec<Vec<f32>> {
        let all = learnables.all();
        all.iter().map(|one| one.values().unwrap()).collect()
    }

    #[test]
    fn it_is_a_linear_layer() {
        let device = Device::flex();
        let mut learnables = Learnables::new(&device);
        let rows = Tensor::<2>::from_floats([[1.0, -1.0]], &device);
        learnables.linear(rows.clone(), 3, 1).unwrap();
        let [weight, bias] = &learnables.all()[..] else {
            panic!("a weight and a bias");
        };
        weight
            .set_values(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
            .unwrap();
        bias.set_values(vec![0.0, 10.0, 20.0]).unwrap();
        // 1 - 4, 2 - 5 + 10, 3 - 6 + 20.
        let projected = learnables.linear(rows, 3, 1).unwrap();
        let projected: Vec<f32> = projected.into_data().try_to_vec().unwrap();
        assert_eq!(projected, [-3.0, 7.0, 17.0]);
    }

    #[test]
    fn the_start_depends_on_seed_and_names_alone() {
        let both = values(&of(7, &["a._output_0/0", "b._output_0/0"]));
        assert_eq!(values(&of(7, &["b._output_0/0"])), both[2..]);
        assert_ne!(both[..2], both[2..]);
        assert_ne!(values(&of(8, &["b._output_0/0"])), both[2..]);
        let bounded = both.iter().flatten().all(|value| value.abs() <= 0.5);
        assert!(bounded, "{both:?}");
    }

    #[test]
    fn a_state_makes_them_again() {
        let mut learnables = of(7, &["a._output_0/0", "b._output_0/0"]);
        learnables
            .get_or_make("centres", &[2, 1, 3], || vec![1.0; 6])
            .unwrap();
        let shapes = |learnables: &Learnables| {
            let all = learnables.all().into_iter();
            all.map(|one| (one.name().to_string(), one.shape().to_vec()))
                .collect::<Vec<_>>()
        };
        let mut resumed = Learnables::new(&Device::flex());
        resumed.load_state(&learnables.state()).unwrap();
        assert_eq!(shapes(&resumed), shapes(&learnables));
        for (key, size) in [
            ("a._output_0/0/weight/0", None),
            ("x", Some(1.0)),
            ("x/0", Some(0.5)),
        ] {
            let mut broken = learnables.state();
            match size {
                Some(size) => broken.values.insert(key.to_string(), size),
                None => broken.values.shift_remove(key),
            };
            assert!(resumed.load_state(&broken).is_err(), "{key}");
        }
    }

    #[test]
    fn shapes_stay() {
        let mut learnables = of(7, &["a._output_0/0"]);
        let rows = |width| Tensor::<2>::ones([2, width], &Device::flex());
        let error = learnables.linear(rows(4), 6, 7).unwrap_err();
        assert!(
            error.to_string().contains("a._output_0/0/weight"),
            "{error}"
        );
        assert!(learnables.linear(rows(3), 5, 7).is_err());
        assert!(learnables.linear(rows(4), 5, 7).is_ok());
    }
}
