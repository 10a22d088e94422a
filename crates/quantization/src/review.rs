use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig, LinearLayout, Relu};
use burn::nn::conv::{ConvTranspose2d, ConvTranspose2dConfig, Conv3d, Conv3dConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, FloatDType, Tensor};
use burn_compress_core::{Budget, Compressor, Evaluator, FlatTensor, Target, TargetId, Wrapper};
use rstest::rstest;

use crate::observer::Histogram;
use crate::observer::{Entropy, Percentile, Search};
use crate::testing::{floats, resumes, rules};
use crate::*;

#[test]
fn shared_rank() {
    use crate::observer::TargetObserver;
    let settings = QuantizationSettings::default();
    let observer = TargetObserver::new("Relu", Target::Output(0), &settings, ObserverKind::MinMax).unwrap();
    let mut state = burn_compress_core::Quantization::new("int8", "symmetric", -127.0, 127.0);
    let d = Device::flex();
    observer.update(&FlatTensor::new(Tensor::<2>::from_floats([[5.0, -1.0]], &d)), &mut state).unwrap();
    observer.update(&FlatTensor::new(Tensor::<3>::from_floats([[[2.0, -3.0]]], &d)), &mut state).unwrap();
    assert_eq!(floats(state.maximum.unwrap()), [5.0]);
}

#[test]
fn entropy_gap() {
    let mut h = Histogram::new();
    let values: Vec<f32> = (0..1000).map(|i| if i % 2 == 0 { 0.0 } else { 1.0 + i as f32 / 10000.0 }).collect();
    h.add(&values);
    for scheme in [QuantScheme::Symmetric, QuantScheme::Affine] {
        let r = Entropy.range(&h, (0.0, 1.0999), QuantDtype::INT8, scheme);
        println!("{r:?}");
    }
    let r = Entropy.range(&h, (0.0, 1.0999), QuantDtype::INT8, QuantScheme::Affine);
    assert!(r.1 > 1.0, "{r:?}");
}

#[test]
fn percentile_999() {
    let mut h = Histogram::new();
    let mut values: Vec<f32> = (0..999).map(|i| i as f32 / 1000.0).collect();
    values.push(100.0);
    h.add(&values);
    let r = Percentile::new(99.9).range(&h, (0.0, 100.0), QuantDtype::INT8, QuantScheme::Symmetric);
    assert!(r.1 < 2.0, "{r:?}");
}

#[test]
fn huge() {
    let (s, z) = range::host_parameters(-2e38, 2e38, QuantDtype::INT8, QuantScheme::Affine).unwrap();
    assert!(s.is_finite() && z.abs() < 2.0, "{s} {z}");
}

#[derive(Module, Debug)]
struct Half {
    first: Wrapper<Linear>,
    act: Wrapper<Relu>,
    second: Wrapper<Linear>,
}

fn half(dtype: FloatDType) -> Compressor<Half, Tensor<2>> {
    let device = Device::flex();
    let linear = |i: usize, o: usize| {
        let mut l = LinearConfig::new(i, o).with_bias(false).init(&device);
        l.weight = Param::from_tensor(crate::fold::tests::spread([i, o], 3, (-1.0, 1.0)).cast(dtype));
        Wrapper::new(l)
    };
    let model = Half { first: linear(4, 4), act: Relu::new().into(), second: linear(4, 2) };
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![crate::fold::tests::spread([8, 4], 5, (-1.0, 1.0)).cast(dtype)])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.01)
        .with_loss(|m: &Half, x: &Tensor<2>| {
            m.second.forward(m.act.forward(m.first.forward(x.clone()))).square().mean()
        });
    Compressor::from_model(model, evaluator)
}

