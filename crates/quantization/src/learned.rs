//! Scales and zero points that are trained with the model, as LSQ and LSQ+ do.
//!
//! With the scale `s` and the zero point `z` of a block and `p = x / s + z`:
//!
//! ```text
//! x'      =  (round(clamp(p, qmin, qmax)) - z) s
//! dx'/dx  =  1 inside the range, 0 outside
//! dx'/ds  =  g (round(p) - p) inside, g (qmin - z) below, g (qmax - z) above
//! dx'/dz  =  0 inside, -s outside
//! g       =  1 / sqrt(qmax n)    with the n values of the tensor, batch included
//! ```
//!
//! What is trained is a number whose magnitude is the scale: a step beyond zero comes out on the
//! other side. So scales stay positive, and at least [`f32::EPSILON`], without a correction after the
//! step that the optimizer would not know of.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::{
    BoxError, Compressor, Error, FlatTensor, Grid, Learnable, Observer, Quantization, Stage,
    TargetId, TrainedBy, Transform, parameters,
};
use indexmap::IndexSet;

use crate::claim::{Claimed, claim, error_of};
use crate::observed::refuse_binary;
use crate::range::host;
use crate::{
    ApplyMethod, Granularity, QuantDtype, QuantScheme, QuantizationError, QuantizationSettings,
    blocks, range,
};

/// Where scale and zero point of the blocks begin.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Start {
    pub(crate) scale: Vec<f32>,
    pub(crate) zero_point: Vec<f32>,
}

/// Computes the start from the first values of a target.
pub(crate) type Begin = fn(&FlatTensor, &Grid, QuantDtype, QuantScheme) -> Begun;

/// What [`Begin`] gives.
pub(crate) type Begun = Result<Start, QuantizationError>;

/// Rounds to a grid whose scale, and zero point if it requires a gradient, are learned.
///
/// The value is that of the standard simulation bit for bit.
///
/// # Shapes
///
/// - value: any, a multiple of the grid
/// - scale, zero_point: `[grid.len()]`
pub(crate) fn quantize(
    value: FlatTensor,
    grid: &Grid,
    scale: Tensor<1>,
    zero_point: Tensor<1>,
    dtype: QuantDtype,
) -> FlatTensor {
    let FlatTensor { values: x, shape } = value;
    // One block broadcasts by itself.
    let spread = |per_block: Tensor<1>| match grid.len() {
        1 => per_block,
        _ => grid.expand(per_block, &shape),
    };
    let plain = |tensor: &Tensor<1>| tensor.clone().detach().without_autodiff();
    let (s, z) = (spread(positive(plain(&scale))), spread(plain(&zero_point)));
    let position = plain(&x) / s.clone() + z.clone();
    let clamped = position.clone().clamp(dtype.qmin(), dtype.qmax());
    let outside = clamped.clone().not_equal(position.clone());
    let rounded = clamped.round();
    let value = (rounded.clone() - z.clone()) * s.clone();
    let mut result = value;
    if x.is_autodiff() {
        result = carry(x.mask_fill(outside.clone(), 0.0)) + result;
    }
    if scale.is_autodiff() {
        let elements = outside.dims()[0] as f64;
        let factor = 1.0 / (f64::from(dtype.qmax()) * elements).sqrt();
        let inside = rounded.clone() - position;
        let slope = inside.mask_where(outside.clone(), rounded - z);
        let sign = plain(&scale).lower_elem(0.0).float() * -2.0 + 1.0;
        result = carry(spread(scale * sign) * (slope * factor)) + result;
    }
    if zero_point.is_autodiff() {
        let slope = s.neg() * outside.float();
        result = carry(spread(zero_point) * slope) + result;
    }
    FlatTensor {
        values: result,
        shape,
    }
}

