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

/// Runs a forward pass with random statistics and gives the outputs for a batch of two.
struct Run(Zoo);

impl Task for Run {
    type Output = Vec<TensorData>;

    fn run<M: Model>(self, model: M) -> Vec<TensorData> {
        let device = Device::flex();
        let model = randomize_statistics(model.valid(), 3);
        let found = layers(&model);
        for path in self.0.outputs() {
            assert!(found.iter().any(|layer| layer.path == *path), "{path}");
        }
        let input = model.random_input(2, self.0.input_size(Scale::Tiny), &device);
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
        let run = || {
            device.seed(7);
            zoo.with(Scale::Tiny, &device, Run(*zoo))
        };
        let outputs = run();
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
            let (first, second) = values.split_at(values.len() / 2);
            assert!(differ(first, second), "{}", zoo.name());
        }
        // The same seed gives the same network.
        for (data, again) in outputs.iter().zip(run()) {
            data.assert_eq(&again, true);
        }
    }
}

/// Whether the outputs for two inputs differ by more than rounding.
fn differ(first: &[f32], second: &[f32]) -> bool {
    let largest = first.iter().fold(0_f32, |largest, x| largest.max(x.abs()));
    let mut differences = first.iter().zip(second).map(|(a, b)| (a - b).abs());
    differences.any(|difference| difference > 1e-3 * largest)
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
