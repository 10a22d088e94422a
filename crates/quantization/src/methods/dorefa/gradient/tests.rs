use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use burn_compress_core::{Budget, Compressor, Error, Evaluator};
use rstest::rstest;

use super::*;
use crate::testing::{Chain, Net, any, cause, close, floats, learner_agrees, resumes, rules};
use crate::{DoReFaConfig, DoReFaQuantizer};

#[test]
fn gradients_worked_by_hand() {
    let device = Device::flex();
    let gradient = Tensor::<2>::from_floats([[2.0, -1.0], [0.0, 0.0], [2.0, -1.0]], &device);
    // The last row is moved by 0.3 / 3.
    let noise = Tensor::<1>::from_floats([0.0, 0.4, 0.3], &device);
    let dtype = "uint2".parse().unwrap();
    let found = floats(quantize_gradient(gradient.clone(), noise.clone(), dtype).unwrap());
    // h = 1/6, a step is (4/3) / 3 = 4/9, zero is round(0.375) = 0. The values 1 and 0.25 are
    // 2.25 and 0.5625 steps, 1.1 and 0.35 are 2.475 and 0.7875: all rounded to 2 and 1.
    let expected = [4.0 * (8.0 / 9.0 - 0.5), 4.0 * (4.0 / 9.0 - 0.5)];
    close(
        &found,
        &[expected[0], expected[1], 0.0, 0.0, expected[0], expected[1]],
    );
    let error = quantize_gradient(gradient.clone(), noise.clone().slice(0..2), dtype);
    assert!(matches!(
        error,
        Err(QuantizationError::Setting { key: "noise", .. })
    ));
    for one_bit in [QuantDtype::int(1).unwrap(), QuantDtype::UINT1] {
        let error = quantize_gradient(gradient.clone(), noise.clone(), one_bit).unwrap_err();
        assert!(error.to_string().contains("2 bits or more"), "{error}");
    }
}

#[test]
fn gradients_of_the_paper_by_hand() {
    let device = Device::flex();
    let gradient = Tensor::<2>::from_floats([[2.0, -1.0], [0.0, 0.0], [2.0, -2.0]], &device);
    // Thirds: 1 and 0.25 + 0.4 / 3 = 0.383 become 1 and 1/3; 1 + 0.1 and 0 - 0.1 are clamped.
    let noise = Tensor::<2>::from_floats([[0.0, 0.4], [0.4, -0.4], [0.3, -0.3]], &device);
    let dtype = "uint2".parse().unwrap();
    let round = |noise: Tensor<2>| quantize_gradient_by_element(gradient.clone(), noise, dtype);
    let found = floats(round(noise.clone()).unwrap());
    close(&found, &[2.0, -2.0 / 3.0, 0.0, 0.0, 2.0, -2.0]);
    let error = round(noise.slice([0..3, 0..1])).unwrap_err().to_string();
    assert!(
        error.contains("[3, 1]") && error.contains("each element"),
        "{error}"
    );
    let noise = Tensor::<2>::zeros([3, 2], &device);
    let error = quantize_gradient_by_element(gradient, noise, QuantDtype::UINT1).unwrap_err();
    assert!(error.to_string().contains("2 bits or more"), "{error}");
}

#[test]
fn the_noise_of_elements_keeps_the_mean() {
    let device = Device::flex();
    // One sample; the first element sets the unit, all others lie between two of the seven steps.
    let mut values = vec![0.3; 40_001];
    values[0] = 1.0;
    let data = TensorData::new(values, [1, 40_001]);
    let gradient = Tensor::<2>::from_data(data, &device);
    let noise = draw(Rng::with_seed(5), 40_001);
    let noise = Tensor::<2>::from_data(TensorData::new(noise, [1, 40_001]), &device);
    let rounded = quantize_gradient_by_element(gradient, noise, "uint3".parse().unwrap());
    let rounded = &floats(rounded.unwrap())[1..];
    // 7 (0.15 + 1/2) = 4.55: to 4 or 5, which are 1/7 and 3/7.
    let [low, high] = [1.0, 3.0].map(|value| value / 7.0);
    let is = |value: f32| move |found: &&f32| (*found - value).abs() < 1e-6;
    let counts = [low, high].map(|value| rounded.iter().filter(is(value)).count());
    assert_eq!(counts[0] + counts[1], 40_000);
    let mean = rounded.iter().sum::<f32>() / 40_000.0;
    // The deviation of the mean is (2/7) sqrt(0.45 0.55 / 40000) = 0.0007.
    assert!((mean - 0.3).abs() < 0.003, "{mean}");
}

