//! What cannot be exported, by its message.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::TensorData;
use burn_compress::graph::{CustomOp, ForwardOutputs};
use burn_compress::{Compressed, DummyInput, Error, History, Mask, Masks, Wrapper};
use burn_compress_export::{ExportError, OnnxConfig, export_onnx};

use crate::fixtures::{device, no_model};

fn refused<O: ForwardOutputs + 'static>(
    forward: impl Fn(&Linear, Tensor<2>) -> O + Send + Sync + 'static,
    config: &OnnxConfig,
) -> ExportError {
    let dummy = DummyInput::new(Tensor::<2>::ones([2, 8], &device()), forward);
    export_onnx(&no_model(), &dummy, config).expect_err("nothing was refused")
}

fn message<O: ForwardOutputs + 'static>(
    forward: impl Fn(&Linear, Tensor<2>) -> O + Send + Sync + 'static,
    config: &OnnxConfig,
) -> String {
    refused(forward, config).to_string()
}

#[derive(Module, Debug)]
struct Two {
    first: Linear,
    second: Linear,
}

#[test]
fn all_operations_without_an_operator_each_with_its_layer() {
    let device = device();
    let model = Two {
        first: LinearConfig::new(8, 8).init(&device),
        second: LinearConfig::new(8, 8).init(&device),
    };
    let forward = |model: &Two, x: Tensor<2>| {
        let x = x.cumprod(1);
        let x = model.first.forward(x).cummax(1);
        let noise = x.random_like(Distribution::Default);
        let x = model.second.forward(x + noise);
        CustomOp::new("swirl")
            .input(&x)
            .output(x.dims())
            .unwrap_or(x)
    };
    let dummy = DummyInput::new(Tensor::<2>::ones([2, 8], &device), forward);
    let error = export_onnx(&model, &dummy, &OnnxConfig::new()).unwrap_err();
    let ExportError::Unsupported { unsupported } = &error else {
        panic!("{error}")
    };
    let found: Vec<(&str, &str)> = unsupported
        .iter()
        .map(|found| (found.operation.as_str(), found.layer.as_str()))
        .collect();
    let expected = [
        ("cum_prod", ""),
        ("cum_max", "first"),
        ("random", ""),
        ("swirl", "second"),
    ];
    assert_eq!(found, expected);
    let message = error.to_string();
    assert!(
        message.starts_with("4 operations of the forward pass"),
        "{message}"
    );
    assert!(
        message.contains("`cum_prod` in front of all layers: ONNX has no operator"),
        "{message}"
    );
    assert!(
        message.contains("`swirl` at `second`: it is a custom operation"),
        "{message}"
    );
    let error: Error = error.into();
    assert!(matches!(
        error.downcast_ref(),
        Some(ExportError::Unsupported { .. })
    ));
}

#[test]
fn a_loop_over_a_dynamic_dimension() {
    let config = OnnxConfig::new().with_dynamic_axis(0, 1, "places");
    let message = message(
        |_, x| {
            let places = x.dims()[1];
            (1..places).fold(x.clone().narrow(1, 0, 1), |sum, at| {
                sum + x.clone().narrow(1, at, 1)
            })
        },
        &config,
    );
    assert!(
        message.contains("does not follow `places` to other sizes"),
        "{message}"
    );
    assert!(message.contains("operations and not 15"), "{message}");
}

#[test]
fn numbers_that_follow_a_dynamic_size() {
    let config = OnnxConfig::new();
    let found = message(|_, x| x.clone().sum_dim(1) / x.dims()[0] as f32, &config);
    assert!(found.contains("does not follow `batch`"), "{found}");
    assert!(
        found.contains("`div_scalar` computes with another number"),
        "{found}"
    );
    let made = |_: &Linear, x: Tensor<2>| {
        let [batch, width] = x.dims();
        let values: Vec<f32> = (0..batch * width).map(|at| (at + batch) as f32).collect();
        x.clone() + Tensor::from_data(TensorData::new(values, [batch, width]), &x.device())
    };
    let found = message(made, &config);
    assert!(
        found.contains("that do not begin alike for all sizes"),
        "{found}"
    );
    let fixed = |_: &Linear, x: Tensor<2>| {
        let batch = x.dims()[0] as f32;
        x.clone() + Tensor::<1>::from_floats([batch; 8], &x.device()).unsqueeze()
    };
    let found = message(fixed, &config);
    assert!(found.contains("makes from a dynamic size"), "{found}");
}

