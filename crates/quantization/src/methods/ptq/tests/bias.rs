//! Corrected biases.

use burn::nn::conv::{Conv3d, Conv3dConfig, ConvTranspose2d, ConvTranspose2dConfig};

use super::*;

/// Mean of each channel of the convolution's output over batch and positions, and of the last
/// layer's output over the batch.
fn means(model: &Net) -> (Vec<f32>, Vec<f32>) {
    let x = Tensor::cat((0..3).map(|i| batch(i, &Device::flex())).collect(), 0);
    let maps = model.conv.forward(x.clone());
    let conv = maps.mean_dim(0).mean_dim(2).mean_dim(3);
    (host(conv), host(model.forward(x).mean_dim(0)))
}

#[test]
fn corrected_biases_restore_the_means() {
    let config = rules(
        r#"[{"op_types": ["Conv2d", "Linear"], "quant_dtype": "int2", "target_names": ["weight"]}]"#,
    );
    let wanted = means(&net().valid());
    let distance = |found: &(Vec<f32>, Vec<f32>)| {
        let pairs = found
            .0
            .iter()
            .zip(&wanted.0)
            .chain(found.1.iter().zip(&wanted.1));
        pairs.map(|(f, w)| (f - w).abs()).fold(0.0, f32::max)
    };
    let run = |correct: bool| {
        let options = PtqConfig::new().with_bias_correction(correct);
        let chain = PtqQuantizer::new(net(), &config, evaluator(0.1), options).unwrap();
        chain.compress(Budget::none()).unwrap()
    };
    assert!(distance(&means(run(false).model())) > 0.01);
    let corrected = run(true);
    assert!(distance(&means(corrected.model())) < 1e-5);
    let plain = corrected.unwrap_model();
    assert_eq!(host(plain.conv.weight.val()), host(net().conv.weight.val()));
    assert_ne!(
        host(plain.conv.bias.as_ref().unwrap().val()),
        host(net().conv.bias.as_ref().unwrap().val())
    );
}

#[test]
fn every_call_of_a_layer_counts() {
    #[derive(Module, Debug)]
    struct Shared {
        fc: Wrapper<Linear>,
    }
    let device = Device::flex();
    let mut fc = LinearConfig::new(2, 1).init(&device);
    // The range gives scale 1, so 0.45 becomes 0.
    fc.weight = Param::from_tensor(Tensor::from_floats([[7.0], [0.45]], &device));
    fc.bias = Some(Param::from_tensor(Tensor::from_floats([0.0], &device)));
    let evaluator = Evaluator::new()
        .with_data(|_| vec![Tensor::<2>::from_floats([[0.0, 1.0]], &Device::flex())])
        .with_loss(|model: &Shared, x: &Tensor<2>| {
            let first = model.fc.forward(x.clone());
            (first + model.fc.forward(x.clone() * 3.0)).mean()
        });
    let config =
        rules(r#"[{"op_types": ["Linear"], "quant_dtype": "int4", "target_names": ["weight"]}]"#);
    let options = PtqConfig::new().with_bias_correction(true);
    let chain = PtqQuantizer::new(Shared { fc: fc.into() }, &config, evaluator, options).unwrap();
    let plain = chain.compress(Budget::none()).unwrap().unwrap_model();
    // 0.45 in the first call, 1.35 in the second.
    let bias = host(plain.fc.bias.as_ref().unwrap().val());
    assert!((bias[0] - 0.9).abs() < 1e-6, "{bias:?}");
}

#[test]
fn a_corrected_bias_that_is_quantized_has_the_range_of_its_new_values() {
    let config = rules(
        r#"[{"op_types": ["Linear"], "quant_dtype": "int2", "target_names": ["weight", "bias"]}]"#,
    );
    let options = PtqConfig::new().with_bias_correction(true);
    let chain = PtqQuantizer::new(net(), &config, evaluator(0.1), options).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let bias = &compressed.calibration().unwrap()[&id("fc.bias")];
    let plain = compressed.unwrap_model();
    let values = host(plain.fc.bias.as_ref().unwrap().val());
    let found = (
        bias.minimum.as_ref().unwrap()[0],
        bias.maximum.as_ref().unwrap()[0],
    );
    assert_eq!(found, extremes(&values));
}

#[test]
fn unwrapped_layers_cannot_be_corrected() {
    #[derive(Module, Debug)]
    struct Bare {
        fc: Linear,
    }
    let device = Device::flex();
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![Tensor::<2>::ones([1, 2], &Device::flex())])
        .with_loss(|model: &Bare, x: &Tensor<2>| model.fc.forward(x.clone()).mean());
    let model = Bare {
        fc: LinearConfig::new(2, 2).init(&device),
    };
    let config = rules(r#"[{"op_types": ["Linear"], "quant_dtype": "int8"}]"#);
    let options = PtqConfig::new().with_bias_correction(true);
    let error = cause(PtqQuantizer::new(model, &config, evaluator, options).unwrap_err());
    assert!(
        error
            .to_string()
            .contains("make its field a `Wrapper<Linear>`"),
        "{error}"
    );
}

/// A transposed convolution with groups and a convolution of volumes.
#[derive(Module, Debug)]
struct Volumes {
    up: Wrapper<ConvTranspose2d>,
    conv: Wrapper<Conv3d>,
}

#[test]
fn layers_of_other_layouts_are_corrected() {
    let device = Device::flex();
    device.seed(3);
    let up = ConvTranspose2dConfig::new([4, 6], [2, 2]).with_groups(2);
    let model = Volumes {
        up: up.init(&device).into(),
        conv: Conv3dConfig::new([1, 3], [2, 2, 2]).init(&device).into(),
    };
    let x = batch(3, &device).reshape([5, 2, 4, 4]).repeat_dim(1, 2);
    let run = |model: &Volumes, x: Tensor<4>| {
        let [n, ..] = x.dims();
        let up = model.up.forward(x);
        let volume = up.clone().reshape([n, 1, 6, 5, 5]);
        (up, model.conv.forward(volume))
    };
    let data = x.clone();
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![data.clone()])
        .with_loss(move |model: &Volumes, x: &Tensor<4>| run(model, x.clone()).1.mean());
    let config = rules(
        r#"[{"op_types": ["ConvTranspose2d", "Conv3d"], "target_names": ["weight"],
            "quant_dtype": "int3", "granularity": "out_channel"}]"#,
    );
    let options = PtqConfig::new().with_bias_correction(true);
    let plain = model.clone().valid();
    let chain = PtqQuantizer::new(model, &config, evaluator, options).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let means = |model: &Volumes| {
        let (up, out) = run(model, x.clone());
        let up = host(up.swap_dims(0, 1).reshape([6, -1]).mean_dim(1));
        [up, host(out.swap_dims(0, 1).reshape([3, -1]).mean_dim(1))]
    };
    for (found, wanted) in means(compressed.model()).iter().zip(&means(&plain)) {
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        }
    }
    let calibration = compressed.calibration().unwrap();
    let blocks = |at: usize| calibration[at].grid.blocks().to_vec();
    assert_eq!(
        (blocks(0), blocks(1)),
        (vec![1, 3, 1, 1], vec![3, 1, 1, 1, 1])
    );
}
