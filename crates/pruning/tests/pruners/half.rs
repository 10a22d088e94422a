//! Models in half precision.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, FloatDType, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Compressor, DummyInput, Evaluator, Wrapper};
use burn_compress_pruning::registry::Entry;
use burn_compress_pruning::{AgpConfig, AgpPruner, pruners};

use crate::nets::{Fill, Random};

#[derive(Module, Debug)]
struct Net {
    fc: Wrapper<Linear>,
    /// Reads the channels of `fc`, so that a cut can follow.
    head: Linear,
}

struct Half;

impl ModuleMapper for Half {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let learns = tensor.is_require_grad();
            tensor
                .detach()
                .cast(FloatDType::F16)
                .set_require_grad(learns)
        })
    }
}

fn chain(half: bool) -> Compressor<Net, ()> {
    let device = Device::flex();
    let fc = LinearConfig::new(4, 6).with_bias(false).init(&device);
    let head = LinearConfig::new(6, 2).init(&device);
    let fc = fc.into();
    let net = Net { fc, head }.map(&mut Fill(Random::new(3)));
    let net = if half { net.map(&mut Half) } else { net };
    let dummy = DummyInput::new(Tensor::ones([2, 4], &device), |net: &Net, x: Tensor<2>| {
        let x = net.fc.forward(x.cast(net.fc.weight.val().dtype()));
        net.head.forward(x)
    });
    let evaluator = Evaluator::new()
        .with_dummy_input(dummy)
        .with_data(|_| [()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(1e-3)
        .with_loss(|net: &Net, ()| {
            let weight = net.fc.weight.val();
            let x = Tensor::<2>::ones([2, 4], &weight.device()).cast(weight.dtype());
            // Gradients near 1e-4: their squares are zero in half precision.
            net.fc.forward(x).square().mean() * 2e-4
        });
    Compressor::from_model(net, evaluator)
}

fn masks(pruner: &Entry<Net, ()>, half: bool) -> Vec<f32> {
    let config = ConfigList::from_json(
        r#"[{"op_names": ["fc"], "target_names": ["weight"], "sparse_ratio": 0.5,
            "granularity": "out_channel", "dependency_group_id": "by hand"}]"#,
    );
    let chain = (pruner.fuse)(chain(half), &config.unwrap(), 2).unwrap();
    let chain = match pruner.needs.schedulable() {
        true => AgpPruner::new(chain, AgpConfig::new(2, 2)).unwrap(),
        false => chain,
    };
    let compressed = chain.compress(Budget::steps(5)).unwrap();
    let masks = compressed.masks();
    let dtype = compressed.unwrap_model().fc.weight.val().dtype();
    let expected = if half {
        FloatDType::F16
    } else {
        FloatDType::F32
    };
    assert_eq!(FloatDType::from(dtype), expected, "{}", pruner.name);
    masks[0].values().to_vec()
}

#[test]
fn each_prunes_in_half_precision_as_in_single_precision() {
    for pruner in pruners() {
        let half = masks(&pruner, true);
        assert_eq!(
            half.iter().filter(|&&m| m == 0.0).count(),
            12,
            "{}",
            pruner.name
        );
        assert_eq!(half, masks(&pruner, false), "{}", pruner.name);
    }
}