#[test]
fn values_of_the_inputs() {
    let config = OnnxConfig::new();
    let host = |_: &Linear, x: Tensor<2>| {
        let device = x.device();
        let largest = x.to_data().iter::<f32>().fold(0.0, f32::max);
        x + Tensor::<1>::from_floats([largest; 8], &device).unsqueeze()
    };
    let found = message(host, &config);
    assert!(
        found.contains("reads the values of its inputs: it makes a tensor"),
        "{found}"
    );
    let number = |_: &Linear, x: Tensor<2>| {
        let first = x.to_data().iter::<f32>().next().unwrap();
        x * first
    };
    let found = message(number, &config.clone().with_dynamic_batch(false));
    assert!(
        found.contains("`mul_scalar` computes with another number"),
        "{found}"
    );
    let branch = |_: &Linear, x: Tensor<2>| match x.to_data().iter::<f32>().all(|x| x == 1.0) {
        true => x.exp(),
        false => x,
    };
    let found = message(branch, &config);
    assert!(found.contains("reads the values of its inputs"), "{found}");
}

#[test]
fn a_size_that_no_formula_gives() {
    let config = OnnxConfig::new().with_dynamic_axis(0, 1, "places");
    let message = message(
        |_, x| {
            // 6 of 8 places, 1 of 4, 3 of 6.
            let places = x.dims()[1];
            x.narrow(1, 0, places * places / 10)
        },
        &config,
    );
    assert!(
        message.contains("follows from no dynamic dimension"),
        "{message}"
    );
}

#[test]
fn names_that_cannot_be_used() {
    let same = |_: &Linear, x: Tensor<2>| (x.clone() + 1.0, x);
    let config = OnnxConfig::new;
    let found = message(same, &config().with_input_names(["a", "b"]));
    assert!(found.contains("the model has 1 inputs"), "{found}");
    let found = message(same, &config().with_output_names(["a", "a"]));
    assert!(found.contains("a name is given twice"), "{found}");
    let found = message(same, &config().with_output_names(["input", "b"]));
    assert!(found.contains("an input has the same name"), "{found}");
    let found = message(same, &config().with_output_names(["", "b"]));
    assert!(found.contains("a name is empty"), "{found}");
}

#[test]
fn axes_that_the_inputs_do_not_have() {
    let same = |_: &Linear, x: Tensor<2>| x + 1.0;
    let found = message(same, &OnnxConfig::new().with_dynamic_axis(1, 0, "x"));
    assert!(
        found.contains("dimension 0 of input 1 cannot be dynamic as `x`: there are 1 inputs"),
        "{found}"
    );
}

#[test]
fn inputs_that_the_closure_makes() {
    let dummy = DummyInput::from_fn(|model: &Linear, device| {
        model.forward(Tensor::<2>::ones([1, 1], device))
    });
    let error = export_onnx(&no_model(), &dummy, &OnnxConfig::new()).unwrap_err();
    assert!(
        error.to_string().contains("make it with `DummyInput::new`"),
        "{error}"
    );
}

#[test]
fn another_type_of_floats() {
    use burn::tensor::FloatDType;
    let found = message(|_, x| x.cast(FloatDType::F64).exp(), &OnnxConfig::new());
    assert!(
        found.contains("`cast` in front of all layers: it computes with F64"),
        "{found}"
    );
}

/// A masked entry of a wrapped norm takes no part in its statistics.
#[test]
fn masks_of_norms() {
    let norm: Wrapper<LayerNorm> = LayerNormConfig::new(4).init(&device()).into();
    let dummy = DummyInput::new(
        Tensor::<2>::ones([2, 4], &device()),
        |norm: &Wrapper<LayerNorm>, x| norm.forward(x),
    );
    let mask = || Mask::new(vec![1.0, 0.0, 1.0, 1.0], [4]).unwrap();
    let masked = |names: &[&str]| {
        let masks = names.iter().map(|name| (name.parse().unwrap(), mask()));
        let masks: Masks = masks.collect();
        let parts = Compressed::from_parts(
            norm.clone(),
            &masks,
            &Default::default(),
            History::default(),
        );
        export_onnx(&parts.unwrap().into_model(), &dummy, &OnnxConfig::new())
    };
    // The norm is the model itself, so that its layer has no name.
    let message = masked(&["gamma", "beta"]).unwrap_err().to_string();
    assert!(
        message.contains("out of the statistics of the norm"),
        "{message}"
    );
    assert!(masked(&["gamma"]).is_ok());
}
