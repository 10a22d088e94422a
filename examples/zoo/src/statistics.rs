//! Random running statistics, scales and shifts of norms.
//!
//! A fresh norm has a mean and a shift of 0 and a variance and a scale of 1, so that much of what a
//! trained one does can go wrong unseen: a cut that moves a channel's mean to another channel, or a
//! masked channel whose shift stays.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Distribution, Tensor};

/// The model with running statistics, scales and shifts of norms drawn from the generator of its
/// device, which is seeded with `seed`.
///
/// Means and shifts are uniform in [-0.5, 0.5], variances and scales, ConvNeXt's scales of layers
/// among them, in [0.5, 1.5]. Burn's clones
/// share running statistics, so those of clones of the model change as well.
///
/// ```
/// use burn::tensor::Device;
/// use burn_compress_zoo::{ResNetConfig, randomize_statistics};
///
/// let device = Device::flex();
/// let model = ResNetConfig::resnet18().with_width(8).init(&device);
/// let model = randomize_statistics(model, 1);
/// let variance = model.bn1.running_var.value().min().into_scalar::<f32>();
/// assert!(variance >= 0.5 && variance != 1.0);
/// ```
pub fn randomize_statistics<M: Module>(model: M, seed: u64) -> M {
    if let Some(device) = model.devices().first() {
        device.seed(seed);
    }
    model.map(&mut Randomize { path: Vec::new() })
}

struct Randomize {
    path: Vec<String>,
}

impl ModuleMapper for Randomize {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.last().map_or("", String::as_str);
        let range = match name {
            "gamma" | "running_var" | "layer_scale" => Distribution::Uniform(0.5, 1.5),
            "beta" | "running_mean" => Distribution::Uniform(-0.5, 0.5),
            _ => return param,
        };
        param.map(|tensor| Tensor::random(tensor.shape(), range, &tensor.device()))
    }
}