const WEIGHTS: &str = r#"[{"op_types": ["Linear"], "target_names": ["weight"],
    "quant_dtype": "uint2", "quant_scheme": "affine"}]"#;

fn fuse(chain: Chain, config: &str, options: DoReFaConfig) -> Result<Chain, Error> {
    DoReFaQuantizer::from_compressor(chain, rules(config), options)
}

fn of_weight() -> DoReFaConfig {
    DoReFaConfig::new().with_gradients(GradientDtype::OfWeight)
}

/// The gradient that goes into the layer `second` for each sample, where 1/2 comes to its output.
fn into_second(model: &Net, samples: usize) -> Vec<f32> {
    let device = Device::flex().autodiff();
    let x = Tensor::<2>::ones([samples, 2], &device).require_grad();
    let gradients = (model.second.forward(x.clone()) * 0.5).sum().backward();
    // Both inputs are the gradient of the output times a weight.
    let weight = floats(model.second.weight.val())[0];
    let inputs = floats(x.grad(&gradients).unwrap());
    inputs.chunks(2).map(|pair| pair[0] / weight).collect()
}

#[test]
fn what_goes_into_a_layer_is_rounded() {
    let chain = fuse(any(), WEIGHTS, of_weight()).unwrap();
    let found = into_second(chain.model(), 600);
    // 1/2 is 1 of 0..=1, which noise moves to 1.875..2.625 steps of 4/9: to 2, or with the noise
    // beyond 1/3, of every sixth sample, to 3.
    let (low, high) = (8.0 / 9.0 - 0.5, 12.0 / 9.0 - 0.5);
    let is = |value: f32| move |found: &&f32| (*found - value).abs() < 1e-6;
    let (lower, higher) = (
        found.iter().filter(is(low)).count(),
        found.iter().filter(is(high)).count(),
    );
    assert_eq!(lower + higher, 600);
    assert!((60..140).contains(&higher), "{higher}");
}

#[test]
fn a_type_of_its_own_has_a_noise_for_each_element() {
    let own = GradientDtype::Dtype("uint2".parse().unwrap());
    let into_first = |options: DoReFaConfig| {
        let chain = fuse(any(), WEIGHTS, options).unwrap();
        let device = Device::flex().autodiff();
        let x = Tensor::<2>::ones([300, 2], &device).require_grad();
        // Both outputs of the layer take a gradient of their own; the input sees their weighted sum.
        let output = chain.model().first.forward(x.clone());
        let scale = Tensor::<2>::from_floats([[0.5, 0.1]], &device);
        let gradients = (output * scale).sum().backward();
        let weight = floats(chain.model().first.weight.val());
        let inputs = floats(x.grad(&gradients).unwrap());
        // x grad = (w00 g0 + w01 g1, w10 g0 + w11 g1), solved for g.
        let [a, b, c, d] = [weight[0], weight[1], weight[2], weight[3]];
        let solve = |x: &[f32]| {
            let determinant = a * d - b * c;
            [
                (d * x[0] - b * x[1]) / determinant,
                (a * x[1] - c * x[0]) / determinant,
            ]
        };
        inputs.chunks(2).map(solve).collect::<Vec<_>>()
    };
    let found = into_first(DoReFaConfig::new().with_gradients(own));
    // m = 0.5: 1 stays, at the end of 0..=1; 0.6 is 1.8 thirds, which noise moves to 1.3..2.3, to 1 in
    // one of five.
    assert!(found.iter().all(|g| (g[0] - 0.5).abs() < 1e-4), "{found:?}");
    let low = found
        .iter()
        .filter(|g| (g[1] - (1.0 / 3.0 - 0.5)).abs() < 1e-4);
    let high = found
        .iter()
        .filter(|g| (g[1] - (2.0 / 3.0 - 0.5)).abs() < 1e-4);
    let (low, high) = (low.count(), high.count());
    assert_eq!(low + high, 300);
    assert!((30..90).contains(&low), "{low}");
}

