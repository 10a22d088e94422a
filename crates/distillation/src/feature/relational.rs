//! Relational knowledge distillation: the student keeps the teacher's geometry of a batch.
//!
//! The targets are not the features of a sample but the relations between samples: their distances,
//! and the angles of their triangles. Student and teacher need not agree in
//! anything but the samples, so any layer of one can learn from any layer of the other. It
//! suits embeddings and the features before a classifier.
//!
//! ```text
//! distance: psi(i, j)    = |x_i - x_j| / mean over pairs of |x - x'|
//! angle:    psi(i, j, k) = cos of the angle at x_j between x_i and x_k
//! loss = distance_weight * mean over pairs of huber(psi_student - psi_teacher)
//!      + angle_weight * mean over triples of huber(psi_student - psi_teacher)
//! huber(d) = d^2 / 2 where |d| <= 1, else |d| - 1/2
//! total = origin_loss_lambda * task loss + sum over targets of lambda * min over links of loss
//! ```
//!
//! Pairs and triples are of different samples. Samples that coincide have distance 0 and no angle.
//! A batch of `n` samples holds `n^3` angles; with `angle_weight` 0 they are not computed.
//!
//! # References
//!
//! Park et al., *Relational Knowledge Distillation*, arXiv 1904.05068; the default weights are the
//! paper's for classification. Deviation: means where the paper writes sums, so that the weights do
//! not depend on the size of the batch; the authors' code also averages, but over `n^2` and `n^3`.

use burn::config::Config;
use burn::tensor::{Bool, Tensor};
use burn_compress_core::BoxError;
use burn_compress_core::config::Selected;

use crate::distiller::Distillers;
use crate::error::DistillationError;
use crate::feature::distiller::{FeatureDistiller, Features};
use crate::feature::hidden::HiddenState;
use crate::feature::learnables::Learnables;
use crate::feature::loss::{FeatureLoss, FeaturePair};
use crate::fused::Options;
use crate::settings::{DistillationSettings, check_lambda, reject_apply_method};

/// Configuration of a [`RelationalDistiller`].
#[derive(Config, Debug, Copy)]
pub struct RelationalConfig {
    /// The weight of the user's own loss.
    #[config(default = 1.0)]
    pub origin_loss_lambda: f64,
    /// The weight of the distances.
    #[config(default = 25.0)]
    pub distance_weight: f64,
    /// The weight of the angles.
    #[config(default = 50.0)]
    pub angle_weight: f64,
}

/// Adds the differences between the geometries of a batch to the loss.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_distillation::{RelationalConfig, RelationalDistiller};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Wrapper<Linear>,
/// }
///
/// let device = Device::flex().autodiff();
/// let net = |width| Net { fc: LinearConfig::new(6, width).init(&device).into() };
/// let (student, teacher) = (net(3), net(12));
/// let batch = Tensor::<2>::random([5, 6], Distribution::Default, &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(1e-3)
///     .with_loss(|net: &Net, batch: &Tensor<2>| net.fc.forward(batch.clone()).mean());
/// let compressed = RelationalDistiller::new(
///     student,
///     &ConfigList::from_json(r#"[{"op_names": ["fc"]}]"#)?,
///     evaluator,
///     &teacher,
///     |teacher: &Net, batch: &Tensor<2>| teacher.fc.forward(batch.clone()),
///     RelationalConfig::new().with_angle_weight(10.0),
/// )?
/// .compress(Budget::steps(2))?;
/// assert_eq!(compressed.history().steps.len(), 2);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type RelationalDistiller = Distillers<Features<Relational>, RelationalConfig>;

impl From<RelationalConfig> for FeatureDistiller<Relational> {
    fn from(config: RelationalConfig) -> Self {
        let options = Options::built_in("RelationalDistiller", &config, config.origin_loss_lambda);
        let kind = Features(Relational(config));
        Self { kind, options }
    }
}

/// The distance between the relations of samples.
#[derive(Clone, Debug)]
pub struct Relational(RelationalConfig);

impl FeatureLoss for Relational {
    fn loss(&self, pair: &FeaturePair, _: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        let samples = pair.student.sizes()[0] as i64;
        let geometry = |state: &HiddenState| Geometry::new(state.values().reshape([samples, -1]));
        let (student, teacher) = (geometry(&pair.student), geometry(&pair.teacher));
        let mut loss = student.distance_loss(&teacher) * self.0.distance_weight;
        if self.0.angle_weight > 0.0 {
            loss = loss + student.angle_loss(&teacher) * self.0.angle_weight;
        }
        Ok(loss)
    }

    fn validate(&self) -> Result<(), DistillationError> {
        check_lambda("distance_weight", self.0.distance_weight)?;
        check_lambda("angle_weight", self.0.angle_weight)
    }

    fn check_rule(&self, rule: &Selected<DistillationSettings>) -> Result<(), DistillationError> {
        reject_apply_method(rule, "distances and angles are compared")
    }

