//! What all networks of the zoo have in common.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_compress_core::DummyInput;
use burn_compress_core::graph::{ForwardInputs, ForwardOutputs};

use crate::TorchNames;

/// A network of the zoo.
///
/// ```
/// use burn::tensor::Device;
/// use burn_compress_zoo::{Model, ResNetConfig, parameters};
///
/// let device = Device::flex();
/// let model = ResNetConfig::resnet18().with_width(8).with_classes(10).init(&device);
/// let images = model.random_input(2, 32, &device);
/// assert_eq!(model.run(images).dims(), [2, 10]);
/// assert!(parameters(&model) < 200_000);
/// ```
pub trait Model: Module + 'static {
    /// Images, or tokens.
    type Input: ForwardInputs + ForwardOutputs + Clone + 'static;
    /// Logits, or whatever the network is for.
    type Output: ForwardOutputs + 'static;

    /// Runs the network's `forward`.
    fn run(&self, input: Self::Input) -> Self::Output;

    /// A random input: images of `size` pixels a side, or `size` tokens.
    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Self::Input;

    /// The parameter names that are not PyTorch's.
    fn torch_names(&self) -> TorchNames {
        TorchNames::new()
    }

    /// A dummy input for captures and verification.
    fn dummy_input(&self, batch: usize, size: usize, device: &Device) -> DummyInput<Self> {
        DummyInput::new(self.random_input(batch, size, device), Self::run)
    }
}

/// Number of weights, biases, scales and shifts of a model; running statistics are none.
///
/// Nothing is initialised for it: a model of a gigabyte is counted without its memory.
pub fn parameters<M: Module>(model: &M) -> usize {
    let mut count = Count::default();
    model.visit(&mut count);
    count.elements
}

#[derive(Default)]
struct Count {
    elements: usize,
    path: Vec<String>,
}

impl ModuleVisitor for Count {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let statistic = self.path.last().is_some_and(|name| is_statistic(name));
        if !statistic {
            self.elements += param.lazy_shape().num_elements();
        }
    }
}

/// Whether a field of a norm is a running statistic.
pub(crate) fn is_statistic(name: &str) -> bool {
    matches!(name, "running_mean" | "running_var")
}

/// Random images, `[batch, 3, size, size]`, of a standard normal distribution.
pub(crate) fn images(batch: usize, size: usize, device: &Device) -> Tensor<4> {
    Tensor::random(
        [batch, 3, size, size],
        Distribution::Normal(0.0, 1.0),
        device,
    )
}

/// Random tokens below `vocabulary`, `[batch, size]`.
pub(crate) fn tokens(
    batch: usize,
    size: usize,
    vocabulary: usize,
    device: &Device,
) -> Tensor<2, Int> {
    let range = Distribution::Uniform(0.0, vocabulary as f64);
    // Rounding up to the bound itself would be a token that does not exist.
    let last = vocabulary as f32 - 1.0;
    Tensor::<2>::random([batch, size], range, device)
        .floor()
        .clamp_max(last)
        .int()
}
