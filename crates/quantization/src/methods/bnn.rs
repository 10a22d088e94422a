//! Binarized neural networks (BNN): weights and activations are -1 or 1.
//!
//! The smallest weights there are, for networks that are built for it: normalisation before each
//! sign, a Hardtanh in place of a rectifier, the first and the last layer in full precision. The model
//! computes with signs, while the optimizer moves real weights behind them.
//!
//! ```text
//! x'      =  sign(x), with sign(0) = 1
//! dx'/dx  =  1 of a parameter; of an input or output 1 where |x| <= 1, else 0
//! w       <- clamp(w, -1, 1)     after each step, for each binary parameter
//! ```
//!
//! The sign of a folded weight ([`fuse`](QuantizationSettings::fuse)) has lost the scale of the batch
//! norm, so leave norms unfolded unless their scale does not matter.
//!
//! Without the clamp a weight could move so far from 0 that no later gradient changes its sign. At
//! the end of the run the parameters become their signs. What remains is the quantization `int1` with
//! scale 1, which of inputs and outputs takes the sign at inference, too.
//!
//! # References
//!
//! Hubara et al., *Binarized Neural Networks: Training Neural Networks with Weights and Activations
//! Constrained to +1 or -1*, arXiv 1602.02830. Deterministic signs only. The type is `int1` or left
//! out, where NNI ignores any other ([`BnnConfig::any_dtype`]); the type in the calibration is `int1`, where
//! NNI writes `int8`. As the sign of 0 is 1, a binary input has no zeros: channels that a pruner
//! removes before it cannot be cut out without changing the function.

use burn::config::Config;
use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::{
    Algorithm, BoxError, Chain, Configuration, Constructors, Error, FlatTensor, Method, Mode,
    QuantDtype, QuantScheme, RoundGradient, Run, TargetId,
};
use indexmap::IndexMap;

use crate::parameters::raw;
use crate::reject::{reject_blocks, reject_int32_bias, reject_method, reject_observer};
use crate::targets::{FixedQParams, QuantTargets};
use crate::{ApplyMethod, QuantizationError, QuantizationSettings, precision};

const NAME: &str = "BnnQuantizer";

/// Settings of a [`BnnQuantizer`].
#[derive(Config, Debug, Copy)]
pub struct BnnConfig {
    /// Whether binary parameters are clamped to -1..=1 after each step.
    #[config(default = true)]
    pub clamp_parameters: bool,
    /// Whether a configuration for another type is accepted and read as `int1`, as NNI
    /// does; otherwise it is an error.
    #[config(default = false)]
    pub any_dtype: bool,
}

/// Trains a model whose quantized targets are -1 or 1.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_quantization::{BnnConfig, BnnQuantizer, QuantizationSettings};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Wrapper<Linear>,
/// }
///
/// let device = Device::flex();
/// let model = Net { fc: LinearConfig::new(4, 2).init(&device).into() };
/// let batch = Tensor::<2>::ones([8, 4], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|model: &Net, batch: &Tensor<2>| model.fc.forward(batch.clone()).square().mean());
/// let config = ConfigList::<QuantizationSettings>::from_json(
///     r#"[{"op_types": ["Linear"], "target_names": ["weight"]}]"#,
/// )?;
/// let quantizer = BnnQuantizer::new(model, &config, evaluator, BnnConfig::new())?;
/// let model = quantizer.compress(Budget::steps(3))?.unwrap_model();
/// let weight = model.fc.weight.val().abs().into_data().try_to_vec::<f32>().unwrap();
/// assert_eq!(weight, [1.0; 8]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type BnnQuantizer = Constructors<BnnConfig>;

impl<M: Module + 'static, I: 'static> Method<M, I> for BnnConfig {
    type Settings = QuantizationSettings;

    fn name(&self) -> &'static str {
        NAME
    }

    fn add_to(
        self,
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        self.add(&mut chain.erased(), rules)
    }
}

