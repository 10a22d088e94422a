//! FitNets: hints from the middle of a wider teacher, through a trained 1x1 convolution.
//!
//! A regressor maps the channels of the student at each position to those of the teacher; it trains
//! with the student's optimizer and is dropped after the run. It is a 1x1 convolution for images and
//! a linear layer for sequences and flat features. Where the resolutions differ, the finer one is
//! averaged down to the other.
//!
//! ```text
//! loss  = mean((regressor(student) - teacher)^2)
//! total = origin_loss_lambda * task loss + sum over targets of lambda * loss
//! ```
//!
//! A regressor is trained also where the numbers of channels agree, so that the student need not
//! keep the teacher's order of channels; to imitate channel by channel use
//! [`DynamicLayerwiseDistiller`](crate::DynamicLayerwiseDistiller).
//!
//! # References
//!
//! Romero et al., *FitNets: Hints for Thin Deep Nets*, arXiv 1412.6550, equation 3. Deviations: the
//! hints are learned together with the task, not in a stage before it; a 1x1 regressor, as usual
//! since, where the paper's convolution also bridges resolutions; the mean of squares where the
//! paper has half their sum.

use burn::config::Config;
use burn::tensor::{Tensor, TensorData};
use burn_compress_core::config::Selected;
use burn_compress_core::{BoxError, FlatTensor, Target, TargetId};

use crate::distiller::Distillers;
use crate::error::DistillationError;
use crate::feature::distiller::{FeatureDistiller, Features};
use crate::feature::hidden::HiddenState;
use crate::feature::learnables::Learnables;
use crate::feature::loss::{FeatureLoss, FeaturePair};
use crate::fused::Options;
use crate::losses::mse;
use crate::settings::{DistillationSettings, check_projected, reject_apply_method};

/// Configuration of a [`FitNetsDistiller`].
#[derive(Config, Debug, Copy)]
pub struct FitNetsConfig {
    /// The weight of the user's own loss.
    #[config(default = 1.0)]
    pub origin_loss_lambda: f64,
    /// The seed of the regressors' start.
    #[config(default = 0)]
    pub seed: u64,
}

/// Adds the distance between regressed hidden states and the teacher's to the loss.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_distillation::{FitNetsConfig, FitNetsDistiller};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     conv: Wrapper<Conv2d>,
/// }
///
/// let device = Device::flex().autodiff();
/// let net = |channels| Net {
///     conv: Conv2dConfig::new([1, channels], [3, 3]).init(&device).into(),
/// };
/// let (student, teacher) = (net(2), net(8));
/// let batch = Tensor::<4>::ones([1, 1, 8, 8], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|net: &Net, batch: &Tensor<4>| net.conv.forward(batch.clone()).mean());
/// let compressed = FitNetsDistiller::new(
///     student,
///     &ConfigList::from_json(r#"[{"op_names": ["conv"]}]"#)?,
///     evaluator,
///     &teacher,
///     |teacher: &Net, batch: &Tensor<4>| teacher.conv.forward(batch.clone()),
///     FitNetsConfig::new(),
/// )?
/// .compress(Budget::steps(2))?;
/// assert_eq!(compressed.history().steps.len(), 2);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type FitNetsDistiller = Distillers<Features<Hints>, FitNetsConfig>;

impl From<FitNetsConfig> for FeatureDistiller<Hints> {
    fn from(config: FitNetsConfig) -> Self {
        let options = Options::built_in("FitNetsDistiller", &config, config.origin_loss_lambda);
        let kind = Features(Hints(config));
        Self { kind, options }
    }
}

/// The distance between regressed hidden states and the teacher's.
#[derive(Clone, Debug)]
pub struct Hints(FitNetsConfig);