/// [`quantize`], after a look at the shapes.
///
/// # Errors
///
/// [`QuantizationError::Grid`] when the grid does not divide the shape, or when there is not one
/// scale and one zero point for each block.
pub(crate) fn checked_quantize(
    value: FlatTensor,
    grid: &Grid,
    scale: Tensor<1>,
    zero_point: Tensor<1>,
    dtype: QuantDtype,
) -> Result<FlatTensor, QuantizationError> {
    let one_each = [&scale, &zero_point].map(|tensor| tensor.dims()[0] == grid.len());
    if !fit(grid, &value.shape) || one_each != [true, true] {
        return Err(QuantizationError::Grid {
            blocks: grid.blocks().to_vec(),
            shape: value.shape,
        });
    }
    Ok(quantize(value, grid, scale, zero_point, dtype))
}

/// Whether the blocks tile a tensor of this shape.
fn fit(grid: &Grid, shape: &[usize]) -> bool {
    let blocks = grid.blocks();
    let tile = |(&size, &blocks): (&usize, &usize)| blocks > 0 && size % blocks == 0;
    grid.len() == 1 || (blocks.len() == shape.len() && shape.iter().zip(blocks).all(tile))
}

/// Exactly zero, with the gradients of `path`.
fn carry(path: Tensor<1>) -> Tensor<1> {
    path.clone() - path.detach()
}

/// The scale of what is trained.
fn positive(trained: Tensor<1>) -> Tensor<1> {
    trained.abs().clamp_min(f32::EPSILON)
}

/// The scale and the zero point of one target.
#[derive(Debug)]
pub(crate) struct Learned {
    id: TargetId,
    kind: String,
    granularity: Granularity,
    dtype: QuantDtype,
    scheme: QuantScheme,
    begin: Begin,
    constant: Option<f64>,
    trained_by: TrainedBy,
    device: Device,
    tensors: Mutex<Option<Tensors>>,
}

#[derive(Clone, Debug)]
struct Tensors {
    grid: Grid,
    scale: Arc<Learnable>,
    zero_point: ZeroPoint,
}

#[derive(Clone, Debug)]
enum ZeroPoint {
    Fixed(Box<Tensor<1>>),
    Learned(Arc<Learnable>),
}

impl Tensors {
    fn scale(&self) -> Tensor<1> {
        positive(self.scale.tensor().detach().without_autodiff())
    }

    fn zero_point(&self) -> Tensor<1> {
        match &self.zero_point {
            ZeroPoint::Fixed(values) => values.as_ref().clone(),
            ZeroPoint::Learned(values) => values.tensor().detach().without_autodiff(),
        }
    }
}

impl Learned {
    fn tensors(&self) -> MutexGuard<'_, Option<Tensors>> {
        self.tensors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, grid: Grid, start: Start) -> Result<(), Error> {
        let blocks = grid.blocks().to_vec();
        let learnable = |part: &str, values: Vec<f32>| {
            let name = format!("{}.{part}", self.id);
            Learnable::new(name, values, blocks.clone(), self.trained_by, &self.device)
        };
        let scale = learnable("scale", start.scale)?;
        let zero_point = match self.scheme {
            QuantScheme::Affine => ZeroPoint::Learned(learnable("zero_point", start.zero_point)?),
            QuantScheme::Symmetric => ZeroPoint::Fixed(Box::new(
                scale.tensor().detach().without_autodiff().zeros_like(),
            )),
        };
        *self.tensors() = Some(Tensors {
            grid,
            scale,
            zero_point,
        });
        Ok(())
    }

    fn start(&self, values: &FlatTensor, grid: &Grid) -> Result<Start, QuantizationError> {
        let (minimum, maximum) = blocks::range(values, grid)?;
        range::check_finite(minimum, maximum.clone())?;
        let without_negatives = !self.dtype.is_signed() && self.scheme == QuantScheme::Symmetric;
        if without_negatives && host(maximum)?.iter().all(|&maximum| maximum <= 0.0) {
            let any = host(
                values
                    .values
                    .clone()
                    .detach()
                    .without_autodiff()
                    .abs()
                    .max(),
            )?;
            if any[0] > 0.0 {
                return Err(QuantizationError::OnlyNegative {
                    dtype: self.dtype.to_string(),
                });
            }
        }
        if let Some(constant) = self.constant {
            let middle = (self.dtype.qmax() - self.dtype.qmin()) / 2.0;
            return Ok(Start {
                scale: vec![constant as f32; grid.len()],
                zero_point: vec![middle; grid.len()],
            });
        }
        (self.begin)(values, grid, self.dtype, self.scheme)
    }

    /// Begins with the first values and compares the blocks of all later ones.
    fn see(&self, values: &FlatTensor) -> Result<(), BoxError> {
        let (kind, target) = (&self.kind, &self.id.target);
        let grid = self.granularity.grid(kind, target, &values.shape)?;
        let known = self.tensors().as_ref().map(|tensors| tensors.grid.clone());
        match known {
            Some(known) if known == grid || (known.len() == 1 && grid.len() == 1) => Ok(()),
            Some(known) => Err(QuantizationError::OtherBlocks {
                expected: known.blocks().to_vec(),
                found: grid.blocks().to_vec(),
            }
            .into()),
            None => {
                let start = self.start(values, &grid)?;
                Ok(self.set(grid, start)?)
            }
        }
    }

    /// Writes scale and zero point to the state of the target.
    fn report(&self, quantization: &mut Quantization) {
        if let Some(tensors) = self.tensors().as_ref() {
            quantization.grid = tensors.grid.clone();
            quantization.scale = Some(tensors.scale());
            quantization.zero_point = Some(tensors.zero_point());
            quantization.enabled = true;
        }
    }
}

