//! Analyses of networks that are worked out by hand.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::config::{Rule, named, on};
use burn_compress_core::graph::{ChannelGraph, capture};
use burn_compress_core::layer::layers;
use burn_compress_core::{Compressor, DummyInput, Error, Evaluator};
use burn_compress_pruning::{Blocks, Importance, PruningRule, PruningSettings};
use burn_compress_quantization::{QuantDtype, QuantizationRule};

use crate::cost::Costs;
use crate::units::{unit_of, units};
use crate::{Measured, Refusal, Sensitivity, SensitivityConfig, SensitivityError, SizeBudget};

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    second: Linear,
}

impl Net {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(x))
    }
}

/// `[1, 1] W1 = [2, 4]` and `[2, 4] W2 = 10`. The columns of W1 have the L1 norms 2 and 4.
fn net() -> Net {
    let device = Device::flex();
    let linear = |inputs, outputs, weight: TensorData| {
        let mut linear = LinearConfig::new(inputs, outputs)
            .with_bias(false)
            .init(&device);
        linear.weight = Param::from_data(weight, &device);
        linear
    };
    Net {
        first: linear(2, 2, TensorData::from([[1.0, 3.0], [1.0, 1.0]])),
        second: linear(2, 1, TensorData::from([[1.0], [2.0]])),
    }
}

fn ones() -> Tensor<2> {
    Tensor::ones([1, 2], &Device::flex())
}

/// The loss is `(output - 10)^2`, the metric the output.
fn evaluator() -> Evaluator<Net, Tensor<2>> {
    let output = |model: &Net| f64::from(model.forward(ones()).into_scalar::<f32>());
    Evaluator::new()
        .with_dummy_input(DummyInput::new(ones(), Net::forward))
        .with_data(|_| vec![ones(), ones()])
        .with_loss(|model: &Net, x: &Tensor<2>| (model.forward(x.clone()) - 10.0).square().mean())
        .with_evaluation(1, output)
}

fn config() -> SensitivityConfig {
    SensitivityConfig::new()
        .with_pruning(named(["first"]))
        .with_quantization(named(["first"]))
        .with_sparsities([0.5])
        .with_bits([4, 2])
        .with_metric(true)
}

fn assert_near(found: Measured, loss: f64, metric: f64) {
    let (found_loss, found_metric) = (found.loss.unwrap(), found.metric.unwrap());
    assert!(
        (found_loss - loss).abs() < 1e-4,
        "loss {found_loss}, not {loss}"
    );
    assert!(
        (found_metric - metric).abs() < 1e-4,
        "metric {found_metric}, not {metric}"
    );
}

#[test]
fn two_layers_by_hand() {
    let result = config().analyze(net(), evaluator()).unwrap();
    assert_near(result.dense, 0.0, 10.0);
    assert_eq!(
        (result.batches, result.total(), result.forwards()),
        (2, 3, 8)
    );
    // Without the first channel, 4 * 2 = 8.
    let [unit] = &result.units[..] else {
        panic!("{result}")
    };
    assert_eq!(
        (&unit.layers[..], unit.channels),
        (&["first".to_string()][..], 2)
    );
    assert_eq!((unit.points[0].sparsity, unit.points[0].removed), (0.5, 1));
    assert_near(unit.points[0].measured, 4.0, 8.0);
    // 4 bits: steps of 3/7, so that 1 becomes 6/7 and 3 stays: 12/7 + 2 (3 + 6/7) = 66/7.
    let [layer] = &result.layers[..] else {
        panic!("{result}")
    };
    assert_eq!(layer.points[0].bits, 4);
    assert_near(
        layer.points[0].measured,
        (4.0_f64 / 7.0).powi(2),
        66.0 / 7.0,
    );
    // 2 bits: steps of 3, so that 1 becomes 0: 2 * 3 = 6.
    assert_near(layer.points[1].measured, 16.0, 6.0);

    // 4 + 2 parameters; one channel less are 2 + 1.
    assert_eq!((result.parameters(), result.macs()), (Some(6), Some(6)));
    let allocation = result.allocate(SizeBudget::ParameterRatio(0.5)).unwrap();
    assert_eq!(
        (allocation.parameters, allocation.macs, allocation.increase),
        (3, 3, 4.0)
    );
    let expected: Rule<PruningSettings> = named(["first"]).sparse_ratio(0.5);
    assert_eq!(allocation.rules().rules, [expected]);
}

#[test]
fn the_model_stays_as_it_is() {
    let model = net();
    config().analyze(model.clone(), evaluator()).unwrap();
    let weight = model.first.weight.val().into_data();
    assert_eq!(weight, net().first.weight.val().into_data());
}

