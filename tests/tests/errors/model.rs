//! Models whose forward pass, channels or layers do not allow what is asked, and teachers that
//! cannot teach them.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, SgdConfig};
use burn::tensor::{Device, Int, Tensor};
use burn_compress::Error;
use burn_compress::graph::GraphError;
use burn_compress::prelude::*;
use burn_compress::pruning::PruningError;
use burn_compress_tests::chains::{HALF, assert_says};
use burn_compress_tests::nets::{Batch, Net, NetConfig, SIDE, batches, evaluator};

use crate::fixtures::{STEPS, chain, distill, distill_from, net, prune};

#[test]
fn a_missing_dummy_input() {
    let evaluator = Evaluator::new()
        .with_data(|epoch| batches(5, epoch))
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(1e-2)
        .with_loss(Net::loss);
    let config = ConfigList::from_json(HALF).unwrap();
    let error = L1NormPruner::new(net(), &config, evaluator, PrunerConfig::new()).unwrap_err();
    assert!(matches!(error, Error::MissingEvaluator { .. }), "{error}");
    assert_says(
        &error,
        &["L1NormPruner", "a dummy input", "`.with_dummy_input(..)`"],
    );
}

/// Images of the wrong number of channels.
fn wrong_images() -> DummyInput<Net> {
    let images = Tensor::<4>::ones([1, 3, SIDE, SIDE], &Device::flex());
    DummyInput::new(images, |net: &Net, images| net.forward(images))
}

#[test]
fn a_forward_pass_that_panics() {
    let config = ConfigList::from_json(HALF).unwrap();
    let fuse = |dummy_input: DummyInput<Net>| {
        let evaluator = evaluator(STEPS).with_dummy_input(dummy_input);
        L1NormPruner::new(net(), &config, evaluator, PrunerConfig::new()).unwrap_err()
    };
    let error = fuse(wrong_images());
    assert!(matches!(error, Error::Graph(GraphError::Forward { .. })));
    assert_says(&error, &["forward pass failed", "dummy input"]);
    let images = Tensor::<4>::ones([1, 1, SIDE, SIDE], &Device::flex());
    let error = fuse(DummyInput::new(
        images,
        |_: &Net, _images: Tensor<4>| -> Tensor<2> { panic!("out of cheese") },
    ));
    assert_says(&error, &["forward pass failed", "out of cheese"]);

    let compressed = prune(HALF).unwrap().compress(Budget::none()).unwrap();
    let error = ModelSpeedup::new(compressed, wrong_images())
        .speedup_model()
        .unwrap_err();
    assert_says(&error, &["forward pass failed"]);
}

#[test]
fn coupled_layers_of_which_only_one_is_selected() {
    let rules = r#"[{"op_names": ["block.conv2"], "sparse_ratio": 0.5}]"#;
    let error = prune(rules).unwrap_err();
    assert_says(
        &error,
        &[
            "block.conv2.weight",
            "coupled with those of `block.project`",
            "select or exclude both",
        ],
    );
    let rules = r#"[
        {"op_names": ["block.conv2"], "sparse_ratio": 0.5},
        {"op_names": ["block.project"], "sparse_ratio": 0.25}
    ]"#;
    assert_says(
        &prune(rules).unwrap_err(),
        &["block.project", "block.conv2", "differ", "the same"],
    );
}