impl Observer for Learned {
    fn observe(&self, values: &FlatTensor, quantization: &mut Quantization) -> Result<(), String> {
        self.see(values).map_err(|error| error.to_string())?;
        self.report(quantization);
        Ok(())
    }
}

/// Quantizes with what is trained.
#[derive(Debug)]
struct Training(Arc<Learned>);

impl Transform for Training {
    fn apply(&self, value: FlatTensor, _mask: Option<Tensor<1>>) -> FlatTensor {
        let Some(tensors) = self.0.tensors().clone() else {
            return value;
        };
        if !fit(&tensors.grid, &value.shape) {
            return value;
        }
        // A first layer sees plain data, but its scale is trained all the same.
        let x = &value.values;
        let device = x.device();
        let here = |tensor: Tensor<1>| match x.is_autodiff() {
            true => tensor.to_device(&device),
            false if tensor.device().without_autodiff() == device => tensor,
            false => tensor.to_device(&device.clone().autodiff()),
        };
        let zero_point = match &tensors.zero_point {
            ZeroPoint::Fixed(values) => {
                values.clone().to_device(&device.clone().without_autodiff())
            }
            ZeroPoint::Learned(values) => here(values.tensor()),
        };
        let scale = here(tensors.scale.tensor());
        quantize(value, &tensors.grid, scale, zero_point, self.0.dtype)
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        let tensors = self.0.tensors();
        Arc::new(Frozen {
            values: tensors.as_ref().map(|tensors| {
                let (scale, zero_point) = (tensors.scale(), tensors.zero_point());
                (tensors.clone(), scale, zero_point)
            }),
            dtype: self.0.dtype,
        })
    }
}

/// Quantizes with what was trained so far.
#[derive(Clone, Debug)]
struct Frozen {
    values: Option<(Tensors, Tensor<1>, Tensor<1>)>,
    dtype: QuantDtype,
}

impl Transform for Frozen {
    fn apply(&self, value: FlatTensor, _mask: Option<Tensor<1>>) -> FlatTensor {
        match &self.values {
            Some((tensors, scale, zero_point)) if fit(&tensors.grid, &value.shape) => {
                let device = value.values.device().without_autodiff();
                let scale = scale.clone().to_device(&device);
                let zero_point = zero_point.clone().to_device(&device);
                quantize(value, &tensors.grid, scale, zero_point, self.dtype)
            }
            _ => value,
        }
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        Arc::new(self.clone())
    }
}

/// What a quantizer of this kind does.
pub(crate) struct Rules {
    pub(crate) name: &'static str,
    /// Whether the zero points of a target are learned.
    pub(crate) scheme:
        fn(&Selected<QuantizationSettings>) -> Result<QuantScheme, QuantizationError>,
    pub(crate) begin: Begin,
    /// The scale to begin with in place of one from the data.
    pub(crate) constant: Option<f64>,
    /// In place of the evaluator's optimizer.
    pub(crate) learning_rate: Option<f64>,
}