impl FeatureLoss for Hints {
    fn loss(&self, pair: &FeaturePair, learnables: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        let (student, teacher) = same_resolution(pair);
        let ([samples, from, positions], [_, to, _]) = (student.sizes(), teacher.sizes());
        let rows = samples * positions;
        let features = student.channels_last().reshape([rows, from]);
        let regressed = learnables.linear(features, to, self.0.seed)?;
        let hint = teacher.channels_last().reshape([rows * to]);
        Ok(mse(regressed.reshape([rows * to]), hint))
    }

    fn check_rule(&self, rule: &Selected<DistillationSettings>) -> Result<(), DistillationError> {
        check_projected(rule)?;
        reject_apply_method(rule, "hints are compared by mean squared error")
    }

    fn check_pair(&self, pair: &FeaturePair) -> Result<(), DistillationError> {
        pair.require_elements()?;
        let layout = |state: &HiddenState| (state.shape().len(), state.channel_dim());
        let (student, teacher) = (&pair.student, &pair.teacher);
        let is_alike = layout(student) == layout(teacher);
        match is_alike && student.shape().first() == teacher.shape().first() {
            true => Ok(()),
            false => Err(pair.incomparable(
                "hints need the same samples, as many dimensions and channels in the same one",
            )),
        }
    }
}

/// Both hidden states with equal sizes in all dimensions but the channels, the larger averaged
/// down.
fn same_resolution(pair: &FeaturePair) -> (HiddenState, HiddenState) {
    let (mut student, mut teacher) = (pair.student.clone(), pair.teacher.clone());
    for dim in (1..student.shape().len()).filter(|&dim| dim != pair.student.channel_dim()) {
        let (from, to) = (student.shape()[dim], teacher.shape()[dim]);
        match from.cmp(&to) {
            std::cmp::Ordering::Less => teacher.state = averaged(&teacher.state, dim, from),
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => student.state = averaged(&student.state, dim, to),
        }
    }
    (student, teacher)
}

/// Averages a dimension down to `size`: position `i` is the mean of those from `i n / size` to
/// `(i + 1) n / size`, rounded outwards, as in adaptive average pooling.
fn averaged(state: &FlatTensor, dim: usize, size: usize) -> FlatTensor {
    let from = state.shape[dim];
    let outer: usize = state.shape[..dim].iter().product();
    let inner: usize = state.shape[dim + 1..].iter().product();
    let mut means = vec![0.0_f32; from * size];
    for to in 0..size {
        let window = to * from / size..((to + 1) * from).div_ceil(size);
        let share = 1.0 / window.len() as f32;
        window.for_each(|at| means[at * size + to] = share);
    }
    let device = state.values.device().without_autodiff();
    let means = TensorData::new(means, [from, size]);
    let means = Tensor::<2>::from_data(means, (&device, state.values.dtype()));
    let values = state
        .values
        .clone()
        .reshape([outer, from, inner])
        .swap_dims(1, 2)
        .reshape([outer * inner, from])
        .matmul(means)
        .reshape([outer, inner, size])
        .swap_dims(1, 2)
        .reshape([outer * size * inner]);
    let mut shape = state.shape.clone();
    shape[dim] = size;
    FlatTensor { values, shape }
}

