//! Every quantizer on models of other precisions and layouts, and its resumed runs.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::optim::SgdConfig;
use burn::tensor::{Device, FloatDType, Tensor};
use burn_compress_core::{Budget, Compressed, Compressor, Evaluator, Wrapper};
use rstest::rstest;

use crate::bn_fusion::fold::tests::spread;
use crate::testing::{any, floats, names, resumes, rules};
use crate::{PtqConfig, PtqQuantizer, QatConfig, QatQuantizer, quantizers};

#[derive(Module, Debug)]
struct Net {
    first: Wrapper<Linear>,
    second: Wrapper<Linear>,
}

impl Net {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(x))
    }
}

fn batch(dtype: FloatDType) -> Tensor<2> {
    spread([8, 4], 5, (-1.0, 1.0)).cast(dtype)
}

type Chain = Compressor<Net, Tensor<2>>;

fn chain(dtype: FloatDType, layout: LinearLayout) -> Chain {
    let linear = |inputs: usize, outputs: usize| {
        let config = LinearConfig::new(inputs, outputs).with_bias(false);
        let linear = config.with_layout(layout).init(&Device::flex());
        let (id, _, mapper) = linear.weight.clone().consume();
        let weight = spread([inputs, outputs], 3, (-1.0, 1.0)).cast(dtype);
        let weight = Param::from_mapped_value(id, weight, mapper);
        Wrapper::new(Linear { weight, ..linear })
    };
    let model = Net {
        first: linear(4, 3),
        second: linear(3, 2),
    };
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![batch(dtype)])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.01)
        .with_loss(|model: &Net, x: &Tensor<2>| model.forward(x.clone()).square().mean());
    Compressor::from_model(model, evaluator)
}

/// A run of the quantizer called `name`, with a scale for each channel if it has them.
fn compressed(name: &str, chain: Chain) -> Compressed<Net> {
    let granularity = match ["DoReFaQuantizer", "BnnQuantizer"].contains(&name) {
        true => "default",
        false => "out_channel",
    };
    let json = format!(
        r#"[{{"op_types": ["Linear"], "target_settings": {{"weight":
            {{"quant_dtype": "int4", "granularity": "{granularity}"}}}}}}]"#
    );
    let mut entries = quantizers::<Net, Tensor<2>>().into_iter();
    let entry = entries.find(|entry| entry.name == name).unwrap();
    let chain = (entry.fuse)(chain, &rules(&json)).unwrap();
    chain.compress(Budget::steps(2)).unwrap()
}

fn weights(compressed: &Compressed<Net>) -> Vec<f32> {
    let model = compressed.model();
    let weights = [&model.first.weight, &model.second.weight];
    weights
        .map(|weight| floats(weight.val().cast(FloatDType::F32)))
        .concat()
}

#[rstest]
fn halves_are_quantized_as_singles_are(
    #[values(FloatDType::F16, FloatDType::BF16)] dtype: FloatDType,
) {
    for name in names(|_| true) {
        let half = compressed(name, chain(dtype, LinearLayout::Row));
        let output = half.model().forward(batch(dtype));
        assert_eq!(FloatDType::from(output.dtype()), dtype);
        let scales = |run: &Compressed<Net>| -> Vec<f32> {
            let calibration = run.calibration().unwrap().into_iter();
            let params = calibration.filter(|(id, _)| id.target.is_param());
            params.flat_map(|(_, entry)| entry.scale.unwrap()).collect()
        };
        let single = compressed(name, chain(FloatDType::F32, LinearLayout::Row));
        assert_eq!(scales(&half).len(), scales(&single).len(), "{name}");
        for (half, single) in scales(&half).iter().zip(scales(&single)) {
            assert!(
                (half - single).abs() <= 0.02 * single,
                "{name}: {half} {single}"
            );
        }
        let pairs: Vec<(f32, f32)> = weights(&half).into_iter().zip(weights(&single)).collect();
        let far = pairs
            .iter()
            .filter(|(half, single)| (half - single).abs() > 0.05);
        // A rounding that is close to a half may go the other way.
        assert!(far.count() <= 1, "{name}: {pairs:?}");
    }
}

#[test]
fn columns_are_quantized_as_rows_are() {
    for name in names(|_| true) {
        let [rows, columns] = [LinearLayout::Row, LinearLayout::Col]
            .map(|layout| compressed(name, chain(FloatDType::F32, layout)));
        assert_eq!(weights(&rows), weights(&columns), "{name}");
        assert_eq!(rows.calibration().unwrap(), columns.calibration().unwrap());
    }
}

#[rstest]
fn observers_resume(
    #[values(
        r#""mse""#,
        r#""histogram""#,
        r#"{"percentile": 99.0}"#,
        r#""min_max""#
    )]
    observer: &str,
    #[values(true, false)] trains: bool,
) {
    // The weights are too small for a histogram.
    let json = format!(
        r#"[{{"op_types": ["Linear"], "observer": {observer},
            "target_settings": {{"weight": {{"observer": "mse"}}}}}}]"#
    );
    let config = rules(&json);
    let name = format!("observer-{}-{trains}", observer.len());
    resumes(&name, || match trains {
        true => QatQuantizer::from_compressor(any(), &config, QatConfig::new()).unwrap(),
        false => PtqQuantizer::from_compressor(any(), &config, PtqConfig::new()).unwrap(),
    });
}
