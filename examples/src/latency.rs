//! Forward time of a small network as a fraction of the dense one's.

use std::time::Instant;

use anyhow::{Context, anyhow};
use burn::module::Module;

use crate::digits::Split;
use crate::resnet::DigitsResNet;

const WARM_UP: usize = 5;
const ROUNDS: usize = 31;

/// Median forward time of `small` divided by that of `dense`, on the first `batch` digits of
/// `split`; below 1 the small network is faster.
///
/// Both run in evaluation mode, in turns, so that what slows the machine down for a while slows
/// both. The time ends when the logits have reached the host.
///
/// # Errors
///
/// If `split` has fewer than `batch` digits, `batch` is 0, or a device fails.
pub fn ratio(
    dense: &DigitsResNet,
    small: &DigitsResNet,
    split: &Split,
    batch: usize,
) -> anyhow::Result<f64> {
    if batch == 0 || batch > split.len() {
        return Err(anyhow!(
            "expected a batch of 1 to {} digits, found {batch}",
            split.len()
        ));
    }
    let forward = |model: &DigitsResNet| {
        let images = split.head(batch, &model.device().inner()).images;
        let model = model.valid();
        move || -> anyhow::Result<()> {
            let logits = model.forward(images.clone());
            logits.try_into_data().context("the forward pass failed")?;
            Ok(())
        }
    };
    let (dense, small) = (forward(dense), forward(small));

    let mut times = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for round in 0..WARM_UP + ROUNDS {
        let of_dense = seconds(&dense)?;
        let of_small = seconds(&small)?;
        if round >= WARM_UP {
            times.0.push(of_dense);
            times.1.push(of_small);
        }
    }
    Ok(median(times.1) / median(times.0))
}

fn seconds(run: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The middle one of an odd number of values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::digits::Digits;
    use crate::resnet::DigitsResNetConfig;

    #[test]
    fn median_is_the_middle_value() {
        assert_eq!(median(vec![5.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(ROUNDS % 2, 1);
    }

    #[test]
    fn a_much_narrower_network_is_faster() {
        let device = Device::flex();
        let test = Digits::load().unwrap().test;
        let dense = DigitsResNetConfig::new().init(&device);
        let small = DigitsResNetConfig::new()
            .with_widths([2, 4, 8])
            .init(&device);
        let ratio = ratio(&dense, &small, &test, 16).unwrap();
        assert!(ratio > 0.0 && ratio < 1.0, "{ratio}");
    }

    #[test]
    fn a_batch_that_the_data_cannot_fill_is_an_error() {
        let model = DigitsResNetConfig::new().init(&Device::flex());
        let test = Digits::load().unwrap().test;
        assert!(ratio(&model, &model, &test, 0).is_err());
        assert!(ratio(&model, &model, &test, 361).is_err());
    }
}