#[test]
fn noise_follows_the_seed_the_step_and_the_pass() {
    let rounded = |seed: u64, step: usize| {
        let step = Arc::new(AtomicUsize::new(step));
        RoundedGradient::new(GradientRounding::ByElement(QuantDtype::INT8), seed, step)
    };
    let draw = |seed: u64, step: usize| super::draw(rounded(seed, step).rng(), 5);
    assert_eq!(draw(1, 2), draw(1, 2));
    assert!(draw(1, 2).iter().all(|noise| (-0.5..0.5).contains(noise)));
    assert_ne!(draw(1, 2), draw(2, 2));
    assert_ne!(draw(1, 2), draw(1, 3));
    let passes = rounded(1, 2);
    let next = || super::draw(passes.rng(), 5);
    let first = next();
    assert_ne!(next(), first);
    passes.step.store(3, Ordering::Release);
    assert_eq!(next(), draw(1, 3));
}

#[test]
fn quantized_outputs_and_full_precision_stay_as_they_are() {
    let outputs = r#"[{"op_types": ["Linear"], "target_names": ["weight", "_output_0"],
        "quant_dtype": "uint2", "quant_scheme": "affine"}]"#;
    let full = DoReFaConfig::new();
    for (config, options) in [(outputs, of_weight()), (WEIGHTS, full)] {
        let chain = fuse(any(), config, options).unwrap();
        close(&into_second(chain.model(), 3), &[0.5; 3]);
    }
}

#[test]
fn a_type_of_its_own() {
    let six = GradientDtype::Dtype("int6".parse().unwrap());
    let options = DoReFaConfig::new().with_gradients(six);
    let chain = fuse(any(), WEIGHTS, options).unwrap();
    // The one element of a sample is the largest, which lies on the grid; noise that moves it beyond
    // the end is clamped, and none reaches the next step.
    close(&into_second(chain.model(), 50), &[0.5; 50]);
    let json = serde_json::to_string(&options).unwrap();
    assert!(json.contains(r#""gradients":{"dtype":"int6"}"#), "{json}");
}

#[test]
fn the_model_trains_with_them_and_ends_without() {
    let trained = |options| {
        let mut chain = fuse(any(), WEIGHTS, options).unwrap();
        chain.advance(&Budget::steps(3), None).unwrap();
        chain
    };
    let (rounded, full) = (trained(of_weight()), trained(DoReFaConfig::new()));
    assert_ne!(
        floats(rounded.model().second.weight.base()),
        floats(full.model().second.weight.base())
    );
    let left = rounded.finish().unwrap().into_model().train();
    close(&into_second(&left, 2), &[0.5; 2]);
}

#[test]
fn runs_can_be_stopped_and_driven_by_a_learner() {
    let build = || fuse(any(), WEIGHTS, of_weight()).unwrap();
    resumes("dorefa-gradients", build);
    learner_agrees(build);
}

#[rstest]
#[case(GradientDtype::OfWeight)]
#[case(GradientDtype::Dtype(QuantDtype::int(1).unwrap()))]
#[case(GradientDtype::Dtype(QuantDtype::UINT1))]
fn one_bit_is_refused(#[case] gradients: GradientDtype) {
    let config = r#"[{"op_types": ["Linear"], "target_names": ["weight"],
        "quant_dtype": "int1"}]"#;
    let options = DoReFaConfig::new().with_gradients(gradients);
    let error = cause(fuse(any(), config, options).unwrap_err());
    assert!(
        matches!(
            error,
            QuantizationError::Setting {
                key: "gradients",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn layers_without_a_wrapper_are_refused() {
    #[derive(Module, Debug)]
    struct Plain {
        fc: Linear,
    }

    let evaluator = Evaluator::<Plain, Tensor<2>>::new()
        .with_data(|_| vec![Tensor::<2>::ones([2, 2], &Device::flex())])
        .with_optimizer(burn::optim::SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|model: &Plain, x: &Tensor<2>| model.fc.forward(x.clone()).mean());
    let fc = LinearConfig::new(2, 2).init(&Device::flex());
    let chain = Compressor::from_model(Plain { fc }, evaluator);
    let error = DoReFaQuantizer::from_compressor(chain, rules(WEIGHTS), of_weight());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("`fc` is not wrapped"), "{error}");
}
