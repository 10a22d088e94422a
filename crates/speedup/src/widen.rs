//! A model in `f64`, for a comparison that single precision cannot decide.
//!
//! ```text
//! small parameter   cast and masked once
//! large parameter   cast and masked wherever it is read: no second model of twice the size
//! ```

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::{FloatDType, Tensor, TensorData};
use burn_compress_core::{DummyInput, Mask};
use indexmap::IndexMap;

use crate::comparison::Input;
use crate::cut::multiplied;

/// The number of elements from which on a parameter is cast at each read.
const LARGE: usize = 1 << 16;

/// A model whose parameters are multiplied by masks and computed with in `f64`.
pub(crate) struct Wide<M> {
    pub model: M,
    /// The masks, by parameter.
    pub masks: IndexMap<String, Mask>,
    /// Parameters with a simulation of their own, which are cast below it.
    pub simulated: BTreeSet<String>,
}

impl<M: Module> Wide<M> {
    /// Outputs of one forward pass, if the device and the dummy input can tell.
    pub fn run(&self, dummy_input: &DummyInput<M>, input: Input) -> Option<Vec<TensorData>> {
        // A layer that reads its parameter past what hangs on it needs it cast before.
        [LARGE, usize::MAX].into_iter().find_map(|large| {
            catch_unwind(AssertUnwindSafe(|| self.pass(dummy_input, input, large))).ok()?
        })
    }

    fn pass(
        &self,
        dummy_input: &DummyInput<M>,
        input: Input,
        large: usize,
    ) -> Option<Vec<TensorData>> {
        let device = self.model.devices().first()?.clone();
        // Clones share their running statistics, which are cast too.
        let model = self.model.valid().apply_reparameterization(Widen {
            masks: &self.masks,
            simulated: &self.simulated,
            large,
        });
        match input {
            Input::Given => dummy_input.run_f64(&model, &device),
            Input::Random(seed) => dummy_input.run_random_f64(&model, &device, seed),
        }
    }
}

struct Widen<'a> {
    masks: &'a IndexMap<String, Mask>,
    simulated: &'a BTreeSet<String>,
    large: usize,
}

impl Reparameterizer for Widen<'_> {
    type Reparam = Widened;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Widened>) {
        let mask = self.masks.get(path).cloned();
        let widened = Widened { mask };
        let elements = param.shape().num_elements();
        match elements < self.large || self.simulated.contains(path) {
            true => (param.map(|tensor| widened.apply(tensor)), None),
            false => (param, Some(widened)),
        }
    }
}

/// A parameter that is read in `f64`.
#[derive(Module, Debug)]
struct Widened {
    #[module(skip)]
    mask: Option<Mask>,
}

impl Reparameterization for Widened {
    const NAME: &'static str = "widened";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let wide = base.cast(FloatDType::F64);
        match &self.mask {
            Some(mask) => multiplied(wide, mask),
            None => wide,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    #[test]
    fn a_large_parameter_is_cast_where_it_is_read() {
        let device = Device::flex();
        let linear = LinearConfig::new(3, 2).with_bias(false).init(&device);
        let input = Tensor::<2>::from_floats([[0.1, -2.0, 0.7]], &device);
        let dummy = DummyInput::new(input, |linear: &Linear, x| linear.forward(x));
        let mask = Mask::new(vec![1.0, 0.0], [1, 2]).unwrap();
        let wide = Wide {
            masks: IndexMap::from([("weight".into(), mask.expand([3, 2]).unwrap())]),
            simulated: BTreeSet::new(),
            model: linear.clone(),
        };
        let weight = linear.weight.val().to_data().try_to_vec::<f32>().unwrap();
        let x = [0.1_f32, -2.0, 0.7].map(f64::from);
        let first: f64 = (0..3).map(|row| x[row] * f64::from(weight[2 * row])).sum();
        for large in [0, usize::MAX] {
            let outputs = wide.pass(&dummy, Input::Given, large).unwrap();
            let outputs = outputs[0].try_to_vec::<f64>().unwrap();
            assert!((outputs[0] - first).abs() < 1e-15, "{outputs:?}");
            assert_eq!(outputs[1], 0.0);
        }
        // Nobody computes in `f64` with a base that was not cast.
        let reads_past =
            DummyInput::new(Tensor::<2>::ones([1, 3], &device), |linear: &Linear, x| {
                x.matmul(linear.weight.base())
            });
        assert!(wide.run(&reads_past, Input::Given).is_some());
    }
}