/// The targets of a quantizer that learns scales.
#[derive(Debug)]
pub(crate) struct LearnedTargets {
    targets: Vec<(Claimed, Arc<Learned>)>,
    parameters: IndexSet<String>,
}

impl LearnedTargets {
    /// Claims what `config` selects and lets it be quantized from its first values on.
    ///
    /// # Errors
    ///
    /// A configuration that does not fit the model or the quantizer, and a target that another
    /// quantizer has; nothing is claimed then.
    pub(crate) fn claim<M: Module + 'static, I: 'static>(
        compressor: &mut Compressor<M, I>,
        config: &ConfigList<QuantizationSettings>,
        rules: &Rules,
    ) -> Result<Self, Error> {
        check_positive("init", rules.constant).map_err(error_of(rules.name))?;
        check_positive("learning_rate", rules.learning_rate).map_err(error_of(rules.name))?;
        let mut schemes = Vec::new();
        for selected in config.select(compressor.layers())? {
            let settings = &selected.settings;
            let scheme = refuse_binary(settings.dtype())
                .and_then(|()| refuse_observer(settings))
                .and_then(|()| refuse_method(settings))
                .and_then(|()| (rules.scheme)(&selected));
            schemes.push(scheme.map_err(error_of(rules.name))?);
        }
        let device = compressor.model().devices().first().cloned();
        let device = device.unwrap_or_default();
        let claimed = claim(compressor, config, ApplyMethod::QatClampRound)?;
        let targets = claimed.into_iter().zip(schemes).map(|(claimed, scheme)| {
            let learned = Arc::new(Learned {
                id: claimed.id().clone(),
                kind: claimed.layer.kind.clone(),
                granularity: claimed.settings.granularity(),
                dtype: claimed.settings.dtype(),
                scheme,
                begin: rules.begin,
                constant: rules.constant,
                trained_by: match rules.learning_rate {
                    Some(learning_rate) => TrainedBy::Adam { learning_rate },
                    None => TrainedBy::Evaluator,
                },
                device: device.clone(),
                tensors: Mutex::new(None),
            });
            let space = &claimed.space;
            if let Some(state) = space.quantization() {
                let scheme = scheme.to_string();
                space.set_quantization(Some(Quantization { scheme, ..state }));
            }
            space.set_observer(Some(learned.clone()));
            space.set_transform(Stage::Quantize, Some(Arc::new(Training(learned.clone()))));
            (claimed, learned)
        });
        let targets: Vec<_> = targets.collect();
        let params = targets
            .iter()
            .filter(|(claimed, _)| claimed.target().is_param());
        Ok(Self {
            parameters: params
                .map(|(claimed, _)| claimed.id().to_string())
                .collect(),
            targets,
        })
    }

