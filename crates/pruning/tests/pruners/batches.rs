//! Scores of gradients depend on how examples are put into batches.

use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Evaluator};
use burn_compress_pruning::{FisherConfig, FisherPruner, PrunerConfig};

/// The mask of two weights of 1 whose gradients are 3 and 1 in one example, -3 and 1 in the other.
fn mask(batches: &[&[[f32; 2]]]) -> Vec<f32> {
    let device = Device::flex();
    let slopes = |batch: &&[[f32; 2]]| {
        let rows = batch
            .iter()
            .map(|row| Tensor::<1>::from_floats(*row, &device).unsqueeze());
        Tensor::<2>::cat(rows.collect(), 0)
    };
    let data: Vec<Tensor<2>> = batches.iter().map(slopes).collect();
    let mut model = LinearConfig::new(1, 2).with_bias(false).init(&device);
    model.weight = Param::from_tensor(Tensor::ones([1, 2], &device));
    let evaluator = Evaluator::new()
        .with_data(move |_| data.clone())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.0)
        .with_loss(|model: &Linear, slopes: &Tensor<2>| {
            let device = model.weight.device();
            let output = model.forward(Tensor::ones([slopes.dims()[0], 1], &device));
            let losses = (output * slopes.clone().to_device(&device)).sum_dim(1);
            losses.mean()
        });
    let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#);
    let options = FisherConfig::new(batches.len());
    let options = options.with_pruner(PrunerConfig::new().with_coupled(false));
    let pruner = FisherPruner::new(model, config.unwrap(), evaluator, options).unwrap();
    let compressed = pruner.compress(Budget::steps(batches.len())).unwrap();
    compressed.masks()[0].values().to_vec()
}

#[test]
fn a_batch_of_both_examples_inverts_the_ranking() {
    // By examples, 1/2 * (9 + 9) / 2 = 4.5 and 1/2 * (1 + 1) / 2 = 0.5.
    assert_eq!(mask(&[&[[3.0, 1.0]], &[[-3.0, 1.0]]]), [1.0, 0.0]);
    // Of the mean, 1/2 * 0^2 = 0 and 1/2 * 1^2 = 0.5.
    assert_eq!(mask(&[&[[3.0, 1.0], [-3.0, 1.0]]]), [0.0, 1.0]);
}