    fn check_pair(&self, pair: &FeaturePair) -> Result<(), DistillationError> {
        pair.require_elements()?;
        let found = pair.student.sizes()[0];
        if found != pair.teacher.sizes()[0] {
            return Err(pair.incomparable("relations need the same samples on both sides"));
        }
        let needed = if self.0.angle_weight > 0.0 { 3 } else { 2 };
        match found < needed {
            false => Ok(()),
            true => Err(DistillationError::BatchTooSmall {
                student: pair.student.layer().to_string(),
                found,
                needed,
            }),
        }
    }

    fn is_distance(&self) -> bool {
        true
    }
}

/// The mean Huber difference between the normalised distances of student and teacher.
///
/// # Shapes
///
/// - student, teacher: `[samples, features]`, with features of their own
/// - result: `[1]`; 0 for fewer than two samples
///
/// # Panics
///
/// When student and teacher differ in samples.
pub fn distance_loss(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    Geometry::new(student).distance_loss(&Geometry::new(teacher))
}

/// The mean Huber difference between the angles of student and teacher.
///
/// # Shapes
///
/// - student, teacher: `[samples, features]`, with features of their own
/// - result: `[1]`; 0 for fewer than three samples
///
/// # Panics
///
/// When student and teacher differ in samples.
pub fn angle_loss(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    Geometry::new(student).angle_loss(&Geometry::new(teacher))
}

/// Inner products and distances of the samples, `[n, n]`.
struct Geometry {
    products: Tensor<2>,
    distances: Tensor<2>,
    /// Pairs that coincide, a sample with itself among them.
    coincide: Tensor<2, Bool>,
}

impl Geometry {
    fn new(rows: Tensor<2>) -> Self {
        let samples = rows.dims()[0];
        // Distances are differences of inner products, which are exact only around the mean.
        let rows = rows.clone() - rows.mean_dim(0);
        let products = rows.clone().matmul(rows.clone().transpose());
        let norms = rows.square().sum_dim(1);
        let squares = norms.clone() + norms.clone().transpose() - products.clone() * 2.0;
        let noise = norms.detach().mean() * 1e-6;
        let device = products.device();
        let same = Tensor::<2, Bool>::diag_mask([samples, samples], 0, &device).bool_not();
        let coincide = squares
            .clone()
            .detach()
            .lower_equal(noise.reshape([1, 1]).expand([samples, samples]))
            .bool_or(same);
        // The root has an infinite slope at zero, so it is taken of ones there.
        let distances = squares
            .mask_fill(coincide.clone(), 1.0)
            .sqrt()
            .mask_fill(coincide.clone(), 0.0);
        Self {
            products,
            distances,
            coincide,
        }
    }

    fn samples(&self) -> usize {
        self.distances.dims()[0]
    }

    /// The number of pairs of different samples, or 1 to divide by where there is none.
    fn pairs(&self) -> f64 {
        let samples = self.samples();
        (samples * samples.saturating_sub(1)).max(1) as f64
    }

    /// Distances with mean 1 over all pairs.
    fn normalised_distances(&self) -> Tensor<2> {
        let mean = (self.distances.clone().sum() / self.pairs()).clamp_min(1e-12);
        self.distances.clone() / mean.reshape([1, 1])
    }

    fn distance_loss(&self, teacher: &Self) -> Tensor<1> {
        let difference = self.normalised_distances() - teacher.normalised_distances().detach();
        huber(difference).sum() / self.pairs()
    }

    /// The cosines of the angles at `j` between `i` and `k`, `[j, i, k]`; 0 where there is none.
    fn cosines(&self) -> Tensor<3> {
        let samples = self.samples();
        // (x_i - x_j) (x_k - x_j) = x_i x_k - x_j x_i - x_j x_k + x_j x_j.
        let products = self.products.clone();
        let different = Tensor::<2, Bool>::diag_mask([samples, samples], 0, &products.device());
        let own: Tensor<2> = products
            .clone()
            .mask_fill(different.clone(), 0.0)
            .sum_dim(1);
        let inner = products.clone().unsqueeze_dim::<3>(0)
            - products.clone().unsqueeze_dim::<3>(2)
            - products.unsqueeze_dim::<3>(1)
            + own.unsqueeze_dim::<3>(2);
        let lengths = self.distances.clone().mask_fill(self.coincide.clone(), 1.0);
        let lengths = lengths.clone().unsqueeze_dim::<3>(2) * lengths.unsqueeze_dim::<3>(1);
        let size = [samples, samples, samples];
        let over = |pairs: Tensor<2, Bool>, dim| pairs.unsqueeze_dim::<3>(dim).expand(size);
        let coincide = |dim| over(self.coincide.clone(), dim);
        let none = coincide(2).bool_or(coincide(1));
        (inner / lengths).mask_fill(none.bool_or(over(different.bool_not(), 0)), 0.0)
    }