    /// Refuses a run that trains nothing.
    pub(crate) fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        match total_steps {
            0 => Err("scales are learned by training, so the run needs at least one step".into()),
            _ => Ok(()),
        }
    }

    /// Lets the scales of parameters begin.
    pub(crate) fn observe<M: Module>(&self, model: &M) -> Result<(), Error> {
        let begun = |learned: &Learned| learned.tensors().is_some();
        let mut params = self
            .targets
            .iter()
            .filter(|(claimed, _)| claimed.target().is_param());
        if params.all(|(_, learned)| begun(learned)) {
            return Ok(());
        }
        let mut weights = parameters(model, &self.parameters);
        for (claimed, _) in &self.targets {
            if let Some(weight) = weights.swap_remove(&claimed.id().to_string()) {
                claimed.space.observe(&weight)?;
            }
        }
        Ok(())
    }

    pub(crate) fn learnables(&self) -> Vec<Arc<Learnable>> {
        let tensors = self
            .targets
            .iter()
            .filter_map(|(_, learned)| learned.tensors().clone());
        let each = |tensors: Tensors| match tensors.zero_point {
            ZeroPoint::Fixed(_) => vec![tensors.scale],
            ZeroPoint::Learned(zero_point) => vec![tensors.scale, zero_point],
        };
        tensors.flat_map(each).collect()
    }

    /// Writes what was learned to the states of the targets.
    pub(crate) fn report(&self) {
        for (claimed, learned) in &self.targets {
            if let Some(mut state) = claimed.space.quantization() {
                learned.report(&mut state);
                claimed.space.set_quantization(Some(state));
            }
        }
    }

    /// Leaves an ordinary quantization behind, with whole zero points if they are to be rounded.
    ///
    /// # Errors
    ///
    /// A target that no step has reached, and numbers that are not finite.
    pub(crate) fn finish(&self, round_zero_points: bool) -> Result<(), Error> {
        for (claimed, _) in &self.targets {
            let (space, id) = (&claimed.space, claimed.id());
            let failed = |error: QuantizationError| Error::Observation {
                target: id.clone(),
                reason: error.to_string(),
            };
            let nothing = || failed(QuantizationError::NothingObserved);
            // The state rather than what is trained: a run may end with an earlier snapshot.
            let mut state = space.quantization().ok_or_else(nothing)?;
            let (Some(scale), Some(zero_point)) = (&state.scale, &state.zero_point) else {
                return Err(nothing());
            };
            for (what, tensor) in [("scale", scale), ("zero point", zero_point)] {
                let values = host(tensor.clone()).map_err(failed)?;
                if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                    let target = id.to_string();
                    return Err(failed(QuantizationError::NotLearned {
                        target,
                        what,
                        value,
                    }));
                }
            }
            if round_zero_points {
                state.zero_point = Some(zero_point.clone().round());
            }
            space.set_quantization(Some(state));
            space.set_observer(None);
            space.set_transform(Stage::Quantize, None);
        }
        Ok(())
    }

    /// Makes the tensors that were there when the states of the targets were saved.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    pub(crate) fn restore(&self) -> Result<(), BoxError> {
        for (claimed, learned) in &self.targets {
            *learned.tensors() = None;
            if let Some(Quantization {
                grid,
                scale: Some(scale),
                zero_point: Some(zero_point),
                ..
            }) = claimed.space.quantization()
            {
                let start = Start {
                    scale: host(scale)?,
                    zero_point: host(zero_point)?,
                };
                learned.set(grid, start)?;
            }
        }
        Ok(())
    }
}

fn check_positive(key: &'static str, value: Option<f64>) -> Result<(), QuantizationError> {
    match value {
        Some(value) if !(value.is_finite() && value as f32 > 0.0) => {
            Err(QuantizationError::Setting {
                key,
                value: value.to_string(),
                expected: "a positive number",
            })
        }
        _ => Ok(()),
    }
}

pub(crate) fn refuse_observer(settings: &QuantizationSettings) -> Result<(), QuantizationError> {
    match settings.observer {
        None => Ok(()),
        Some(observer) => Err(QuantizationError::Setting {
            key: "observer",
            value: format!("{observer:?}"),
            expected: "this quantizer follows no range, leave it out",
        }),
    }
}

pub(crate) fn refuse_method(settings: &QuantizationSettings) -> Result<(), QuantizationError> {
    match settings.apply_method {
        None => Ok(()),
        Some(method) => Err(QuantizationError::Setting {
            key: "apply_method",
            value: format!("{method:?}"),
            expected: "this quantizer has a gradient of its own, leave it out",
        }),
    }
}

/// A small network and what every quantizer that trains must do with it.
#[cfg(test)]
pub(crate) mod testing {
    use burn::module::Param;
    use burn::nn::activation::Relu;
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::SgdConfig;
    use burn::tensor::TensorData;
    use burn::train::Learner;
    use burn_compress_core::{Budget, Compressed, Evaluator, Wrapper};

    use super::*;

    /// Two layers with a rectifier between them.
    #[derive(Module, Debug)]
    pub struct Net {
        pub first: Wrapper<Linear>,
        pub act: Wrapper<Relu>,
        pub second: Wrapper<Linear>,
    }