/// The loss of one hint with a given regressor, and the regressor's weight and bias as its leaves.
///
/// For comparison with other implementations.
///
/// # Shapes
///
/// - student, teacher: `[samples, channels, ..]`, as a [`FlatTensor`] each
/// - weight: `[student channels * teacher channels]`, row-major
/// - bias: `[teacher channels]`
///
/// # Errors
///
/// Hidden states that cannot be compared, and a regressor of other sizes.
pub fn hint_loss(
    student: FlatTensor,
    teacher: FlatTensor,
    weight: Vec<f32>,
    bias: Vec<f32>,
) -> Result<(Tensor<1>, [Tensor<1>; 2]), BoxError> {
    let device = student.values.device().without_autodiff();
    let hidden = |layer: &str, state: FlatTensor| {
        HiddenState::of(layer, TargetId::new(layer, Target::Output(0)), state, 1)
    };
    let pair = FeaturePair::new(hidden("student", student)?, hidden("teacher", teacher)?);
    let (hints, mut learnables) = (Hints(FitNetsConfig::new()), Learnables::new(&device));
    hints.check_pair(&pair)?;
    // The first call makes the regressor.
    hints.loss(&pair, &mut learnables)?;
    let [of_weight, of_bias] = &learnables.all()[..] else {
        return Err("there is no regressor".into());
    };
    of_weight.set_values(weight)?;
    of_bias.set_values(bias)?;
    let loss = hints.loss(&pair, &mut learnables)?;
    Ok((loss, [of_weight.tensor(), of_bias.tensor()]))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn hidden<const D: usize>(target: &str, state: Tensor<D>) -> HiddenState {
        HiddenState::new(target.parse().unwrap(), state, 1).unwrap()
    }

    #[test]
    fn the_regressor_mixes_channels_at_each_position() {
        let device = Device::flex();
        // Two channels at two positions: (1, 3) and (2, 4).
        let student = Tensor::<3>::from_floats([[[1.0, 2.0], [3.0, 4.0]]], &device);
        // One channel: 10 and 20.
        let teacher = Tensor::<3>::from_floats([[[10.0, 20.0]]], &device);
        let pair = FeaturePair::new(
            hidden("a._output_0", student),
            hidden("b._output_0", teacher),
        );
        let (hints, mut learnables) = (Hints(FitNetsConfig::new()), Learnables::new(&device));
        hints.loss(&pair, &mut learnables).unwrap();
        let [weight, bias] = &learnables.all()[..] else {
            panic!("one regressor");
        };
        weight.set_values(vec![1.0, 2.0]).unwrap();
        bias.set_values(vec![0.5]).unwrap();
        // 1 + 6 + 0.5 = 7.5 and 2 + 8 + 0.5 = 10.5: (2.5^2 + 9.5^2) / 2.
        let loss = hints.loss(&pair, &mut learnables).unwrap();
        assert_eq!(loss.into_scalar::<f32>(), 48.25);
    }

    #[test]
    fn the_finer_resolution_is_averaged() {
        let device = Device::flex();
        let values = [[[[1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]]]];
        let state = FlatTensor::new(Tensor::<4>::from_floats(values, &device));
        // Windows 0..2, 1..4, 3..5 of five positions.
        let averaged = averaged(&state, 3, 3);
        assert_eq!(averaged.shape, [1, 1, 2, 3]);
        assert_eq!(averaged.to_vec().unwrap(), [1.5, 3.0, 4.5, 6.5, 8.0, 9.5]);
        let rows = super::averaged(&averaged, 2, 1);
        assert_eq!(rows.to_vec().unwrap(), [4.0, 5.5, 7.0]);
    }

    #[test]
    fn either_side_may_be_finer() {
        let device = Device::flex();
        let student = hidden("a._output_0", Tensor::<4>::ones([2, 3, 4, 1], &device));
        let teacher = hidden("b._output_0", Tensor::<4>::ones([2, 5, 2, 3], &device));
        let (student, teacher) = same_resolution(&FeaturePair::new(student, teacher));
        assert_eq!(student.shape(), [2, 3, 2, 1]);
        assert_eq!(teacher.shape(), [2, 5, 2, 1]);
    }

    #[test]
    fn states_of_another_rank_are_refused() {
        let device = Device::flex();
        let student = hidden("a._output_0", Tensor::<2>::ones([2, 3], &device));
        let teacher = hidden("b._output_0", Tensor::<3>::ones([2, 3, 4], &device));
        let pair = FeaturePair::new(student, teacher);
        let error = Hints(FitNetsConfig::new()).check_pair(&pair).unwrap_err();
        assert!(error.to_string().contains("as many dimensions"), "{error}");
    }
}
