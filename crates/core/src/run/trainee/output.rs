//! What the steps of a trainee hand out for the metrics of Burn's `Learner`.

use burn::backend::ExecutionError;
use burn::tensor::Tensor;
use burn::train::metric::{
    AccuracyInput, Adaptor, BleuInput, CerInput, ConfusionStatsInput, HammingScoreInput, LossInput,
    PerplexityInput, RougeLInput, TopKAccuracyInput, WerInput,
};
use burn::train::{
    ClassificationOutput, ItemLazy, MultiLabelClassificationOutput, RegressionOutput,
    SequenceOutput,
};

use super::metrics::{BitsInput, SparsityInput};
use super::state::StepState;

/// Output of a batch from which the loss is taken, and which a [`Trainee`](super::Trainee) hands out
/// for metrics.
///
/// Implemented for the outputs of Burn: [`ClassificationOutput`], [`MultiLabelClassificationOutput`],
/// [`RegressionOutput`] and [`SequenceOutput`]. One of your own takes of the state what its metrics are
/// to show:
///
/// ```
/// use burn::backend::ExecutionError;
/// use burn::tensor::Tensor;
/// use burn::train::ItemLazy;
/// use burn::train::metric::{Adaptor, LossInput};
/// use burn_compress_core::{SparsityInput, StepOutput, StepState};
///
/// struct Output {
///     loss: Tensor<1>,
///     sparsity: f64,
/// }
///
/// impl StepOutput for Output {
///     fn loss(&self) -> Tensor<1> {
///         self.loss.clone()
///     }
///
///     fn with_step(self, step: StepState) -> Self {
///         Self { loss: step.loss, sparsity: step.sparsity }
///     }
/// }
///
/// impl ItemLazy for Output {
///     fn sync(self) -> Result<Self, ExecutionError> {
///         Ok(Self { loss: self.loss.without_autodiff(), ..self })
///     }
/// }
///
/// impl Adaptor<LossInput> for Output {
///     fn adapt(&self) -> LossInput {
///         LossInput::new(self.loss.clone())
///     }
/// }
///
/// impl Adaptor<SparsityInput> for Output {
///     fn adapt(&self) -> SparsityInput {
///         SparsityInput::new(self.sparsity)
///     }
/// }
/// ```
pub trait StepOutput: ItemLazy + 'static {
    /// The user's own loss, one element.
    fn loss(&self) -> Tensor<1>;

    /// The output with what the metrics are to show of the step, at least with its loss.
    fn with_step(self, step: StepState) -> Self;
}

macro_rules! outputs_of_burn {
    ($($output:ty),+) => {$(
        impl StepOutput for $output {
            fn loss(&self) -> Tensor<1> {
                self.loss.clone()
            }

            fn with_step(mut self, step: StepState) -> Self {
                self.loss = step.loss;
                self
            }
        }
    )+};
}

outputs_of_burn!(
    ClassificationOutput,
    MultiLabelClassificationOutput,
    RegressionOutput,
    SequenceOutput
);

/// Output of a [`Trainee`](super::Trainee) where the evaluator has a loss and no output.
#[derive(Clone, Debug)]
pub struct TraineeOutput {
    /// In training the loss that is minimised, every compressor's part included; in validation the
    /// user's own. One element.
    pub loss: Tensor<1>,
    /// See [`StepState::sparsity`].
    pub sparsity: f64,
    /// See [`StepState::bits`].
    pub bits: f64,
}

impl TraineeOutput {
    pub(super) fn new(loss: Tensor<1>) -> Self {
        Self {
            loss,
            sparsity: 0.0,
            bits: 0.0,
        }
    }
}

impl StepOutput for TraineeOutput {
    fn loss(&self) -> Tensor<1> {
        self.loss.clone()
    }

    fn with_step(self, step: StepState) -> Self {
        Self {
            loss: step.loss,
            sparsity: step.sparsity,
            bits: step.bits,
        }
    }
}

impl ItemLazy for TraineeOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.loss.device().flush()?;
        Ok(Self {
            loss: self.loss.without_autodiff(),
            ..self
        })
    }
}

impl Adaptor<LossInput> for TraineeOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}

impl Adaptor<SparsityInput> for TraineeOutput {
    fn adapt(&self) -> SparsityInput {
        SparsityInput::new(self.sparsity)
    }
}

impl Adaptor<BitsInput> for TraineeOutput {
    fn adapt(&self) -> BitsInput {
        BitsInput::new(self.bits)
    }
}

/// An output with the state of the compression, for [`SparsityMetric`](super::SparsityMetric) and
/// [`BitsMetric`](super::BitsMetric).
///
/// It adapts to all inputs of Burn's metrics, but for those of images, that the output inside adapts to.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn::train::RegressionOutput;
/// use burn_compress_core::{CompressionOutput, Compressor, Evaluator};
///
/// type Output = CompressionOutput<RegressionOutput>;
///
/// let evaluator = Evaluator::new().with_output(|model: &Linear, batch: &[Tensor<2>; 2]| {
///     let [rows, targets] = batch.clone();
///     let output = model.forward(rows);
///     let loss = (output.clone() - targets.clone()).square().mean();
///     Output::from(RegressionOutput::new(loss, output, targets))
/// });
/// let model = LinearConfig::new(4, 2).init(&Device::flex());
/// // Here pruners, quantizers and distillers join the chain.
/// let trainee = Compressor::from_model(model, evaluator).into_trainee_with_output::<Output>(3)?;
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CompressionOutput<O> {
    /// The output.
    pub output: O,
    /// See [`StepState::sparsity`].
    pub sparsity: f64,
    /// See [`StepState::bits`].
    pub bits: f64,
}

/// The output before a trainee has added the state.
impl<O: StepOutput> From<O> for CompressionOutput<O> {
    fn from(output: O) -> Self {
        Self {
            output,
            sparsity: 0.0,
            bits: 0.0,
        }
    }
}

impl<O: StepOutput> StepOutput for CompressionOutput<O> {
    fn loss(&self) -> Tensor<1> {
        self.output.loss()
    }

    fn with_step(self, step: StepState) -> Self {
        Self {
            sparsity: step.sparsity,
            bits: step.bits,
            output: self.output.with_step(step),
        }
    }
}

impl<O: ItemLazy> ItemLazy for CompressionOutput<O> {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(Self {
            output: self.output.sync()?,
            ..self
        })
    }
}

impl<O> Adaptor<SparsityInput> for CompressionOutput<O> {
    fn adapt(&self) -> SparsityInput {
        SparsityInput::new(self.sparsity)
    }
}

impl<O> Adaptor<BitsInput> for CompressionOutput<O> {
    fn adapt(&self) -> BitsInput {
        BitsInput::new(self.bits)
    }
}

/// An adaptor of the output inside. One for all inputs would overlap with Burn's own for `()`.
macro_rules! adaptors_of_the_output {
    ($($input:ty),+) => {$(
        impl<O: Adaptor<$input>> Adaptor<$input> for CompressionOutput<O> {
            fn adapt(&self) -> $input {
                self.output.adapt()
            }
        }
    )+};
}

adaptors_of_the_output!(
    AccuracyInput,
    BleuInput,
    CerInput,
    ConfusionStatsInput,
    HammingScoreInput,
    LossInput,
    PerplexityInput,
    RougeLInput,
    TopKAccuracyInput,
    WerInput
);