    impl Net {
        pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
            let hidden = self.act.forward(self.first.forward(x));
            self.second.forward(hidden)
        }
    }

    pub type Chain = Compressor<Net, Tensor<2>>;

    /// Weights `[2, 2]` and `[2, 1]`, no biases.
    pub fn net(first: [[f32; 2]; 2], second: [[f32; 1]; 2]) -> Net {
        let device = Device::flex();
        let linear = |out: usize, data: TensorData| {
            let mut linear = LinearConfig::new(2, out).with_bias(false).init(&device);
            linear.weight = Param::from_data(data, &device);
            Wrapper::new(linear)
        };
        Net {
            first: linear(2, TensorData::from(first)),
            act: Relu::new().into(),
            second: linear(1, TensorData::from(second)),
        }
    }

    const BATCHES: [[[f32; 2]; 2]; 2] = [[[0.9, -0.4], [0.2, 0.7]], [[-0.3, 1.1], [0.5, 0.6]]];

    /// Any weights and batches.
    pub fn any() -> Chain {
        of(net([[0.31, -0.82], [0.57, 0.24]], [[0.73], [-0.46]]))
    }

    /// Some batches, which lie on the plain device.
    pub fn of(net: Net) -> Chain {
        chain(net, BATCHES.to_vec(), 0.05)
    }

    /// Gradient descent on the mean output of batches of two rows.
    pub fn chain(net: Net, batches: Vec<[[f32; 2]; 2]>, learning_rate: f64) -> Chain {
        let device = Device::flex();
        let batch = move |rows: &[[f32; 2]; 2]| Tensor::<2>::from_floats(*rows, &device);
        let evaluator = Evaluator::new()
            .with_data(move |_| batches.iter().map(&batch).collect::<Vec<_>>())
            .with_optimizer(SgdConfig::new().init())
            .with_learning_rate(learning_rate)
            .with_loss(|model: &Net, batch: &Tensor<2>| model.forward(batch.clone()).mean());
        Compressor::from_model(net, evaluator)
    }

    pub fn rules(json: &str) -> ConfigList<QuantizationSettings> {
        ConfigList::from_json(json).unwrap()
    }

    pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    pub fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 2e-6, "{found:?} in place of {expected:?}");
        }
    }

    /// Everything that a run leaves: raw and simulated parameters, calibration, an output.
    fn left(compressed: &Compressed<Net>) -> (Vec<Vec<f32>>, String) {
        let model = compressed.model();
        let x = Tensor::<2>::from_floats([[0.4, -1.2], [0.1, 0.8]], &Device::flex());
        let values = vec![
            floats(model.first.weight.base()),
            floats(model.first.weight.val()),
            floats(model.second.weight.base()),
            floats(model.second.weight.val()),
            floats(model.forward(x)),
        ];
        (values, format!("{:?}", compressed.calibration().unwrap()))
    }

    /// A run that stops after any step and goes on from its checkpoint ends as one that does not.
    pub fn resumes(name: &str, build: impl Fn() -> Chain) {
        let file = format!("learned-{name}-{}.ckpt", std::process::id());
        let path = std::env::temp_dir().join(file);
        let whole = left(&build().compress(Budget::steps(5)).unwrap());
        for stop in 0..=5 {
            let mut first = build();
            first.advance(&Budget::steps(5), Some(stop)).unwrap();
            first.save_checkpoint(&path).unwrap();
            let resumed = build().resume(&path).unwrap();
            let resumed = resumed.compress(Budget::steps(5)).unwrap();
            assert_eq!(left(&resumed), whole, "stopped after {stop}");
        }
        std::fs::remove_file(path).unwrap();
    }

    /// A `Learner` trains as the chain does.
    pub fn learner_agrees(build: impl Fn() -> Chain) {
        let alone = left(&build().compress(Budget::steps(4)).unwrap());
        let trainee = build().into_trainee(4).unwrap();
        let mut learner = Learner::new(trainee, SgdConfig::new().init(), 0.05);
        for step in 0..4 {
            let rows = BATCHES[step % BATCHES.len()];
            let output = learner.train_step(Tensor::from_floats(rows, &Device::flex()));
            learner.lr_step();
            learner.optimizer_step(output.grads);
        }
        let learned = learner.model().valid().finish().unwrap();
        assert_eq!(left(&learned), alone);
    }

    /// The model computes after the run what it computed at its end.
    pub fn nothing_changes_at_the_end(build: impl Fn() -> Chain) {
        let mut chain = build();
        chain.advance(&Budget::steps(3), None).unwrap();
        let x = Tensor::<2>::from_floats([[0.4, -1.2], [0.1, 0.8]], &Device::flex());
        let before = floats(chain.model().valid().forward(x.clone()));
        let after = chain.finish().unwrap();
        assert_eq!(floats(after.model().forward(x)), before);
    }

    /// The error of this crate inside of one of the core.
    pub fn cause(error: Error) -> QuantizationError {
        match error {
            Error::Algorithm { source, .. } => *source.downcast().unwrap(),
            other => panic!("{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn_compress_core::{RoundGradient, fake_quantize};

    use super::testing::{close, floats};
    use super::*;

    struct Found {
        value: Vec<f32>,
        x: Vec<f32>,
        scale: Vec<f32>,
        zero_point: Vec<f32>,
    }

    fn run(x: &[f32], shape: &[usize], grid: &Grid, scale: &[f32], zero_point: &[f32]) -> Found {
        let device = Device::flex().autodiff();
        let leaf = |values: &[f32]| Tensor::<1>::from_floats(values, &device).require_grad();
        let (x, scale, zero_point) = (leaf(x), leaf(scale), leaf(zero_point));
        let value = FlatTensor {
            values: x.clone(),
            shape: shape.to_vec(),
        };
        let (s, z) = (scale.clone(), zero_point.clone());
        let dtype = "int3".parse().unwrap();
        let y = checked_quantize(value, grid, s, z, dtype).unwrap().values;
        let weights: Vec<f32> = (1..=y.dims()[0]).map(|i| i as f32).collect();
        let weights = Tensor::<1>::from_floats(weights.as_slice(), &device);
        let gradients = (y.clone() * weights).sum().backward();
        let gradient = |leaf: &Tensor<1>| floats(leaf.grad(&gradients).unwrap());
        Found {
            value: floats(y),
            x: gradient(&x),
            scale: gradient(&scale),
            zero_point: gradient(&zero_point),
        }
    }

    #[test]
    fn worked_by_hand() {
        // x / s = -18, -2, 0.6, 1.6, 18 in -3..=3.
        let x = [-9.0, -1.0, 0.3, 0.8, 9.0];
        let found = run(&x, &[5], &Grid::per_tensor(1), &[0.5], &[0.0]);
        assert_eq!(found.value, [-1.5, -1.0, 0.5, 1.0, 1.5]);
        assert_eq!(found.x, [0.0, 2.0, 3.0, 4.0, 0.0]);
        // (1 (-3) + 2 (0) + 3 (0.4) + 4 (0.4) + 5 (3)) / sqrt(3 * 5)
        close(&found.scale, &[14.8 / 15f32.sqrt()]);
        // -0.5 (1 + 5)
        assert_eq!(found.zero_point, [-3.0]);
    }

    #[test]
    fn each_block_has_its_sums() {
        // Columns are blocks: x / s + z is 1.2, 9 and 0.5 + 1 = 1.5, -1.2 + 1.
        let x = [0.6, 1.0, 4.5, -2.4];
        let grid = Grid::new([1, 2]);
        let found = run(&x, &[2, 2], &grid, &[0.5, 2.0], &[0.0, 1.0]);
        // The half is rounded to the even 2: (2 - 1) 2; the last is round(-0.2) = 0: (0 - 1) 2.
        assert_eq!(found.value, [0.5, 2.0, 1.5, -2.0]);
        assert_eq!(found.x, [1.0, 2.0, 0.0, 4.0]);
        let g = 1.0 / 12f32.sqrt();
        close(
            &found.scale,
            &[(-0.2 + 3.0 * 3.0) * g, (2.0 * 0.5 + 4.0 * 0.2) * g],
        );
        close(&found.zero_point, &[-1.5, 0.0]);
    }

    #[test]
    fn a_step_beyond_zero_comes_out_on_the_other_side() {
        let x = [-9.0, -1.0, 0.3, 0.8, 9.0];
        let right = run(&x, &[5], &Grid::per_tensor(1), &[0.5], &[0.0]);
        let left = run(&x, &[5], &Grid::per_tensor(1), &[-0.5], &[0.0]);
        assert_eq!((left.value, left.x), (right.value, right.x));
        assert_eq!(left.scale[0], -right.scale[0]);
        let zero = run(&x, &[5], &Grid::per_tensor(1), &[0.0], &[0.0]);
        assert_eq!(zero.value[4], 3.0 * f32::EPSILON);
        assert!(zero.scale[0] > 0.0);
    }

    /// The function whose gradients these are: rounding adds a constant.
    fn smooth(x: f64, s: f64, z: f64, rounding: f64) -> f64 {
        ((x / s + z).clamp(-3.0, 3.0) + rounding - z) * s
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let points: Vec<f32> = (0..60).map(|i| (i as f32 - 29.3) * 0.0917).collect();
        let (scale, zero_point) = (0.43, 0.37);
        let weights: Vec<f64> = (1..=points.len()).map(|i| i as f64).collect();
        let (s, z) = (f64::from(scale), f64::from(zero_point));
        let shape = [points.len()];
        let found = run(
            &points,
            &shape,
            &Grid::per_tensor(1),
            &[scale],
            &[zero_point],
        );
        let rounding: Vec<f64> = points
            .iter()
            .map(|&x| {
                let p = (f64::from(x) / s + z).clamp(-3.0, 3.0);
                p.round_ties_even() - p
            })
            .collect();
        let sum = |dx: f64, ds: f64, dz: f64| -> Vec<f64> {
            let each = points.iter().zip(&rounding).zip(&weights);
            each.map(|((&x, c), w)| w * smooth(f64::from(x) + dx, s + ds, z + dz, *c))
                .collect()
        };
        let e = 1e-6;
        let difference = |plus: Vec<f64>, minus: Vec<f64>| -> Vec<f64> {
            plus.iter()
                .zip(&minus)
                .map(|(p, m)| (p - m) / (2.0 * e))
                .collect()
        };
        let near = |found: f64, expected: f64| {
            assert!(
                (found - expected).abs() < 1e-3 * expected.abs().max(1.0),
                "{found} {expected}"
            );
        };
        for (found, expected) in found
            .x
            .iter()
            .zip(difference(sum(e, 0.0, 0.0), sum(-e, 0.0, 0.0)))
        {
            near(f64::from(*found), expected);
        }
        let factor = 1.0 / (3.0 * points.len() as f64).sqrt();
        let ds: f64 = difference(sum(0.0, e, 0.0), sum(0.0, -e, 0.0)).iter().sum();
        near(f64::from(found.scale[0]), ds * factor);
        let dz: f64 = difference(sum(0.0, 0.0, e), sum(0.0, 0.0, -e)).iter().sum();
        near(f64::from(found.zero_point[0]), dz);
    }

    #[test]
    fn the_value_is_that_of_the_standard_simulation_bit_for_bit() {
        let device = Device::flex();
        let points: Vec<f32> = (0..2001).map(|i| (i as f32 - 1000.0) * 0.001_237).collect();
        let (scale, zero_point) = (0.137_f32, -0.61_f32);
        let shape = [points.len()];
        let found = run(
            &points,
            &shape,
            &Grid::per_tensor(1),
            &[scale],
            &[zero_point],
        );
        let one = |value: f32| Tensor::<1>::from_floats([value], &device);
        let x = Tensor::<1>::from_floats(points.as_slice(), &device);
        let rule = RoundGradient::Clipped;
        let standard = fake_quantize(x, one(scale), one(zero_point), -3.0, 3.0, rule);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(found.value), bits(floats(standard)));
    }

    #[test]
    fn shapes_must_fit() {
        let device = Device::flex();
        let value = || FlatTensor::new(Tensor::<2>::ones([2, 3], &device));
        let ones = |n: usize| Tensor::<1>::ones([n], &device);
        let dtype = QuantDtype::INT8;
        for (grid, n) in [
            (Grid::new([1, 2]), 2),
            (Grid::new([3]), 3),
            (Grid::new([1, 3]), 2),
        ] {
            let error = checked_quantize(value(), &grid, ones(n), ones(n), dtype).unwrap_err();
            assert!(matches!(error, QuantizationError::Grid { .. }), "{error}");
        }
    }
}
