//! Learned scale and zero point of one target, from its first values to the end of the run.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use burn_compress_core::fake_quantize::positive_scale;
use burn_compress_core::{
    BoxError, Error, FlatTensor, Grid, Learnable, Observer, QuantDtype, QuantScheme, Quantization,
    Stage, TargetId, TargetSpace, TrainedBy, Transform,
};
use parking_lot::Mutex;

use super::quantize::{fit, quantize};
use super::rule::{LearnedRule, LearnedStart, check_start};
use crate::qparams::{self, host};
use crate::targets::QuantTarget;
use crate::{Granularity, QuantizationError, blocks, granularity, precision};

/// Learned scale and zero point of one target.
#[derive(Debug)]
pub(super) struct LearnedTarget {
    id: TargetId,
    kind: String,
    granularity: Granularity,
    dtype: QuantDtype,
    scheme: QuantScheme,
    rule: Arc<dyn LearnedRule>,
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
        positive_scale(self.scale.tensor().detach().without_autodiff())
    }

    fn zero_point(&self) -> Tensor<1> {
        match &self.zero_point {
            ZeroPoint::Fixed(values) => values.as_ref().clone(),
            ZeroPoint::Learned(values) => values.tensor().detach().without_autodiff(),
        }
    }
}

impl LearnedTarget {
    /// A target without values.
    pub(super) fn new(
        target: &QuantTarget,
        rule: Arc<dyn LearnedRule>,
        device: &Device,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: target.id().clone(),
            kind: target.layer().kind.clone(),
            granularity: target.settings().granularity(),
            dtype: target.dtype(),
            scheme: target.scheme(),
            rule,
            device: device.clone(),
            tensors: Mutex::new(None),
        })
    }

    /// Quantizes the target from its first values on.
    pub(super) fn attach(self: &Arc<Self>, space: &TargetSpace) {
        space.set_observer(Some(self.clone()));
        space.set_transform(Stage::Quantize, Some(Arc::new(Training(self.clone()))));
    }

    /// Whether the first values were seen.
    pub(super) fn has_begun(&self) -> bool {
        self.tensors.lock().is_some()
    }

    /// The trained tensors.
    pub(super) fn learnables(&self) -> Vec<Arc<Learnable>> {
        match self.tensors.lock().clone() {
            None => Vec::new(),
            Some(tensors) => match tensors.zero_point {
                ZeroPoint::Fixed(_) => vec![tensors.scale],
                ZeroPoint::Learned(zero_point) => vec![tensors.scale, zero_point],
            },
        }
    }

    /// Starts with the scale and the zero point of a saved state, or with none.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    pub(super) fn restore(&self, state: Option<Quantization>) -> Result<(), BoxError> {
        *self.tensors.lock() = None;
        if let Some(Quantization {
            grid,
            scale: Some(scale),
            zero_point: Some(zero_point),
            ..
        }) = state
        {
            let start = LearnedStart {
                scale: host(scale)?,
                zero_point: host(zero_point)?,
            };
            self.set(grid, start)?;
        }
        Ok(())
    }

    fn set(&self, grid: Grid, start: LearnedStart) -> Result<(), Error> {
        let blocks = grid.blocks().to_vec();
        let trained_by = match self.rule.learning_rate() {
            Some(learning_rate) => TrainedBy::Adam { learning_rate },
            None => TrainedBy::Evaluator,
        };
        let learnable = |part: &str, values: Vec<f32>| {
            let name = format!("{}.{part}", self.id);
            Learnable::new(name, values, blocks.clone(), trained_by, &self.device)
        };
        let scale = learnable("scale", start.scale)?;
        let zero_point = match self.scheme {
            QuantScheme::Affine => ZeroPoint::Learned(learnable("zero_point", start.zero_point)?),
            QuantScheme::Symmetric => ZeroPoint::Fixed(Box::new(
                scale.tensor().detach().without_autodiff().zeros_like(),
            )),
        };
        *self.tensors.lock() = Some(Tensors {
            grid,
            scale,
            zero_point,
        });
        Ok(())
    }

    fn start(&self, values: &FlatTensor, grid: &Grid) -> Result<LearnedStart, QuantizationError> {
        let values = &values.clone().constant().map(precision::single);
        let (minimum, maximum) = blocks::range(values, grid)?;
        qparams::check_finite(minimum, maximum.clone())?;
        let without_negatives = !self.dtype.is_signed() && self.scheme == QuantScheme::Symmetric;
        if without_negatives && host(maximum)?.iter().all(|&maximum| maximum <= 0.0) {
            let any = host(values.values.clone().abs().max())?;
            if any[0] > 0.0 {
                return Err(QuantizationError::OnlyNegative {
                    dtype: self.dtype.to_string(),
                });
            }
        }
        let start = self.rule.start(values, grid, self.dtype, self.scheme)?;
        check_start(&start, grid.len(), self.rule.name())?;
        Ok(start)
    }

    /// Starts with the first values and compares the blocks of all later ones.
    fn follow(&self, values: &FlatTensor) -> Result<(), BoxError> {
        let (kind, target) = (&self.kind, &self.id.target);
        let grid = granularity::grid(&self.granularity, kind, target, &values.shape)?;
        let known = self
            .tensors
            .lock()
            .as_ref()
            .map(|tensors| tensors.grid.clone());
        match known {
            Some(known) => {
                blocks::check_same(&known, &grid)?;
                self.watch(values, &grid)
            }
            None => {
                let start = self.start(values, &grid)?;
                Ok(self.set(grid, start)?)
            }
        }
    }

    /// Rejects activations that are not finite, which the ends of the grid would hide.
    fn watch(&self, values: &FlatTensor, grid: &Grid) -> Result<(), BoxError> {
        if self.id.target.is_param() {
            return Ok(());
        }
        let (minimum, maximum) = blocks::range(values, grid)?;
        Ok(qparams::watch_finite(minimum, maximum)?)
    }

    /// Writes scale and zero point to the state of the target.
    pub(super) fn report(&self, quantization: &mut Quantization) {
        if let Some(tensors) = self.tensors.lock().as_ref() {
            quantization.grid = tensors.grid.clone();
            quantization.scale = Some(tensors.scale());
            quantization.zero_point = Some(tensors.zero_point());
            quantization.enabled = true;
        }
    }
}

impl Observer for LearnedTarget {
    fn observe(&self, values: &FlatTensor, quantization: &mut Quantization) -> Result<(), String> {
        self.follow(values).map_err(|error| error.to_string())?;
        self.report(quantization);
        Ok(())
    }
}

/// Simulation with the tensors that are trained.
#[derive(Debug)]
struct Training(Arc<LearnedTarget>);

impl Transform for Training {
    fn apply(&self, value: FlatTensor, _mask: Option<Tensor<1>>) -> FlatTensor {
        let Some(tensors) = self.0.tensors.lock().clone() else {
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
        let tensors = self.0.tensors.lock();
        Arc::new(Frozen {
            values: tensors.as_ref().map(|tensors| {
                let (scale, zero_point) = (tensors.scale(), tensors.zero_point());
                (tensors.clone(), scale, zero_point)
            }),
            dtype: self.0.dtype,
        })
    }
}

/// Simulation with a copy of the trained tensors.
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
