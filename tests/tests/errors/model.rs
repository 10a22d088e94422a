//! Models whose forward pass, channels or layers do not allow what is asked, and teachers that
//! cannot teach them.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, SgdConfig};
use burn::tensor::{Device, Tensor};
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
    assert!(
        matches!(error, PruningError::Core(Error::MissingEvaluator { .. })),
        "{error}"
    );
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
    assert!(matches!(
        error,
        PruningError::Core(Error::Graph(GraphError::Forward { .. }))
    ));
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
    let pruning = error.downcast_ref::<PruningError>();
    let Some(PruningError::Target { source, .. }) = pruning else {
        panic!("{error}")
    };
    assert!(matches!(**source, PruningError::Protected { .. }));
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
