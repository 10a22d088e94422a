//! One layer: a mask, a cut, a grid and a wrapper, with numbers that can be worked out by hand.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;

use crate::output::{assert_close, show, values};

// ANCHOR: net
#[derive(Module, Debug)]
struct Net {
    conv: Wrapper<Conv2d>,
    head: Linear,
}

impl Net {
    /// Four filters of one weight each, and a head that adds up what they find.
    fn new(device: &Device) -> Self {
        let (conv, head) = (Conv2dConfig::new([1, 4], [1, 1]), LinearConfig::new(4, 1));
        let mut conv = conv.with_bias(false).init(device);
        let filters = Tensor::<1>::from_floats([0.7, -0.23, 0.04, -0.52], device);
        conv.weight = Param::from_tensor(filters.reshape([4, 1, 1, 1]));
        let mut head = head.with_bias(false).init(device);
        head.weight = Param::from_tensor(Tensor::ones([4, 1], device));
        Self {
            conv: conv.into(),
            head,
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let maps = self.conv.forward(images); // [batch, 4, height, width]
        self.head
            .forward(maps.mean_dim(3).mean_dim(2).flatten(1, 3))
    }
}
// ANCHOR_END: net

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    masked(&device)?;
    rounded(&device)?;
    wrapped(&device)?;
    both(&device)
}

fn masked(device: &Device) -> Result<(), Error> {
    // ANCHOR: mask
    let net = Net::new(device);
    let image = Tensor::<4>::ones([1, 1, 2, 2], device);
    assert_close(values(net.forward(image.clone())), &[-0.01]); // 0.7 - 0.23 + 0.04 - 0.52

    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let evaluator = Evaluator::<Net, Tensor<4>>::new()
        .with_dummy_input(DummyInput::new(image.clone(), Net::forward));
    let pruner = L1NormPruner::new(net, half, evaluator, PrunerConfig::new())?;
    let pruned = pruner.compress(Budget::none())?;

    let simulated = pruned.model();
    assert_close(values(simulated.conv.weight.val()), &[0.7, 0.0, 0.0, -0.52]);
    assert_close(values(simulated.forward(image.clone())), &[0.18]);
    // ANCHOR_END: mask

    // ANCHOR: raw
    let raw = pruned.unwrap_model();
    assert_close(values(raw.conv.weight.val()), &[0.7, -0.23, 0.04, -0.52]);
    let weight: TargetId = "conv.weight".parse()?;
    assert_eq!(pruned.masks()[&weight].values(), [1.0, 0.0, 0.0, 1.0]);
    // ANCHOR_END: raw

    // ANCHOR: cut
    let small = pruned.speedup()?.model;
    assert_eq!(small.conv.weight.dims(), [2, 1, 1, 1]);
    assert_eq!(small.head.weight.dims(), [2, 1]);
    assert_close(values(small.conv.weight.val()), &[0.7, -0.52]);
    assert_close(values(small.forward(image)), &[0.18]); // as before the cut
    // ANCHOR_END: cut
    Ok(())
}

fn rounded(device: &Device) -> Result<(), Error> {
    // ANCHOR: grid
    let int4 = on(["Conv2d"])
        .with_target_names(["weight"])
        .quant_dtype(QuantDtype::int(4)?);
    let evaluator = Evaluator::<Net, Tensor<4>>::new();
    let quantizer = PtqQuantizer::new(Net::new(device), int4, evaluator, PtqConfig::new())?;
    let quantized = quantizer.compress(Budget::none())?;

    let simulated = quantized.model();
    assert_close(values(simulated.conv.weight.val()), &[0.7, -0.2, 0.0, -0.5]);
    let weight: TargetId = "conv.weight".parse()?;
    let scale = quantized.calibration()?[&weight].scale.clone();
    assert_close(scale.unwrap_or_default(), &[0.1]); // 0.7 / 7
    // ANCHOR_END: grid
    Ok(())
}

fn wrapped(device: &Device) -> Result<(), Error> {
    // ANCHOR: wrapper
    let image = Tensor::<1>::from_floats([0.0, 0.33, 0.76, 1.5], device).reshape([1, 1, 2, 2]);
    let filter = |net: &Net| {
        let maps = net.conv.forward(image.clone());
        values(maps.narrow(1, 0, 1)) // what the first of the four filters finds
    };
    assert_close(filter(&Net::new(device)), &[0.0, 0.231, 0.532, 1.05]); // times 0.7

    let uint4 = on(["Conv2d"])
        .with_target_names(["_input_0"])
        .quant_dtype(QuantDtype::uint(4)?)
        .quant_scheme(QuantScheme::Affine);
    let data = image.clone();
    let evaluator = Evaluator::new()
        .with_data(move |_epoch| vec![data.clone()])
        .with_loss(|net: &Net, image: &Tensor<4>| net.forward(image.clone()).mean());
    let quantizer = PtqQuantizer::new(Net::new(device), uint4, evaluator, PtqConfig::new())?;
    let quantized = quantizer.compress(Budget::none())?;

    assert_close(filter(quantized.model()), &[0.0, 0.21, 0.56, 1.05]); // 0.7 x (0, 0.3, 0.8, 1.5)
    // ANCHOR_END: wrapper
    Ok(())
}

fn both(device: &Device) -> Result<(), Error> {
    // ANCHOR: both
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let int4 = on(["Conv2d"])
        .with_target_names(["weight"])
        .quant_dtype(QuantDtype::int(4)?);
    let image = Tensor::<4>::ones([1, 1, 2, 2], device);
    let evaluator =
        Evaluator::<Net, Tensor<4>>::new().with_dummy_input(DummyInput::new(image, Net::forward));

    let chain = L1NormPruner::new(Net::new(device), half, evaluator, PrunerConfig::new())?;
    let chain = PtqQuantizer::from_compressor(chain, int4, PtqConfig::new())?;
    show("one_layer", &chain);
    let compressed = chain.compress(Budget::none())?;
    assert_close(
        values(compressed.model().conv.weight.val()),
        &[0.7, 0.0, 0.0, -0.5],
    );

    let small = compressed.speedup()?.model;
    assert_close(values(small.conv.weight.val()), &[0.7, -0.5]);
    // ANCHOR_END: both
    Ok(())
}
