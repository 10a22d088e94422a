//! Values of a network that are neither zero nor one by accident.

use burn::module::{ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use crate::random::Random;

/// Draws every parameter and running statistic.
pub(crate) struct Fill {
    path: Vec<String>,
    random: Random,
}

impl Fill {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            path: Vec::new(),
            random: Random::new(seed),
        }
    }
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dims = param.dims();
        let inputs: usize = if D == 2 {
            dims[0]
        } else {
            dims[1..].iter().product()
        };
        let random = &mut self.random;
        let mut draw = || match self.path.last().map(String::as_str) {
            Some("weight") => random.signed(0.05, 1.0) * (3.0 / inputs as f32).sqrt(),
            Some("gamma") => random.signed(0.5, 1.5),
            Some("running_var") => random.between(0.5, 1.5),
            _ => random.signed(0.05, 0.5),
        };
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| draw()).collect();
        param.map(|tensor| Tensor::from_data(TensorData::new(values, dims), &tensor.device()))
    }
}
