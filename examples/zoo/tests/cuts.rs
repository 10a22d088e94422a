//! Half of the channels of convolutional networks removed: the cut network computes what the masked
//! one does, on inputs that the cut has not seen.

use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;
use burn_compress::pruning::PrunerConfig;
use burn_compress_zoo::{Model, Scale, Task, Zoo, parameters, randomize_statistics};

struct Halve {
    size: usize,
}

struct Halved {
    dense: usize,
    small: usize,
    error: f32,
}

impl Task for Halve {
    type Output = Halved;

    fn run<M: Model>(self, model: M) -> Halved {
        let device = Device::flex();
        let model = randomize_statistics(model.valid(), 1);
        let dense = parameters(&model);
        let dummy = model.dummy_input(1, self.size, &device);
        let evaluator = Evaluator::<_, ()>::new().with_dummy_input(dummy);
        let half = on(["Conv2d"]).sparse_ratio(0.5);
        let chain = L1NormPruner::new(model, half, evaluator, PrunerConfig::new()).unwrap();
        let compressed = chain.compress(Budget::none()).unwrap();
        let masked = compressed.masked_model();
        let small = compressed.speedup().unwrap().model;
        let input = small.random_input(2, self.size, &device);
        let [expected, found] = [masked.run(input.clone()), small.run(input)].map(outputs);
        let largest = expected.clone().abs().max().into_scalar::<f32>();
        Halved {
            dense,
            small: parameters(&small),
            error: (expected - found).abs().max().into_scalar::<f32>() / largest,
        }
    }
}

/// All values of the outputs in a row.
fn outputs<O: burn_compress::graph::ForwardOutputs>(outputs: O) -> Tensor<1> {
    let all = outputs.data().into_iter();
    let values: Vec<f32> = all
        .flat_map(|data| data.try_to_vec::<f32>().unwrap())
        .collect();
    Tensor::from_floats(&values[..], &Device::flex())
}

#[test]
fn half_of_the_channels() {
    let device = Device::flex();
    for zoo in [Zoo::ResNet18, Zoo::MobileNetV2, Zoo::DenseNet121] {
        device.seed(2);
        let size = zoo.input_size(Scale::Tiny);
        let halved = zoo.with(Scale::Tiny, &device, Halve { size });
        assert!(halved.error <= 1e-6, "{}: {}", zoo.name(), halved.error);
        // A convolution with half of its inputs and outputs has a quarter of its weights.
        let rest = halved.small as f64 / halved.dense as f64;
        assert!((0.2..0.5).contains(&rest), "{}: {rest}", zoo.name());
    }
}