#[test]
fn the_last_layer_keeps_its_outputs() {
    let error = prune(r#"[{"op_names": ["head"], "sparse_ratio": 0.5}]"#).unwrap_err();
    let pruning = error.downcast_ref::<Error>().and_then(Error::downcast_ref);
    let unprunable = matches!(pruning, Some(PruningError::Unprunable { .. }));
    assert!(unprunable, "{error}");
    assert_says(
        &error,
        &[
            "head.weight",
            "cannot be removed",
            "output",
            "exclude the layer",
        ],
    );
}

#[test]
fn a_wrapper_that_the_model_does_not_call() {
    #[derive(Module, Debug)]
    struct Idle {
        used: Wrapper<Linear>,
        idle: Wrapper<Linear>,
    }

    let device = Device::flex();
    let linear = || Wrapper::new(LinearConfig::new(2, 2).init(&device));
    let batch = Tensor::<2>::ones([1, 2], &device);
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![batch.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|net: &Idle, x: &Tensor<2>| net.used.forward(x.clone()).mean());
    let config = ConfigList::from_json(r#"[{"op_types": ["Linear"]}]"#).unwrap();
    let model = Idle {
        used: linear(),
        idle: linear(),
    };
    let chain = QatQuantizer::new(model, &config, evaluator, QatConfig::new()).unwrap();
    let error = chain.compress(Budget::steps(1)).unwrap_err();
    assert!(matches!(error, Error::Unreached { .. }), "{error}");
    assert_says(&error, &["`idle._input_0`", "through its `Wrapper`"]);
}

/// A layer whose forward pass has another name, so that calls go past a wrapper.
#[derive(Module, Debug)]
struct Scale {
    weight: Param<Tensor<1>>,
}

impl Scale {
    fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        x * self.weight.val().unsqueeze()
    }
}

#[derive(Module, Debug)]
struct Scaled {
    fc: Wrapper<Linear>,
    scale: Wrapper<Scale>,
}

#[test]
fn a_wrapper_that_is_passed_by() {
    let device = Device::flex();
    let model = Scaled {
        fc: LinearConfig::new(2, 2).init(&device).into(),
        scale: Wrapper::new(Scale {
            weight: Param::from_tensor(Tensor::ones([2], &device)),
        }),
    };
    let x = Tensor::<2>::ones([1, 2], &device);
    let dummy = DummyInput::new(x, |net: &Scaled, x| net.scale.apply(net.fc.forward(x)));
    let fuse = |rules: &str| {
        let evaluator = Evaluator::<Scaled, Tensor<2>>::new()
            .with_dummy_input(dummy.clone())
            .with_data(|_| [Tensor::<2>::ones([1, 2], &Device::flex())])
            .with_optimizer(SgdConfig::new().init())
            .with_learning_rate(0.1)
            .with_loss(|net, x: &Tensor<2>| net.scale.apply(net.fc.forward(x.clone())).mean());
        let config = ConfigList::from_json(rules).unwrap();
        QatQuantizer::new(model.clone(), &config, evaluator, QatConfig::new())
    };
    let error = fuse(r#"[{"op_types": ["Linear", "Scale"]}]"#).unwrap_err();
    assert_says(
        &error,
        &["parameters of `scale`", "`Layer`", "`Wrapper::forward`"],
    );
    // Its weight needs no wrapper.
    let rules = r#"[{"op_types": ["Linear"]},
        {"op_types": ["Scale"], "target_names": ["weight"]}]"#;
    assert!(fuse(rules).is_ok());
}

/// The integers that go into an embedding are not rounded, and not asked for.
#[test]
fn an_embedding_has_no_input_to_quantize() {
    #[derive(Module, Debug)]
    struct Words {
        table: Wrapper<Embedding>,
    }

    let device = Device::flex();
    let words = Tensor::<2, Int>::from_ints([[0, 2, 1]], &device);
    let evaluator = Evaluator::new()
        .with_data(move |_| vec![words.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|net: &Words, x: &Tensor<2, Int>| net.table.forward(x.clone()).mean());
    let config = ConfigList::from_json(r#"[{"op_types": ["Embedding"]}]"#).unwrap();
    let model = Words {
        table: EmbeddingConfig::new(4, 2).init(&device).into(),
    };
    let chain = QatQuantizer::new(model, &config, evaluator, QatConfig::new()).unwrap();
    let compressed = chain.compress(Budget::steps(2)).unwrap();
    let scales = compressed.calibration().unwrap();
    let mut targets: Vec<String> = scales.keys().map(ToString::to_string).collect();
    targets.sort();
    assert_eq!(targets, ["table._output_0", "table.weight"]);
}

#[test]
fn teachers_that_cannot_teach() {
    let rules = r#"[{"op_names": ["stem"], "link": "stom"}]"#;
    let error = distill(rules).unwrap_err();
    assert_says(
        &error,
        &[
            "teacher cannot be linked",
            "`stom._output_0`",
            "did you mean `stem`",
        ],
    );

    let rules = r#"[{"op_names": ["block.conv1"], "link": "plain"}]"#;
    let error = distill(rules).unwrap_err();
    assert_says(&error, &["teacher", "`plain._output_0`", "Wrapper<Linear>"]);

    // Each layer has a teacher, but of another width.
    let wide = NetConfig {
        stem: 10,
        ..NetConfig::default()
    };
    let rules = r#"[{"op_names": ["block.conv2"], "link": "stem"}]"#;
    let error = distill_from(rules, wide)
        .unwrap()
        .compress(Budget::steps(1))
        .unwrap_err();
    assert!(matches!(error, Error::Algorithm { .. }), "{error}");
    assert_says(
        &error,
        &[
            "student layer `block.conv2`",
            "[8, 8, 6, 6]",
            "teacher layer `stem`",
            "[8, 10, 6, 6]",
        ],
    );
}

#[test]
fn a_teacher_that_does_not_call_the_linked_layer() {
    let rules = ConfigList::from_json(r#"[{"op_names": ["block.conv1"]}]"#).unwrap();
    let chain = DynamicLayerwiseDistiller::from_compressor(
        chain(),
        &rules,
        &net(),
        |teacher: &Net, batch: &Batch| teacher.stem.forward(batch.images.clone()),
        DistillConfig::new(1.0),
    );
    let error = chain.unwrap().compress(Budget::steps(1)).unwrap_err();
    assert_says(
        &error,
        &[
            "teacher layer `block.conv1`",
            "does not reach its `Wrapper`",
        ],
    );
}