/// The channel of the largest weights goes first.
#[derive(Clone)]
struct Smallest;

impl Importance for Smallest {
    fn score(&self, values: &[f32], blocks: &Blocks) -> Vec<f32> {
        blocks.reduce(values, |block| {
            -block.iter().map(|value| value.abs()).sum::<f32>()
        })
    }
}

#[test]
fn another_score_chooses_other_channels() {
    let config = config().with_importance(Smallest);
    let result = config.analyze(net(), evaluator()).unwrap();
    // Without the second channel, 2 * 1 = 2.
    assert_near(result.units[0].points[0].measured, 64.0, 2.0);
}

#[test]
fn an_analysis_goes_on_where_it_was_stopped() {
    let whole = config().analyze(net(), evaluator()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result");
    for stop in 0..=3 {
        let mut first = config().begin(net(), evaluator()).unwrap();
        for _ in 0..stop {
            assert!(first.advance().unwrap());
        }
        assert_eq!((first.done(), first.total()), (stop, 3));
        first.result().save(&path).unwrap();
        let saved = Sensitivity::load(&path).unwrap();
        let mut second = config().resume(net(), evaluator(), saved).unwrap();
        second.run().unwrap();
        assert!(!second.advance().unwrap());
        assert_eq!(second.finish(), whole);
    }
}

#[test]
fn a_result_of_another_analysis_is_refused() {
    let saved = config().analyze(net(), evaluator()).unwrap();
    let refused = |config: SensitivityConfig, model: Net, evaluator| {
        let error = config.resume(model, evaluator, saved.clone()).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(SensitivityError::Other { .. })),
            "{error}"
        );
        error.to_string()
    };
    let error = refused(config().with_bits([4]), net(), evaluator());
    assert!(
        error.contains("its configuration is another one"),
        "{error}"
    );
    let mut other = net();
    other.second.weight = Param::from_data(TensorData::from([[1.0], [1.0]]), &Device::flex());
    let error = refused(config(), other, evaluator());
    assert!(
        error.contains("was 0 on 2 batches, it is 16 on 2"),
        "{error}"
    );
    let one = evaluator().with_data(|_| vec![ones()]);
    let error = refused(config(), net(), one);
    assert!(error.contains("it is 0 on 1"), "{error}");
}

fn refusals(error: &Error) -> &[Refusal] {
    match error.downcast_ref() {
        Some(SensitivityError::Refused(refusals)) => refusals,
        _ => panic!("{error}"),
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let config = SensitivityConfig::new()
        .with_pruning(on(["Linear"]).sparse_ratio(0.5).round_to(2))
        .with_quantization(on(["Linear"]).quant_dtype(QuantDtype::INT8))
        .with_sparsities([0.5, 1.0, f64::NAN, 0.5])
        .with_bits([0, 4, 9, 4])
        .with_batches(0)
        .with_metric(true);
    let error = config
        .begin(net(), Evaluator::<Net, Tensor<2>>::new())
        .unwrap_err();
    let found: Vec<String> = refusals(&error).iter().map(ToString::to_string).collect();
    let expected = [
        "the pruning rule sets `sparse_ratio`",
        "a sparsity is 1,",
        "a sparsity is NaN",
        "`with_sparsities` is given 0.5 twice",
        "the quantization rule sets `quant_dtype`",
        "a number of bits is 0",
        "a number of bits is 9",
        "`with_bits` is given 4 twice",
        "`with_batches` is given 0",
        "data to calibrate on",
        "a dummy input",
        "`with_metric` is set",
    ];
    assert_eq!(found.len(), expected.len(), "{error}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{expected} in {found}");
    }

    let nothing = SensitivityConfig::new()
        .begin(net(), evaluator())
        .unwrap_err();
    assert!(matches!(refusals(&nothing), [Refusal::Nothing]));
    let empty = SensitivityConfig::new().with_sparsities([]).with_bits([]);
    let empty = empty
        .with_pruning(on(["Linear"]))
        .with_quantization(on(["Linear"]));
    let error = empty.begin(net(), evaluator()).unwrap_err();
    assert!(matches!(
        refusals(&error),
        [Refusal::Empty { .. }, Refusal::Empty { .. }]
    ));
}