#[rstest]
fn halves(
    #[values("QatQuantizer", "PtqQuantizer", "AdaRoundQuantizer", "LsqQuantizer", "LsqPlusQuantizer", "DoReFaQuantizer", "BnnQuantizer")]
    name: &str,
    #[values(FloatDType::F32, FloatDType::F16, FloatDType::BF16)] dtype: FloatDType,
    #[values(false, true)] blocks: bool,
) {
    if blocks && (name.starts_with("DoReFa") || name.starts_with("Bnn")) { return; }
    let mut entries = quantizers::<Half, Tensor<2>>().into_iter();
    let entry = entries.find(|entry| entry.name == name).unwrap();
    let granularity = if blocks { r#""granularity": "out_channel", "#} else { "" };
    let json = format!(r#"[{{"op_types": ["Linear"], "target_names": ["weight", "_input_0", "_output_0"], "target_settings": {{"weight": {{{granularity}"quant_dtype": "int4"}}}}}}]"#);
    let chain = (entry.fuse)(half(dtype), &rules(&json)).unwrap();
    let compressed = chain.compress(Budget::steps(2)).unwrap();
    let out = compressed.model().second.forward(compressed.model().act.forward(compressed.model().first.forward(crate::fold::tests::spread([8, 4], 5, (-1.0, 1.0)).cast(dtype))));
    assert!(out.dtype() == dtype.into());
}

#[rstest]
fn halves_searched(
    #[values("\"mse\"", "\"histogram\"", "{\"percentile\": 99.0}", "\"min_max\"")]
    observer: &str,
    #[values(FloatDType::F16, FloatDType::BF16)] dtype: FloatDType,
) {
    let json = format!(r#"[{{"op_types": ["Linear"], "observer": {observer}}}]"#);
    let chain = QatQuantizer::from_compressor(half(dtype), &rules(&json), QatConfig::new()).unwrap();
    chain.compress(Budget::steps(2)).unwrap();
}

#[rstest]
fn resumes_searched(
    #[values("\"mse\"", "\"histogram\"", "{\"percentile\": 99.0}", "\"min_max\"")] observer: &str,
    #[values(true, false)] qat: bool,
) {
    let json = format!(r#"[{{"op_types": ["Linear"], "observer": {observer}}}]"#);
    let name = format!("searched-{}-{qat}", observer.len());
    resumes(&name, || match qat {
        true => QatQuantizer::from_compressor(testing::any(), &rules(&json), QatConfig::new()).unwrap(),
        false => PtqQuantizer::from_compressor(testing::any(), &rules(&json), PtqConfig::new()).unwrap(),
    });
}

#[test]
fn bnn_scheme() {
    let int8 = r#"[{"op_types": ["Linear"], "quant_dtype": "int8", "quant_scheme": "affine"}]"#;
    let chain = BnnQuantizer::from_compressor(testing::any(), &rules(int8), BnnConfig::new().with_any_dtype(true)).unwrap();
    assert!(chain.calibration().unwrap().values().all(|e| e.scheme == "symmetric"));
}

#[test]
fn gradient_one_bit() {
    let d = Device::flex();
    let g = Tensor::<2>::from_floats([[1.0, 0.0, -1.0]], &d);
    let r = dorefa::quantize_gradient(g, Tensor::from_floats([0.0], &d), QuantDtype::UINT1);
    assert!(r.is_err(), "{:?}", r.map(floats));
}

#[test]
fn lsq_plus_zero() {
    let chain = testing::chain(testing::net([[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0]]), vec![[[5.0, 6.0], [5.5, 5.2]]], 0.01);
    let json = r#"[{"op_names": ["first"], "target_names": ["_input_0"], "quant_dtype": "uint4"}]"#;
    let chain = LsqPlusQuantizer::from_compressor(chain, &rules(json), LsqPlusConfig::new()).unwrap();
    let compressed = chain.compress(Budget::steps(2)).unwrap();
    let c = compressed.calibration().unwrap();
    println!("{c:?}");
    let zero = compressed.model().first.forward(Tensor::<2>::zeros([1, 2], &Device::flex()));
    assert_eq!(floats(zero), [0.0, 0.0]);
}

#[derive(Module, Debug)]
struct Turned { fc: Wrapper<Linear> }

#[rstest]
fn columns(
    #[values("QatQuantizer", "PtqQuantizer", "AdaRoundQuantizer", "LsqQuantizer", "LsqPlusQuantizer", "DoReFaQuantizer", "BnnQuantizer")]
    name: &str,
) {
    let device = Device::flex();
    let weight = || crate::fold::tests::spread([3, 5], 3, (-1.0, 1.0));
    let build = |layout| {
        let mut fc = LinearConfig::new(3, 5).with_layout(layout).init(&device);
        let (id, _, mapper) = fc.weight.clone().consume();
        fc.weight = Param::from_mapped_value(id, weight(), mapper);
        fc.bias = None;
        let evaluator = Evaluator::new()
            .with_data(move |_| vec![crate::fold::tests::spread([8, 3], 5, (-1.0, 1.0))])
            .with_optimizer(SgdConfig::new().init())
            .with_learning_rate(0.01)
            .with_loss(|m: &Turned, x: &Tensor<2>| m.fc.forward(x.clone()).square().mean());
        let mut entries = quantizers::<Turned, Tensor<2>>().into_iter();
        let entry = entries.find(|entry| entry.name == name).unwrap();
        let granularity = if name.starts_with("DoReFa") || name.starts_with("Bnn") { "" } else { r#""granularity": "out_channel", "#};
        let json = format!(r#"[{{"op_types": ["Linear"], "target_settings": {{"weight": {{{granularity}"quant_dtype": "int4"}}}}}}]"#);
        let chain = (entry.fuse)(Compressor::from_model(Turned { fc: fc.into() }, evaluator), &rules(&json)).unwrap();
        let c = chain.compress(Budget::steps(2)).unwrap();
        (floats(c.model().fc.weight.val()), format!("{:?}", c.calibration().unwrap()))
    };
    assert_eq!(build(LinearLayout::Row), build(LinearLayout::Col));
}

#[derive(Module, Debug)]
struct Up { up: Wrapper<ConvTranspose2d>, conv: Wrapper<Conv3d> }

#[test]
fn transposed_bias() {
    let device = Device::flex();
    let model = Up {
        up: ConvTranspose2dConfig::new([4, 6], [2, 2]).with_groups(2).init(&device).into(),
        conv: Conv3dConfig::new([1, 3], [2, 2, 2]).init(&device).into(),
    };
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![crate::fold::tests::spread([2, 4, 3, 3], 5, (-1.0, 1.0))])
        .with_loss(|m: &Up, x: &Tensor<4>| {
            let y = m.up.forward(x.clone());
            m.conv.forward(y.reshape([2, 1, 6, 4, 4])).square().mean()
        });
    let json = r#"[{"op_types": ["ConvTranspose2d", "Conv3d"], "target_names": ["weight", "bias"], "quant_dtype": "int3", "granularity": "out_channel"}]"#;
    let chain = PtqQuantizer::from_compressor(Compressor::from_model(model, evaluator), &rules(json), PtqConfig::new().with_bias_correction(true)).unwrap();
    let c = chain.compress(Budget::none()).unwrap();
    let cal = c.calibration().unwrap();
    let n = |l: &str| cal[&TargetId::new(l, Target::param("weight"))].scale.as_ref().unwrap().len();
    assert_eq!((n("up"), n("conv")), (3, 3));
}
