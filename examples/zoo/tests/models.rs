//! Every network at full size, counted, and a tiny version of it, run.

use burn::tensor::{DType, Device, TensorData};
use burn_compress::graph::ForwardOutputs;
use burn_compress::layer::layers;
use burn_compress_zoo::{Model, Scale, Task, Zoo, parameters, randomize_statistics};

struct Count;

impl Task for Count {
    type Output = usize;

    fn run<M: Model>(self, model: M) -> usize {
        parameters(&model)
    }
}

/// Runs a forward pass with random statistics and gives the outputs.
struct Run {
    size: usize,
    batch: usize,
}

impl Task for Run {
    type Output = Vec<TensorData>;

    fn run<M: Model>(self, model: M) -> Vec<TensorData> {
        let device = Device::flex();
        let model = randomize_statistics(model.valid(), 3);
        let input = model.random_input(self.batch, self.size, &device);
        model.run(input).data()
    }
}

#[test]
fn parameters_are_those_of_the_references() {
    for zoo in Zoo::ALL {
        let count = zoo.with(Scale::Full, &Device::flex(), Count);
        assert_eq!(count, zoo.parameters(), "{}", zoo.name());
    }
}

/// Whether every layer that makes the output is there.
struct HasOutputs(&'static [&'static str]);

impl Task for HasOutputs {
    type Output = bool;

    fn run<M: Model>(self, model: M) -> bool {
        let layers = layers(&model);
        let is_there = |path: &&str| layers.iter().any(|layer| layer.path == *path);
        self.0.iter().all(is_there)
    }
}

#[test]
fn layers_of_the_output_are_there() {
    for zoo in Zoo::ALL {
        let found = zoo.with(Scale::Tiny, &Device::flex(), HasOutputs(zoo.outputs()));
        assert!(found, "{}", zoo.name());
    }
}

#[test]
fn names_are_unique() {
    for zoo in Zoo::ALL {
        assert_eq!(Zoo::named(zoo.name()), Some(*zoo));
    }
    assert_eq!(Zoo::named("alexnet"), None);
}

#[test]
fn tiny_networks_run() {
    let device = Device::flex();
    for zoo in Zoo::ALL {
        let run = |batch| {
            device.seed(7);
            let size = zoo.input_size(Scale::Tiny);
            zoo.with(Scale::Tiny, &device, Run { size, batch })
        };
        let outputs = run(2);
        let shapes: Vec<Vec<usize>> = outputs.iter().map(|data| data.shape().to_vec()).collect();
        assert_eq!(shapes, expected(*zoo), "{}", zoo.name());
        for data in &outputs {
            assert_eq!(data.dtype(), DType::F32);
            let values = data.try_to_vec::<f32>().unwrap();
            assert!(
                values.iter().all(|value| value.is_finite()),
                "{}",
                zoo.name()
            );
            assert!(
                values.iter().any(|&value| value != values[0]),
                "{}",
                zoo.name()
            );
        }
        // The same seed gives the same network.
        for (data, again) in outputs.iter().zip(run(2)) {
            data.assert_eq(&again, true);
        }
    }
}

/// Shapes of the outputs of a tiny network for a batch of two.
fn expected(zoo: Zoo) -> Vec<Vec<usize>> {
    match zoo {
        Zoo::YoloX => vec![vec![2, 10, 8, 8], vec![2, 10, 4, 4], vec![2, 10, 2, 2]],
        Zoo::UNet => vec![vec![2, 1, 16, 16]],
        Zoo::Llama => vec![vec![2, 6, 32]],
        _ => vec![vec![2, 10]],
    }
}
