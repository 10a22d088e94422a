//! Grids, scales and observers by hand, and what training brings back at few bits.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;
use burn_compress::quantization::{Granularity, ObserverKind, qparams};

use crate::output::{assert_close, values};
use crate::own_network::{Net, accuracy, evaluator, trained};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    schemes()?;
    blocks(&device)?;
    outlier(&device)?;
    let model = trained(&device);
    few_bits(&model, &device)?;
    folded(&model, &device)
}

fn schemes() -> Result<(), Error> {
    // ANCHOR: schemes
    let grid = |low, high, dtype, scheme| qparams::compute_one(low, high, dtype, scheme);

    // Behind a rectifier: nothing is negative, and half of a signed type would be empty.
    let (scale, zero) = grid(0.0, 6.0, QuantDtype::INT8, QuantScheme::Symmetric)?;
    assert_close([scale, zero], &[6.0 / 127.0, 0.0]);
    let (scale, zero) = grid(0.0, 6.0, QuantDtype::UINT8, QuantScheme::Affine)?;
    assert_close([scale, zero], &[6.0 / 255.0, 0.0]);

    // Both signs, but not alike: the zero point is the integer that stands for 0.
    let (scale, zero) = grid(-1.0, 3.0, QuantDtype::UINT8, QuantScheme::Affine)?;
    assert_close([scale, zero], &[4.0 / 255.0, 64.0]);
    // ANCHOR_END: schemes
    Ok(())
}

#[derive(Module, Debug)]
struct Layer {
    fc: Linear,
}

impl Layer {
    /// A linear layer without bias of this weight, `[inputs, outputs]`.
    fn new(weight: Tensor<2>) -> Self {
        let [inputs, outputs] = weight.dims();
        let mut fc = LinearConfig::new(inputs, outputs)
            .with_bias(false)
            .init(&weight.device());
        fc.weight = Param::from_tensor(weight);
        Self { fc }
    }
}

/// The weight as it is simulated with this rule.
fn simulated(weight: Tensor<2>, rule: Rule<QuantizationSettings>) -> Result<Tensor<2>, Error> {
    let evaluator = Evaluator::<Layer, Tensor<2>>::new();
    let quantizer = PtqQuantizer::new(Layer::new(weight), rule, evaluator, PtqConfig::new())?;
    Ok(quantizer.compress(Budget::none())?.model().fc.weight.val())
}

fn blocks(device: &Device) -> Result<(), Error> {
    // ANCHOR: blocks
    // Two outputs, one of large weights and one of small ones; a row is an input in Burn.
    let weight = Tensor::<2>::from_floats([[0.7, 0.014], [-0.33, 0.0061]], device);
    let four = QuantDtype::int(4)?;
    let int4 = || on(["Linear"]).quant_dtype(four);

    let one_scale = simulated(weight.clone(), int4())?; // 0.1
    assert_close(values(one_scale), &[0.7, 0.0, -0.3, 0.0]);

    let by_output = simulated(weight, int4().granularity(Granularity::OutChannel))?; // 0.1, 0.002
    assert_close(values(by_output), &[0.7, 0.014, -0.3, 0.006]);
    // ANCHOR_END: blocks
    Ok(())
}

fn outlier(device: &Device) -> Result<(), Error> {
    // ANCHOR: outlier
    // 4000 values between -1 and 1, and one of 8.
    let mut numbers: Vec<f32> = (0..4000)
        .map(|at| (at % 401) as f32 / 200.0 - 1.0)
        .collect();
    numbers[7] = 8.0;
    let weight = Tensor::<1>::from_floats(numbers.as_slice(), device).reshape([1, 4000]);
    let error = |observer| -> Result<f32, Error> {
        let rule = on(["Linear"])
            .quant_dtype(QuantDtype::int(4)?)
            .observer(observer);
        let rounded = simulated(weight.clone(), rule)?;
        Ok((rounded - weight.clone())
            .square()
            .sum()
            .into_scalar::<f32>())
    };
    let extremes = error(ObserverKind::MinMax)?;
    let percentile = error(ObserverKind::Percentile(99.9))?;
    let least = error(ObserverKind::Mse)?;
    assert!(least < extremes / 3.0 && least <= percentile);
    // ANCHOR_END: outlier
    println!("squared error: extremes {extremes:.0}, 99.9 % {percentile:.0}, least {least:.0}");
    Ok(())
}

fn few_bits(model: &Net, device: &Device) -> Result<(), Error> {
    // ANCHOR: few_bits
    let bits = |bits| -> Result<ConfigList<QuantizationSettings>, Error> {
        let rule = on(["Conv2d"]).with_target_names(["weight"]);
        let rule = rule
            .quant_dtype(QuantDtype::int(bits)?)
            .granularity(Granularity::OutChannel);
        Ok(rule.into())
    };
    let evaluator = || evaluator(device);
    let calibrated = |rules| -> Result<f64, Error> {
        let chain = PtqQuantizer::new(model.clone(), rules, evaluator(), PtqConfig::new())?;
        Ok(accuracy(chain.compress(Budget::none())?.model()))
    };
    let trained = |rules| -> Result<f64, Error> {
        let chain = QatQuantizer::new(model.clone(), rules, evaluator(), QatConfig::new())?;
        Ok(accuracy(chain.compress(Budget::steps(60))?.model()))
    };
    let learned_steps = |rules| -> Result<f64, Error> {
        let chain = LsqQuantizer::new(model.clone(), rules, evaluator(), LsqConfig::new())?;
        Ok(accuracy(chain.compress(Budget::steps(60))?.model()))
    };

    let dense = accuracy(model);
    let eight = calibrated(bits(8)?)?;
    let two = [
        calibrated(bits(2)?)?,
        trained(bits(2)?)?,
        learned_steps(bits(2)?)?,
    ];
    assert!((eight - dense).abs() < 0.01); // eight bits cost nothing, and no training
    assert!(two[0] < dense - 0.03); // two bits do
    assert!(two[1] > two[0] + 0.02 && two[2] > two[0] + 0.02); // training brings most of it back
    // ANCHOR_END: few_bits
    println!("accuracy: dense {dense:.3}, 8 bits {eight:.3}, 2 bits {two:.3?}");
    Ok(())
}

fn folded(model: &Net, device: &Device) -> Result<(), Error> {
    // ANCHOR: folded
    let rules = on(["Conv2d"])
        .with_target_names(["_input_0", "weight"])
        .fuse(true);
    let chain = QatQuantizer::new(model.clone(), rules, evaluator(device), QatConfig::new())?;
    let compressed = chain.compress(Budget::steps(20))?;
    let norm = &compressed.model().norm1;
    assert_close(values(norm.gamma.val()), &[1.0; 16]); // what it did is in the convolution now
    // ANCHOR_END: folded
    Ok(())
}