#[test]
fn layers_that_cannot_be_measured_are_listed() {
    let config = SensitivityConfig::new()
        .with_pruning(on(["Linear"])) // the outputs of `second` are those of the network
        .with_quantization(named(["third"]));
    let error = config.begin(net(), evaluator()).unwrap_err();
    let [
        Refusal::Layers { layers, .. },
        Refusal::Of(Error::Config(_)),
    ] = refusals(&error)
    else {
        panic!("{error}");
    };
    assert_eq!(layers[..], ["second"]);

    let x = Tensor::<4>::ones([2, 3, 6, 6], &Device::flex());
    let evaluator = Evaluator::new()
        .with_dummy_input(DummyInput::new(x.clone(), Scaled::forward))
        .with_data(move |_| vec![x.clone()])
        .with_loss(|model: &Scaled, x: &Tensor<4>| model.forward(x.clone()).mean());
    let config = SensitivityConfig::new().with_pruning(on(["Scale"]));
    let error = config.begin(Scaled::new(), evaluator).unwrap_err();
    let [Refusal::Of(Error::Config(error))] = refusals(&error) else {
        panic!("{error}");
    };
    assert!(error.to_string().contains("layer `scale`"), "{error}");
}

/// A layer whose weight has no dimension of channels.
#[derive(Module, Debug)]
struct Scale {
    weight: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Scaled {
    conv: Conv2d,
    scale: Scale,
}

impl Scaled {
    fn new() -> Self {
        let device = Device::flex();
        Self {
            conv: Conv2dConfig::new([3, 4], [1, 1]).init(&device),
            scale: Scale {
                weight: Param::from_tensor(Tensor::ones([1], &device)),
            },
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(x) * self.scale.weight.val().unsqueeze()
    }
}

#[test]
fn a_sparsity_that_removes_nothing_is_refused_before_anything_is_measured() {
    let config = |sparsities: [f64; 2]| {
        let layers = named(["first"]).round_to(2);
        SensitivityConfig::new()
            .with_pruning(layers)
            .with_sparsities(sparsities)
    };
    let wide = || Net {
        first: LinearConfig::new(2, 8).init(&Device::flex()),
        second: LinearConfig::new(8, 1).init(&Device::flex()),
    };
    // Of eight, an eighth is one, and an odd number would stay.
    let error = config([0.75, 0.125])
        .begin(wide(), evaluator())
        .unwrap_err();
    let [Refusal::Layers { layers, error }] = refusals(&error) else {
        panic!("{error}");
    };
    assert_eq!(layers[..], ["first"]);
    assert!(error.to_string().contains("round_to"), "{error}");
    let result = config([0.75, 0.375]).analyze(wide(), evaluator()).unwrap();
    let points = result.units[0].points.iter();
    assert_eq!(
        points.map(|point| point.removed).collect::<Vec<_>>(),
        [6, 2]
    );
}

#[test]
fn a_loss_that_is_no_number_is_an_error() {
    let wide = evaluator().with_loss(|model: &Net, x: &Tensor<2>| {
        let loss = model.forward(x.clone()).reshape([1]);
        loss.repeat_dim(0, 2)
    });
    let error = config().begin(net(), wide).unwrap_err();
    assert!(matches!(error, Error::LossShape { .. }), "{error}");
    let infinite =
        evaluator().with_loss(|model: &Net, x: &Tensor<2>| model.forward(x.clone()).mean() / 0.0);
    let error = config().begin(net(), infinite).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the loss of the model as it is is inf"),
        "{error}"
    );
    // Only that of a point may be: what is measured there is that it is not finite.
    let diverging = evaluator().with_loss(|model: &Net, x: &Tensor<2>| {
        let output = model.forward(x.clone()).mean();
        (output.clone() - 10.0) / (output - 8.0)
    });
    let result = config().analyze(net(), diverging).unwrap();
    assert_eq!(result.units[0].points[0].measured.loss, None);
}

#[derive(Module, Debug)]
struct Convs {
    stem: Conv2d,
    grouped: Conv2d,
    norm: BatchNorm,
    depthwise: Conv2d,
    left: Conv2d,
    right: Conv2d,
    head: Linear,
    unused: Linear,
}

impl Convs {
    fn new() -> Self {
        let device = Device::flex();
        let conv = |channels, kernel, groups| {
            let config = Conv2dConfig::new(channels, [kernel, kernel]).with_groups(groups);
            config.init(&device)
        };
        Self {
            stem: conv([3, 8], 1, 1),
            grouped: conv([8, 8], 3, 2),
            norm: BatchNormConfig::new(8).init(&device),
            depthwise: conv([8, 8], 2, 8),
            left: conv([8, 4], 1, 1),
            right: conv([8, 4], 1, 1),
            head: LinearConfig::new(4 * 9, 5).init(&device),
            unused: LinearConfig::new(3, 3).init(&device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self
            .norm
            .forward(self.grouped.forward(self.stem.forward(x)));
        let x = self.depthwise.forward(x);
        let x = self.left.forward(x.clone()) + self.right.forward(x);
        self.head.forward(x.flatten(1, 3))
    }
}

#[test]
fn counts_are_those_of_the_cut_model() {
    let model = Convs::new();
    let x = Tensor::<4>::ones([2, 3, 6, 6], &Device::flex());
    let dummy = DummyInput::new(x, Convs::forward);
    let graph = ChannelGraph::analyze(&capture(&model, &dummy).unwrap()).unwrap();
    let graph = std::sync::Arc::new(graph);
    let layers = layers(&model);
    let rule = named(["stem", "grouped", "left", "right"]);
    let units = units(&rule, &layers, Some(&graph)).unwrap();
    let names: Vec<&[String]> = units.iter().map(|unit| &unit.layers[..]).collect();
    assert_eq!(names, [&["stem"][..], &["grouped"], &["left", "right"]]);
    assert_eq!(units[2].channels(), 4);
    let unit_of = unit_of(&units, &graph);
    let costs = Costs::of(&graph, &layers, &unit_of);
    let elements = |layers: &[burn_compress_core::layer::LayerInfo]| {
        let params = layers.iter().flat_map(|layer| &layer.params);
        params
            .map(|param| param.shape.iter().product::<usize>())
            .sum::<usize>()
    };
    let dense = elements(&layers) as f64;
    assert_eq!(
        (costs.parameters(&[1.0; 3]), costs.macs(&[1.0; 3])),
        (dense, graph.macs() as f64)
    );

    let halved: BTreeMap<usize, [usize; 2]> =
        BTreeMap::from([(0, [4, 8]), (1, [6, 8]), (2, [1, 4])]);
    let kept = [0.5, 0.75, 0.25];
    let mut removed = BTreeSet::new();
    for (unit, [keep, all]) in halved {
        let channels = unit_of
            .iter()
            .filter(|(_, of)| **of == unit)
            .map(|(channel, _)| *channel);
        let channels: Vec<_> = channels.collect();
        assert_eq!(channels.len(), all);
        // Every second one, so that both halves of a grouped convolution lose as many.
        let stride = all / (all - keep).min(all);
        removed.extend(channels.iter().step_by(stride.max(1)).take(all - keep));
    }
    let plan = graph.slice_plan(&removed).unwrap();
    let after: usize = layers
        .iter()
        .flat_map(|layer| layer.params.iter().map(move |param| (layer, param)))
        .map(|(layer, param)| {
            let path = format!("{}.{}", layer.path, param.name);
            let slice = plan.params.get(&path);
            slice
                .map_or(&param.shape, |slice| &slice.shape)
                .iter()
                .product::<usize>()
        })
        .sum();
    assert_eq!(costs.parameters(&kept), after as f64);
    assert_eq!(costs.macs(&kept), graph.macs_after(&removed) as f64);
}

#[test]
fn layers_can_be_pruned_alone() {
    let model = Convs::new();
    let x = Tensor::<4>::ones([2, 3, 6, 6], &Device::flex());
    let evaluator = Evaluator::new()
        .with_dummy_input(DummyInput::new(x.clone(), Convs::forward))
        .with_data(move |_| vec![x.clone()])
        .with_loss(|model: &Convs, x: &Tensor<4>| model.forward(x.clone()).square().mean());
    let config = SensitivityConfig::new()
        .with_pruning(named(["left", "right"]))
        .with_sparsities([0.5])
        .with_coupled(false);
    let result = config.analyze(model.clone(), evaluator.clone()).unwrap();
    let names: Vec<&[String]> = result.units.iter().map(|unit| &unit.layers[..]).collect();
    assert_eq!(names, [["left"], ["right"]]);
    assert_eq!(result.units[0].points[0].removed, 2);
    assert!(result.rules_for(SizeBudget::ParameterRatio(0.9)).is_err());
    let coupled = config
        .with_coupled(true)
        .analyze(model.clone(), evaluator.clone())
        .unwrap();
    assert_eq!(coupled.units.len(), 1);
    // The rules are those of a pruner.
    let rules = coupled.rules_for(SizeBudget::ParameterRatio(0.9)).unwrap();
    let chain = Compressor::from_model(model, evaluator);
    assert_eq!(rules.select(chain.layers()).unwrap().len(), 4); // weights and biases
}
