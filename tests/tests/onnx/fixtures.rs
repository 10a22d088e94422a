//! Forward passes of a few operations, exported and compared.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::{Distribution, TensorData};
use burn_compress::DummyInput;
use burn_compress::graph::{ForwardInputs, ForwardOutputs};
use burn_compress_export::{OnnxConfig, OnnxFile, export_onnx};
use burn_compress_testkit::onnx::{OnnxRuntime, RunOptions, relative_error};

/// Largest difference as a part of the largest output.
pub const TOLERANCE: f64 = 1e-5;

/// Operations on one input, each with a name; their outputs flattened.
pub type Operations<const D: usize> = &'static [(&'static str, fn(Tensor<D>) -> Tensor<1>)];

pub fn device() -> Device {
    Device::flex()
}

/// A model for passes that have none.
pub fn no_model() -> Linear {
    LinearConfig::new(1, 1).init(&device())
}

/// Numbers of a shape, the same at every call, in -1..1.
pub fn weights<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|at| (at as f32 * 1.7 + 0.3).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let count = x.dims().iter().product::<usize>();
    x.reshape([count])
}

pub fn flat_int<const D: usize>(x: Tensor<D, Int>) -> Tensor<1> {
    flat(x.float())
}

pub fn flat_bool<const D: usize>(x: Tensor<D, Bool>) -> Tensor<1> {
    flat(x.float())
}

/// Exports `operations` as one file with a dynamic batch, and compares them for batches of 1, 2 and 3.
pub fn compare<const D: usize>(operations: Operations<D>, shape: [usize; D]) {
    let device = device();
    device.seed(5);
    let input = |batch: usize| {
        let mut shape = shape;
        shape[0] = batch;
        Tensor::<D>::random(shape, Distribution::Normal(0.0, 1.0), &device)
    };
    let names: Vec<&str> = operations.iter().map(|(name, _)| *name).collect();
    let forward = move |_: &Linear, x: Tensor<D>| -> Vec<Tensor<1>> {
        operations.iter().map(|(_, run)| run(x.clone())).collect()
    };
    let config = OnnxConfig::new().with_output_names(names.iter().copied());
    let inputs = [1, 2, 3].map(input);
    compare_model(&no_model(), forward, &inputs, &config, &names);
}

/// Exports a model with the first input as its dummy input and compares it for all of them.
pub fn compare_model<M, I, O>(
    model: &M,
    forward: impl Fn(&M, I) -> O + Clone + Send + Sync + 'static,
    inputs: &[I],
    config: &OnnxConfig,
    names: &[&str],
) -> OnnxFile
where
    M: Module + 'static,
    I: ForwardInputs + ForwardOutputs + Clone + 'static,
    O: ForwardOutputs + 'static,
{
    let dummy = DummyInput::new(inputs[0].clone(), forward.clone());
    let file = export_onnx(model, &dummy, config).unwrap_or_else(|error| panic!("{error}"));
    let Some(runtime) = OnnxRuntime::find() else {
        return file;
    };
    let given: Vec<Vec<TensorData>> = inputs.iter().map(ForwardOutputs::data).collect();
    let run = runtime.run(file.bytes(), &given, &RunOptions::default());
    let run = run.unwrap_or_else(|error| panic!("{error}"));
    let mut wrong = Vec::new();
    for (input, found) in inputs.iter().zip(&run.outputs) {
        let expected = forward(model, input.clone()).data();
        assert_eq!(expected.len(), found.len());
        for (at, (expected, found)) in expected.iter().zip(found).enumerate() {
            let error = relative_error(expected, found);
            if error > TOLERANCE {
                let name = names.get(at).copied().unwrap_or("output");
                let shapes = (expected.shape().to_vec(), found.shape().to_vec());
                wrong.push(format!("{name} {shapes:?}: {error:.1e}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    file
}