    fn angle_loss(&self, teacher: &Self) -> Tensor<1> {
        let triples = self.pairs() * self.samples().saturating_sub(2).max(1) as f64;
        huber(self.cosines() - teacher.cosines().detach()).sum() / triples
    }
}

fn huber<const D: usize>(difference: Tensor<D>) -> Tensor<D> {
    let size = difference.clone().abs();
    let near = size.clone().lower_equal_scalar(1.0);
    (size - 0.5).mask_where(near, difference.square() * 0.5)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::check::assert_gradient;

    fn rows<const N: usize, const D: usize>(rows: [[f32; D]; N]) -> Tensor<2> {
        Tensor::from_floats(rows, &Device::flex())
    }

    #[track_caller]
    fn assert_loss(loss: Tensor<1>, expected: f32) {
        let found: f32 = loss.into_scalar();
        assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
    }

    #[test]
    fn distances() {
        // On a line: 0, 1, 3. Distances 1, 3, 2, mean 2: psi 0.5, 1.5, 1.
        let student = rows([[0.0], [1.0], [3.0]]);
        // 3-4-5 triangle, mean 4: psi 0.75, 1, 1.25.
        let teacher = rows([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]);
        // Differences of the pairs 01, 02, 12: -0.25, 0.5, -0.25; halves of squares, mean of three.
        let expected = 0.5 * (0.0625 + 0.25 + 0.0625) / 3.0;
        assert_loss(distance_loss(student, teacher), expected);
    }

    #[test]
    fn angles() {
        // On a line, 1 between 0 and 2: cosines 1 at 0, -1 at 1, 1 at 2.
        let student = rows([[0.0], [1.0], [3.0]]);
        // Right angle at 0; cosines 0, 3/5 and 4/5.
        let teacher = rows([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]);
        // Differences 1, -1.6, 0.2: huber 0.5, 1.1, 0.02. Each angle counts twice, as do triples.
        assert_loss(angle_loss(student, teacher), (0.5 + 1.1 + 0.02) / 3.0);
    }

    #[test]
    fn samples_that_coincide_have_no_angle() {
        // The first two are one point, so only the angle at the third is left, of cosine 1.
        let student = rows([[0.0], [0.0], [1.0]]);
        // Right angle at 0; cosines 0, 3/5 and 4/5.
        let teacher = rows([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]);
        // Differences 0, 0.6, 0.2: huber 0, 0.18, 0.02.
        assert_loss(angle_loss(student, teacher), (0.18 + 0.02) / 3.0);
    }

    #[test]
    fn too_few_samples_have_no_geometry() {
        let (one, two) = (rows([[1.0, 2.0]]), rows([[1.0, 2.0], [0.5, 0.0]]));
        assert_loss(distance_loss(one.clone(), one * 2.0), 0.0);
        assert_loss(angle_loss(two.clone(), two * 2.0), 0.0);
    }

    #[test]
    fn turning_shifting_and_scaling_change_nothing() {
        let student = rows([[1.0, 2.0], [-1.0, 0.5], [0.0, 3.0], [2.0, -2.0]]);
        // Turned by 90 degrees, shifted far away, five times as large.
        let turned = rows([[-10.0, 5.0], [-2.5, -5.0], [-15.0, 0.0], [10.0, 10.0]]) + 100.0;
        assert_loss(distance_loss(student.clone(), turned.clone()), 0.0);
        assert_loss(angle_loss(student, turned), 0.0);
    }

    #[test]
    fn the_gradients_are_those_of_the_values() {
        let at = [0.3, -1.2, 0.8, 0.1, 0.9, -0.4, 1.5, -0.7];
        let teacher = rows([
            [1.0, 2.0, 0.0],
            [-1.0, 0.5, 1.0],
            [0.0, 3.0, 2.0],
            [2.0, -2.0, 0.5],
        ]);
        let other = teacher.clone();
        assert_gradient(&at, move |student| {
            distance_loss(student.reshape([4, 2]), teacher.clone())
        });
        assert_gradient(&at, move |student| {
            angle_loss(student.reshape([4, 2]), other.clone())
        });
    }

    #[test]
    fn samples_that_coincide_have_finite_gradients() {
        let device = Device::flex().autodiff();
        for values in [[[1.0, 2.0], [1.0, 2.0], [3.0, 0.0]], [[1.0, 2.0]; 3]] {
            let student = Tensor::<2>::from_floats(values, &device).require_grad();
            let teacher = rows([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]);
            let loss = distance_loss(student.clone(), teacher.clone())
                + angle_loss(student.clone(), teacher);
            let gradients = loss.backward();
            let gradient = student.grad(&gradients).unwrap().abs().sum();
            assert!(loss.into_scalar::<f32>().is_finite());
            assert!(gradient.into_scalar::<f32>().is_finite());
        }
    }
}