impl BnnConfig {
    /// Adds the algorithm to a chain of any model.
    fn add(
        self,
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> Result<(), Error> {
        chain.evaluator().require_training(NAME)?;
        let dtype = QuantDtype::INT1;
        let method = ApplyMethod::QatClampRound;
        let targets = QuantTargets::claim_with(chain, rules, NAME, method, |selected| {
            let settings = &selected.settings;
            if !self.any_dtype {
                reject_other_types(settings)?;
            }
            reject_blocks(settings)?;
            reject_observer(settings)?;
            reject_method(settings)?;
            reject_int32_bias(settings)?;
            Ok((dtype, QuantScheme::Symmetric))
        })?;
        for target in targets.iter() {
            let gradient = match target.target().is_param() {
                true => RoundGradient::StraightThrough,
                false => RoundGradient::Clipped,
            };
            let signs = FixedQParams {
                scale: 1.0,
                zero_point: 0.0,
                gradient,
            };
            signs.set(target, targets.device());
        }
        let config = self;
        chain.push(Bnn { targets, config });
        Ok(())
    }
}

#[derive(Debug)]
struct Bnn {
    targets: QuantTargets,
    config: BnnConfig,
}

fn reject_other_types(settings: &QuantizationSettings) -> Result<(), QuantizationError> {
    if let Some(dtype) = settings.quant_dtype
        && !dtype.is_binary()
    {
        return Err(QuantizationError::setting(
            "quant_dtype",
            dtype,
            "a binary network has the type `int1`, which may be left out",
        ));
    }
    match settings.scheme() {
        QuantScheme::Symmetric => Ok(()),
        QuantScheme::Affine => Err(QuantizationError::setting(
            "quant_scheme",
            QuantScheme::Affine,
            "-1 and 1 are symmetric, leave it out",
        )),
    }
}

/// 1 where a value is not negative, -1 elsewhere.
fn sign(value: FlatTensor) -> FlatTensor {
    value.map(|values| {
        let dtype = values.dtype();
        precision::in_dtype(values.greater_equal_elem(0.0).float(), dtype) * 2.0 - 1.0
    })
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for Bnn {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mode(&self) -> Mode {
        Mode::Quantization
    }

    fn project(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        if !self.config.clamp_parameters {
            return Ok(IndexMap::new());
        }
        let mut values = raw(run.model, &self.targets.parameter_ids());
        for value in values.values_mut() {
            value.values = value.values.clone().clamp(-1.0, 1.0);
        }
        Ok(values)
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        let ids = self.targets.parameter_ids();
        let mut values = self.targets.fusions().finish_with(run.model, &ids)?;
        for id in &ids {
            if let Some(value) = values.get_mut(id) {
                *value = sign(value.clone());
            }
        }
        Ok(values)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        // Every type is read as one bit.
        let own = Configuration::of(&self.config).without("any_dtype");
        Ok(self.targets.configuration(own))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use burn_compress_core::Budget;
    use rstest::rstest;

    use super::*;
    use crate::testing::{
        Chain, any, cause, chain, close, floats, learner_agrees, net, nothing_changes_at_the_end,
        of, resumes, rules,
    };

    const ALL: &str = r#"[{"op_types": ["Linear"], "target_names": ["_input_0", "weight"]}]"#;
    const SECOND: &str = r#"[{"op_names": ["second"], "target_names": ["weight"]}]"#;

    fn fuse(chain: Chain, config: &str, quantizer: BnnConfig) -> Result<Chain, Error> {
        BnnQuantizer::from_compressor(chain, rules(config), quantizer)
    }

    fn build() -> Chain {
        fuse(any(), ALL, BnnConfig::new()).unwrap()
    }

    /// The second layer sees [1, 2], so its weight has the gradient [1, 2].
    fn stepped(quantizer: BnnConfig) -> Chain {
        let identity = [[1.0, 0.0], [0.0, 1.0]];
        let net = net(identity, [[0.3], [-0.9]]);
        let chain = chain(net, vec![[[1.0, 2.0], [1.0, 2.0]]], 0.5);
        let mut chain = fuse(chain, SECOND, quantizer).unwrap();
        chain.advance(&Budget::steps(1), None).unwrap();
        chain
    }

    #[test]
    fn a_step_worked_by_hand() {
        let mut chain = stepped(BnnConfig::new());
        // 0.3 - 0.5 (1), and -0.9 - 0.5 (2) = -1.9 is clamped.
        close(&floats(chain.model().second.weight.base()), &[-0.2, -1.0]);
        assert_eq!(floats(chain.model().second.weight.val()), [-1.0, -1.0]);
        let calibration = chain.calibration().unwrap();
        assert_eq!(
            (calibration[0].dtype.is_binary(), &calibration[0].scale),
            (true, &Some(vec![1.0]))
        );
        chain.advance(&Budget::steps(1), None).unwrap();
        let compressed = chain.finish().unwrap();
        assert_eq!(
            floats(compressed.unwrap_model().second.weight.val()),
            [-1.0, -1.0]
        );
        let free = stepped(BnnConfig::new().with_clamp_parameters(false));
        close(&floats(free.model().second.weight.base()), &[-0.2, -1.9]);
    }

    #[test]
    fn activations_pass_gradients_inside_only() {
        let config = r#"[{"op_names": ["act"], "target_names": ["_input_0"]}]"#;
        // What enters the rectifier is [0.5, 3] and comes out as its signs, so only the first column
        // of the identity learns: from its inputs [0.5, 3].
        let net = net([[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0]]);
        let chain = chain(net, vec![[[0.5, 3.0], [0.5, 3.0]]], 0.1);
        let mut chain = fuse(chain, config, BnnConfig::new()).unwrap();
        chain.advance(&Budget::steps(1), None).unwrap();
        let weight = floats(chain.model().first.weight.base());
        close(&weight, &[0.95, 0.0, -0.3, 1.0]);
        let compressed = chain.finish().unwrap();
        let hidden = compressed.model().act.forward(Tensor::<2>::from_floats(
            [[0.0, -0.01], [7.0, -7.0]],
            &Device::flex(),
        ));
        assert_eq!(floats(hidden), [1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn runs_can_be_stopped_and_driven_by_a_learner() {
        resumes("bnn", build);
        let at_the_edge = || {
            let net = net([[0.99, -0.99], [-0.99, 0.99]], [[0.99], [-0.99]]);
            fuse(of(net), ALL, BnnConfig::new()).unwrap()
        };
        let mut chain = at_the_edge();
        chain.advance(&Budget::steps(4), None).unwrap();
        let raw = floats(chain.model().second.weight.base());
        assert!(raw.iter().any(|weight| weight.abs() == 1.0), "{raw:?}");
        learner_agrees(at_the_edge);
        nothing_changes_at_the_end(build);
    }

    #[rstest]
    #[case(r#""quant_dtype": "int8""#, "quant_dtype")]
    #[case(r#""quant_scheme": "affine""#, "quant_scheme")]
    #[case(
        r#""granularity": "out_channel", "target_names": ["weight"]"#,
        "granularity"
    )]
    #[case(r#""observer": "mse""#, "observer")]
    #[case(r#""apply_method": "clamp_round""#, "apply_method")]
    fn settings_that_do_not_fit(#[case] setting: &str, #[case] expected: &str) {
        let rules = format!(r#"[{{"op_types": ["Linear"], {setting}}}]"#);
        let error = cause(fuse(any(), &rules, BnnConfig::new()).unwrap_err());
        assert!(
            matches!(error, QuantizationError::Setting { key, .. } if key == expected),
            "{error}"
        );
    }

    #[test]
    fn other_types_are_read_as_signs_if_wanted() {
        let int8 = r#"[{"op_types": ["Linear"], "quant_dtype": "int8",
            "quant_scheme": "affine"}]"#;
        let chain = fuse(any(), int8, BnnConfig::new().with_any_dtype(true)).unwrap();
        let calibration = chain.calibration().unwrap();
        assert_eq!(calibration.len(), 6);
        let found = calibration.values();
        let mut found = found.map(|entry| (entry.dtype.is_binary(), entry.scheme));
        assert!(found.all(|found| found == (true, QuantScheme::Symmetric)));
    }
}
