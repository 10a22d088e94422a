//! Adaptive layer-wise distillation: a student of another width, through a trained linear layer.
//!
//! Where student and teacher differ in their last dimension, the student's hidden state first goes
//! through a linear layer to the teacher's width. The layer trains with the student's optimizer and
//! is dropped after the run. Where the last dimensions agree there is no such layer.
//!
//! ```text
//! hidden = student W + b       if the last dimensions differ, else student
//! total  = origin_loss_lambda * task loss + sum over targets of lambda * loss(hidden, teacher)
//! ```
//!
//! # References
//!
//! NNI 3.0's `Adaptive1dLayerwiseDistiller` (<https://github.com/microsoft/nni>); the linear layer
//! is that of Jiao et al., *TinyBERT*, arXiv 1909.10351. Deviations: the width is found at the
//! first batch, without a forward pass beforehand, and every target's layer is trained, where NNI
//! trains one a module.

use burn::config::Config;
use burn::tensor::Tensor;
use burn_compress_core::config::Selected;
use burn_compress_core::{BoxError, FlatTensor};

use crate::layerwise::constructors;
use crate::link::{Hidden, incomparable};
use crate::projection::{Projected, ProjectedLoss, Projections};
use crate::{DistillationError, DistillationLoss, DistillationSettings};

/// How an [`Adaptive1dLayerwiseDistiller`] weighs and starts.
#[derive(Config, Debug, Copy)]
pub struct AdaptiveConfig {
    /// The weight of the user's own loss.
    #[config(default = 1.0)]
    pub origin_loss_lambda: f64,
    /// The seed of the linear layers' start.
    #[config(default = 0)]
    pub seed: u64,
}

/// Adds the distance between projected and taught hidden states to the loss.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_distillation::{Adaptive1dLayerwiseDistiller, AdaptiveConfig};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Wrapper<Linear>,
/// }
///
/// let device = Device::flex().autodiff();
/// let net = |width| Net { fc: LinearConfig::new(6, width).init(&device).into() };
/// let (student, teacher) = (net(3), net(12));
/// let batch = Tensor::<2>::ones([5, 6], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|net: &Net, batch: &Tensor<2>| net.fc.forward(batch.clone()).mean());
/// let compressed = Adaptive1dLayerwiseDistiller::new(
///     student,
///     &ConfigList::from_json(r#"[{"op_names": ["fc"]}]"#)?,
///     evaluator,
///     &teacher,
///     |teacher: &Net, batch: &Tensor<2>| teacher.fc.forward(batch.clone()),
///     AdaptiveConfig::new().with_seed(1),
/// )?
/// .compress(Budget::steps(2))?;
/// assert_eq!(compressed.history().steps.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Adaptive1dLayerwiseDistiller;

constructors!(Adaptive1dLayerwiseDistiller, AdaptiveConfig, |config| {
    let adaptive = Projected::new(Adaptive, config.seed);
    Ok((config.origin_loss_lambda, Box::new(adaptive)))
});

struct Adaptive;

impl ProjectedLoss for Adaptive {
    fn check(&self, item: &Selected<DistillationSettings>) -> Result<(), DistillationError> {
        match item.settings.channel_dim {
            None => Ok(()),
            Some(_) => Err(DistillationError::UnusedSetting {
                key: "channel_dim",
                layer: item.layer.path.clone(),
                reason: "the last dimension is projected",
            }),
        }
    }

    fn loss(
        &self,
        student: &Hidden,
        teacher: &Hidden,
        configured: DistillationLoss,
        projections: &mut Projections,
    ) -> Result<Tensor<1>, BoxError> {
        let adapted = adapted(student, teacher, projections)?;
        Ok(configured.between(
            (&student.id.layer, &adapted),
            (&teacher.id.layer, &teacher.state),
        )?)
    }
}

/// The student's hidden state in the teacher's width.
fn adapted(
    student: &Hidden,
    teacher: &Hidden,
    projections: &mut Projections,
) -> Result<FlatTensor, BoxError> {
    let (Some((&from, front)), Some((&to, taught))) =
        (student.shape().split_last(), teacher.shape().split_last())
    else {
        return Err(student.empty().into());
    };
    if front != taught {
        let expected = "all dimensions but the last must be equal";
        return Err(incomparable(student, teacher, expected).into());
    }
    if from == to {
        return Ok(student.state.clone());
    }
    let rows: usize = front.iter().product();
    let features = student.state.values.clone().reshape([rows, from]);
    let projected = projections.apply((student, teacher), features, to)?;
    Ok(FlatTensor {
        values: projected.reshape([rows * to]),
        shape: teacher.shape().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use burn_compress_core::TargetId;

    use super::*;
    use crate::link::LinkLoss;

    fn hidden(target: &str, shape: &[usize]) -> Hidden {
        let size = shape.iter().product::<usize>();
        Hidden {
            id: target.parse::<TargetId>().unwrap(),
            teacher: 0,
            state: FlatTensor {
                values: Tensor::ones([size], &Device::flex()),
                shape: shape.to_vec(),
            },
            channel_dim: shape.len() - 1,
        }
    }

    #[test]
    fn equal_widths_need_no_projection() {
        let mut adaptive = Projected::new(Adaptive, 0);
        let (student, teacher) = (
            hidden("a._output_0", &[2, 3]),
            hidden("b._output_0", &[2, 3]),
        );
        let loss = adaptive
            .loss(&student, &teacher, DistillationLoss::Mse)
            .unwrap();
        assert_eq!(loss.into_scalar::<f32>(), 0.0);
        assert!(adaptive.learnables().is_empty());
    }

    #[test]
    fn other_widths_are_projected() {
        let mut adaptive = Projected::new(Adaptive, 0);
        let student = hidden("a._output_0", &[2, 4, 3]);
        let teacher = hidden("b._output_0", &[2, 4, 5]);
        adaptive
            .loss(&student, &teacher, DistillationLoss::Mse)
            .unwrap();
        let [weight, bias] = &adaptive.learnables()[..] else {
            panic!("one linear layer");
        };
        assert_eq!((weight.shape(), bias.shape()), (&[3, 5][..], &[5][..]));
        weight.set_values(vec![0.5; 15]).unwrap();
        bias.set_values(vec![-1.5; 5]).unwrap();
        // 3 * 0.5 - 1.5 = 0 against 1.
        let loss = adaptive
            .loss(&student, &teacher, DistillationLoss::Mse)
            .unwrap();
        assert_eq!(loss.into_scalar::<f32>(), 1.0);
    }

    #[test]
    fn only_the_last_dimension_may_differ() {
        let mut adaptive = Projected::new(Adaptive, 0);
        let student = hidden("a._output_0", &[2, 4, 3]);
        let teacher = hidden("b._output_0", &[2, 5, 3]);
        let error = adaptive
            .loss(&student, &teacher, DistillationLoss::Mse)
            .unwrap_err();
        assert!(
            error.to_string().contains("all dimensions but the last"),
            "{error}"
        );
    }
}
