//! What a step shows of the compression: its loss, the sparsity, the bits of the parameters.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use indexmap::IndexMap;

use crate::erased::AnyModel;
use crate::layer::LayerInfo;
use crate::run::events::sparsity;
use crate::simulate::attach::Spaces;
use crate::target::{Target, TargetId};

/// State of the compression in a step of a trainee.
#[derive(Clone, Debug)]
pub struct StepState {
    /// In training the loss that is minimised, every compressor's part included; in validation the
    /// user's own. One element.
    pub loss: Tensor<1>,
    /// Fraction of the masked parameters' elements that is removed, as in
    /// [`StepRecord`](crate::StepRecord).
    pub sparsity: f64,
    /// Mean number of bits of the model's float parameters, each element counted once: those of the
    /// integer type where a quantizer acts, those of the float type elsewhere. Masks change nothing of it.
    pub bits: f64,
}

/// Sparsity and bits, see [`StepState`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Compression {
    pub sparsity: f64,
    pub bits: f64,
}

impl Compression {
    pub fn with_loss(self, loss: Tensor<1>) -> StepState {
        StepState {
            loss,
            sparsity: self.sparsity,
            bits: self.bits,
        }
    }
}

/// Elements and bits of the float parameters, without any quantization.
#[derive(Debug)]
pub(super) struct Sizes(IndexMap<TargetId, (usize, usize)>);

impl Sizes {
    pub fn of(model: &AnyModel, layers: &[LayerInfo]) -> Self {
        let mut bits = Bits::default();
        model.visit(&mut bits);
        let mut sizes = IndexMap::new();
        for layer in layers {
            for param in &layer.params {
                let id = TargetId::new(&layer.path, Target::param(&param.name));
                let elements = param.shape.iter().product();
                let bits = bits.0.get(&param.id).copied().unwrap_or(32);
                sizes.insert(id, (elements, bits));
            }
        }
        Self(sizes)
    }

    pub fn compression(&self, spaces: &Spaces) -> Compression {
        let (mut elements, mut bits) = (0, 0);
        for (id, &(own, float)) in &self.0 {
            let quantization = spaces.get(id).and_then(|space| space.quantization());
            let acting = quantization.filter(|one| one.enabled && one.scale.is_some());
            let integer = acting.and_then(|one| one.dtype.bits());
            elements += own;
            bits += own * integer.map_or(float, |integer| integer as usize);
        }
        Compression {
            sparsity: sparsity(spaces),
            bits: match elements {
                0 => 0.0,
                elements => bits as f64 / elements as f64,
            },
        }
    }
}

/// Bits of an element by parameter.
#[derive(Default)]
struct Bits(IndexMap<ParamId, usize>);

impl ModuleVisitor for Bits {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.insert(param.id, 8 * param.base().dtype().size());
    }
}
